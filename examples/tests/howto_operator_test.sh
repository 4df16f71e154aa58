# Operators of one's own.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cat > "$work/expected" << 'END'
four operators, all as expected
END
expect_status 0 "$program"
expect_same "$work/expected" "$work/run.out" "operators of one's own"
passed "operators of one's own"
