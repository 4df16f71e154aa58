// Bodies of update_state_by_key and map_with_state. Included by dstream.hpp.
#pragma once

#include "tidemill/dstream/detail/map_with_state.hpp"
#include "tidemill/dstream/detail/update_state.hpp"

namespace tidemill {
namespace detail {

[[nodiscard]] inline std::size_t state_partitions(const StreamingEngine& engine, std::size_t asked) {
  return asked == 0 ? engine.runtime()->executor->parallelism() : asked;
}
/// Errors: ConfigError when there is no `idle`, or when the gate is on_arrival and `every` is not given.
TIDEMILL_API Duration lazy_timeouts_every(const StreamingEngine& engine, Duration slide, std::optional<Duration> idle,
                                          Duration every);

/// (k, all values of k) of a batch, in the partitions of the state.
template <class InKey>
struct GroupForState {
  std::shared_ptr<const Partitioner<InKey>> partitioner;  // shared by all batches
  template <class In>
  [[nodiscard]] auto operator()(const In& batch) const {
    using V = pair_value_t<typename In::value_type>;
    return combine("update_state_by_key", batch, StartGroup<V>{}, AppendToGroup<V>{}, JoinGroups<V>{}, partitioner);
  }
};

template <class S, class Stream, class F, class Initial>
[[nodiscard]] auto update_state(const Stream& stream, F f, std::size_t partitions, Initial initial) {
  using T = typename Stream::value_type;
  static_assert(PairLike<T>, "update_state_by_key needs a stream of std::pair; call key_by first");
  static_assert(StateValue<S>,
                "the S of update_state_by_key<S> must own what it holds and be moved and assigned without throwing");
  static_assert(std::copy_constructible<S>,
                "update_state_by_key shows all states in each batch, so they must be copyable; use map_with_state");
  using InKey = pair_key_t<T>;
  using V = pair_value_t<T>;
  using K = owned_t<InKey>;
  using Steps = UpdateStateSteps<InKey, V, S, shared_t<F>, Initial, GroupForState<InKey>>;
  using Node = StatefulNode<Stream, Steps>;
  const auto& engine = stream.engine();
  const std::size_t count = state_partitions(*engine, partitions);
  const auto store = std::make_shared<KeyedStore<K, S>>(count, false);
  const auto steps =
      std::make_shared<Steps>(store, share(std::move(f)), std::move(initial),
                              GroupForState<InKey>{std::make_shared<const HashPartitioner<InKey>>(count)});
  const auto node = add_node<Node>(engine, "update_state_by_key", stream, steps);
  register_state<K, S, SavedTouch::no>(engine, node, store);
  return StateStream<K, S>{DStream<std::pair<K, S>>{node}, KeyedStateView<K, S>{store}};
}

}  // namespace detail

template <class Self, class T>
template <class S, class F>
auto StreamOps<Self, T>::update_state_by_key(F f, std::size_t partitions) const {
  return detail::update_state<S>(self(), std::move(f), partitions, NoInitialState{});
}

template <class Self, class T>
template <class S, class F, class Initial>
auto StreamOps<Self, T>::update_state_by_key(F f, std::size_t partitions, Initial initial) const {
  return detail::update_state<S>(self(), std::move(f), partitions, InitialState{std::move(initial)});
}

template <class Self, class T>
template <class Spec>
auto StreamOps<Self, T>::map_with_state(Spec spec) const {
  static_assert(detail::PairLike<T>, "map_with_state needs a stream of std::pair; call key_by first");
  static_assert(
      requires { typename Spec::state_type; }, "map_with_state takes a StateSpec: state_spec<S>(function)");
  using S = typename Spec::state_type;
  using K = owned_t<detail::pair_key_t<T>>;
  using F = detail::shared_t<std::remove_cvref_t<decltype(spec.function())>>;
  using In = decltype(self().at(Time{}));
  using Steps = detail::MapWithStateSteps<In, S, F, std::remove_cvref_t<decltype(spec.initial())>>;
  using Out = typename Steps::Out;
  using Node = detail::StatefulNode<Self, Steps>;
  static_assert(Record<Out>,
                "the function of map_with_state returns records: movable objects, optionals of them, or nothing");

  detail::TimeoutRule timeouts{.idle = spec.idle()};
  if (spec.lazy()) timeouts.every = detail::lazy_timeouts_every(*engine(), slide(), spec.idle(), *spec.lazy());
  const auto store = std::make_shared<KeyedStore<K, S>>(detail::state_partitions(*engine(), spec.partitions()),
                                                        spec.idle().has_value());
  const auto steps = std::make_shared<Steps>(store, detail::share(spec.function()), spec.initial(), timeouts);
  const auto node = detail::add_node<Node>(engine(), "map_with_state", self(), steps);
  detail::register_state<K, S, SavedTouch::yes>(engine(), node, store);
  std::function<DStream<std::pair<K, S>>()> snapshots;
  if constexpr (std::copy_constructible<S>) {
    snapshots = [node] {
      using Snapshots = detail::SnapshotsNode<Node, K, S>;
      return DStream<std::pair<K, S>>{detail::add_node<Snapshots>(node->engine(), node)};
    };
  }
  return MapWithStateStream<K, S, Out>{DStream<Out>{node}, KeyedStateView<K, S>{store}, std::move(snapshots)};
}

}  // namespace tidemill
