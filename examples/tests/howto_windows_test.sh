# The windows that docs/howto/use-windows.md shows.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cat > "$work/expected" << 'END'
windows that slide, as expected
END
expect_status 0 "$program"
expect_same "$work/expected" "$work/run.out" "the windows of the page"
passed "the windows of the page"
