# Totals over all batches, from a server.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

printf '%s\n' 'hello tide' 'the tide comes and the tide goes' 'hello' > "$work/text"
serve 0 "$work/port" < "$work/text" &
started+=($!)
wait_for "the server's port" test -s "$work/port"
"$program" 127.0.0.1 "$(< "$work/port")" > "$work/totals.out" 2> "$work/totals.err" &
started+=($!)

# A batch may end between two lines, so look at the last total of each word.
last() { sed -n 's/^(\(.*\),\([0-9]*\))$/\1 \2/p' "$work/totals.out" | awk '{n[$1] = $2} END {for (w in n) print w, n[w]}' | sort; }
printf '%s\n' 'and 1' 'comes 1' 'goes 1' 'hello 3' 'the 2' 'tide 3' > "$work/expected"
all_counted() { last > "$work/last"; cmp -s "$work/last" "$work/expected"; }
wait_for "the totals of all words" all_counted
grep -q '^(world' "$work/totals.out" && fail "a word that nobody said has a new total" "$work/totals.out"
passed "totals that go on from the initial ones"
