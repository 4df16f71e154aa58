// Line text over loopback: a thread sends ready-made text as fast as it is read, and the lines are counted.
//   bench_socket           2 GB; TIDEMILL_BENCH_SOCKET_MB=N for another amount
//   ticks                  through a batch every 10 ms
//   on_arrival             through the on_arrival gate
// Beside it recv into one buffer and memchr. Target: vs_hand >= 0.5.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include <benchmark/benchmark.h>

#include "common/race.hpp"
#include "common/settings.hpp"
#include "common/text.hpp"
#include "io/loopback.hpp"
#include "tidemill/tidemill.hpp"

namespace tidemill::bench {
namespace {

constexpr std::int64_t mebibyte = 1024 * 1024;

const std::string& text() {
  static const std::string text =
      benchmark_text(static_cast<std::size_t>(std::min<std::int64_t>(setting("SOCKET_MB", 2048, 4), 64) * mebibyte));
  return text;
}
std::int64_t repeats() { return std::max<std::int64_t>(1, setting("SOCKET_MB", 2048, 4) / 64); }
std::int64_t lines() { return std::count(text().begin(), text().end(), '\n') * repeats(); }

/// Counts to a number that another thread waits for.
class Tally {
 public:
  void add(std::int64_t lines) {
    {
      const std::lock_guard lock(mutex_);
      lines_ += lines;
    }
    changed_.notify_one();
  }
  /// Waits until `lines` have been counted, or a minute; returns what was counted.
  std::int64_t wait_for(std::int64_t lines) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::minutes(1), [&] { return lines_ >= lines; });
    return lines_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::int64_t lines_ = 0;
};

template <class Gate>
std::int64_t count_lines(std::uint16_t port, Gate gate, std::int64_t expected) {
  Tally tally;
  const Context context{{.app_name = "socket", .parallelism = 1}};
  StreamingContext ssc{context, gate};
  ssc.socket_text_stream("127.0.0.1", port).foreach_batch([&tally](const Batch<std::string_view>& batch, Time) {
    tally.add(static_cast<std::int64_t>(batch.count()));
  });
  ssc.start();
  const std::int64_t counted = tally.wait_for(expected);
  ssc.stop();
  return counted;
}

template <class Gate>
void count_from_socket(benchmark::State& state, Gate gate) {
  const std::int64_t expected = lines();
  const auto bytes = static_cast<std::int64_t>(text().size()) * repeats();
  Race<std::int64_t> race(state, {.records = expected, .bytes = bytes, .record = "line"});
  race.ours([&] {
    const Sender sender(text(), repeats());
    return count_lines(sender.port(), gate, expected);
  });
  race.limit("hand", [&] {
    const Sender sender(text(), repeats());
    return count_lines_by_hand(sender.port());
  });
  race.go();
  state.counters["gb_per_second"] =
      static_cast<double>(bytes) / static_cast<double>(expected) / state.counters["ns_per_line"].value;
  state.counters["hand_gb_per_second"] =
      static_cast<double>(bytes) / static_cast<double>(expected) / state.counters["hand_ns_per_line"].value;
}

void ticks(benchmark::State& state) { count_from_socket(state, std::chrono::milliseconds(10)); }
void arrival(benchmark::State& state) { count_from_socket(state, on_arrival); }
BENCHMARK(ticks)->Apply(as_race);
BENCHMARK(arrival)->Name("on_arrival")->Apply(as_race);

}  // namespace
}  // namespace tidemill::bench
