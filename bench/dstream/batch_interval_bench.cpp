// What a batch costs beyond its work, and how long a record waits: memory source -> map -> reduce_by_key -> foreach_batch,
// beside a bare thread that wakes and runs the loop (dstream/bare_stream.hpp).
//   ticks/interval_us:I/records:N   a batch every I microseconds, N records an interval, arriving one by one on a fixed
//                                   schedule that does not wait for anybody (open loop)
//   back_to_back/records:N          the host drives: N records in, step(), again
//   on_arrival                      a lone record every millisecond through the on_arrival gate, beside a hand-off through
//                                   a mutex and a condition variable
// Counters, in microseconds, each as p50, p99 and p999, and the bare thread's with `bare_` before them:
//   (none)        from the tick (back_to_back: from step(), on_arrival: from the push) until the output has run
//   lateness_     from the tick until the batch is formed
//   scheduling_   from then until it is processed (ours alone)
//   processing_   from then until it is done (ours alone)
//   latency_      from a record's scheduled arrival until the output has run
// beyond_bare_p50_us and beyond_bare_p99_us are the differences of the first; lost_ticks counts ticks without a batch.
// Targets: beyond_bare_p50_us <= 20 with 0 and 1 records; lost_ticks = 0 at 1 ms; on_arrival beyond_bare_p50_us <= 30 and
// beyond_bare_p99_us <= 200.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "common/outcome.hpp"
#include "common/settings.hpp"
#include "common/statistics.hpp"
#include "dstream/bare_stream.hpp"
#include "tidemill/tidemill.hpp"

namespace tidemill::bench {
namespace {

constexpr Key key_count = 1000;
Key key_of(std::int64_t record) { return static_cast<Key>(record % key_count); }

// ---------------------------------------------------------------------------------------- what is measured

/// When each record is due, whatever becomes of the records before it.
struct Schedule {
  Nanoseconds begin = 0;
  Nanoseconds interval = 0;
  std::int64_t records_per_interval = 0;
  std::int64_t records = 0;

  [[nodiscard]] Nanoseconds due(std::int64_t record) const {
    return begin + record / records_per_interval * interval +
           record % records_per_interval * interval / records_per_interval;
  }
};

/// What one side did, over all rounds.
struct Samples {
  std::vector<double> batch;
  std::vector<double> lateness;
  std::vector<double> scheduling;
  std::vector<double> processing;
  std::vector<double> latency;
  std::array<long, key_count> totals{};
  std::int64_t lost_ticks = 0;
};

/// Takes the samples of one round. Called by the thread that runs the batches; `consumed` is read by others.
class Observer {
 public:
  Observer(const Schedule& schedule, Samples& samples) : schedule_(schedule), samples_(samples) {}

  template <class Counts>
  void batch_done(Nanoseconds tick, Nanoseconds formed, const Counts& counts) {
    const Nanoseconds now = steady_now();
    std::int64_t records = 0;
    for (const auto& [key, count] : counts) {
      samples_.totals[key] += count;
      records += count;
    }
    samples_.batch.push_back(static_cast<double>(now - tick));
    samples_.lateness.push_back(static_cast<double>(formed - tick));
    if (last_tick_ != 0 && schedule_.interval != 0) {
      samples_.lost_ticks += (tick - last_tick_) / schedule_.interval - 1;
    }
    last_tick_ = tick;
    // Records arrive in order, so a batch holds the next ones; of many, about a hundred stand for all.
    const std::int64_t first = consumed_.load(std::memory_order_relaxed);
    for (std::int64_t i = 0; i < records; i += std::max<std::int64_t>(1, records / 100)) {
      samples_.latency.push_back(static_cast<double>(now - schedule_.due(first + i)));
    }
    consumed_.store(first + records, std::memory_order_release);
    batches_.fetch_add(1, std::memory_order_release);
  }

  [[nodiscard]] std::int64_t consumed() const { return consumed_.load(std::memory_order_acquire); }
  [[nodiscard]] std::int64_t batches() const { return batches_.load(std::memory_order_acquire); }

 private:
  const Schedule& schedule_;
  Samples& samples_;
  Nanoseconds last_tick_ = 0;
  std::atomic<std::int64_t> consumed_ = 0;
  std::atomic<std::int64_t> batches_ = 0;
};

/// Pushes every record when it is due, a few at a time when they are closer together than a thread can sleep.
template <class Side>
void push_on_schedule(const Schedule& schedule, Side& side) {
  const Nanoseconds nap = std::clamp<Nanoseconds>(schedule.interval / 20, 50'000, 1'000'000);
  std::vector<Key> due;
  for (std::int64_t next = 0; next < schedule.records;) {
    sleep_until(std::max(schedule.due(next), steady_now() + nap));
    due.clear();
    for (const Nanoseconds now = steady_now(); next < schedule.records && schedule.due(next) <= now; ++next) {
      due.push_back(key_of(next));
    }
    side.push(due);
  }
}

// -------------------------------------------------------------------------------------------------- our side

/// How far the steady clock is ahead of the context's, whose times are whole microseconds: the smallest of many differences.
Nanoseconds steady_ahead_of(const Clock& clock) {
  Nanoseconds ahead = std::numeric_limits<Nanoseconds>::max();
  for (int i = 0; i < 2000; ++i) {
    const Nanoseconds time = 1000 * clock.now().time_since_epoch().count();
    ahead = std::min(ahead, steady_now() - time);
  }
  return ahead;
}

using Counts = std::pair<Key, long>;
constexpr auto with_one = [](Key key) { return Counts{key, 1L}; };

/// The memory source: whoever has records pushes them.
class Memory final : public Receiver<Key> {
 public:
  void push(std::span<const Key> records) { store(std::vector<Key>(records.begin(), records.end())); }

 private:
  void on_start() override {}
  void on_stop() override {}
};

/// memory source -> map -> reduce_by_key -> foreach_batch, with the shape of the bare sides: `on_batch(tick, formed, counts)`
/// is called behind each batch. Through the on_arrival gate the tick is the batch's time.
template <class OnBatch>
class Job {
 public:
  /// With a clock turned by hand, the host drives the job: see step().
  template <class Gate>
  Job(Gate gate, Samples& samples, OnBatch on_batch, std::shared_ptr<ManualClock> clock = nullptr)
      : clock_(std::move(clock)),
        context_{{.app_name = "interval", .parallelism = 1, .clock = clock_}},
        ssc_{context_, gate},
        steady_ahead_(clock_ ? 0 : steady_ahead_of(context_.clock())),
        memory_(std::make_shared<Memory>()),
        watch_(std::make_shared<Watch>(samples)) {
    ssc_.receiver_stream(memory_)
        .map(with_one)
        .reduce_by_key(std::plus<>{})
        .foreach_batch([this, on_batch](const Batch<Counts>& batch, Time time) {
          const auto counts = batch.collect();
          on_batch(steady(time), steady(watch_->submitted), counts);
        });
    ssc_.add_listener(watch_);
    ssc_.start(clock_ ? Drive::by_host : Drive::own_thread);
  }
  ~Job() { ssc_.stop(); }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  void push(std::span<const Key> records) { memory_->push(records); }

  /// Where its ticks lie on the steady clock: tick % interval.
  [[nodiscard]] Nanoseconds phase() const {
    const Nanoseconds interval = 1000 * ssc_.batch_interval().count();
    return (steady_ahead_ % interval + interval) % interval;
  }

  /// Runs the next batch on the calling thread.
  void step() {
    clock_->advance(ssc_.batch_interval());
    ssc_.step();
  }

 private:
  struct Watch : StreamingListener {
    explicit Watch(Samples& to) : samples(to) {}
    void on_batch_submitted(const BatchInfo& batch) override { submitted = batch.submission_time; }
    void on_batch_completed(const BatchInfo& batch) override {
      samples.scheduling.push_back(1e3 * static_cast<double>(batch.scheduling_delay()->count()));
      samples.processing.push_back(1e3 * static_cast<double>(batch.processing_delay()->count()));
    }
    Samples& samples;
    Time submitted;
  };

  [[nodiscard]] Nanoseconds steady(Time time) const { return 1000 * time.time_since_epoch().count() + steady_ahead_; }

  std::shared_ptr<ManualClock> clock_;  // shared with the context; null for the system's
  Context context_;
  StreamingContext ssc_;
  Nanoseconds steady_ahead_;
  std::shared_ptr<Memory> memory_;  // shared with the stream
  std::shared_ptr<Watch> watch_;    // shared with the context
};

// ----------------------------------------------------------------------------------------------------- ticks

OnBareBatch tell(Observer& observer) {
  return [&observer](Nanoseconds tick, Nanoseconds woken, const KeyCounts& counts) {
    observer.batch_done(tick, woken, counts);
  };
}

/// Runs one side for so many ticks, and until it has worked on every record. False if that takes far too long.
template <class MakeSide>
bool run_ticks(Schedule schedule, std::int64_t ticks, Samples& samples, MakeSide make_side) {
  schedule.records = ticks * schedule.records_per_interval;
  Observer observer(schedule, samples);
  const auto side = make_side(observer);
  // Both sides' records come in the same place between two ticks.
  schedule.begin =
      (steady_now() / schedule.interval + 2) * schedule.interval + side->phase() + schedule.interval * 3 / 8;
  push_on_schedule(schedule, *side);
  const Nanoseconds give_up = steady_now() + 10 * ticks * schedule.interval + 10'000'000'000;
  while (observer.consumed() < schedule.records || observer.batches() < ticks) {
    if (steady_now() > give_up) {
      return false;
    }
    sleep_until(steady_now() + std::min<Nanoseconds>(schedule.interval, 10'000'000));
  }
  return true;
}

void report(benchmark::State& state, const Samples& ours, const Samples& bare) {
  report_percentiles(state, "", ours.batch);
  report_percentiles(state, "bare_", bare.batch);
  if (!ours.lateness.empty()) {
    report_percentiles(state, "lateness_", ours.lateness);
    report_percentiles(state, "bare_lateness_", bare.lateness);
  }
  report_percentiles(state, "scheduling_", ours.scheduling);
  report_percentiles(state, "processing_", ours.processing);
  if (!ours.latency.empty()) {
    report_percentiles(state, "latency_", ours.latency);
    report_percentiles(state, "bare_latency_", bare.latency);
  }
  for (const std::string percent : {"p50_us", "p99_us"}) {
    state.counters["beyond_bare_" + percent] = state.counters[percent].value - state.counters["bare_" + percent].value;
  }
}

void ticks(benchmark::State& state) {
  const Schedule schedule{.interval = 1000 * state.range(0), .records_per_interval = state.range(1)};
  const std::int64_t ticks = smoke() ? 5 : std::max<std::int64_t>(20, 500'000 / state.range(0));
  Samples ours;
  Samples bare;
  for ([[maybe_unused]] auto iteration : state) {
    const Nanoseconds begin = steady_now();
    const bool in_time =
        run_ticks(
            schedule, ticks, bare,
            [&](Observer& observer) { return std::make_unique<BareTicker>(schedule.interval, tell(observer)); }) &&
        run_ticks(schedule, ticks, ours, [&](Observer& observer) {
          const auto tell_ours = [&observer](Nanoseconds tick, Nanoseconds formed, const std::vector<Counts>& counts) {
            observer.batch_done(tick, formed, counts);
          };
          return std::make_unique<Job<decltype(tell_ours)>>(Duration(state.range(0)), ours, tell_ours);
        });
    if (!in_time) {
      return fail(state, "not every record came out");
    }
    if (ours.totals != bare.totals) {
      return fail(state, "the counts differ from the bare loop's");
    }
    state.SetIterationTime(static_cast<double>(steady_now() - begin) / 1e9);
  }
  report(state, ours, bare);
  state.counters["lost_ticks"] = static_cast<double>(ours.lost_ticks);
}
BENCHMARK(ticks)
    ->ArgNames({"interval_us", "records"})
    ->ArgsProduct({{1'000, 10'000, 100'000}, {0, 1, 1'000, 100'000}})
    ->UseManualTime()
    ->Iterations(rounds(5))
    ->Unit(benchmark::kSecond);

// ------------------------------------------------------------------------------------------------- on_arrival

/// One record under way at a time: when it was pushed, and how many have come out.
class LoneRecord {
 public:
  explicit LoneRecord(Samples& samples) : samples_(samples) {}

  template <class Side>
  void send(Side& side, Key key) {
    const std::int64_t before = out_.load(std::memory_order_acquire);
    const std::array<Key, 1> record{key};
    pushed_.store(steady_now(), std::memory_order_release);
    side.push(record);
    // Nobody watches while it is under way: a thread that spins would take the core on which it could run.
    while (out_.load(std::memory_order_acquire) == before) {
      sleep_until(steady_now() + 1'000'000);
    }
  }

  template <class Counts>
  void batch_done(Nanoseconds formed, const Counts& counts) {
    const Nanoseconds now = steady_now();
    if (counts.empty()) {
      return;  // a bare hand-off that is being closed
    }
    for (const auto& [key, count] : counts) {
      samples_.totals[key] += count;
    }
    const Nanoseconds pushed = pushed_.load(std::memory_order_acquire);
    samples_.batch.push_back(static_cast<double>(now - pushed));
    samples_.lateness.push_back(static_cast<double>(formed - pushed));
    out_.fetch_add(1, std::memory_order_release);
  }

 private:
  Samples& samples_;
  std::atomic<Nanoseconds> pushed_ = 0;
  std::atomic<std::int64_t> out_ = 0;
};

void lone_records(benchmark::State& state) {
  const std::int64_t records = smoke() ? 20 : 1000;
  Samples ours;
  Samples bare;
  for ([[maybe_unused]] auto iteration : state) {
    const Nanoseconds begin = steady_now();
    LoneRecord our_record(ours);
    LoneRecord bare_record(bare);
    const auto tell_ours = [&our_record](Nanoseconds, Nanoseconds formed, const std::vector<Counts>& counts) {
      our_record.batch_done(formed, counts);
    };
    Job<decltype(tell_ours)> job(on_arrival, ours, tell_ours);
    BareHandOff hand_off([&bare_record](Nanoseconds, Nanoseconds woken, const KeyCounts& counts) {
      bare_record.batch_done(woken, counts);
    });
    // One to each in turn, so that both meet the same machine.
    for (std::int64_t record = 0; record < records; ++record) {
      our_record.send(job, key_of(record));
      bare_record.send(hand_off, key_of(record));
    }
    if (ours.totals != bare.totals) {
      return fail(state, "the counts differ from the bare loop's");
    }
    state.SetIterationTime(static_cast<double>(steady_now() - begin) / 1e9);
  }
  report(state, ours, bare);
}
BENCHMARK(lone_records)->Name("on_arrival")->UseManualTime()->Iterations(rounds(5))->Unit(benchmark::kSecond);

// ------------------------------------------------------------------------------------------------ back to back

/// The host drives, so there is neither thread nor sleep in it: what a batch costs, and what the loop does.
void back_to_back(benchmark::State& state) {
  const std::int64_t records = state.range(0);
  const std::int64_t batches =
      smoke() ? 5 : std::clamp<std::int64_t>(1'000'000 / std::max<std::int64_t>(records, 1), 50, 2000);
  std::vector<Key> load;
  for (std::int64_t record = 0; record < records; ++record) {
    load.push_back(key_of(record));
  }
  Samples ours;
  Samples bare;
  const auto take = [](Samples& samples, const auto& counts) {
    for (const auto& [key, count] : counts) {
      samples.totals[key] += count;
    }
  };
  const auto take_ours = [&](Nanoseconds, Nanoseconds, const std::vector<Counts>& counts) { take(ours, counts); };
  Job<decltype(take_ours)> job(Duration(1000), ours, take_ours, std::make_shared<ManualClock>());
  BareInbox inbox;
  std::vector<Key> taken;
  KeyCounts counts;
  std::vector<double> ratios;

  for ([[maybe_unused]] auto iteration : state) {
    const Nanoseconds begin = steady_now();
    for (std::int64_t batch = 0; batch < batches; ++batch) {
      job.push(load);
      Nanoseconds start = steady_now();
      job.step();
      ours.batch.push_back(static_cast<double>(steady_now() - start));

      inbox.push(load);
      start = steady_now();
      inbox.take(taken);
      count_keys(taken, counts);
      take(bare, counts);
      bare.batch.push_back(static_cast<double>(steady_now() - start));
      ratios.push_back(bare.batch.back() / ours.batch.back());
    }
    if (ours.totals != bare.totals) {
      return fail(state, "the counts differ from the bare loop's");
    }
    state.SetIterationTime(static_cast<double>(steady_now() - begin) / 1e9);
  }
  report(state, ours, bare);
  if (records > 1) {  // less is no work, and a ratio of two clock readings
    state.counters["vs_hand"] = median(ratios);
  }
}
BENCHMARK(back_to_back)
    ->ArgName("records")
    ->Arg(0)
    ->Arg(1)
    ->Arg(1'000)
    ->Arg(100'000)
    ->UseManualTime()
    ->Iterations(rounds(5))
    ->Unit(benchmark::kSecond);

}  // namespace
}  // namespace tidemill::bench
