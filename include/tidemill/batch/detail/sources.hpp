// The simplest nodes: records that are there already, and partitions handed to a user function whole.
#pragma once

#include <algorithm>
#include <cstddef>
#include <ranges>
#include <span>
#include <utility>
#include <vector>

#include "tidemill/batch/detail/chain.hpp"

namespace tidemill::detail {

/// `total` records cut into `parts` slices whose sizes differ by one at most: where slice i begins.
[[nodiscard]] constexpr std::size_t slice_begin(std::size_t total, std::size_t parts, std::size_t i) noexcept {
  return total / parts * i + std::min(i, total % parts);
}

/// A vector in slices.
template <class T>
class VectorNode final : public BatchNode<T> {
 public:
  VectorNode(std::shared_ptr<const Scope> scope, std::vector<T> records, std::size_t partitions)
      : BatchNode<T>{std::move(scope)},
        records_{std::move(records)},
        partitions_{std::clamp<std::size_t>(records_.size(), 1, partitions)} {}
  [[nodiscard]] std::size_t partitions() const override { return partitions_; }
  void prepare() const override {}
  [[nodiscard]] std::size_t size_hint() const override { return records_.size(); }
  [[nodiscard]] std::optional<std::span<const T>> stored(std::size_t p) const override {
    const std::size_t begin = slice_begin(records_.size(), partitions_, p);
    return std::span{records_}.subspan(begin, slice_begin(records_.size(), partitions_, p + 1) - begin);
  }
  void run(std::size_t partition, ChunkSink<T> sink) const override {
    if (const auto slice = *stored(partition); !slice.empty()) sink(slice);
  }

 private:
  std::vector<T> records_;
  std::size_t partitions_;
};

/// Each partition as the user's function turns it into a range. Kept, because the function sees it whole anyway and
/// what it returns may look at it.
template <ChainLike Chain, class F>
class MapPartitionsNode final
    : public PreparedNode<std::ranges::range_value_t<
          std::invoke_result_t<const F&, std::size_t, std::span<const typename Chain::value_type>>>> {
  using T = typename Chain::value_type;

 public:
  using Range = std::invoke_result_t<const F&, std::size_t, std::span<const T>>;
  using Out = std::ranges::range_value_t<Range>;

  MapPartitionsNode(Chain chain, F f, bool keeps_partitioner)
      : PreparedNode<Out>{chain.node().scope()},
        f_{std::move(f)},
        chain_{std::move(chain)},
        keeps_partitioner_{keeps_partitioner} {}
  [[nodiscard]] std::size_t partitions() const override { return chain_.node().partitions(); }
  [[nodiscard]] std::size_t size_hint() const override { return chain_.node().size_hint(); }
  [[nodiscard]] PartitionerRef partitioner() const override {
    return keeps_partitioner_ ? partitioner_of(chain_) : nullptr;
  }

 protected:
  void build(std::vector<std::vector<Out>>& parts, std::vector<Arena>& arenas) const override {
    chain_.node().prepare();
    for_each_partition_of(*this->scope(), partitions(), size_hint(), [&](std::size_t p) {
      std::vector<T> records;
      std::optional<std::span<const T>> stored;
      if constexpr (is_plain<Chain>) stored = chain_.node().stored(p);
      if (!stored) {
        collect_partition(chain_, p, records, arenas[p]);
        stored = records;
      }
      auto&& range = call_user("map_partitions", f_, p, *stored);
      emit_range(std::forward<decltype(range)>(range), [&](auto&& record) {
        // A view may look into `records`, which go away: copy what it looks at.
        parts[p].push_back(tidemill::rehome(std::forward<decltype(record)>(record), arenas[p]));
      });
    });
  }

 private:
  F f_;
  Chain chain_;
  bool keeps_partitioner_;
};

}  // namespace tidemill::detail
