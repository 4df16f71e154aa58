# Totals from one topic into another, in a cluster inside the program; a real one is that of tests/integration.sh.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

expect_status 0 "$program" --mock
# Which of two partitions comes first in a batch, and whether one batch has both, is not known. What is known: each word has each
# total once, in order.
sort -s -k1,1 "$work/run.out" > "$work/totals"
printf '%s\n' 'and 1' 'and 2' 'comes 1' 'goes 1' 'mill 1' 'mill 2' 'mill 3' 'the 1' 'the 2' 'the 3' 'tide 1' 'tide 2' 'tide 3' \
  'tide 4' 'turns 1' > "$work/expected"
expect_same "$work/expected" "$work/totals" "each total of each word"
passed "each total of each word once, in order"

expect_status 2 "$program"
expect_status 2 "$program" localhost:9092 lines totals
passed "a usage and status 2 for arguments that are missing"
