# Killed again and again, the totals continue.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

mkdir "$work/in" "$work/out"
start() {
  rm -f "$work/program.err"
  "$program" "$work/in" "$work/checkpoint" "$work/out/totals" 2> "$work/program.err" &
  counter=$!
  started+=("$counter")
  # A file that is older than the first start is not counted, and a checkpoint has its owner only now.
  wait_for "the start" grep -qs Counting "$work/program.err"
}
# put NAME WORD...: a file of words, moved in whole.
put() {
  local name=$1
  shift
  printf '%s\n' "$@" > "$work/$name"
  mv "$work/$name" "$work/in/$name"
}
# Every total of every word, in order: each exactly once, if nothing was lost or doubled.
totals() {
  find "$work/out" -path '*/totals-*/part-*' -exec cat {} + | sed -n 's/^(\(.*\),\([0-9]*\))$/\1 \2/p' | sort -k1,1 -k2,2n
}
has() { totals > "$work/totals"; grep -qsx "$1" "$work/totals"; }

start
put one tide mill tide
wait_for "the first totals" has 'tide 2'
put two tide
kill_now "$counter"
put three mill
start
wait_for "the totals after a kill" has 'tide 3'
wait_for "what came while it was down" has 'mill 2'
kill_now "$counter"
start
put four tide
wait_for "the totals after another kill" has 'tide 4'
kill -INT "$counter"
wait "$counter" || fail "it did not end well" "$work/program.err"
printf '%s\n' 'mill 1' 'mill 2' 'tide 2' 'tide 3' 'tide 4' > "$work/expected"
totals > "$work/totals"
expect_same "$work/expected" "$work/totals" "the totals of all runs"
passed "the totals continue, however it ends"

expect_status 2 "$program"
start
expect_status 1 "$program" "$work/in" "$work/checkpoint" "$work/out/totals"
grep -q "$counter" "$work/run.err" || fail "the second program does not name the first" "$work/run.err"
passed "a second program is refused, and told who has the checkpoint"
