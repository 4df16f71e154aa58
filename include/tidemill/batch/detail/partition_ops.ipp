// Bodies of BatchOps: where records lie, and how long. Included by batch.hpp.
#pragma once

#include "tidemill/batch/detail/batch_ops.ipp"
#include "tidemill/batch/detail/join_ops.ipp"
#include "tidemill/batch/detail/partition_nodes.hpp"

namespace tidemill {

template <class Self, class T>
Batch<T> BatchOps<Self, T>::partition_by(Partitioning partitions) const {
  static_assert(detail::PairLike<T>, "partition_by needs a batch of std::pair; call key_by first");
  using K = detail::pair_key_t<T>;
  auto partitioner = detail::choose_partitioner<K>("partition_by", partitions, self());
  if (const PartitionerRef before = detail::partitioner_of(self()); before && before->equals(*partitioner)) {
    return Batch<T>{self()};
  }
  using Plan = detail::ByKey<K>;
  return Batch<T>{std::make_shared<const detail::ExchangeNode<Self, Plan>>(
      self(), Plan{detail::KeyAssignment<K>{"partition_by", std::move(partitioner)}})};
}

template <class Self, class T>
Batch<T> BatchOps<Self, T>::repartition(std::size_t partitions) const {
  detail::check_partitions(partitions);
  using Node = detail::ExchangeNode<Self, detail::InTurn>;
  return Batch<T>{std::make_shared<const Node>(self(), detail::InTurn{partitions})};
}

template <class Self, class T>
Batch<T> BatchOps<Self, T>::coalesce(std::size_t partitions) const {
  detail::check_partitions(partitions);
  return Batch<T>{std::make_shared<const detail::CoalescedNode<T>>(detail::handle(self()).node_pointer(), partitions)};
}

template <class Self, class T>
Batch<T> BatchOps<Self, T>::persist() const {
  static_assert(std::copy_constructible<T> || !std::is_lvalue_reference_v<typename Self::reference>,
                "persist keeps copies of records, and these cannot be copied");
  return Batch<T>{std::make_shared<const detail::PersistedNode<Self>>(self())};
}

template <class Self, class T>
Batch<T> BatchOps<Self, T>::named(std::string name) const {
  return Batch<T>{std::make_shared<const detail::NamedNode<T>>(detail::handle(self()).node_pointer(), std::move(name))};
}

}  // namespace tidemill
