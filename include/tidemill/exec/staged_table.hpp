// The hash table of keyed work: built for folding a long run of (key, value) pairs into one accumulator per key. Pairs
// are first *staged*: hashed, and the cache line where each will go is asked for; when the stage is full they are
// probed one after the other, by which time the lines have arrived. So the cost of a pair does not grow with the
// latency of memory.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#include "tidemill/core/config.hpp"
#include "tidemill/core/hash.hpp"
#include "tidemill/core/ownership.hpp"
#include "tidemill/exec/detail/short_key.hpp"

namespace tidemill::detail {

/// Folds (key, value) pairs into one `Acc` per key.
///
/// `Fold` says how: `Acc create(Value&&)` makes the accumulator of a new key, `void merge(Acc&, Value&&)` adds to an
/// old one. The values of a key are folded in the order in which they came.
///
/// Layout:  open addressing, linear probing, at most half full; a slot is a 32-bit tag (part of the hash, 0 = free),
///          the key and the accumulator, side by side.
/// Order:   entries are visited by slot: deterministic for the same pairs in the same order, otherwise without meaning.
/// Errors:  std::bad_alloc and whatever Fold throws. The table is then destructible, and good for nothing else.
/// Threads: one at a time.
template <class K, class Value, class Acc, class Fold>
class StagedTable {
  using Form = KeyForm<K>;
  using Stored = typename Form::Stored;
  static constexpr std::size_t stage_size = 64;
  static constexpr bool staged = Form::staged && std::is_nothrow_move_constructible_v<Value> && sizeof(Value) <= 64;

 public:
  explicit StagedTable(Fold fold) : fold_{std::move(fold)} {}
  StagedTable(StagedTable&& other) noexcept
      : fold_{std::move(other.fold_)},
        slots_{std::move(other.slots_)},
        mask_{std::exchange(other.mask_, 0)},
        size_{std::exchange(other.size_, 0)},
        limit_{std::exchange(other.limit_, 0)},
        arena_{std::move(other.arena_)} {}  // only flushed tables move, so the stage is empty
  StagedTable& operator=(StagedTable&&) = delete;
  ~StagedTable() {
    clear_stage();
    destroy_slots();
  }

  /// Adds a pair. `stable` promises that what the key looks at outlives the next `flush`.
  template <bool stable, class KeyLike>
  TIDEMILL_INLINE void add(KeyLike&& key, Value&& value) {
    if constexpr (staged) {
      Stored stored = Form::stage(std::forward<KeyLike>(key));
      const std::uint64_t hash = Form::hash(stored);
      if constexpr (!stable) {
        if (Form::is_far(stored)) [[unlikely]] {  // it looks at a temporary: it cannot wait
          flush();
          fold_in(tag_of_hash(hash), std::move(stored), std::move(value));
          return;
        }
      }
      const std::uint32_t tag = tag_of_hash(hash);
      if (limit_ != 0) __builtin_prefetch(&slots_[tag & mask_], 1);
      ::new (static_cast<void*>(stage_.at(staged_))) Waiting{tag, std::move(stored), std::move(value)};
      if (++staged_ == stage_size) flush();
    } else {
      Stored stored = Form::stage(std::forward<KeyLike>(key));
      const std::uint32_t tag = tag_of_hash(Form::hash(stored));
      fold_in(tag, std::move(stored), std::move(value));
    }
  }

  /// Empties the stage into the table. Must be called after the last `add`.
  TIDEMILL_NOINLINE void flush() {
    const std::size_t count = staged_;
    for (std::size_t i = 0; i < count; ++i) {
      Waiting& waiting = *stage_.at(i);
      fold_in(waiting.tag, std::move(waiting.key), std::move(waiting.value));
    }
    clear_stage();
  }

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] Arena& arena() noexcept { return arena_; }

  /// Calls `see(slot, tag, key)` for every entry, by slot number.
  template <class See>
  void for_each_slot(See&& see) const {
    if (limit_ == 0) return;
    for (std::size_t i = 0; i <= mask_; ++i) {
      if (slots_[i].tag != 0) see(static_cast<std::uint32_t>(i), slots_[i].tag, slots_[i].entry.key);
    }
  }

  /// Gives away the entry in `slot`: `take(Stored&&, Acc&&)`. The slot stays occupied by what a move leaves behind.
  /// Threads: several threads may take from different slots.
  template <class Take>
  void take(std::uint32_t slot, Take&& take_entry) {
    take_entry(std::move(slots_[slot].entry.key), std::move(slots_[slot].entry.acc));
  }

  /// Takes the entries of `other` in these slots: `merge(Acc& mine, Acc&& theirs)` where the key is here already.
  template <class Merge>
  void absorb(StagedTable& other, std::span<const std::uint32_t> slots, Merge&& merge) {
    for (const std::uint32_t s : slots) {
      const std::uint32_t tag = other.slots_[s].tag;
      other.take(s, [&](Stored&& key, Acc&& acc) {
        Slot& slot = find(tag, key);
        if (slot.tag == 0) {
          claim(slot, tag, std::move(key), [&]() -> Acc { return std::move(acc); });
        } else {
          merge(slot.entry.acc, std::move(acc));
        }
      });
    }
  }

  /// Takes the entries of a table with other accumulators: `enter(Acc& mine, OtherAcc&& theirs)`, where the accumulator
  /// of a new key is what `start()` makes. The keys of both are stored alike.
  template <class Other, class Start, class Enter>
  void absorb_other(Other& other, std::span<const std::uint32_t> slots, Start&& start, Enter&& enter) {
    for (const std::uint32_t s : slots) {
      const std::uint32_t tag = other.tag_of(s);
      other.take(s, [&](Stored&& key, auto&& theirs) {
        Slot& slot = find(tag, key);
        if (slot.tag == 0) claim(slot, tag, std::move(key), start);
        enter(slot.entry.acc, std::move(theirs));
      });
    }
  }
  /// Pre: the slot is taken.
  [[nodiscard]] std::uint32_t tag_of(std::uint32_t slot) const noexcept { return slots_[slot].tag; }

  /// The entry of `key`, or null.
  [[nodiscard]] const Acc* lookup(const K& key) {
    if (limit_ == 0) return nullptr;
    const Stored stored = Form::stage(key);
    const Slot& slot = find(tag_of_hash(Form::hash(stored)), stored);
    return slot.tag == 0 ? nullptr : &slot.entry.acc;
  }

 private:
  struct Entry {
    Stored key;
    Acc acc;
  };
  struct Slot {
    Slot() noexcept {}  // NOLINT(modernize-use-equals-default): the entry starts unborn
    ~Slot() {}          // NOLINT(modernize-use-equals-default): destroy_slots ends those that live
    std::uint32_t tag = 0;
    union {
      Entry entry;  // alive when tag != 0
    };
  };
  struct Waiting {
    std::uint32_t tag;
    Stored key;
    Value value;
  };
  // Room for Waiting objects that are constructed one by one; nothing at all when pairs do not wait.
  struct Stage {
    alignas(Waiting) std::byte room[staged ? stage_size * sizeof(Waiting) : 1];
    Waiting* at(std::size_t i) noexcept { return std::launder(reinterpret_cast<Waiting*>(room)) + i; }
  };

  TIDEMILL_INLINE void fold_in(std::uint32_t tag, Stored&& key, Value&& value) {
    Slot& slot = find(tag, key);
    if (slot.tag == 0) [[unlikely]] {
      claim(slot, tag, std::move(key), [&]() -> Acc { return fold_.create(std::move(value)); });
    } else {
      fold_.merge(slot.entry.acc, std::move(value));
    }
  }

  // The slot of the key, or the free one where it would go. Makes room first, so that the result stays good for
  // `claim`.
  TIDEMILL_INLINE Slot& find(std::uint32_t tag, const Stored& key) {
    if (size_ >= limit_) [[unlikely]]
      grow();
    std::size_t i = tag & mask_;
    while (true) {
      Slot& slot = slots_[i];
      if (slot.tag == tag) [[likely]] {
        if (Form::equal(slot.entry.key, key)) [[likely]]
          return slot;
      } else if (slot.tag == 0) {
        return slot;
      }
      i = (i + 1) & mask_;
    }
  }

  template <class Make>
  TIDEMILL_NOINLINE void claim(Slot& slot, std::uint32_t tag, Stored&& key, Make&& make) {
    ::new (static_cast<void*>(std::addressof(slot.entry))) Entry{Form::settle(std::move(key), arena_), make()};
    slot.tag = tag;
    ++size_;
  }

  TIDEMILL_NOINLINE void grow() {
    const std::size_t capacity = limit_ == 0 ? 16 : (mask_ + 1) * (mask_ < 4096 ? 4 : 2);
    const std::size_t old_capacity = limit_ == 0 ? 0 : mask_ + 1;
    auto larger = std::make_unique<Slot[]>(capacity);
    const std::size_t mask = capacity - 1;
    for (std::size_t s = 0; s < old_capacity; ++s) {
      Slot& old = slots_[s];
      if (old.tag == 0) continue;
      std::size_t i = old.tag & mask;
      while (larger[i].tag != 0) i = (i + 1) & mask;
      ::new (static_cast<void*>(std::addressof(larger[i].entry))) Entry{std::move(old.entry)};
      larger[i].tag = old.tag;
      old.entry.~Entry();
      old.tag = 0;
    }
    slots_ = std::move(larger);
    mask_ = mask;
    limit_ = capacity / 2;
  }

  void clear_stage() noexcept {
    if constexpr (!std::is_trivially_destructible_v<Waiting>) {
      for (std::size_t i = 0; i < staged_; ++i) stage_.at(i)->~Waiting();
    }
    staged_ = 0;
  }

  void destroy_slots() noexcept {
    if constexpr (!std::is_trivially_destructible_v<Entry>) {
      if (limit_ == 0) return;
      for (std::size_t i = 0; i <= mask_; ++i) {
        if (slots_[i].tag != 0) slots_[i].entry.~Entry();
      }
    }
  }

  [[no_unique_address]] Fold fold_;
  std::unique_ptr<Slot[]> slots_;
  std::size_t mask_ = 0;  // capacity - 1
  std::size_t size_ = 0;
  std::size_t limit_ = 0;  // size at which the table grows; 0 before the first entry
  std::size_t staged_ = 0;
  Arena arena_;  // what keys and borrowing accumulators look at
  Stage stage_;
};

}  // namespace tidemill::detail
