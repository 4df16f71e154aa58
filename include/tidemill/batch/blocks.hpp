// A batch over records that came in several vectors, as receivers hand them over.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "tidemill/batch/batch.hpp"

namespace tidemill::detail {

/// The records of `blocks` in order, in partitions of nearly equal size that are worth a task each.
template <class T>
class BlocksNode final : public BatchNode<T> {
 public:
  BlocksNode(std::shared_ptr<const Scope> scope, std::vector<std::vector<T>> blocks)
      : BatchNode<T>{std::move(scope)}, blocks_{std::move(blocks)} {
    for (const std::vector<T>& block : blocks_) records_ += block.size();
    const std::size_t workers = this->scope()->runtime->executor->parallelism();
    partitions_ = std::clamp<std::size_t>(records_ / inline_records, 1, workers);
  }
  [[nodiscard]] std::size_t partitions() const override { return partitions_; }
  void prepare() const override {}
  [[nodiscard]] std::size_t size_hint() const override { return records_; }

  [[nodiscard]] std::optional<std::span<const T>> stored(std::size_t) const override {
    if (blocks_.empty()) return std::span<const T>{};
    if (blocks_.size() == 1 && partitions_ == 1) return std::span<const T>{blocks_.front()};
    return std::nullopt;
  }

  void run(std::size_t partition, ChunkSink<T> sink) const override {
    std::size_t skip = slice_begin(records_, partitions_, partition);
    std::size_t left = slice_begin(records_, partitions_, partition + 1) - skip;
    for (const std::vector<T>& block : blocks_) {
      if (left == 0) return;
      if (skip >= block.size()) {
        skip -= block.size();
        continue;
      }
      const std::size_t size = std::min(left, block.size() - skip);
      if (!sink(std::span<const T>{block}.subspan(skip, size))) return;
      skip = 0;
      left -= size;
    }
  }

 private:
  std::vector<std::vector<T>> blocks_;
  std::size_t records_ = 0;
  std::size_t partitions_ = 1;
};

}  // namespace tidemill::detail
