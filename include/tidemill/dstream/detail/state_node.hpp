// The nodes of streams that remember: map_with_state and update_state_by_key.
//
// What a batch does to the state is a *step*. Steps are taken in order of batch time, each once, by whoever first needs the
// result: an action on the batch, or the engine, which settles every batch after its output operations. A step that fails leaves
// the state as it was and stays the first of those pending, so the next batch tries it again before its own.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "tidemill/batch/batch.hpp"
#include "tidemill/core/detail/type_shape.hpp"
#include "tidemill/dstream/detail/stream_node.hpp"
#include "tidemill/dstream/state_spec.hpp"
#include "tidemill/state/durable_keyed.hpp"
#include "tidemill/state/keyed_store.hpp"

namespace tidemill {

/// What the function of update_state_by_key that works on whole partitions sees of one key.
template <class K, class V, class S>
struct StateUpdate {
  typename detail::TableKey<K>::View key;  ///< std::string_view for strings
  const std::vector<V>& values;            ///< of this batch; may be empty
  const S* state;                          ///< null: the key has none
};

namespace detail {

[[noreturn]] TIDEMILL_API void throw_state_forgotten(const std::string& op, Time t);

// ---- steps ------------------------------------------------------------------------------------------------------------------

/// The steps that are due, and whoever waits for them.
///   Input    what a step is made of: a batch, or a chain
///   Result   what comes of it
/// Threads: the members lock. Lock order: after the graph mutex; before the mutexes of the batches that are the input.
template <class Input, class Result>
class StateSteps {
 public:
  struct Step {
    Time time;
    std::optional<Input> input;  // until the step is taken
    std::size_t size_hint = 0;   // of the input
    Result result{};             // once it is
  };
  using StepPointer = std::shared_ptr<Step>;  // shared with the batch that shows the result

  virtual ~StateSteps() = default;

  /// The batch of t will come.
  void owe(Time t) {
    const std::scoped_lock lock{mutex_};
    pending_.push_back(std::make_shared<Step>(Step{.time = t, .input = {}}));
  }
  /// The step of t, with its input, `input_at(t)`, and that of all before it. Null when the step was taken and let go.
  template <class InputAt>
  [[nodiscard]] StepPointer prepare(Time t, InputAt&& input_at) {
    const std::scoped_lock lock{mutex_};
    for (const StepPointer& step : pending_) {
      if (step->time > t) break;
      if (!step->input) {
        step->input.emplace(input_at(step->time));
        step->size_hint = step->input->node().size_hint();
      }
      if (step->time == t) return step;
    }
    StepPointer last = last_.lock();
    return last && last->time == t ? last : nullptr;
  }
  /// The first step that has no input yet.
  [[nodiscard]] std::optional<Time> first_without_input() const {
    const std::scoped_lock lock{mutex_};
    for (const StepPointer& step : pending_) {
      if (!step->input) return step->time;
    }
    return std::nullopt;
  }
  /// Takes all steps up to t. Pre: `prepare(t, …)` has returned one.
  void take_until(Time t) {
    const std::scoped_lock lock{mutex_};
    failure_ = nullptr;
    try {
      advance(t);
    } catch (...) {
      failure_ = std::current_exception();
      failed_at_ = t;
      throw;
    }
  }
  /// The same, for the engine: says again what an output operation of this batch met with, instead of meeting it once more.
  void settle(Time t) {
    const std::scoped_lock lock{mutex_};
    if (const std::exception_ptr failure = std::exchange(failure_, nullptr); failure && failed_at_ == t) {
      std::rethrow_exception(failure);
    }
    advance(t);
  }

 protected:
  /// Errors: whatever; the state is then as before.
  virtual void take(Step& step) = 0;

 private:
  void advance(Time t) {
    while (!pending_.empty() && pending_.front()->time <= t) {
      const StepPointer step = pending_.front();
      take(*step);
      step->input.reset();
      last_ = step;
      pending_.pop_front();
    }
  }

  mutable std::mutex mutex_;  // guards what follows
  std::deque<StepPointer> pending_;
  std::weak_ptr<Step> last_;    // the last one that was taken
  std::exception_ptr failure_;  // of the last take_until
  Time failed_at_;
};

// ---- calling the user -------------------------------------------------------------------------------------------------------

/// How a function of several forms takes its key: as the table shows it, or, for strings, as const std::string&.
template <class K>
struct KeyForms {
  using View = typename TableKey<K>::View;
  using Owned = const K&;
};

template <class F, class S, class K, class V>
struct MapFunction {
  template <class Key, class Value>
  static constexpr bool timed = std::invocable<const F&, Time, Key, Value, State<S>&>;
  template <class Key, class Value>
  static constexpr bool plain = std::invocable<const F&, Key, Value, State<S>&>;
  template <class Key>
  static constexpr bool copies = timed<Key, std::optional<V>> || plain<Key, std::optional<V>>;
  template <class Key>
  static constexpr bool points = timed<Key, const V*> || plain<Key, const V*>;

  using View = typename KeyForms<K>::View;
  static constexpr bool views = copies<View> || points<View>;
  using Key = std::conditional_t<views, View, typename KeyForms<K>::Owned>;
  static_assert(
      copies<Key> || points<Key>,
      "the function of a StateSpec must take (key, std::optional<V>, State<S>&), or the same after the Time of the "
      "batch; instead of std::optional<V> it may take const V*");
  using Value = std::conditional_t<copies<Key>, std::optional<V>, const V*>;
  using Result =
      typename std::conditional_t<timed<Key, Value>, std::invoke_result<const F&, Time, Key, Value, State<S>&>,
                                  std::invoke_result<const F&, Key, Value, State<S>&>>::type;

  TIDEMILL_INLINE static decltype(auto) invoke(const F& f, Time t, Key key, V* value, State<S>& state) {
    if constexpr (timed<Key, Value>) {
      return call_user("map_with_state", f, t, key, value_for(value), state);
    } else {
      return call_user("map_with_state", f, key, value_for(value), state);
    }
  }

 private:
  TIDEMILL_INLINE static Value value_for(V* value) {
    if constexpr (copies<Key>) {
      return value == nullptr ? std::nullopt : std::optional<V>{std::move(*value)};
    } else {
      return value;
    }
  }
};

template <class T>
struct MappedRecord {
  using Out = T;
};
template <class T>
struct MappedRecord<std::optional<T>> {
  using Out = T;
};
template <>
struct MappedRecord<void> {
  using Out = std::monostate;  // of which there is none
};

/// Whether == of a T compiles: containers declare it for elements that have none.
template <class T>
consteval bool compares();
template <class T>
inline constexpr bool parts_compare = true;
template <template <class...> class Template, class... Parts>
  requires is_pair<Template<Parts...>> || is_tuple<Template<Parts...>> || is_optional<Template<Parts...>> ||
               is_variant<Template<Parts...>>
inline constexpr bool parts_compare<Template<Parts...>> = (compares<Parts>() && ...);

template <class T>
consteval bool compares() {
  if constexpr (!std::equality_comparable<T>) {
    return false;
  } else if constexpr (std::ranges::range<const T>) {
    using Element = std::remove_cvref_t<std::ranges::range_reference_t<const T>>;
    if constexpr (std::is_same_v<Element, T>) {
      return true;
    } else {
      return compares<Element>();
    }
  } else {
    return parts_compare<T>;
  }
}

// ---- what both operators share ------------------------------------------------------------------------------------------------

/// Gives the initial states to a store that has none. Pre: within a step.
template <class K, class S, class Initial>
void begin_with(KeyedStore<K, S>& store, const Initial& initial) {
  using Table = KeyedTable<K, S>;
  if constexpr (!std::is_same_v<Initial, NoInitialState>) {
    initial.for_each([&](const auto& key, const S& state) {
      static_assert(std::constructible_from<K, decltype(key)>,
                    "the keys of the initial state must be those of the stream");
      auto probe = TableKey<K>::probe(key);
      const std::uint32_t tag = Table::tag_of(probe);
      Table& table = store.partition(partition_of_tag(tag, store.partitions())).table;
      if (const auto place = table.find(tag, probe)) {
        table.assign(place, S(state));
      } else {
        table.insert(tag, std::move(probe), S(state));
      }
    });
  }
}

/// (key, state) for all keys, as they were at a version.
template <class K, class S>
void copy_state(KeyedStore<K, S>& store, const typename KeyedStore<K, S>::Version& version, const Scope& scope,
                std::vector<std::vector<std::pair<K, S>>>& parts) {
  store.while_still([&] {
    std::size_t size = 0;
    for (std::size_t p = 0; p < parts.size(); ++p) size += store.partition(p).table.size();
    for_each_partition_of(scope, parts.size(), size, [&](std::size_t p) {
      parts[p].reserve(store.partition(p).table.size());
      store.for_each_at(version, p, [&](typename TableKey<K>::View key, const S& state) {
        parts[p].emplace_back(TableKey<K>::owned(key), state);
      });
    });
  });
}

/// Tells the engine about the state of a node, or why no checkpoint can keep it.
template <class K, class S, SavedTouch touch>
void register_state(const std::shared_ptr<StreamingEngine>& engine, const std::shared_ptr<const GraphNode>& node,
                    const std::shared_ptr<KeyedStore<K, S>>& store) {
  engine->add_host_state(store);
  if constexpr (Encodable<K> && Encodable<S> && std::copy_constructible<K>) {
    engine->add_state(node, std::make_shared<DurableKeyedStore<K, S, touch>>(store, engine->runtime()->executor,
                                                                             node->op(), std::string{}));
  } else if constexpr (!Encodable<K>) {
    engine->add_unsaved_state(node, "the type of its keys has no codec; specialise tidemill::Codec for it");
  } else {
    engine->add_unsaved_state(node, "the type of its states has no codec; specialise tidemill::Codec for it");
  }
}

/// The stream of the results of steps.
///   Steps    derives from StateSteps; has Out, partitions(), input(batch), show(step, parts, arenas), partitioner()
template <class Chain, class Steps>
class StatefulNode final : public StreamNode<typename Steps::Out> {
  using Out = typename Steps::Out;

 public:
  StatefulNode(std::shared_ptr<StreamingEngine> engine, std::string op, Chain parent, std::shared_ptr<Steps> steps)
      : StreamNode<Out>{std::move(engine), std::move(op), parent.slide()},
        parent_{std::move(parent)},
        steps_{std::move(steps)} {
    this->grow_from(parent_.node());
    this->use_keys(KeyUse::by_key, has_whole_keys(parent_));
    if constexpr (!Steps::keeps_keys) this->use_keys(KeyUse::changes, true);
  }

  void on_cut(Time t) override {
    if (this->has_batch_at(t)) steps_->owe(t);
  }
  void settle(Time t) override {
    if (!this->has_batch_at(t)) return;
    static_cast<void>(this->batch_at(t));  // so that its step has its input
    steps_->settle(t);
  }
  [[nodiscard]] std::optional<Time> needs_from() const override { return steps_->first_without_input(); }

  /// Null when the batch of t is no longer remembered.
  [[nodiscard]] typename Steps::StepPointer step_at(Time t) {
    return steps_->prepare(t, [this](Time u) { return steps_->input(parent_.at(u)); });
  }
  [[nodiscard]] const std::shared_ptr<Steps>& steps() const noexcept { return steps_; }

 protected:
  [[nodiscard]] Batch<Out> compute(Time t) override {
    auto scope = this->engine()->scope_of(t);
    if (t <= this->engine()->resumed_from()) {  // an earlier run had it
      return Batch<Out>{std::make_shared<const VectorNode<Out>>(std::move(scope), std::vector<Out>{}, 1)};
    }
    auto step = step_at(t);
    if (!step) throw_state_forgotten(this->op(), t);
    return Batch<Out>{std::make_shared<const ResultNode>(std::move(scope), steps_, std::move(step))};
  }

 private:
  class ResultNode final : public PreparedNode<Out> {
   public:
    ResultNode(std::shared_ptr<const Scope> scope, std::shared_ptr<Steps> steps, typename Steps::StepPointer step)
        : PreparedNode<Out>{std::move(scope)}, steps_{std::move(steps)}, step_{std::move(step)} {}
    [[nodiscard]] std::size_t partitions() const override { return steps_->partitions(); }
    [[nodiscard]] std::size_t size_hint() const override { return steps_->size_hint(*step_); }
    [[nodiscard]] PartitionerRef partitioner() const override { return steps_->partitioner(); }

   protected:
    void build(std::vector<std::vector<Out>>& parts, std::vector<Arena>& arenas) const override {
      steps_->take_until(step_->time);
      steps_->show(*step_, *this->scope(), parts, arenas);
    }

   private:
    std::shared_ptr<Steps> steps_;  // shared with the stream; batches may outlive it
    typename Steps::StepPointer step_;
  };

  Chain parent_;
  std::shared_ptr<Steps> steps_;  // shared with the batches
};

/// The stream of all keys and states, beside the stream of the results.
template <class Main, class K, class S>
class SnapshotsNode final : public StreamNode<std::pair<K, S>> {
  using Out = std::pair<K, S>;
  using Steps = std::remove_cvref_t<decltype(*std::declval<Main>().steps())>;

 public:
  explicit SnapshotsNode(std::shared_ptr<StreamingEngine> engine, std::shared_ptr<Main> main)
      : StreamNode<Out>{std::move(engine), "state_snapshots", main->slide()}, main_{std::move(main)} {
    main_->steps()->keep_versions();
    this->grow_from(*main_);
    this->use_keys(KeyUse::keeps, true);  // or the main stream would have been refused
  }
  void settle(Time t) override {
    if (this->has_batch_at(t)) static_cast<void>(this->batch_at(t));  // so that `slice` finds it
  }

 protected:
  [[nodiscard]] Batch<Out> compute(Time t) override {
    auto scope = this->engine()->scope_of(t);
    if (t <= this->engine()->resumed_from()) {  // an earlier run had it
      return Batch<Out>{std::make_shared<const VectorNode<Out>>(std::move(scope), std::vector<Out>{}, 1)};
    }
    static_cast<void>(main_->batch_at(t));
    auto step = main_->step_at(t);
    if (!step) throw_state_forgotten(this->op(), t);
    return Batch<Out>{std::make_shared<const SnapshotNode>(std::move(scope), main_->steps(), std::move(step))};
  }

 private:
  class SnapshotNode final : public PreparedNode<Out> {
   public:
    SnapshotNode(std::shared_ptr<const Scope> scope, std::shared_ptr<Steps> steps, typename Steps::StepPointer step)
        : PreparedNode<Out>{std::move(scope)}, steps_{std::move(steps)}, step_{std::move(step)} {}
    [[nodiscard]] std::size_t partitions() const override { return steps_->partitions(); }
    [[nodiscard]] std::size_t size_hint() const override { return steps_->store()->size(); }
    [[nodiscard]] PartitionerRef partitioner() const override {
      return std::make_shared<const HashPartitioner<K>>(steps_->partitions());
    }

   protected:
    void build(std::vector<std::vector<Out>>& parts, std::vector<Arena>&) const override {
      steps_->take_until(step_->time);
      copy_state(*steps_->store(), *step_->result.version, *this->scope(), parts);
    }

   private:
    std::shared_ptr<Steps> steps_;  // as in StatefulNode
    typename Steps::StepPointer step_;
  };

  std::shared_ptr<Main> main_;  // shared with the graph
};

}  // namespace detail
}  // namespace tidemill
