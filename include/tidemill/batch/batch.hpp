// Batch<T>: the records of one interval, or of a file, or of a vector: immutable, cut into partitions, lazy. Operators
// describe a new batch and cost next to nothing; *actions* (collect, reduce, foreach, save_…) run the whole chain, one fused
// loop a partition, on the calling thread and the context's workers.
//
//     auto counts = context.text_file("book.txt")
//                       .flat_map(tidemill::split(' '))
//                       .map([](std::string_view word) { return std::pair{word, 1L}; })
//                       .reduce_by_key(std::plus<>{});          // nothing has been read yet
//     std::unordered_map<std::string, long> table = counts.collect_as_map();
//
// Every operator is written once, in BatchOps, and serves both Batch<T> (a handle that is stored and passed) and BatchChain
// (the type of `batch.map(f).filter(g)`, which knows f and g and so fuses them). A chain converts to a Batch.
//
// Results that leave the batch (collect, first, reduce, …) own their data: a batch of std::string_view collects into
// std::vector<std::string>. See core/ownership.hpp.
//
// Determinism: the same records in the same partitions give the same result in the same order, whatever the number of
// threads; the order of keyed results has no meaning beyond that.
// Errors:  what a user function throws comes out of the action as UserCodeError, naming operator, partition and batch time.
// Threads: batches are immutable; any thread may use any of them. User functions are called through const&, by several
//          threads at a time. They must not run actions of batches that are being computed by the same action.
// Source:  Spark `RDD`, `PairRDDFunctions`, `OrderedRDDFunctions`.
#pragma once

#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tidemill/batch/context.hpp"
#include "tidemill/batch/detail/chain.hpp"
#include "tidemill/batch/detail/combine.hpp"
#include "tidemill/batch/detail/stages.hpp"
#include "tidemill/batch/narrow_ops.hpp"
#include "tidemill/batch/partitioner.hpp"
#include "tidemill/core/ownership.hpp"

namespace tidemill {

template <class In, class Stages, class Ref, detail::ChainFacts Facts>
class BatchChain;

template <class Self, class T>
class BatchOps : public NarrowOps<Self, T> {
 public:
  using value_type = T;

  // ---- partitions handed to a function whole ----------------------------------------------------------------------------

  /// Calls `f` once a partition with all its records, `std::span<const T>`; its result, a range, is the new partition.
  /// The partition is held in memory during the call. The second form is told the number of the partition first.
  template <class F>
  [[nodiscard]] auto map_partitions(F f) const;
  template <class F>
  [[nodiscard]] auto map_partitions_with_index(F f) const;

  // ---- keyed aggregation: needs T = std::pair<K, V> ---------------------------------------------------------------------

  /// One pair a key: the values folded by `f(V, V) -> V`, which must be associative. Values are folded in batch order.
  /// `partitions`: of the result; 0 means the context's parallelism.
  template <class F>
  [[nodiscard]] auto reduce_by_key(F f, std::size_t partitions = 0) const;
  template <class F, class P>
    requires std::derived_from<P, AnyPartitioner>
  [[nodiscard]] auto reduce_by_key(F f, std::shared_ptr<P> partitioner) const;

  /// The general form: `create(V) -> C` for the first value of a key in a partition, `merge_value(C, V) -> C` for the next,
  /// `merge_combiners(C, C) -> C` for partial results. The merging functions may also take `C&` and return nothing.
  template <class Create, class MergeValue, class MergeCombiners>
  [[nodiscard]] auto combine_by_key(Create create, MergeValue merge_value, MergeCombiners merge_combiners,
                                    std::size_t partitions = 0) const;
  template <class Create, class MergeValue, class MergeCombiners, class P>
    requires std::derived_from<P, AnyPartitioner>
  [[nodiscard]] auto combine_by_key(Create create, MergeValue merge_value, MergeCombiners merge_combiners,
                                    std::shared_ptr<P> partitioner) const;

  /// Folds the values of each key into `zero`, anew in each partition: `in(C, V) -> C`, then `across(C, C) -> C`.
  template <class C, class In, class Across>
  [[nodiscard]] auto aggregate_by_key(C zero, In in, Across across, std::size_t partitions = 0) const;
  /// aggregate_by_key with one function. `zero` must be neutral, since it enters once for each partition.
  template <class V, class F>
  [[nodiscard]] auto fold_by_key(V zero, F f, std::size_t partitions = 0) const;

  /// (k, all values of k in batch order, std::vector<V>). Prefer reduce_by_key where it will do: it moves one value a key.
  [[nodiscard]] auto group_by_key(std::size_t partitions = 0) const;

  // ---- partitions and lifetime ----------------------------------------------------------------------------------------

  [[nodiscard]] std::size_t num_partitions() const { return self().node().partitions(); }
  [[nodiscard]] PartitionerRef partitioner() const { return detail::partitioner_of(self()); }

  /// The same records, computed once, by the first action, and kept until the last handle goes.
  [[nodiscard]] Batch<T> cache() const;

  // ---- actions --------------------------------------------------------------------------------------------------------

  /// All records, in order of partition and position.
  [[nodiscard]] std::vector<owned_t<T>> collect() const;
  /// All pairs; of equal keys the last one stays.
  [[nodiscard]] auto collect_as_map() const;
  [[nodiscard]] std::size_t count() const;
  [[nodiscard]] bool is_empty() const;
  /// The first record. Errors: PlanError "empty_batch" when there is none.
  [[nodiscard]] owned_t<T> first() const;
  /// The first `n` records, or all when there are fewer. Looks at no more partitions than it needs.
  [[nodiscard]] std::vector<owned_t<T>> take(std::size_t n) const;

  /// `f(f(r0, r1), r2) …`; f must be associative. Errors: PlanError "empty_batch" when there is no record.
  template <class F>
  owned_t<T> reduce(F f) const;
  /// reduce that answers nothing for an empty batch.
  template <class F>
  [[nodiscard]] std::optional<owned_t<T>> try_reduce(F f) const;
  /// Folds the records of each partition into a copy of `zero` by `in(C, T) -> C`, and these by `across(C, C) -> C`.
  template <class C, class In, class Across>
  [[nodiscard]] C aggregate(C zero, In in, Across across) const;
  /// aggregate with one function. `zero` must be neutral.
  template <class F>
  [[nodiscard]] owned_t<T> fold(owned_t<T> zero, F f) const;

  /// Calls `f(record)` for each, by several threads at a time.
  template <class F>
  void foreach(F f) const;
  /// Calls `f(records)` once a partition, `std::span<const T>`: the place to open one connection for many records.
  template <class F>
  void foreach_partition(F f) const;

 private:
  friend Self;
  BatchOps() = default;
  using NarrowOps<Self, T>::self;
};

/// A handle to a batch; copies are the same batch.
template <class T>
class Batch : public BatchOps<Batch<T>, T> {
  static_assert(Record<T>, "the records of a Batch are movable objects; use std::string_view, a value or a struct");

 public:
  using node_type = T;
  using reference = const T&;
  static constexpr detail::ChainFacts facts{};
  using NodePointer = std::shared_ptr<const detail::BatchNode<T>>;

  /// For those who write operators and sources.
  explicit Batch(NodePointer node) : node_{std::move(node)} {}
  /// A chain becomes a batch: its fused loop stays, its type is erased.
  template <class In, class Stages, class Ref, detail::ChainFacts Facts>
    requires std::same_as<std::remove_cvref_t<Ref>, T>
  Batch(const BatchChain<In, Stages, Ref, Facts>& chain)  // NOLINT(google-explicit-constructor): the same records
      : node_{detail::erase_chain(chain)} {}

  [[nodiscard]] const detail::BatchNode<T>& node() const noexcept { return *node_; }
  [[nodiscard]] const NodePointer& node_pointer() const noexcept { return node_; }
  [[nodiscard]] detail::Identity stages() const noexcept { return {}; }
  template <class Ref, detail::ChainFacts Facts, class Stages>
  [[nodiscard]] auto with_stages(Stages stages) const {
    return BatchChain<T, Stages, Ref, Facts>{node_, std::move(stages)};
  }

 private:
  NodePointer node_;  // shared by all handles and the batches made from it; immutable
};

/// A batch and fused stages on it: what `batch.map(f)` returns. Use `auto`, or store it as a Batch.
template <class In, class Stages, class Ref, detail::ChainFacts Facts>
class BatchChain : public BatchOps<BatchChain<In, Stages, Ref, Facts>, std::remove_cvref_t<Ref>> {
 public:
  using node_type = In;
  using reference = Ref;
  static constexpr detail::ChainFacts facts = Facts;
  using NodePointer = std::shared_ptr<const detail::BatchNode<In>>;

  BatchChain(NodePointer node, Stages stages) : node_{std::move(node)}, stages_{std::move(stages)} {}
  [[nodiscard]] const detail::BatchNode<In>& node() const noexcept { return *node_; }
  [[nodiscard]] const NodePointer& node_pointer() const noexcept { return node_; }
  [[nodiscard]] const Stages& stages() const noexcept { return stages_; }
  template <class NextRef, detail::ChainFacts NextFacts, class NextStages>
  [[nodiscard]] auto with_stages(NextStages stages) const {
    return BatchChain<In, NextStages, NextRef, NextFacts>{node_, std::move(stages)};
  }

 private:
  NodePointer node_;  // as in Batch
  [[no_unique_address]] Stages stages_;
};

}  // namespace tidemill

#include "tidemill/batch/detail/batch_ops.ipp"
