# The word count against an oracle of tr, sort and uniq, from all three sources.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# A text of that size is on every Debian; elsewhere our own licence must do.
text=/usr/share/common-licenses/GPL-3
[[ -r $text ]] || text=$TIDEMILL_SOURCE_DIR/LICENSE

# The words of a file as --totals prints them.
oracle() {
  tr -s ' ' '\n' < "$1" | sed '/^$/d' | sort | uniq -c | awk '{n = $1; sub(/^ *[0-9]+ /, ""); print $0 "\t" n}' | in_order
}
in_order() { sort -t "$(printf '\t')" -k2,2nr -k1,1; }
oracle "$text" > "$work/expected"
words=$(tr -s ' ' '\n' < "$text" | sed '/^$/d' | wc -l)

# ---- replay ---------------------------------------------------------------------------------------------------------

for interval in 1ms 20ms 300ms; do
  for parallelism in 1 2; do
    expect_status 0 "$program" --replay "$text" --interval $interval --parallelism $parallelism --totals
    expect_same "$work/expected" "$work/run.out" "totals with --interval $interval --parallelism $parallelism"
  done
done
passed "a replay counts every word once, at any interval and parallelism"

expect_status 0 "$program" --replay "$text" --interval 2ms --max-buffered 1 --totals
expect_same "$work/expected" "$work/run.out" "totals while the inbox pushes back"
passed "nothing is lost or doubled when the inbox is always full"

expect_status 0 "$program" --replay "$text" --interval 50ms --rate 2000 --totals
expect_same "$work/expected" "$work/run.out" "totals at 2000 lines a second"
grep -q "^$words words\$" "$work/run.err" || fail "the number of all words is not told" "$work/run.err"
(($(grep -c ' words, .* lines/s, processing time .*, total delay ' "$work/run.err") >= 3)) ||
  fail "a replay of a third of a second has fewer than three batches of 50 ms" "$work/run.err"
passed "a paced replay shows each batch on the standard error when the totals go to the standard output"

expect_status 0 "$program" --replay "$text" --interval 20ms
grep -Eq "^[0-9:.]{12}  the [0-9]+, .*\(.*processing time" "$work/run.out" ||
  fail "no batch has \"the\" as its most frequent word" "$work/run.out"
[[ ! -s $work/run.err ]] || fail "something was said on the standard error" "$work/run.err"
passed "without --totals the progress goes to the standard output"

printf 'to be  or not\r\n\r\n   to be \r\n' > "$work/crlf"
printf 'be\t3\nto\t2\nnot\t1\nor\t1\n' > "$work/few"
{ cat "$work/crlf"; printf 'be'; } > "$work/open_end"
expect_status 0 "$program" --replay "$work/open_end" --interval 5ms --totals
expect_same "$work/few" "$work/run.out" "totals of a text with CRLF and no last newline"
: > "$work/empty"
expect_status 0 "$program" --replay "$work/empty" --interval 5ms --totals
[[ ! -s $work/run.out ]] || fail "an empty file has words" "$work/run.out"
passed "CRLF, spaces in a row, a missing last newline and an empty file"

{ echo before; head -c 2000000 /dev/zero | tr '\0' x; echo; echo after; } > "$work/long"
expect_status 1 "$program" --replay "$work/long" --interval 5ms --totals
printf 'after\t1\nbefore\t1\n' > "$work/short"
expect_same "$work/short" "$work/run.out" "totals of a text with a line of 2 MB"
grep -q 'of 3 lines only 2 were received' "$work/run.err" || fail "the loss of a line is not told" "$work/run.err"
passed "a line that is too long is left out, and that is told"

# ---- Ctrl-C ---------------------------------------------------------------------------------------------------------

"$program" --replay "$text" --rate 200 --interval 20ms --totals > "$work/cut.out" 2> "$work/cut.err" &
started+=($!)
has_batches() { [[ -s $work/cut.err ]] && (($(grep -c 'lines/s' "$work/cut.err") >= 5)); }
wait_for "five batches of a slow replay" has_batches
kill -INT "${started[-1]}"
wait "${started[-1]}" || fail "a replay that was interrupted exits with status $?" "$work/cut.err"
count=$(sed -n 's/^\([0-9]*\) words until it was stopped$/\1/p' "$work/cut.err")
[[ -n $count ]] && ((count > 0 && count < words)) || fail "the number of words until the stop is wrong" "$work/cut.err"
# What was counted is the text up to some line.
lines=$(awk -F ' ' -v count="$count" '{n = split($0, words, / +/); for (i in words) if (words[i] != "") ++sum}
                                      sum >= count {print NR; exit}' "$text")
head -n "$lines" "$text" > "$work/prefix"
oracle "$work/prefix" > "$work/prefix.expected"
expect_same "$work/prefix.expected" "$work/cut.out" "totals of the $lines lines received before Ctrl-C"
passed "Ctrl-C ends a slow replay with the totals of what was received"

# ---- socket ---------------------------------------------------------------------------------------------------------

serve 0 "$work/port" < "$text" &
started+=($!)
wait_for "the server's port" test -s "$work/port"
"$program" --socket "127.0.0.1:$(< "$work/port")" --interval 20ms --totals > "$work/socket.out" 2> "$work/socket.err" &
started+=($!)
counted_all() {  # the file with the progress
  [[ -s $1 ]] && (($(sed -n 's/.*(\([0-9]*\) words, .*processing time.*/\1/p' "$1" | awk '{sum += $1} END {print sum + 0}') >= words))
}
wait_for "all words from the socket" counted_all "$work/socket.err"
kill -TERM "${started[-1]}"
wait "${started[-1]}" || fail "word_count --socket exits with status $?" "$work/socket.err"
expect_same "$work/expected" "$work/socket.out" "totals from a socket"
passed "words from a server, until SIGTERM"

# ---- directory ------------------------------------------------------------------------------------------------------

mkdir "$work/in"
"$program" --directory "$work/in" --interval 20ms --totals > "$work/files.out" 2> "$work/files.err" &
started+=($!)
wait_for "the start of the directory stream" grep -qs Counting "$work/files.err"
split -n l/3 "$text" "$work/part."
for part in "$work"/part.*; do mv "$part" "$work/in/"; done
wait_for "all words from the directory" counted_all "$work/files.err"
kill -INT "${started[-1]}"
wait "${started[-1]}" || fail "word_count --directory exits with status $?" "$work/files.err"
expect_same "$work/expected" "$work/files.out" "totals from a directory"
passed "words from files that are moved into a directory"

# ---- a terminal -----------------------------------------------------------------------------------------------------

if command -v script > /dev/null; then
  script -qec "$program --replay $text --interval 20ms" /dev/null < /dev/null > "$work/terminal.out"
  grep -q "$(printf '\r\033\\[K')" "$work/terminal.out" || fail "no status line is rewritten on a terminal" "$work/terminal.out"
  passed "a live status line on a terminal"
fi

# ---- bad options ----------------------------------------------------------------------------------------------------

refuses() {
  local sentence=$1
  shift
  expect_status 2 "$program" "$@"
  grep -q -- "$sentence" "$work/run.err" || fail "\"$*\" is not refused with \"$sentence\"" "$work/run.err"
}
refuses 'Say where the text comes from'
refuses 'Say where the text comes from' --replay "$text" --socket localhost:1
refuses 'There is no option "--reply"' --reply "$text"
refuses '--replay needs a value' --replay
refuses '--socket needs HOST:PORT' --socket 9999
refuses 'whole number, and was given "70000"' --socket localhost:70000
refuses '--interval needs a time above zero' --replay "$text" --interval 0s
refuses '--interval needs a time above zero' --replay "$text" --interval 5
refuses '--rate needs a whole number, and was given "-1"' --replay "$text" --rate -1
refuses 'parallelism' --replay "$text" --parallelism 100000
expect_status 1 "$program" --replay "$work/nowhere"
grep -q 'nowhere cannot be opened: No such file or directory' "$work/run.err" || fail "a missing file is not named" "$work/run.err"
expect_status 0 "$program" --help
grep -q -- '--max-buffered BYTES' "$work/run.out" || fail "--help does not help" "$work/run.out"
passed "bad options get a sentence and status 2, --help helps"

# ---- 100 MB ---------------------------------------------------------------------------------------------------------

# 10 MB of words, seeded, most of them rare and some in every line; then the same in nine more alphabets.
awk 'BEGIN {
  srand(42)
  for (i = 1; i <= 50000; ++i) {
    word = ""
    for (n = 2 + int(rand() * 9); n > 0; --n) word = word substr("abcdefghijklmnopqrstuvwxyz", 1 + int(rand() * 26), 1)
    words[i] = word
  }
  for (bytes = 0; bytes < 10000000; bytes += length(line) + 1) {
    line = words[int(exp(rand() * log(50000)))]
    for (n = 4 + int(rand() * 11); n > 0; --n) line = line " " words[int(exp(rand() * log(50000)))]
    print line
  }
}' > "$work/block"
for ((shift = 0; shift < 10; ++shift)); do
  alphabet=abcdefghijklmnopqrstuvwxyz
  tr "$alphabet" "${alphabet:shift}${alphabet:0:shift}" < "$work/block"
done > "$work/big"
(($(wc -c < "$work/big") >= 100000000)) || fail "the generated file has less than 100 MB"
tr -s ' ' '\n' < "$work/big" | awk '$0 != "" {++n[$0]} END {for (word in n) print word "\t" n[word]}' | in_order > "$work/big.expected"

expect_status 0 "$program" --replay "$work/big" --interval 50ms --parallelism 2 --max-buffered 8000000 --totals
expect_same "$work/big.expected" "$work/run.out" "totals of 100 MB that are held back again and again"
expect_status 0 "$program" --replay "$work/big" --interval 1s --parallelism 1 --totals
expect_same "$work/big.expected" "$work/run.out" "totals of 100 MB in batches of a second"
passed "100 MB as fast as they come, with and without an inbox that pushes back"
