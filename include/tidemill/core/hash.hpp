// The hash of a key: the same on every machine and in every run, because the partition of a key, and with it the order of
// results, follows from it.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "tidemill/core/config.hpp"

namespace tidemill {
namespace detail {

inline constexpr std::uint64_t hash_seed_a = 0x9e3779b97f4a7c15u;  // 2^64 / golden ratio
inline constexpr std::uint64_t hash_seed_b = 0xd1b54a32d192ed03u;  // from the R2 sequence, odd

/// Multiplies to 128 bits and folds: every input bit reaches every output bit.
TIDEMILL_INLINE constexpr std::uint64_t mix(std::uint64_t a, std::uint64_t b) noexcept {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

/// Two words, of which the second carries the length when they stand for a short string.
TIDEMILL_INLINE constexpr std::uint64_t hash_words(std::uint64_t a, std::uint64_t b) noexcept {
  return mix(a ^ hash_seed_a, b ^ hash_seed_b);
}

TIDEMILL_INLINE constexpr std::uint64_t hash_combine(std::uint64_t seed, std::uint64_t next) noexcept {
  return mix(seed ^ hash_seed_a, next + hash_seed_b);
}

/// The low half of a hash, never 0: what hash tables and partitioners go by.
TIDEMILL_INLINE constexpr std::uint32_t tag_of_hash(std::uint64_t hash) noexcept {
  const auto tag = static_cast<std::uint32_t>(hash);
  return tag == 0 ? 1 : tag;
}

/// Any number of bytes, 16 at a time.
[[nodiscard]] TIDEMILL_API std::uint64_t hash_bytes(const char* data, std::size_t size) noexcept;

/// The bytes of a string of at most 15, zero-padded to two little-endian words, with the length in the topmost byte: equal
/// words mean equal strings.
struct ShortBytes {
  std::uint64_t low;
  std::uint64_t high;
};
inline constexpr std::size_t max_short_bytes = 15;

}  // namespace detail

/// The 64-bit hash of a key. Specialise it for your own key types:
///
///     template <> struct tidemill::Hash<UserId> {
///       std::uint64_t operator()(const UserId& id) const noexcept { return tidemill::hash_of(id.value); }
///     };
///
/// Equal keys must hash equally, and a view like the string it looks at. Without a specialisation `std::hash` is used.
template <class T>
struct Hash {
  std::uint64_t operator()(const T& value) const
    requires requires { std::hash<T>{}(value); }
  {
    return detail::mix(static_cast<std::uint64_t>(std::hash<T>{}(value)) ^ detail::hash_seed_a, detail::hash_seed_b);
  }
};

/// The hash of `value`, by Hash<T>.
template <class T>
[[nodiscard]] TIDEMILL_INLINE std::uint64_t hash_of(const T& value) {
  return Hash<T>{}(value);
}

namespace detail {
template <class T>
concept Hashable = requires(const T& v) {
  { Hash<T>{}(v) } -> std::convertible_to<std::uint64_t>;
};
}  // namespace detail

/// A type that can be the key of a keyed operation: it can be compared for equality and has a hash.
template <class T>
concept Key = std::equality_comparable<T> && detail::Hashable<T>;

template <class T>
  requires(std::integral<T> || std::is_enum_v<T>)
struct Hash<T> {
  constexpr std::uint64_t operator()(T value) const noexcept {
    return detail::mix(static_cast<std::uint64_t>(value) ^ detail::hash_seed_a, detail::hash_seed_b);
  }
};

template <std::floating_point T>
struct Hash<T> {
  std::uint64_t operator()(T value) const noexcept {
    // +0 and -0 are equal, so they hash equally.
    return Hash<std::uint64_t>{}(value == T{0} ? 0 : std::bit_cast<std::uint64_t>(static_cast<double>(value)));
  }
};

template <>
struct Hash<std::string_view> {
  std::uint64_t operator()(std::string_view text) const noexcept {
    if (text.size() > detail::max_short_bytes) return detail::hash_bytes(text.data(), text.size());
    std::uint64_t words[2] = {0, 0};
    if (!text.empty()) std::memcpy(words, text.data(), text.size());
    return detail::hash_words(words[0], words[1] | static_cast<std::uint64_t>(text.size()) << 56);
  }
};
template <>
struct Hash<std::string> : Hash<std::string_view> {};

template <class A, class B>
  requires(detail::Hashable<A> && detail::Hashable<B>)
struct Hash<std::pair<A, B>> {
  std::uint64_t operator()(const std::pair<A, B>& p) const {
    return detail::hash_combine(hash_of(p.first), hash_of(p.second));
  }
};
template <class... Ts>
  requires(detail::Hashable<Ts> && ...)
struct Hash<std::tuple<Ts...>> {
  std::uint64_t operator()(const std::tuple<Ts...>& t) const {
    return std::apply(
        [](const Ts&... m) {
          std::uint64_t h = sizeof...(Ts);
          ((h = detail::hash_combine(h, hash_of(m))), ...);
          return h;
        },
        t);
  }
};
template <class T>
  requires detail::Hashable<T>
struct Hash<std::optional<T>> {
  std::uint64_t operator()(const std::optional<T>& value) const {
    return value ? detail::hash_combine(1, hash_of(*value)) : detail::hash_seed_a;
  }
};
template <class... Ts>
  requires(detail::Hashable<Ts> && ...)
struct Hash<std::variant<Ts...>> {
  std::uint64_t operator()(const std::variant<Ts...>& value) const {
    return std::visit([&](const auto& v) { return detail::hash_combine(value.index(), hash_of(v)); }, value);
  }
};
template <class T>
  requires detail::Hashable<T>
struct Hash<std::vector<T>> {
  std::uint64_t operator()(const std::vector<T>& items) const {
    std::uint64_t h = items.size();
    for (const T& item : items) h = detail::hash_combine(h, hash_of(item));
    return h;
  }
};

}  // namespace tidemill
