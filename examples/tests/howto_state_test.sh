# State in a stream.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

echo 'states that go on, as expected' > "$work/expected"
expect_status 0 "$program"
expect_same "$work/expected" "$work/run.out" "states in a stream"
passed "states in a stream"
