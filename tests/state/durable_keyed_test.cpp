// The bytes of changes, and a keyed state that goes into them and comes back.
#include "tidemill/state/durable_keyed.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tidemill {
namespace {

struct Packed {
  std::int64_t sum;
  double mean;
};
struct Padded {
  std::int8_t small;
  std::int64_t large;
};

// What put() is to append, by the codec alone.
template <class K, class V>
std::string entry(KeyGroup group, const K& key, const V& value) {
  std::string bytes;
  Encoder to{bytes};
  to.fixed(std::uint8_t{1});
  to.fixed(group);
  for (const std::string& part : {encode(key), encode(value)}) {
    to.fixed(static_cast<std::uint32_t>(part.size()));
    bytes += part;
  }
  return bytes;
}

TEST(StateChanges, AreTheBytesOfTheCodecWhetherTheyAreCopiedOrNot) {
  static_assert(detail::CopiedToBytes<Packed> && detail::CopiedToBytes<std::pair<std::uint64_t, Time>>);
  static_assert(!detail::CopiedToBytes<Padded> && !detail::CopiedToBytes<bool> && !detail::CopiedToBytes<std::string>);
  StateChanges changes;
  changes.put(7, std::pair{1UL, Time{Duration{-2}}}, Packed{-3, 0.5});
  changes.put(8, 9, Padded{4, 5});
  changes.put(9, std::string_view{"key"}, Time{Duration{6}}, std::string{"state"});
  changes.put(10, std::uint8_t{1}, Time{Duration{6}}, std::uint16_t{2});
  EXPECT_EQ(changes.bytes(), entry(7, std::pair{1UL, Time{Duration{-2}}}, Packed{-3, 0.5}) + entry(8, 9, Padded{4, 5}) +
                                 entry(9, std::string{"key"}, std::pair{Time{Duration{6}}, std::string{"state"}}) +
                                 entry(10, std::uint8_t{1}, std::pair{Time{Duration{6}}, std::uint16_t{2}}));
}

TEST(StateChanges, PartsFollowWhatWasThereInTheirOrder) {
  StateChanges changes;
  for (int round = 0; round < 2; ++round) {
    changes.clear();
    EXPECT_TRUE(changes.empty());
    changes.put(0, 'a', 'b');
    const auto parts = changes.split(3);
    parts[2].put(2, 'e', 'f');
    parts[0].put(1, 'c', 'd');
    changes.put(3, 'g', 'h');
    EXPECT_EQ(changes.bytes(), entry(0, 'a', 'b') + entry(1, 'c', 'd') + entry(2, 'e', 'f') + entry(3, 'g', 'h'));
    EXPECT_EQ(changes.size(), changes.bytes().size());
  }
}

using Store = KeyedStore<std::uint64_t, std::int64_t>;
using Durable = DurableKeyedStore<std::uint64_t, std::int64_t, SavedTouch::no>;

struct Kept {
  explicit Kept(std::size_t partitions = 2) : store{std::make_shared<Store>(partitions, false)} {}
  std::shared_ptr<Store> store;
  Durable durable{store, std::make_shared<WorkerPool>("test", 2), "kind", ""};
};

// More than are put into the index at a time, without a word about how many will come.
TEST(DurableKeyedStore, TakesBackMoreKeysThanItWasToldOf) {
  constexpr std::uint64_t keys = 1'200'000;
  Kept kept;
  for (std::uint64_t key = 0; key < keys; ++key) kept.durable.restore(0, encode(key), encode(std::int64_t{1}));
  kept.durable.restored(Time{});
  EXPECT_EQ(kept.store->size(), keys);
  for (std::uint64_t key = 0; key < keys; key += 1009) ASSERT_EQ(kept.store->get(key), 1) << key;
  EXPECT_EQ(kept.store->get(keys), std::nullopt);
}

KeyGroup group_of(std::uint64_t key) { return static_cast<KeyGroup>(Store::Table::tag_of(key) >> 24); }

TEST(DurableKeyedStore, PartsAreTakenBackByAsManyThreads) {
  constexpr std::uint64_t keys = 20'000;
  for (const std::size_t partitions : {1, 2, 3, 7, 300}) {
    Kept kept{partitions};
    const std::size_t parts = kept.durable.restore_parts();
    EXPECT_EQ(parts, partitions > 256 ? 1 : partitions);
    kept.durable.restoring(keys);
    {
      std::vector<std::jthread> threads;
      for (std::size_t part = 0; part < parts; ++part) {
        threads.emplace_back([&kept, part, parts] {
          for (std::uint64_t key = 0; key < keys; ++key) {
            // Some have another hash than when they were written.
            const auto group = static_cast<KeyGroup>(group_of(key) + (key % 100 == 0 ? 77 : 0));
            if ((group * parts) >> 8 == part) kept.durable.restore(group, encode(key), encode(std::int64_t{1}));
          }
        });
      }
    }
    EXPECT_EQ(kept.store->size(), 0U);
    kept.durable.restored(Time{});
    EXPECT_EQ(kept.store->size(), keys);
    for (std::uint64_t key = 0; key < keys; ++key) ASSERT_EQ(kept.store->get(key), 1) << key;
  }
}

TEST(DurableKeyedStore, IsAsItWasUntilAllIsTakenBack) {
  Kept kept;
  kept.durable.restoring(2);
  kept.durable.restore(group_of(1), encode(std::uint64_t{1}), encode(std::int64_t{1}));
  EXPECT_EQ(kept.store->size(), 0U);
  EXPECT_THROW(kept.durable.restore(group_of(2), encode(std::uint64_t{2}), "?"), StateError);
  kept.durable.restoring(1);  // another attempt
  kept.durable.restore(group_of(1), encode(std::uint64_t{1}), encode(std::int64_t{5}));
  kept.durable.restored(Time{});
  EXPECT_EQ(kept.store->size(), 1U);
  EXPECT_EQ(kept.store->get(1), 5);
}

TEST(DurableKeyedStore, AKeyThatComesTwiceIsRefused) {
  Kept kept;
  for (const std::uint64_t key : {1, 2, 1}) kept.durable.restore(0, encode(key), encode(std::int64_t{1}));
  EXPECT_THROW(kept.durable.restored(Time{}), StateError);
}

}  // namespace
}  // namespace tidemill
