# The words of a topic, from a cluster inside the program.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

expect_status 0 "$program" --mock
# A batch may end between two lines, so add up what the batches say.
sed -n 's/^(\(.*\),\([0-9]*\))$/\1 \2/p' "$work/run.out" | awk '{n[$1] += $2} END {for (w in n) print w, n[w]}' | sort > "$work/counts"
printf '%s\n' 'and 2' 'comes 1' 'goes 1' 'mill 3' 'the 3' 'tide 4' 'turns 1' > "$work/expected"
expect_same "$work/expected" "$work/counts" "the words of five lines"
passed "the words of a topic with two partitions"

expect_status 2 "$program"
expect_status 2 "$program" localhost:9092
passed "a usage and status 2 for arguments that are missing"
