# The short form of the comparison. Its point is that all models give the same alerts, which the program checks itself.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

expect_status 0 "$program" --seconds 0.2 --rates 2000,50000
grep -Eq '^All models gave the same [1-9][0-9]* alerts\.$' "$work/run.out" || fail "no alerts were compared" "$work/run.out"
header='on arrival +1 ms +10 ms +100 ms +1 s$'
(($(grep -Ec "$header" "$work/run.out") == 2)) || fail "the two tables do not name the five models" "$work/run.out"
wait='[0-9.]+ (us|ms|s) / [0-9.]+ (us|ms|s)'
(($(grep -Ec "^ +[0-9.]+ k( +$wait){5}\$" "$work/run.out") == 2)) || fail "not every rate has five waits" "$work/run.out"
(($(grep -Ec '^ +[0-9.]+ k( +[0-9.]+ [kM]? ?[0-9.]+%){5}$' "$work/run.out") == 2)) ||
  fail "not every rate has five throughputs" "$work/run.out"
passed "the same alerts at two rates through five models"

# Payments wait for their interval: that is the trade-off.
[[ $(sed -n 3p "$work/run.out") =~ [0-9.]+\ (ms|s)\ /\ [0-9.]+\ (ms|s)$ ]] || fail "no median wait of 1 s batches" "$work/run.out"
passed "batches of 1 s keep payments waiting for some hundred milliseconds"

expect_status 2 "$program" --rates 0
grep -q -- '--rates needs numbers above 0, and was given "0"' "$work/run.err" || fail "a rate of 0 is not refused" "$work/run.err"
expect_status 2 "$program" --slow
passed "bad options get a sentence and status 2"
