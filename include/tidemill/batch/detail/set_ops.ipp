// Bodies of BatchOps: unions, sets, samples, pairing. Included by batch.hpp.
#pragma once

#include <array>
#include <span>

#include "tidemill/batch/detail/batch_ops.ipp"
#include "tidemill/batch/detail/cogroup.hpp"
#include "tidemill/batch/detail/join_ops.ipp"
#include "tidemill/batch/detail/partition_nodes.hpp"

namespace tidemill {
namespace detail {

struct KeepFirst {
  void operator()(Nothing&, Nothing&&) const noexcept {}
};

TIDEMILL_API void check_fraction(double fraction, bool with_replacement);

}  // namespace detail

template <class Self, class T>
template <detail::ChainLike Other>
Batch<T> BatchOps<Self, T>::union_with(const Other& other) const {
  static_assert(std::is_same_v<T, typename Other::value_type>,
                "union_with: both batches must have records of one type");
  std::vector<detail::NodePointer<T>> inputs{detail::handle(self()).node_pointer(),
                                             detail::handle(other).node_pointer()};
  return Batch<T>{std::make_shared<const detail::UnionNode<T>>(std::move(inputs))};
}

template <class Self, class T>
auto BatchOps<Self, T>::distinct(Partitioning partitions) const {
  static_assert(Key<T>, "distinct needs records with operator== and a hash; specialise tidemill::Hash for their type");
  const auto chain = detail::as_keys(self(), detail::Nothing{});
  return detail::combine("distinct", chain, detail::Itself{}, detail::KeepFirst{}, detail::KeepFirst{},
                         detail::choose_partitioner<T>("distinct", partitions, chain))
      .keys();
}

template <class Self, class T>
template <detail::ChainLike Other>
Batch<T> BatchOps<Self, T>::intersection(const Other& other, Partitioning partitions) const {
  static_assert(std::is_same_v<T, typename Other::value_type>,
                "intersection: both batches must have records of one type");
  static_assert(Key<T>,
                "intersection needs records with operator== and a hash; specialise tidemill::Hash for their type");
  return detail::cogrouped<detail::IntersectRecords<T>>("intersection", partitions,
                                                        detail::as_keys(self(), detail::Nothing{}),
                                                        detail::as_keys(other, detail::Nothing{}));
}

template <class Self, class T>
template <detail::ChainLike Other>
Batch<T> BatchOps<Self, T>::subtract(const Other& other, Partitioning partitions) const {
  static_assert(std::is_same_v<T, typename Other::value_type>, "subtract: both batches must have records of one type");
  static_assert(Key<T>, "subtract needs records with operator== and a hash; specialise tidemill::Hash for their type");
  return detail::cogrouped<detail::SubtractRecords<T>>(
      "subtract", partitions, detail::as_keys(self(), detail::Nothing{}), detail::as_keys(other, detail::Nothing{}));
}

template <class Self, class T>
Batch<T> BatchOps<Self, T>::sample(Replacement replacement, double fraction, std::uint64_t seed) const {
  const bool with_replacement = replacement == Replacement::with;
  detail::check_fraction(fraction, with_replacement);
  return Batch<T>{std::make_shared<const detail::SampleNode<T>>(detail::handle(self()).node_pointer(), with_replacement,
                                                                fraction, seed)};
}

template <class Self, class T>
template <detail::ChainLike Other>
auto BatchOps<Self, T>::cartesian(const Other& other) const {
  using U = typename Other::value_type;
  static_assert(std::copy_constructible<T> && std::copy_constructible<U>,
                "cartesian repeats records, so they must be copyable");
  return Batch<std::pair<T, U>>{std::make_shared<const detail::CartesianNode<T, U>>(
      detail::handle(self()).node_pointer(), detail::handle(other).node_pointer())};
}

template <class Self, class T>
template <detail::ChainLike Other>
auto BatchOps<Self, T>::zip(const Other& other) const {
  return Batch<std::pair<T, typename Other::value_type>>{
      std::make_shared<const detail::ZipNode<Self, Other>>(self(), other)};
}

template <class Self, class T>
auto BatchOps<Self, T>::zip_with_index() const {
  return Batch<std::pair<T, std::size_t>>{std::make_shared<const detail::ZipWithIndexNode<Self>>(self())};
}

template <class Self, class T>
auto BatchOps<Self, T>::glom() const {
  static_assert(std::copy_constructible<T>, "glom: the records must be copyable");
  return map_partitions([](std::span<const T> records) {
    return std::array<std::vector<T>, 1>{std::vector<T>(records.begin(), records.end())};
  });
}

}  // namespace tidemill
