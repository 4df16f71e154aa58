# A source with a thread: what was not acknowledged when the connection broke comes again, and nothing is lost.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cat > "$work/expected" << 'END'
broker: restarting: reading from the broker failed: the connection was reset
1100 messages came, 1000 of them different; acknowledged up to 1000
END
expect_status 0 "$program"
expect_same "$work/expected" "$work/run.out" "a source with a thread of its own"
passed "a source with a thread of its own"
