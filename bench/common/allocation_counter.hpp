// Counts every allocation of the program that includes it. This replaces the global operator new, so exactly one
// translation unit of a program may include it, and only benchmarks that count pay for it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace tidemill::bench {

inline std::atomic<std::int64_t>& allocation_count() {
  static constinit std::atomic<std::int64_t> count{0};
  return count;
}

/// Runs `work` and returns how many allocations all threads made meanwhile.
template <class Work>
std::int64_t allocations_of(Work&& work) {
  const std::int64_t before = allocation_count().load();
  work();
  return allocation_count().load() - before;
}

namespace detail {

inline void* counted_allocate(std::size_t size, std::size_t alignment) noexcept {
  allocation_count().fetch_add(1, std::memory_order_relaxed);
  if (alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__) {
    return std::malloc(size == 0 ? 1 : size);
  }
  return std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

inline void* counted_allocate_or_throw(std::size_t size, std::size_t alignment) {
  if (void* memory = counted_allocate(size, alignment)) {
    return memory;
  }
  throw std::bad_alloc();
}

}  // namespace detail
}  // namespace tidemill::bench

// The array forms, and all of delete, come down to these.
void* operator new(std::size_t size) { return tidemill::bench::detail::counted_allocate_or_throw(size, 1); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return tidemill::bench::detail::counted_allocate_or_throw(size, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return tidemill::bench::detail::counted_allocate(size, 1);
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return tidemill::bench::detail::counted_allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
