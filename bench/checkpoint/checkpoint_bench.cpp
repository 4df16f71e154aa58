// What a checkpoint costs. One job twice, map_with_state over ten million keys of which each batch changes one in a hundred: once
// without a checkpoint, once with one in a directory of the current folder, which ought to be on a real disk.
//   batches/<keys>/pace_ms:P     a batch every P ms, or 0: one directly after the other, faster than most disks take the changes
//   recovery/<keys>              starting again on the checkpoint
// keys: numbers (8 bytes), pairs (16 bytes); states of 24 bytes. Sizes: TIDEMILL_BENCH_CHECKPOINT_KEYS, _BATCHES (a round).
//
// Counters of batches: time of a batch from its tick until its changes are handed over and the next may begin.
//   slowdown          median batch with a checkpoint over median batch without, median of the rounds
//   stall_beyond_ms   longest batch with, less the longest without, less the longest bare write and fdatasync of as many bytes
//                     into a file that was made ahead, on the same disk; median of the rounds. A round is long enough for a
//                     snapshot or two.
//   batch_ms, longest_ms; plain_ms, plain_longest_ms; bare_ms, bare_longest_ms: medians and longest, median of the rounds
// Counters of recovery: start() of a context that continues, everything in the cache of the system (warm), as is the same read.
//   vs_read           over the time to read(2) what start() relies on: the newest snapshot and the logs behind it
//   vs_cold_read      over the same read after the system was asked to forget those files
//   vs_hand           time of a loop by hand that reads the same entries, of fixed size and without checksums, from a file and
//                     puts them into a boost::unordered_flat_map of the right size, over that of start(): greater is better
//   ms, read_ms, cold_ms, hand_ms, mib
// Answers: the sums of all updates agree between the two jobs, and the state after a restart is that before.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <semaphore>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <variant>
#include <vector>

#include <benchmark/benchmark.h>
#include <boost/unordered/unordered_flat_map.hpp>

#include "common/outcome.hpp"
#include "common/process.hpp"
#include "common/settings.hpp"
#include "common/statistics.hpp"
#include "tidemill/tidemill.hpp"

namespace tidemill::bench {
namespace {

using namespace std::chrono_literals;
namespace filesystem = std::filesystem;
using SteadyTime = std::chrono::steady_clock::time_point;

double ms_since(SteadyTime begin) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
}

std::uint64_t key_count() {
  static const auto count = static_cast<std::uint64_t>(setting("CHECKPOINT_KEYS", 10'000'000, 20'000));
  return count;
}
std::size_t batches_a_round() {
  static const auto count = static_cast<std::size_t>(setting("CHECKPOINT_BATCHES", 120, 4));
  return count;
}

struct Tally {
  std::int64_t sum = 0;
  std::int64_t count = 0;
  std::int64_t last = 0;
  friend bool operator==(const Tally&, const Tally&) = default;
};
static_assert(sizeof(Tally) == 24);

struct Numbers {
  using Key = std::uint64_t;
  static Key key(std::uint64_t i) { return i * 0x9e3779b97f4a7c15u; }
};
struct Pairs {
  using Key = std::pair<std::uint64_t, std::uint64_t>;
  static Key key(std::uint64_t i) { return {i * 0x9e3779b97f4a7c15u, i}; }
};
template <class Key>
using Update = std::pair<Key, std::int64_t>;

/// A folder of its own, removed at the end.
class Folder {
 public:
  Folder() : path_{"tidemill-bench-" + std::to_string(::getpid())} {
    filesystem::remove_all(path_);
    filesystem::create_directory(path_);
  }
  ~Folder() {
    std::error_code ignored;
    filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] filesystem::path checkpoint() const { return path_ / "checkpoint"; }
  [[nodiscard]] filesystem::path scratch() const { return path_ / "scratch"; }

 private:
  filesystem::path path_;
};

/// The job, driven by a thread of its own, a batch at a time.
template <class Key>
class Job {
 public:
  explicit Job(const std::optional<filesystem::path>& checkpoint)
      : clock_{std::make_shared<ManualClock>(Time{} + 1s)},
        context_{{.app_name = "bench", .parallelism = 2, .executor = nullptr, .clock = clock_, .log = nullptr}},
        queue_{std::make_shared<BatchQueue<Update<Key>>>()},
        listener_{std::make_shared<Listener>()} {
    const auto setup = [&] {
      auto streaming = std::make_unique<StreamingContext>(context_, 1s);
      tallies_.emplace(streaming->queue_stream(queue_).map_with_state(state_spec<Tally>(AddUp{}).num_partitions(2)));
      tallies_->foreach_batch([this](const auto& batch) { answer_ += batch.fold(std::int64_t{0}, std::plus<>{}); });
      return streaming;
    };
    RecoveryOptions options;
    options.catch_up = CatchUp::merged;
    const auto begin = std::chrono::steady_clock::now();
    streaming_ = checkpoint ? StreamingContext::get_or_create(*checkpoint, setup, options) : setup();
    streaming_->add_listener(listener_);
    streaming_->start();
    start_ms_ = ms_since(begin);
  }
  ~Job() { streaming_->stop(); }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  [[nodiscard]] double start_ms() const { return start_ms_; }
  [[nodiscard]] std::int64_t answer() const { return answer_; }  // between batches
  [[nodiscard]] const auto& state() const { return tallies_->state(); }
  [[nodiscard]] Batch<Update<Key>> batch_of(std::vector<Update<Key>> updates) const {
    return context_.parallelize(std::move(updates), 2);
  }

  /// Milliseconds from the tick until the next batch could begin.
  double run(const Batch<Update<Key>>& updates) {
    queue_->push(updates);
    const auto begin = std::chrono::steady_clock::now();
    clock_->advance(1s);
    while (!listener_->done.try_acquire_for(200ms)) {  // a context that has stopped completes no batch
      if (streaming_->await_termination_or_timeout(0ms))
        throw std::runtime_error{"the context stopped without an error"};
    }
    while (streaming_->metrics().running_batches != 0) std::this_thread::sleep_for(20us);
    return ms_since(begin);
  }

 private:
  struct AddUp {
    template <class Shown>
    std::int64_t operator()(const Shown&, const std::int64_t* value, State<Tally>& state) const {
      Tally tally = state.exists() ? state.get() : Tally{};
      tally.sum += *value;
      ++tally.count;
      tally.last = *value;
      state.update(tally);
      return tally.sum;
    }
  };
  struct Listener final : StreamingListener {
    void on_batch_completed(const BatchInfo&) override { done.release(); }
    std::binary_semaphore done{0};
  };

  std::int64_t answer_ = 0;
  std::shared_ptr<ManualClock> clock_;
  Context context_;
  std::shared_ptr<BatchQueue<Update<Key>>> queue_;
  std::shared_ptr<Listener> listener_;
  std::optional<MapWithStateStream<Key, Tally, std::int64_t>> tallies_;
  std::unique_ptr<StreamingContext> streaming_;
  double start_ms_ = 0;
};

/// Until whatever goes on in the background has ended.
void wait_until_quiet() {
  for (double before = cpu_seconds();;) {
    std::this_thread::sleep_for(200ms);
    const double now = cpu_seconds();
    if (now - before < 0.004) return;
    before = now;
  }
}

template <class Keys>
void load(Job<typename Keys::Key>& job) {
  using Key = typename Keys::Key;
  constexpr std::uint64_t load_batch = 500'000;
  for (std::uint64_t from = 0; from < key_count(); from += load_batch) {
    std::vector<Update<Key>> updates;
    for (std::uint64_t i = from; i < std::min(key_count(), from + load_batch); ++i)
      updates.emplace_back(Keys::key(i), 1);
    job.run(job.batch_of(std::move(updates)));
  }
  job.run(job.batch_of({}));
}

/// One in a hundred keys, different ones in each of the batches.
template <class Keys>
std::vector<std::vector<Update<typename Keys::Key>>> updates() {
  std::mt19937_64 random{1};
  std::vector<std::vector<Update<typename Keys::Key>>> batches(16);
  for (auto& batch : batches) {
    for (std::uint64_t i = 0; i < key_count() / 100; ++i)
      batch.emplace_back(Keys::key(random() % key_count()), static_cast<std::int64_t>(random() % 100));
  }
  return batches;
}

/// The sides of a round: how long each batch took.
struct Times {
  std::vector<double> all;
  [[nodiscard]] double typical() const { return median(all); }
  [[nodiscard]] double longest() const { return *std::max_element(all.begin(), all.end()); }
};

/// `once()` returns milliseconds.
template <class Once>
Times at_pace(std::chrono::milliseconds pace, Once once) {
  Times times;
  auto next = std::chrono::steady_clock::now();
  for (std::size_t i = 0; i < batches_a_round(); ++i) {
    std::this_thread::sleep_until(next);
    next = std::max(next + pace, std::chrono::steady_clock::now());
    times.all.push_back(once(i));
  }
  return times;
}

void check(bool good, const char* what) {
  if (!good) throw std::system_error(errno, std::generic_category(), what);
}

/// So many bytes written and synchronised, again and again.
Times bare(const filesystem::path& path, std::size_t bytes, std::chrono::milliseconds pace) {
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  check(file >= 0, "open");
  const auto size = static_cast<off_t>(bytes * batches_a_round());
  check(::fallocate(file, 0, 0, size) == 0 && ::fsync(file) == 0, "fallocate");
  const std::string buffer(bytes, 'x');
  Times times = at_pace(pace, [&](std::size_t i) {
    const auto begin = std::chrono::steady_clock::now();
    check(::pwrite(file, buffer.data(), bytes, static_cast<off_t>(i * bytes)) == static_cast<ssize_t>(bytes), "pwrite");
    check(::fdatasync(file) == 0, "fdatasync");
    return ms_since(begin);
  });
  ::close(file);
  filesystem::remove(path);
  return times;
}

template <class Keys>
std::size_t commit_bytes() {
  StateChanges one;
  one.put(0, Keys::key(1), std::pair<Time, Tally>{});
  return one.bytes().size() * static_cast<std::size_t>(key_count() / 100);
}

template <class Keys>
void batches(benchmark::State& state) {
  const std::chrono::milliseconds pace{smoke() ? 0 : state.range(0)};
  const Folder folder;
  Job<typename Keys::Key> plain{std::nullopt};
  Job<typename Keys::Key> kept{folder.checkpoint()};
  load<Keys>(plain);
  load<Keys>(kept);
  std::vector<Batch<Update<typename Keys::Key>>> for_plain;
  std::vector<Batch<Update<typename Keys::Key>>> for_kept;
  for (auto& batch : updates<Keys>()) {
    for_plain.push_back(plain.batch_of(batch));
    for_kept.push_back(kept.batch_of(std::move(batch)));
  }

  std::vector<double> slowdown, beyond, batch, longest, plain_batch, plain_longest, bare_batch, bare_longest;
  bool warm = smoke();
  const auto round = [&] {
    wait_until_quiet();
    const Times without = at_pace(pace, [&](std::size_t i) { return plain.run(for_plain[i % for_plain.size()]); });
    const Times sync = bare(folder.scratch(), commit_bytes<Keys>(), pace);
    const Times with = at_pace(pace, [&](std::size_t i) { return kept.run(for_kept[i % for_kept.size()]); });
    if (!std::exchange(warm, true)) return with;
    slowdown.push_back(with.typical() / without.typical());
    beyond.push_back(with.longest() - without.longest() - sync.longest());
    batch.push_back(with.typical());
    longest.push_back(with.longest());
    plain_batch.push_back(without.typical());
    plain_longest.push_back(without.longest());
    bare_batch.push_back(sync.typical());
    bare_longest.push_back(sync.longest());
    return with;
  };
  if (!warm) round();
  for ([[maybe_unused]] auto iteration : state) {
    const Times with = round();
    double seconds = 0;
    for (const double ms : with.all) seconds += ms / 1e3;
    state.SetIterationTime(seconds);
    if (plain.answer() != kept.answer() || plain.answer() == 0) {
      fail(state, "the sums with a checkpoint differ from those without");
      return;
    }
  }
  state.counters["slowdown"] = median(slowdown);
  state.counters["stall_beyond_ms"] = median(beyond);
  state.counters["batch_ms"] = median(batch);
  state.counters["longest_ms"] = median(longest);
  state.counters["plain_ms"] = median(plain_batch);
  state.counters["plain_longest_ms"] = median(plain_longest);
  state.counters["bare_ms"] = median(bare_batch);
  state.counters["bare_longest_ms"] = median(bare_longest);
}

/// What start() relies on: the newest snapshot, and as much of the logs as lies behind it.
std::vector<filesystem::path> needed_files(const filesystem::path& checkpoint) {
  std::vector<filesystem::path> snapshots, needed;
  for (const auto& entry : filesystem::directory_iterator(checkpoint)) {
    if (entry.path().extension() == ".dat") snapshots.push_back(entry.path());
  }
  std::sort(snapshots.begin(), snapshots.end());
  if (!snapshots.empty()) needed.push_back(snapshots.back());
  for (const auto& entry : filesystem::directory_iterator(checkpoint)) {
    if (entry.path().extension() != ".log") continue;
    if (snapshots.empty() || entry.last_write_time() >= filesystem::last_write_time(snapshots.back()))
      needed.push_back(entry.path());
  }
  return needed;
}

double read_ms(const std::vector<filesystem::path>& paths, std::size_t& bytes) {
  std::vector<char> buffer(256 * 1024);
  bytes = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (const auto& path : paths) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    check(file >= 0, "open");
    for (ssize_t got = 0; (got = ::read(file, buffer.data(), buffer.size())) > 0;)
      bytes += static_cast<std::size_t>(got);
    ::close(file);
  }
  return ms_since(begin);
}

/// As read_ms(), from the disk as far as the system forgets what it is asked to.
double cold_read_ms(const std::vector<filesystem::path>& paths) {
  for (const auto& path : paths) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    check(file >= 0 && ::fdatasync(file) == 0, "open");
    check(::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0, "posix_fadvise");
    ::close(file);
  }
  std::size_t bytes = 0;
  return read_ms(paths, bytes);
}

/// The least that a recovery can do: entries of fixed size, read and put into a bare table.
template <class Key>
class ByHand {
 public:
  ByHand(filesystem::path path, const std::vector<std::pair<Key, Tally>>& entries)
      : path_{std::move(path)}, count_{entries.size()} {
    const int file = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    check(file >= 0, "open");
    const char* at = reinterpret_cast<const char*>(entries.data());
    for (std::size_t left = entries.size() * sizeof(entries[0]); left > 0;) {
      const ssize_t wrote = ::write(file, at, left);
      check(wrote > 0, "write");
      at += wrote;
      left -= static_cast<std::size_t>(wrote);
    }
    ::close(file);
  }
  double ms() const {
    using Entry = std::pair<Key, Tally>;
    std::vector<Entry> block(4096);
    boost::unordered_flat_map<Key, Tally, Hash> table;
    const auto begin = std::chrono::steady_clock::now();
    table.reserve(count_);
    const int file = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    check(file >= 0, "open");
    for (ssize_t got = 0; (got = ::read(file, block.data(), block.size() * sizeof(Entry))) > 0;) {
      for (std::size_t i = 0; i < static_cast<std::size_t>(got) / sizeof(Entry); ++i) table.insert(block[i]);
    }
    ::close(file);
    const double time = ms_since(begin);
    if (table.size() != count_) throw std::runtime_error("the loop by hand lost entries");
    return time;
  }

 private:
  struct Hash {
    std::size_t operator()(const Key& key) const { return tidemill::hash_of(key); }
  };
  filesystem::path path_;
  std::size_t count_;
};

template <class Keys>
void recovery(benchmark::State& state) {
  const Folder folder;
  std::size_t keys = 0;
  std::vector<std::optional<Tally>> sample;
  std::optional<ByHand<typename Keys::Key>> by_hand;
  const auto sampled = [](const auto& job) {
    std::vector<std::optional<Tally>> found;
    for (std::uint64_t i = 0; i < key_count(); i += 997) found.push_back(job.state().get(Keys::key(i)));
    return found;
  };
  {
    Job<typename Keys::Key> job{folder.checkpoint()};
    load<Keys>(job);
    wait_until_quiet();  // a snapshot of everything but the last batches
    for (auto& batch : updates<Keys>()) job.run(job.batch_of(std::move(batch)));
    wait_until_quiet();
    keys = job.state().size();
    sample = sampled(job);
    by_hand.emplace(folder.scratch(), job.state().snapshot().entries);
  }
  std::vector<double> ratios, cold_ratios, hand_ratios, starts, reads, colds, hands;
  std::size_t bytes = 0;
  bool warm = smoke();
  const auto round = [&] {
    const double cold = cold_read_ms(needed_files(folder.checkpoint()));
    const double read = read_ms(needed_files(folder.checkpoint()), bytes);
    const double hand = by_hand->ms();
    const Job<typename Keys::Key> job{folder.checkpoint()};
    if (job.state().size() != keys || sampled(job) != sample) fail(state, "the state after a restart is another");
    if (std::exchange(warm, true)) {
      ratios.push_back(job.start_ms() / read);
      cold_ratios.push_back(job.start_ms() / cold);
      hand_ratios.push_back(hand / job.start_ms());
      starts.push_back(job.start_ms());
      reads.push_back(read);
      colds.push_back(cold);
      hands.push_back(hand);
    }
    return job.start_ms();
  };
  if (!warm) round();
  for ([[maybe_unused]] auto iteration : state) {
    state.SetIterationTime(round() / 1e3);
    if (has_failed()) return;
  }
  state.counters["vs_read"] = median(ratios);
  state.counters["vs_cold_read"] = median(cold_ratios);
  state.counters["vs_hand"] = median(hand_ratios);
  state.counters["ms"] = median(starts);
  state.counters["read_ms"] = median(reads);
  state.counters["cold_ms"] = median(colds);
  state.counters["hand_ms"] = median(hands);
  state.counters["mib"] = static_cast<double>(bytes) / (1024 * 1024);
}

void as_rounds(benchmark::internal::Benchmark* benchmark) {
  benchmark->UseManualTime()->Iterations(rounds(3))->Unit(benchmark::kMillisecond);
}
void paces(benchmark::internal::Benchmark* benchmark) {
  as_rounds(benchmark);
  benchmark->ArgName("pace_ms")->Arg(100)->Arg(0);
}

BENCHMARK(batches<Numbers>)->Name("batches/numbers")->Apply(paces);
BENCHMARK(batches<Pairs>)->Name("batches/pairs")->Apply(paces);
BENCHMARK(recovery<Numbers>)->Name("recovery/numbers")->Apply(as_rounds);
BENCHMARK(recovery<Pairs>)->Name("recovery/pairs")->Apply(as_rounds);

}  // namespace
}  // namespace tidemill::bench
