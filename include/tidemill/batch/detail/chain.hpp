// What a batch is made of below its operators: Batch<T> refers to a node, BatchChain adds fused stages to one. Both
// offer the same operators (BatchOps), and a chain becomes a node when it is stored as a Batch.
#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "tidemill/batch/detail/node.hpp"
#include "tidemill/batch/detail/stages.hpp"

namespace tidemill::detail {

/// What is known of a chain at compile time.
struct ChainFacts {
  bool stable = true;            ///< what its records look at lives as long as the batch (stages.hpp)
  bool keeps_partitions = true;  ///< its keys are those of its node, so the node's partitioner still holds
};

template <class C>
concept ChainLike = requires(const C& c) {
  typename C::value_type;
  typename C::reference;
  typename C::node_type;
  { C::facts } -> std::convertible_to<ChainFacts>;
  c.node();
  c.stages();
};

/// A chain without stages: a Batch.
template <class Chain>
inline constexpr bool is_plain =
    std::is_same_v<std::remove_cvref_t<decltype(std::declval<const Chain&>().stages())>, Identity>;

/// Runs the fused loop of one partition: `emit` gets every record, as a const reference into the node's chunk or as a
/// temporary.
template <ChainLike Chain, class Emit>
TIDEMILL_INLINE void run_chain(const Chain& chain, std::size_t partition, Emit&& emit) {
  using In = typename Chain::node_type;
  const auto& stages = chain.stages();
  chain.node().run(partition, [&](std::span<const In> chunk) {
    for (const In& record : chunk) stages(record, emit);
    return true;
  });
}

/// Like run_chain, and stops soon after `done()` holds: no further record of the node is looked at.
template <ChainLike Chain, class Emit, class Done>
TIDEMILL_INLINE void run_chain_until(const Chain& chain, std::size_t partition, Emit&& emit, Done&& done) {
  using In = typename Chain::node_type;
  const auto& stages = chain.stages();
  if (done()) return;
  chain.node().run(partition, [&](std::span<const In> chunk) {
    for (const In& record : chunk) {
      stages(record, emit);
      if (done()) return false;
    }
    return true;
  });
}

/// The record, fit to wait: what it looks at is copied into `arena` unless the batch keeps it.
template <ChainLike Chain, class R>
[[nodiscard]] TIDEMILL_INLINE typename Chain::value_type settled(R&& record, [[maybe_unused]] Arena& arena) {
  if constexpr (Chain::facts.stable) {
    return std::forward<R>(record);
  } else {
    return tidemill::rehome(std::forward<R>(record), arena);
  }
}

/// Appends the records of a partition to `records`; what they look at is copied into `arena` unless the batch keeps it.
template <ChainLike Chain>
void collect_partition(const Chain& chain, std::size_t partition, std::vector<typename Chain::value_type>& records,
                       Arena& arena) {
  run_chain(chain, partition,
            [&](auto&& record) { records.push_back(settled<Chain>(std::forward<decltype(record)>(record), arena)); });
}

template <ChainLike Chain>
[[nodiscard]] PartitionerRef partitioner_of(const Chain& chain) {
  return Chain::facts.keeps_partitions ? chain.node().partitioner() : nullptr;
}

/// Runs a chain as a node does: records cross in chunks that are filled by the fused loop and never stored.
template <ChainLike Chain>
void run_in_chunks(const Chain& chain, std::size_t partition, ChunkSink<typename Chain::value_type> sink) {
  using T = typename Chain::value_type;
  bool wanted = true;
  if constexpr (std::is_lvalue_reference_v<typename Chain::reference> && !std::copy_constructible<T>) {
    // Records that cannot be copied cross one by one, where they are.
    run_chain_until(
        chain, partition,
        [&](const T& record) {
          wanted = wanted && sink(std::span<const T>{&record, 1});
        },
        [&] { return !wanted; });
  } else {
    std::vector<T> chunk;
    run_chain_until(
        chain, partition,
        [&](auto&& record) {
          if (!wanted) return;
          chunk.push_back(std::forward<decltype(record)>(record));
          if (chunk.size() == chunk_records) {
            wanted = sink(chunk);
            chunk.clear();
          }
        },
        [&] { return !wanted; });
    if (wanted && !chunk.empty()) sink(chunk);
  }
}

/// A chain whose type is erased.
template <ChainLike Chain>
class ChainNode final : public BatchNode<typename Chain::value_type> {
  using T = typename Chain::value_type;

 public:
  explicit ChainNode(Chain chain) : BatchNode<T>{chain.node().scope()}, chain_{std::move(chain)} {}
  [[nodiscard]] std::size_t partitions() const override { return chain_.node().partitions(); }
  void prepare() const override { chain_.node().prepare(); }
  [[nodiscard]] std::size_t size_hint() const override { return chain_.node().size_hint(); }
  [[nodiscard]] PartitionerRef partitioner() const override { return partitioner_of(chain_); }

  void run(std::size_t partition, ChunkSink<T> sink) const override { run_in_chunks(chain_, partition, sink); }

 private:
  Chain chain_;
};

/// A chain whose records are kept: for chains whose records look at temporaries, which are copied into the
/// node's own memory, and for records that cannot be copied, which would otherwise be lost to the first who reads them.
template <ChainLike Chain>
class StoredNode final : public PreparedNode<typename Chain::value_type> {
  using T = typename Chain::value_type;

 public:
  explicit StoredNode(Chain chain)
      : PreparedNode<T>{chain.node().scope()},
        partitions_{chain.node().partitions()},
        size_hint_{chain.node().size_hint()},
        partitioner_{partitioner_of(chain)},
        chain_{std::move(chain)} {}
  [[nodiscard]] std::size_t partitions() const override { return partitions_; }
  [[nodiscard]] std::size_t size_hint() const override { return size_hint_; }
  [[nodiscard]] PartitionerRef partitioner() const override { return partitioner_; }

 protected:
  void build(std::vector<std::vector<T>>& parts, std::vector<Arena>& arenas) const override {
    chain_.node().prepare();
    for_each_partition_of(*this->scope(), partitions_, size_hint_,
                          [&](std::size_t p) { collect_partition(chain_, p, parts[p], arenas[p]); });
  }

 private:
  std::size_t partitions_;
  std::size_t size_hint_;
  PartitionerRef partitioner_;
  Chain chain_;  // kept: stable records look at its memory
};

/// A chain whose records are computed once and kept until `unpersist`, after which they are computed whenever they are
/// needed. Records that look at temporaries are kept again then, and what they look at stays as long as the node,
/// because records made from them may look at it too.
/// Invariant PN1: whoever reads `data` shares it, so that `unpersist` may be called while actions run.
template <ChainLike Chain>
class PersistedNode final : public BatchNode<typename Chain::value_type> {
  using T = typename Chain::value_type;
  static constexpr bool passes_through = Chain::facts.stable;

 public:
  explicit PersistedNode(Chain chain) : BatchNode<T>{chain.node().scope()}, chain_{std::move(chain)} {}
  [[nodiscard]] std::size_t partitions() const override { return chain_.node().partitions(); }
  [[nodiscard]] std::size_t size_hint() const override { return chain_.node().size_hint(); }
  [[nodiscard]] PartitionerRef partitioner() const override { return partitioner_of(chain_); }

  void prepare() const override {
    const std::scoped_lock lock{mutex_};
    if (data_) return;
    chain_.node().prepare();
    if (dropped_ && passes_through) return;
    auto data = std::make_shared<Data>();
    data->parts.resize(partitions());
    std::vector<Arena> arenas(partitions());
    for_each_partition_of(*this->scope(), partitions(), size_hint(),
                          [&](std::size_t p) { collect_partition(chain_, p, data->parts[p], arenas[p]); });
    keep(arenas);
    data_ = std::move(data);
  }
  void run(std::size_t partition, ChunkSink<T> sink) const override {
    if (const auto data = shared_data()) {  // PN1
      if (const std::vector<T>& part = data->parts[partition]; !part.empty()) sink(part);
    } else if constexpr (passes_through) {
      run_in_chunks(chain_, partition, sink);
    } else {
      std::vector<T> part;
      std::vector<Arena> arenas(1);
      collect_partition(chain_, partition, part, arenas.front());
      {
        const std::scoped_lock lock{mutex_};
        keep(arenas);
      }
      if (!part.empty()) sink(part);
    }
  }
  void unpersist() const override {
    const std::scoped_lock lock{mutex_};
    data_.reset();
    dropped_ = true;
  }

 private:
  struct Data {
    std::vector<std::vector<T>> parts;
  };

  [[nodiscard]] std::shared_ptr<const Data> shared_data() const {
    const std::scoped_lock lock{mutex_};
    return data_;
  }
  void keep(std::vector<Arena>& arenas) const {
    for (Arena& arena : arenas) {
      if (arena.allocated_bytes() != 0) arenas_.push_back(std::move(arena));
    }
  }

  Chain chain_;
  mutable std::mutex mutex_;  // guards the rest
  mutable std::shared_ptr<const Data>
      data_;  // shared with the actions that read it; null until prepared and when dropped
  mutable bool dropped_ = false;
  mutable std::vector<Arena> arenas_;
};

/// Erases the type of a chain.
template <ChainLike Chain>
[[nodiscard]] std::shared_ptr<const BatchNode<typename Chain::value_type>> erase_chain(const Chain& chain) {
  if constexpr (is_plain<Chain>) {
    return chain.node_pointer();
  } else if constexpr (Chain::facts.stable && (std::copy_constructible<typename Chain::value_type> ||
                                               std::is_lvalue_reference_v<typename Chain::reference>)) {
    return std::make_shared<const ChainNode<Chain>>(chain);
  } else {
    return std::make_shared<const StoredNode<Chain>>(chain);
  }
}

}  // namespace tidemill::detail
