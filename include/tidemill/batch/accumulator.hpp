// Counters that user functions add to from any thread, read when an action has ended: malformed lines, bytes seen,
// samples.
//
//     auto malformed = context.long_accumulator();
//     lines.foreach([malformed](std::string_view line) { if (!valid(line)) malformed.add(1); });
//     std::cout << malformed.sum() << '\n';
//
// An action that runs a function again (a batch that is not persisted and is used twice) adds again. So accumulators
// are for watching a pipeline, and results belong into actions such as aggregate.
#pragma once

#include <array>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "tidemill/batch/context.hpp"
#include "tidemill/core/ownership.hpp"

namespace tidemill {

namespace detail {

/// One T for every few threads, each on cache lines of its own, so that adding threads do not wait for each other.
template <class T>
class Shards {
 public:
  static constexpr std::size_t count = 16;
  [[nodiscard]] T& mine() noexcept {
    return shards_[std::hash<std::thread::id>{}(std::this_thread::get_id()) % count].value;
  }
  template <class See>
  void each(See&& see) {
    for (Shard& shard : shards_) see(shard.value);
  }

 private:
  struct alignas(64) Shard {
    T value{};
  };
  std::array<Shard, count> shards_;
};

}  // namespace detail

/// A sum and a count of what was added. Copies are handles to the same.
/// Cost:    two uncontended atomic additions for each `add`; 1 KiB each.
/// Threads: every member may be called by any thread; a reader sees at least what was added before the action ended.
/// Source:  Spark `LongAccumulator`, `DoubleAccumulator`.
template <class N>
class SumAccumulator {
 public:
  SumAccumulator() : shards_{std::make_shared<detail::Shards<Cell>>()} {}

  void add(N n) const noexcept {
    Cell& cell = shards_->mine();
    cell.sum.fetch_add(n, std::memory_order_relaxed);
    cell.count.fetch_add(1, std::memory_order_relaxed);
  }
  [[nodiscard]] N sum() const noexcept {
    N total{};
    shards_->each([&](Cell& cell) { total += cell.sum.load(std::memory_order_relaxed); });
    return total;
  }
  /// How many times something was added.
  [[nodiscard]] std::size_t count() const noexcept {
    std::size_t total = 0;
    shards_->each([&](Cell& cell) { total += cell.count.load(std::memory_order_relaxed); });
    return total;
  }
  /// NaN when nothing was added.
  [[nodiscard]] double average() const noexcept { return static_cast<double>(sum()) / static_cast<double>(count()); }
  void reset() const noexcept {
    shards_->each([](Cell& cell) {
      cell.sum.store(N{}, std::memory_order_relaxed);
      cell.count.store(0, std::memory_order_relaxed);
    });
  }

 private:
  struct Cell {
    std::atomic<N> sum{};
    std::atomic<std::size_t> count{0};
  };
  std::shared_ptr<detail::Shards<Cell>> shards_;  // shared by the functions that captured the handle
};

using LongAccumulator = SumAccumulator<std::int64_t>;
using DoubleAccumulator = SumAccumulator<double>;

/// An accumulator of any kind. Copies are handles to the same. The order in which things are merged is not specified.
/// Cost:    an uncontended lock for each `add`.
/// Threads: every member may be called by any thread.
/// Source:  Spark `AccumulatorV2`.
template <AccumulatorState State>
class Accumulator {
 public:
  /// `zero` is neutral, since every shard begins with a copy of it.
  explicit Accumulator(State zero) : all_{std::make_shared<All>(std::move(zero))} {}

  template <class U>
    requires requires(State& state, U&& value) { state.add(std::forward<U>(value)); }
  void add(U&& value) const {
    Locked& mine = all_->shards.mine();
    const std::scoped_lock lock{mine.mutex};
    if (!mine.state) mine.state = std::make_unique<State>(all_->zero);
    mine.state->add(std::forward<U>(value));
  }
  /// All that was added, merged.
  [[nodiscard]] State value() const {
    State total = all_->zero;
    all_->shards.each([&](Locked& shard) {
      const std::scoped_lock lock{shard.mutex};
      if (shard.state) total.merge(*shard.state);
    });
    return total;
  }
  void reset() const {
    all_->shards.each([](Locked& shard) {
      const std::scoped_lock lock{shard.mutex};
      shard.state.reset();
    });
  }

 private:
  struct Locked {
    std::mutex mutex;  // guards state
    std::unique_ptr<State> state;
  };
  struct All {
    explicit All(State z) : zero{std::move(z)} {}
    const State zero;
    detail::Shards<Locked> shards;
  };
  std::shared_ptr<All> all_;  // shared by the functions that captured the handle
};

namespace detail {
template <class T>
struct Collected {
  std::vector<T> items;
  template <class U>
  void add(U&& item) {
    items.push_back(tidemill::to_owned(std::forward<U>(item)));
  }
  void merge(const Collected& other) { items.insert(items.end(), other.items.begin(), other.items.end()); }
};
}  // namespace detail

/// Collects records; of views, copies of what they look at. The order is not specified.
/// Source: Spark `CollectionAccumulator`.
template <class T>
class CollectionAccumulator {
 public:
  template <class U>
    requires std::constructible_from<T, U&&>
  void add(U&& item) const {
    all_.add(T(std::forward<U>(item)));
  }
  [[nodiscard]] std::vector<owned_t<T>> value() const { return all_.value().items; }
  void reset() const { all_.reset(); }

 private:
  Accumulator<detail::Collected<owned_t<T>>> all_{detail::Collected<owned_t<T>>{}};
};

}  // namespace tidemill
