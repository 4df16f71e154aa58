#include "tidemill/core/crc32c.hpp"

#include <algorithm>
#include <cstdint>
#include <random>
#include <span>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

namespace tidemill {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span{text}); }

// The definition, one bit at a time.
std::uint32_t by_definition(std::span<const std::byte> bytes, std::uint32_t seed) {
  std::uint32_t crc = ~seed;
  for (const std::byte byte : bytes) {
    crc ^= std::to_integer<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1U) ^ ((crc & 1U) != 0 ? 0x82F63B78U : 0U);
  }
  return ~crc;
}

std::vector<std::byte> random_bytes(std::mt19937_64& random, std::size_t size) {
  std::vector<std::byte> bytes(size);
  std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<std::byte>(random() & 0xFFU); });
  return bytes;
}

TEST(Crc32c, GivesTheTestVectorsOfRfc3720) {
  std::vector<std::byte> bytes(32, std::byte{0});
  EXPECT_EQ(crc32c(bytes), 0x8A9136AAU);
  std::fill(bytes.begin(), bytes.end(), std::byte{0xFF});
  EXPECT_EQ(crc32c(bytes), 0x62A8AB43U);
  for (std::size_t i = 0; i < 32; ++i) bytes[i] = static_cast<std::byte>(i);
  EXPECT_EQ(crc32c(bytes), 0x46DD794EU);
  for (std::size_t i = 0; i < 32; ++i) bytes[i] = static_cast<std::byte>(31 - i);
  EXPECT_EQ(crc32c(bytes), 0x113FDB5CU);

  std::vector<std::byte> read_command(48, std::byte{0});  // an iSCSI SCSI Read (10) command PDU
  read_command[0] = std::byte{0x01};
  read_command[1] = std::byte{0xC0};
  read_command[16] = std::byte{0x14};
  read_command[22] = std::byte{0x04};
  read_command[27] = std::byte{0x14};
  read_command[31] = std::byte{0x18};
  read_command[32] = std::byte{0x28};
  read_command[40] = std::byte{0x02};
  EXPECT_EQ(crc32c(read_command), 0xD9963A56U);
  EXPECT_EQ(detail::crc32c_portable(read_command), 0xD9963A56U);
}

TEST(Crc32c, GivesTheCheckValueOfTheCatalogue) { EXPECT_EQ(crc32c(bytes_of("123456789")), 0xE3069283U); }

TEST(Crc32c, OfNothingIsTheSeed) {
  EXPECT_EQ(crc32c({}), 0U);
  EXPECT_EQ(crc32c({}, 0x12345678U), 0x12345678U);
}

TEST(Crc32c, EqualsTheDefinitionAtEveryLengthAndAlignment) {
  std::mt19937_64 random{3720};
  const std::vector<std::byte> bytes = random_bytes(random, 96);
  for (std::size_t begin = 0; begin < 9; ++begin) {
    for (std::size_t length = 0; begin + length <= bytes.size(); ++length) {
      const auto part = std::span{bytes}.subspan(begin, length);
      const auto seed = static_cast<std::uint32_t>(random());
      const std::uint32_t expected = by_definition(part, seed);
      ASSERT_EQ(crc32c(part, seed), expected) << "begin " << begin << ", length " << length;
      ASSERT_EQ(detail::crc32c_portable(part, seed), expected) << "begin " << begin << ", length " << length;
    }
  }
}

TEST(Crc32c, OfTwoPartsContinuesFromTheFirst) {
  std::mt19937_64 random{42};
  const std::vector<std::byte> bytes = random_bytes(random, 1000);
  for (const std::size_t cut : {std::size_t{0}, std::size_t{1}, std::size_t{13}, std::size_t{512}, bytes.size()}) {
    const std::uint32_t first = crc32c(std::span{bytes}.first(cut));
    EXPECT_EQ(crc32c(std::span{bytes}.subspan(cut), first), crc32c(bytes)) << "cut at " << cut;
  }
}

TEST(Crc32c, NoticesEverySingleBitThatFlips) {
  std::mt19937_64 random{7};
  std::vector<std::byte> bytes = random_bytes(random, 64);
  const std::uint32_t before = crc32c(bytes);
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    const auto mask = static_cast<std::byte>(1U << (bit % 8));
    bytes[bit / 8] ^= mask;
    ASSERT_NE(crc32c(bytes), before) << "bit " << bit;
    bytes[bit / 8] ^= mask;
  }
}

}  // namespace
}  // namespace tidemill
