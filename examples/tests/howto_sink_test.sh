# Sinks: attempts that help, a batch that fails all the same, and the ones after it.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cat > "$work/expected" << 'END'
write_rows failed: a user function threw in foreach_partition: the database refused the connection [application sink, operator foreach_partition, batch 1003000 ms, partition 0]
1001000 ms  ebb 2
1001000 ms  flow 1
1002000 ms  flow 1
1004000 ms  ebb 1
ebb 3 in all
flow 3 in all
5 rows in the journal, 1 of them frequent
END
expect_status 0 "$program"
expect_same "$work/expected" "$work/run.out" "four sinks, one batch that failed"
passed "four sinks, one batch that failed"
