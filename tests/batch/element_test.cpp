// Operators that look at one record at a time, and whole partitions.
#include <array>
#include <memory>
#include <numeric>
#include <ranges>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "batch/batches.hpp"
#include "tidemill/batch/split.hpp"

namespace tidemill {
namespace {

using namespace testing_batches;

const auto long_word = [](int i) { return "word number " + std::to_string(i) + " is longer than sixteen bytes"; };

TEST(Map, TurnsEachRecordIntoOneAndKeepsTheOrder) {
  for (const std::size_t n : partition_counts) {
    const auto doubled = four_threads().parallelize(std::vector{3, 1, 2}, n).map([](int x) { return 2 * x; });
    EXPECT_EQ(doubled.collect(), (std::vector{6, 2, 4})) << n << " partitions";
  }
}

TEST(Map, OfAnEmptyBatchIsEmptyAndNeverCallsTheFunction) {
  EXPECT_TRUE(four_threads().empty_batch<int>().map(BoomAt{0}).collect().empty());
}

TEST(Map, NamesTheOperatorAndThePartitionWhenTheFunctionThrows) {
  const auto batch = four_threads().parallelize(numbers(many), 8).map(BoomAt{static_cast<int>(many) - 1});
  expect_user_error([&] { (void)batch.collect(); }, "map", 7);
  expect_user_error([&] { (void)batch.count(); }, "map", 7);
}

TEST(Map, GivesTheSameAfterAFailedAction) {
  bool fail = true;
  const auto batch =
      four_threads().parallelize(numbers(10), 2).map([&fail](int x) { return BoomAt{fail ? 3 : -1}(x); });
  expect_user_error([&] { (void)batch.collect(); }, "map", 0);
  fail = false;
  EXPECT_EQ(batch.collect(), numbers(10));
}

TEST(Map, TakesGenericLambdasAndMemberPointers) {
  const auto strings = four_threads().parallelize(std::vector<std::string>{"a", "bcd"});
  EXPECT_EQ(strings.map([](const auto& s) { return s.size(); }).collect(), (std::vector<std::size_t>{1, 3}));
  EXPECT_EQ(strings.map(&std::string::size).collect(), (std::vector<std::size_t>{1, 3}));
}

TEST(Map, CarriesRecordsThatCanOnlyBeMoved) {
  const auto boxes = four_threads().parallelize(numbers(5), 2).map([](int x) { return std::make_unique<int>(x); });
  EXPECT_EQ(boxes.map([](const std::unique_ptr<int>& box) { return *box; }).collect(), numbers(5));
  const Batch<std::unique_ptr<int>> stored = boxes;
  EXPECT_EQ(stored.map([](const std::unique_ptr<int>& box) { return *box; }).collect(), numbers(5));
  EXPECT_EQ(stored.map([](const std::unique_ptr<int>& box) { return *box; }).collect(), numbers(5)) << "a second time";
  EXPECT_EQ(*boxes.collect().back(), 4);
}

TEST(Filter, KeepsWhatThePredicateHoldsFor) {
  for (const std::size_t n : partition_counts) {
    const auto even = four_threads().parallelize(numbers(7), n).filter([](int x) { return x % 2 == 0; });
    EXPECT_EQ(even.collect(), (std::vector{0, 2, 4, 6})) << n << " partitions";
  }
  expect_user_error(
      [] { (void)four_threads().parallelize(numbers(4), 2).filter([](int x) { return BoomAt{3}(x) > 0; }).count(); },
      "filter", 1);
}

TEST(FlatMap, YieldsTheElementsOfTheRange) {
  const auto batch = four_threads().parallelize(numbers(4), 2);
  const std::vector expected{1, 2, 2, 3, 3, 3};
  EXPECT_EQ(batch.flat_map([](int x) { return std::vector<int>(static_cast<std::size_t>(x), x); }).collect(), expected);
  EXPECT_EQ(batch
                .flat_map<int>([](int x, auto&& emit) {
                  for (int i = 0; i < x; ++i) emit(x);
                })
                .collect(),
            expected);
  EXPECT_EQ(batch.flat_map([](int x) { return std::vector<bool>{x > 1}; }).collect(),
            (std::vector<bool>{false, false, true, true}));
}

TEST(FlatMap, LabelsItsOwnFailuresAndNotThoseOfLaterStages) {
  const auto batch = four_threads().parallelize(numbers(4), 2);
  expect_user_error([&] { (void)batch.flat_map([](int x) { return std::vector{BoomAt{2}(x)}; }).count(); }, "flat_map",
                    1);
  const auto emitting = [](int x, auto&& emit) { emit(x); };
  expect_user_error([&] { (void)batch.flat_map<int>(emitting).map(BoomAt{2}).count(); }, "map", 1);
  expect_user_error([&] { (void)batch.flat_map<int>([](int x, auto&& emit) { emit(BoomAt{2}(x)); }).count(); },
                    "flat_map", 1);
}

TEST(FlatMap, LabelsWhatALazyRangeThrows) {
  const auto batch = four_threads().parallelize(numbers(4), 2);
  const auto lazy = [](int x) { return std::views::iota(0, x) | std::views::transform(BoomAt{2}); };
  expect_user_error([&] { (void)batch.flat_map(lazy).count(); }, "flat_map", 1);
  EXPECT_EQ(batch.filter([](int x) { return x < 3; }).flat_map(lazy).collect(), (std::vector{0, 0, 1}));
  const auto pairs = batch.map([](int x) { return std::pair{x, x}; });
  expect_user_error([&] { (void)pairs.flat_map_values(lazy).count(); }, "flat_map_values", 1);
  expect_user_error([&] { (void)batch.flat_map(lazy).map(BoomAt{1}).count(); }, "map", 1);
}

TEST(ViewsOfTemporaries, OutliveTheRecordTheyLookAtWhereverTheyWait) {
  for (const std::size_t n : partition_counts) {
    const auto words = four_threads().parallelize(numbers(100), n).map(long_word).flat_map([](const std::string& s) {
      return std::vector<std::string_view>{s, s};
    });
    std::vector<std::string> expected;
    for (int i = 0; i < 100; ++i) expected.insert(expected.end(), 2, long_word(i));
    EXPECT_EQ(words.collect(), expected);
    const Batch<std::string_view> stored = words;
    EXPECT_EQ(stored.collect(), expected);
    EXPECT_EQ(stored.cache().collect(), expected);
    EXPECT_EQ(words.reduce([](std::string_view a, std::string_view b) { return std::max(a, b); }), long_word(99));
  }
}

TEST(KeyBy, PairsEachRecordWithItsKey) {
  const auto keyed = four_threads().parallelize(std::vector<std::string>{"aa", "b"}).key_by(&std::string::size);
  EXPECT_EQ(keyed.collect(), (std::vector<std::pair<std::size_t, std::string>>{{2, "aa"}, {1, "b"}}));
}

TEST(KeyBy, LetsTheKeyLookIntoTheRecord) {
  // Short strings lie inside their object, so moving the record would pull them from under the key.
  const auto keyed = four_threads()
                         .parallelize(numbers(50), 3)
                         .map([](int i) { return "k" + std::to_string(i % 5); })
                         .key_by([](const std::string& s) { return std::string_view{s}; });
  for (const auto& [key, record] : keyed.collect()) EXPECT_EQ(key, record);
  const auto groups = keyed.group_by_key().collect();
  EXPECT_EQ(groups.size(), 5u);
  for (const auto& [key, records] : groups) EXPECT_EQ(records, std::vector<std::string>(10, key));
}

TEST(MapPartitions, SeesEachPartitionOnceAndWhole) {
  const auto batch = four_threads().parallelize(numbers(10), 3);
  const auto sums = batch.map_partitions(
      [](std::span<const int> records) { return std::array{std::accumulate(records.begin(), records.end(), 0)}; });
  EXPECT_EQ(sums.collect(), (std::vector{0 + 1 + 2 + 3, 4 + 5 + 6, 7 + 8 + 9}));
  const auto numbered = batch.map_partitions_with_index([](std::size_t p, std::span<const int> records) {
    return std::vector<std::pair<std::size_t, std::size_t>>{{p, records.size()}};
  });
  EXPECT_EQ(numbered.collect(), (std::vector<std::pair<std::size_t, std::size_t>>{{0, 4}, {1, 3}, {2, 3}}));
}

TEST(MapPartitions, MayReturnViewsIntoThePartition) {
  const auto views = four_threads()
                         .parallelize(numbers(20), 2)
                         .map(long_word)
                         .map_partitions([](std::span<const std::string> records) {
                           return std::vector<std::string_view>(records.begin(), records.end());
                         });
  EXPECT_EQ(views.collect().back(), long_word(19));
}

TEST(MapPartitions, NamesItselfWhenTheFunctionThrows) {
  expect_user_error(
      [] {
        (void)four_threads()
            .parallelize(numbers(4), 2)
            .map_partitions([](std::span<const int> r) { return std::vector{BoomAt{2}(r.front())}; })
            .count();
      },
      "map_partitions", 1);
}

TEST(Glom, MakesOneRecordOfEachPartition) {
  EXPECT_EQ(four_threads().parallelize(numbers(5), 2).glom().collect(),
            (std::vector<std::vector<int>>{{0, 1, 2}, {3, 4}}));
  EXPECT_EQ(four_threads().empty_batch<int>().glom().collect(), (std::vector<std::vector<int>>{{}}));
}

TEST(Pairs, MapValuesKeysAndValues) {
  const auto pairs = four_threads().parallelize(std::vector<std::pair<std::string, int>>{{"a", 1}, {"b", 2}}, 2);
  using Expected = std::vector<std::pair<std::string, int>>;
  EXPECT_EQ(pairs.map_values([](int v) { return 10 * v; }).collect(), (Expected{{"a", 10}, {"b", 20}}));
  EXPECT_EQ(pairs.flat_map_values([](int v) { return std::vector<int>(static_cast<std::size_t>(v), v); }).collect(),
            (Expected{{"a", 1}, {"b", 2}, {"b", 2}}));
  EXPECT_EQ(pairs.keys().collect(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(pairs.values().collect(), (std::vector{1, 2}));
  expect_user_error([&] { (void)pairs.map_values(BoomAt{2}).count(); }, "map_values", 1);
  expect_user_error([&] { (void)pairs.flat_map_values([](int v) { return std::vector{BoomAt{2}(v)}; }).count(); },
                    "flat_map_values", 1);
}

TEST(Context, CutsVectorsIntoSlicesOfNearlyEqualSize) {
  EXPECT_EQ(four_threads().parallelize(numbers(3), 8).num_partitions(), 3u);
  EXPECT_EQ(four_threads().parallelize(numbers(3)).num_partitions(), 3u);
  EXPECT_EQ(four_threads().parallelize(numbers(9)).num_partitions(), 4u);
  EXPECT_EQ(four_threads().empty_batch<int>().num_partitions(), 1u);
}

TEST(Context, MakesRangesWithoutStoringThem) {
  const Context context = four_threads();
  EXPECT_EQ(context.range(0, 5, 1, 2).collect(), (std::vector<std::int64_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(context.range(5, 0, -2).collect(), (std::vector<std::int64_t>{5, 3, 1}));
  EXPECT_EQ(context.range(0, 7, 3, 3).collect(), (std::vector<std::int64_t>{0, 3, 6}));
  EXPECT_TRUE(context.range(3, 3).collect().empty());
  EXPECT_TRUE(context.range(3, 2).collect().empty());
  constexpr auto lowest = std::numeric_limits<std::int64_t>::min();
  constexpr auto highest = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(context.range(lowest, highest, highest, 2).collect(), (std::vector<std::int64_t>{lowest, -1, highest - 1}));
  EXPECT_EQ(context.range(0, 100000, 1, 8).reduce(std::plus<>{}), 4999950000);
  EXPECT_THROW((void)context.range(0, 1, 0), ConfigError);
}

}  // namespace
}  // namespace tidemill
