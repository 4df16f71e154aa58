// Bodies of the windowed operators of StreamOps. Included by dstream.hpp.
#pragma once

#include "tidemill/dstream/detail/window_node.hpp"

namespace tidemill {
namespace detail {

/// What a window does with values has to leave them as they are, since later windows have them too.
template <class V, class F>
consteval void check_window_function() {
  static_assert(std::copy_constructible<V>,
                "a window uses a value several times, so the values must be copyable; a std::shared_ptr to one is");
  static_assert(
      std::invocable<const F&, V&, const V&>,
      "the function of a window must take two values, each as a copy or a constant reference, and return one");
  if constexpr (std::invocable<const F&, V&, const V&>) {
    using Result = std::invoke_result_t<const F&, V&, const V&>;
    static_assert(
        std::is_void_v<Result> || std::convertible_to<Result, V>,
        "the function of a window must return what it takes: the type of the values of the stream, or nothing "
        "when it changes its first argument");
  }
}

/// A batch, or any function's argument, as it is.
struct AsItIs {
  template <class Chain>
  Chain operator()(const Chain& chain) const {
    return chain;
  }
};
struct NotZero {
  template <class K>
  constexpr bool operator()(const K&, std::size_t count) const noexcept {
    return count != 0;
  }
};
struct MakePair {
  template <class K, class V>
  std::pair<K, V> operator()(const K& key, V&& value) const {
    return {key, std::move(value)};
  }
};
struct MakeValue {
  template <class V>
  V operator()(std::monostate, V&& value) const {
    return std::move(value);
  }
};

/// A stream whose batches are the windows of `blank`s, one a partition.
template <class In, class Out, class Part, class Parent, class Partitioner, class Reduce, class Make>
[[nodiscard]] DStream<Out> keyed_window(const char* op, KeyUse use, const Parent& parent, const WindowShape& shape,
                                        Part blank, Partitioner partitioner, PartitionerRef result_partitioner,
                                        Reduce reduce, Make make) {
  using Window = KeyedWindow<Part, In>;
  using Node = KeyedWindowNode<Out, Window, Parent, Reduce, Make>;
  const auto& engine = parent.engine();
  const auto window = std::make_shared<Window>(op, shape, std::move(blank), std::move(partitioner));
  const auto node =
      add_node<Node>(engine, use, parent, window, std::move(reduce), std::move(result_partitioner), std::move(make));
  register_window(engine, node, window);
  return DStream<Out>{node};
}

/// One value a window. `reduce(batch)` gives that of a batch, or none.
template <class V, class Part, class Parent, class Reduce>
[[nodiscard]] DStream<V> single_window(const char* op, const Parent& parent, const WindowShape& shape, Part blank,
                                       Reduce reduce) {
  using In = std::pair<std::monostate, V>;
  auto one = [reduce = std::move(reduce)](const auto& batch) {
    return computed_batch<In>(batch.node().scope(), [batch, reduce] {
      std::vector<In> records;
      if (std::optional<V> value = reduce(batch)) records.emplace_back(std::monostate{}, *std::move(value));
      return records;
    });
  };
  return keyed_window<In, V>(op, KeyUse::of_all, parent, shape, std::move(blank),
                             std::make_shared<const HashPartitioner<std::monostate>>(1), nullptr, one, MakeValue{});
}

/// All records of a batch folded by f.
template <class F>
[[nodiscard]] auto reduce_whole(const char* op, F f) {
  return [op, f = std::move(f)](const auto& batch) {
    using T = typename std::remove_cvref_t<decltype(batch)>::value_type;
    return reduce_in_order(batch, [&](T& acc, auto&& record) TIDEMILL_INLINE_LAMBDA {
      fold_into(op, f, acc, std::forward<decltype(record)>(record));
    });
  };
}

/// The values of each key of a batch folded by f. `to_pairs(batch)` gives them.
template <class In, class Part, class Parent, class F, class ToPairs>
[[nodiscard]] auto keyed_reduce_window(const char* op, KeyUse use, const Parent& parent, const WindowShape& shape,
                                       Part blank, const Partitioning& partitions, F f, ToPairs to_pairs) {
  using InKey = pair_key_t<In>;
  using Out = std::pair<owned_t<InKey>, owned_t<pair_value_t<In>>>;
  static_assert(Key<InKey>,
                "the key of a keyed operation needs operator== and a hash; specialise tidemill::Hash for it");
  const auto partitioner = window_partitioner<InKey>(op, *parent.engine(), partitions);
  auto reduce = [op, f = std::move(f), partitioner, to_pairs](const auto& batch) {
    return combine(op, to_pairs(batch), Itself{}, f, f, partitioner);
  };
  return keyed_window<In, Out>(op, use, parent, shape, std::move(blank), partitioner,
                               KeyedWindow<Part, In>::result_partitioner(partitioner), reduce, MakePair{});
}

}  // namespace detail

template <class Self, class T>
DStream<T> StreamOps<Self, T>::window(Duration length, std::optional<Duration> slide) const {
  const char* const op = "window";
  const auto pieces = std::make_shared<detail::WindowPieces<T>>(
      op, detail::WindowShape{op, self().node(), length, slide}, engine()->runtime());
  using Node = detail::PiecesNode<T, T, Self, detail::AsItIs, detail::AsItIs>;
  const auto node =
      detail::add_node<Node>(engine(), detail::KeyUse::keeps, self(), pieces, detail::AsItIs{}, detail::AsItIs{});
  detail::register_window(engine(), node, pieces);
  return DStream<T>{node};
}

template <class Self, class T>
template <class F>
DStream<owned_t<T>> StreamOps<Self, T>::reduce_by_window(F f, Duration length, std::optional<Duration> slide) const {
  using V = owned_t<T>;
  detail::check_window_function<V, F>();
  const char* const op = "reduce_by_window";
  const auto shared = detail::share(std::move(f));
  const detail::WindowShape shape{op, self().node(), length, slide};
  using Part = detail::TwoStacks<std::monostate, V, detail::shared_t<F>>;
  return detail::single_window<V>(op, self(), shape, Part{op, shared, shape}, detail::reduce_whole(op, shared));
}

template <class Self, class T>
template <class F, class Inverse>
  requires(!std::convertible_to<Inverse, Duration>)
DStream<owned_t<T>> StreamOps<Self, T>::reduce_by_window(F f, Inverse inverse, Duration length,
                                                         std::optional<Duration> slide) const {
  using V = owned_t<T>;
  detail::check_window_function<V, F>();
  detail::check_window_function<V, Inverse>();
  const char* const op = "reduce_by_window";
  const auto shared = detail::share(std::move(f));
  const detail::WindowShape shape{op, self().node(), length, slide};
  using Part =
      detail::RunningTotals<std::monostate, V, detail::shared_t<F>, detail::shared_t<Inverse>, detail::KeepAll>;
  return detail::single_window<V>(op, self(), shape,
                                  Part{op, shared, detail::share(std::move(inverse)), detail::KeepAll{}, shape},
                                  detail::reduce_whole(op, shared));
}

template <class Self, class T>
DStream<std::size_t> StreamOps<Self, T>::count_by_window(Duration length, std::optional<Duration> slide) const {
  const char* const op = "count_by_window";
  const detail::WindowShape shape{op, self().node(), length, slide};
  using Part = detail::RunningTotals<std::monostate, std::size_t, std::plus<>, std::minus<>, detail::KeepAll>;
  return detail::single_window<std::size_t>(op, self(), shape, Part{op, {}, {}, {}, shape}, [](const auto& batch) {
    const std::size_t count = batch.count();
    return count == 0 ? std::nullopt : std::optional{count};
  });
}

template <class Self, class T>
auto StreamOps<Self, T>::count_by_value_and_window(Duration length, std::optional<Duration> slide,
                                                   Partitioning partitions) const {
  const char* const op = "count_by_value_and_window";
  const detail::WindowShape shape{op, self().node(), length, slide};
  using Part = detail::RunningTotals<owned_t<T>, std::size_t, std::plus<>, std::minus<>, detail::NotZero>;
  return detail::keyed_reduce_window<std::pair<T, std::size_t>>(
      op, detail::KeyUse::of_all, self(), shape, Part{op, {}, {}, {}, shape}, partitions, std::plus<>{},
      [](const auto& batch) { return detail::as_keys(batch, std::size_t{1}); });
}

template <class Self, class T>
auto StreamOps<Self, T>::group_by_key_and_window(Duration length, std::optional<Duration> slide,
                                                 Partitioning partitions) const {
  static_assert(detail::PairLike<T>, "group_by_key_and_window needs a stream of std::pair; call key_by first");
  using K = detail::pair_key_t<T>;
  using V = detail::pair_value_t<T>;
  using Out = std::pair<K, std::vector<V>>;
  const char* const op = "group_by_key_and_window";
  partitions = detail::checked<K>(op, std::move(partitions));
  // Each batch is grouped once; a window only puts the groups of its batches together.
  auto group = [op, partitions](const auto& batch) {
    return detail::combine(op, batch, detail::StartGroup<V>{}, detail::AppendToGroup<V>{}, detail::JoinGroups<V>{},
                           detail::choose_partitioner<K>(op, partitions, batch));
  };
  auto join = [op, partitions](const Batch<Out>& groups) {
    return detail::combine(op, groups, detail::Itself{}, detail::JoinGroups<V>{}, detail::JoinGroups<V>{},
                           detail::choose_partitioner<K>(op, partitions, groups));
  };
  const auto pieces = std::make_shared<detail::WindowPieces<Out>>(
      op, detail::WindowShape{op, self().node(), length, slide}, engine()->runtime());
  using Node = detail::PiecesNode<Out, Out, Self, decltype(group), decltype(join)>;
  const auto node = detail::add_node<Node>(engine(), detail::KeyUse::by_key, self(), pieces, group, join);
  detail::register_window(engine(), node, pieces);
  return DStream<Out>{node};
}

template <class Self, class T>
template <class F>
auto StreamOps<Self, T>::reduce_by_key_and_window(F f, Duration length, std::optional<Duration> slide,
                                                  Partitioning partitions) const {
  static_assert(detail::PairLike<T>, "reduce_by_key_and_window needs a stream of std::pair; call key_by first");
  using K = owned_t<detail::pair_key_t<T>>;
  using V = owned_t<detail::pair_value_t<T>>;
  detail::check_window_function<V, F>();
  const char* const op = "reduce_by_key_and_window";
  const auto shared = detail::share(std::move(f));
  const detail::WindowShape shape{op, self().node(), length, slide};
  using Part = detail::TwoStacks<K, V, detail::shared_t<F>>;
  return detail::keyed_reduce_window<T>(op, detail::KeyUse::by_key, self(), shape, Part{op, shared, shape}, partitions,
                                        shared, detail::AsItIs{});
}

template <class Self, class T>
template <class F, class Inverse, class Filter>
  requires(!std::convertible_to<Inverse, Duration>)
auto StreamOps<Self, T>::reduce_by_key_and_window(F f, Inverse inverse, Duration length, std::optional<Duration> slide,
                                                  Partitioning partitions, Filter filter) const {
  static_assert(detail::PairLike<T>, "reduce_by_key_and_window needs a stream of std::pair; call key_by first");
  using K = owned_t<detail::pair_key_t<T>>;
  using V = owned_t<detail::pair_value_t<T>>;
  detail::check_window_function<V, F>();
  detail::check_window_function<V, Inverse>();
  static_assert(std::predicate<const Filter&, const K&, const V&> || std::predicate<const Filter&, std::pair<K, V>>,
                "the filter of a window must take a key and a value, or the pair of them, and return bool");
  const char* const op = "reduce_by_key_and_window";
  const auto shared = detail::share(std::move(f));
  const detail::WindowShape shape{op, self().node(), length, slide};
  using Part = detail::RunningTotals<K, V, detail::shared_t<F>, detail::shared_t<Inverse>, detail::shared_t<Filter>>;
  return detail::keyed_reduce_window<T>(
      op, detail::KeyUse::by_key, self(), shape,
      Part{op, shared, detail::share(std::move(inverse)), detail::share(std::move(filter)), shape}, partitions, shared,
      detail::AsItIs{});
}

}  // namespace tidemill
