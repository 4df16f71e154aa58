#!/usr/bin/env bash
# A Kafka broker of one process (KRaft mode) for tests, on localhost.
#
#     broker.sh fetch                          the jars, by Maven and its settings; nothing to do when they are there
#     broker.sh start <folder> [proxied port]  starts it with its data in <folder>, and waits until it answers; prints its port.
#                                              It is reached through the proxied port too, if something there leads to
#                                              port + 1. At port + 3 it asks for tokens, which nobody has to sign; a
#                                              connection ends with its token
#     broker.sh kill|stop <folder>             at once, or in good order
#
# A second start in the same folder goes on with the same data and port. TIDEMILL_KAFKA_JARS names the folder of the jars.
# Exit status 77: what it takes is not here, and a line says what.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
jars=${TIDEMILL_KAFKA_JARS:-$here/../../build/kafka/libs}

skip() {
  echo "$1" >&2
  exit 77
}

storage_tool() { java -Xmx128m -XX:TieredStopAtLevel=1 -cp "$jars/*" kafka.tools.StorageTool "$@"; }

fetch() {
  command -v java > /dev/null || skip "there is no java; install openjdk-17-jre-headless"
  [[ -e $jars/complete ]] && return
  command -v mvn > /dev/null || skip "there is no mvn to fetch the jars of Kafka; install maven"
  mkdir -p "$jars"
  if ! timeout 150 mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
    "-DoutputDirectory=$(cd "$jars" && pwd)" > "$jars/fetch.log" 2>&1; then
    skip "the jars of Kafka could not be fetched; $jars/fetch.log says why"
  fi
  touch "$jars/complete"
}

free_port() {  # of which the next three are free too
  local port
  while :; do
    port=$((20000 + RANDOM % 20000))
    (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null && continue
    (exec 3<> "/dev/tcp/127.0.0.1/$((port + 1))") 2> /dev/null && continue
    (exec 3<> "/dev/tcp/127.0.0.1/$((port + 2))") 2> /dev/null && continue
    (exec 3<> "/dev/tcp/127.0.0.1/$((port + 3))") 2> /dev/null && continue
    echo "$port"
    return
  done
}

configure() {  # <folder> [proxied port]
  local port proxied
  port=$(free_port)
  proxied=${2:-$((port + 1))}
  cat > "$1/server.properties" << END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 2))
listeners=PLAINTEXT://127.0.0.1:$port,PROXIED://127.0.0.1:$((port + 1)),CONTROLLER://127.0.0.1:$((port + 2)),TOKENS://127.0.0.1:$((port + 3))
advertised.listeners=PLAINTEXT://127.0.0.1:$port,PROXIED://127.0.0.1:$proxied,TOKENS://127.0.0.1:$((port + 3))
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT,TOKENS:SASL_PLAINTEXT
sasl.enabled.mechanisms=OAUTHBEARER
listener.name.tokens.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;
listener.name.tokens.oauthbearer.connections.max.reauth.ms=60000
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=$1/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
auto.create.topics.enable=false
num.network.threads=2
num.io.threads=2
END
  storage_tool format -t "$(storage_tool random-uuid)" -c "$1/server.properties" > "$1/format.log" 2>&1
  echo "$port" > "$1/port"
}

start() {  # <folder> [proxied port]
  mkdir -p "$1"
  [[ -e $1/port ]] || configure "$@"
  (exec java -Xmx512m -XX:+UseSerialGC -cp "$jars/*" kafka.Kafka "$1/server.properties") > "$1/server.log" 2>&1 &
  local pid=$! port
  port=$(< "$1/port")
  echo "$pid" > "$1/pid"
  for ((i = 0; i < 600; ++i)); do
    if ! kill -0 "$pid" 2> /dev/null; then
      tail -20 "$1/server.log" >&2
      echo "the broker ended before it answered" >&2
      exit 1
    fi
    if (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; then
      echo "$port"
      return
    fi
    sleep 0.1
  done
  echo "the broker does not answer after 60 s; see $1/server.log" >&2
  exit 1
}

end() {  # <signal> <folder>
  local pid
  [[ -e $2/pid ]] || return 0
  pid=$(< "$2/pid")
  rm "$2/pid"
  kill "-$1" "$pid" 2> /dev/null || return 0
  for ((i = 0; i < 300; ++i)); do
    kill -0 "$pid" 2> /dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2> /dev/null || true
}

case ${1:-} in
  fetch) fetch ;;
  start) fetch && start "${@:2}" ;;
  stop) end TERM "$2" ;;
  kill) end KILL "$2" ;;
  *) sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
esac
