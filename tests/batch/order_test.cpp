// Sorting and the first few, against std::stable_sort.
#include <cmath>
#include <limits>
#include <string>
#include <string_view>

#include "batch/batches.hpp"

namespace tidemill {
namespace {

using namespace testing_batches;
using Pairs = std::vector<std::pair<int, int>>;

Pairs stable_by_key(Pairs pairs, bool descending) {
  std::stable_sort(pairs.begin(), pairs.end(),
                   [&](const auto& a, const auto& b) { return descending ? b.first < a.first : a.first < b.first; });
  return pairs;
}

TEST(SortBy, IsAStableSortWhateverThePartitions) {
  const Context context = four_threads();
  for (const int keys : {1, 5, 3000}) {
    const auto pairs = random_pairs(many, keys, 21);
    for (const std::size_t in : partition_counts) {
      for (const std::size_t out : {std::size_t{1}, std::size_t{4}}) {
        const auto batch = context.parallelize(pairs, in);
        const auto up = batch.sort_by([](const auto& p) { return p.first; }, Order::ascending, out);
        EXPECT_EQ(up.num_partitions(), out);
        EXPECT_EQ(up.collect(), stable_by_key(pairs, false)) << keys << " keys, " << in << " to " << out;
        EXPECT_EQ(batch.sort_by_key(Order::descending, out).collect(), stable_by_key(pairs, true));
      }
    }
  }
}

TEST(SortBy, SpreadsRecordsEvenlyWhenKeysAllowIt) {
  for (const auto& part : four_threads()
                              .parallelize(numbers(many), 3)
                              .sort_by([](int x) { return -x; }, Order::ascending, 4)
                              .glom()
                              .collect()) {
    EXPECT_NEAR(static_cast<double>(part.size()), many / 4.0, many / 20.0);
  }
}

TEST(SortBy, OfFewRecordsIntoManyPartitions) {
  const auto batch = four_threads().parallelize(std::vector{3, 1, 2}, 2);
  EXPECT_EQ(batch.sort_by([](int x) { return x; }, Order::ascending, 8).collect(), (std::vector{1, 2, 3}));
  EXPECT_EQ(batch.sort_by([](int x) { return x; }).num_partitions(), 2u);
  EXPECT_TRUE(
      four_threads().empty_batch<int>().sort_by([](int x) { return x; }, Order::ascending, 3).collect().empty());
}

TEST(SortBy, SortsViewsOfTemporariesByViewsOfRecords) {
  const auto name = [](int i) {
    return (i % 2 == 0 ? "short " : "a name longer than fifteen bytes ") + std::to_string(1000 + i);
  };
  std::vector<std::string> expected;
  for (int i = 0; i < 500; ++i) expected.push_back(name(i));
  std::sort(expected.begin(), expected.end());
  for (const std::size_t n : partition_counts) {
    const auto names = four_threads().parallelize(numbers(500), n).map(name);
    EXPECT_EQ(names.sort_by([](const std::string& s) { return std::string_view{s}; }).collect(), expected);
    EXPECT_EQ(names.map([](const std::string& s) { return std::string_view{s}; })
                  .sort_by([](std::string_view s) { return s; })
                  .collect(),
              expected);
  }
}

TEST(SortBy, PutsNaNLastAndTakesAnOrderOfTheUser) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto doubles =
      four_threads().parallelize(std::vector{2.0, nan, 1.0, nan, -1.0}, 2).sort_by([](double x) { return x; });
  const auto found = doubles.collect();
  EXPECT_EQ((std::vector<double>{found.begin(), found.begin() + 3}), (std::vector{-1.0, 1.0, 2.0}));
  EXPECT_TRUE(std::isnan(found[3]) && std::isnan(found[4]));
  const auto by_digit = [](int a, int b) { return a % 10 < b % 10; };
  EXPECT_EQ(four_threads()
                .parallelize(std::vector{19, 21, 30}, 3)
                .sort_by([](int x) { return x; }, Order::ascending, 1, by_digit)
                .collect(),
            (std::vector{30, 21, 19}));
}

TEST(SortBy, MovesRecordsThatCannotBeCopied) {
  const auto boxes =
      four_threads().parallelize(std::vector{2, 3, 1}, 2).map([](int x) { return std::make_unique<int>(x); });
  const auto ordered = boxes.sort_by([](const std::unique_ptr<int>& box) { return *box; });
  EXPECT_EQ(ordered.map([](const auto& box) { return *box; }).collect(), (std::vector{1, 2, 3}));
}

TEST(SortBy, NamesItselfWhenKeyOrOrderThrow) {
  const auto batch = four_threads().parallelize(numbers(4), 2);
  expect_user_error([&] { (void)batch.sort_by(BoomAt{3}).count(); }, "sort_by", 1);
  const auto bad = [](int a, int b) { return BoomAt{3}(a) < b; };
  expect_user_error([&] { (void)batch.sort_by([](int x) { return x; }, Order::ascending, 2, bad).count(); }, "sort_by");
  const auto pairs = batch.map([](int x) { return std::pair{x, x}; });
  expect_user_error([&] { (void)pairs.sort_by_key(Order::ascending, 2, bad).count(); }, "sort_by_key");
  expect_user_error([&] { (void)pairs.repartition_and_sort_within_partitions(1, bad).count(); },
                    "repartition_and_sort_within_partitions", 0);
}

TEST(RepartitionAndSortWithinPartitions, SortsEachPartitionByKey) {
  const auto pairs = random_pairs(many, 400, 22);
  const auto by = partition_by_function<int>(3, [](int key) { return key % 3; });
  for (const std::size_t n : partition_counts) {
    const auto parts = four_threads().parallelize(pairs, n).repartition_and_sort_within_partitions(by).glom().collect();
    ASSERT_EQ(parts.size(), 3u);
    for (std::size_t p = 0; p < 3; ++p) {
      Pairs expected;
      for (const auto& pair : pairs) {
        if (pair.first % 3 == static_cast<int>(p)) expected.push_back(pair);
      }
      EXPECT_EQ(parts[p], stable_by_key(expected, false));
    }
  }
}

TEST(TopAndTakeOrdered, AgreeWithSorting) {
  const auto pairs = random_pairs(many, 300, 23);
  const auto by_key = [](const auto& a, const auto& b) { return a.first < b.first; };
  for (const std::size_t n : partition_counts) {
    const auto batch = four_threads().parallelize(pairs, n);
    for (const std::size_t k : {std::size_t{0}, std::size_t{1}, std::size_t{100}, std::size_t{5000}, 2 * many}) {
      const std::size_t size = std::min(k, many);
      Pairs smallest = stable_by_key(pairs, false);
      Pairs greatest = stable_by_key(pairs, true);
      smallest.resize(size);
      greatest.resize(size);
      EXPECT_EQ(batch.take_ordered(k, by_key), smallest) << k;
      EXPECT_EQ(batch.top(k, by_key), greatest) << k;
    }
  }
  EXPECT_TRUE(four_threads().empty_batch<int>().top(3).empty());
  EXPECT_EQ(four_threads().parallelize(numbers(9), 2).top(std::numeric_limits<std::size_t>::max()).size(), 9u);
}

TEST(TopAndTakeOrdered, OwnWhatViewsOfTemporariesLookAt) {
  const auto views = four_threads()
                         .parallelize(numbers(2000), 3)
                         .map([](int i) { return "a number in many letters " + std::to_string(10000 + i); })
                         .map([](const std::string& s) { return std::string_view{s}; });
  EXPECT_EQ(views.top(2),
            (std::vector<std::string>{"a number in many letters 11999", "a number in many letters 11998"}));
  EXPECT_EQ(views.max(), "a number in many letters 11999");
  EXPECT_EQ(views.min(), "a number in many letters 10000");
}

TEST(MaxAndMin, FindTheFirstOfTheExtremes) {
  const auto pairs = four_threads().parallelize(Pairs{{1, 1}, {2, 2}, {2, 3}, {1, 4}}, 3);
  const auto by_key = [](const auto& a, const auto& b) { return a.first < b.first; };
  EXPECT_EQ(pairs.max(by_key), (std::pair{2, 2}));
  EXPECT_EQ(pairs.min(by_key), (std::pair{1, 1}));
  EXPECT_THROW((void)four_threads().empty_batch<int>().max(), PlanError);
  EXPECT_THROW((void)four_threads().empty_batch<int>().min(), PlanError);
}

TEST(TopMaxAndMin, NameThemselvesWhenTheOrderThrows) {
  const auto batch = four_threads().parallelize(numbers(4), 2);
  const auto bad = [](int a, int b) { return BoomAt{3}(a) < BoomAt{3}(b); };
  expect_user_error([&] { (void)batch.top(1, bad); }, "top", 1);
  expect_user_error([&] { (void)batch.take_ordered(1, bad); }, "take_ordered", 1);
  expect_user_error([&] { (void)batch.max(bad); }, "max", 1);
  expect_user_error([&] { (void)batch.min(bad); }, "min", 1);
}

}  // namespace
}  // namespace tidemill
