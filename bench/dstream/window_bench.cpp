// What it costs to slide often. A window of 60 s over 1 000 keys, batches of 60 ms; only the slide differs, from 60 s, where
// windows do not overlap, to 60 ms, where each batch is in 1 000 windows. The input is the same for all.
//   <fold>/<form>/per_second:R/slide_ms:S
// fold: sum of integers, max, moments (a struct of count, sum and sum of squares, folded by a function of the user's);
// form: two_stacks, inverse. One run is 60 s to fill the window and 60 s that are timed, on one thread, each batch stepped
// through as fast as it goes.
// Counters: vs_60s, throughput in proportion to that of the same fold and form with a slide of 60 s, run in turn with it, median
//   of the rounds; ns_per_record; records_per_second; longest_batch_us, the median over the rounds of the longest batch of a run,
//   in which two stacks turn; memory_kib, what the stream holds at the end, its input not counted; windows, how many came out.
// Every window that comes out is read; the last one is compared with one folded by hand.
// Target: vs_60s >= 0.6 at a slide of 60 ms with a million records a second. With a tenth of them the 1 000 results of a slide
// stand against 6 000 records, which shows what a slide costs by itself; there is no target for it.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <malloc.h>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "common/outcome.hpp"
#include "common/settings.hpp"
#include "common/statistics.hpp"
#include "common/text.hpp"
#include "tidemill/tidemill.hpp"

namespace tidemill::bench {
namespace {

using namespace std::chrono_literals;

using Key = std::uint32_t;
constexpr Key key_count = 1000;
constexpr Duration interval = 60ms;
constexpr Duration length = 60s;
constexpr std::int64_t batches_in_window = length / interval;

// ------------------------------------------------------------------------------------------------- the folds

struct Sum {
  using Value = std::int64_t;
  static Value value(std::int64_t x) { return x; }
  std::int64_t operator()(std::int64_t a, std::int64_t b) const { return a + b; }
  struct Inverse {
    std::int64_t operator()(std::int64_t a, std::int64_t b) const { return a - b; }
  };
};

struct Max {
  using Value = std::int64_t;
  static Value value(std::int64_t x) { return x; }
  std::int64_t operator()(std::int64_t a, std::int64_t b) const { return std::max(a, b); }
};

struct Moments {
  std::int64_t count = 0;
  std::int64_t sum = 0;
  std::int64_t squares = 0;
  friend bool operator==(const Moments&, const Moments&) = default;
};
struct AddMoments {
  using Value = Moments;
  static Value value(std::int64_t x) { return {1, x, x * x}; }
  Moments operator()(const Moments& a, const Moments& b) const {
    return {a.count + b.count, a.sum + b.sum, a.squares + b.squares};
  }
  struct Inverse {
    Moments operator()(const Moments& a, const Moments& b) const {
      return {a.count - b.count, a.sum - b.sum, a.squares - b.squares};
    }
  };
};

// ------------------------------------------------------------------------------------------------- the input

/// A few different batches, which come again and again.
template <class Fold>
struct Input {
  using Record = std::pair<Key, typename Fold::Value>;

  Input(const Context& context, std::int64_t records_a_batch) {
    Random random(11);
    for (int b = 0; b < 16; ++b) {
      std::vector<Record> records;
      records.reserve(static_cast<std::size_t>(records_a_batch));
      for (std::int64_t i = 0; i < records_a_batch; ++i)
        records.emplace_back(static_cast<Key>(random.below(key_count)),
                             Fold::value(static_cast<std::int64_t>(random.below(1'000'000))));
      batches.push_back(context.parallelize(records, 1));
      by_hand.push_back(fold(records));
    }
  }
  [[nodiscard]] const Batch<Record>& batch(std::int64_t number) const {
    return batches[static_cast<std::size_t>(number) % batches.size()];
  }

  /// The window of the batches from `begin` to before `end`, sorted by key.
  [[nodiscard]] std::vector<Record> window(std::int64_t begin, std::int64_t end) const {
    std::vector<Record> all;
    for (std::int64_t b = begin; b < end; ++b) {
      const auto& part = by_hand[static_cast<std::size_t>(b) % batches.size()];
      all.insert(all.end(), part.begin(), part.end());
    }
    return fold(all);
  }

 private:
  static std::vector<Record> fold(std::vector<Record> records) {
    std::stable_sort(records.begin(), records.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<Record> folded;
    for (const Record& record : records) {
      if (folded.empty() || folded.back().first != record.first) {
        folded.push_back(record);
      } else {
        folded.back().second = Fold{}(folded.back().second, record.second);
      }
    }
    return folded;
  }

  std::vector<Batch<Record>> batches;
  std::vector<std::vector<Record>> by_hand;
};

// --------------------------------------------------------------------------------------------------- one run

struct Outcome {
  double seconds = 0;
  double longest_batch = 0;  // nanoseconds
  std::int64_t held_bytes = 0;
  std::int64_t windows = 0;
  bool right = false;
};

std::int64_t bytes_in_use() { return static_cast<std::int64_t>(mallinfo2().uordblks); }

enum class Form { two_stacks, inverse };

template <class Fold, Form form>
Outcome run(const Context& context, const std::shared_ptr<ManualClock>& clock, const Input<Fold>& input,
            Duration slide) {
  using Record = typename Input<Fold>::Record;
  const std::int64_t batches_timed = smoke() ? 20 : batches_in_window;
  // Windows end at the same batches whatever the slide: at multiples of the length from the first batch on.
  const std::int64_t warm_up = smoke() ? 0 : batches_in_window;
  Outcome outcome;
  const std::int64_t before = bytes_in_use();
  StreamingContext ssc{context, interval};
  const auto queue = std::make_shared<BatchQueue<Record>>();
  const auto records = ssc.queue_stream(queue);
  const DStream<Record> windows = [&] {
    if constexpr (form == Form::inverse) {
      return records.reduce_by_key_and_window(Fold{}, typename Fold::Inverse{}, length, slide, 1);
    } else {
      return records.reduce_by_key_and_window(Fold{}, length, slide, 1);
    }
  }();
  std::vector<Record> last;
  windows.foreach_batch([&](const Batch<Record>& window) {
    window.foreach_partition([&](std::span<const Record> results) { benchmark::DoNotOptimize(results.data()); });
    ++outcome.windows;
    if (outcome.windows * slide == (warm_up + batches_timed) * interval) last = window.collect();
  });
  ssc.start(Drive::by_host);
  const auto step = [&](std::int64_t number) {
    queue->push(input.batch(number));
    clock->advance(interval);
    ssc.step();
  };
  for (std::int64_t b = 0; b < warm_up; ++b) step(b);
  const auto begin = std::chrono::steady_clock::now();
  auto batch_begin = begin;
  for (std::int64_t b = warm_up; b < warm_up + batches_timed; ++b) {
    step(b);
    const auto now = std::chrono::steady_clock::now();
    outcome.longest_batch = std::max(outcome.longest_batch, static_cast<double>((now - batch_begin).count()));
    batch_begin = now;
  }
  outcome.seconds = std::chrono::duration<double>(batch_begin - begin).count();
  std::sort(last.begin(), last.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  const std::int64_t end = warm_up + batches_timed;
  outcome.right = slide > end * interval  // a smoke test is too short for a window
                  || last == input.window(std::max<std::int64_t>(0, end - batches_in_window), end);
  last = {};
  outcome.held_bytes = bytes_in_use() - before;
  ssc.stop();
  return outcome;
}

template <class Fold, Form form>
void slides(benchmark::State& state) {
  const std::int64_t records_a_batch = (smoke() ? 100'000 : state.range(0)) * interval.count() / 1'000'000;
  const Duration slide = std::chrono::milliseconds{state.range(1)};
  const auto clock = std::make_shared<ManualClock>();
  const Context context{{.app_name = "window", .parallelism = 1, .clock = clock}};
  const Input<Fold> input{context, records_a_batch};

  std::vector<double> seconds;
  std::vector<double> ratios;
  std::vector<double> longest;
  Outcome outcome;
  bool reference_first = true;
  for ([[maybe_unused]] auto iteration : state) {
    Outcome reference;
    if (reference_first) reference = run<Fold, form>(context, clock, input, length);
    outcome = run<Fold, form>(context, clock, input, slide);
    if (!reference_first) reference = run<Fold, form>(context, clock, input, length);
    reference_first = !reference_first;
    if (!outcome.right || !reference.right) {
      fail(state, "the last window differs from the one folded by hand");
      return;
    }
    state.SetIterationTime(outcome.seconds);
    seconds.push_back(outcome.seconds);
    ratios.push_back(reference.seconds / outcome.seconds);
    longest.push_back(outcome.longest_batch);
  }
  const auto records = static_cast<double>((smoke() ? 20 : batches_in_window) * records_a_batch);
  state.counters["vs_60s"] = median(ratios);
  state.counters["ns_per_record"] = median(seconds) / records * 1e9;
  state.counters["records_per_second"] = records / median(seconds);
  state.counters["longest_batch_us"] = median(longest) / 1e3;
  state.counters["memory_kib"] = static_cast<double>(outcome.held_bytes) / 1024;
  state.counters["windows"] = static_cast<double>(outcome.windows);
}

void all_slides(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"per_second", "slide_ms"})
      ->UseManualTime()
      ->Iterations(rounds(5))
      ->Unit(benchmark::kMillisecond);
  for (const std::int64_t slide : {60'000, 6'000, 600, 60}) benchmark->Args({1'000'000, slide});
  benchmark->Args({100'000, 60});
}

BENCHMARK(slides<Sum, Form::two_stacks>)->Name("sum/two_stacks")->Apply(all_slides);
BENCHMARK(slides<Sum, Form::inverse>)->Name("sum/inverse")->Apply(all_slides);
BENCHMARK(slides<Max, Form::two_stacks>)->Name("max/two_stacks")->Apply(all_slides);
BENCHMARK(slides<AddMoments, Form::two_stacks>)->Name("moments/two_stacks")->Apply(all_slides);
BENCHMARK(slides<AddMoments, Form::inverse>)->Name("moments/inverse")->Apply(all_slides);

}  // namespace
}  // namespace tidemill::bench
