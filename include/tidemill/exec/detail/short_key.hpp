// How the staged table stores a key. Strings of up to 15 bytes sit inside 16 bytes of the slot, so that a probe touches one
// cache line; longer ones are pointed to.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "tidemill/core/config.hpp"
#include "tidemill/core/hash.hpp"
#include "tidemill/core/ownership.hpp"

namespace tidemill::detail {

static_assert(std::endian::native == std::endian::little, "ShortKey packs strings into little-endian words");

#if defined(__SSE2__)
// 16 set bytes, then 16 clear ones: read at 16 - n, it keeps the first n bytes.
alignas(32) inline constexpr unsigned char keep_first[32] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                                             0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
#endif

/// The first `size` bytes at `data`, zero-padded, as two words. Pre: size <= 15.
/// Reads up to 15 bytes past the string when they lie in the same memory page, and masks them away: that costs a third of a
/// copy of variable length. Sanitized builds copy instead.
TIDEMILL_INLINE ShortBytes load_short(const char* data, std::size_t size) noexcept {
#if defined(__SSE2__) && !TIDEMILL_SANITIZED
  constexpr std::uintptr_t page = 4096;
  if ((reinterpret_cast<std::uintptr_t>(data) & (page - 1)) <= page - 16) [[likely]] {
    if (size == 0) return {0, 0};  // `data` may be null
    const __m128i mask = _mm_loadu_si128(reinterpret_cast<const __m128i*>(keep_first + 16 - size));
    const __m128i bytes = _mm_and_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data)), mask);
    return {static_cast<std::uint64_t>(_mm_cvtsi128_si64(bytes)),
            static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm_unpackhi_epi64(bytes, bytes)))};
  }
#endif
  std::uint64_t words[2] = {0, 0};
  if (size != 0) std::memcpy(words, data, size);
  return {words[0], words[1]};
}

/// A string in 16 bytes: up to 15 bytes inline, or a pointer and a length.
/// Invariant SK1: the topmost byte is the length (0 … 15) of an inline string, or `far`.
/// Invariant SK2: the hash equals Hash<std::string_view> of the same text.
class ShortKey {
 public:
  static constexpr std::uint64_t far = 0xff;

  ShortKey() = default;
  /// A far key looks at `text`; an inline one does not.
  TIDEMILL_INLINE explicit ShortKey(std::string_view text) noexcept {
    if (text.size() <= max_short_bytes) [[likely]] {
      const ShortBytes bytes = load_short(text.data(), text.size());
      low_ = bytes.low;
      high_ = bytes.high | static_cast<std::uint64_t>(text.size()) << 56;
    } else {
      low_ = reinterpret_cast<std::uintptr_t>(text.data());
      high_ = static_cast<std::uint64_t>(text.size()) | far << 56;
    }
  }

  [[nodiscard]] TIDEMILL_INLINE bool is_far() const noexcept { return high_ >> 56 == far; }
  [[nodiscard]] TIDEMILL_INLINE std::uint64_t hash() const noexcept {
    if (is_far()) [[unlikely]]
      return hash_bytes(far_data(), far_size());
    return hash_words(low_, high_);
  }

  /// The text; an inline one lives in this object.
  [[nodiscard]] std::string_view text() const noexcept {
    if (is_far()) return {far_data(), far_size()};
    return {reinterpret_cast<const char*>(this), static_cast<std::size_t>(high_ >> 56)};
  }

  [[nodiscard]] TIDEMILL_INLINE bool equals(const ShortKey& other) const noexcept {
    // & and not &&: one branch a probe, and it is nearly always taken.
    if (((low_ ^ other.low_) | (high_ ^ other.high_)) == 0) [[likely]]
      return true;
    return is_far() && other.is_far() && text() == other.text();
  }

  /// The same key, its text copied into `arena` when it is far.
  [[nodiscard]] ShortKey rehome(Arena& arena) const { return is_far() ? ShortKey{arena.copy(text())} : *this; }

 private:
  [[nodiscard]] const char* far_data() const noexcept {
    return reinterpret_cast<const char*>(static_cast<std::uintptr_t>(low_));
  }
  [[nodiscard]] std::size_t far_size() const noexcept { return static_cast<std::size_t>(high_ & ~(far << 56)); }

  std::uint64_t low_;
  std::uint64_t high_;
};
static_assert(std::is_trivially_copyable_v<ShortKey> && sizeof(ShortKey) == 16);

/// What the table keeps of a key of type K, and how it gets back to K.
///   Stored                  what lies in the slot
///   staged                  whether a Stored may wait in the stage: it is small and, unless far, looks at nothing
///   stage(key)              a Stored that may still look at the caller's key
///   settle(stored, arena)   a Stored that looks at nothing but the arena
///   restore(stored, arena)  a K that looks at nothing but the arena, or owns what it holds
template <class K>
struct KeyForm {
  using Stored = K;
  static constexpr bool staged = std::is_trivially_copyable_v<K> && sizeof(K) <= 32 && !borrows_v<K>;
  template <class U>
  TIDEMILL_INLINE static Stored stage(U&& key) {
    return K(std::forward<U>(key));
  }
  TIDEMILL_INLINE static std::uint64_t hash(const Stored& key) { return hash_of(key); }
  TIDEMILL_INLINE static bool equal(const Stored& a, const Stored& b) { return a == b; }
  static bool is_far(const Stored&) noexcept { return false; }
  template <class U>
  static Stored settle(U&& stored, Arena& arena) {
    return tidemill::rehome(std::forward<U>(stored), arena);
  }
  static K restore(Stored&& stored, Arena& arena) { return tidemill::rehome(std::move(stored), arena); }
};

template <class K>
struct StringKeyForm {
  using Stored = ShortKey;
  static constexpr bool staged = true;
  TIDEMILL_INLINE static Stored stage(std::string_view key) noexcept { return ShortKey{key}; }
  TIDEMILL_INLINE static std::uint64_t hash(const Stored& key) noexcept { return key.hash(); }
  TIDEMILL_INLINE static bool equal(const Stored& a, const Stored& b) noexcept { return a.equals(b); }
  TIDEMILL_INLINE static bool is_far(const Stored& key) noexcept { return key.is_far(); }
  static Stored settle(const Stored& stored, Arena& arena) { return stored.rehome(arena); }
  static K restore(const Stored& stored, [[maybe_unused]] Arena& arena) {
    if constexpr (std::is_same_v<K, std::string_view>) {
      return arena.copy(stored.text());
    } else {
      return K{stored.text()};
    }
  }
};
template <>
struct KeyForm<std::string_view> : StringKeyForm<std::string_view> {};
template <>
struct KeyForm<std::string> : StringKeyForm<std::string> {};

}  // namespace tidemill::detail
