// Many streaming contexts in one process with nothing to do: what they hold and whether any thread is awake.
//   bench_idle                   100 contexts; TIDEMILL_BENCH_IDLE_CONTEXTS=N for another number
//   on_arrival                   nothing arrives, so nothing may run at all
//   ticks                        a batch, empty, every second
// Counters, each for one context: kib_per_context (resident memory), threads_per_context, cpu_us_per_second;
// busiest_thread_percent is the share of one core that the busiest thread of the process used, bare_kib_per_context the
// resident memory of a thread that waits at a condition variable.
// Targets: kib_per_context <= 1024, busiest_thread_percent <= 1.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include <benchmark/benchmark.h>

#include "common/outcome.hpp"
#include "common/process.hpp"
#include "common/settings.hpp"
#include "tidemill/tidemill.hpp"

namespace tidemill::bench {
namespace {

/// A thread that waits, as small as a thread can be.
class BareWaiter {
 public:
  BareWaiter()
      : thread_([this](const std::stop_token& stop) {
          std::unique_lock lock(mutex_);
          changed_.wait(lock, stop, [] { return false; });
        }) {}

 private:
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::jthread thread_;  // last: it uses the others
};

double bare_kib_each(std::size_t count) {
  const std::int64_t before = resident_kib();
  std::vector<std::unique_ptr<BareWaiter>> waiters(count);
  std::generate(waiters.begin(), waiters.end(), [] { return std::make_unique<BareWaiter>(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // until they have all touched their stacks
  return static_cast<double>(resident_kib() - before) / static_cast<double>(count);
}

class Silent final : public Receiver<int> {
  void on_start() override {}
  void on_stop() override {}
};

/// A whole job that never gets a record: receiver -> map -> reduce_by_key -> foreach_batch.
template <class Gate>
class IdleJob {
 public:
  explicit IdleJob(Gate gate) : context_{{.app_name = "idle", .parallelism = 2}}, ssc_{context_, gate} {
    ssc_.receiver_stream(std::make_shared<Silent>())
        .map([](int key) {
          return std::pair{key, 1L};
        })
        .reduce_by_key(std::plus<>{})
        .foreach_batch([](const Batch<std::pair<int, long>>& batch) { batch.foreach ([](const auto&) {}); });
    ssc_.start();
  }
  ~IdleJob() { ssc_.stop(); }

 private:
  Context context_;
  StreamingContext ssc_;
};

template <class Gate>
void idle(benchmark::State& state, Gate gate) {
  const auto count = static_cast<std::size_t>(setting("IDLE_CONTEXTS", 100, 4));
  const std::chrono::duration<double> watched{smoke() ? 0.2 : 5.0};
  for ([[maybe_unused]] auto iteration : state) {
    const double bare_kib = bare_kib_each(count);
    const std::size_t threads_before = cpu_seconds_by_thread().size();
    const std::int64_t memory_before = resident_kib();
    std::vector<std::unique_ptr<IdleJob<Gate>>> jobs(count);
    std::generate(jobs.begin(), jobs.end(), [&] { return std::make_unique<IdleJob<Gate>>(gate); });
    std::this_thread::sleep_for(watched / 5);  // starting is not idling

    const auto by_thread_before = cpu_seconds_by_thread();
    const auto cpu_before = cpu_seconds();
    std::this_thread::sleep_for(watched);
    const auto cpu = cpu_seconds() - cpu_before;  // first: looking at every thread costs time too
    const auto by_thread = cpu_seconds_by_thread();
    const auto memory = resident_kib() - memory_before;

    double busiest = 0;
    for (const auto& [thread, seconds] : by_thread) {
      const auto before = by_thread_before.find(thread);
      busiest = std::max(busiest, seconds - (before == by_thread_before.end() ? 0 : before->second));
    }
    const auto each = static_cast<double>(count);
    state.counters["bare_kib_per_context"] = bare_kib;
    state.counters["kib_per_context"] = static_cast<double>(memory) / each;
    state.counters["threads_per_context"] = static_cast<double>(by_thread.size() - threads_before) / each;
    state.counters["cpu_us_per_second"] = cpu / watched.count() / each * 1e6;
    state.counters["busiest_thread_percent"] = busiest / watched.count() * 100;
  }
}

void ticks(benchmark::State& state) { idle(state, std::chrono::seconds(1)); }
void arrival(benchmark::State& state) { idle(state, on_arrival); }
BENCHMARK(ticks)->Iterations(1)->Unit(benchmark::kSecond);
BENCHMARK(arrival)->Name("on_arrival")->Iterations(1)->Unit(benchmark::kSecond);

}  // namespace
}  // namespace tidemill::bench
