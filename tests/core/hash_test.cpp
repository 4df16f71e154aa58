// Hashes: equal for equal keys of any form, spread well, and the same in every run.
#include "tidemill/core/hash.hpp"

#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_set>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

enum class Colour { red, green };
struct UserId {
  int value;
  friend bool operator==(const UserId&, const UserId&) = default;
};
template <>
struct tidemill::Hash<UserId> {
  std::uint64_t operator()(const UserId& id) const noexcept { return tidemill::hash_of(id.value); }
};
struct NoHash {
  friend bool operator==(const NoHash&, const NoHash&) = default;
};

namespace tidemill {
namespace {

static_assert(Key<int> && Key<std::string> && Key<std::string_view> && Key<Colour> && Key<double> && Key<UserId>);
static_assert(Key<std::pair<std::string, int>> && Key<std::tuple<int, std::optional<double>>> && Key<std::vector<int>>);
static_assert(Key<std::variant<int, std::string>> && !Key<NoHash> && !Key<std::pair<int, NoHash>>);

TEST(Hash, OfAViewIsThatOfTheStringWhateverItsLength) {
  for (std::size_t n = 0; n < 300; ++n) {
    std::string text;
    for (std::size_t i = 0; i < n; ++i) text.push_back(static_cast<char>('a' + i % 26));
    const std::string padded = "##" + text + "##";
    EXPECT_EQ(hash_of(text), hash_of(std::string_view{padded}.substr(2, n))) << n;
  }
}

TEST(Hash, TellsTextsApartByEachByteAndByLength) {
  std::unordered_set<std::uint64_t> seen;
  std::size_t texts = 0;
  for (const std::size_t n : {1u, 7u, 8u, 15u, 16u, 17u, 31u, 32u, 33u, 100u}) {
    const std::string base(n, '\0');
    seen.insert(hash_of(base));
    ++texts;
    for (std::size_t i = 0; i < n; ++i) {
      for (int bit = 0; bit < 8; ++bit) {
        std::string text = base;
        text[i] = static_cast<char>(1 << bit);
        seen.insert(hash_of(text));
        ++texts;
      }
    }
  }
  EXPECT_EQ(seen.size(), texts);
}

TEST(Hash, OfPositiveAndNegativeZeroIsTheSame) {
  EXPECT_EQ(hash_of(0.0), hash_of(-0.0));
  EXPECT_NE(hash_of(1.0), hash_of(2.0));
  EXPECT_EQ(hash_of(1.5F), hash_of(1.5));
}

TEST(Hash, OfCompositesDependsOnEveryPartAndItsPlace) {
  EXPECT_NE(hash_of(std::pair{1, 2}), hash_of(std::pair{2, 1}));
  EXPECT_NE(hash_of(std::tuple{1, 2, 3}), hash_of(std::tuple{1, 3, 2}));
  EXPECT_NE(hash_of(std::vector{1, 2}), hash_of(std::vector{2, 1}));
  EXPECT_NE(hash_of(std::vector<int>{}), hash_of(std::vector{0}));
  const std::vector<std::optional<int>> none_and_zero{std::nullopt, 0};
  EXPECT_NE(hash_of(none_and_zero[0]), hash_of(none_and_zero[1]));
  EXPECT_NE(hash_of(std::variant<int, long>{1}), hash_of(std::variant<int, long>{1L}));
}

TEST(Hash, SpreadsConsecutiveNumbersOverTheTopByteOfTheTag) {
  // The top byte chooses the partition, the low bits the slot.
  std::vector<int> groups(256);
  std::vector<int> slots(256);
  for (int i = 0; i < 256 * 100; ++i) {
    const std::uint32_t tag = detail::tag_of_hash(hash_of(i));
    ++groups[tag >> 24];
    ++slots[tag & 255];
  }
  for (const int n : groups) EXPECT_NEAR(n, 100, 60);
  for (const int n : slots) EXPECT_NEAR(n, 100, 60);
}

TEST(Hash, IsTheSameInEveryRun) {
  // Partitions, and with them the order of results, follow from these numbers; state on disk will too.
  const std::uint64_t number = hash_of(42);
  const std::uint64_t word = hash_of(std::string_view{"tide"});
  const std::uint64_t sentence = hash_of(std::string_view{"time and tide wait for no man, and for no mill"});
  EXPECT_EQ(number, 0x3e945f484f4d8b23u);
  EXPECT_EQ(word, 0x861ebc4dde9437b5u);
  EXPECT_EQ(sentence, 0xd364b8f68ebe8cb7u);
}

TEST(Hash, OfNothingNeverMakesTheTagOfAFreeSlot) {
  EXPECT_EQ(detail::tag_of_hash(0), 1u);
  EXPECT_EQ(detail::tag_of_hash(0x1234567800000000u), 1u);
}

}  // namespace
}  // namespace tidemill
