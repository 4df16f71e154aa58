// Bodies of StreamOps: each is the operator of Batch, lifted over time. Included by dstream.hpp.
#pragma once

#include "tidemill/core/text_form.hpp"
#include "tidemill/dstream/output.hpp"

namespace tidemill {
namespace detail {

TIDEMILL_API void check_same_context(const char* op, const GraphNode& a, const GraphNode& b);
TIDEMILL_API void check_context(const char* op, const StreamingEngine& engine, const GraphNode& stream);
TIDEMILL_API void check_can_slice(const StreamingEngine& engine);
TIDEMILL_API void warn_unless_on_slide(const StreamingEngine& engine, Time from, Time to, Duration slide);

/// What the user gave, once it is known to suit keys of type K: better refused here than by every batch.
template <class K>
[[nodiscard]] Partitioning checked(const char* op, Partitioning partitions) {
  const PartitionerRef& given = partitions.partitioner();
  if (given && !std::dynamic_pointer_cast<const Partitioner<K>>(given)) throw_wrong_partitioner(op);
  return partitions;
}

/// A stream, a chain, or the stream of a stateful operator, as a DStream.
template <class Other>
[[nodiscard]] auto as_stream(const Other& other) {
  static_assert(
      requires { typename Other::value_type; } &&
          std::convertible_to<const Other&, DStream<typename Other::value_type>>,
      "the other side must be a stream too; a Batch goes with a stream inside transform(): "
      "stream.transform([batch](const auto& mine) { return mine.join(batch); })");
  return DStream<typename Other::value_type>{other};
}

/// f(batch..., time) or f(batch...): user functions may leave the time out.
template <class F, class... Batches>
decltype(auto) call_with_time(const char* op, const F& f, Time t, const Batches&... batches) {
  if constexpr (std::invocable<const F&, const Batches&..., Time>) {
    return call_user(op, f, batches..., t);
  } else {
    static_assert(std::invocable<const F&, const Batches&...>,
                  "the function must take the batch, or the batch and its time");
    return call_user(op, f, batches...);
  }
}

}  // namespace detail

template <class T>
template <class In, class Stages, class Ref, detail::ChainFacts Facts>
  requires std::same_as<std::remove_cvref_t<Ref>, T>
DStream<T>::DStream(const DStreamChain<In, Stages, Ref, Facts>& chain)
    : DStream{chain.lift("chain", detail::KeyUse::keeps, [](const auto& batch) { return Batch<T>{batch}; })} {}

template <class Self, class T>
template <class G>
auto StreamOps<Self, T>::lift(const char* op, G g) const {
  return lift(op, detail::KeyUse::changes, std::move(g));
}

template <class Self, class T>
template <class G>
auto StreamOps<Self, T>::lift(const char* op, detail::KeyUse use, G g) const {
  const auto at_time = [g = std::move(g)](const auto& batch, [[maybe_unused]] Time t) {
    if constexpr (std::invocable<const G&, decltype(batch), Time>) {
      return g(batch, t);
    } else {
      return g(batch);
    }
  };
  using Out = typename std::invoke_result_t<decltype(at_time)&, decltype(self().at(Time{})), Time>::value_type;
  using Node = detail::LiftedNode<Out, Self, std::remove_const_t<decltype(at_time)>>;
  return DStream<Out>{detail::add_node<Node>(engine(), op, use, self(), at_time)};
}

template <class Self, class T>
template <class Other, class G>
auto StreamOps<Self, T>::lift_two(const char* op, detail::KeyUse use, const Other& other, G g) const {
  const auto stream = detail::as_stream(other);
  using Stream = std::remove_const_t<decltype(stream)>;
  using U = typename Stream::value_type;
  detail::check_same_context(op, self().node(), stream.node());
  using Out = typename std::invoke_result_t<G&, decltype(self().at(Time{})), Batch<U>, Time>::value_type;
  using Node = detail::JoinedNode<Out, G, Self, Stream>;
  return DStream<Out>{detail::add_node<Node>(engine(), op, use, slide(), std::move(g), self(), stream)};
}

template <class Self, class T>
template <class Other, class Join>
auto StreamOps<Self, T>::join_by(const char* op, const Other& other, const Partitioning& partitions, Join join) const {
  static_assert(detail::PairLike<T> && detail::PairLike<typename Other::value_type>,
                "a join and cogroup need two streams of std::pair; call key_by first");
  return lift_two(op, detail::KeyUse::by_key, other,
                  [join, partitions = detail::checked<detail::pair_key_t<T>>(op, partitions)](
                      const auto& a, const auto& b, Time) { return join(a, b, partitions); });
}

// ---- batch by batch -----------------------------------------------------------------------------------------------------

template <class Self, class T>
template <class F>
auto StreamOps<Self, T>::map_partitions(F f, PreservesPartitioning preserves) const {
  const auto use = preserves == PreservesPartitioning::yes ? detail::KeyUse::keeps : detail::KeyUse::changes;
  return lift("map_partitions", use, [f = detail::share(std::move(f)), preserves](const auto& batch) {
    return batch.map_partitions(f, preserves);
  });
}

template <class Self, class T>
auto StreamOps<Self, T>::glom() const {
  return lift("glom", [](const auto& batch) { return batch.glom(); });
}

template <class Self, class T>
DStream<T> StreamOps<Self, T>::repartition(std::size_t partitions) const {
  detail::check_partitions(partitions);
  return lift("repartition", detail::KeyUse::keeps,
              [partitions](const auto& batch) { return Batch<T>{batch.repartition(partitions)}; });
}

template <class Self, class T>
template <class F>
DStream<owned_t<T>> StreamOps<Self, T>::reduce(F f) const {
  using Out = owned_t<T>;
  return lift("reduce", detail::KeyUse::of_all, [f = detail::share(std::move(f))](const auto& batch) {
    return detail::computed_batch<Out>(batch.node().scope(), [batch, f] {
      std::vector<Out> one;
      if (auto result = batch.try_reduce(f)) one.push_back(*std::move(result));
      return one;
    });
  });
}

template <class Self, class T>
DStream<std::size_t> StreamOps<Self, T>::count() const {
  return lift("count", detail::KeyUse::of_all, [](const auto& batch) {
    return detail::computed_batch<std::size_t>(batch.node().scope(),
                                               [batch] { return std::vector<std::size_t>{batch.count()}; });
  });
}

template <class Self, class T>
auto StreamOps<Self, T>::count_by_value(Partitioning partitions) const {
  return lift("count_by_value", detail::KeyUse::of_all,
              [partitions = detail::checked<T>("count_by_value", std::move(partitions))](const auto& batch) {
                return batch.map([](const T& record) {
                              return std::pair<T, std::size_t>{record, 1};
                            })
                    .reduce_by_key(std::plus<>{}, partitions);
              });
}

template <class Self, class T>
template <class Other>
DStream<T> StreamOps<Self, T>::union_with(const Other& other) const {
  static_assert(std::is_same_v<typename Other::value_type, T>, "union_with needs two streams of the same type");
  return lift_two("union", detail::KeyUse::keeps, other,
                  [](const auto& a, const Batch<T>& b, Time) { return Batch<T>{Batch<T>{a}.union_with(b)}; });
}

template <class Self, class T>
template <class F>
auto StreamOps<Self, T>::transform(F f) const {
  return lift("transform", [f = detail::share(std::move(f))](const auto& batch, Time t) {
    return detail::call_with_time("transform", f, t, Batch<T>{batch});
  });
}

template <class Self, class T>
template <class Other, class F>
auto StreamOps<Self, T>::transform_with(const Other& other, F f) const {
  return lift_two("transform_with", detail::KeyUse::changes, other,
                  [f = detail::share(std::move(f))](const auto& a, const auto& b, Time t) {
                    return detail::call_with_time("transform_with", f, t, Batch<T>{a}, b);
                  });
}

template <class Self, class T>
DStream<T> StreamOps<Self, T>::cache() const {
  return lift("cache", detail::KeyUse::keeps, [](const auto& batch) { return batch.cache(); });
}

template <class Self, class T>
DStream<T> StreamOps<Self, T>::keyed_by_partition() const {
  static_assert(detail::PairLike<T>, "keyed_by_partition needs a stream of std::pair; call key_by first");
  const auto stream =
      lift("keyed_by_partition", detail::KeyUse::keeps, [](const auto& batch) { return Batch<T>{batch}; });
  stream.node().say_keys_are_whole();
  return stream;
}

// ---- pairs --------------------------------------------------------------------------------------------------------------

template <class Self, class T>
template <class F>
auto StreamOps<Self, T>::reduce_by_key(F f, Partitioning partitions) const {
  static_assert(detail::PairLike<T>, "reduce_by_key needs a stream of std::pair; call key_by first");
  const char* const op = "reduce_by_key";
  return lift(
      op, detail::KeyUse::by_key,
      [f = detail::share(std::move(f)), partitions = detail::checked<detail::pair_key_t<T>>(op, std::move(partitions))](
          const auto& batch) { return batch.reduce_by_key(f, partitions); });
}

template <class Self, class T>
template <class Create, class MergeValue, class MergeCombiners>
auto StreamOps<Self, T>::combine_by_key(Create create, MergeValue merge_value, MergeCombiners merge_combiners,
                                        Partitioning partitions) const {
  static_assert(detail::PairLike<T>, "combine_by_key needs a stream of std::pair; call key_by first");
  const char* const op = "combine_by_key";
  return lift(op, detail::KeyUse::by_key,
              [create = detail::share(std::move(create)), merge_value = detail::share(std::move(merge_value)),
               merge_combiners = detail::share(std::move(merge_combiners)),
               partitions = detail::checked<detail::pair_key_t<T>>(op, std::move(partitions))](const auto& batch) {
                return batch.combine_by_key(create, merge_value, merge_combiners, partitions);
              });
}

template <class Self, class T>
auto StreamOps<Self, T>::group_by_key(Partitioning partitions) const {
  static_assert(detail::PairLike<T>, "group_by_key needs a stream of std::pair; call key_by first");
  const char* const op = "group_by_key";
  return lift(op, detail::KeyUse::by_key,
              [partitions = detail::checked<detail::pair_key_t<T>>(op, std::move(partitions))](const auto& batch) {
                return batch.group_by_key(partitions);
              });
}

template <class Self, class T>
template <class Other>
auto StreamOps<Self, T>::join(const Other& other, Partitioning partitions) const {
  return join_by("join", other, partitions,
                 [](const auto& a, const auto& b, const Partitioning& wanted) { return a.join(b, wanted); });
}

template <class Self, class T>
template <class Other>
auto StreamOps<Self, T>::left_outer_join(const Other& other, Partitioning partitions) const {
  return join_by("left_outer_join", other, partitions,
                 [](const auto& a, const auto& b, const Partitioning& wanted) { return a.left_outer_join(b, wanted); });
}

template <class Self, class T>
template <class Other>
auto StreamOps<Self, T>::right_outer_join(const Other& other, Partitioning partitions) const {
  return join_by("right_outer_join", other, partitions, [](const auto& a, const auto& b, const Partitioning& wanted) {
    return a.right_outer_join(b, wanted);
  });
}

template <class Self, class T>
template <class Other>
auto StreamOps<Self, T>::full_outer_join(const Other& other, Partitioning partitions) const {
  return join_by("full_outer_join", other, partitions,
                 [](const auto& a, const auto& b, const Partitioning& wanted) { return a.full_outer_join(b, wanted); });
}

template <class Self, class T>
template <class Other>
auto StreamOps<Self, T>::cogroup(const Other& other, Partitioning partitions) const {
  return join_by("cogroup", other, partitions,
                 [](const auto& a, const auto& b, const Partitioning& wanted) { return a.cogroup(b, wanted); });
}

// ---- output operations --------------------------------------------------------------------------------------------------

template <class Self, class T>
template <class F>
void StreamOps<Self, T>::foreach_batch(F f, std::string name) const {
  auto call = [f = std::move(f)](const Batch<T>& batch, Time t) mutable {
    // Called by one thread at a time unless there are concurrent jobs, so the function may change what it captured.
    try {
      if constexpr (std::invocable<F&, const Batch<T>&, Time>) {
        f(batch, t);
      } else {
        static_assert(std::invocable<F&, const Batch<T>&>,
                      "foreach_batch: the function must take the Batch, or the Batch and its Time");
        f(batch);
      }
    } catch (const Error&) {
      throw;  // of an action inside, which says where it comes from
    } catch (...) {
      detail::throw_user_failure("foreach_batch");
    }
  };
  engine()->add_output(
      std::make_shared<detail::BatchOutput<Self, decltype(call)>>(std::move(name), self(), std::move(call)));
}

template <class Self, class T>
template <SinkOf<T> S>
void StreamOps<Self, T>::save_to(std::shared_ptr<S> sink, std::string name) const {
  if (!sink) throw ConfigError("save_to was given a null sink");
  if (name.empty()) name = sink->name();
  auto call = [handle = detail::add_sink(*engine(), std::move(sink), name)](const Batch<T>& batch, Time t) {
    handle.write(batch, t);
  };
  engine()->add_output(
      std::make_shared<detail::BatchOutput<Self, decltype(call)>>(std::move(name), self(), std::move(call)));
}

template <class Self, class T>
void StreamOps<Self, T>::print(std::size_t n) const {
  print(engine()->output(), n);
}

template <class Self, class T>
void StreamOps<Self, T>::print(std::ostream& out, std::size_t n) const {
  auto call = [engine = engine().get(), &out, n](const Batch<T>& batch, Time t) {
    const auto records = batch.take(std::max(n, n + 1));  // n may be the largest number there is
    std::string lines;
    for (std::size_t i = 0; i < records.size() && i < n; ++i) {
      append_text(lines, records[i]);
      lines += '\n';
    }
    const std::string text = detail::printed_batch(t, lines, records.size() > n);
    const std::scoped_lock lock{engine->print_mutex()};
    detail::write_print(out, text);
  };
  engine()->add_output(std::make_shared<detail::BatchOutput<Self, decltype(call)>>("print", self(), std::move(call)));
}

template <class Self, class T>
void StreamOps<Self, T>::save_as_text_files(std::string prefix, std::string suffix) const {
  auto call = [prefix = std::move(prefix), part = engine()->part(), suffix = std::move(suffix)](const Batch<T>& batch,
                                                                                                Time t) {
    batch.save_as_text_file(detail::output_path(prefix, part, suffix, t));
  };
  engine()->add_output(
      std::make_shared<detail::BatchOutput<Self, decltype(call)>>("save_as_text_files", self(), std::move(call)));
}

template <class Self, class T>
void StreamOps<Self, T>::save_as_object_files(std::string prefix, std::string suffix) const {
  auto call = [prefix = std::move(prefix), part = engine()->part(), suffix = std::move(suffix)](const Batch<T>& batch,
                                                                                                Time t) {
    batch.save_as_object_file(detail::output_path(prefix, part, suffix, t));
  };
  engine()->add_output(
      std::make_shared<detail::BatchOutput<Self, decltype(call)>>("save_as_object_files", self(), std::move(call)));
}

// ---- slice --------------------------------------------------------------------------------------------------------------

template <class Self, class T>
std::vector<Batch<T>> StreamOps<Self, T>::slice(Time from, Time to) const {
  detail::check_can_slice(*engine());
  detail::warn_unless_on_slide(*engine(), from, to, slide());
  const std::scoped_lock lock{engine()->graph_mutex()};
  const Time zero = engine()->zero_time();
  const Time first = std::max(zero, engine()->remembered_from());
  const Time last = floor_to(std::min(to, engine()->cut_until()), slide(), zero);
  std::vector<Batch<T>> batches;
  for (Time t = std::max(floor_to(std::max(from, first), slide(), zero), floor_to(first, slide(), zero) + slide());
       t <= last; t += slide()) {
    batches.push_back(Batch<T>{self().at(t)});
  }
  return batches;
}

}  // namespace tidemill
