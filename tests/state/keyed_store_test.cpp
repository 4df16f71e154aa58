// The partitions of a state together: batches count whole or not at all, earlier versions can be read, and the host reads while
// batches run.
#include "tidemill/state/keyed_store.hpp"

#include <atomic>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tidemill {
namespace {

using Store = KeyedStore<std::string, int>;
using Content = std::map<std::string, int>;

Time at(int second) { return Time{std::chrono::seconds{second}}; }

void put(Store& store, const std::string& key, int state) {
  auto probe = detail::TableKey<std::string>::probe(key);
  const auto tag = Store::Table::tag_of(probe);
  auto& table = store.partition(detail::partition_of_tag(tag, store.partitions())).table;
  if (const auto place = table.find(tag, probe)) {
    table.assign(place, int{state});
  } else {
    table.insert(tag, std::move(probe), int{state});
  }
}
void drop(Store& store, const std::string& key) {
  auto probe = detail::TableKey<std::string>::probe(key);
  const auto tag = Store::Table::tag_of(probe);
  auto& table = store.partition(detail::partition_of_tag(tag, store.partitions())).table;
  table.remove(table.find(tag, probe));
}
Content at_version(Store& store, const Store::Version& version) {
  Content content;
  store.while_still([&] {
    for (std::size_t p = 0; p < store.partitions(); ++p) {
      store.for_each_at(version, p, [&](std::string_view key, int state) {
        EXPECT_TRUE(content.emplace(std::string{key}, state).second) << key << " is there twice";
      });
    }
  });
  return content;
}

TEST(KeyedStore, ABatchChangesAllPartitionsOrNone) {
  Store store{4, false};
  store.step(at(1), [&] {
    for (int i = 0; i < 20; ++i) put(store, std::to_string(i), i);
  });
  EXPECT_THROW(store.step(at(2),
                          [&] {
                            for (int i = 10; i < 30; ++i) put(store, std::to_string(i), -1);
                            throw std::runtime_error{"boom"};
                          }),
               std::runtime_error);
  EXPECT_EQ(store.size(), 20u);
  EXPECT_EQ(store.get("15"), 15);
  EXPECT_EQ(store.get("25"), std::nullopt);
  EXPECT_EQ(store.last_batch(), at(1));
}

// Keys come, go and come again within what is hidden; now and then everything is shown.
TEST(KeyedStore, ShowsTheHostWhatItIsHeldAt) {
  std::mt19937 random{5};
  Store store{3, false};
  Content content;
  Content shown;
  std::optional<Time> shown_at;
  store.hold();
  for (int batch = 1; batch <= 300; ++batch) {
    store.step(at(batch), [&] {
      for (int i = 0; i < 8; ++i) {
        const std::string key = std::to_string(random() % 20);
        if (random() % 3 == 0 && content.erase(key) != 0) {
          drop(store, key);
        } else {
          content[key] = static_cast<int>(random() % 1000);
          put(store, key, content[key]);
        }
      }
    });
    if (random() % 4 == 0) {
      store.show();
      shown = content;
      shown_at = at(batch);
      store.hold();
    }
    const Store::Snapshot snapshot = store.snapshot();
    ASSERT_EQ((Content{snapshot.entries.begin(), snapshot.entries.end()}), shown) << batch;
    ASSERT_EQ(snapshot.entries.size(), shown.size());
    ASSERT_EQ(snapshot.time, shown_at);
    ASSERT_EQ(store.size(), shown.size());
    ASSERT_EQ(store.last_batch(), shown_at);
    for (int i = 0; i < 20; ++i) {
      const auto found = shown.find(std::to_string(i));
      ASSERT_EQ(store.get(std::to_string(i)), found == shown.end() ? std::nullopt : std::optional{found->second})
          << i << " in batch " << batch;
    }
  }
}

TEST(KeyedStore, EveryVersionThatIsHeldCanBeReadLater) {
  std::mt19937 random{17};
  Store store{3, false};
  std::vector<std::pair<Store::VersionRef, Content>> held;
  Content content;
  for (int batch = 1; batch <= 200; ++batch) {
    auto version = store.step(at(batch), [&] {
      for (auto i = random() % 10; i > 0; --i) {
        const std::string key = "key " + std::to_string(random() % 30);
        if (random() % 3 == 0 && content.contains(key)) {
          content.erase(key);
          drop(store, key);
        } else {
          content[key] = batch;
          put(store, key, batch);
        }
      }
    });
    if (random() % 4 == 0) held.emplace_back(std::move(version), content);
    if (held.size() > 5) held.erase(held.begin() + static_cast<std::ptrdiff_t>(random() % held.size()));
    for (const auto& [then, expected] : held) ASSERT_EQ(at_version(store, *then), expected) << "batch " << batch;
  }
}

TEST(KeyedStore, AVersionThatNobodyHoldsCostsNothing) {
  Store store{1, false};
  std::size_t most = 0;
  for (int batch = 1; batch <= 100; ++batch) {
    store.step(at(batch), [&] {
      for (int i = 0; i < 100; ++i) put(store, std::to_string(i), batch);
    });
    if (batch == 3) most = store.allocated_bytes();
  }
  EXPECT_LE(store.allocated_bytes(), most);
}

TEST(KeyedStore, ALongChainOfVersionsGoesWithoutRecursion) {
  Store store{1, false};
  auto first = store.step(at(0), [] {});
  for (int batch = 1; batch <= 200'000; ++batch) store.step(at(batch), [] {});
  first.reset();
}

TEST(KeyedStore, TimersFallDueOnceForEachKeyInTheOrderOfKeys) {
  Store store{1, true};
  std::vector<std::vector<std::string>> orders;
  for (const bool reversed : {false, true}) {
    Store timed{1, true};
    timed.step(at(1), [&] {
      for (int i = 0; i < 50; ++i) put(timed, std::to_string(reversed ? 49 - i : i), i);
    });
    timed.step(at(2), [&] { put(timed, "7", 0); });
    auto& order = orders.emplace_back();
    timed.step(at(3), [&] {
      timed.partition(0).expire(at(2), [&](auto place) { order.emplace_back(timed.partition(0).table.key(place)); });
    });
    EXPECT_EQ(order.size(), 49u);
    EXPECT_EQ(timed.size(), 1u);
  }
  EXPECT_EQ(orders[0], orders[1]);
}

TEST(KeyedStore, TimersOfRemovedKeysDoNotPileUp) {
  Store store{1, true};
  std::size_t most = 0;
  for (int batch = 1; batch <= 3000; ++batch) {  // sessions that are closed, in slots that are used again at once
    store.step(at(batch), [&] {
      store.partition(0).expire(at(batch - 10), [](auto) { ADD_FAILURE() << "nothing is idle for so long"; });
      if (batch > 1) drop(store, "session " + std::to_string(batch - 1));
      put(store, "session " + std::to_string(batch), 1);
    });
    if (batch == 300) most = store.allocated_bytes();
  }
  EXPECT_LE(store.allocated_bytes(), most * 2);
}

TEST(KeyedStore, TheHostReadsWholeBatchesWhileTheyRun) {
  // Every batch gives all keys one number, adds a key and removes another; so a reader that sees two numbers has seen half.
  Store store{4, false};
  constexpr int keys = 20'000;
  std::atomic<bool> done = false;
  const auto run = [&](int batch) {
    store.step(at(batch), [&] {
      for (int i = 0; i < keys; ++i) put(store, "key " + std::to_string(i), batch);
      put(store, "new " + std::to_string(batch), batch);
      if (batch > 1) drop(store, "new " + std::to_string(batch - 1));
    });
  };
  run(1);
  std::thread driver{[&] {
    for (int batch = 2; batch <= 40; ++batch) run(batch);
    done = true;
  }};
  int snapshots = 0;
  do {
    const auto snapshot = store.snapshot();
    ASSERT_TRUE(snapshot.time);
    const auto batch =
        static_cast<int>(std::chrono::duration_cast<std::chrono::seconds>(snapshot.time->time_since_epoch()).count());
    ASSERT_EQ(snapshot.entries.size(), std::size_t{keys + 1});
    Content content(snapshot.entries.begin(), snapshot.entries.end());
    ASSERT_EQ(content.size(), std::size_t{keys + 1});
    ASSERT_TRUE(content.contains("new " + std::to_string(batch)));
    for (const auto& [key, state] : content) ASSERT_EQ(state, batch) << key;
    ASSERT_GE(store.get("key 5").value_or(0), batch);
    ++snapshots;
  } while (!done);
  driver.join();
  EXPECT_GT(snapshots, 0);
}

TEST(KeyedStore, TheHostMayReadWhileAStateIsRestored) {
  Store store{4, false};
  std::atomic<bool> done = false;
  std::atomic<int> reads = 0;
  std::thread host{[&] {
    while (!done) {
      EXPECT_FALSE(store.get("key " + std::to_string(reads % 8)));
      EXPECT_EQ(store.size(), 0u);
      EXPECT_TRUE(store.snapshot().entries.empty());
      ++reads;
    }
  }};
  for (int start = 0; start < 200 || reads < 200; ++start) {
    std::vector<std::unique_ptr<Store::Partition>> partitions;
    for (int p = 0; p < 4; ++p) partitions.push_back(std::make_unique<Store::Partition>());
    store.while_still([&] { store.restored(at(start), std::move(partitions)); });
  }
  done = true;
  host.join();
  EXPECT_TRUE(store.last_batch());
}

}  // namespace
}  // namespace tidemill
