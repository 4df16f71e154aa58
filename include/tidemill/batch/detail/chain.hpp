// What a batch is made of below its operators: Batch<T> refers to a node, BatchChain adds fused stages to one. Both offer
// the same operators (BatchOps), and a chain becomes a node when it is stored as a Batch.
#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
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
inline constexpr bool is_plain = std::is_same_v<std::remove_cvref_t<decltype(std::declval<const Chain&>().stages())>, Identity>;

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

/// Appends the records of a partition to `records`; what they look at is copied into `arena` unless the batch keeps it.
template <ChainLike Chain>
void collect_partition(const Chain& chain, std::size_t partition, std::vector<typename Chain::value_type>& records,
                       [[maybe_unused]] Arena& arena) {
  run_chain(chain, partition, [&](auto&& record) {
    if constexpr (Chain::facts.stable) {
      records.push_back(std::forward<decltype(record)>(record));
    } else {
      records.push_back(tidemill::rehome(std::forward<decltype(record)>(record), arena));
    }
  });
}

template <ChainLike Chain>
[[nodiscard]] PartitionerRef partitioner_of(const Chain& chain) {
  return Chain::facts.keeps_partitions ? chain.node().partitioner() : nullptr;
}

/// A chain whose type is erased: records cross in chunks that are filled by the fused loop and never stored.
template <ChainLike Chain>
class ChainNode final : public BatchNode<typename Chain::value_type> {
  using T = typename Chain::value_type;

 public:
  explicit ChainNode(Chain chain) : BatchNode<T>{chain.node().scope()}, chain_{std::move(chain)} {}
  [[nodiscard]] std::size_t partitions() const override { return chain_.node().partitions(); }
  void prepare() const override { chain_.node().prepare(); }
  [[nodiscard]] std::size_t size_hint() const override { return chain_.node().size_hint(); }
  [[nodiscard]] PartitionerRef partitioner() const override { return partitioner_of(chain_); }

  void run(std::size_t partition, ChunkSink<T> sink) const override {
    bool wanted = true;
    if constexpr (std::is_lvalue_reference_v<typename Chain::reference> && !std::copy_constructible<T>) {
      // Records that cannot be copied cross one by one, where they are.
      run_chain_until(
          chain_, partition, [&](const T& record) { wanted = wanted && sink(std::span<const T>{&record, 1}); },
          [&] { return !wanted; });
    } else {
      std::vector<T> chunk;
      run_chain_until(
          chain_, partition,
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

 private:
  Chain chain_;
};

/// A chain whose records are kept: for `cache`, for chains whose records look at temporaries, which are copied into the
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
