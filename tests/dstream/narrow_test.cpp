// Operators that look at one stream, record by record or partition by partition. SEMANTICS M1–M4, P2. Each meets an empty batch
// and many partitions.
#include "dstream/streams.hpp"
#include "tidemill/batch/split.hpp"

namespace tidemill {
namespace {

using namespace testing_streams;

TEST(Map, AppliesAFunctionToEachRecord) {  // M1
  for_each_parallelism([](StreamTest<int>& test) {
    test.run(test.input().map([](int i) { return std::to_string(i); }), {{1, 2}, {}, {3}})
        .expect_batches({{"1", "2"}, {}, {"3"}});
  });
}

TEST(Filter, KeepsTheRecordsForWhichTheFunctionIsTrue) {  // M1
  for_each_parallelism([](StreamTest<int>& test) {
    test.run(test.input().filter([](int i) { return i % 2 == 0; }), {{1, 2, 3, 4}, {}, {1}})
        .expect_batches({{2, 4}, {}, {}});
  });
}

TEST(FlatMap, GivesAnyNumberOfRecordsForEach) {  // M1
  for_each_parallelism([](StreamTest<std::string>& test) {
    test.run(test.input().flat_map(split(' ')), {{"a b", "", "c"}, {}}).expect_batches({{"a", "b", "", "c"}, {}});
  });
}

TEST(MapPartitions, SeesEachPartitionWhole) {  // M2
  StreamTest<int> test{1s, 2};
  const auto sums = test.input().map_partitions([](std::span<const int> partition) {
    return std::vector<int>{std::accumulate(partition.begin(), partition.end(), 0)};
  });
  const auto result = test.run(sums, {{1, 2, 3, 4}, {}});
  EXPECT_EQ(result.get()[0].size(), 2u) << "one record a partition";
  EXPECT_EQ(result.get()[0][0] + result.get()[0][1], 10);
}

TEST(Glom, MakesEachPartitionOneRecord) {  // M3
  StreamTest<int> test{1s, 2};
  const auto result = test.run(test.input().glom(), {{1, 2, 3, 4}});
  EXPECT_EQ(result.get()[0], (std::vector<std::vector<int>>{{1, 2}, {3, 4}}));
}

TEST(Repartition, GivesThatManyPartitionsAndTheSameRecords) {  // M4
  StreamTest<int> test;
  const auto stream = test.input().repartition(3);
  std::vector<std::size_t> partitions;
  stream.foreach_batch([&](const auto& batch) { partitions.push_back(batch.num_partitions()); });
  test.run(stream, {{1, 2, 3, 4}, {}}).expect_batches({{1, 2, 3, 4}, {}});
  EXPECT_EQ(partitions, (std::vector<std::size_t>{3, 3}));
  EXPECT_THROW((void)StreamTest<int>{}.input().repartition(0), ConfigError);
}

TEST(KeyBy, PairsEachRecordWithItsKey) {
  for_each_parallelism([](StreamTest<std::string>& test) {
    test.run(test.input().key_by([](const std::string& s) { return s.size(); }), {{"a", "bb"}, {}})
        .expect_batches({{{1, "a"}, {2, "bb"}}, {}});
  });
}

TEST(MapValues, LeavesTheKeysAlone) {  // P2
  for_each_parallelism([](StreamTest<std::pair<int, int>>& test) {
    test.run(test.input().map_values([](int v) { return 10 * v; }), {{{1, 2}, {3, 4}}, {}})
        .expect_batches({{{1, 20}, {3, 40}}, {}});
  });
}

TEST(FlatMapValues, RepeatsTheKeyForEachValue) {  // P2
  for_each_parallelism([](StreamTest<std::pair<int, int>>& test) {
    test.run(test.input().flat_map_values([](int v) { return std::vector<int>(static_cast<std::size_t>(v), v); }),
             {{{1, 2}, {3, 0}}, {}})
        .expect_batches({{{1, 2}, {1, 2}}, {}});
  });
}

TEST(MapValues, KeepsThePartitioner) {  // P2
  StreamTest<std::pair<int, int>> test;
  const auto sums = test.input().reduce_by_key(std::plus<>{}, 4);
  const auto mapped = sums.map_values([](int v) { return v; });
  bool kept = false;
  mapped.foreach_batch([&](const auto& batch) { kept = batch.partitioner() != nullptr; });
  test.step({{1, 2}});
  EXPECT_TRUE(kept);
}

TEST(KeysAndValues, TakePairsApart) {
  for_each_parallelism([](StreamTest<std::pair<int, std::string>>& test) {
    const auto values = test.collect(test.input().values());
    test.run(test.input().keys(), {{{1, "a"}, {1, "b"}}, {}}).expect_batches({{1, 1}, {}});
    EXPECT_EQ(*values, (std::vector<std::vector<std::string>>{{"a", "b"}, {}}));
  });
}

TEST(Chains, FuseWithWhateverFollows) {
  for_each_parallelism([](StreamTest<int>& test) {
    const auto chain =
        test.input().map([](int i) { return i + 1; }).filter([](int i) { return i > 1; }).flat_map([](int i) {
          return std::vector<int>{i, -i};
        });
    test.run(chain, {{0, 1, 2}, {}}).expect_batches({{2, -2, 3, -3}, {}});
  });
}

}  // namespace
}  // namespace tidemill
