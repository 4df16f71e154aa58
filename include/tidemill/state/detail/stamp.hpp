// What an entry of a table remembers beside key and state, in eight bytes.
#pragma once

#include <cstdint>

#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"

namespace tidemill::detail {

/// When an entry was last touched, and how it stands in the batch of that time.
///
///     bits 63–10  time in microseconds, signed: 285 years on both sides of the epoch
///     bits  9–2   generation: how often the slot was given to another key, modulo 256
///     bit   1     removed in the batch of that time
///     bit   0     saved: the state before that batch is in the log
///
/// A slot without an entry has the lowest time and, instead of the rest, is linked to the next free one by its own means.
class Stamp {
 public:
  Stamp() = default;
  [[nodiscard]] static constexpr Stamp at(Time t, std::uint8_t generation) noexcept {
    return Stamp{static_cast<std::int64_t>(static_cast<std::uint64_t>(t.time_since_epoch().count()) << 10) |
                 std::int64_t{generation} << 2};
  }

  [[nodiscard]] TIDEMILL_INLINE constexpr Time time() const noexcept { return Time{Duration{bits_ >> 10}}; }
  [[nodiscard]] constexpr std::uint8_t generation() const noexcept { return static_cast<std::uint8_t>(bits_ >> 2); }
  [[nodiscard]] TIDEMILL_INLINE constexpr bool removed() const noexcept { return (bits_ & 2) != 0; }
  /// Whether that is the time, and it is saved; in one comparison.
  [[nodiscard]] TIDEMILL_INLINE constexpr bool saved_at(Time t) const noexcept {
    return (bits_ & ~std::int64_t{0x3fe}) == (at(t, 0).bits_ | 1);
  }

  [[nodiscard]] TIDEMILL_INLINE constexpr Stamp touched(Time t) const noexcept { return at(t, generation()); }
  [[nodiscard]] TIDEMILL_INLINE constexpr Stamp changed(Time t) const noexcept {
    return Stamp{at(t, generation()).bits_ | 1};
  }
  [[nodiscard]] constexpr Stamp without(Time t) const noexcept { return Stamp{at(t, generation()).bits_ | 3}; }

 private:
  constexpr explicit Stamp(std::int64_t bits) noexcept : bits_{bits} {}
  std::int64_t bits_;
};

}  // namespace tidemill::detail
