// Bodies of BatchOps: element operators, keyed aggregation, basic actions. Included by batch.hpp.
#pragma once

#include <algorithm>
#include <iterator>
#include <span>

#include "tidemill/batch/detail/sources.hpp"

namespace tidemill {
namespace detail {

/// The partitioner of a keyed result: the one asked for, else the largest that an input has and that fits, else by hash.
template <class K, class... Chains>
[[nodiscard]] std::shared_ptr<const Partitioner<K>> choose_partitioner(const char* op, const Partitioning& wanted,
                                                                       const Chains&... chains) {
  if (wanted.partitioner()) {
    auto typed = std::dynamic_pointer_cast<const Partitioner<K>>(wanted.partitioner());
    if (!typed) throw_wrong_partitioner(op);
    return typed;
  }
  std::shared_ptr<const Partitioner<K>> best;
  const auto look = [&](const PartitionerRef& before) {
    auto typed = std::dynamic_pointer_cast<const Partitioner<K>>(before);
    if (!typed || (wanted.partitions() != 0 && wanted.partitions() != typed->partitions())) return;
    if (!best || typed->partitions() > best->partitions()) best = std::move(typed);
  };
  (look(partitioner_of(chains)), ...);
  if (best) return best;
  const auto& first = std::get<0>(std::tie(chains...));
  const std::size_t usual = first.node().scope()->runtime->executor->parallelism();
  return std::make_shared<const HashPartitioner<K>>(wanted.partitions() == 0 ? usual : wanted.partitions());
}

template <class Chain, class Create, class MergeValue, class MergeCombiners>
[[nodiscard]] auto combine(const char* op, const Chain& chain, Create create, MergeValue merge_value,
                           MergeCombiners merge_combiners,
                           std::shared_ptr<const Partitioner<pair_key_t<typename Chain::value_type>>> partitioner) {
  using K = pair_key_t<typename Chain::value_type>;
  using V = pair_value_t<typename Chain::value_type>;
  static_assert(Key<K>, "the key of a keyed operation needs operator== and a hash; specialise tidemill::Hash for it");
  static_assert(std::invocable<const Create&, V&&>, "`create` takes a value of the pairs");
  using C = std::remove_cvref_t<std::invoke_result_t<const Create&, V&&>>;
  using Fold = Folding<C, V, Create, MergeValue, MergeCombiners>;
  using Node = CombineNode<Chain, C, Fold>;
  return Batch<std::pair<K, C>>{std::make_shared<const Node>(
      chain, Fold{op, std::move(create), std::move(merge_value), std::move(merge_combiners)}, std::move(partitioner))};
}

/// What `create` is when the first value starts the fold.
struct Itself {
  template <class V>
  TIDEMILL_INLINE V operator()(V&& value) const noexcept(std::is_nothrow_move_constructible_v<V>) {
    return std::forward<V>(value);
  }
};

template <class V>
struct StartGroup {
  std::vector<V> operator()(V&& value) const {
    std::vector<V> group;
    group.push_back(std::move(value));
    return group;
  }
};
template <class V>
struct AppendToGroup {
  void operator()(std::vector<V>& group, V&& value) const { group.push_back(std::move(value)); }
};
template <class V>
struct JoinGroups {
  void operator()(std::vector<V>& group, std::vector<V>&& more) const {
    group.insert(group.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  }
};

template <class C, class F>
struct FoldFromZero {
  C zero;
  [[no_unique_address]] F in;
  template <class V>
  C operator()(V&& value) const {
    if constexpr (std::is_void_v<std::invoke_result_t<const F&, C&, V&&>>) {
      C acc = zero;
      std::invoke(in, acc, std::forward<V>(value));
      return acc;
    } else {
      return std::invoke(in, C(zero), std::forward<V>(value));
    }
  }
};

/// acc = f(acc, value), or f(acc, value) when that returns nothing.
template <class F, class C, class V>
TIDEMILL_INLINE void fold_into(const char* op, const F& f, C& acc, V&& value) {
  if constexpr (std::is_void_v<std::invoke_result_t<const F&, C&, V&&>>) {
    call_user(op, f, acc, std::forward<V>(value));
  } else {
    acc = call_user(op, f, std::move(acc), std::forward<V>(value));
  }
}

/// Folds the records of a partition into the first of them.
template <class Chain, class Merge>
[[nodiscard]] auto reduce_partition(const Chain& chain, std::size_t partition, [[maybe_unused]] Arena& arena,
                                    const Merge& merge) {
  using T = typename Chain::value_type;
  using In = typename Chain::node_type;
  std::optional<T> result;
  const auto& stages = chain.stages();
  const auto settle = [&](auto&& record) TIDEMILL_INLINE_LAMBDA -> T {
    if constexpr (Chain::facts.stable) {
      return std::forward<decltype(record)>(record);
    } else {
      return tidemill::rehome(std::forward<decltype(record)>(record), arena);
    }
  };
  chain.node().run(partition, [&](std::span<const In> chunk) {
    std::size_t i = 0;
    for (; i < chunk.size() && !result; ++i) {
      stages(chunk[i], [&](auto&& record) {
        if (result) {
          merge(*result, settle(std::forward<decltype(record)>(record)));
        } else {
          result.emplace(settle(std::forward<decltype(record)>(record)));
        }
      });
    }
    if (!result) return true;
    // The loop proper: nothing but a local accumulator, so that the compiler can keep it in registers, or vectorise.
    T acc = *std::move(result);
    for (; i < chunk.size(); ++i) {
      stages(chunk[i],
             [&](auto&& record) TIDEMILL_INLINE_LAMBDA { merge(acc, settle(std::forward<decltype(record)>(record))); });
    }
    result = std::move(acc);
    return true;
  });
  return result;
}

/// Every partition over the workers; each task keeps its own result.
template <class Chain, class Task>
void run_action(const Chain& chain, const Task& task) {
  chain.node().prepare();
  for_each_partition_of(*chain.node().scope(), chain.node().partitions(), chain.node().size_hint(), task);
}

/// The calling thread's part of an action: merging partial results with the user's function.
template <class Chain, class Task>
decltype(auto) run_merge(const Chain& chain, const Task& task) {
  try {
    return task();
  } catch (...) {
    const Scope& scope = *chain.node().scope();
    std::rethrow_exception(with_context({.application = scope.runtime->app_name,
                                         .op = {},
                                         .batch_time = scope.batch_time,
                                         .partition = {},
                                         .offset = {}}));
  }
}

/// All records of a chain merged into the first: `merge(T& acc, record)`.
template <class Chain, class Merge>
[[nodiscard]] auto reduce_in_order(const Chain& chain, const Merge& merge) {
  using T = typename Chain::value_type;
  std::vector<std::optional<T>> partials(chain.node().partitions());
  std::vector<Arena> arenas(partials.size());
  run_action(chain, [&](std::size_t p) { partials[p] = reduce_partition(chain, p, arenas[p], merge); });
  return run_merge(chain, [&] {
    std::optional<T> total;
    for (std::optional<T>& partial : partials) {
      if (!partial) continue;
      if (total) {
        merge(*total, std::move(*partial));
      } else {
        total = std::move(partial);
      }
    }
    return total ? std::optional<owned_t<T>>{to_owned(*std::move(total))} : std::nullopt;
  });
}

[[noreturn]] TIDEMILL_API void throw_empty_batch(const char* action);

/// The records of one partition, side by side in memory: those of the node where it holds them, else a copy.
template <class Chain, class See>
void with_partition(const Chain& chain, std::size_t partition, See&& see) {
  using T = typename Chain::value_type;
  if constexpr (is_plain<Chain>) {
    if (const auto stored = chain.node().stored(partition)) return see(*stored);
  }
  std::vector<T> records;
  Arena arena;
  collect_partition(chain, partition, records, arena);
  see(std::span<const T>{records});
}

/// Pairs (record, value): records as keys. The value is the same for all.
template <class V, class Chain>
[[nodiscard]] auto as_keys(const Chain& chain, V value) {
  return then<std::pair<typename Chain::value_type, V>&&,
              ChainFacts{.stable = Chain::facts.stable, .keeps_partitions = false}>(chain, WithValue<V>{value});
}

/// Pairs (k, value) for (k, v).
template <class V, class Chain>
[[nodiscard]] auto only_keys(const Chain& chain, V value) {
  return then<std::pair<pair_key_t<typename Chain::value_type>, V>&&, Chain::facts>(chain, ReplaceValue<V>{value});
}

/// A batch of any type of chain as a handle.
template <class Chain>
[[nodiscard]] auto handle(const Chain& chain) {
  return Batch<typename Chain::value_type>{chain};
}

}  // namespace detail

// ---- partitions handed to the user whole ----------------------------------------------------------------------------

template <class Self, class T>
template <class F>
auto BatchOps<Self, T>::map_partitions(F f, PreservesPartitioning preserves) const {
  static_assert(std::invocable<const F&, std::span<const T>>,
                "map_partitions: the function must take std::span<const T>, all records of a partition");
  return map_partitions_with_index(
      [f = detail::share(std::move(f))](std::size_t, std::span<const T> records) { return std::invoke(f, records); },
      preserves);
}

template <class Self, class T>
template <class F>
auto BatchOps<Self, T>::map_partitions_with_index(F f, PreservesPartitioning preserves) const {
  static_assert(std::invocable<const F&, std::size_t, std::span<const T>>,
                "map_partitions_with_index: the function must take (std::size_t, std::span<const T>)");
  using Node = detail::MapPartitionsNode<Self, detail::shared_t<F>>;
  return Batch<typename Node::Out>{
      std::make_shared<const Node>(self(), detail::share(std::move(f)), preserves == PreservesPartitioning::yes)};
}

// ---- keyed aggregation ----------------------------------------------------------------------------------------------

template <class Self, class T>
template <class F>
auto BatchOps<Self, T>::reduce_by_key(F f, Partitioning partitions) const {
  static_assert(detail::PairLike<T>, "reduce_by_key needs a batch of std::pair; call key_by first");
  auto shared = detail::share(std::move(f));
  return detail::combine("reduce_by_key", self(), detail::Itself{}, shared, shared,
                         detail::choose_partitioner<detail::pair_key_t<T>>("reduce_by_key", partitions, self()));
}

template <class Self, class T>
template <class Create, class MergeValue, class MergeCombiners>
auto BatchOps<Self, T>::combine_by_key(Create create, MergeValue merge_value, MergeCombiners merge_combiners,
                                       Partitioning partitions) const {
  static_assert(detail::PairLike<T>, "combine_by_key needs a batch of std::pair; call key_by first");
  return detail::combine("combine_by_key", self(), detail::share(std::move(create)),
                         detail::share(std::move(merge_value)), detail::share(std::move(merge_combiners)),
                         detail::choose_partitioner<detail::pair_key_t<T>>("combine_by_key", partitions, self()));
}

template <class Self, class T>
template <class C, class In, class Across>
auto BatchOps<Self, T>::aggregate_by_key(C zero, In in, Across across, Partitioning partitions) const {
  static_assert(detail::PairLike<T>, "aggregate_by_key needs a batch of std::pair; call key_by first");
  auto shared_in = detail::share(std::move(in));
  return detail::combine("aggregate_by_key", self(),
                         detail::share(detail::FoldFromZero<C, decltype(shared_in)>{std::move(zero), shared_in}),
                         shared_in, detail::share(std::move(across)),
                         detail::choose_partitioner<detail::pair_key_t<T>>("aggregate_by_key", partitions, self()));
}

template <class Self, class T>
template <class V, class F>
auto BatchOps<Self, T>::fold_by_key(V zero, F f, Partitioning partitions) const {
  static_assert(detail::PairLike<T>, "fold_by_key needs a batch of std::pair; call key_by first");
  auto shared = detail::share(std::move(f));
  using C = detail::pair_value_t<T>;
  return detail::combine("fold_by_key", self(),
                         detail::share(detail::FoldFromZero<C, decltype(shared)>{C(std::move(zero)), shared}), shared,
                         shared, detail::choose_partitioner<detail::pair_key_t<T>>("fold_by_key", partitions, self()));
}

template <class Self, class T>
auto BatchOps<Self, T>::group_by_key(Partitioning partitions) const {
  static_assert(detail::PairLike<T>, "group_by_key needs a batch of std::pair; call key_by first");
  using V = detail::pair_value_t<T>;
  return detail::combine("group_by_key", self(), detail::StartGroup<V>{}, detail::AppendToGroup<V>{},
                         detail::JoinGroups<V>{},
                         detail::choose_partitioner<detail::pair_key_t<T>>("group_by_key", partitions, self()));
}

// ---- actions --------------------------------------------------------------------------------------------------------

template <class Self, class T>
std::vector<owned_t<T>> BatchOps<Self, T>::collect() const {
  std::vector<std::vector<owned_t<T>>> parts(num_partitions());
  detail::run_action(self(), [&](std::size_t p) {
    detail::run_chain(self(), p,
                      [&](auto&& record) { parts[p].push_back(to_owned(std::forward<decltype(record)>(record))); });
  });
  if (parts.size() == 1) return std::move(parts.front());
  std::vector<owned_t<T>> all;
  std::size_t size = 0;
  for (const auto& part : parts) size += part.size();
  all.reserve(size);
  for (auto& part : parts) std::move(part.begin(), part.end(), std::back_inserter(all));
  return all;
}

template <class Self, class T>
auto BatchOps<Self, T>::collect_as_map() const {
  static_assert(detail::PairLike<T>, "collect_as_map needs a batch of std::pair");
  using K = owned_t<detail::pair_key_t<T>>;
  using V = owned_t<detail::pair_value_t<T>>;
  struct KeyHash {
    std::size_t operator()(const K& key) const { return static_cast<std::size_t>(hash_of(key)); }
  };
  // std::hash where the key has one, so that the type is the plain std::unordered_map<K, V>.
  using StdHash = std::hash<K>;
  using Hasher = std::conditional_t<std::is_default_constructible_v<StdHash>, StdHash, KeyHash>;
  std::unordered_map<K, V, Hasher> map;
  auto pairs = collect();
  map.reserve(pairs.size());
  for (auto& [key, value] : pairs) map.insert_or_assign(std::move(key), std::move(value));
  return map;
}

template <class Self, class T>
std::size_t BatchOps<Self, T>::count() const {
  std::vector<std::size_t> counts(num_partitions());
  detail::run_action(self(), [&](std::size_t p) {
    std::size_t n = 0;
    if constexpr (detail::is_plain<Self>) {
      if (const auto stored = self().node().stored(p)) {
        n = stored->size();
      } else {
        self().node().run(p, [&](std::span<const T> chunk) {
          n += chunk.size();
          return true;
        });
      }
    } else {
      detail::run_chain(self(), p, [&](auto&&) { ++n; });
    }
    counts[p] = n;
  });
  std::size_t total = 0;
  for (const std::size_t n : counts) total += n;
  return total;
}

template <class Self, class T>
std::vector<owned_t<T>> BatchOps<Self, T>::take(std::size_t n) const {
  std::vector<owned_t<T>> taken;
  if (n == 0) return taken;
  self().node().prepare();
  // Partition after partition on the calling thread: the first few records rarely need more than the first partition.
  for (std::size_t p = 0; p < num_partitions() && taken.size() < n; ++p) {
    detail::for_one_partition_of(*self().node().scope(), p, [&](std::size_t) {
      detail::run_chain_until(
          self(), p,
          [&](auto&& record) {
            if (taken.size() < n) taken.push_back(to_owned(std::forward<decltype(record)>(record)));
          },
          [&] { return taken.size() >= n; });
    });
  }
  return taken;
}

template <class Self, class T>
bool BatchOps<Self, T>::is_empty() const {
  self().node().prepare();
  bool found = false;
  for (std::size_t p = 0; p < num_partitions() && !found; ++p) {
    detail::for_one_partition_of(*self().node().scope(), p, [&](std::size_t) {
      detail::run_chain_until(
          self(), p, [&](auto&&) { found = true; }, [&] { return found; });
    });
  }
  return !found;
}

template <class Self, class T>
owned_t<T> BatchOps<Self, T>::first() const {
  auto taken = take(1);
  if (taken.empty()) detail::throw_empty_batch("first");
  return std::move(taken.front());
}

template <class Self, class T>
template <class F>
std::optional<owned_t<T>> BatchOps<Self, T>::try_reduce(F f) const {
  static_assert(std::invocable<const F&, T, T>, "reduce: the function must take two records and return one");
  return detail::reduce_in_order(self(), [&f](T& acc, auto&& record) TIDEMILL_INLINE_LAMBDA {
    acc = detail::call_user("reduce", f, std::move(acc), std::forward<decltype(record)>(record));
  });
}

template <class Self, class T>
template <class F>
owned_t<T> BatchOps<Self, T>::reduce(F f) const {
  auto result = try_reduce(std::move(f));
  if (!result) detail::throw_empty_batch("reduce");
  return *std::move(result);
}

template <class Self, class T>
template <class C, class In, class Across>
C BatchOps<Self, T>::aggregate(C zero, In in, Across across) const {
  static_assert(!borrows_v<C>,
                "aggregate: what it returns outlives the batch, so it must own what it holds; use "
                "std::string instead of std::string_view");
  std::vector<C> partials(num_partitions(), zero);
  detail::run_action(self(), [&](std::size_t p) {
    C acc = std::move(partials[p]);
    detail::run_chain(self(), p, [&](auto&& record) TIDEMILL_INLINE_LAMBDA {
      detail::fold_into("aggregate", in, acc, std::forward<decltype(record)>(record));
    });
    partials[p] = std::move(acc);
  });
  return detail::run_merge(self(), [&] {
    C total = std::move(zero);
    for (C& partial : partials) detail::fold_into("aggregate", across, total, std::move(partial));
    return total;
  });
}

template <class Self, class T>
template <class F>
owned_t<T> BatchOps<Self, T>::fold(owned_t<T> zero, F f) const {
  return aggregate(std::move(zero), f, f);
}

template <class Self, class T>
template <class F>
void BatchOps<Self, T>::foreach (F f) const {
  static_assert(std::invocable<const F&, typename Self::reference>, "foreach: the function must take one record");
  detail::run_action(self(), [&](std::size_t p) {
    detail::run_chain(self(), p, [&](auto&& record) TIDEMILL_INLINE_LAMBDA {
      static_cast<void>(detail::call_user("foreach", f, std::forward<decltype(record)>(record)));
    });
  });
}

template <class Self, class T>
template <class F>
void BatchOps<Self, T>::foreach_partition(F f) const {
  static_assert(std::invocable<const F&, std::span<const T>>,
                "foreach_partition: the function must take std::span<const T>, all records of a partition");
  detail::run_action(self(), [&](std::size_t p) {
    detail::with_partition(self(), p, [&](std::span<const T> records) {
      static_cast<void>(detail::call_user("foreach_partition", f, records));
    });
  });
}

// ---- Context --------------------------------------------------------------------------------------------------------

template <class T>
Batch<T> Context::parallelize(std::vector<T> records, std::size_t partitions) const {
  return Batch<T>{std::make_shared<const detail::VectorNode<T>>(
      std::make_shared<const detail::Scope>(detail::Scope{runtime_, std::nullopt}), std::move(records),
      partitions == 0 ? parallelism() : partitions)};
}

template <class T>
Batch<T> Context::empty_batch() const {
  return parallelize(std::vector<T>{}, 1);
}

}  // namespace tidemill
