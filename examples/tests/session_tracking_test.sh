# Visits that end by logging out, and by silence.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

printf '%s\n' 'ann home' 'bob home' 'ann news' 'ann logout' 'bob prices' 'cyd home' 'ann home' 'dan logout' > "$work/pages"
serve 0 "$work/port" < "$work/pages" &
started+=($!)
wait_for "the server's port" test -s "$work/port"
"$program" 127.0.0.1 "$(< "$work/port")" > "$work/visits.out" 2> "$work/visits.err" &
started+=($!)

is_over() { [[ -s $work/visits.out ]] && grep -q 'nobody is here' "$work/visits.out"; }
wait_for "the end of all visits" is_over
sort "$work/visits.out" > "$work/visits"
cat > "$work/expected" << 'END'
ann: 1 pages, the last one home, gone
ann: 2 pages, the last one news, logged out
bob: 2 pages, the last one prices, gone
cyd: 1 pages, the last one home, gone
nobody is here
END
expect_same "$work/expected" "$work/visits" "the visits that ended"
head -n 1 "$work/visits.out" | grep -q 'logged out' || fail "the visit that was ended first is not the first" "$work/visits.out"
expect_status 2 "$program"
passed "visits that end by logging out and by silence"
