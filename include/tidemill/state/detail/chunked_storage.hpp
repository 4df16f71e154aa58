// Room for many objects that never move, chunk by chunk.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#include "tidemill/core/config.hpp"

namespace tidemill::detail {

/// Uninitialised places for objects of type T, numbered from 0; whoever owns the storage makes and ends the objects.
///
/// Layout: chunks of some 64 KiB, so no more than that is allocated in advance, no place ever moves, and a number is found by
///         one look into a table that stays in the cache.
/// Errors: std::bad_alloc from `grow`, which then has changed nothing.
/// Threads: `operator[]` by any number at a time, as long as nobody grows.
template <class T>
class ChunkedStorage {
 public:
  static constexpr std::size_t chunk_places = std::bit_floor(std::clamp<std::size_t>((64u << 10) / sizeof(T), 8, 1024));

  [[nodiscard]] TIDEMILL_INLINE T* operator[](std::size_t i) const noexcept {
    return std::launder(reinterpret_cast<T*>(chunks_[i / chunk_places].get())) + i % chunk_places;
  }
  [[nodiscard]] std::size_t capacity() const noexcept { return chunks_.size() * chunk_places; }

  /// Adds a chunk.
  void grow() {
    constexpr std::size_t bytes = chunk_places * sizeof(T);
    chunks_.emplace_back();
    try {
      chunks_.back().reset(static_cast<std::byte*>(::operator new(bytes, std::align_val_t{alignof(T)})));
    } catch (...) {
      chunks_.pop_back();
      throw;
    }
  }
  /// Gives back the chunks that hold no place below `used`. Pre: no object lives there.
  void shrink(std::size_t used) noexcept { chunks_.resize((used + chunk_places - 1) / chunk_places); }

  [[nodiscard]] std::size_t allocated_bytes() const noexcept {
    return capacity() * sizeof(T) + chunks_.capacity() * sizeof(Chunk);
  }

 private:
  struct Free {
    void operator()(std::byte* bytes) const noexcept { ::operator delete(bytes, std::align_val_t{alignof(T)}); }
  };
  using Chunk = std::unique_ptr<std::byte, Free>;

  std::vector<Chunk> chunks_;
};

/// A list that grows at its end without moving what it holds: a log of one batch, whose room the next one uses again.
template <class T>
class ChunkedList {
 public:
  ChunkedList() = default;
  ChunkedList(ChunkedList&& other) noexcept { swap(other); }
  ChunkedList& operator=(ChunkedList&& other) noexcept {
    swap(other);
    return *this;
  }
  ~ChunkedList() { clear(); }

  /// After this the next `add` allocates nothing.
  TIDEMILL_INLINE void reserve_one() {
    if (next_ == end_) [[unlikely]]
      go_on();
  }
  /// Adds what `make()` returns, made in its place.
  template <class Make>
  TIDEMILL_INLINE void add(Make&& make) {
    reserve_one();
    ::new (static_cast<void*>(next_)) T(make());
    ++next_;
  }
  /// Adds it, or only makes it, without a branch.
  template <class Make>
    requires std::is_trivially_destructible_v<T>
  TIDEMILL_INLINE void add_if(bool condition, Make&& make) {
    reserve_one();
    ::new (static_cast<void*>(next_)) T(make());
    next_ += condition;
  }
  void pop_back() noexcept {
    if (next_ == begin_) {
      before_ -= chunk_places;
      begin_ = storage_[before_];
      next_ = end_ = begin_ + chunk_places;
    }
    std::destroy_at(--next_);
  }

  [[nodiscard]] T& operator[](std::size_t i) noexcept { return *storage_[i]; }
  [[nodiscard]] const T& operator[](std::size_t i) const noexcept { return *storage_[i]; }
  [[nodiscard]] std::size_t size() const noexcept { return before_ + static_cast<std::size_t>(next_ - begin_); }
  [[nodiscard]] bool empty() const noexcept { return size() == 0; }
  [[nodiscard]] std::size_t allocated_bytes() const noexcept { return storage_.allocated_bytes(); }

  void clear() noexcept {
    if constexpr (!std::is_trivially_destructible_v<T>) {
      for (std::size_t i = 0; i < size(); ++i) std::destroy_at(storage_[i]);
    }
    before_ = 0;
    begin_ = next_ = end_ = nullptr;
  }
  /// Clears, and keeps no more room than four times what was in use.
  void clear_and_shrink() noexcept {
    const std::size_t used = size();
    clear();
    if (storage_.capacity() / 4 > used) storage_.shrink(used);
  }

 private:
  static constexpr std::size_t chunk_places = ChunkedStorage<T>::chunk_places;

  // The chunk is full, or there is none yet.
  TIDEMILL_NOINLINE void go_on() {
    const std::size_t used = size();
    if (used == storage_.capacity()) storage_.grow();
    before_ = used;
    begin_ = next_ = storage_[used];
    end_ = begin_ + chunk_places;
  }
  void swap(ChunkedList& other) noexcept {
    std::swap(storage_, other.storage_);
    std::swap(before_, other.before_);
    std::swap(begin_, other.begin_);
    std::swap(next_, other.next_);
    std::swap(end_, other.end_);
  }

  ChunkedStorage<T> storage_;
  std::size_t before_ = 0;  // in the chunks before the one that is filled now
  T* begin_ = nullptr;      // of that; null, as the others, when there is none
  T* next_ = nullptr;       // where the next one goes
  T* end_ = nullptr;
};

}  // namespace tidemill::detail
