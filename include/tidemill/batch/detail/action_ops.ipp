// Bodies of BatchOps: statistics, counts by value, merging in a tree. Included by batch.hpp.
#pragma once

#include <cstdint>
#include <optional>
#include <type_traits>

#include "tidemill/batch/detail/batch_ops.ipp"

namespace tidemill {
namespace detail {

/// Merges partials[1], partials[2], … into partials[0], neighbours first, in parallel, in order.
template <class Chain, class P, class Merge>
void merge_in_tree(const Chain& chain, std::vector<P>& partials, const Merge& merge) {
  for (std::size_t apart = 1; apart < partials.size(); apart *= 2) {
    const std::size_t pairs = (partials.size() - apart - 1) / (2 * apart) + 1;
    for_each_partition_of(*chain.node().scope(), pairs, chain.node().size_hint(), [&](std::size_t i) {
      merge(partials[2 * apart * i], std::move(partials[2 * apart * i + apart]));
    });
  }
}

struct AddCounts {
  void operator()(std::size_t& count, std::size_t more) const noexcept { count += more; }
};

/// Counts the pairs of a chain of (k, 1) by key.
template <class Chain>
[[nodiscard]] auto count_keys(const char* op, const Chain& ones) {
  using K = pair_key_t<typename Chain::value_type>;
  return combine(op, ones, Itself{}, AddCounts{}, AddCounts{}, choose_partitioner<K>(op, {}, ones)).collect_as_map();
}

template <class T>
inline constexpr bool is_number = std::is_arithmetic_v<T> && !std::is_same_v<T, bool>;

template <class Chain, class Add>
void each_number(const Chain& chain, std::size_t partition, Add&& add) {
  static_assert(is_number<typename Chain::value_type>,
                "stats and histogram need a batch of numbers; map to them first");
  run_chain(chain, partition, [&](auto&& record) { add(static_cast<double>(record)); });
}

}  // namespace detail

template <class Self, class T>
template <class F>
owned_t<T> BatchOps<Self, T>::tree_reduce(F f) const {
  static_assert(std::invocable<const F&, T, T>, "tree_reduce: the function must take two records and return one");
  const auto merge = [&f](T& acc, auto&& record) {
    acc = detail::call_user("tree_reduce", f, std::move(acc), std::forward<decltype(record)>(record));
  };
  std::vector<std::optional<T>> partials(this->num_partitions());
  std::vector<Arena> arenas(partials.size());
  detail::run_action(self(),
                     [&](std::size_t p) { partials[p] = detail::reduce_partition(self(), p, arenas[p], merge); });
  detail::merge_in_tree(self(), partials, [&](std::optional<T>& acc, std::optional<T>&& other) {
    if (!other) return;
    if (acc) {
      merge(*acc, *std::move(other));
    } else {
      acc = std::move(other);
    }
  });
  if (partials.empty() || !partials.front()) detail::throw_empty_batch("tree_reduce");
  return to_owned(*std::move(partials.front()));
}

template <class Self, class T>
template <class C, class In, class Across>
C BatchOps<Self, T>::tree_aggregate(C zero, In in, Across across) const {
  static_assert(!borrows_v<C>, "tree_aggregate: what it returns outlives the batch, so it must own what it holds");
  std::vector<C> partials(this->num_partitions(), zero);
  detail::run_action(self(), [&](std::size_t p) {
    C acc = std::move(partials[p]);
    detail::run_chain(self(), p, [&](auto&& record) {
      detail::fold_into("tree_aggregate", in, acc, std::forward<decltype(record)>(record));
    });
    partials[p] = std::move(acc);
  });
  detail::merge_in_tree(self(), partials,
                        [&](C& acc, C&& other) { detail::fold_into("tree_aggregate", across, acc, std::move(other)); });
  return std::move(partials.front());
}

template <class Self, class T>
auto BatchOps<Self, T>::count_by_value() const {
  static_assert(Key<T>,
                "count_by_value needs records with operator== and a hash; specialise tidemill::Hash for their type");
  return detail::count_keys("count_by_value", detail::as_keys(self(), std::size_t{1}));
}

template <class Self, class T>
auto BatchOps<Self, T>::count_by_key() const {
  static_assert(detail::PairLike<T>, "count_by_key needs a batch of std::pair; call key_by first");
  return detail::count_keys("count_by_key", detail::only_keys(self(), std::size_t{1}));
}

template <class Self, class T>
template <class K>
auto BatchOps<Self, T>::lookup(const K& key) const {
  static_assert(detail::PairLike<T>, "lookup needs a batch of std::pair; call key_by first");
  using Known = detail::pair_key_t<T>;
  using V = owned_t<detail::pair_value_t<T>>;
  static_assert(std::equality_comparable_with<const Known&, const K&>,
                "lookup: the key must be comparable with those of the batch");
  std::vector<std::vector<V>> found(this->num_partitions());
  const auto search = [&](std::size_t p) {
    detail::run_chain(self(), p, [&](auto&& pair) {
      if (pair.first == key) found[p].push_back(to_owned(std::forward<decltype(pair)>(pair).second));
    });
  };
  std::shared_ptr<const Partitioner<Known>> typed;
  if constexpr (std::convertible_to<const K&, Known>) {
    typed = std::dynamic_pointer_cast<const Partitioner<Known>>(this->partitioner());
    if (typed) {  // it can be in one partition only
      self().node().prepare();
      const Known known = static_cast<Known>(key);
      std::size_t p = 0;
      detail::run_merge(self(), [&] { p = detail::ask_partitioner("lookup", *typed, known); });
      detail::for_one_partition_of(*self().node().scope(), p, search);
      return std::move(found[p]);
    }
  }
  detail::run_action(self(), search);
  std::vector<V> values;
  for (std::vector<V>& part : found) std::move(part.begin(), part.end(), std::back_inserter(values));
  return values;
}

template <class Self, class T>
Statistics BatchOps<Self, T>::stats() const {
  std::vector<Statistics> partials(this->num_partitions());
  detail::run_action(self(), [&](std::size_t p) {
    Statistics seen;
    detail::each_number(self(), p, [&](double x) { seen.add(x); });
    partials[p] = seen;
  });
  Statistics total;
  for (const Statistics& partial : partials) total.merge(partial);
  return total;
}

template <class Self, class T>
Histogram BatchOps<Self, T>::histogram(std::size_t buckets) const {
  if (buckets == 0) return {detail::even_bounds({}, 0), {}};  // throws
  std::vector<double> bounds = detail::even_bounds(stats(), buckets);
  if (bounds.front() == bounds.back()) {  // all numbers are equal
    return {std::move(bounds), {this->count()}};
  }
  return histogram(std::move(bounds));
}

template <class Self, class T>
Histogram BatchOps<Self, T>::histogram(std::vector<double> bounds) const {
  detail::check_bounds(bounds);
  const std::size_t buckets = bounds.size() - 1;
  std::vector<std::vector<std::size_t>> partials(this->num_partitions());
  detail::run_action(self(), [&](std::size_t p) {
    std::vector<std::size_t> counts(buckets);
    detail::each_number(self(), p, [&](double x) { detail::count_into(bounds, counts, x); });
    partials[p] = std::move(counts);
  });
  std::vector<std::size_t> total(buckets);
  for (const std::vector<std::size_t>& counts : partials) {
    for (std::size_t b = 0; b < buckets; ++b) total[b] += counts[b];
  }
  return {std::move(bounds), std::move(total)};
}

}  // namespace tidemill
