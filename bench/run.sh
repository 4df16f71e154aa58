#!/usr/bin/env bash
# Builds the release preset and runs the benchmarks, all or those named; then brings the tables of bench/README.md and
# docs/performance.svg up to date.
#   bash bench/run.sh                        everything, about twenty minutes on a quiet machine
#   bash bench/run.sh word_count fusion      these two, leaving the other tables as they are
#   bash bench/run.sh --smoke                tiny sizes: does everything run, do both sides agree? Writes no report.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

smoke=no
names=()
for argument in "$@"; do
  case "$argument" in
    --smoke) smoke=yes ;;
    -*)
      echo "bench/run.sh: unknown option $argument; the options are --smoke and names such as word_count" >&2
      exit 2
      ;;
    *) names+=("$argument") ;;
  esac
done

available=()
for source in bench/*/*_bench.cpp; do
  name=${source##*/}
  available+=("${name%_bench.cpp}")
done
[[ ${#names[@]} -gt 0 ]] || names=("${available[@]}")
for name in "${names[@]}"; do
  if [[ " ${available[*]} " != *" $name "* ]]; then
    echo "bench/run.sh: there is no benchmark $name; there are: ${available[*]}" >&2
    exit 2
  fi
done

# The benchmark of Kafka needs a broker, unless one is named or the sizes are tiny.
if [[ " ${names[*]} " == *" kafka "* && $smoke == no && -z ${TIDEMILL_BENCH_KAFKA_BROKERS:-} ]]; then
  status=0
  bash tests/integration/broker.sh fetch || status=$?
  if ((status == 0)); then
    broker=$(mktemp -d -p .)
    trap 'bash tests/integration/broker.sh kill "$broker" && rm -rf "$broker"' EXIT
    TIDEMILL_BENCH_KAFKA_BROKERS=127.0.0.1:$(bash tests/integration/broker.sh start "$broker")
    export TIDEMILL_BENCH_KAFKA_BROKERS
  elif ((status == 77)); then
    echo "== kafka is left out, since there is no broker" >&2
    names=($(printf '%s\n' "${names[@]}" | grep -vx kafka))
  else
    exit "$status"
  fi
fi

echo "== building ${names[*]}"
cmake --preset release >/dev/null
cmake --build --preset release --target "${names[@]/#/bench_}"

build=build/release/bench
results=$build/results
cached() { sed -n "s/^$1:[A-Z]*=//p" build/release/CMakeCache.txt; }
flags="$(cached CMAKE_CXX_FLAGS) $(cached CMAKE_CXX_FLAGS_RELEASE)"
flags=$(xargs <<<"$flags")
commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
if [[ $commit != unknown && -n $(git status --porcelain --untracked-files=no -- include src bench CMakeLists.txt) ]]; then
  commit="$commit with changes"
fi
if [[ $smoke == yes ]]; then
  results=$build/results-smoke
  export TIDEMILL_BENCH_SMOKE=1
fi

mkdir -p "$results"
for name in "${names[@]}"; do
  echo "== bench_$name"
  # Written beside and renamed, so that a benchmark that fails leaves the last good result.
  "$build/bench_$name" --benchmark_out="$results/$name.part" --benchmark_out_format=json \
    --benchmark_counters_tabular=true --benchmark_context=commit="$commit",flags="$flags"
  mv "$results/$name.part" "$results/$name.json"
done

if [[ $smoke == no ]]; then
  python3 bench/report.py "$results"
fi
