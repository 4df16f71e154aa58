// Unions, sets, samples, pairing by place.
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "batch/batches.hpp"

namespace tidemill {
namespace {

using namespace testing_batches;

std::vector<int> random_numbers(std::size_t count, int below, std::uint32_t seed) {
  std::vector<int> all;
  for (const auto& [key, value] : random_pairs(count, below, seed)) all.push_back(key);
  return all;
}

TEST(UnionWith, PutsOneBatchAfterTheOther) {
  const Context context = four_threads();
  for (const std::size_t n : partition_counts) {
    const auto both = context.parallelize(numbers(3), n).union_with(context.parallelize(numbers(2), 2).map(BoomAt{-1}));
    EXPECT_EQ(both.collect(), (std::vector{0, 1, 2, 0, 1}));
    EXPECT_EQ(both.num_partitions(), std::min<std::size_t>(n, 3) + 2);
    EXPECT_EQ(both.take(4), (std::vector{0, 1, 2, 0}));
  }
  const auto batch = context.parallelize(numbers(2));
  EXPECT_EQ(batch.union_with(batch).count(), 4u);
  EXPECT_TRUE(context.empty_batch<int>().union_with(context.empty_batch<int>()).is_empty());
}

TEST(UnionWith, KeepsAPartitionerThatBothHave) {
  const Context context = four_threads();
  const auto a = context.parallelize(random_pairs(50, 9, 1), 2).partition_by(3);
  const auto b = context.parallelize(random_pairs(50, 9, 2), 2).partition_by(3);
  const auto both = a.union_with(b);
  EXPECT_EQ(both.num_partitions(), 3u);
  ASSERT_NE(both.partitioner(), nullptr);
  EXPECT_EQ(both.count(), 100u);
  EXPECT_EQ(sorted(both.reduce_by_key(std::plus<>{}).collect()),
            sorted(context.parallelize(both.collect(), 1).reduce_by_key(std::plus<>{}).collect()));
  EXPECT_EQ(both.take(70).size(), 70u);
  EXPECT_EQ(a.union_with(b.partition_by(4)).num_partitions(), 7u);
}

TEST(Distinct, KeepsEachRecordOnce) {
  const auto input = random_numbers(many, 500, 3);
  const std::set<int> expected(input.begin(), input.end());
  for (const std::size_t n : partition_counts) {
    EXPECT_EQ(sorted(four_threads().parallelize(input, n).distinct().collect()),
              std::vector<int>(expected.begin(), expected.end()));
  }
  EXPECT_TRUE(four_threads().empty_batch<int>().distinct().is_empty());
}

TEST(Distinct, WorksOnViewsOfTemporaries) {
  const auto words = four_threads()
                         .parallelize(numbers(100), 4)
                         .map([](int i) { return "some word that does not fit inline " + std::to_string(i % 10); })
                         .map([](const std::string& s) { return std::string_view{s}; });
  EXPECT_EQ(words.distinct(2).collect().size(), 10u);
  EXPECT_EQ(words.intersection(words).count(), 10u);
  EXPECT_EQ(words.subtract(words).count(), 0u);
}

TEST(IntersectionAndSubtract, AgreeWithSetsOnRandomInput) {
  const auto a = random_numbers(6000, 3000, 4);
  const auto b = random_numbers(5000, 4000, 5);
  const std::set<int> in_b(b.begin(), b.end());
  std::set<int> common;
  std::vector<int> rest;
  for (const int x : a) {
    if (in_b.contains(x)) {
      common.insert(x);
    } else {
      rest.push_back(x);
    }
  }
  const Context context = four_threads();
  for (const std::size_t n : partition_counts) {
    const auto here = context.parallelize(a, n);
    const auto there = context.parallelize(b, 2);
    EXPECT_EQ(sorted(here.intersection(there).collect()), std::vector<int>(common.begin(), common.end()));
    EXPECT_EQ(sorted(here.subtract(there).collect()), sorted(rest)) << "repetitions stay";
  }
  EXPECT_TRUE(context.parallelize(a).intersection(context.empty_batch<int>()).is_empty());
  EXPECT_EQ(context.parallelize(a).subtract(context.empty_batch<int>()).count(), a.size());
}

TEST(SetOperators, NameTheStageThatThrew) {
  const auto bad = four_threads().parallelize(numbers(4), 2).map(BoomAt{2});
  expect_user_error([&] { (void)bad.distinct().count(); }, "map", 1);
  expect_user_error([&] { (void)bad.union_with(bad).count(); }, "map", 1);
  expect_user_error([&] { (void)bad.sample(Replacement::with, 2).count(); }, "map", 1);
  expect_user_error([&] { (void)bad.cartesian(bad).count(); }, "map");
  expect_user_error([&] { (void)bad.zip(bad).count(); }, "map", 1);
  expect_user_error([&] { (void)bad.zip_with_index().count(); }, "map", 1);
}

TEST(Sample, DrawsTheSameForTheSameSeedAndAboutTheFractionAskedFor) {
  for (const std::size_t n : partition_counts) {
    const auto batch = four_threads().parallelize(numbers(20000), n);
    const auto drawn = batch.sample(Replacement::without, 0.25, 7);
    EXPECT_EQ(drawn.collect(), drawn.collect());
    EXPECT_NE(drawn.collect(), batch.sample(Replacement::without, 0.25, 8).collect());
    EXPECT_NEAR(static_cast<double>(drawn.count()), 5000, 400);
    const auto once = drawn.collect();
    EXPECT_EQ(std::set<int>(once.begin(), once.end()).size(), once.size());
    EXPECT_TRUE(std::is_sorted(once.begin(), once.end()));
    EXPECT_NEAR(static_cast<double>(batch.sample(Replacement::with, 2.5, 7).count()), 50000, 1500);
  }
}

TEST(Sample, DrawsEverythingNothingOrManyTimes) {
  const auto batch = four_threads().parallelize(numbers(10), 2);
  EXPECT_EQ(batch.sample(Replacement::without, 1).collect(), numbers(10));
  EXPECT_TRUE(batch.sample(Replacement::without, 0).is_empty());
  EXPECT_TRUE(batch.sample(Replacement::with, 0).is_empty());
  EXPECT_NEAR(static_cast<double>(batch.sample(Replacement::with, 1000).count()), 10000, 500) << "no underflow";
  EXPECT_THROW((void)batch.sample(Replacement::without, 1.5), ConfigError);
  EXPECT_THROW((void)batch.sample(Replacement::with, -1), ConfigError);
  EXPECT_THROW((void)batch.sample(Replacement::with, std::numeric_limits<double>::quiet_NaN()), ConfigError);
}

TEST(Cartesian, MakesAllPairs) {
  const Context context = four_threads();
  for (const std::size_t n : partition_counts) {
    const auto pairs = context.parallelize(numbers(3), n).cartesian(context.parallelize(numbers(2), 2).map(BoomAt{-1}));
    EXPECT_EQ(pairs.num_partitions(), 2 * std::min<std::size_t>(n, 3));
    EXPECT_EQ(sorted(pairs.collect()),
              (std::vector<std::pair<int, int>>{{0, 0}, {0, 1}, {1, 0}, {1, 1}, {2, 0}, {2, 1}}));
    EXPECT_EQ(pairs.take(1).size(), 1u);
  }
  const auto large = context.parallelize(numbers(300), 2);
  EXPECT_EQ(large.cartesian(large).count(), 90000u);
  EXPECT_TRUE(large.cartesian(context.empty_batch<int>()).is_empty());
}

TEST(Zip, PairsWhatLiesAtTheSamePlace) {
  const Context context = four_threads();
  const auto squares = [](int x) { return std::to_string(x * x); };
  for (const std::size_t n : partition_counts) {
    const auto batch = context.parallelize(numbers(5), n);
    const auto zipped = batch.zip(batch.map(squares)).collect();
    ASSERT_EQ(zipped.size(), 5u);
    for (const auto& [x, text] : zipped) EXPECT_EQ(text, squares(x));
  }
}

TEST(Zip, RefusesBatchesOfAnotherShape) {
  const Context context = four_threads();
  const auto batch = context.parallelize(numbers(6), 2);
  const auto code = [](const auto& zipped) -> std::string {
    try {
      (void)zipped.count();
    } catch (const PlanError& error) {
      return error.code();
    }
    return "nothing thrown";
  };
  EXPECT_EQ(code(batch.zip(context.parallelize(numbers(6), 3))), "zip_mismatch");
  EXPECT_EQ(code(batch.zip(batch.filter([](int x) { return x != 1; }))), "zip_mismatch");
}

TEST(ZipWithIndex, NumbersTheRecordsOfAllPartitions) {
  for (const std::size_t n : partition_counts) {
    const auto numbered =
        four_threads().parallelize(numbers(many), n).filter([](int x) { return x % 3 != 0; }).zip_with_index();
    std::size_t i = 0;
    for (const auto& [x, index] : numbered.collect()) {
      EXPECT_EQ(index, i++);
      EXPECT_NE(x % 3, 0);
    }
  }
  EXPECT_TRUE(four_threads().empty_batch<int>().zip_with_index().is_empty());
  const auto boxes = four_threads().parallelize(numbers(3), 2).map([](int x) { return std::make_unique<int>(x); });
  EXPECT_EQ(boxes.zip_with_index().map([](const auto& p) { return p.second; }).collect(),
            (std::vector<std::size_t>{0, 1, 2}));
}

}  // namespace
}  // namespace tidemill
