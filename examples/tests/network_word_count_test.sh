# The program of the README, fed on its fixed port.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# The port belongs to one test at a time, whoever runs it.
exec 9> "${TMPDIR:-/tmp}/tidemill-test-port-9999.lock"
flock 9

printf '%s\n' 'to be or not to be' 'that is the question' > "$work/text"
serve 9999 "$work/port" < "$work/text" 9>&- &
started+=($!)
wait_for "a free port 9999" test -s "$work/port"
"$program" > "$work/counts.out" 2> "$work/counts.err" 9>&- &
started+=($!)

# A batch may end between the two lines, so add up what the batches say.
sums() { sed -n 's/^(\(.*\),\([0-9]*\))$/\1 \2/p' "$work/counts.out" | awk '{n[$1] += $2} END {for (w in n) print w, n[w]}' | sort; }
printf '%s\n' 'be 2' 'is 1' 'not 1' 'or 1' 'question 1' 'that 1' 'the 1' 'to 2' > "$work/expected"
all_counted() { sums > "$work/sums"; (($(awk '{n += $2} END {print n + 0}' "$work/sums") >= 10)); }
wait_for "all words" all_counted
expect_same "$work/expected" "$work/sums" "word counts"
head -n 3 "$work/counts.out" | sed 's/[0-9]\{13\} ms/MILLISECONDS/' > "$work/header"
printf '%s\n' ------------------------------------------- 'Time: MILLISECONDS' ------------------------------------------- > "$work/form"
expect_same "$work/form" "$work/header" "the header of a batch"
passed "the words of a server on port 9999, printed batch by batch"
