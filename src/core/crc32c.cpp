#include "tidemill/core/crc32c.hpp"

#include <array>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#define TIDEMILL_CRC32C_SSE42 1
#include <nmmintrin.h>
#else
#define TIDEMILL_CRC32C_SSE42 0
#endif

namespace tidemill {
namespace {

constexpr std::uint32_t reversed_polynomial =
    0x82F63B78U;  // 0x1EDC6F41 with its bits reversed: the register shifts right

// tables[k][b] is what the byte b does to the register when k more bytes follow it. With eight tables, eight bytes are
// looked up independently of each other ("slicing by 8") instead of one after the other.
constexpr std::array<std::array<std::uint32_t, 256>, 8> make_tables() {
  std::array<std::array<std::uint32_t, 256>, 8> tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1U) ^ ((crc & 1U) != 0 ? reversed_polynomial : 0U);
    tables[0][byte] = crc;
  }
  for (std::size_t k = 1; k < 8; ++k) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t previous = tables[k - 1][byte];
      tables[k][byte] = (previous >> 8U) ^ tables[0][previous & 0xFFU];
    }
  }
  return tables;
}

constexpr auto slicing_tables = make_tables();

std::uint32_t load_le32(const std::byte* from) noexcept {
  std::uint32_t word = 0;
  for (unsigned i = 0; i < 4; ++i) word |= std::to_integer<std::uint32_t>(from[i]) << (8 * i);
  return word;  // compilers turn this into one load
}

#if TIDEMILL_CRC32C_SSE42
__attribute__((target("sse4.2"))) std::uint32_t crc32c_sse42(std::span<const std::byte> bytes,
                                                             std::uint32_t seed) noexcept {
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  std::uint64_t crc = ~seed;
  for (; left >= 8; at += 8, left -= 8) {
    std::uint64_t word;
    std::memcpy(&word, at, 8);
    crc = _mm_crc32_u64(crc, word);
  }
  auto tail = static_cast<std::uint32_t>(crc);
  for (; left > 0; ++at, --left) tail = _mm_crc32_u8(tail, std::to_integer<unsigned char>(*at));
  return ~tail;
}
#endif

}  // namespace

std::uint32_t detail::crc32c_portable(std::span<const std::byte> bytes, std::uint32_t seed) noexcept {
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  std::uint32_t crc = ~seed;
  for (; left >= 8; at += 8, left -= 8) {
    const std::uint32_t low = crc ^ load_le32(at);
    const std::uint32_t high = load_le32(at + 4);
    crc = slicing_tables[7][low & 0xFFU] ^ slicing_tables[6][(low >> 8U) & 0xFFU] ^
          slicing_tables[5][(low >> 16U) & 0xFFU] ^ slicing_tables[4][low >> 24U] ^ slicing_tables[3][high & 0xFFU] ^
          slicing_tables[2][(high >> 8U) & 0xFFU] ^ slicing_tables[1][(high >> 16U) & 0xFFU] ^
          slicing_tables[0][high >> 24U];
  }
  for (; left > 0; ++at, --left)
    crc = (crc >> 8U) ^ slicing_tables[0][(crc ^ std::to_integer<std::uint32_t>(*at)) & 0xFFU];
  return ~crc;
}

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t seed) noexcept {
#if TIDEMILL_CRC32C_SSE42
  if (__builtin_cpu_supports("sse4.2"))
    return crc32c_sse42(bytes, seed);  // reads one word that start-up code filled in
#endif
  return detail::crc32c_portable(bytes, seed);
}

}  // namespace tidemill
