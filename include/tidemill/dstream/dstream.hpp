// DStream<T>: a sequence of batches, one an interval. An operator of a stream is the operator of its batches, lifted over time:
// `stream.map(f)` is the stream whose batch at t is `batch(t).map(f)`. Nothing is computed until the context is started and an
// output operation (print, foreach_batch, save_…) asks for it.
//
//     DStream<std::string_view> lines = ssc.socket_text_stream("localhost", 9999);
//     auto counts = lines.flat_map(tidemill::split(' '))
//                        .map([](std::string_view word) { return std::pair{word, 1L}; })
//                        .reduce_by_key(std::plus<>{});
//     counts.print();
//
// DStream<T> is a small value: store it in a struct, pass it, return it; copies are the same stream. The result of narrow
// operators (map, filter, flat_map, map_values, …) is a chain that fuses with what follows; it converts to DStream<T>.
//
// A stream that two outputs use is computed twice, as in Spark, unless it is cached or its last operator was a wide one.
//
// Errors:  PlanError "illegal_state" when an operator is added after the start of the context. What a user function throws
//          fails the batch, not the context: it comes out of await_termination, and later batches still run.
// Threads: streams are built by one thread. User functions are called through const&, by several threads at a time.
// Source:  Spark `DStream`, `PairDStreamFunctions`.
#pragma once

#include <concepts>
#include <cstddef>
#include <functional>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "tidemill/batch/batch.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/dstream/detail/stream_node.hpp"
#include "tidemill/dstream/fwd.hpp"
#include "tidemill/dstream/state_spec.hpp"
#include "tidemill/io/sink.hpp"
#include "tidemill/state/keyed_store.hpp"

namespace tidemill {

namespace detail {
struct KeepAll;
}  // namespace detail

/// The operators of streams. A DStream<T> has them, and so has the chain that a narrow operator returns.
template <class Self, class T>
class StreamOps : public NarrowOps<Self, T> {
 public:
  using value_type = T;  ///< of a record

  // ---- batch by batch ---------------------------------------------------------------------------------------------------

  /// As the operators of Batch of the same name. [M2]
  template <class F>
  [[nodiscard]] auto map_partitions(F f, PreservesPartitioning preserves = PreservesPartitioning::no) const;
  /// One record a partition: a std::vector of what it has. [M3]
  [[nodiscard]] auto glom() const;
  /// The same records in so many partitions. Errors: ConfigError unless there is at least one. [M4]
  [[nodiscard]] DStream<T> repartition(std::size_t partitions) const;

  /// One record a batch: all of them folded by f, which must be associative. An empty batch stays empty. [M5]
  template <class F>
  [[nodiscard]] DStream<owned_t<T>> reduce(F f) const;
  /// One record a batch: how many there are. An empty batch gives 0. [M6]
  [[nodiscard]] DStream<std::size_t> count() const;
  /// (value, how often it occurs in the batch). [M7]
  [[nodiscard]] auto count_by_value(Partitioning partitions = {}) const;

  /// The records of both streams, batch by batch. Errors: PlanError when the streams belong to different contexts or have
  /// different slides. [M8]
  template <class Other>
  [[nodiscard]] DStream<T> union_with(const Other& other) const;

  /// `f(batch)` or `f(batch, time)` returns the new batch. It is called once a batch, when the batch is generated, by the
  /// thread that runs the context; so it may look at reference data that changes. [M9]
  template <class F>
  [[nodiscard]] auto transform(F f) const;
  /// `f(batch, other batch)` or `f(batch, other batch, time)`. [M10]
  template <class Other, class F>
  [[nodiscard]] auto transform_with(const Other& other, F f) const;

  /// Each batch is computed once and kept while it is remembered, for streams that several outputs use. [M20]
  [[nodiscard]] DStream<T> cache() const;
  /// The same.
  [[nodiscard]] DStream<T> persist() const { return cache(); }

  // ---- pairs: need T = std::pair<K, V> ----------------------------------------------------------------------------------

  /// As the operators of Batch of the same name; `partitions` may be a number or a std::shared_ptr to a Partitioner.
  /// Errors: PlanError "wrong_partitioner" when that is for keys of another type. [P1]
  template <class F>
  [[nodiscard]] auto reduce_by_key(F f, Partitioning partitions = {}) const;
  /// Values become combiners: `create(value)` the first of a key in a partition, `merge_value(combiner, value)` the others, and
  /// `merge_combiners(combiner, combiner)` those of two partitions. [P1]
  template <class Create, class MergeValue, class MergeCombiners>
  [[nodiscard]] auto combine_by_key(Create create, MergeValue merge_value, MergeCombiners merge_combiners,
                                    Partitioning partitions = {}) const;
  /// (k, all values of k in the batch, std::vector<V>), in batch order. [P1]
  [[nodiscard]] auto group_by_key(Partitioning partitions = {}) const;

  /// Joins of the two batches of the same time; both streams need the same context and the same slide. A Batch is joined inside
  /// `transform`. Errors: PlanError "different_contexts", "different_slides". [P3, P9]
  template <class Other>
  [[nodiscard]] auto join(const Other& other, Partitioning partitions = {}) const;
  /// Every pair of this stream, with std::nullopt where the other has none. [P3]
  template <class Other>
  [[nodiscard]] auto left_outer_join(const Other& other, Partitioning partitions = {}) const;
  /// Every pair of the other stream, with std::nullopt where this one has none. [P3]
  template <class Other>
  [[nodiscard]] auto right_outer_join(const Other& other, Partitioning partitions = {}) const;
  /// The pairs of both streams, with std::nullopt where one of them has none. [P3]
  template <class Other>
  [[nodiscard]] auto full_outer_join(const Other& other, Partitioning partitions = {}) const;
  /// (k, all values of k here and all values of k there), two vectors. [P3]
  template <class Other>
  [[nodiscard]] auto cogroup(const Other& other, Partitioning partitions = {}) const;

  /// Says that all records of a key come from one partition of the input, as those of Kafka do whose key decided about their
  /// partition. Copies of a program that share an input (KafkaGroup) need it before whatever works by key; changes nothing.
  [[nodiscard]] DStream<T> keyed_by_partition() const;

  // ---- windows: need a batch interval -----------------------------------------------------------------------------------
  //
  // The window that ends at t holds the batches of (t - length, t]; there is one every `slide`, by default the slide of this
  // stream, and the first ones hold what there is. The result is a stream with that slide. A slide costs what enters the window,
  // what leaves it and what comes out, however long the window is. docs/howto/use-windows.md
  // Errors: PlanError "invalid_window" unless length and slide are positive multiples of the slide of this stream;
  //         "needs_interval" when the gate is on_arrival. [W1-W4]

  /// All records of the window, in order of time. [M15]
  [[nodiscard]] DStream<T> window(Duration length, std::optional<Duration> slide = {}) const;

  /// One record a window: all of it folded by f, which must be associative. A window without records has none. [M16]
  template <class F>
  [[nodiscard]] DStream<owned_t<T>> reduce_by_window(F f, Duration length, std::optional<Duration> slide = {}) const;
  /// The same by a running value: `inverse(value, left)` takes from it what f has folded in. The value stays, neutral, when
  /// the window has become empty. [M17, W7, W8]
  template <class F, class Inverse>
    requires(!std::convertible_to<Inverse, Duration>)
  [[nodiscard]] DStream<owned_t<T>> reduce_by_window(F f, Inverse inverse, Duration length,
                                                     std::optional<Duration> slide = {}) const;
  /// One record a window: how many records it has, from the first record of the stream on; before, none. [M18]
  [[nodiscard]] DStream<std::size_t> count_by_window(Duration length, std::optional<Duration> slide = {}) const;
  /// (value, how often it occurs in the window). [M19]
  [[nodiscard]] auto count_by_value_and_window(Duration length, std::optional<Duration> slide = {},
                                               Partitioning partitions = {}) const;

  /// (k, all values of k in the window, std::vector<V>), in batch order. Needs pairs, as do the next two. [P4]
  [[nodiscard]] auto group_by_key_and_window(Duration length, std::optional<Duration> slide = {},
                                             Partitioning partitions = {}) const;
  /// One pair a key of the window: its values folded by f, which must be associative. Keys and values own what they hold. [P5]
  template <class F>
  [[nodiscard]] auto reduce_by_key_and_window(F f, Duration length, std::optional<Duration> slide = {},
                                              Partitioning partitions = {}) const;
  /// The same by running values: value = f(inverse(value, what left), what entered). A key stays when its last record has left
  /// the window, with whatever value that gives, unless `filter(key, value)` or `filter(pair)` is false: then it is not shown,
  /// and is forgotten when no record of it is left. [P6, W7-W9]
  template <class F, class Inverse, class Filter = detail::KeepAll>
    requires(!std::convertible_to<Inverse, Duration>)
  [[nodiscard]] auto reduce_by_key_and_window(F f, Inverse inverse, Duration length, std::optional<Duration> slide = {},
                                              Partitioning partitions = {}, Filter filter = {}) const;

  // ---- state: needs pairs -----------------------------------------------------------------------------------------------
  //
  // S is the type of the state of a key; it and the keys own what they hold. A batch changes the state whole or not at all: when
  // the function throws, the output operation fails, the state stays as it was, and the batch is tried again before the next.
  // `partitions`: of the state; 0 means the context's parallelism; may change from run to run. docs/howto/keep-state.md

  /// Every batch is the whole state, std::pair<K, S> a key. `f` is called in every batch for each key that has a state or a new
  /// value; what it returns is the new state, and nothing removes the key. Its forms: [U1-U7]
  ///
  ///     f(values, state)              const std::vector<V>& and std::optional<S>, or const S* to save the copy;
  ///     f(time, key, values, state)   returns std::optional<S>
  ///     f(updates)                    std::span<const StateUpdate<K, V, S>>, one a key, once a partition; returns a range of
  ///                                   std::pair<K, S>: the new state, in which keys may differ; of equal ones the last counts
  ///
  /// A state that is equal to the one before counts as unchanged. Returns a StateStream<K, S>.
  template <class S, class F>
  [[nodiscard]] auto update_state_by_key(F f, std::size_t partitions = 0) const;
  /// `initial`: the states to begin with, std::vector or Batch of std::pair<K, S>, unless an earlier run is continued. [U5]
  template <class S, class F, class Initial>
  [[nodiscard]] auto update_state_by_key(F f, std::size_t partitions, Initial initial) const;

  /// What the function of a StateSpec makes of each record and the state of its key (state_spec.hpp). The work of a batch is in
  /// proportion to its records and the keys that time out. Returns a MapWithStateStream<K, S, Out>. [X1-X11]
  template <class Spec>
  [[nodiscard]] auto map_with_state(Spec spec) const;

  // ---- output operations ------------------------------------------------------------------------------------------------

  /// Calls `f(batch)` or `f(batch, time)` for every batch, empty ones too, in order of time. [M11]
  /// With StreamingOptions::concurrent_jobs above 1: also by several threads at a time, and in any order.
  template <class F>
  void foreach_batch(F f, std::string name = "foreach_batch") const;

  /// Writes every batch to a transactional sink (io/sink.hpp): whole or not at all, and with a checkpoint exactly once.
  /// `name`: of the output, by which the sink finds what an earlier run has committed; the sink's own when it is empty.
  /// Errors: ConfigError for a null sink; PlanError "ambiguous_name" when another sink of the context has that name.
  template <SinkOf<T> S>
  void save_to(std::shared_ptr<S> sink, std::string name = {}) const;

  /// Prints the first `n` records of every batch under a header with its time, to the context's output stream. [M12]
  void print(std::size_t n = 10) const;
  /// The same to a stream of yours, which must outlive the context.
  void print(std::ostream& out, std::size_t n = 10) const;

  /// Writes each batch into a directory of its own, `prefix-<batch time in ms>[.suffix]`: published whole or not at all, and
  /// replaced when the batch is run again. A program that shares its input (KafkaGroup) has the name of its part behind the
  /// prefix: `prefix-orders-3-<…>`. [M13]
  void save_as_text_files(std::string prefix, std::string suffix = {}) const;
  /// The same in the form of `Context::object_file`. Needs a codec for the records.
  void save_as_object_files(std::string prefix, std::string suffix = {}) const;

  // ---- facts ------------------------------------------------------------------------------------------------------------

  /// The batches of an interval, *both ends included*, oldest first. Ends that are not on the slide are rounded down, which is
  /// logged as a warning; times before the start and times that have not come yet are left out; batches that are no longer
  /// remembered are computed again, from what their inputs still have. Errors: PlanError before the start, and when the gate is
  /// on_arrival; "window_passed" and "state_forgotten" for windows and states of which a part went with an earlier run, or is
  /// not remembered. [M22]
  [[nodiscard]] std::vector<Batch<T>> slice(Time from, Time to) const;
  /// The same.
  [[nodiscard]] std::vector<Batch<T>> slice(Interval interval) const { return slice(interval.begin, interval.end); }

  /// Time between two batches; zero when the gate is on_arrival.
  [[nodiscard]] Duration slide_duration() const noexcept { return self().slide(); }
  /// The context to which this stream belongs. [M23]
  [[nodiscard]] Context context() const noexcept { return Context{self().engine()->runtime()}; }

  // For those who write operators.

  /// As slide_duration.
  [[nodiscard]] Duration slide() const noexcept { return self().node().slide(); }
  /// Whether the stream has a batch at `t`, at which the context has one. [B2]
  [[nodiscard]] bool has_batch_at(Time t) const noexcept { return self().node().has_batch_at(t); }
  /// The engine of the context.
  [[nodiscard]] const std::shared_ptr<detail::StreamingEngine>& engine() const noexcept {
    return self().node().engine();
  }

  /// The stream whose batch at t is `g(batch at t)`. `use`: what that does with keys.
  template <class G>
  [[nodiscard]] auto lift(const char* op, detail::KeyUse use, G g) const;
  /// The same for an operator that does nothing with keys.
  template <class G>
  [[nodiscard]] auto lift(const char* op, G g) const;

 private:
  friend Self;
  StreamOps() = default;
  using NarrowOps<Self, T>::self;
  template <class Other, class G>
  [[nodiscard]] auto lift_two(const char* op, detail::KeyUse use, const Other& other, G g) const;
  template <class Other, class Join>
  [[nodiscard]] auto join_by(const char* op, const Other& other, const Partitioning& partitions, Join join) const;
};

/// A handle to a stream.
template <class T>
class DStream : public StreamOps<DStream<T>, T> {
  static_assert(Record<T>, "the records of a DStream are movable objects; use std::string_view, a value or a struct");

 public:
  using node_type = T;                                         ///< for operators, as what follows
  using reference = const T&;                                  ///< how its loop hands on a record
  static constexpr detail::ChainFacts facts{};                 ///< what its stages leave as it was
  using NodePointer = std::shared_ptr<detail::StreamNode<T>>;  ///< of the graph

  /// For those who write operators and sources.
  explicit DStream(NodePointer node) : node_{std::move(node)} {}
  /// A chain becomes a stream: its fused loop stays, its type is erased.
  template <class In, class Stages, class Ref, detail::ChainFacts Facts>
    requires std::same_as<std::remove_cvref_t<Ref>, T>
  DStream(const DStreamChain<In, Stages, Ref, Facts>& chain);  // NOLINT(google-explicit-constructor): the same records

  /// The node of the graph on which its stages stand.
  [[nodiscard]] detail::StreamNode<T>& node() const noexcept { return *node_; }
  /// The same, shared.
  [[nodiscard]] const NodePointer& node_pointer() const noexcept { return node_; }
  /// The fused stages: none.
  [[nodiscard]] detail::Identity stages() const noexcept { return {}; }
  /// A chain of other stages on the same node.
  template <class Ref, detail::ChainFacts Facts, class Stages>
  [[nodiscard]] auto with_stages(Stages stages) const {
    return DStreamChain<T, Stages, Ref, Facts>{node_, std::move(stages)};
  }
  /// The batch of `t`. Pre: it is the time of a batch that runs, or is remembered.
  [[nodiscard]] Batch<T> at(Time t) const { return node_->batch_at(t); }

  /// Pins the name under which a checkpoint keeps the state of this stream, or the position of this input: by default it follows
  /// from the operators between source and stream. Returns the stream. Errors: ConfigError, PlanError once started.
  DStream name(std::string name) const {
    node_->give_name(std::move(name));
    return *this;
  }

 private:
  NodePointer node_;  // shared by all handles, the streams made from it, and the engine
};

/// A stream and fused stages on it: what `stream.map(f)` returns. Use `auto`, or store it as a DStream.
template <class In, class Stages, class Ref, detail::ChainFacts Facts>
class DStreamChain : public StreamOps<DStreamChain<In, Stages, Ref, Facts>, std::remove_cvref_t<Ref>> {
 public:
  using node_type = In;                                         ///< for operators, as what follows
  using reference = Ref;                                        ///< how its loop hands on a record
  static constexpr detail::ChainFacts facts = Facts;            ///< what its stages leave as it was
  using NodePointer = std::shared_ptr<detail::StreamNode<In>>;  ///< of the graph

  /// For those who write operators.
  DStreamChain(NodePointer node, Stages stages) : node_{std::move(node)}, stages_{std::move(stages)} {
    node_->engine()->check_can_change("a transformation");
  }
  /// The node of the graph on which its stages stand.
  [[nodiscard]] detail::StreamNode<In>& node() const noexcept { return *node_; }
  /// The same, shared.
  [[nodiscard]] const NodePointer& node_pointer() const noexcept { return node_; }
  /// The fused stages.
  [[nodiscard]] const Stages& stages() const noexcept { return stages_; }
  /// A chain of other stages on the same node.
  template <class NextRef, detail::ChainFacts NextFacts, class NextStages>
  [[nodiscard]] auto with_stages(NextStages stages) const {
    return DStreamChain<In, NextStages, NextRef, NextFacts>{node_, std::move(stages)};
  }
  /// The batch of `t`, as a chain. Pre: it is the time of a batch that runs, or is remembered.
  [[nodiscard]] BatchChain<In, Stages, Ref, Facts> at(Time t) const {
    return {node_->batch_at(t).node_pointer(), stages_};
  }

 private:
  NodePointer node_;  // as in DStream
  [[no_unique_address]] Stages stages_;
};

/// The stream of update_state_by_key: every batch is the whole state. K and S own what they hold.
template <class K, class S>
class StateStream : public DStream<std::pair<K, S>> {
 public:
  /// For the operator.
  StateStream(DStream<std::pair<K, S>> stream, KeyedStateView<K, S> state)
      : DStream<std::pair<K, S>>{std::move(stream)}, state_{std::move(state)} {}

  /// For reading the state while the stream runs. May be taken before the start.
  [[nodiscard]] const KeyedStateView<K, S>& state() const noexcept { return state_; }

  /// As of DStream.
  StateStream name(std::string name) const {
    static_cast<void>(DStream<std::pair<K, S>>::name(std::move(name)));
    return *this;
  }

 private:
  KeyedStateView<K, S> state_;
};

/// The stream of map_with_state: what the function returned, in the order of the records of each partition of the state, then
/// what it returned for timeouts.
template <class K, class S, class Out>
class MapWithStateStream : public DStream<Out> {
 public:
  using Snapshots = DStream<std::pair<K, S>>;  ///< all keys and states

  /// For the operator.
  MapWithStateStream(DStream<Out> stream, KeyedStateView<K, S> state, std::function<Snapshots()> snapshots)
      : DStream<Out>{std::move(stream)}, state_{std::move(state)}, snapshots_{std::move(snapshots)} {}

  /// For reading the state while the stream runs. May be taken before the start.
  [[nodiscard]] const KeyedStateView<K, S>& state() const noexcept { return state_; }

  /// The stream of all keys with their states, after each batch. A batch of it costs what there is, not what has changed, if
  /// it is looked at. Needs a copyable S. [X4]
  [[nodiscard]] Snapshots state_snapshots() const
    requires std::copy_constructible<S>
  {
    return snapshots_();
  }

  /// As of DStream.
  MapWithStateStream name(std::string name) const {
    static_cast<void>(DStream<Out>::name(std::move(name)));
    return *this;
  }

 private:
  KeyedStateView<K, S> state_;
  std::function<Snapshots()> snapshots_;
};

}  // namespace tidemill

#include "tidemill/dstream/detail/state_ops.ipp"
#include "tidemill/dstream/detail/stream_ops.ipp"
#include "tidemill/dstream/detail/window_ops.ipp"
