// Nodes that put partitions together or apart: unions, coalescing, the exchange that moves every record to the
// partition where it belongs, and records that are numbered, sampled or paired by their place.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tidemill/batch/detail/chain.hpp"
#include "tidemill/batch/detail/sources.hpp"
#include "tidemill/core/hash.hpp"

namespace tidemill::detail {

template <class T>
using NodePointer = std::shared_ptr<const BatchNode<T>>;

/// Collects records into chunks for a sink, and stops when it has had enough.
template <class T>
class ChunkBuffer {
 public:
  explicit ChunkBuffer(ChunkSink<T> sink) : sink_{sink} { chunk_.reserve(chunk_records); }
  template <class... Args>
  void emplace(Args&&... args) {
    chunk_.emplace_back(std::forward<Args>(args)...);
    if (chunk_.size() == chunk_records) flush();
  }
  /// Must be called after the last record.
  void flush() {
    if (wanted_ && !chunk_.empty()) wanted_ = sink_(chunk_);
    chunk_.clear();
  }
  [[nodiscard]] bool wanted() const noexcept { return wanted_; }

 private:
  ChunkSink<T> sink_;  // outlives this object, which lives in a call of `run`
  std::vector<T> chunk_;
  bool wanted_ = true;
};

/// Several batches as one: partition after partition, or, when all are partitioned alike, each partition of the result
/// made of the partitions of that number.   Source: Spark `UnionRDD`, `PartitionerAwareUnionRDD`.
template <class T>
class UnionNode final : public BatchNode<T> {
 public:
  /// Pre: at least one input.
  explicit UnionNode(std::vector<NodePointer<T>> inputs)
      : BatchNode<T>{scope_of(inputs)}, inputs_{std::move(inputs)}, partitioner_{inputs_.front()->partitioner()} {
    for (const NodePointer<T>& input : inputs_) {
      const PartitionerRef theirs = input->partitioner();
      if (!partitioner_ || !theirs || !partitioner_->equals(*theirs)) partitioner_ = nullptr;
    }
  }
  [[nodiscard]] std::size_t partitions() const override {
    if (partitioner_) return inputs_.front()->partitions();
    std::size_t total = 0;
    for (const NodePointer<T>& input : inputs_) total += input->partitions();
    return total;
  }
  void prepare() const override {
    for (const NodePointer<T>& input : inputs_) input->prepare();
  }
  [[nodiscard]] std::size_t size_hint() const override {
    std::size_t total = 0;
    for (const NodePointer<T>& input : inputs_) total += input->size_hint();
    return total;
  }
  [[nodiscard]] PartitionerRef partitioner() const override { return partitioner_; }
  void run(std::size_t partition, ChunkSink<T> sink) const override {
    if (partitioner_) {
      bool wanted = true;
      for (const NodePointer<T>& input : inputs_) {
        if (!wanted) return;
        input->run(partition, [&](std::span<const T> chunk) { return wanted = sink(chunk); });
      }
      return;
    }
    const auto [input, p] = locate(partition);
    input->run(p, sink);
  }
  [[nodiscard]] std::optional<std::span<const T>> stored(std::size_t partition) const override {
    if (partitioner_) return std::nullopt;
    const auto [input, p] = locate(partition);
    return input->stored(p);
  }

 private:
  [[nodiscard]] std::pair<const BatchNode<T>*, std::size_t> locate(std::size_t partition) const {
    for (const NodePointer<T>& input : inputs_) {
      const std::size_t n = input->partitions();
      if (partition < n) return {input.get(), partition};
      partition -= n;
    }
    TIDEMILL_ASSERT(false, "a union has as many partitions as its inputs together");
    return {};
  }

  [[nodiscard]] static const std::shared_ptr<const Scope>& scope_of(const std::vector<NodePointer<T>>& inputs) {
    for (const NodePointer<T>& input : inputs) {
      if (input->scope()->batch_time) return input->scope();
    }
    return inputs.front()->scope();
  }

  std::vector<NodePointer<T>> inputs_;
  PartitionerRef partitioner_;  // not null: all inputs are partitioned by it
};

/// Fewer partitions, each made of neighbours: no record moves.   Source: Spark `CoalescedRDD`.
template <class T>
class CoalescedNode final : public BatchNode<T> {
 public:
  CoalescedNode(NodePointer<T> input, std::size_t partitions)
      : BatchNode<T>{input->scope()}, input_{std::move(input)}, partitions_{partitions} {}
  [[nodiscard]] std::size_t partitions() const override { return std::min(partitions_, input_->partitions()); }
  void prepare() const override { input_->prepare(); }
  [[nodiscard]] std::size_t size_hint() const override { return input_->size_hint(); }
  void run(std::size_t partition, ChunkSink<T> sink) const override {
    const std::size_t before = input_->partitions();
    const std::size_t end = slice_begin(before, partitions(), partition + 1);
    bool wanted = true;
    for (std::size_t p = slice_begin(before, partitions(), partition); p < end && wanted; ++p) {
      input_->run(p, [&](std::span<const T> chunk) { return wanted = sink(chunk); });
    }
  }

 private:
  NodePointer<T> input_;
  std::size_t partitions_;  // > 0
};

/// A batch that has a name.
template <class T>
class NamedNode final : public BatchNode<T> {
 public:
  NamedNode(NodePointer<T> input, std::string name)
      : BatchNode<T>{input->scope()}, input_{std::move(input)}, name_{std::move(name)} {}
  [[nodiscard]] std::size_t partitions() const override { return input_->partitions(); }
  void prepare() const override { input_->prepare(); }
  void run(std::size_t partition, ChunkSink<T> sink) const override { input_->run(partition, sink); }
  [[nodiscard]] std::optional<std::span<const T>> stored(std::size_t p) const override { return input_->stored(p); }
  [[nodiscard]] std::size_t size_hint() const override { return input_->size_hint(); }
  [[nodiscard]] PartitionerRef partitioner() const override { return input_->partitioner(); }
  void unpersist() const override { input_->unpersist(); }
  [[nodiscard]] std::string_view name() const noexcept override { return name_; }

 private:
  NodePointer<T> input_;
  std::string name_;
};

/// Every record in the partition that a plan gives it; inside a partition in batch order.
///
/// `Plan`:  const char* op;  std::size_t partitions() const;  PartitionerRef partitioner() const;
///          `begin(p)` makes what assigns the records of input partition p, one after the other: `std::size_t(const
///          T&)`; `finish(std::vector<T>&)` has the last word on each partition of the result.
template <ChainLike Chain, class Plan>
class ExchangeNode final : public PreparedNode<typename Chain::value_type> {
  using T = typename Chain::value_type;

 public:
  ExchangeNode(Chain chain, Plan plan)
      : PreparedNode<T>{chain.node().scope()}, plan_{std::move(plan)}, chain_{std::move(chain)} {}
  [[nodiscard]] std::size_t partitions() const override { return plan_.partitions(); }
  [[nodiscard]] std::size_t size_hint() const override { return chain_.node().size_hint(); }
  [[nodiscard]] PartitionerRef partitioner() const override { return plan_.partitioner(); }

 protected:
  void build(std::vector<std::vector<T>>& parts, std::vector<Arena>& arenas) const override {
    chain_.node().prepare();
    const std::size_t inputs = chain_.node().partitions();
    const std::size_t outputs = partitions();
    std::vector<std::vector<std::vector<T>>> buckets(inputs);
    std::vector<Arena> looked_at(inputs);
    for_each_partition_of(*this->scope(), inputs, size_hint(), [&](std::size_t p) {
      buckets[p].resize(outputs);
      auto assign = plan_.begin(p);
      run_chain(chain_, p, [&](auto&& record) {
        const std::size_t target = assign(std::as_const(record));
        buckets[p][target].push_back(settled<Chain>(std::forward<decltype(record)>(record), looked_at[p]));
      });
    });
    for_each_partition_of(*this->scope(), outputs, size_hint(), [&](std::size_t q) {
      std::size_t size = 0;
      for (const auto& bucket : buckets) size += bucket[q].size();
      for (auto& bucket : buckets) {
        if (parts[q].empty()) {
          parts[q] = std::move(bucket[q]);
          parts[q].reserve(size);
        } else {
          std::move(bucket[q].begin(), bucket[q].end(), std::back_inserter(parts[q]));
          bucket[q] = std::vector<T>{};
        }
      }
      plan_.finish(parts[q]);
    });
    std::move(looked_at.begin(), looked_at.end(), std::back_inserter(arenas));
  }

 private:
  Plan plan_;
  Chain chain_;  // kept: stable records look at its memory
};

/// Which partition a key belongs to. Knows the common partitioner, and asks the others through their virtual function.
template <class K>
class KeyAssignment {
 public:
  KeyAssignment(const char* op, std::shared_ptr<const Partitioner<K>> partitioner)
      : op_{op},
        by_hash_{dynamic_cast<const HashPartitioner<K>*>(partitioner.get()) != nullptr},
        partitioner_{std::move(partitioner)} {}
  [[nodiscard]] std::size_t operator()(const K& key) const {
    if (by_hash_) return partition_of_tag(tag_of_hash(hash_of(key)), partitioner_->partitions());
    return ask_partitioner(op_, *partitioner_, key);
  }
  [[nodiscard]] const std::shared_ptr<const Partitioner<K>>& partitioner() const noexcept { return partitioner_; }

 private:
  const char* op_;
  bool by_hash_;
  std::shared_ptr<const Partitioner<K>> partitioner_;  // shared by all batches that are partitioned by it
};

/// Plan: by key.
template <class K>
struct ByKey {
  KeyAssignment<K> assignment;
  [[nodiscard]] std::size_t partitions() const { return assignment.partitioner()->partitions(); }
  [[nodiscard]] PartitionerRef partitioner() const { return assignment.partitioner(); }
  [[nodiscard]] auto begin(std::size_t) const {
    return [this](const auto& pair) { return assignment(pair.first); };
  }
  template <class T>
  void finish(std::vector<T>&) const {}
};

/// Plan: in turn. Each input partition begins at another one, so that many short ones spread as well as a long one.
struct InTurn {
  std::size_t count;
  [[nodiscard]] std::size_t partitions() const { return count; }
  [[nodiscard]] static PartitionerRef partitioner() { return nullptr; }
  [[nodiscard]] auto begin(std::size_t p) const {
    return [next = p % count, n = count](const auto&) mutable {
      const std::size_t mine = next;
      next = next + 1 == n ? 0 : next + 1;
      return mine;
    };
  }
  template <class T>
  static void finish(std::vector<T>&) {}
};

/// A reproducible stream of random numbers: the SplitMix64 sequence.
class SampleRandom {
 public:
  SampleRandom(std::uint64_t seed, std::uint64_t stream) noexcept : state_{hash_combine(seed, stream)} {}
  /// In [0, 1).
  [[nodiscard]] double next() noexcept {
    state_ += hash_seed_a;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return static_cast<double>(z >> 11) * 0x1.0p-53;
  }
  /// How often an event of this mean rate happens: Poisson, by Knuth's products, in steps that do not underflow.
  [[nodiscard]] TIDEMILL_API std::size_t poisson(double mean) noexcept;

 private:
  std::uint64_t state_;
};

/// Each record with the given probability, or each a random number of times.
template <class T>
class SampleNode final : public BatchNode<T> {
 public:
  SampleNode(NodePointer<T> input, bool with_replacement, double fraction, std::uint64_t seed)
      : BatchNode<T>{input->scope()},
        input_{std::move(input)},
        with_replacement_{with_replacement},
        fraction_{fraction},
        seed_{seed} {}
  [[nodiscard]] std::size_t partitions() const override { return input_->partitions(); }
  void prepare() const override { input_->prepare(); }
  [[nodiscard]] std::size_t size_hint() const override { return input_->size_hint(); }
  [[nodiscard]] PartitionerRef partitioner() const override { return input_->partitioner(); }
  void run(std::size_t partition, ChunkSink<T> sink) const override {
    SampleRandom random{seed_, partition};
    bool wanted = true;
    input_->run(partition, [&](std::span<const T> chunk) {
      for (std::size_t i = 0; i < chunk.size() && wanted; ++i) {
        std::size_t times = with_replacement_ ? random.poisson(fraction_) : (random.next() < fraction_ ? 1 : 0);
        for (; times > 0 && wanted; --times) wanted = sink(chunk.subspan(i, 1));
      }
      return wanted;
    });
  }

 private:
  NodePointer<T> input_;
  bool with_replacement_;
  double fraction_;  // >= 0
  std::uint64_t seed_;
};

/// Records with their number in the batch. Kept, because the number depends on all partitions before.
template <ChainLike Chain>
class ZipWithIndexNode final : public PreparedNode<std::pair<typename Chain::value_type, std::size_t>> {
  using T = typename Chain::value_type;
  using Out = std::pair<T, std::size_t>;

 public:
  explicit ZipWithIndexNode(Chain chain) : PreparedNode<Out>{chain.node().scope()}, chain_{std::move(chain)} {}
  [[nodiscard]] std::size_t partitions() const override { return chain_.node().partitions(); }
  [[nodiscard]] std::size_t size_hint() const override { return chain_.node().size_hint(); }

 protected:
  void build(std::vector<std::vector<Out>>& parts, std::vector<Arena>& arenas) const override {
    chain_.node().prepare();
    for_each_partition_of(*this->scope(), parts.size(), size_hint(), [&](std::size_t p) {
      run_chain(chain_, p, [&](auto&& record) {
        parts[p].emplace_back(settled<Chain>(std::forward<decltype(record)>(record), arenas[p]), parts[p].size());
      });
    });
    std::size_t first = 0;
    for (auto& part : parts) {
      if (first != 0) {
        for (Out& numbered : part) numbered.second += first;
      }
      first += part.size();
    }
  }

 private:
  Chain chain_;  // kept: stable records look at its memory
};

[[noreturn]] TIDEMILL_API void throw_zip_mismatch(const char* what, std::size_t mine, std::size_t theirs);

/// Two batches of the same shape, side by side.
template <ChainLike Left, ChainLike Right>
class ZipNode final : public PreparedNode<std::pair<typename Left::value_type, typename Right::value_type>> {
  using A = typename Left::value_type;
  using B = typename Right::value_type;
  using Out = std::pair<A, B>;

 public:
  ZipNode(Left left, Right right)
      : PreparedNode<Out>{common_scope(left.node(), right.node())}, left_{std::move(left)}, right_{std::move(right)} {}
  [[nodiscard]] std::size_t partitions() const override { return left_.node().partitions(); }
  [[nodiscard]] std::size_t size_hint() const override { return left_.node().size_hint(); }

 protected:
  void build(std::vector<std::vector<Out>>& parts, std::vector<Arena>& arenas) const override {
    if (parts.size() != right_.node().partitions()) {
      throw_zip_mismatch("partitions", parts.size(), right_.node().partitions());
    }
    left_.node().prepare();
    right_.node().prepare();
    for_each_partition_of(*this->scope(), parts.size(), size_hint(), [&](std::size_t p) {
      std::vector<A> mine;
      std::vector<B> theirs;
      collect_partition(left_, p, mine, arenas[p]);
      collect_partition(right_, p, theirs, arenas[p]);
      if (mine.size() != theirs.size()) throw_zip_mismatch("records in a partition", mine.size(), theirs.size());
      parts[p].reserve(mine.size());
      for (std::size_t i = 0; i < mine.size(); ++i) parts[p].emplace_back(std::move(mine[i]), std::move(theirs[i]));
    });
  }

 private:
  Left left_;    // kept: stable records look at its memory
  Right right_;  // as left_
};

/// Every pair of a record here and a record there; the partition on the right is held in memory while it is run.
template <class A, class B>
class CartesianNode final : public BatchNode<std::pair<A, B>> {
  using Out = std::pair<A, B>;

 public:
  CartesianNode(NodePointer<A> left, NodePointer<B> right)
      : BatchNode<Out>{common_scope(*left, *right)}, left_{std::move(left)}, right_{std::move(right)} {}
  [[nodiscard]] std::size_t partitions() const override { return left_->partitions() * right_->partitions(); }
  void prepare() const override {
    left_->prepare();
    right_->prepare();
  }
  [[nodiscard]] std::size_t size_hint() const override { return left_->size_hint() * right_->size_hint(); }
  void run(std::size_t partition, ChunkSink<Out> sink) const override {
    const std::size_t i = partition / right_->partitions();
    const std::size_t j = partition % right_->partitions();
    std::vector<B> copy;
    std::optional<std::span<const B>> theirs = right_->stored(j);
    if (!theirs) {
      right_->run(j, [&](std::span<const B> chunk) {
        copy.insert(copy.end(), chunk.begin(), chunk.end());
        return true;
      });
      theirs = copy;
    }
    ChunkBuffer<Out> out{sink};
    left_->run(i, [&](std::span<const A> chunk) {
      for (const A& a : chunk) {
        for (const B& b : *theirs) {
          out.emplace(a, b);
          if (!out.wanted()) return false;
        }
      }
      return true;
    });
    out.flush();
  }

 private:
  NodePointer<A> left_;
  NodePointer<B> right_;
};

/// The numbers first, first + step, …, `count` of them: made when they are needed, never stored.
class RangeNode final : public BatchNode<std::int64_t> {
 public:
  RangeNode(std::shared_ptr<const Scope> scope, std::int64_t first, std::int64_t step, std::size_t count,
            std::size_t partitions)
      : BatchNode{std::move(scope)},
        first_{first},
        step_{step},
        count_{count},
        partitions_{std::clamp<std::size_t>(count, 1, partitions)} {}
  [[nodiscard]] std::size_t partitions() const override { return partitions_; }
  void prepare() const override {}
  [[nodiscard]] std::size_t size_hint() const override { return count_; }
  TIDEMILL_API void run(std::size_t partition, ChunkSink<std::int64_t> sink) const override;

 private:
  std::int64_t first_;
  std::int64_t step_;
  std::size_t count_;
  std::size_t partitions_;
};

}  // namespace tidemill::detail
