// The keys of a window, each with a cell of what is known about it. Keys come and go as batches do, and results list them in
// an order that depends on nothing but the keys, so that a run that was interrupted gives what an uninterrupted one would.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tidemill/core/codec.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/core/hash.hpp"
#include "tidemill/core/ownership.hpp"

namespace tidemill::detail {

/// The number of a key in its table: stays the same until the key is released, then goes to another key.
using KeyId = std::uint32_t;

/// Layout:  cells lie side by side and are found through an index of (tag, id), open addressing with linear probing, at most
///          half full. Who holds an id needs no hash.
/// Order:   `for_each` visits keys by hash, and keys with equal hashes by their encoded bytes. It is kept from visit to visit:
///          only keys that are new since the last one are sorted.
/// Errors:  std::bad_alloc and what copying, hashing and comparing a key throws; nothing has changed then.
/// Threads: one at a time.
template <class K, class Cell>
class WindowKeys {
 public:
  /// The id of the key, which is added with an empty cell when it is not there. `key` may be a view where K owns.
  template <class KeyLike>
  [[nodiscard]] KeyId intern(const KeyLike& key) {
    if constexpr (requires(const K& mine) {
                    { mine == key } -> std::convertible_to<bool>;
                  }) {
      return find_or_add(key);
    } else {
      return find_or_add(to_owned(key));
    }
  }

  [[nodiscard]] Cell& operator[](KeyId id) noexcept { return slots_[id].cell; }
  [[nodiscard]] const Cell& operator[](KeyId id) const noexcept { return slots_[id].cell; }
  [[nodiscard]] const K& key(KeyId id) const noexcept { return *slots_[id].key; }
  [[nodiscard]] std::uint32_t tag(KeyId id) const noexcept { return tag_of_hash(slots_[id].hash); }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  /// Takes the key out, and empties its cell.
  void release(KeyId id) noexcept {
    Slot& slot = slots_[id];
    std::size_t hole = home(tag_of_hash(slot.hash));
    while (index_[hole].id != id || index_[hole].tag == 0) hole = (hole + 1) & mask_;
    // Entries behind the hole move up, unless that would put one before its home.
    for (std::size_t i = (hole + 1) & mask_; index_[i].tag != 0; i = (i + 1) & mask_) {
      if (((i - home(index_[i].tag)) & mask_) >= ((i - hole) & mask_)) {
        index_[hole] = index_[i];
        hole = i;
      }
    }
    index_[hole] = {};
    slot.key.reset();
    slot.cell = Cell{};
    released_.push_back(id);  // has room: see add
    --size_;
  }

  /// Calls `see(id, key, cell)` for all keys in order.
  template <class See>
  void for_each(See&& see) {
    bring_into_order();
    for (const KeyId id : order_) see(id, std::as_const(*slots_[id].key), slots_[id].cell);
  }

 private:
  struct Slot {
    std::uint64_t hash = 0;
    std::optional<K> key;  // none: released
    Cell cell{};
  };
  struct Place {
    std::uint32_t tag = 0;  // 0: free
    KeyId id = 0;
  };

  [[nodiscard]] std::size_t home(std::uint32_t tag) const noexcept { return tag & mask_; }

  template <class KeyLike>
  KeyId find_or_add(const KeyLike& key) {
    const std::uint64_t hash = hash_of(key);
    const std::uint32_t tag = tag_of_hash(hash);
    if (!index_.empty()) {
      for (std::size_t i = home(tag); index_[i].tag != 0; i = (i + 1) & mask_) {
        if (index_[i].tag == tag && *slots_[index_[i].id].key == key) return index_[i].id;
      }
    }
    return add(hash, tag, K(to_owned(key)));
  }

  KeyId add(std::uint64_t hash, std::uint32_t tag, K&& key) {
    if (2 * (size_ + 1) > index_.size()) grow();
    fresh_.push_back(0);  // room first, so that nothing can fail half way
    KeyId id = 0;
    try {
      if (free_.empty()) {
        TIDEMILL_ASSERT(slots_.size() < std::numeric_limits<KeyId>::max(), "a partition has fewer than 2^32 keys");
        if (released_.capacity() <= slots_.size()) released_.reserve(2 * slots_.size() + 16);
        slots_.emplace_back();
        id = static_cast<KeyId>(slots_.size() - 1);
        free_.reserve(slots_.capacity());
      } else {
        id = free_.back();
        free_.pop_back();
      }
      slots_[id].key.emplace(std::move(key));
    } catch (...) {
      fresh_.pop_back();
      throw;
    }
    fresh_.back() = id;
    slots_[id].hash = hash;
    std::size_t i = home(tag);
    while (index_[i].tag != 0) i = (i + 1) & mask_;
    index_[i] = {tag, id};
    ++size_;
    return id;
  }

  void grow() {
    std::vector<Place> larger(index_.empty() ? 16 : 2 * index_.size());
    const std::size_t mask = larger.size() - 1;
    for (const Place& place : index_) {
      if (place.tag == 0) continue;
      std::size_t i = place.tag & mask;
      while (larger[i].tag != 0) i = (i + 1) & mask;
      larger[i] = place;
    }
    index_.swap(larger);
    mask_ = mask;
  }

  [[nodiscard]] bool before(KeyId a, KeyId b) const {
    if (slots_[a].hash != slots_[b].hash) return slots_[a].hash < slots_[b].hash;
    if constexpr (Encodable<K>) return encode(*slots_[a].key) < encode(*slots_[b].key);
    return a < b;  // no run continues another when the keys cannot be kept
  }

  void bring_into_order() {
    if (fresh_.empty() && released_.empty()) return;
    const auto lives = [this](KeyId id) { return slots_[id].key.has_value(); };
    const auto in_order = [this](KeyId a, KeyId b) { return before(a, b); };
    std::vector<KeyId> old;
    std::vector<KeyId> fresh;
    std::vector<KeyId> all;
    all.reserve(size_);
    std::copy_if(order_.begin(), order_.end(), std::back_inserter(old), lives);
    std::copy_if(fresh_.begin(), fresh_.end(), std::back_inserter(fresh), lives);
    std::sort(fresh.begin(), fresh.end(), in_order);
    std::merge(old.begin(), old.end(), fresh.begin(), fresh.end(), std::back_inserter(all), in_order);
    order_.swap(all);
    fresh_.clear();
    free_.insert(free_.end(), released_.begin(), released_.end());
    released_.clear();
  }

  std::vector<Slot> slots_;
  std::vector<Place> index_;  // a power of two of them, or none
  std::size_t mask_ = 0;      // index_.size() - 1
  std::size_t size_ = 0;
  std::vector<KeyId> order_;     // keys in order, with some that have been released since
  std::vector<KeyId> fresh_;     // keys since then, likewise
  std::vector<KeyId> released_;  // ids that order_ or fresh_ may still name, so that they cannot be given away yet
  std::vector<KeyId> free_;
};

}  // namespace tidemill::detail
