# One thread for everything.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cat > "$work/expected" << 'END'
5 batches, 500 records, one thread
END
expect_status 0 "$program"
expect_same "$work/expected" "$work/run.out" "a host that runs the batches itself"
passed "a host that runs the batches itself"
