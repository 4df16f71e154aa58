# The service: its protocol, and its promise that what was answered with "ok" is counted, also when it ends under load.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

"$program" > "$work/service.out" 2> "$work/service.err" &
service=$!
started+=($service)
wait_for "the service's port" grep -qs 'listening on port' "$work/service.out"
port=$(sed -n 's/^listening on port //p' "$work/service.out")

# ask <line>...: sends the lines on one connection; as many answers in $answers.
ask() {
  local line answer
  answers=()
  exec 3<> "/dev/tcp/127.0.0.1/$port"
  for line in "$@"; do
    printf '%s\n' "$line" >&3
    read -r -t 60 answer <&3 || fail "no answer to \"$line\"" "$work/service.err"
    answers+=("$answer")
  done
  exec 3>&-
}
expect_answers() { [[ "${answers[*]}" == "$*" ]] || fail "the answers are \"${answers[*]}\" instead of \"$*\""; }

ask 'put apples 3' $'put pears 10\r' 'put apples 4' 'get nothing' 'put apples' 'put apples x' 'put apples 9999999999' 'hello'
amount='error: the amount must be a whole number of 32 bits'
expect_answers ok ok ok 'nothing 0' "$amount" "$amount" "$amount" 'error: say put KEY AMOUNT, get KEY or top'
apples_are_counted() { ask 'get apples'; [[ ${answers[0]} == 'apples 7' ]]; }
wait_for "the batch with the apples" apples_are_counted
ask top
expect_answers 'pears 10, apples 7'
passed "queries are answered from the latest batch"

# Each client puts 1 on its own account and on one for all, a hundred lines at a time, until the service hangs up.
client() {
  exec perl -MIO::Socket::INET -e '
    my ($port, $name, $told) = @ARGV;
    $SIG{PIPE} = "IGNORE";
    my $service = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $port) or die "cannot connect: $!";
    $service->autoflush(1);
    my ($sent, $acknowledged) = (0, 0);
    HUNDRED: while (print $service "put $name 1\nput all 1\n" x 50) {
      $sent += 50;
      for (1 .. 50) {
        for my $put ("own", "all") {
          my $answer = <$service>;
          last HUNDRED unless defined $answer;
          die "refused: $answer" unless $answer eq "ok\n";
          ++$acknowledged if $put eq "all";
        }
      }
    }
    close $service;
    open(my $out, ">", $told); print $out "$name $acknowledged $sent\n"; close $out;' "$port" "$1" "$work/$1.told"
}
clients=()
for name in anna ben carl dora; do
  client $name &
  clients+=($!)
  started+=($!)
done
all_are_at_work() {
  ask 'get anna' 'get ben' 'get carl' 'get dora'
  local answer
  for answer in "${answers[@]}"; do ((${answer#* } > 1000)) || return 1; done
}
wait_for "a thousand bookings from each client" all_are_at_work
kill -TERM $service
wait $service || fail "the service exits with status $?" "$work/service.err"
for client in "${clients[@]}"; do wait "$client" || fail "a client has failed"; done
[[ ! -s $work/service.err ]] || fail "the service has complained" "$work/service.err"

total() { sed -n "s/^$1\t//p" "$work/service.out"; }
all_acknowledged=0
all_sent=0
for name in anna ben carl dora; do
  read -r _ acknowledged sent < "$work/$name.told"
  counted=$(total $name)
  ((acknowledged <= counted)) || fail "$name has $acknowledged acknowledged bookings, and only $counted are counted"
  ((counted <= sent + 50)) || fail "$name has sent $sent bookings, and $counted are counted"
  all_acknowledged=$((all_acknowledged + acknowledged))
  all_sent=$((all_sent + sent + 50))
done
counted=$(total all)
((all_acknowledged <= counted && counted <= all_sent)) ||
  fail "$all_acknowledged bookings for all are acknowledged, at most $all_sent were sent, and $counted are counted"
[[ $(total apples) == 7 ]] || fail "the apples have gone" "$work/service.out"
passed "after SIGTERM under load all of $all_acknowledged acknowledged bookings are among the $counted in the totals"

expect_status 2 "$program" 70000
grep -q 'give the port to listen on' "$work/run.err" || fail "a bad port is not refused" "$work/run.err"
passed "a bad port gets a sentence and status 2"
