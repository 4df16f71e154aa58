# The tests that docs/howto/write-a-source.md shows.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cat > "$work/expected" << 'END'
what arrived in an interval is its batch: ok
what was not acknowledged comes again after a restart: ok
END
expect_status 0 "$program"
expect_same "$work/expected" "$work/run.out" "the tests of a source"
passed "the tests of a source"
