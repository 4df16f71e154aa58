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

TEST(GroupByKey, TakesANumberOfPartitionsOrAPartitioner) {  // P1
  StreamTest<std::pair<int, int>> test;
  std::vector<std::size_t> partitions;
  const auto look = [&](const auto& batch) { partitions.push_back(batch.num_partitions()); };
  test.input().group_by_key(3).foreach_batch(look);
  const auto by_parity = test.input().group_by_key(partition_by_function<int>(2, [](int key) { return key % 2; }));
  by_parity.foreach_batch(look);
  using Group = std::pair<int, std::vector<int>>;
  test.run(by_parity, {{{1, 10}, {2, 20}, {1, 11}}}).expect_batches({{Group{2, {20}}, Group{1, {10, 11}}}});
  EXPECT_EQ(partitions, (std::vector<std::size_t>{3, 2}));
}

TEST(KeyedOperators, RefuseAPartitionerForOtherKeysAtOnce) {  // P1, P3
  StreamTest<std::pair<int, int>> test;
  const auto s = test.input();
  const auto texts = std::make_shared<HashPartitioner<std::string>>(2);
  const auto refused = [](const char* op, const std::function<void()>& action) {
    try {
      action();
      ADD_FAILURE() << op << ": nothing was thrown";
    } catch (const PlanError& error) {
      EXPECT_EQ(error.code(), "wrong_partitioner");
      EXPECT_THAT(error.what(), HasSubstr(op));
    }
  };
  refused("reduce_by_key", [&] { (void)s.reduce_by_key(std::plus<>{}, texts); });
  refused("combine_by_key",
          [&] { (void)s.combine_by_key([](int v) { return v; }, std::plus<>{}, std::plus<>{}, texts); });
  refused("group_by_key", [&] { (void)s.group_by_key(texts); });
  refused("full_outer_join", [&] { (void)s.full_outer_join(s, texts); });
  refused("cogroup", [&] { (void)s.cogroup(s, texts); });
  refused("group_by_key_and_window", [&] { (void)s.group_by_key_and_window(2s, 1s, texts); });
  refused("reduce_by_key_and_window", [&] { (void)s.reduce_by_key_and_window(std::plus<>{}, 2s, 1s, texts); });
}

TEST(MapPartitions, KeepsThePartitionerIfToldThatKeysStay) {  // M2
  StreamTest<std::pair<int, int>> test{1s, 2};
  const auto sums = test.input().reduce_by_key(std::plus<>{});
  const auto same = [](std::span<const std::pair<int, int>> records) {
    return std::vector(records.begin(), records.end());
  };
  std::vector<bool> kept;
  const auto look = [&](const auto& batch) { kept.push_back(batch.partitioner() != nullptr); };
  sums.map_partitions(same).foreach_batch(look);
  sums.map_partitions(same, PreservesPartitioning::yes).foreach_batch(look);
  test.step({{1, 1}, {2, 2}});
  EXPECT_EQ(kept, (std::vector<bool>{false, true}));
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
