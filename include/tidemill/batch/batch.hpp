// Batch<T>: the records of one interval, or of a file, or of a vector: immutable, cut into partitions, lazy. Operators
// describe a new batch and cost next to nothing; *actions* (collect, reduce, foreach, save_…) run the whole chain, one
// fused loop a partition, on the calling thread and the context's workers.
//
//     auto counts = context.text_file("book.txt")
//                       .flat_map(tidemill::split(' '))
//                       .map([](std::string_view word) { return std::pair{word, 1L}; })
//                       .reduce_by_key(std::plus<>{});          // nothing has been read yet
//     std::unordered_map<std::string, long> table = counts.collect_as_map();
//
// Every operator is written once, in BatchOps, and serves both Batch<T> (a handle that is stored and passed) and
// BatchChain (the type of `batch.map(f).filter(g)`, which knows f and g and so fuses them). A chain converts to a
// Batch.
//
// Results that leave the batch (collect, first, reduce, …) own their data: a batch of std::string_view collects into
// std::vector<std::string>. See core/ownership.hpp.
//
// Determinism: the same records in the same partitions give the same result in the same order, whatever the number of
// threads; the order of keyed results has no meaning beyond that.
// Errors:  what a user function throws comes out of the action as UserCodeError, naming operator, partition and batch
// time.
// Threads: batches are immutable; any thread may use any of them. User functions are called through const&, by several
//          threads at a time. They must not run actions of batches that are being computed by the same action.
// Source:  Spark `RDD`, `PairRDDFunctions`, `OrderedRDDFunctions`.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tidemill/batch/accumulator.hpp"
#include "tidemill/batch/broadcast.hpp"
#include "tidemill/batch/context.hpp"
#include "tidemill/batch/detail/chain.hpp"
#include "tidemill/batch/detail/combine.hpp"
#include "tidemill/batch/detail/sort.hpp"
#include "tidemill/batch/detail/stages.hpp"
#include "tidemill/batch/narrow_ops.hpp"
#include "tidemill/batch/partitioner.hpp"
#include "tidemill/batch/statistics.hpp"
#include "tidemill/core/ownership.hpp"

namespace tidemill {

template <class In, class Stages, class Ref, detail::ChainFacts Facts>
class BatchChain;

/// Whether a function of whole partitions leaves each key in the partition where it was. Source: Spark `preservesPartitioning`.
enum class PreservesPartitioning : bool { no, yes };
/// Whether a record may be drawn more than once.
enum class Replacement { without, with };

template <class Self, class T>
class BatchOps : public NarrowOps<Self, T> {
 public:
  using value_type = T;

  // ---- partitions handed to a function whole ------------------------------------------------------------------------

  /// Calls `f` once a partition with all its records, `std::span<const T>`; its result, a range, is the new partition.
  /// The partition is held in memory during the call. The second form is told the number of the partition first. The result has
  /// the partitioner of this batch if you say that keys stay where they are; that is not checked.
  template <class F>
  [[nodiscard]] auto map_partitions(F f, PreservesPartitioning preserves = PreservesPartitioning::no) const;
  template <class F>
  [[nodiscard]] auto map_partitions_with_index(F f, PreservesPartitioning preserves = PreservesPartitioning::no) const;

  // ---- keyed aggregation: needs T = std::pair<K, V> -----------------------------------------------------------------

  /// One pair a key: the values folded by `f(V, V) -> V`, which must be associative. Values are folded in batch order.
  /// `partitions`: of the result, or a partitioner for it; by default the partitioner that the batch has already, else the
  /// context's parallelism. So for all of these.
  template <class F>
  [[nodiscard]] auto reduce_by_key(F f, Partitioning partitions = {}) const;

  /// The general form: `create(V) -> C` for the first value of a key in a partition, `merge_value(C, V) -> C` for the
  /// next, `merge_combiners(C, C) -> C` for partial results. The merging functions may also take `C&` and return
  /// nothing.
  template <class Create, class MergeValue, class MergeCombiners>
  [[nodiscard]] auto combine_by_key(Create create, MergeValue merge_value, MergeCombiners merge_combiners,
                                    Partitioning partitions = {}) const;

  /// Folds the values of each key into `zero`, anew in each partition: `in(C, V) -> C`, then `across(C, C) -> C`.
  template <class C, class In, class Across>
  [[nodiscard]] auto aggregate_by_key(C zero, In in, Across across, Partitioning partitions = {}) const;
  /// aggregate_by_key with one function. `zero` must be neutral, since it enters once for each partition.
  template <class V, class F>
  [[nodiscard]] auto fold_by_key(V zero, F f, Partitioning partitions = {}) const;

  /// (k, all values of k in batch order, std::vector<V>). Prefer reduce_by_key where it will do: it moves one value a
  /// key.
  [[nodiscard]] auto group_by_key(Partitioning partitions = {}) const;

  /// All pairs, each in the partition that its key belongs to. Moves nothing when they are there already.
  [[nodiscard]] Batch<T> partition_by(Partitioning partitions) const;
  /// The pairs whose key is not among the keys of `other`.
  template <detail::ChainLike Other>
  [[nodiscard]] auto subtract_by_key(const Other& other, Partitioning partitions = {}) const;

  // ---- joins: need pairs on both sides, with keys of one type (std::string and std::string_view go together) --------
  //
  // `partitions`: of the result, or a partitioner for it; by default the partitioner that a side has already (the one
  // with more partitions), else the context's parallelism. A side that is partitioned like that is not moved. Values of
  // a key come in batch order; where both sides repeat a key there is a pair for each combination.

  /// (k, (v, w)) for keys that are on both sides.
  template <detail::ChainLike Other>
  [[nodiscard]] auto join(const Other& other, Partitioning partitions = {}) const;
  /// (k, (v, std::optional<W>)) for all keys here.
  template <detail::ChainLike Other>
  [[nodiscard]] auto left_outer_join(const Other& other, Partitioning partitions = {}) const;
  /// (k, (std::optional<V>, w)) for all keys there.
  template <detail::ChainLike Other>
  [[nodiscard]] auto right_outer_join(const Other& other, Partitioning partitions = {}) const;
  /// (k, (std::optional<V>, std::optional<W>)) for all keys of either side.
  template <detail::ChainLike Other>
  [[nodiscard]] auto full_outer_join(const Other& other, Partitioning partitions = {}) const;
  /// (k, (std::vector<V>, std::vector<W>, …)): all values of each key, side by side in a std::tuple; up to four inputs.
  template <detail::ChainLike A>
  [[nodiscard]] auto cogroup(const A& a, Partitioning partitions = {}) const;
  template <detail::ChainLike A, detail::ChainLike B>
  [[nodiscard]] auto cogroup(const A& a, const B& b, Partitioning partitions = {}) const;
  template <detail::ChainLike A, detail::ChainLike B, detail::ChainLike C>
  [[nodiscard]] auto cogroup(const A& a, const B& b, const C& c, Partitioning partitions = {}) const;

  // ---- set-like -----------------------------------------------------------------------------------------------------

  /// The records of both, repetitions kept: first all partitions here, then all there. When both have equal
  /// partitioners, partition i of the result is partition i of both instead, and the partitioner is kept.
  template <detail::ChainLike Other>
  [[nodiscard]] Batch<T> union_with(const Other& other) const;
  /// Each record once. Needs a record that can be a key, as do the next two; a partitioner is one of whole records.
  [[nodiscard]] auto distinct(Partitioning partitions = {}) const;
  /// The records that are in both, once each.
  template <detail::ChainLike Other>
  [[nodiscard]] Batch<T> intersection(const Other& other, Partitioning partitions = {}) const;
  /// The records that are not in `other`, as often as they are here.
  template <detail::ChainLike Other>
  [[nodiscard]] Batch<T> subtract(const Other& other, Partitioning partitions = {}) const;
  /// A random part of the records: each with probability `fraction`, or, with replacement, each a Poisson number of
  /// times with that mean. The same seed gives the same sample. Errors: ConfigError for a fraction that cannot be.
  [[nodiscard]] Batch<T> sample(Replacement replacement, double fraction, std::uint64_t seed = 0) const;
  /// All pairs of a record here and a record there. n times m partitions.
  template <detail::ChainLike Other>
  [[nodiscard]] auto cartesian(const Other& other) const;
  /// Pairs of the records at the same place. Errors: PlanError "zip_mismatch" (from the action) unless both have
  /// equally many partitions with equally many records in each.
  template <detail::ChainLike Other>
  [[nodiscard]] auto zip(const Other& other) const;
  /// Pairs (record, its number in the batch).
  [[nodiscard]] auto zip_with_index() const;
  /// Each partition as one record, a std::vector<T>.
  [[nodiscard]] auto glom() const;

  // ---- order --------------------------------------------------------------------------------------------------------
  //
  // `less` is a strict weak order; by default operator<, with NaN after all other numbers. Records that are equal in it
  // stay in batch order.

  /// All records in order of `f(record)`: every partition sorted, and none with a record that belongs before the
  /// partition before it. `partitions`: of the result, as many as here by default; some may be empty where many records
  /// are equal.
  template <class F, class Less = detail::NaturalOrder>
  [[nodiscard]] Batch<T> sort_by(F f, Order order = Order::ascending, std::size_t partitions = 0, Less less = {}) const;
  /// All pairs in order of their keys.
  template <class Less = detail::NaturalOrder>
  [[nodiscard]] Batch<T> sort_by_key(Order order = Order::ascending, std::size_t partitions = 0, Less less = {}) const;
  /// partition_by, with each partition sorted by key: cheaper than doing both.
  template <class Less = detail::NaturalOrder>
  [[nodiscard]] Batch<T> repartition_and_sort_within_partitions(Partitioning partitions, Less less = {}) const;

  // ---- partitions and lifetime --------------------------------------------------------------------------------------

  [[nodiscard]] std::size_t num_partitions() const { return self().node().partitions(); }
  [[nodiscard]] PartitionerRef partitioner() const { return detail::partitioner_of(self()); }

  /// Exactly `partitions` partitions, filled in turn, so that they are equally large.
  [[nodiscard]] Batch<T> repartition(std::size_t partitions) const;
  /// At most `partitions` partitions, made by putting neighbours together; no record moves. Forgets the partitioner.
  [[nodiscard]] Batch<T> coalesce(std::size_t partitions) const;

  /// The same records, computed once, by the first action, and kept until `unpersist()` is called on the result, or its
  /// last handle goes.
  [[nodiscard]] Batch<T> persist() const;
  [[nodiscard]] Batch<T> cache() const { return persist(); }

  /// The same batch with a name that `name()` gives back.
  [[nodiscard]] Batch<T> named(std::string name) const;

  // ---- actions ------------------------------------------------------------------------------------------------------

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

  /// reduce and aggregate that merge the results of the partitions pairwise and in parallel: for results that take long
  /// to merge. Source: Spark `treeReduce`, `treeAggregate`; there is no depth to choose, since the tree is binary.
  template <class F>
  owned_t<T> tree_reduce(F f) const;
  template <class C, class In, class Across>
  [[nodiscard]] C tree_aggregate(C zero, In in, Across across) const;

  /// How often each record occurs, as a std::unordered_map; for pairs, how often each key, and the values of one key.
  [[nodiscard]] auto count_by_value() const;
  [[nodiscard]] auto count_by_key() const;
  template <class K>
  [[nodiscard]] auto lookup(const K& key) const;

  /// The first `n` records in descending order, and in ascending order. Keeps no more than a few times n in memory.
  template <class Less = detail::NaturalOrder>
  [[nodiscard]] std::vector<owned_t<T>> top(std::size_t n, Less less = {}) const;
  template <class Less = detail::NaturalOrder>
  [[nodiscard]] std::vector<owned_t<T>> take_ordered(std::size_t n, Less less = {}) const;
  /// The first of the greatest, and of the smallest records. Errors: PlanError "empty_batch" when there is none.
  template <class Less = detail::NaturalOrder>
  [[nodiscard]] owned_t<T> max(Less less = {}) const;
  template <class Less = detail::NaturalOrder>
  [[nodiscard]] owned_t<T> min(Less less = {}) const;

  /// Count, mean, deviation, extremes and sum of numbers.
  [[nodiscard]] Statistics stats() const;
  /// Numbers counted in `buckets` ranges of equal width between the smallest and the greatest, which are found first.
  /// Errors: ConfigError for 0 buckets; PlanError "empty_batch", or "not_finite" for a NaN or an infinity.
  [[nodiscard]] Histogram histogram(std::size_t buckets) const;
  /// Numbers counted between bounds; those outside are left out. Errors: ConfigError unless the bounds ascend.
  [[nodiscard]] Histogram histogram(std::vector<double> bounds) const;

  /// Writes `path/part-NNNNN`, one file a partition, a line for each record as `append_text` shows it. The directory
  /// appears when all is written, and replaces one that an earlier run wrote. Errors: SinkError.
  void save_as_text_file(const std::filesystem::path& path) const;
  /// The same with records in the form of core/codec.hpp, which `Context::object_file` reads back.
  void save_as_object_file(const std::filesystem::path& path) const;

  /// Calls `f(record)` for each, by several threads at a time.
  template <class F>
  void foreach (F f) const;
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

  /// Gives up the records that `persist` keeps; actions that need them later compute them again. Does nothing for other
  /// batches. Actions that run meanwhile end well. Of records that look at temporaries the memory that they look at
  /// stays until the last handle goes, and later actions keep such records again.
  void unpersist() const { node_->unpersist(); }
  /// What `named` called this batch; else empty.
  [[nodiscard]] std::string_view name() const noexcept { return node_->name(); }
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

#include "tidemill/batch/detail/action_ops.ipp"
#include "tidemill/batch/detail/batch_ops.ipp"
#include "tidemill/batch/detail/context_ops.ipp"
#include "tidemill/batch/detail/join_ops.ipp"
#include "tidemill/batch/detail/order_ops.ipp"
#include "tidemill/batch/detail/output_ops.ipp"
#include "tidemill/batch/detail/partition_ops.ipp"
#include "tidemill/batch/detail/set_ops.ipp"
