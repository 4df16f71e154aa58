// Room for many objects that never move: chunks that grow with the whole, so that little is allocated in advance.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "tidemill/core/config.hpp"

namespace tidemill::detail {

/// Uninitialised places for objects of type T, numbered from 0; whoever owns the storage makes and ends the objects.
///
/// Layout: sixteen chunks for each doubling, the first ones of eight places. So at most a sixteenth of the places (or seven of
///         them) is allocated and not asked for, no place ever moves, and a number is found by a shift and one look into a
///         table that stays in the cache.
/// Errors: std::bad_alloc from `grow`, which then has changed nothing.
/// Threads: `operator[]` by any number at a time, as long as nobody grows.
template <class T>
class SteppedStorage {
 public:
  SteppedStorage() = default;
  SteppedStorage(SteppedStorage&& other) noexcept
      : chunks_{std::move(other.chunks_)}, capacity_{std::exchange(other.capacity_, 0)} {
    other.chunks_.clear();
  }
  SteppedStorage& operator=(SteppedStorage&& other) noexcept {
    std::swap(chunks_, other.chunks_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }

  [[nodiscard]] TIDEMILL_INLINE T* operator[](std::size_t i) const noexcept {
    const std::size_t biased = i + bias;
    const auto width = static_cast<unsigned>(std::bit_width(biased)) - 1;
    const unsigned shift = width - step_bits;
    const std::size_t chunk = ((width - first_bits) << step_bits) + (biased >> shift) - steps;
    return places(chunks_[chunk]) + (biased & ((std::size_t{1} << shift) - 1));
  }
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }

  /// Adds the next chunk.
  void grow() {
    const std::size_t places = chunk_places(chunks_.size());
    chunks_.reserve(chunks_.size() + 1);
    chunks_.push_back(Chunk{static_cast<std::byte*>(::operator new(places * sizeof(T), std::align_val_t{alignof(T)}))});
    capacity_ += places;
  }
  /// Gives back the chunks that hold no place below `used`. Pre: no object lives there.
  void shrink(std::size_t used) noexcept {
    while (!chunks_.empty() && capacity_ - chunk_places(chunks_.size() - 1) >= used) {
      capacity_ -= chunk_places(chunks_.size() - 1);
      chunks_.pop_back();
    }
  }
  [[nodiscard]] std::size_t allocated_bytes() const noexcept {
    return capacity_ * sizeof(T) + chunks_.capacity() * sizeof(Chunk);
  }

 private:
  struct Free {
    void operator()(std::byte* bytes) const noexcept { ::operator delete(bytes, std::align_val_t{alignof(T)}); }
  };
  using Chunk = std::unique_ptr<std::byte, Free>;

  static constexpr unsigned step_bits = 4;
  static constexpr unsigned first_bits = 7;
  static constexpr std::size_t steps = std::size_t{1} << step_bits;
  static constexpr std::size_t bias = std::size_t{1} << first_bits;

  [[nodiscard]] static std::size_t chunk_places(std::size_t chunk) noexcept {
    return std::size_t{1} << (first_bits - step_bits + (chunk >> step_bits));
  }
  [[nodiscard]] static T* places(const Chunk& chunk) noexcept {
    return std::launder(reinterpret_cast<T*>(chunk.get()));
  }

  std::vector<Chunk> chunks_;
  std::size_t capacity_ = 0;
};

/// A list that grows at its end without moving what it holds: a log of one batch, whose room the next one uses again.
template <class T>
class SteppedList {
 public:
  SteppedList() = default;
  SteppedList(SteppedList&& other) noexcept
      : storage_{std::move(other.storage_)}, size_{std::exchange(other.size_, 0)} {}
  SteppedList& operator=(SteppedList&& other) noexcept {
    std::swap(storage_, other.storage_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~SteppedList() { clear(); }

  /// After this the next `emplace_back` allocates nothing.
  TIDEMILL_INLINE void reserve_one() {
    if (size_ == storage_.capacity()) [[unlikely]]
      storage_.grow();
  }
  template <class... Args>
  TIDEMILL_INLINE T& emplace_back(Args&&... args) {
    reserve_one();
    T* const made = ::new (static_cast<void*>(storage_[size_])) T{std::forward<Args>(args)...};
    ++size_;
    return *made;
  }
  void pop_back() noexcept { std::destroy_at(storage_[--size_]); }

  [[nodiscard]] T& operator[](std::size_t i) noexcept { return *storage_[i]; }
  [[nodiscard]] const T& operator[](std::size_t i) const noexcept { return *storage_[i]; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] std::size_t allocated_bytes() const noexcept { return storage_.allocated_bytes(); }

  void clear() noexcept {
    if constexpr (!std::is_trivially_destructible_v<T>) {
      for (std::size_t i = 0; i < size_; ++i) std::destroy_at(storage_[i]);
    }
    size_ = 0;
  }
  /// Clears, and keeps no more room than four times what was in use.
  void clear_and_shrink() noexcept {
    const std::size_t used = size_;
    clear();
    if (storage_.capacity() / 4 > used) storage_.shrink(used);
  }

 private:
  SteppedStorage<T> storage_;
  std::size_t size_ = 0;
};

}  // namespace tidemill::detail
