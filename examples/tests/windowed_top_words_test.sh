# The top ten of a sliding window, against the same by awk, and against a small one by hand.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

printf '%s\n' '0 high tide' '3 the tide' '12 low tide' '14 the ebb the flow' '27 ebb' > "$work/messages"
cat > "$work/expected" << 'END'
10 s: tide 2 high 1 the 1
20 s: the 3 tide 3 ebb 1 flow 1 high 1 low 1
30 s: the 3 tide 3 ebb 2 flow 1 high 1 low 1
40 s: ebb 2 the 2 flow 1 low 1 tide 1
50 s: ebb 1
1 min:
END
expect_status 0 "$program" < "$work/messages"
expect_same "$work/expected" "$work/run.out" "the words of five messages"

# Ten minutes of messages from a generator; awk goes through all of them again for each window.
awk 'BEGIN {
  x = 1
  for (i = 0; i < 3000; ++i) {
    x = (x * 16807) % 2147483647
    message = int(i / 5)
    for (w = x % 6; w >= 0; --w) { x = (x * 16807) % 2147483647; message = message " w" int(sqrt(x % 900)) }
    print message
  }
}' > "$work/messages"
awk '{ last = $1 + 1; for (i = 2; i <= NF; ++i) { ++n; second[n] = $1; word[n] = $i } }
END {
  for (end = 10; end <= last + 40; end += 10) {
    delete count
    for (i = 1; i <= n; ++i) if (second[i] >= end - 30 && second[i] < end) ++count[word[i]]
    line = end ":"
    for (k = 0; k < 10; ++k) {
      best = ""
      for (w in count) if (best == "" || count[w] > count[best] || (count[w] == count[best] && w < best)) best = w
      if (best == "") break
      line = line " " best " " count[best]
      delete count[best]
    }
    print line
  }
}' "$work/messages" > "$work/expected"
expect_status 0 "$program" < "$work/messages"
cut -d: -f2 "$work/expected" > "$work/expected.tops"
cut -d: -f2 "$work/run.out" > "$work/found.tops"
expect_same "$work/expected.tops" "$work/found.tops" "the words of ten minutes"
passed "the ten most frequent words of a sliding window"
