// How a table of state keeps a key, and how a key is looked for without being copied.
#pragma once

#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "tidemill/core/config.hpp"
#include "tidemill/core/hash.hpp"
#include "tidemill/core/ownership.hpp"
#include "tidemill/exec/detail/short_key.hpp"

namespace tidemill::detail {

/// A string in 16 bytes that owns its text: up to 15 bytes inline, longer ones in an allocation of their own, so that one key
/// can go without the others.
class OwnedText {
 public:
  explicit OwnedText(const ShortKey& key) : key_{key} {
    if (!key.is_far()) return;
    const std::string_view text = key.text();
    char* const copy = new char[text.size()];
    std::memcpy(copy, text.data(), text.size());
    key_ = ShortKey{std::string_view{copy, text.size()}};
  }
  OwnedText(OwnedText&& other) noexcept : key_{std::exchange(other.key_, ShortKey{std::string_view{}})} {}
  OwnedText& operator=(OwnedText&& other) noexcept {
    std::swap(key_, other.key_);
    return *this;
  }
  ~OwnedText() {
    if (key_.is_far()) delete[] key_.text().data();
  }
  [[nodiscard]] const ShortKey& key() const noexcept { return key_; }

 private:
  ShortKey key_;
};

/// K is the type that owns the key: owned_t of the type in the records.
///   Stored         what lies in the table
///   Probe          what is looked for: may look at the record (`is_far`), else owns what it holds
///   View           how a key is shown
template <class K>
struct TableKey {
  static_assert(!borrows_v<K>, "a table keeps keys that own what they hold");
  static_assert(Key<K>, "the key of a keyed operation needs operator== and a hash; specialise tidemill::Hash for it");
  static_assert(std::is_nothrow_move_constructible_v<K>, "the key of a state must be movable without throwing");
  using Stored = K;
  using Probe = K;
  using View = const K&;

  template <class U>
  [[nodiscard]] TIDEMILL_INLINE static Probe probe(U&& key) {
    return K(to_owned(std::forward<U>(key)));
  }
  [[nodiscard]] TIDEMILL_INLINE static const Probe& probe_of(const Stored& key) noexcept { return key; }
  [[nodiscard]] TIDEMILL_INLINE static std::uint64_t hash(const Probe& key) { return hash_of(key); }
  [[nodiscard]] TIDEMILL_INLINE static bool equal(const Stored& a, const Probe& b) { return a == b; }
  [[nodiscard]] TIDEMILL_INLINE static bool is_far(const Probe&) noexcept { return false; }
  [[nodiscard]] static Probe rehome(Probe&& key, Arena&) { return std::move(key); }
  [[nodiscard]] static Stored keep(Probe&& key) { return std::move(key); }
  [[nodiscard]] TIDEMILL_INLINE static View view(const Probe& key) noexcept { return key; }
  [[nodiscard]] static const K& owned(View key) { return key; }
};

template <>
struct TableKey<std::string> {
  using Stored = OwnedText;
  using Probe = ShortKey;
  using View = std::string_view;

  [[nodiscard]] TIDEMILL_INLINE static Probe probe(std::string_view key) noexcept { return ShortKey{key}; }
  [[nodiscard]] TIDEMILL_INLINE static const Probe& probe_of(const Stored& key) noexcept { return key.key(); }
  [[nodiscard]] TIDEMILL_INLINE static std::uint64_t hash(const Probe& key) noexcept { return key.hash(); }
  [[nodiscard]] TIDEMILL_INLINE static bool equal(const Stored& a, const Probe& b) noexcept {
    return a.key().equals(b);
  }
  [[nodiscard]] TIDEMILL_INLINE static bool is_far(const Probe& key) noexcept { return key.is_far(); }
  [[nodiscard]] static Probe rehome(const Probe& key, Arena& arena) { return key.rehome(arena); }
  [[nodiscard]] static Stored keep(const Probe& key) { return OwnedText{key}; }
  [[nodiscard]] static View view(const Probe& key) noexcept { return key.text(); }  // looks at `key` itself when inline
  [[nodiscard]] static std::string owned(View key) { return std::string{key}; }
};

}  // namespace tidemill::detail
