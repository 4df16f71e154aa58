// The bytes of changes, and a keyed state that goes into them and comes back.
#include "tidemill/state/durable_keyed.hpp"

#include <cstdint>
#include <memory>
#include <stdexcept>
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

// What a step changes, as a function of the table of the only partition.
class Changing {
 public:
  Changing() { durable_.track_changes(); }

  template <class Work>
  void step(int t, Work&& work) {
    store_->step(Time{Duration{t}}, [&] { work(store_->partition(0).table); });
  }
  static void put(Store::Table& table, std::uint64_t key, std::int64_t state) {
    const std::uint32_t tag = Store::Table::tag_of(key);
    if (const auto place = table.find(tag, key)) return table.assign(place, std::move(state));
    table.insert(tag, std::move(key), std::move(state));
  }
  static void remove(Store::Table& table, std::uint64_t key) {
    table.remove(table.find(Store::Table::tag_of(key), key));
  }
  // "1=10 2=20 -3", in the order in which they stand.
  std::string take() {
    StateChanges changes;
    durable_.take_changes(changes);
    std::string text;
    const std::string bytes = changes.bytes();
    for (std::string_view rest = bytes; !rest.empty();) {
      const bool put = rest[0] == 1;
      const auto number = [&](std::size_t at) { return std::to_string(decode<std::int64_t>(rest.substr(at, 8))); };
      text += (text.empty() ? "" : " ") + (put ? number(6) + "=" + number(18) : "-" + number(6));
      rest.remove_prefix(put ? 26 : 14);
    }
    return text;
  }

 private:
  std::shared_ptr<Store> store_ = std::make_shared<Store>(1, false);
  Durable durable_{store_, std::make_shared<WorkerPool>("test", 1), "kind", ""};
};

TEST(DurableKeyedStore, ChangesFollowOneAnotherAcrossBatches) {
  Changing state;
  state.step(1, [](auto& table) {
    for (std::uint64_t key = 1; key <= 3; ++key) Changing::put(table, key, 10);
  });
  state.step(2, [](auto& table) { Changing::remove(table, 2); });
  state.step(3, [](auto& table) { Changing::put(table, 2, 20); });
  EXPECT_EQ(state.take(), "1=10 2=10 3=10 -2 2=20");
  EXPECT_EQ(state.take(), "");
  state.step(4, [](auto& table) { Changing::put(table, 1, 30); });
  EXPECT_EQ(state.take(), "1=30");
}

TEST(DurableKeyedStore, AKeyThatABatchChangesAgainAndAgainIsWrittenOnce) {
  Changing state;
  state.step(1, [](auto& table) {
    Changing::put(table, 7, 7);
    for (std::int64_t i = 0; i < 1000; ++i) {
      for (std::uint64_t key = 1; key <= 3; ++key) Changing::put(table, key, i);
      const auto place = table.find(Store::Table::tag_of(4), 4);
      if (place && table.exists(place)) {
        Changing::remove(table, 4);
      } else {
        Changing::put(table, 4, i);
      }
    }
  });
  EXPECT_EQ(state.take(), "7=7 1=999 2=999 3=999 -4");
  state.step(2, [](auto& table) { Changing::put(table, 7, 8); });
  EXPECT_EQ(state.take(), "7=8") << "the next batch begins anew";
}

TEST(DurableKeyedStore, AStateThatIsEditedInPlaceIsWrittenAsItIsAtTheEnd) {
  Changing state;
  state.step(1, [](auto& table) {
    for (std::uint64_t key = 0; key < 200; ++key) Changing::put(table, key, 1);
    const auto place = table.find(Store::Table::tag_of(0), 0);
    ASSERT_TRUE(table.is_saved(place));
    const_cast<std::int64_t&>(table.state(place)) = 2;
    table.edited(place);
  });
  const std::string changes = state.take();
  EXPECT_THAT(changes, ::testing::StartsWith("0=1 1=1 ")) << "few repetitions are cheaper than a second pass";
  EXPECT_THAT(changes, ::testing::EndsWith(" 199=1 0=2"));
}

TEST(DurableKeyedStore, ABatchThatFailsLeavesTheChangesBeforeItAndNoOthers) {
  Changing state;
  state.step(1, [](auto& table) { Changing::put(table, 1, 1); });
  for (const int repetitions : {1, 1000}) {
    EXPECT_THROW(state.step(2,
                            [&](auto& table) {
                              for (int i = 0; i < repetitions; ++i) {
                                for (std::uint64_t key = 0; key < 100; ++key) Changing::put(table, key, 2);
                              }
                              throw std::runtime_error{"boom"};
                            }),
                 std::runtime_error);
  }
  EXPECT_EQ(state.take(), "1=1");
}

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
