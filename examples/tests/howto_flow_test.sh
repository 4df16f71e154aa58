# A source that is faster than its sink: the first batches are those of the initial rate, later ones as large as there is time for.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cat > "$work/expected" << 'END'
2000 records, waited 0 ms; fetcher may take in 2000 a second
0 records, waited 1000 ms; fetcher may take in 2000 a second
2000 records, waited 0 ms; fetcher may take in 1000 a second
1000 records, waited 1000 ms; fetcher may take in 800 a second
800 records, waited 1000 ms; fetcher may take in 800 a second
800 records, waited 800 ms; fetcher may take in 840 a second
640 records, waited 600 ms; fetcher may take in 880 a second
704 records, waited 240 ms; fetcher may take in 952 a second
387 records, waited 0 ms; fetcher may take in 1000 a second
END
expect_status 0 "$program"
expect_same "$work/expected" "$work/run.out" "batches and rates"
passed "batches and rates"
