#!/usr/bin/env bash
# tidemill-checkpoint on a checkpoint that a test program left (TIDEMILL_BUILD_DIR is the build tree).
set -euo pipefail
tool=$TIDEMILL_BUILD_DIR/src/tools/tidemill-checkpoint
maker=$TIDEMILL_BUILD_DIR/tests/make_checkpoint
if [[ ! -x $tool ]]; then
  echo "the tools are not built (TIDEMILL_BUILD_TOOLS is off), so that they are not tested"
  exit 0
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }
# expect <status> <text> <argument>...: the tool's exit status, and something that it says.
expect() {
  local want=$1 text=$2 status=0
  shift 2
  "$tool" "$@" > "$dir/out" 2>&1 || status=$?
  [[ $status == "$want" ]] || fail "$*: exit status $status, not $want: $(cat "$dir/out")"
  grep -qF -- "$text" "$dir/out" || fail "$*: does not say \"$text\": $(cat "$dir/out")"
}

"$maker" "$dir/c"
cp -r "$dir/c" "$dir/before"
expect 0 "Usage:" --help
expect 0 "tidemill-checkpoint" --version
expect 2 "a command is missing"
expect 2 "unknown command" look "$dir/c"
expect 2 "needs one directory" list
expect 2 "unknown option" list --all "$dir/c"
expect 1 "holds no checkpoint" list "$dir"
expect 1 "not exist" verify "$dir/none"
expect 0 "application   simulated" list "$dir/c"
expect 0 "uncommitted   1" list "$dir/c"
expect 0 "whole: committed until" verify "$dir/c"
expect 0 '"state":"counts"' dump "$dir/c"
expect 0 '"state":"sessions"' dump --state sessions "$dir/c"
grep -qF '"state":"counts"' "$dir/out" && fail "dump --state shows another state"
expect 1 "no state of the name" dump --state nothing "$dir/c"
expect 0 '"type":"plan"' dump --log "$dir/c"
grep -qF '"type":"commit"' "$dir/out" || fail "dump --log shows no commits"
grep -qF '"type":"block","receiver":"orders","number":99,' "$dir/out" || fail "dump --log shows no blocks"
expect 0 "would drop the batch of" drop-uncommitted "$dir/c"
diff -r "$dir/c" "$dir/before" || fail "something was changed"

# While somebody holds it: looking is allowed, with a warning; changing is not.
if command -v flock > /dev/null; then
  exec 9< "$dir/c/LOCK"
  flock -n 9
  expect 0 "warning: in use by" list "$dir/c"
  expect 3 "is in use by" drop-uncommitted --yes "$dir/c"
  exec 9<&-
fi

expect 0 "dropped the batch of" drop-uncommitted --yes "$dir/c"
expect 0 "uncommitted   0" list "$dir/c"

# A damaged byte is named with file and place.
file=$dir/c/receivers/orders/blocks-0000000002.log
cp "$file" "$dir/blocks"
printf 'X' | dd of="$file" bs=1 seek=200 conv=notrunc status=none
expect 1 "damaged  $file" verify "$dir/c"
expect 1 "$file" dump --log "$dir/c"
cp "$dir/blocks" "$file"
rm "$dir/c/receivers/orders/blocks-0000000003.log"
expect 1 "damaged  $dir/c/receivers/orders/blocks-" verify "$dir/c"
rm -r "$dir/c/receivers"
expect 0 "whole: committed until" verify "$dir/c"
file=$(ls "$dir"/c/snapshot-*.dat | tail -n 1)
printf 'X' | dd of="$file" bs=1 seek=200 conv=notrunc status=none
expect 1 "damaged  $file" verify "$dir/c"
printf 'X' | dd of="$dir/c/META" bs=1 seek=20 conv=notrunc status=none
expect 1 "the checksum of the header does not match" list "$dir/c"
echo "ok"
