// Actions: what leaves a batch, and what becomes of a user function that throws.
#include <atomic>
#include <cmath>
#include <limits>
#include <mutex>
#include <string>
#include <string_view>

#include "batch/batches.hpp"

namespace tidemill {
namespace {

using namespace testing_batches;

TEST(Collect, ReturnsAllRecordsInOrder) {
  for (const std::size_t n : partition_counts)
    EXPECT_EQ(four_threads().parallelize(numbers(many), n).collect(), numbers(many));
}

TEST(CollectAsMap, KeepsTheLastOfEqualKeys) {
  const auto pairs =
      four_threads().parallelize(std::vector<std::pair<std::string_view, int>>{{"a", 1}, {"b", 2}, {"a", 3}}, 2);
  EXPECT_EQ(pairs.collect_as_map(), (std::unordered_map<std::string, int>{{"a", 3}, {"b", 2}}));
}

TEST(Count, CountsWhatStagesYield) {
  for (const std::size_t n : partition_counts) {
    const auto batch = four_threads().parallelize(numbers(many), n);
    EXPECT_EQ(batch.count(), many);
    EXPECT_EQ(batch.filter([](int x) { return x < 7; }).count(), 7u);
    EXPECT_EQ((Batch<int>{batch.map(BoomAt{-1})}.count()), many);
  }
  EXPECT_EQ(four_threads().empty_batch<int>().count(), 0u);
}

TEST(FirstAndTake, LookAtNoMoreThanTheyNeed) {
  std::atomic<int> seen = 0;
  const auto batch = four_threads().parallelize(numbers(many), 4).map([&seen](int x) {
    ++seen;
    return x;
  });
  EXPECT_EQ(batch.first(), 0);
  EXPECT_EQ(batch.take(3), numbers(3));
  EXPECT_FALSE(batch.is_empty());
  EXPECT_EQ(seen, 1 + 3 + 1);
  EXPECT_EQ(batch.take(2 * many), numbers(many));
  EXPECT_EQ(batch.take(0).size(), 0u);
  EXPECT_TRUE(four_threads().empty_batch<int>().is_empty());
  EXPECT_EQ(batch.filter([](int x) { return x >= 9999; }).take(5), (std::vector{9999})) << "through empty partitions";
}

TEST(FirstAndTake, NameThePartitionWhereAFunctionThrew) {
  const auto batch = four_threads().parallelize(numbers(8), 4).map(BoomAt{5});
  expect_user_error([&] { (void)batch.take(7); }, "map", 2);
  EXPECT_EQ(batch.take(5), numbers(5));
  expect_user_error([&] { (void)batch.filter([](int x) { return x > 100; }).is_empty(); }, "map", 2);
}

TEST(Actions, ThatNeedARecordRefuseAnEmptyBatch) {
  const auto empty = four_threads().empty_batch<int>();
  EXPECT_THROW((void)empty.first(), PlanError);
  EXPECT_THROW((void)empty.reduce(std::plus<>{}), PlanError);
  EXPECT_THROW((void)empty.tree_reduce(std::plus<>{}), PlanError);
  EXPECT_EQ(empty.try_reduce(std::plus<>{}), std::nullopt);
  EXPECT_EQ(empty.fold(5, std::plus<>{}), 5 + 5) << "zero enters once for the partition and once for the merge";
}

TEST(Reduce, FoldsInBatchOrder) {
  const auto join = [](std::string a, const std::string& b) { return std::move(a) + b; };
  for (const std::size_t n : partition_counts) {
    const auto letters = four_threads().parallelize(std::vector<std::string>{"a", "b", "c", "d", "e"}, n);
    EXPECT_EQ(letters.reduce(join), "abcde");
    EXPECT_EQ(letters.tree_reduce(join), "abcde");
    EXPECT_EQ(letters.fold("", join), "abcde");
    EXPECT_EQ(letters.aggregate(std::string{}, join, join), "abcde");
    EXPECT_EQ(letters.tree_aggregate(
                  std::string{}, [](std::string& acc, const std::string& s) { acc += s; }, join),
              "abcde");
    EXPECT_EQ(four_threads().parallelize(numbers(many), n).reduce(std::plus<>{}), 49995000);
    EXPECT_EQ(four_threads().parallelize(numbers(many), n).tree_aggregate(0L, std::plus<>{}, std::plus<>{}), 49995000);
  }
}

TEST(Reduce, SkipsPartitionsWithoutRecords) {
  const auto batch = four_threads().parallelize(numbers(8), 8).filter([](int x) { return x == 2 || x == 7; });
  EXPECT_EQ(batch.reduce(std::plus<>{}), 9);
  EXPECT_EQ(batch.tree_reduce(std::plus<>{}), 9);
}

TEST(Reduce, NamesItselfWhenTheFunctionThrows) {
  const auto batch = four_threads().parallelize(numbers(8), 2);
  const auto bad = [](auto a, int b) { return a + BoomAt{7}(b); };
  expect_user_error([&] { (void)batch.reduce(bad); }, "reduce", 1);
  expect_user_error([&] { (void)batch.tree_reduce(bad); }, "tree_reduce", 1);
  expect_user_error([&] { (void)batch.aggregate(0, bad, std::plus<>{}); }, "aggregate", 1);
  expect_user_error([&] { (void)batch.tree_aggregate(0, bad, std::plus<>{}); }, "tree_aggregate", 1);
  const auto across = [](int, int) -> int { throw std::runtime_error{"boom"}; };
  expect_user_error([&] { (void)batch.aggregate(0, std::plus<>{}, across); }, "aggregate");
}

TEST(Foreach, SeesEachRecordOnce) {
  for (const std::size_t n : partition_counts) {
    std::atomic<long> sum = 0;
    const auto batch = four_threads().parallelize(numbers(many), n);
    batch.foreach ([&sum](int x) { sum += x; });
    EXPECT_EQ(sum, 49995000);
    std::atomic<std::size_t> calls = 0;
    batch.map(BoomAt{-1}).foreach_partition([&](std::span<const int> records) {
      ++calls;
      for (const int x : records) sum -= x;
    });
    EXPECT_EQ(sum, 0);
    EXPECT_EQ(calls, n);
  }
  const auto batch = four_threads().parallelize(numbers(4), 2);
  expect_user_error([&] { batch.foreach (BoomAt{2}); }, "foreach", 1);
  expect_user_error([&] { batch.foreach_partition([](std::span<const int> r) { BoomAt{2}(r.front()); }); },
                    "foreach_partition", 1);
}

TEST(Errors, OfTheLowestPartitionWin) {
  const auto batch = four_threads().parallelize(numbers(many), 8).map([](int x) { return BoomAt{x}(x); });
  for (int i = 0; i < 10; ++i) expect_user_error([&] { (void)batch.count(); }, "map", 0);
}

TEST(CountByValue, CountsRecords) {
  for (const std::size_t n : partition_counts) {
    const auto words = four_threads().parallelize(std::vector<std::string_view>{"a", "b", "a"}, n);
    const std::unordered_map<std::string, std::size_t> counts = words.count_by_value();
    EXPECT_EQ(counts, (std::unordered_map<std::string, std::size_t>{{"a", 2}, {"b", 1}}));
  }
  EXPECT_TRUE(four_threads().empty_batch<int>().count_by_value().empty());
}

TEST(Stats, AreThoseOfTheNumbersWhateverThePartitions) {
  for (const std::size_t n : partition_counts) {
    const Statistics s = four_threads().parallelize(std::vector{2, 4, 4, 4, 5, 5, 7, 9}, n).stats();
    EXPECT_EQ(s.count(), 8u);
    EXPECT_DOUBLE_EQ(s.mean(), 5);
    EXPECT_DOUBLE_EQ(s.sum(), 40);
    EXPECT_EQ(s.min(), 2);
    EXPECT_EQ(s.max(), 9);
    EXPECT_DOUBLE_EQ(s.stdev(), 2);
    EXPECT_DOUBLE_EQ(s.variance(), 4);
    EXPECT_DOUBLE_EQ(s.sample_variance(), 32.0 / 7);
  }
}

TEST(Stats, StayExactWhereTheTextbookFormulaFails) {
  std::vector<double> values;
  for (int i = 0; i < 3000; ++i) values.push_back(1e9 + i % 3);
  const Statistics s = four_threads().parallelize(values, 7).stats();
  EXPECT_NEAR(s.variance(), 2.0 / 3, 1e-6);
  const Statistics cancelled = four_threads().parallelize(std::vector{1e100, 1.0, -1e100, 1.0}, 1).stats();
  EXPECT_EQ(cancelled.sum(), 2.0);
}

TEST(Stats, OfNothingAndOfStrangeNumbers) {
  const Statistics none = four_threads().empty_batch<double>().stats();
  EXPECT_EQ(none.count(), 0u);
  EXPECT_EQ(none.sum(), 0);
  EXPECT_TRUE(std::isnan(none.variance()));
  const double inf = std::numeric_limits<double>::infinity();
  EXPECT_EQ(four_threads().parallelize(std::vector{1.0, inf}, 2).stats().sum(), inf);
  EXPECT_EQ(four_threads().parallelize(std::vector{1.0, inf}, 2).stats().max(), inf);
}

TEST(Histogram, CountsInBucketsOfEqualWidth) {
  for (const std::size_t n : partition_counts) {
    const auto h = four_threads().parallelize(numbers(101), n).histogram(4);
    EXPECT_EQ(h.bounds, (std::vector<double>{0, 25, 50, 75, 100}));
    EXPECT_EQ(h.counts, (std::vector<std::size_t>{25, 25, 25, 26})) << "the last bound belongs to the last bucket";
  }
  const auto same = four_threads().parallelize(std::vector{3, 3, 3}, 2).histogram(5);
  EXPECT_EQ(same.bounds, (std::vector<double>{3, 3}));
  EXPECT_EQ(same.counts, (std::vector<std::size_t>{3}));
  EXPECT_THROW((void)four_threads().empty_batch<int>().histogram(2), PlanError);
  EXPECT_THROW((void)four_threads().parallelize(numbers(2)).histogram(std::size_t{0}), ConfigError);
  EXPECT_THROW((void)four_threads().parallelize(std::vector{std::nan(""), 1.0}).histogram(2), PlanError);
}

TEST(Histogram, CountsBetweenGivenBounds) {
  const auto h =
      four_threads().parallelize(std::vector{-1.0, 0.0, 0.5, 1.0, 3.0, 3.5, std::nan("")}, 3).histogram({0, 1, 3});
  EXPECT_EQ(h.counts, (std::vector<std::size_t>{2, 2}));
  EXPECT_THROW((void)four_threads().parallelize(numbers(2)).histogram(std::vector<double>{1}), ConfigError);
  EXPECT_THROW((void)four_threads().parallelize(numbers(2)).histogram({1, 1}), ConfigError);
}

TEST(Broadcast, SharesOneValue) {
  const Context context = four_threads();
  const auto table = context.broadcast(std::vector{10, 20, 30});
  EXPECT_EQ(context.parallelize(numbers(3), 3)
                .map([table](int i) { return (*table)[static_cast<std::size_t>(i)]; })
                .collect(),
            table.value());
  EXPECT_EQ(table->size(), 3u);
}

TEST(Accumulators, CountFromAllThreads) {
  const Context context = four_threads();
  const auto sum = context.long_accumulator();
  const auto halves = context.double_accumulator();
  const auto odd = context.collection_accumulator<std::string_view>();
  struct Extremes {
    int highest = 0;
    void add(int x) { highest = std::max(highest, x); }
    void merge(const Extremes& other) { highest = std::max(highest, other.highest); }
  };
  const auto extremes = context.accumulator(Extremes{});
  context.parallelize(numbers(many), 8).foreach ([=](int x) {
    sum.add(x);
    halves.add(0.5);
    extremes.add(x);
    if (x % 1000 == 1) odd.add(std::to_string(x));
  });
  EXPECT_EQ(sum.sum(), 49995000);
  EXPECT_EQ(sum.count(), many);
  EXPECT_DOUBLE_EQ(sum.average(), 4999.5);
  EXPECT_DOUBLE_EQ(halves.sum(), many / 2.0);
  EXPECT_EQ(extremes.value().highest, static_cast<int>(many) - 1);
  EXPECT_EQ(odd.value().size(), 10u);
  EXPECT_EQ(sorted(odd.value()).front(), "1");
  sum.reset();
  odd.reset();
  extremes.reset();
  EXPECT_EQ(sum.sum(), 0);
  EXPECT_TRUE(odd.value().empty());
  EXPECT_EQ(extremes.value().highest, 0);
}

}  // namespace
}  // namespace tidemill
