# shellcheck shell=bash
# Sourced by the tests of the examples, which run the program given as their first argument and compare what it prints.
# Needed beside it: what every Debian carries (bash, coreutils, sed, awk, and the essential part of Perl).
set -euo pipefail
export LC_ALL=C

program=$1
[[ -x $program ]] || { echo "give the path of the program as the argument; \"$program\" is none" >&2; exit 2; }

work=$(mktemp -d)
started=()  # process ids to be ended, come what may
clean_up() {
  {
    ((${#started[@]} == 0)) || kill -9 "${started[@]}" || true
    wait || true
  } 2> /dev/null
  rm -rf "$work"
}
trap clean_up EXIT

# fail "<sentence>" [file to show]...
fail() {
  echo "FAILED: $1" >&2
  shift
  local file
  for file in "$@"; do
    [[ -e $file ]] || continue
    echo "---- $(basename "$file")" >&2
    head -n 40 "$file" >&2
  done
  exit 1
}

passed() { echo "ok: $*"; }

# kill_now <process id>: kill -9, and waits until it is gone with its locks, as whatever restarts a program does.
kill_now() {
  kill -9 "$1"
  wait "$1" 2> /dev/null || true
}

# wait_for "<what is awaited>" command...: until the command succeeds, at most a minute. For what other processes do.
wait_for() {
  local what=$1 tries
  shift
  for ((tries = 0; tries < 1200; ++tries)); do
    if "$@"; then return 0; fi
    sleep 0.05
  done
  fail "a minute has passed without $what" "$work"/*.out "$work"/*.err
}

# expect_status N command...: runs it with its output in $work/run.out and $work/run.err.
expect_status() {
  local expected=$1 status=0
  shift
  "$@" > "$work/run.out" 2> "$work/run.err" || status=$?
  ((status == expected)) || fail "exit status $status instead of $expected from: $*" "$work/run.out" "$work/run.err"
}

# expect_same <expected> <found> "<what>"
expect_same() {
  cmp -s "$1" "$2" || {
    diff "$1" "$2" | head -n 20 >&2
    fail "$3: not as expected (< expected, > found)"
  }
}

# serve <port, 0 for any> <file for the port> &: a server that sends its standard input to the first client, and keeps
# the connection until it is killed. Perl, because netcat is not everywhere.
serve() {
  exec perl -MIO::Socket::INET -e '
    my ($port, $told) = @ARGV;
    my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => $port, Listen => 1, ReuseAddr => 1)
      or die "cannot listen: $!";
    open(my $out, ">", "$told.new"); print $out $server->sockport; close $out; rename "$told.new", $told;
    my $client = $server->accept; $client->autoflush(1);
    print $client $_ while <STDIN>;
    sleep 1000;' "$1" "$2"
}
