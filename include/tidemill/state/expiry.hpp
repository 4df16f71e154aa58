// When the keys of a table fall due, without looking at those that do not.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "tidemill/core/time.hpp"
#include "tidemill/state/detail/tag_index.hpp"

namespace tidemill::detail {

/// One timer a key, in the bucket of the time at which the key was last known to be touched. A key that is touched again keeps
/// its timer where it is; when its bucket falls due, it moves to the bucket of its last touch. So a touch costs nothing, and a
/// key is looked at once in every idle time that it lives.
///
/// A key that is removed leaves its timer behind: it is dropped when it falls due, and known by the generation of its slot.
/// Cost:    a timer takes 8 bytes; moving one, a search among the distinct times of the buckets.
/// Errors:  std::bad_alloc from `add` and `prepare`, which then have changed nothing that counts; `commit` throws nothing.
/// Threads: as a standard container.
class ExpiryQueue {
 public:
  struct Timer {
    Slot slot;
    std::uint8_t generation;
  };

  /// Calls `see(timer)` for all in buckets before `limit`.
  template <class See>
  void for_each_due(Time limit, See&& see) const {
    for (const auto& [touched, bucket] : buckets_) {
      if (touched >= limit) return;
      for (const Timer& timer : bucket) see(timer);
    }
  }
  [[nodiscard]] std::size_t count_due(Time limit) const noexcept {
    std::size_t count = 0;
    for (auto bucket = buckets_.begin(); bucket != buckets_.end() && bucket->first < limit; ++bucket) {
      count += bucket->second.size();
    }
    return count;
  }

  /// Sets a timer when the batch is committed.
  void add(Time touched, Timer timer) { added_[touched].push_back(timer); }

  void prepare() {
    for (const auto& [touched, timers] : added_) {
      const auto bucket = buckets_.find(touched);
      if (bucket == buckets_.end()) continue;
      auto& there = bucket->second;
      if (there.capacity() - there.size() < timers.size()) {
        there.reserve(std::max(there.size() + timers.size(), 2 * there.capacity()));
      }
    }
  }
  /// Drops the buckets before `limit`. Pre: `prepare` was called after the last `add`.
  void commit(Time limit) noexcept {
    buckets_.erase(buckets_.begin(), buckets_.lower_bound(limit));
    while (!added_.empty()) {
      auto node = added_.extract(added_.begin());
      const auto bucket = buckets_.find(node.key());
      if (bucket == buckets_.end()) {
        buckets_.insert(std::move(node));
      } else {
        bucket->second.insert(bucket->second.end(), node.mapped().begin(), node.mapped().end());
      }
    }
  }
  void roll_back() noexcept { added_.clear(); }

  [[nodiscard]] std::size_t size() const noexcept {
    std::size_t size = 0;
    for (const auto& [touched, bucket] : buckets_) size += bucket.size();
    return size;
  }
  [[nodiscard]] std::size_t allocated_bytes() const noexcept {
    std::size_t bytes = 0;
    for (const auto& [touched, bucket] : buckets_) bytes += bucket.capacity() * sizeof(Timer) + 80;
    return bytes;
  }

 private:
  using Buckets = std::map<Time, std::vector<Timer>>;
  Buckets buckets_;
  Buckets added_;  // by the batch that runs; nothing in here is before its limit
};

}  // namespace tidemill::detail
