// Bodies of BatchOps: joins and cogroup. Included by batch.hpp.
#pragma once

#include "tidemill/batch/detail/batch_ops.ipp"
#include "tidemill/batch/detail/cogroup.hpp"

namespace tidemill {
namespace detail {

template <class Policy, class First, class... Others>
[[nodiscard]] auto cogrouped(const char* op, const Partitioning& wanted, const First& first, const Others&... others) {
  using K = pair_key_t<typename First::value_type>;
  static_assert(Key<K>, "the key of a keyed operation needs operator== and a hash; specialise tidemill::Hash for it");
  return Batch<typename Policy::Out>{std::make_shared<const CogroupNode<Policy, First, Others...>>(
      op, choose_partitioner<K>(op, wanted, first, others...), first, others...)};
}

template <Absent absent, class Left, class Right>
[[nodiscard]] auto join_pairs(const char* op, const Left& left, const Right& right, const Partitioning& wanted) {
  using A = typename Left::value_type;
  using B = typename Right::value_type;
  static_assert(PairLike<A> && PairLike<B>, "a join needs batches of std::pair on both sides; call key_by first");
  return cogrouped<JoinValues<pair_key_t<A>, pair_value_t<A>, pair_value_t<B>, absent>>(op, wanted, left, right);
}

template <class First, class... Others>
[[nodiscard]] auto cogroup_pairs(const Partitioning& wanted, const First& first, const Others&... others) {
  using A = typename First::value_type;
  static_assert(PairLike<A> && (PairLike<typename Others::value_type> && ...),
                "cogroup needs batches of std::pair on all sides; call key_by first");
  return cogrouped<CogroupAll<pair_key_t<A>, pair_value_t<A>, pair_value_t<typename Others::value_type>...>>(
      "cogroup", wanted, first, others...);
}

}  // namespace detail

template <class Self, class T>
template <detail::ChainLike Other>
auto BatchOps<Self, T>::join(const Other& other, Partitioning partitions) const {
  return detail::join_pairs<detail::Absent::neither>("join", self(), other, partitions);
}

template <class Self, class T>
template <detail::ChainLike Other>
auto BatchOps<Self, T>::left_outer_join(const Other& other, Partitioning partitions) const {
  return detail::join_pairs<detail::Absent::right>("left_outer_join", self(), other, partitions);
}

template <class Self, class T>
template <detail::ChainLike Other>
auto BatchOps<Self, T>::right_outer_join(const Other& other, Partitioning partitions) const {
  return detail::join_pairs<detail::Absent::left>("right_outer_join", self(), other, partitions);
}

template <class Self, class T>
template <detail::ChainLike Other>
auto BatchOps<Self, T>::full_outer_join(const Other& other, Partitioning partitions) const {
  return detail::join_pairs<detail::Absent::either>("full_outer_join", self(), other, partitions);
}

template <class Self, class T>
template <detail::ChainLike A>
auto BatchOps<Self, T>::cogroup(const A& a, Partitioning partitions) const {
  return detail::cogroup_pairs(partitions, self(), a);
}

template <class Self, class T>
template <detail::ChainLike A, detail::ChainLike B>
auto BatchOps<Self, T>::cogroup(const A& a, const B& b, Partitioning partitions) const {
  return detail::cogroup_pairs(partitions, self(), a, b);
}

template <class Self, class T>
template <detail::ChainLike A, detail::ChainLike B, detail::ChainLike C>
auto BatchOps<Self, T>::cogroup(const A& a, const B& b, const C& c, Partitioning partitions) const {
  return detail::cogroup_pairs(partitions, self(), a, b, c);
}

template <class Self, class T>
template <detail::ChainLike Other>
auto BatchOps<Self, T>::subtract_by_key(const Other& other, Partitioning partitions) const {
  static_assert(detail::PairLike<T> && detail::PairLike<typename Other::value_type>,
                "subtract_by_key needs batches of std::pair on both sides; call key_by first");
  return detail::cogrouped<detail::SubtractKeys<detail::pair_key_t<T>, detail::pair_value_t<T>>>(
      "subtract_by_key", partitions, self(), detail::only_keys(other, detail::Nothing{}));
}

}  // namespace tidemill
