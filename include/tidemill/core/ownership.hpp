// Which records own their memory and which only look at somebody else's. A line source hands out views into the block it
// received; what must outlive the block has to be copied, and these traits say how, so that nobody does it by hand.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include "tidemill/core/config.hpp"

namespace tidemill {

/// Memory that is given back all at once: a list of growing slabs.
/// Threads: one at a time. Cost: an allocation per slab (64 KiB, or the size asked for when that is larger).
class TIDEMILL_API Arena {
 public:
  Arena() = default;
  Arena(Arena&& other) noexcept { swap(other); }
  Arena& operator=(Arena&& other) noexcept {
    Arena empty{std::move(other)};
    swap(empty);
    return *this;
  }

  /// Uninitialised bytes that live as long as the arena; aligned to `alignment`, a power of two up to 16.
  [[nodiscard]] std::byte* allocate(std::size_t size, std::size_t alignment = 1) {
    const auto misplaced = reinterpret_cast<std::uintptr_t>(next_) & (alignment - 1);
    const std::size_t padding = misplaced == 0 ? 0 : alignment - misplaced;
    if (size + padding > left_) [[unlikely]]
      return allocate_slab(size);
    std::byte* const result = next_ + padding;
    next_ += size + padding;
    left_ -= size + padding;
    return result;
  }

  /// A copy of `text` that lives as long as the arena.
  [[nodiscard]] std::string_view copy(std::string_view text) {
    if (text.empty()) return {};
    std::byte* const bytes = allocate(text.size());
    std::memcpy(bytes, text.data(), text.size());
    return {reinterpret_cast<const char*>(bytes), text.size()};
  }

  [[nodiscard]] std::size_t allocated_bytes() const noexcept { return allocated_; }

 private:
  std::byte* allocate_slab(std::size_t size);
  void swap(Arena& other) noexcept {
    slabs_.swap(other.slabs_);
    std::swap(next_, other.next_);
    std::swap(left_, other.left_);
    std::swap(allocated_, other.allocated_);
  }

  std::vector<std::unique_ptr<std::byte[]>> slabs_;
  std::byte* next_ = nullptr;
  std::size_t left_ = 0;
  std::size_t allocated_ = 0;
};

/// How a type relates to memory it does not own. Specialise it for your own types that hold views:
///
///     template <> struct tidemill::Ownership<Quote> {            // struct Quote { std::string_view symbol; double price; };
///       using Owned = OwnedQuote;                                // struct OwnedQuote { std::string symbol; double price; };
///       static constexpr bool borrows = true;
///       static OwnedQuote to_owned(const Quote& q) { return {std::string{q.symbol}, q.price}; }
///       static Quote rehome(const Quote& q, Arena& arena) { return {arena.copy(q.symbol), q.price}; }
///     };
///
/// `to_owned` gives a value that depends on nothing; `rehome` gives the same type with everything it looks at copied into
/// the arena. The default is for types that own what they hold.
template <class T>
struct Ownership {
  using Owned = T;
  static constexpr bool borrows = false;
  template <class U>
  static constexpr U&& to_owned(U&& value) noexcept {
    return static_cast<U&&>(value);
  }
  template <class U>
  static constexpr U&& rehome(U&& value, Arena&) noexcept {
    return static_cast<U&&>(value);
  }
};

/// A constant is what its type is: the keys of a map are constants.
template <class T>
struct Ownership<const T> : Ownership<T> {};

/// The type that keeps a T beyond the batch: std::string for std::string_view, member by member for pairs and the like.
template <class T>
using owned_t = typename Ownership<T>::Owned;

/// Whether a T may look at memory that it does not own.
template <class T>
inline constexpr bool borrows_v = Ownership<T>::borrows;

/// A value that depends on nothing else. Types that own what they hold are passed through (moved when an rvalue).
template <class U>
[[nodiscard]] constexpr owned_t<std::remove_cvref_t<U>> to_owned(U&& value) {
  return Ownership<std::remove_cvref_t<U>>::to_owned(std::forward<U>(value));
}

/// The same value, with everything it looks at copied into `arena`.
template <class U>
[[nodiscard]] constexpr std::remove_cvref_t<U> rehome(U&& value, Arena& arena) {
  return Ownership<std::remove_cvref_t<U>>::rehome(std::forward<U>(value), arena);
}

template <>
struct Ownership<std::string_view> {
  using Owned = std::string;
  static constexpr bool borrows = true;
  static std::string to_owned(std::string_view text) { return std::string{text}; }
  static std::string_view rehome(std::string_view text, Arena& arena) { return arena.copy(text); }
};

template <class T>
  requires std::is_trivially_copyable_v<T>
struct Ownership<std::span<const T>> {
  using Owned = std::vector<T>;
  static constexpr bool borrows = true;
  static std::vector<T> to_owned(std::span<const T> items) { return {items.begin(), items.end()}; }
  static std::span<const T> rehome(std::span<const T> items, Arena& arena) {
    if (items.empty()) return {};
    auto* const copy = reinterpret_cast<T*>(arena.allocate(items.size_bytes(), alignof(T)));
    std::memcpy(copy, items.data(), items.size_bytes());
    return {copy, items.size()};
  }
};

// The composites below only step in when a member borrows; otherwise the default passes the value through untouched.

template <class A, class B>
  requires(borrows_v<A> || borrows_v<B>)
struct Ownership<std::pair<A, B>> {
  using Owned = std::pair<owned_t<A>, owned_t<B>>;
  static constexpr bool borrows = true;
  template <class U>
  static Owned to_owned(U&& p) {
    return {tidemill::to_owned(std::forward<U>(p).first), tidemill::to_owned(std::forward<U>(p).second)};
  }
  template <class U>
  static std::pair<A, B> rehome(U&& p, Arena& arena) {
    return {tidemill::rehome(std::forward<U>(p).first, arena), tidemill::rehome(std::forward<U>(p).second, arena)};
  }
};

template <class... Ts>
  requires(borrows_v<Ts> || ...)
struct Ownership<std::tuple<Ts...>> {
  using Owned = std::tuple<owned_t<Ts>...>;
  static constexpr bool borrows = true;
  template <class U>
  static Owned to_owned(U&& t) {
    return std::apply([](auto&&... m) { return Owned{tidemill::to_owned(std::forward<decltype(m)>(m))...}; },
                      std::forward<U>(t));
  }
  template <class U>
  static std::tuple<Ts...> rehome(U&& t, Arena& arena) {
    return std::apply(
        [&](auto&&... m) { return std::tuple<Ts...>{tidemill::rehome(std::forward<decltype(m)>(m), arena)...}; },
        std::forward<U>(t));
  }
};

template <class T>
  requires borrows_v<T>
struct Ownership<std::optional<T>> {
  using Owned = std::optional<owned_t<T>>;
  static constexpr bool borrows = true;
  template <class U>
  static Owned to_owned(U&& value) {
    return value ? Owned{tidemill::to_owned(*std::forward<U>(value))} : Owned{};
  }
  template <class U>
  static std::optional<T> rehome(U&& value, Arena& arena) {
    return value ? std::optional<T>{tidemill::rehome(*std::forward<U>(value), arena)} : std::optional<T>{};
  }
};

template <class... Ts>
  requires(borrows_v<Ts> || ...)
struct Ownership<std::variant<Ts...>> {
  using Owned = std::variant<owned_t<Ts>...>;
  static constexpr bool borrows = true;

  template <class U>
  static Owned to_owned(U&& value) {
    return visit_at<Owned>(std::forward<U>(value),
                           [](auto&& v) { return tidemill::to_owned(std::forward<decltype(v)>(v)); });
  }
  template <class U>
  static std::variant<Ts...> rehome(U&& value, Arena& arena) {
    return visit_at<std::variant<Ts...>>(
        std::forward<U>(value), [&](auto&& v) { return tidemill::rehome(std::forward<decltype(v)>(v), arena); });
  }

 private:
  // By index: two alternatives may have the same owned type.
  template <class Result, class U, class F, std::size_t I = 0>
  static Result visit_at(U&& value, F&& f) {
    if constexpr (I + 1 < sizeof...(Ts)) {
      if (value.index() != I) return visit_at<Result, U, F, I + 1>(std::forward<U>(value), std::forward<F>(f));
    }
    return Result{std::in_place_index<I>, f(std::get<I>(std::forward<U>(value)))};
  }
};

template <class T>
  requires borrows_v<T>
struct Ownership<std::vector<T>> {
  using Owned = std::vector<owned_t<T>>;
  static constexpr bool borrows = true;
  static Owned to_owned(const std::vector<T>& items) {
    Owned owned;
    owned.reserve(items.size());
    for (const T& item : items) owned.push_back(tidemill::to_owned(item));
    return owned;
  }
  static std::vector<T> rehome(const std::vector<T>& items, Arena& arena) {
    std::vector<T> copy;
    copy.reserve(items.size());
    for (const T& item : items) copy.push_back(tidemill::rehome(item, arena));
    return copy;
  }
};

template <class T, std::size_t N>
  requires borrows_v<T>
struct Ownership<std::array<T, N>> {
  using Owned = std::array<owned_t<T>, N>;
  static constexpr bool borrows = true;
  static Owned to_owned(const std::array<T, N>& items) {
    return std::apply([](const auto&... item) { return Owned{tidemill::to_owned(item)...}; }, items);
  }
  static std::array<T, N> rehome(const std::array<T, N>& items, Arena& arena) {
    return std::apply([&](const auto&... item) { return std::array<T, N>{tidemill::rehome(item, arena)...}; }, items);
  }
};

namespace detail {

// Sequences and dictionaries that grow by insert(end, value).
template <class Container, class OwnedContainer>
struct ContainerOwnership {
  using Owned = OwnedContainer;
  static constexpr bool borrows = true;
  static Owned to_owned(const Container& items) {
    Owned owned;
    for (const auto& item : items) owned.insert(owned.end(), tidemill::to_owned(item));
    return owned;
  }
  static Container rehome(const Container& items, Arena& arena) {
    Container copy;
    for (const auto& item : items) copy.insert(copy.end(), tidemill::rehome(item, arena));
    return copy;
  }
};

}  // namespace detail

template <class T>
  requires borrows_v<T>
struct Ownership<std::list<T>> : detail::ContainerOwnership<std::list<T>, std::list<owned_t<T>>> {};
template <class T>
  requires borrows_v<T>
struct Ownership<std::set<T>> : detail::ContainerOwnership<std::set<T>, std::set<owned_t<T>>> {};
template <class T>
  requires borrows_v<T>
struct Ownership<std::unordered_set<T>>
    : detail::ContainerOwnership<std::unordered_set<T>, std::unordered_set<owned_t<T>>> {};
template <class K, class V>
  requires(borrows_v<K> || borrows_v<V>)
struct Ownership<std::map<K, V>> : detail::ContainerOwnership<std::map<K, V>, std::map<owned_t<K>, owned_t<V>>> {};
template <class K, class V>
  requires(borrows_v<K> || borrows_v<V>)
struct Ownership<std::unordered_map<K, V>>
    : detail::ContainerOwnership<std::unordered_map<K, V>, std::unordered_map<owned_t<K>, owned_t<V>>> {};

}  // namespace tidemill
