// The operators that look at one record at a time. They are lazy and fuse: each adds a stage to the chain it is called
// on. Written once, for batches and for streams alike.
#pragma once

#include <concepts>
#include <ranges>
#include <type_traits>
#include <utility>

#include "tidemill/batch/detail/chain.hpp"
#include "tidemill/batch/detail/stages.hpp"
#include "tidemill/core/ownership.hpp"

namespace tidemill {

/// A type that a batch or stream can carry: an object that can be moved.
template <class T>
concept Record = std::is_object_v<T> && std::move_constructible<T> && std::is_same_v<T, std::remove_cv_t<T>>;

template <class F, class Ref>
concept RecordFunction = std::invocable<const F&, Ref>;
template <class F, class T>
concept RecordPredicate = std::predicate<const F&, const T&>;

namespace detail {

template <class F>
concept EmittingFunction = requires { typename F::emits; };

/// The chain with one more stage, which yields `Ref`.
template <class Ref, ChainFacts Facts, class Chain, class Stage>
[[nodiscard]] auto then(const Chain& chain, Stage stage) {
  using Stages = std::remove_cvref_t<decltype(chain.stages())>;
  if constexpr (std::is_same_v<Stages, Identity>) {
    return chain.template with_stages<Ref, Facts>(std::move(stage));
  } else {
    return chain.template with_stages<Ref, Facts>(Then<Stages, Stage>{chain.stages(), std::move(stage)});
  }
}

/// T for a prvalue or rvalue, const T& for an lvalue.
template <class R>
using emitted_t =
    std::conditional_t<std::is_lvalue_reference_v<R>, const std::remove_cvref_t<R>&, std::remove_cvref_t<R>&&>;

}  // namespace detail

/// `Self` is whatever has a chain of stages: Batch, BatchChain, DStream, DStreamChain.
template <class Self, class T>
class NarrowOps {
 public:
  // ---- element by element: lazy, fused ------------------------------------------------------------------------------

  /// One record out for each record in: `f(record)`.
  template <class F>
  [[nodiscard]] auto map(F f) const;

  /// The records for which `predicate(record)` holds.
  template <RecordPredicate<T> Predicate>
  [[nodiscard]] auto filter(Predicate predicate) const;

  /// Any number of records out: the elements of the range that `f(record)` returns. A function object with a member
  /// type `emits` is called as `f(record, emit)` instead, and yields a record of that type by each `emit(value)`.
  template <class F>
  [[nodiscard]] auto flat_map(F f) const;

  /// Any number of records of type `Out`: `f(record, emit)` yields one by each call of `emit(value)`. No allocation.
  template <class Out, class F>
  [[nodiscard]] auto flat_map(F f) const;

  /// Pairs (f(record), record).
  template <class F>
  [[nodiscard]] auto key_by(F f) const;

  // ---- pairs: need T = std::pair<K, V> ------------------------------------------------------------------------------

  /// (k, f(v)). Keeps the partitioner.
  template <class F>
  [[nodiscard]] auto map_values(F f) const;
  /// (k, u) for each u in the range f(v). Keeps the partitioner.
  template <class F>
  [[nodiscard]] auto flat_map_values(F f) const;
  [[nodiscard]] auto keys() const;
  [[nodiscard]] auto values() const;

 protected:
  NarrowOps() = default;
  [[nodiscard]] const Self& self() const noexcept { return static_cast<const Self&>(*this); }
};

// ---- element by element ---------------------------------------------------------------------------------------------

template <class Self, class T>
template <class F>
auto NarrowOps<Self, T>::map(F f) const {
  using Ref = typename Self::reference;
  static_assert(std::invocable<const F&, Ref>, "map: the function must take one record, and be callable when const");
  using R = std::invoke_result_t<const F&, Ref>;
  static_assert(!std::is_void_v<R>, "map: the function must return the new record; to act on each record use foreach");
  constexpr detail::ChainFacts facts{.stable = detail::stays_stable<T, std::remove_cvref_t<R>>(Self::facts.stable),
                                     .keeps_partitions = false};
  return detail::then<detail::emitted_t<R>, facts>(self(),
                                                   detail::Map<detail::shared_t<F>>{detail::share(std::move(f))});
}

template <class Self, class T>
template <RecordPredicate<T> Predicate>
auto NarrowOps<Self, T>::filter(Predicate predicate) const {
  return detail::then<typename Self::reference, Self::facts>(
      self(), detail::Filter<detail::shared_t<Predicate>>{detail::share(std::move(predicate))});
}

template <class Self, class T>
template <class F>
auto NarrowOps<Self, T>::flat_map(F f) const {
  if constexpr (detail::EmittingFunction<F>) {
    return flat_map<typename F::emits>(std::move(f));
  } else {
    using Ref = typename Self::reference;
    static_assert(std::invocable<const F&, Ref>,
                  "flat_map: the function must take one record and return a range; for a function that takes "
                  "(record, emit) name the type it emits: flat_map<Word>(f)");
    using Range = std::invoke_result_t<const F&, Ref>;
    static_assert(std::ranges::input_range<Range>, "flat_map: the function must return a range, such as a std::vector");
    using Element = detail::RangeElement<Range>;
    constexpr detail::ChainFacts facts{.stable = detail::stays_stable<T, typename Element::Value>(Self::facts.stable),
                                       .keeps_partitions = false};
    return detail::then<typename Element::Ref, facts>(
        self(), detail::FlatMap<detail::shared_t<F>>{detail::share(std::move(f))});
  }
}

template <class Self, class T>
template <class Out, class F>
auto NarrowOps<Self, T>::flat_map(F f) const {
  static_assert(Record<Out>, "flat_map<Out>: records are movable objects");
  constexpr detail::ChainFacts facts{.stable = detail::stays_stable<T, Out>(Self::facts.stable),
                                     .keeps_partitions = false};
  return detail::then<Out&&, facts>(self(), detail::FlatMapEmit<Out, detail::shared_t<F>>{detail::share(std::move(f))});
}

template <class Self, class T>
template <class F>
auto NarrowOps<Self, T>::key_by(F f) const {
  static_assert(std::invocable<const F&, const T&>, "key_by: the function must take one record");
  using K = std::remove_cvref_t<std::invoke_result_t<const F&, const T&>>;
  constexpr bool stable = detail::stays_stable<T, K>(Self::facts.stable) && Self::facts.stable;
  return detail::then<std::pair<K, T>&&, detail::ChainFacts{.stable = stable, .keeps_partitions = false}>(
      self(), detail::KeyBy<detail::shared_t<F>>{detail::share(std::move(f))});
}

// ---- pairs ----------------------------------------------------------------------------------------------------------

template <class Self, class T>
template <class F>
auto NarrowOps<Self, T>::map_values(F f) const {
  static_assert(detail::PairLike<T>, "map_values needs a batch of std::pair; call key_by first");
  using Pair = detail::PairTraits<T>;
  using K = typename Pair::Key;
  using V = typename Pair::Value;
  using Ref = std::conditional_t<std::is_lvalue_reference_v<typename Self::reference>, const V&, V&&>;
  using U = std::remove_cvref_t<std::invoke_result_t<const F&, Ref>>;
  constexpr bool stable = (!borrows_v<K> || Self::facts.stable) && detail::stays_stable<V, U>(Self::facts.stable);
  return detail::then<std::pair<K, U>&&,
                      detail::ChainFacts{.stable = stable, .keeps_partitions = Self::facts.keeps_partitions}>(
      self(), detail::MapValues<detail::shared_t<F>>{detail::share(std::move(f))});
}

template <class Self, class T>
template <class F>
auto NarrowOps<Self, T>::flat_map_values(F f) const {
  static_assert(detail::PairLike<T>, "flat_map_values needs a batch of std::pair; call key_by first");
  using Pair = detail::PairTraits<T>;
  using K = typename Pair::Key;
  using V = typename Pair::Value;
  using Ref = std::conditional_t<std::is_lvalue_reference_v<typename Self::reference>, const V&, V&&>;
  using Range = std::invoke_result_t<const F&, Ref>;
  static_assert(std::ranges::input_range<Range>, "flat_map_values: the function must return a range");
  using U = typename detail::RangeElement<Range>::Value;
  constexpr bool stable = (!borrows_v<K> || Self::facts.stable) && detail::stays_stable<V, U>(Self::facts.stable);
  return detail::then<std::pair<K, U>&&,
                      detail::ChainFacts{.stable = stable, .keeps_partitions = Self::facts.keeps_partitions}>(
      self(), detail::FlatMapValues<detail::shared_t<F>>{detail::share(std::move(f))});
}

template <class Self, class T>
auto NarrowOps<Self, T>::keys() const {
  static_assert(detail::PairLike<T>, "keys needs a batch of std::pair; call key_by first");
  using K = detail::pair_key_t<T>;
  using Ref = std::conditional_t<std::is_lvalue_reference_v<typename Self::reference>, const K&, K&&>;
  return detail::then<Ref, detail::ChainFacts{.stable = Self::facts.stable, .keeps_partitions = false}>(self(),
                                                                                                        detail::Keys{});
}

template <class Self, class T>
auto NarrowOps<Self, T>::values() const {
  static_assert(detail::PairLike<T>, "values needs a batch of std::pair; call key_by first");
  using V = detail::pair_value_t<T>;
  using Ref = std::conditional_t<std::is_lvalue_reference_v<typename Self::reference>, const V&, V&&>;
  return detail::then<Ref, detail::ChainFacts{.stable = Self::facts.stable, .keeps_partitions = false}>(
      self(), detail::Values{});
}

}  // namespace tidemill
