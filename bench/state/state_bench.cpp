// Updates of state: batches of (key, number) pairs through map_with_state, beside the same updates of a bare flat table, which
// cannot roll back, expire or be saved. Keys of 8 to 16 bytes, states of 24; the keys of the updates are drawn evenly.
//
// Arguments: keys that have a state; updates a batch.
// Answer:    the sum of all sums that the updates have led to.
// Counters:  ns_per_update, flat_ns_per_update, vs_flat; bytes_per_key, and bytes_per_key_ratio over the bytes of key and state.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <benchmark/benchmark.h>
#include <boost/unordered/unordered_flat_map.hpp>

#include "common/race.hpp"
#include "common/settings.hpp"
#include "tidemill/tidemill.hpp"

namespace tidemill::bench {
namespace {

/// What is known of a key.
struct Tally {
  std::int64_t sum = 0;
  std::int64_t count = 0;
  std::int64_t last = 0;
  void add(std::int64_t value) noexcept {
    sum += value;
    ++count;
    last = value;
  }
};
static_assert(sizeof(Tally) == 24);

/// Keys of 8 bytes.
struct Numbers {
  using Key = std::uint64_t;
  static Key key(std::uint64_t i) { return i * 0x9e3779b97f4a7c15u; }
  static std::size_t bytes(Key) { return sizeof(Key); }
};
/// Keys of 16 bytes.
struct Pairs {
  using Key = std::pair<std::uint64_t, std::uint64_t>;
  static Key key(std::uint64_t i) { return {i * 0x9e3779b97f4a7c15u, i}; }
  static std::size_t bytes(const Key&) { return sizeof(Key); }
};
/// Keys of 8 to 15 bytes.
struct Texts {
  using Key = std::string;
  static Key key(std::uint64_t i) { return std::to_string(10'000'000 + i) + std::string(i % 8, 'x'); }
  static std::size_t bytes(const Key& key) { return key.size(); }
};

// Both sides hash alike; the bits are spread already.
template <class Key>
struct SameHash {
  using is_avalanching = void;
  std::size_t operator()(const Key& key) const noexcept { return static_cast<std::size_t>(hash_of(key)); }
};
template <class Key>
using Update = std::pair<Key, std::int64_t>;

/// A stream of updates and its state.
template <class Key>
class Stream {
 public:
  Stream()
      : clock_{std::make_shared<ManualClock>()},
        context_{{.app_name = "bench", .parallelism = 1, .executor = nullptr, .clock = clock_, .log = nullptr}},
        streaming_{context_, std::chrono::seconds{1}},
        queue_{std::make_shared<BatchQueue<Update<Key>>>()},
        tallies_{streaming_.queue_stream(queue_).map_with_state(state_spec<Tally>(AddUp{&answer_}))} {
    tallies_.foreach_batch([](const auto& batch) { benchmark::DoNotOptimize(batch.count()); });
    streaming_.start(Drive::by_host);
  }

  [[nodiscard]] Batch<Update<Key>> batch_of(std::vector<Update<Key>> updates) const {
    return context_.parallelize(std::move(updates), 1);
  }
  std::int64_t run(const Batch<Update<Key>>& updates) {
    answer_ = 0;
    queue_->push(updates);
    clock_->advance(std::chrono::seconds{1});
    streaming_.step();
    return answer_;
  }
  [[nodiscard]] const auto& state() const { return tallies_.state(); }

 private:
  struct AddUp {
    std::int64_t* answer;
    template <class Shown>
    void operator()(const Shown&, const std::int64_t* value, State<Tally>& state) const {
      Tally tally = state.exists() ? state.get() : Tally{};
      tally.add(*value);
      *answer += tally.sum;
      state.update(tally);
    }
  };

  std::int64_t answer_ = 0;
  std::shared_ptr<ManualClock> clock_;
  Context context_;
  StreamingContext streaming_;
  std::shared_ptr<BatchQueue<Update<Key>>> queue_;
  MapWithStateStream<Key, Tally, std::monostate> tallies_;
};

template <class Keys>
void updates(benchmark::State& state) {
  using Key = typename Keys::Key;
  const auto keys = static_cast<std::uint64_t>(smoke() ? std::min<std::int64_t>(state.range(0), 1000) : state.range(0));
  const auto per_batch =
      static_cast<std::size_t>(smoke() ? std::min<std::int64_t>(state.range(1), 1000) : state.range(1));
  constexpr std::uint64_t load_batch = 500'000;

  Stream<Key> stream;
  boost::unordered_flat_map<Key, Tally, SameHash<Key>> flat;
  std::size_t key_bytes = 0;
  for (std::uint64_t from = 0; from < keys; from += load_batch) {
    std::vector<Update<Key>> load;
    for (std::uint64_t i = from; i < std::min(keys, from + load_batch); ++i) {
      load.emplace_back(Keys::key(i), 1);
      key_bytes += Keys::bytes(load.back().first);
    }
    for (const auto& [key, value] : load) flat[key].add(value);
    stream.run(stream.batch_of(std::move(load)));
  }
  stream.run(stream.batch_of({}));  // after which no log of the load is left
  const auto bytes = static_cast<double>(stream.state().allocated_bytes());

  // Several batches in turn, so that small ones do not find all their keys in the cache.
  std::mt19937_64 random{1};
  std::vector<std::vector<Update<Key>>> batches(std::max<std::size_t>(2, 640'000 / per_batch));
  std::vector<Batch<Update<Key>>> offered;
  for (auto& batch : batches) {
    for (std::size_t i = 0; i < per_batch; ++i) {
      batch.emplace_back(Keys::key(random() % keys), static_cast<std::int64_t>(random() % 100));
    }
    offered.push_back(stream.batch_of(batch));
  }

  Race<std::int64_t> race(state, {.records = static_cast<std::int64_t>(per_batch), .record = "update"});
  std::size_t our_next = 0;
  std::size_t flat_next = 0;
  race.ours([&] { return stream.run(offered[our_next++ % offered.size()]); });
  race.limit("flat", [&] {
    std::int64_t answer = 0;
    for (const auto& [key, value] : batches[flat_next++ % batches.size()]) {
      Tally& tally = flat[key];
      tally.add(value);
      answer += tally.sum;
    }
    return answer;
  });
  race.go();
  state.counters["bytes_per_key"] = bytes / static_cast<double>(keys);
  state.counters["bytes_per_key_ratio"] = bytes / static_cast<double>(key_bytes + keys * sizeof(Tally));
}

void sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"keys", "updates"});
  for (const std::int64_t keys : {10'000, 1'000'000, 10'000'000}) {
    for (const std::int64_t per_batch : {10'000, 1'000'000}) benchmark->Args({keys, per_batch});
  }
  as_short_race(benchmark);
}

BENCHMARK(updates<Numbers>)->Name("numbers")->Apply(sizes);
BENCHMARK(updates<Texts>)->Name("texts")->Apply(sizes);
BENCHMARK(updates<Pairs>)->Name("pairs")->Apply(sizes);

}  // namespace
}  // namespace tidemill::bench
