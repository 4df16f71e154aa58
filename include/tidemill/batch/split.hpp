// Cutting lines into words, as a function object for flat_map: it yields views into the line and allocates nothing.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "tidemill/core/config.hpp"

namespace tidemill {

namespace detail {

/// What becomes of the nothing between two separators.
enum class Empty { keep, skip };

/// Bit i tells whether data[i] == wanted, for the first `size` (at most 64) bytes. Reads whole 16-byte words where that stays
/// within the memory page; sanitized builds read no byte too many.
TIDEMILL_INLINE std::uint64_t match_mask(const char* data, std::size_t size, char wanted) noexcept {
#if defined(__SSE2__)
  alignas(16) char copy[64];
#if TIDEMILL_SANITIZED
  const bool readable = size == 64;
#else
  const bool readable = size == 64 || (reinterpret_cast<std::uintptr_t>(data) & 4095) <= 4096 - 64;
#endif
  if (!readable) [[unlikely]] {
    std::memcpy(copy, data, size);
    data = copy;
  }
  const __m128i pattern = _mm_set1_epi8(wanted);
  std::uint64_t mask = 0;
  for (std::size_t i = 0; i < size; i += 16) {
    const __m128i word = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data + i));
    mask |= static_cast<std::uint64_t>(static_cast<std::uint32_t>(_mm_movemask_epi8(_mm_cmpeq_epi8(word, pattern))))
            << i;
  }
  return size == 64 ? mask : mask & ((std::uint64_t{1} << size) - 1);
#else
  std::uint64_t mask = 0;
  for (std::size_t i = 0; i < size; ++i) mask |= static_cast<std::uint64_t>(data[i] == wanted) << i;
  return mask;
#endif
}

template <Empty empty>
struct Split {
  using emits = std::string_view;
  char separator;

  template <class Emit>
  TIDEMILL_INLINE void operator()(std::string_view line, Emit&& emit) const {
    const char* const data = line.data();
    std::size_t size = line.size();
    if constexpr (empty == Empty::keep) {
      if (size == 0) return emit(line);
      while (size != 0 && data[size - 1] == separator) --size;  // trailing nothings are dropped, as in Java
      if (size == 0) return;
    }
    std::size_t begin = 0;
    for (std::size_t block = 0; block < size; block += 64) {
      const std::size_t width = size - block < 64 ? size - block : 64;
      for (std::uint64_t mask = match_mask(data + block, width, separator); mask != 0; mask &= mask - 1) {
        const std::size_t end = block + static_cast<std::size_t>(std::countr_zero(mask));
        if (empty == Empty::keep || end != begin) emit(std::string_view{data + begin, end - begin});
        begin = end + 1;
      }
    }
    if (begin < size) emit(std::string_view{data + begin, size - begin});
  }
};

}  // namespace detail

/// For `lines.flat_map(split(' '))`: the parts of a line between separators, as views into the line.
/// Like Java's `String.split`, which Spark's examples use: two separators in a row have an empty part between them, trailing
/// empty parts are dropped, and an empty line is one empty part.
[[nodiscard]] constexpr detail::Split<detail::Empty::keep> split(char separator) noexcept { return {separator}; }

/// For `lines.flat_map(words(' '))`: the same without empty parts.
[[nodiscard]] constexpr detail::Split<detail::Empty::skip> words(char separator = ' ') noexcept { return {separator}; }

}  // namespace tidemill
