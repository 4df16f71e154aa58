#!/usr/bin/env bash
# Exactly once on a real Kafka broker, which this script fetches, starts and stops:
#
#     tests/integration.sh [cycles [seed]]        10 cycles by default; a long run has 100, and 0 leaves the kills out
#
# In every cycle a program with states is killed at a random moment; in some its broker is killed or stopped and started again, or
# all its connections are cut. Then commits whose answer is lost, a program that comes back when it was replaced, copies that come
# and go, and a program that must fail. At last what the source and the sink do by themselves: transactions that are rolled back or
# open, starts by a time, topics that are not there, tokens. 10 cycles take about 3 minutes, 100 about 13. Java 17 and Maven
# are needed, and a Maven repository the first time; without them it ends with a sentence and status 0. The jars are kept in
# build/kafka.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cycles=${1:-10}
seed=${2:-1}

status=0
bash tests/integration/broker.sh fetch || status=$?
if ((status == 77)); then
  echo "tests/integration.sh: skipped"
  exit 0
fi
((status == 0)) || exit "$status"

cmake --preset dev > /dev/null
targets=$(cmake --build --preset dev --target help)  # whole: grep -q would end it half way, a failure to pipefail
if [[ $targets != *kafka_exactly_once* ]]; then
  echo "tests/integration.sh: skipped, since librdkafka-dev is not installed"
  exit 0
fi
cmake --build --preset dev --target kafka_job kafka_exactly_once

work=$(mktemp -d)
finish() {
  local result=$?
  bash tests/integration/broker.sh kill "$work/broker"
  if ((result == 0)); then
    rm -rf "$work"
  else
    echo "tests/integration.sh: failed; what the program and the broker wrote is in $work"
  fi
}
trap finish EXIT
build/dev/tests/kafka_exactly_once tests/integration/broker.sh build/dev/tests/kafka_job "$work" "$cycles" "$seed"
