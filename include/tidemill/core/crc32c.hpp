// CRC-32C: the checksum in front of every block of bytes that the library writes to a file. It finds what disks and
// copies do to data (flipped bits, torn and swapped blocks); it is no defence against somebody who forges data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tidemill/core/config.hpp"

namespace tidemill {

/// The CRC-32C (polynomial of Castagnoli, reflected, as in iSCSI and RFC 3720) of `bytes`.
/// Seed:    the checksum of the bytes before these, so that crc32c(b, crc32c(a)) is that of a followed by b; 0 at the start.
/// Cost:    about 8 bytes in 3 cycles with the instruction of SSE 4.2 (chosen at run time), about 1 byte a cycle without.
/// Threads: any number at once.
[[nodiscard]] TIDEMILL_API std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t seed = 0) noexcept;

namespace detail {

/// What crc32c() does on a processor without the instruction. Separate so that a test compares the two.
[[nodiscard]] TIDEMILL_API std::uint32_t crc32c_portable(std::span<const std::byte> bytes,
                                                         std::uint32_t seed = 0) noexcept;

}  // namespace detail
}  // namespace tidemill
