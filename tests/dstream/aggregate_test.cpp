// Operators that fold the records of a batch. SEMANTICS M5–M7, P1. Never across batches.
#include <map>
#include <random>

#include "dstream/streams.hpp"
#include "tidemill/batch/partitioner.hpp"

namespace tidemill {
namespace {

using namespace testing_streams;
using Pairs = std::vector<std::pair<int, int>>;

TEST(Reduce, GivesOneRecordABatchAndNoneForAnEmptyOne) {  // M5
  for_each_parallelism([](StreamTest<int>& test) {
    test.run(test.input().reduce(std::plus<>{}), {{1, 2, 3}, {}, {7}}).expect_batches({{6}, {}, {7}});
  });
}

TEST(Reduce, FoldsAChainAndOwnsItsResult) {  // M5
  for_each_parallelism([](StreamTest<std::string>& test) {
    const auto views = test.input()
                           .map([](const std::string& s) { return s + " and a tail that does not fit inline"; })
                           .map([](const std::string& s) { return std::string_view{s}; });
    test.run(views.reduce([](std::string_view a, std::string_view b) { return std::max(a, b); }), {{"a", "c", "b"}, {}})
        .expect_batches({{"c and a tail that does not fit inline"}, {}});
  });
}

TEST(Count, GivesOneNumberABatchAndZeroForAnEmptyOne) {  // M6
  for_each_parallelism([](StreamTest<int>& test) {
    test.run(test.input().count(), {{5, 5, 5}, {}, {1}}).expect_batches({{3}, {0}, {1}});
  });
}

TEST(CountByValue, PairsEachValueWithHowOftenItOccurs) {  // M7
  for_each_parallelism([](StreamTest<std::string>& test) {
    test.run(test.input().count_by_value(), {{"a", "b", "a"}, {}, {"a"}})
        .expect_batches({{{"a", 2}, {"b", 1}}, {}, {{"a", 1}}});
  });
}

TEST(ReduceByKey, CombinesWithinABatchNeverAcrossBatches) {  // P1
  for_each_parallelism([](StreamTest<std::string>& test) {
    const auto counts = test.input()
                            .map([](const std::string& s) {
                              return std::pair{s, 1};
                            })
                            .reduce_by_key(std::plus<>{});
    test.run(counts, {{"a", "a", "b"}, {}, {"b"}}).expect_batches({{{"a", 2}, {"b", 1}}, {}, {{"b", 1}}});
  });
}

TEST(ReduceByKey, TakesANumberOfPartitionsOrAPartitioner) {  // P1
  StreamTest<std::pair<int, int>> test;
  const auto numbered = test.input().reduce_by_key(std::plus<>{}, 3);
  const auto partitioned =
      test.input().reduce_by_key(std::plus<>{}, partition_by_function<int>(2, [](int key) { return key % 2; }));
  std::vector<std::size_t> partitions;
  numbered.foreach_batch([&](const auto& batch) { partitions.push_back(batch.num_partitions()); });
  partitioned.foreach_batch([&](const auto& batch) { partitions.push_back(batch.num_partitions()); });
  const auto sums = test.collect(numbered);
  test.run(partitioned, {{{1, 1}, {1, 2}, {2, 3}}, {}}).expect_batches({{{1, 3}, {2, 3}}, {}});
  EXPECT_EQ(partitions, (std::vector<std::size_t>{3, 2, 3, 2}));
  EXPECT_EQ((*sums)[0].size(), 2u);
}

TEST(GroupByKey, CollectsTheValuesOfEachKey) {  // P1
  for_each_parallelism([](StreamTest<std::pair<int, int>>& test) {
    using Group = std::pair<int, std::vector<int>>;
    test.run(test.input().group_by_key(), {{{1, 10}, {2, 20}, {1, 11}}, {}})
        .expect_batches({{Group{1, {10, 11}}, Group{2, {20}}}, {}});
  });
}

TEST(CombineByKey, MakesMergesAndCombines) {  // P1
  for_each_parallelism([](StreamTest<std::pair<int, int>>& test) {
    const auto texts = test.input().combine_by_key([](int v) { return std::to_string(v); },
                                                   [](std::string c, int v) { return c + std::to_string(v); },
                                                   [](std::string a, const std::string& b) { return a + b; });
    test.run(texts, {{{1, 1}, {1, 2}, {2, 3}, {1, 4}}, {}}).expect_batches({{{1, "124"}, {2, "3"}}, {}});
  });
}

TEST(Aggregates, AgreeWithAnOracleOnRandomBatches) {
  for (const std::size_t parallelism : {1u, 3u}) {
    StreamTest<std::pair<int, int>> test{1s, parallelism};
    const auto sums = test.collect(test.input().reduce_by_key(std::plus<>{}));
    const auto counts = test.collect(test.input().count());
    std::mt19937 random{7};
    for (int i = 0; i < 20; ++i) {
      Pairs records(random() % 3000);
      std::map<int, int> oracle;
      for (auto& [key, value] : records) {
        key = static_cast<int>(random() % 50);
        value = static_cast<int>(random() % 100);
        oracle[key] += value;
      }
      const std::size_t count = records.size();
      test.step(std::move(records));
      EXPECT_EQ(counts->back(), std::vector{count});
      EXPECT_THAT(sums->back(), ::testing::UnorderedElementsAreArray(Pairs(oracle.begin(), oracle.end())));
    }
  }
}

}  // namespace
}  // namespace tidemill
