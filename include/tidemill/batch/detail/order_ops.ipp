// Bodies of BatchOps: sorting, and the first few in some order. Included by batch.hpp.
#pragma once

#include <algorithm>
#include <iterator>
#include <limits>

#include "tidemill/batch/detail/batch_ops.ipp"
#include "tidemill/batch/detail/join_ops.ipp"
#include "tidemill/batch/detail/partition_nodes.hpp"
#include "tidemill/batch/detail/sort.hpp"

namespace tidemill {
namespace detail {

struct FirstOfPair {
  template <class P>
  TIDEMILL_INLINE const auto& operator()(const P& pair) const noexcept {
    return pair.first;
  }
};

template <class Less, class F, class Chain>
[[nodiscard]] auto sorted(const char* op, const Chain& chain, F f, Order order, std::size_t partitions, Less less) {
  using T = typename Chain::value_type;
  using SortKey = std::remove_cvref_t<std::invoke_result_t<const F&, const T&>>;
  static_assert(std::predicate<const Less&, const SortKey&, const SortKey&>,
                "sorting needs operator< for the key, or a function that compares two keys");
  return Batch<T>{
      std::make_shared<const SortNode<Chain, F, Less>>(chain, std::move(f), Before<Less>{op, order, std::move(less)},
                                                       partitions == 0 ? chain.node().partitions() : partitions)};
}

/// Plan: by key, and then in order of the key.
template <class K, class Less>
struct SortedByKey : ByKey<K> {
  Before<Less> before;
  template <class T>
  void finish(std::vector<T>& part) const {
    std::stable_sort(part.begin(), part.end(), [this](const T& a, const T& b) { return before(a.first, b.first); });
  }
};

/// Keeps the first n records in an order; of equal ones those that came first.
/// Memory: up to 2n + 256 records, and what n of them look at (a few times).
template <class T, class Less>
class FirstFew {
 public:
  FirstFew(std::size_t n, const Before<Less>& before) : n_{n}, before_{before} {}
  template <bool stable, class R>
  void add(R&& record) {
    if (full_ && !before_(record, kept_[n_ - 1])) return;
    if constexpr (stable) {
      kept_.push_back(std::forward<R>(record));
    } else {
      kept_.push_back(tidemill::rehome(std::forward<R>(record), arena_));
    }
    if (kept_.size() >= limit()) trim();
  }
  void trim() {
    std::stable_sort(kept_.begin(), kept_.end(), before_);
    if (kept_.size() > n_) kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(n_), kept_.end());
    full_ = kept_.size() == n_;
    if constexpr (borrows_v<T>) {
      Arena fresh;
      for (T& record : kept_) record = tidemill::rehome(std::as_const(record), fresh);
      arena_ = std::move(fresh);
    }
  }
  [[nodiscard]] std::vector<T>& kept() noexcept { return kept_; }

 private:
  [[nodiscard]] std::size_t limit() const noexcept {
    constexpr std::size_t most = std::numeric_limits<std::size_t>::max();
    return n_ > most / 4 ? most : 2 * n_ + 256;
  }

  std::size_t n_;  // > 0
  const Before<Less>& before_;
  bool full_ = false;  // kept_[n_ - 1] is the n-th of all records seen until the last trim
  std::vector<T> kept_;
  Arena arena_;
};

template <class Less, class Chain>
[[nodiscard]] auto first_few(const char* op, const Chain& chain, std::size_t n, Order order, Less less) {
  using T = typename Chain::value_type;
  static_assert(std::predicate<const Less&, const T&, const T&>,
                "this needs operator< for the records, or a function that compares two of them");
  std::vector<owned_t<T>> result;
  if (n == 0) return result;
  const Before<Less> before{op, order, std::move(less)};
  std::vector<FirstFew<T, Less>> partials;
  partials.reserve(chain.node().partitions());
  for (std::size_t p = 0; p < chain.node().partitions(); ++p) partials.emplace_back(n, before);
  run_action(chain, [&](std::size_t p) {
    run_chain(chain, p, [&](auto&& record) {
      partials[p].template add<Chain::facts.stable>(std::forward<decltype(record)>(record));
    });
    partials[p].trim();
  });
  run_merge(chain, [&] {
    std::vector<T> all;
    for (auto& partial : partials) std::move(partial.kept().begin(), partial.kept().end(), std::back_inserter(all));
    std::stable_sort(all.begin(), all.end(), before);
    if (all.size() > n) all.erase(all.begin() + static_cast<std::ptrdiff_t>(n), all.end());
    result.reserve(all.size());
    for (T& record : all) result.push_back(to_owned(std::move(record)));
  });
  return result;
}

template <class Less, class Chain>
[[nodiscard]] auto extreme(const char* op, const Chain& chain, Order order, Less less) {
  using T = typename Chain::value_type;
  static_assert(std::predicate<const Less&, const T&, const T&>,
                "this needs operator< for the records, or a function that compares two of them");
  const Before<Less> before{op, order, std::move(less)};
  auto result = reduce_in_order(chain, [&](T& acc, auto&& record) TIDEMILL_INLINE_LAMBDA {
    if (before(record, acc)) acc = std::forward<decltype(record)>(record);
  });
  if (!result) throw_empty_batch(op);
  return *std::move(result);
}

}  // namespace detail

template <class Self, class T>
template <class F, class Less>
Batch<T> BatchOps<Self, T>::sort_by(F f, Order order, std::size_t partitions, Less less) const {
  static_assert(std::invocable<const F&, const T&>, "sort_by: the function must take one record and return its key");
  return detail::sorted("sort_by", self(), detail::share(std::move(f)), order, partitions,
                        detail::share(std::move(less)));
}

template <class Self, class T>
template <class Less>
Batch<T> BatchOps<Self, T>::sort_by_key(Order order, std::size_t partitions, Less less) const {
  static_assert(detail::PairLike<T>, "sort_by_key needs a batch of std::pair; call key_by first");
  return detail::sorted("sort_by_key", self(), detail::FirstOfPair{}, order, partitions,
                        detail::share(std::move(less)));
}

template <class Self, class T>
template <class Less>
Batch<T> BatchOps<Self, T>::repartition_and_sort_within_partitions(Partitioning partitions, Less less) const {
  static_assert(detail::PairLike<T>,
                "repartition_and_sort_within_partitions needs a batch of std::pair; call key_by first");
  using K = detail::pair_key_t<T>;
  using Shared = detail::shared_t<Less>;
  using Plan = detail::SortedByKey<K, Shared>;
  constexpr const char* op = "repartition_and_sort_within_partitions";
  return Batch<T>{std::make_shared<const detail::ExchangeNode<Self, Plan>>(
      self(), Plan{{detail::KeyAssignment<K>{op, detail::choose_partitioner<K>(op, partitions, self())}},
                   detail::Before<Shared>{op, Order::ascending, detail::share(std::move(less))}})};
}

template <class Self, class T>
template <class Less>
std::vector<owned_t<T>> BatchOps<Self, T>::top(std::size_t n, Less less) const {
  return detail::first_few("top", self(), n, Order::descending, std::move(less));
}

template <class Self, class T>
template <class Less>
std::vector<owned_t<T>> BatchOps<Self, T>::take_ordered(std::size_t n, Less less) const {
  return detail::first_few("take_ordered", self(), n, Order::ascending, std::move(less));
}

template <class Self, class T>
template <class Less>
owned_t<T> BatchOps<Self, T>::max(Less less) const {
  return detail::extreme("max", self(), Order::descending, std::move(less));
}

template <class Self, class T>
template <class Less>
owned_t<T> BatchOps<Self, T>::min(Less less) const {
  return detail::extreme("min", self(), Order::ascending, std::move(less));
}

}  // namespace tidemill
