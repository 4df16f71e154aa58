// The index from tags to slots: sorted, dense, and right whatever the tags are.
#include "tidemill/state/detail/tag_index.hpp"

#include <algorithm>
#include <map>
#include <random>
#include <span>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tidemill::detail {
namespace {

std::vector<Slot> in_order(const TagIndex& index) {
  std::vector<Slot> slots;
  index.for_each([&](Slot slot) { slots.push_back(slot); });
  return slots;
}
void add(TagIndex& index, std::uint32_t rank, Slot slot) {
  index.insert(rank, slot, [&](Slot other) { return other < slot; });
}

TEST(TagIndex, IsEmptyAtFirst) {
  const TagIndex index;
  EXPECT_EQ(index.first(0), no_slot);
  EXPECT_EQ(index.first(0xffffffff), no_slot);
  EXPECT_EQ(index.allocated_bytes(), 0u);
  EXPECT_TRUE(in_order(index).empty());
}

TEST(TagIndex, KeepsTheOrderOfRanksAndOfTheirOwner) {  // TI1
  TagIndex index;
  for (const auto& [rank, slot] :
       {std::pair{500u, 3u}, {7u, 9u}, {0xffffffffu, 1u}, {500u, 2u}, {0u, 4u}, {500u, 8u}}) {
    add(index, rank, slot);
  }
  EXPECT_THAT(in_order(index), ::testing::ElementsAre(4u, 9u, 2u, 3u, 8u, 1u));
  EXPECT_EQ(index.find(500, [](Slot slot) { return slot == 8; }), 8u);
  EXPECT_EQ(index.find(500, [](Slot slot) { return slot == 4; }), no_slot);
  EXPECT_EQ(index.first(0xffffffff), 1u);
}

TEST(TagIndex, HoldsManyOfOneRankWhereverItStands) {  // TI2, TI3
  for (const std::uint32_t rank : {0u, 0x80000000u, 0xffffffffu}) {
    TagIndex index;
    for (Slot slot = 0; slot < 3000; ++slot) add(index, rank, slot);
    EXPECT_EQ(index.size(), 3000u);
    EXPECT_EQ(index.find(rank, [](Slot slot) { return slot == 2999; }), 2999u);
    EXPECT_LT(index.allocated_bytes(), 3000u * 8 * 6) << "growing does not help, so it must not go on";
    for (Slot slot = 0; slot < 3000; slot += 2) index.erase(rank, slot);
    EXPECT_EQ(index.find(rank, [](Slot slot) { return slot == 2999; }), 2999u);
    EXPECT_EQ(index.find(rank, [](Slot slot) { return slot == 2998; }), no_slot);
  }
}

TEST(TagIndex, AgreesWithAMapOnRandomInsertionsAndErasures) {
  std::mt19937 random{11};
  for (const std::uint32_t spread : {1u, 16u, 5000u, 0u}) {  // 0: the whole range
    TagIndex index;
    std::map<std::pair<std::uint32_t, Slot>, bool> oracle;
    Slot next = 0;
    for (int i = 0; i < 20000; ++i) {
      const auto rank =
          static_cast<std::uint32_t>(spread == 0 ? random() : (random() % spread) * (0xffffffffu / spread));
      if (oracle.empty() || random() % 3 != 0) {
        add(index, rank, next);
        oracle[{rank, next++}] = true;
      } else {
        auto at = oracle.lower_bound({rank, 0});
        if (at == oracle.end()) at = oracle.begin();
        index.erase(at->first.first, at->first.second);
        oracle.erase(at);
      }
    }
    std::vector<Slot> expected;
    for (const auto& [entry, there] : oracle) {
      expected.push_back(entry.second);
      ASSERT_EQ(index.find(entry.first, [&](Slot slot) { return slot == entry.second; }), entry.second);
      ASSERT_EQ(index.first(entry.first), oracle.lower_bound({entry.first, 0})->first.second);
      const std::uint32_t other = entry.first + 1;
      const auto next_entry = oracle.lower_bound({other, 0});
      const bool is_there = next_entry != oracle.end() && next_entry->first.first == other;
      ASSERT_EQ(index.first(other), is_there ? next_entry->first.second : no_slot);
    }
    EXPECT_EQ(in_order(index), expected);
    EXPECT_EQ(index.size(), oracle.size());
  }
}

TEST(TagIndex, FindsTheFirstOfARankSparseOrDense) {
  std::mt19937 random{7};
  TagIndex index;
  std::map<std::uint32_t, Slot> first;
  for (const std::size_t size : {100u, 40000u, 60000u, 250000u}) {
    while (index.size() < size) {
      const auto rank = static_cast<std::uint32_t>(random() | 1);  // so that even ones are not there
      const auto slot = static_cast<Slot>(index.size());
      first.try_emplace(rank, slot);
      add(index, rank, slot);
    }
    for (const auto& [rank, slot] : first) {
      ASSERT_EQ(index.first(rank), slot) << size;
      ASSERT_EQ(index.first(rank - 1), no_slot) << size;
    }
  }
}

TEST(TagIndex, IsTheSameWhenItIsBuiltAtOnce) {
  std::mt19937 random{5};
  for (const std::uint32_t spread : {1u, 16u, 5000u, 0u}) {  // 0: the whole range
    for (const Slot count : {0u, 1u, 3u, 40u, 20000u}) {
      TagIndex one_by_one;
      std::vector<TagIndex::Cell> cells;
      for (Slot slot = 0; slot < count; ++slot) {
        const auto rank =
            static_cast<std::uint32_t>(spread == 0 ? random() : (random() % spread) * (0xffffffffu / spread));
        add(one_by_one, rank, slot);
        cells.push_back(TagIndex::cell(rank, slot));
      }
      std::shuffle(cells.begin(), cells.end(), random);
      TagIndex at_once;
      at_once.build(cells, [](std::span<TagIndex::Cell> same) {
        ASSERT_GT(same.size(), 1u);
        ASSERT_EQ(TagIndex::rank_in(same.front()), TagIndex::rank_in(same.back()));
        std::sort(same.begin(), same.end());
      });
      ASSERT_EQ(in_order(at_once), in_order(one_by_one));
      EXPECT_EQ(at_once.size(), count);
      if (count == 20000) {
        EXPECT_LE(at_once.allocated_bytes(), one_by_one.allocated_bytes() * 5 / 4);
      }
      for (const TagIndex::Cell cell : cells) {
        const Slot slot = TagIndex::slot_in(cell);
        ASSERT_EQ(at_once.find(TagIndex::rank_in(cell), [&](Slot found) { return found == slot; }), slot);
      }
      // It goes on as any other.
      for (Slot slot = count; slot < count + 100; ++slot) add(at_once, static_cast<std::uint32_t>(random()), slot);
      for (const TagIndex::Cell cell : cells) at_once.erase(TagIndex::rank_in(cell), TagIndex::slot_in(cell));
      EXPECT_EQ(at_once.size(), 100u);
    }
  }
}

TEST(TagIndex, TakesTenToTwelveAndAHalfBytesAnEntryAndMoreWhenItIsSmall) {
  TagIndex index;
  std::mt19937 random{3};
  for (Slot slot = 0; slot < 200000; ++slot) {
    add(index, static_cast<std::uint32_t>(random()), slot);
    if (slot < 3000) continue;
    ASSERT_LE(static_cast<double>(index.allocated_bytes()) / (slot + 1), slot < 55000 ? 15.2 : 12.7) << slot;
  }
}

}  // namespace
}  // namespace tidemill::detail
