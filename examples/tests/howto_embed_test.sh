# A service that is ended by SIGTERM and waits as Asio does.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cat > "$work/expected" << 'END'
stopped
30 events handled
END
expect_status 0 "$program"
expect_same "$work/expected" "$work/run.out" "a pipeline on the threads of a service"
passed "a pipeline on the threads of a service"
