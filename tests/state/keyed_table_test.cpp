// The table of one partition: what a batch does to it counts whole or not at all. Invariants KT1, KT2 of state/keyed_table.hpp.
#include "tidemill/state/keyed_table.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "state/failing_allocations.hpp"

namespace tidemill {
namespace {

// All have the same tag, and pairs of them the same hash.
struct Clashing {
  int value;
  friend bool operator==(const Clashing&, const Clashing&) = default;
};

}  // namespace

template <>
struct Hash<Clashing> {
  std::uint64_t operator()(const Clashing& key) const noexcept {
    return static_cast<std::uint64_t>(key.value / 2) << 32;
  }
};

namespace {

using namespace std::chrono_literals;

Time at(int second) { return Time{std::chrono::seconds{second}}; }

// A table with the operations that a test wants to write down.
template <class K, class S>
class Tested {
 public:
  using Table = KeyedTable<K, S>;
  using Form = detail::TableKey<K>;

  template <class Key>
  [[nodiscard]] typename Table::Place place(const Key& key) const {
    auto probe = Form::probe(key);
    return table.find(Table::tag_of(probe), probe);
  }
  template <class Key>
  void put(const Key& key, S state) {
    if (const auto there = place(key)) {
      table.assign(there, std::move(state));
    } else {
      auto probe = Form::probe(key);
      const auto tag = Table::tag_of(probe);
      table.insert(tag, std::move(probe), std::move(state));
    }
  }
  template <class Key>
  void drop(const Key& key) {
    table.remove(place(key));
  }
  typename Table::Undo commit(typename Table::Keep keep = Table::Keep::nothing) {
    table.prepare(keep);
    return table.commit(keep);
  }
  [[nodiscard]] std::map<std::string, S> content() const {
    std::map<std::string, S> map;
    table.for_each([&](auto p) { map.emplace(std::string{table.key(p)}, table.state(p)); });
    return map;
  }

  Table table;
};

using Texts = Tested<std::string, std::string>;
using Content = std::map<std::string, std::string>;

TEST(KeyedTable, HoldsWhatABatchPutThere) {
  Texts t;
  t.table.begin(at(1));
  t.put("a", "1");
  t.put("a key that is longer than fifteen bytes", "2");
  t.put("a", "3");
  t.commit();
  EXPECT_EQ(t.content(), (Content{{"a", "3"}, {"a key that is longer than fifteen bytes", "2"}}));
  EXPECT_EQ(t.table.size(), 2u);
  EXPECT_FALSE(t.place("b"));
}

TEST(KeyedTable, OwnsItsKeys) {
  Texts t;
  t.table.begin(at(1));
  {
    const std::string far(100, 'x');
    const std::string near = "near";
    t.put(std::string_view{far}, "1");
    t.put(std::string_view{near}, "2");
  }
  t.commit();
  EXPECT_EQ(t.content(), (Content{{std::string(100, 'x'), "1"}, {"near", "2"}}));
}

TEST(KeyedTable, ForgetsABatchThatIsRolledBack) {  // KT1
  Texts t;
  t.table.begin(at(1));
  for (const char* key : {"changed", "touched", "removed", "removed and back", "all"}) t.put(key, "old");
  t.commit();
  const Content before = t.content();

  t.table.begin(at(2));
  t.put("changed", "new");
  t.put("changed", "newer");
  t.table.touch(t.place("touched"));
  t.drop("removed");
  t.drop("removed and back");
  t.put("removed and back", "again");
  t.table.touch(t.place("all"));
  t.put("all", "new");
  t.drop("all");
  t.put("new", "1");
  t.put("new and gone", "1");
  t.drop("new and gone");
  EXPECT_EQ(t.content(),
            (Content{{"changed", "newer"}, {"touched", "old"}, {"removed and back", "again"}, {"new", "1"}}));
  EXPECT_EQ(t.table.size(), 4u);
  t.table.roll_back();

  EXPECT_EQ(t.content(), before);
  EXPECT_EQ(t.table.size(), 5u);
  for (const auto& [key, state] : before) EXPECT_EQ(t.table.last_touch(t.place(key)), at(1)) << key;

  t.table.begin(at(2));  // the same batch again
  t.put("changed", "new");
  t.commit();
  EXPECT_EQ(t.table.last_touch(t.place("changed")), at(2));
}

TEST(KeyedTable, AStateThatIsOpenedIsInTheLogOnceOrNotAtAll) {  // KT1
  Tested<std::string, int> t;
  using Numbers = std::map<std::string, int>;
  t.table.begin(at(1));
  for (const char* key : {"changed", "taken back", "touched"}) t.put(key, 1);
  t.commit();

  t.table.begin(at(2));
  const auto change = [&](const char* key, int state) {
    const auto place = t.place(key);
    const auto opened = t.table.open(place);
    const_cast<int&>(t.table.state(place)) = state;
    return std::pair{place, opened};
  };
  for (const int state : {2, 3}) {
    const auto [place, opened] = change("changed", state);
    t.table.close(place, opened);
  }
  const auto [place, opened] = change("taken back", 2);
  t.table.take_back(place, opened);
  t.table.touch(t.place("touched"));
  EXPECT_EQ(t.content(), (Numbers{{"changed", 3}, {"taken back", 1}, {"touched", 1}}));
  EXPECT_EQ(t.table.changes().size(), 1u);
  EXPECT_EQ(t.table.last_touch(t.place("changed")), at(2));
  EXPECT_EQ(t.table.last_touch(t.place("taken back")), at(1));
  t.table.roll_back();
  EXPECT_EQ(t.content(), (Numbers{{"changed", 1}, {"taken back", 1}, {"touched", 1}}));
  EXPECT_EQ(t.table.last_touch(t.place("changed")), at(1));
}

TEST(KeyedTable, ALogOfManyChunksIsTakenBackEntryByEntry) {
  Tested<std::string, int> t;
  Tested<std::string, int>::Table& table = t.table;
  table.begin(at(1));
  for (int i = 0; i < 5000; ++i) t.put(std::to_string(i), i);
  t.commit();
  const auto before = t.content();
  table.begin(at(2));
  for (int i = 0; i < 5000; ++i) {
    const auto place = t.place(std::to_string(i));
    const auto opened = table.open(place);
    const_cast<int&>(table.state(place)) = -1;
    i % 3 == 0 ? table.take_back(place, opened) : table.close(place, opened);
  }
  EXPECT_EQ(table.changes().size(), 3333u);
  table.roll_back();
  EXPECT_EQ(t.content(), before);
}

TEST(KeyedTable, LetsAKeyGoWhenItsBatchIsCommitted) {  // KT2
  Texts t;
  t.table.begin(at(1));
  t.put("a", "1");
  t.commit();
  t.table.begin(at(2));
  const auto a = t.place("a");
  t.drop("a");
  EXPECT_EQ(t.place("a").slot(), a.slot());
  EXPECT_FALSE(t.table.exists(a));
  t.commit();
  EXPECT_FALSE(t.place("a"));
  EXPECT_TRUE(t.table.is_free(a.slot()));
  t.table.begin(at(3));
  t.put("b", "2");
  t.commit();
  EXPECT_EQ(t.place("b").slot(), a.slot()) << "slots are used again";
  EXPECT_NE(t.table.generation(t.place("b")), 0);
}

TEST(KeyedTable, TellsWhatWasThereBefore) {
  Texts t;
  t.table.begin(at(1));
  t.put("changed", "old");
  t.put("removed", "old");
  t.commit();
  t.table.begin(at(2));
  t.put("changed", "new");
  t.drop("removed");
  t.put("new", "1");
  const auto undo = t.commit(Texts::Table::Keep::undo);
  ASSERT_EQ(undo.changes.size(), 3u);
  EXPECT_EQ(undo.changes[0].state, "old");
  EXPECT_EQ(undo.changes[1].state, "old");
  EXPECT_FALSE(undo.changes[2].state);
  ASSERT_EQ(undo.gone.size(), 1u);
  EXPECT_EQ(undo.gone[0].key.key().text(), "removed");
}

TEST(KeyedTable, VisitsKeysInAnOrderThatDependsOnThemAlone) {
  std::vector<std::string> keys;
  for (int i = 0; i < 2000; ++i) keys.push_back("key " + std::to_string(i));
  std::vector<std::vector<std::string>> orders;
  for (const unsigned seed : {1u, 2u, 3u}) {
    std::shuffle(keys.begin(), keys.end(), std::mt19937{seed});
    Texts t;
    t.table.begin(at(1));
    for (const auto& key : keys) t.put(key, "");
    for (int i = 0; i < 500; ++i) t.put("other " + std::to_string(seed * 1000 + static_cast<unsigned>(i)), "");
    t.commit();
    t.table.begin(at(2));
    for (int i = 0; i < 500; ++i) t.drop("other " + std::to_string(seed * 1000 + static_cast<unsigned>(i)));
    t.commit();
    auto& order = orders.emplace_back();
    t.table.for_each([&](auto p) { order.emplace_back(t.table.key(p)); });
  }
  EXPECT_EQ(orders[0], orders[1]);
  EXPECT_EQ(orders[0], orders[2]);
}

TEST(KeyedTable, KeysThatAreRestoredAreWhereABatchPutsThem) {
  const auto check = [](auto key_of) {
    using Key = decltype(key_of(0));
    Tested<Key, int> filled;
    Tested<Key, int> restored;
    filled.table.begin(at(1));
    for (int i = 0; i < 500; ++i) {
      filled.put(key_of(i), i);
      const int other = 499 - i;
      restored.table.restore(restored.table.tag_of(key_of(other)), key_of(other), int{other}, at(1));
    }
    filled.commit();
    EXPECT_FALSE(restored.place(key_of(7)));
    EXPECT_TRUE(restored.table.index_restored());
    const auto hashes = [](const auto& t) {
      std::vector<std::uint64_t> in_order;
      t.table.for_each([&](auto p) { in_order.push_back(hash_of(t.table.key(p))); });
      return in_order;
    };
    EXPECT_EQ(hashes(restored), hashes(filled));
    for (int i = 0; i < 500; ++i) ASSERT_EQ(restored.table.state(restored.place(key_of(i))), i);
    EXPECT_EQ(restored.table.last_touch(restored.place(key_of(0))), at(1));

    Tested<Key, int> twice;
    for (const int i : {1, 2, 3, 4, 5, 6, 7, 1})
      twice.table.restore(twice.table.tag_of(key_of(i)), key_of(i), int{i}, at(1));
    EXPECT_FALSE(twice.table.index_restored());
  };
  check([](int i) { return i; });
  check([](int i) { return Clashing{i}; });
}

TEST(KeyedTable, KeepsStatesThatCanOnlyBeMoved) {
  Tested<std::string, std::unique_ptr<int>> t;
  t.table.begin(at(1));
  t.put("a", std::make_unique<int>(1));
  t.put("b", std::make_unique<int>(2));
  t.commit();
  const int* const a = t.table.state(t.place("a")).get();
  t.table.begin(at(2));
  t.put("a", std::make_unique<int>(3));
  t.drop("b");
  t.table.roll_back();
  EXPECT_EQ(t.table.state(t.place("a")).get(), a) << "the very same object";
  EXPECT_EQ(*t.table.state(t.place("b")), 2);
}

TEST(KeyedTable, StatesAndKeysStayWhereTheyAre) {
  Tested<std::string, std::string> t;
  t.table.begin(at(1));
  t.put("first", "1");
  const std::string* const state = &t.table.state(t.place("first"));
  for (int i = 0; i < 100000; ++i) t.put(std::to_string(i), "");
  EXPECT_EQ(&t.table.state(t.place("first")), state);
}

TEST(KeyedTable, TakesUnderOneAndEightTenthsOfKeysAndStates) {
  struct State {
    std::uint64_t a, b, c;
  };
  for (const std::uint64_t keys : {10'000u, 123'456u, 500'000u}) {
    KeyedTable<std::uint64_t, State> table;
    table.begin(at(1));
    for (std::uint64_t key = 0; key < keys; ++key) {
      std::uint64_t probe = key;
      table.insert(decltype(table)::tag_of(probe), std::move(probe), State{key, 0, 0});
    }
    table.prepare(decltype(table)::Keep::nothing);
    static_cast<void>(table.commit(decltype(table)::Keep::nothing));
    table.begin(at(2));  // the log of the load is let go after a small batch
    table.prepare(decltype(table)::Keep::nothing);
    static_cast<void>(table.commit(decltype(table)::Keep::nothing));
    EXPECT_LE(static_cast<double>(table.allocated_bytes()) / static_cast<double>(keys) / 32, 1.8) << keys;
  }
}

// Batches of random changes, of which some are rolled back, against a std::map.
template <class Key>
void agree_with_a_map(unsigned seed, int keys, Key key_of) {
  std::mt19937 random{seed};
  Texts t;
  Content oracle;
  for (int batch = 1; batch <= 60; ++batch) {
    Content next = oracle;
    t.table.begin(at(batch));
    const auto changes = static_cast<int>(random() % 200);
    for (int i = 0; i < changes; ++i) {
      const std::string key = key_of(static_cast<int>(random() % static_cast<unsigned>(keys)));
      const auto there = t.place(key);
      const bool exists = there && t.table.exists(there);
      ASSERT_EQ(exists, next.contains(key));
      switch (random() % 4) {
        case 0:
        case 1:
          next[key] = std::to_string(i);
          t.put(key, std::to_string(i));
          break;
        case 2:
          if (exists) {
            next.erase(key);
            t.drop(key);
          }
          break;
        default:
          if (exists) t.table.touch(there);
      }
    }
    if (random() % 3 == 0) {
      t.table.roll_back();
    } else {
      t.commit(random() % 2 == 0 ? Texts::Table::Keep::undo : Texts::Table::Keep::nothing);
      oracle = std::move(next);
    }
    ASSERT_EQ(t.content(), oracle) << "after batch " << batch << ", seed " << seed;
    ASSERT_EQ(t.table.size(), oracle.size());
  }
}

TEST(KeyedTable, AgreesWithAMapOnRandomBatches) {
  for (unsigned seed = 1; seed <= 20; ++seed) {
    agree_with_a_map(seed, 10, [](int i) { return std::to_string(i); });
    agree_with_a_map(seed, 300, [](int i) { return "a long key that is not held inline, " + std::to_string(i); });
  }
}

TEST(KeyedTable, ABatchThatRunsOutOfMemoryLeavesNoTrace) {
  Texts t;
  t.table.begin(at(1));
  for (int i = 0; i < 100; ++i) t.put("key number " + std::to_string(i) + " of the table", std::to_string(i));
  t.commit();
  const Content before = t.content();
  // The n-th allocation of the batch fails, for every n there is.
  bool failed = true;
  for (int n = 0; failed; ++n) {
    ASSERT_LT(n, 5000);
    failed = false;
    t.table.begin(at(2));
    {
      const testing_state::FailingAllocations failing{n};
      try {
        for (int i = 50; i < 150; ++i)
          t.put("key number " + std::to_string(i) + " of the table", "new, and longer than that");
        for (int i = 0; i < 40; ++i) t.drop("key number " + std::to_string(i) + " of the table");
        t.commit(Texts::Table::Keep::undo);
      } catch (const std::bad_alloc&) {
        failed = true;
      }
    }
    if (failed) {
      t.table.roll_back();
      ASSERT_EQ(t.content(), before) << "allocation " << n;
    }
  }
  EXPECT_EQ(t.table.size(), 110u);
}

}  // namespace
}  // namespace tidemill
