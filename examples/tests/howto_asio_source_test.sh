# An asynchronous source: every line of three connections comes, once.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cat > "$work/expected" << 'END'
3000 lines came, whose sum is 1501500
END
expect_status 0 "$program"
expect_same "$work/expected" "$work/run.out" "an asynchronous source"
passed "an asynchronous source"
