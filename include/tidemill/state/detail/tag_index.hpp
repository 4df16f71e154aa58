// The index of a table of state: from the tag of a key (core/hash.hpp) to the number of its slot.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "tidemill/core/config.hpp"

namespace tidemill::detail {

/// The place of an entry in a table.
using Slot = std::uint32_t;
inline constexpr Slot no_slot = 0xffffffff;

/// Open addressing with linear probing over cells of eight bytes: a 32-bit *rank* made from the tag, and a slot.
///
/// Invariant TI1: the cells that are not empty ascend by rank, and those of one rank as their owner ordered them. So a search
///                stops at the first cell that is greater, whether it finds something or not; growing is one pass over both
///                arrays; and going through the cells visits keys in an order that depends on nothing but the keys.
/// Invariant TI2: a cell stands at its home, which is in proportion to its rank, or after it with no empty cell between.
/// Invariant TI3: the last cell is empty, so no search needs to look where the array ends.
/// Memory: an entry takes 10 to 12.5 bytes; below some fifty thousand entries 12 to 15, below three thousand up to 24.
/// Errors: std::bad_alloc from `insert` and `build`, which then have changed nothing.
/// Threads: as a standard container.
class TagIndex {
 public:
  TagIndex() = default;
  TagIndex(TagIndex&& other) noexcept { swap(other); }
  TagIndex& operator=(TagIndex&& other) noexcept {
    swap(other);
    return *this;
  }

  /// Keys of one partition share the leading bits of their tag; a rank is as good as even. One to one.
  [[nodiscard]] TIDEMILL_INLINE static constexpr std::uint32_t rank_of(std::uint32_t tag) noexcept {
    return tag * 0x9e3779b1u;
  }

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t allocated_bytes() const noexcept { return owned_ ? (count_ + window) * sizeof(Cell) : 0; }

  TIDEMILL_INLINE void prefetch(std::uint32_t rank) const noexcept {
    const Cell* const cell = cells_ + home(rank);
    __builtin_prefetch(cell);
    __builtin_prefetch(cell + reach_);
  }

  /// The first slot of this rank, or no_slot.
  [[nodiscard]] TIDEMILL_INLINE Slot first(std::uint32_t rank) const noexcept {
#if defined(__SSE2__)
    // Most are among the first cells after their home: found without a branch that depends on where.
    const Cell* const cells = cells_ + home(rank);
    const __m128i wanted = _mm_set1_epi32(static_cast<int>(rank));
    const __m128i near = _mm_cmpeq_epi32(ranks_of_four(cells), wanted);
    if (reach_ < few) {
      if (const auto mask = static_cast<unsigned>(_mm_movemask_ps(_mm_castsi128_ps(near))); mask != 0) [[likely]]
        return slot_in(cells[std::countr_zero(mask)]);
    }
    const __m128i same = _mm_packs_epi32(near, _mm_cmpeq_epi32(ranks_of_four(cells + 4), wanted));
    if (const auto mask = static_cast<unsigned>(_mm_movemask_epi8(same)); mask != 0) [[likely]]
      return slot_in(cells[std::countr_zero(mask) / 2]);
#endif
    const Cell cell = *lower_bound(rank);
    return rank_in(cell) == rank ? slot_in(cell) : no_slot;  // an empty cell holds no_slot
  }
  /// The slot of this rank for which `is_it(slot)` holds, or no_slot.
  template <class IsIt>
  [[nodiscard]] TIDEMILL_INLINE Slot find(std::uint32_t rank, IsIt&& is_it) const {
    for (const Cell* cell = lower_bound(rank); rank_in(*cell) == rank && *cell != empty; ++cell) {
      if (is_it(slot_in(*cell))) [[likely]]
        return slot_in(*cell);
    }
    return no_slot;
  }

  /// Among those of the same rank, the slot goes after the ones for which `is_before(slot)` holds.
  template <class IsBefore>
  void insert(std::uint32_t rank, Slot slot, IsBefore&& is_before) {
    if (size_ >= limit_) grow();
    while (true) {
      Cell* const at = const_cast<Cell*>(position(rank, is_before));
      Cell* end = at;
      while (*end != empty) ++end;
      if (end != cells_ + count_ - 1) {  // TI3
        std::memmove(at + 1, at, static_cast<std::size_t>(end - at) * sizeof(Cell));
        *at = cell(rank, slot);
        ++size_;
        return;
      }
      rebuild(cells(), capacity_, 2 * (count_ - capacity_));  // the last cluster needs more room
    }
  }

  /// A rank and a slot.
  using Cell = std::uint64_t;
  [[nodiscard]] static Cell cell(std::uint32_t rank, Slot slot) noexcept {
    return static_cast<Cell>(rank) << 32 | slot;
  }
  [[nodiscard]] static std::uint32_t rank_in(Cell cell) noexcept { return static_cast<std::uint32_t>(cell >> 32); }
  [[nodiscard]] static Slot slot_in(Cell cell) noexcept { return static_cast<Slot>(cell); }

  /// Puts in many at once, faster than one after the other. `order(cells)` puts two or more cells of one rank in the order of
  /// their owner. Pre: the index is empty. Errors: also what `order` throws.
  template <class Order>
  void build(std::vector<Cell> cells, Order&& order) {
    sort_by_rank(cells);
    for (auto first = cells.begin(); first != cells.end();) {
      const auto end =
          std::find_if(first + 1, cells.end(), [&](Cell cell) { return rank_in(cell) != rank_in(*first); });
      if (end - first > 1) order(std::span{first, end});
      first = end;
    }
    std::size_t homes = std::max(cells.size() + cells.size() / 4, smallest);
    while (most_in(homes) < cells.size()) homes += homes / 8;
    rebuild(cells, homes, smallest);
    size_ = cells.size();
  }

  /// Pre: the slot is there.
  void erase(std::uint32_t rank, Slot slot) noexcept {
    const Cell wanted = cell(rank, slot);
    Cell* at = const_cast<Cell*>(lower_bound(rank));
    while (*at != wanted) ++at;
    // What follows moves up until something is at home. [TI2]
    for (; at[1] != empty && home(rank_in(at[1])) <= static_cast<std::size_t>(at - cells_); ++at) *at = at[1];
    *at = empty;
    --size_;
  }

  /// Calls `see(slot)` for all, by rank.
  template <class See>
  void for_each(See&& see) const {
    for (std::size_t i = 0; i < count_; ++i) {
      if (cells_[i] != empty) see(slot_in(cells_[i]));
    }
  }

 private:
  static constexpr Cell empty = ~Cell{0};
  static constexpr std::size_t window = 8;  // cells that are looked at together; as many lie behind the last one, empty
  static constexpr std::size_t few = 4;     // as many suffice while an index is sparse
  static constexpr Cell no_cells[1 + window] = {empty, empty, empty, empty, empty, empty, empty, empty, empty};
  static constexpr std::size_t smallest = 16;

#if defined(__SSE2__)
  [[nodiscard]] TIDEMILL_INLINE static __m128i ranks_of_four(const Cell* cells) noexcept {
    const auto two = [&](std::size_t i) {
      return _mm_castsi128_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(cells + i)));
    };
    return _mm_castps_si128(_mm_shuffle_ps(two(0), two(2), _MM_SHUFFLE(3, 1, 3, 1)));
  }
#endif
  [[nodiscard]] std::span<const Cell> cells() const noexcept { return {cells_, count_}; }
  [[nodiscard]] TIDEMILL_INLINE std::size_t home(std::uint32_t rank) const noexcept {
    return static_cast<std::size_t>((std::uint64_t{rank} * capacity_) >> 32);
  }
  // The first cell at or after its home that is not less than the rank. Several cells are compared at a time, since a branch
  // for each would be guessed wrong for most keys.
  [[nodiscard]] TIDEMILL_INLINE const Cell* lower_bound(std::uint32_t rank) const noexcept {
    const Cell wanted = static_cast<Cell>(rank) << 32;
    const Cell* cell = cells_ + home(rank);
    while (true) {
      std::size_t less = 0;  // those that are less come first [TI1]
      for (std::size_t i = 0; i < window; ++i) less += cell[i] < wanted;
      cell += less;
      if (less != window) [[likely]]
        return cell;
    }
  }
  template <class IsBefore>
  [[nodiscard]] const Cell* position(std::uint32_t rank, IsBefore&& is_before) const {
    const Cell* cell = lower_bound(rank);
    while (rank_in(*cell) == rank && *cell != empty && is_before(slot_in(*cell))) ++cell;
    return cell;
  }

  // An index that stays in the cache is sparser: there a search that goes beyond the first cells costs more than their memory.
  [[nodiscard]] static constexpr bool is_sparse(std::size_t homes) noexcept { return homes < 65536; }
  [[nodiscard]] static constexpr std::size_t most_in(std::size_t homes) noexcept {
    return is_sparse(homes) ? homes / 3 * 2 : homes / 5 * 4;
  }
  void grow() {
    const std::size_t larger = capacity_ + (capacity_ < 4096 ? capacity_ : capacity_ / 4);
    rebuild(cells(), std::max(larger, smallest), std::max<std::size_t>(count_ - capacity_, smallest));
  }
  // `from`: cells that ascend, and empty ones.
  void rebuild(std::span<const Cell> from, std::size_t capacity, std::size_t room_behind) {
    while (true) {
      const std::size_t count = capacity + room_behind;
      auto cells = std::make_unique_for_overwrite<Cell[]>(count + window);
      std::memset(cells.get(), 0xff, (count + window) * sizeof(Cell));
      if (fill(from, cells.get(), count, capacity)) {
        owned_ = std::move(cells);
        cells_ = owned_.get();
        count_ = count;
        capacity_ = capacity;
        limit_ = most_in(capacity);
        reach_ = (is_sparse(capacity) ? few : window) - 1;
        return;
      }
      room_behind *= 2;
    }
  }
  [[nodiscard]] static bool fill(std::span<const Cell> from, Cell* cells, std::size_t count,
                                 std::size_t capacity) noexcept {
    std::size_t next = 0;
    for (const Cell cell : from) {
      if (cell == empty) continue;
      const auto at = std::max(next, static_cast<std::size_t>((std::uint64_t{rank_in(cell)} * capacity) >> 32));
      if (at + 1 >= count) return false;
      cells[at] = cell;
      next = at + 1;
    }
    return true;
  }
  // By some bits of the rank after the other, from the last; cells of one rank keep their order.
  static void sort_by_rank(std::vector<Cell>& cells) {
    constexpr unsigned bits = 8;
    constexpr unsigned passes = 4;  // an even number, so that the last one ends in `cells`
    const auto digit = [](Cell cell, unsigned pass) { return (cell >> (32 + bits * pass)) & ((1u << bits) - 1); };
    std::array<std::array<std::size_t, 1u << bits>, passes> places{};
    for (const Cell cell : cells) {
      for (unsigned pass = 0; pass < passes; ++pass) ++places[pass][digit(cell, pass)];
    }
    const auto other = std::make_unique_for_overwrite<Cell[]>(cells.size());
    Cell* from = cells.data();
    Cell* to = other.get();
    for (unsigned pass = 0; pass < passes; ++pass) {
      std::exclusive_scan(places[pass].begin(), places[pass].end(), places[pass].begin(), std::size_t{0});
      for (std::size_t i = 0; i < cells.size(); ++i) to[places[pass][digit(from[i], pass)]++] = from[i];
      std::swap(from, to);
    }
  }
  void swap(TagIndex& other) noexcept {
    std::swap(owned_, other.owned_);
    std::swap(cells_, other.cells_);
    std::swap(count_, other.count_);
    std::swap(capacity_, other.capacity_);
    std::swap(limit_, other.limit_);
    std::swap(reach_, other.reach_);
    std::swap(size_, other.size_);
  }

  std::unique_ptr<Cell[]> owned_;  // null before the first entry
  const Cell* cells_ = no_cells;
  std::size_t count_ = 1;           // cells, those behind the last home included
  std::size_t capacity_ = 0;        // homes; at most 2^32
  std::size_t limit_ = 0;           // size at which the index grows
  std::size_t reach_ = window - 1;  // how far from its home nearly every cell is
  std::size_t size_ = 0;
};

}  // namespace tidemill::detail
