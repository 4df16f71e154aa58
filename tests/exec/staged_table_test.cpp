// The staged table against std::map, with keys of every form.
#include "tidemill/exec/staged_table.hpp"

#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace tidemill::detail {
namespace {

struct Sum {
  long create(int&& v) const { return v; }
  void merge(long& acc, int&& v) const { acc += v; }
};
template <class K>
using SumTable = StagedTable<K, int, long, Sum>;

template <class K>
std::map<K, long> contents(SumTable<K>& table, Arena& arena) {  // which the keys look at
  std::map<K, long> all;
  std::vector<std::pair<K, long>> entries;
  table.for_each_slot([&](std::uint32_t slot, std::uint32_t tag, const auto&) {
    EXPECT_EQ(tag, table.tag_of(slot));
    table.take(slot,
               [&](auto&& key, long&& acc) { entries.emplace_back(KeyForm<K>::restore(std::move(key), arena), acc); });
  });
  for (auto& [key, acc] : entries) EXPECT_TRUE(all.emplace(key, acc).second) << "a key is there twice";
  return all;
}

template <class K, class MakeKey>
void compare_with_map(std::size_t records, std::uint32_t keys, const MakeKey& make) {
  std::mt19937 random{7};
  SumTable<K> table{Sum{}};
  std::map<K, long> expected;
  for (std::size_t i = 0; i < records; ++i) {
    const K key = make(static_cast<std::uint32_t>(random()) % keys);
    const int value = static_cast<int>(random() % 100);
    expected[key] += value;
    table.template add<false>(key, int{value});
  }
  table.flush();
  EXPECT_EQ(table.size(), expected.size());
  for (const auto& [key, sum] : expected) {
    const long* const found = table.lookup(key);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(*found, sum);
  }
  Arena arena;
  EXPECT_EQ(contents(table, arena), expected);
}

TEST(StagedTable, AgreesWithAMapForNumbers) {
  compare_with_map<int>(50000, 10, [](std::uint32_t i) { return static_cast<int>(i); });
  compare_with_map<std::uint64_t>(50000, 30000, [](std::uint32_t i) { return std::uint64_t{i} << 40; });
}

TEST(StagedTable, AgreesWithAMapForStringsOfEveryLength) {
  const auto make = [](std::uint32_t i) {
    return std::string(i % 40, static_cast<char>('a' + i % 7)) + std::to_string(i);
  };
  compare_with_map<std::string>(50000, 5000, make);
  std::vector<std::string> texts;
  for (std::uint32_t i = 0; i < 5000; ++i) texts.push_back(make(i));
  texts[3] = "";
  texts[4] = std::string(15, 'x');
  texts[5] = std::string(16, 'x');
  texts[6] = std::string("a\0b", 3);
  texts[7] = std::string("a\0", 2);
  texts[8] = "a";
  compare_with_map<std::string_view>(50000, 5000, [&](std::uint32_t i) { return std::string_view{texts[i]}; });
}

TEST(StagedTable, AgreesWithAMapForCompositeKeys) {
  compare_with_map<std::pair<std::string, int>>(20000, 3000, [](std::uint32_t i) {
    return std::pair{"a name that is not short " + std::to_string(i / 3), static_cast<int>(i % 3)};
  });
}

TEST(StagedTable, CopiesTheTextOfKeysThatLookAtTemporaries) {
  SumTable<std::string_view> table{Sum{}};
  for (int i = 0; i < 3000; ++i) {
    std::string text = (i % 2 == 0 ? "s" : "a text of more than fifteen bytes ") + std::to_string(i % 100);
    table.add<false>(std::string_view{text}, 1);
    text.assign(text.size(), '#');
  }
  table.flush();
  Arena arena;
  const auto all = contents(table, arena);
  EXPECT_EQ(all.size(), 100u);
  for (const auto& [key, count] : all) EXPECT_EQ(key.find('#'), std::string_view::npos);
}

TEST(StagedTable, FoldsTheValuesOfAKeyInTheOrderInWhichTheyCame) {
  struct Append {
    std::vector<int> create(int&& v) const { return {v}; }
    void merge(std::vector<int>& acc, int&& v) const { acc.push_back(v); }
  };
  StagedTable<std::string_view, int, std::vector<int>, Append> table{Append{}};
  std::map<std::string, std::vector<int>> expected;
  for (int i = 0; i < 2000; ++i) {
    // Far and near keys in turn: the far ones overtake nothing that waits.
    const std::string key = i % 3 == 0 ? "a text of more than fifteen bytes" : "near" + std::to_string(i % 5);
    expected[key].push_back(i);
    table.add<false>(std::string_view{key}, int{i});
  }
  table.flush();
  for (const auto& [key, values] : expected) {
    const auto* const found = table.lookup(key);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(*found, values);
  }
}

TEST(StagedTable, AbsorbsAnotherOne) {
  SumTable<std::string> a{Sum{}};
  SumTable<std::string> b{Sum{}};
  for (int i = 0; i < 500; ++i) a.add<false>("a somewhat long key " + std::to_string(i), 1);
  for (int i = 250; i < 1000; ++i) b.add<false>("a somewhat long key " + std::to_string(i), 10);
  a.flush();
  b.flush();
  std::vector<std::uint32_t> slots;
  b.for_each_slot([&](std::uint32_t slot, std::uint32_t, const auto&) { slots.push_back(slot); });
  a.absorb(b, slots, [](long& mine, long&& theirs) { mine += theirs; });
  EXPECT_EQ(a.size(), 1000u);
  EXPECT_EQ(*a.lookup("a somewhat long key 1"), 1);
  EXPECT_EQ(*a.lookup("a somewhat long key 300"), 11);
  EXPECT_EQ(*a.lookup("a somewhat long key 900"), 10);
  EXPECT_EQ(a.lookup("absent"), nullptr);
}

TEST(StagedTable, OfNothingHasNothing) {
  SumTable<int> table{Sum{}};
  table.flush();
  EXPECT_EQ(table.size(), 0u);
  EXPECT_EQ(table.lookup(1), nullptr);
  Arena arena;
  EXPECT_TRUE(contents(table, arena).empty());
}

// Counts objects, and throws when it is told to.
struct Tracked {
  static inline int alive = 0;
  explicit Tracked(int n) : value{n} { ++alive; }
  Tracked(const Tracked& other) : value{other.value} { ++alive; }
  Tracked(Tracked&& other) noexcept : value{other.value} { ++alive; }
  Tracked& operator=(const Tracked&) = default;
  Tracked& operator=(Tracked&&) = default;
  ~Tracked() { --alive; }
  int value;
};
struct ThrowingFold {
  int fail_at;
  Tracked create(Tracked&& v) const {
    if (v.value == fail_at) throw std::runtime_error{"create"};
    return std::move(v);
  }
  void merge(Tracked& acc, Tracked&& v) const {
    if (v.value == fail_at) throw std::runtime_error{"merge"};
    acc.value += v.value;
  }
};

TEST(StagedTable, LeavesNothingBehindWhenTheFoldThrows) {
  for (const int keys : {1, 7, 1000}) {
    for (const int fail_at : {0, 1, 63, 64, 500, 999}) {
      {
        StagedTable<int, Tracked, Tracked, ThrowingFold> table{ThrowingFold{fail_at}};
        EXPECT_THROW(
            {
              for (int i = 0; i < 1000; ++i) table.add<true>(i % keys, Tracked{i});
              table.flush();
            },
            std::runtime_error);
      }
      EXPECT_EQ(Tracked::alive, 0) << keys << " keys, fails at " << fail_at;
    }
  }
}

TEST(StagedTable, MovesValuesThatCannotBeCopied) {
  struct Keep {
    std::unique_ptr<int> create(std::unique_ptr<int>&& v) const { return std::move(v); }
    void merge(std::unique_ptr<int>& acc, std::unique_ptr<int>&& v) const { *acc += *v; }
  };
  StagedTable<int, std::unique_ptr<int>, std::unique_ptr<int>, Keep> table{Keep{}};
  for (int i = 0; i < 200; ++i) table.add<true>(i % 3, std::make_unique<int>(i));
  table.flush();
  StagedTable<int, std::unique_ptr<int>, std::unique_ptr<int>, Keep> moved{std::move(table)};
  EXPECT_EQ(**moved.lookup(0) + **moved.lookup(1) + **moved.lookup(2), 199 * 100);
}

TEST(ShortKey, TellsApartWhatPaddingWouldMakeEqual) {
  const std::vector<std::string> texts{"",
                                       std::string(1, '\0'),
                                       std::string(2, '\0'),
                                       "a",
                                       std::string("a\0", 2),
                                       std::string(15, 'a'),
                                       std::string(16, 'a'),
                                       std::string(17, 'a')};
  for (std::size_t i = 0; i < texts.size(); ++i) {
    for (std::size_t j = 0; j < texts.size(); ++j) {
      EXPECT_EQ(ShortKey{texts[i]}.equals(ShortKey{texts[j]}), i == j);
    }
    EXPECT_EQ(ShortKey{texts[i]}.text(), texts[i]);
    EXPECT_EQ(ShortKey{texts[i]}.hash(), hash_of(std::string_view{texts[i]})) << "SK2";
  }
}

}  // namespace
}  // namespace tidemill::detail
