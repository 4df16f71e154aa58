// Keyed aggregation against a slow and obvious oracle.
#include <map>
#include <string>
#include <string_view>

#include "batch/batches.hpp"

namespace tidemill {
namespace {

using namespace testing_batches;

TEST(ReduceByKey, AgreesWithAMapWhateverThePartitions) {
  const auto pairs = random_pairs(many, 700, 1);
  std::map<int, long> expected;
  for (const auto& [key, value] : pairs) expected[key] += value;
  const std::vector<std::pair<int, long>> oracle(expected.begin(), expected.end());
  const Context context = four_threads();
  for (const std::size_t in : partition_counts) {
    for (const std::size_t out : partition_counts) {
      const auto sums = context.parallelize(pairs, in)
                            .map([](const auto& p) {
                              return std::pair{p.first, static_cast<long>(p.second)};
                            })
                            .reduce_by_key(std::plus<>{}, out);
      EXPECT_EQ(sums.num_partitions(), out);
      EXPECT_EQ(sorted(sums.collect()), oracle) << in << " to " << out;
      EXPECT_EQ(sums.collect(), sums.collect()) << "the order is the same each time";
    }
  }
}

TEST(ReduceByKey, GroupsViewsOfTemporaries) {
  const auto word = [](int i) {
    return i % 3 == 0 ? "a rather long word with number " + std::to_string(i % 30) : "w" + std::to_string(i % 30);
  };
  std::map<std::string, long> expected;
  for (int i = 0; i < 5000; ++i) ++expected[word(i)];
  const Context context = four_threads();
  for (const std::size_t n : partition_counts) {
    const auto counts = context.parallelize(numbers(5000), n)
                            .map(word)
                            .map([](const std::string& s) {
                              return std::pair{std::string_view{s}, 1L};
                            })
                            .reduce_by_key(std::plus<>{});
    const auto all = counts.collect_as_map();
    EXPECT_EQ((std::map<std::string, long>{all.begin(), all.end()}), expected) << n;
  }
}

TEST(ReduceByKey, FoldsViewsAsValues) {
  const auto text = [](int i) { return "value that does not fit inline " + std::to_string(1000 + i); };
  const Context context = four_threads();
  for (const std::size_t n : partition_counts) {
    const auto longest = context.parallelize(numbers(1000), n)
                             .map([&](int i) {
                               return std::pair{i % 7, text(i)};
                             })
                             .map([](const std::pair<int, std::string>& p) {
                               return std::pair{p.first, std::string_view{p.second}};
                             })
                             .reduce_by_key([](std::string_view a, std::string_view b) { return std::max(a, b); });
    const auto found = sorted(longest.collect());
    ASSERT_EQ(found.size(), 7u);
    for (const auto& [key, value] : found) EXPECT_EQ(value, text(key + 7 * ((999 - key) / 7))) << n;
  }
}

TEST(ReduceByKey, OfAnEmptyBatchIsEmpty) {
  const auto batch = four_threads().empty_batch<std::pair<int, int>>().reduce_by_key(std::plus<>{}, 3);
  EXPECT_TRUE(batch.collect().empty());
  EXPECT_EQ(batch.num_partitions(), 3u);
}

TEST(ReduceByKey, NamesItselfWhenTheFunctionThrows) {
  const auto sum = [](int a, int b) { return BoomAt{4}(a + b); };
  const auto pairs = four_threads().parallelize(std::vector<std::pair<int, int>>{{0, 1}, {0, 1}, {0, 2}, {0, 2}}, 2);
  expect_user_error([&] { (void)pairs.reduce_by_key(sum).collect(); }, "reduce_by_key", 1);
}

TEST(ReduceByKey, UsesTheUsersPartitionerAndStaysWherePartitionsAreEqual) {
  const Context context = four_threads();
  std::atomic<int> asked = 0;
  const auto by_parity = partition_by_function<int>(2, [&asked](int key) {
    ++asked;
    return key % 2;
  });
  const auto sums = context.parallelize(random_pairs(100, 10, 3), 4).reduce_by_key(std::plus<>{}, by_parity);
  for (const auto& part : sums.glom().collect()) {
    for (const auto& pair : part) EXPECT_EQ(pair.first % 2, part.front().first % 2);
  }
  EXPECT_EQ(sums.partitioner(), by_parity);
  const int before = asked;
  const auto again = sums.map_values([](int v) { return v + 1; }).reduce_by_key(std::plus<>{});
  EXPECT_EQ(again.collect().size(), 10u);
  EXPECT_EQ(asked, before) << "equal partitioners move nothing, so nobody asks where a key belongs";
  EXPECT_EQ(sums.map([](const auto& p) { return p; }).partitioner(), nullptr) << "map may change keys";
}

TEST(ReduceByKey, ChecksWhatThePartitionerAnswers) {
  struct Wild final : Partitioner<int> {
    [[nodiscard]] std::size_t partitions() const noexcept override { return 2; }
    [[nodiscard]] std::size_t partition_of(const int& key) const override {
      if (key < 0) throw std::runtime_error{"boom"};
      return static_cast<std::size_t>(key);
    }
  };
  const auto wild = std::make_shared<const Wild>();
  const Context context = four_threads();
  const auto run = [&](int key) {
    (void)context.parallelize(std::vector<std::pair<int, int>>{{key, 1}, {0, 1}}, 2)
        .reduce_by_key(std::plus<>{}, wild)
        .count();
  };
  EXPECT_THROW(run(7), PlanError);
  expect_user_error([&] { run(-1); }, "reduce_by_key", 0);
  EXPECT_THROW((void)partition_by_function<int>(0, [](int) { return 0; }), ConfigError);
  EXPECT_THROW((void)context.parallelize(random_pairs(9, 9, 1), 2)
                   .reduce_by_key(std::plus<>{}, partition_by_function<int>(2, [](int) { return 2; }))
                   .count(),
               PlanError);
}

TEST(CombineByKey, CreatesMergesAndJoinsPartialResults) {
  const auto pairs = random_pairs(many, 50, 2);
  std::map<int, std::pair<int, int>> expected;
  for (const auto& [key, value] : pairs) {
    expected[key].first += value;
    ++expected[key].second;
  }
  for (const std::size_t n : partition_counts) {
    const auto sums = four_threads().parallelize(pairs, n).combine_by_key(
        [](int v) {
          return std::pair{v, 1};
        },
        [](std::pair<int, int>& acc, int v) {
          acc.first += v;
          ++acc.second;
        },
        [](std::pair<int, int> a, std::pair<int, int> b) {
          return std::pair{a.first + b.first, a.second + b.second};
        });
    const auto found = sums.collect();
    EXPECT_EQ((std::map<int, std::pair<int, int>>{found.begin(), found.end()}), expected);
  }
}

TEST(AggregateByKey, StartsFromZeroInEachPartition) {
  const auto pairs =
      four_threads().parallelize(std::vector<std::pair<int, std::string>>{{1, "a"}, {1, "b"}, {2, "c"}}, 2);
  const auto lengths = pairs.aggregate_by_key(
      0, [](int n, const std::string& s) { return n + static_cast<int>(s.size()); }, std::plus<>{});
  EXPECT_EQ(sorted(lengths.collect()), (std::vector<std::pair<int, int>>{{1, 2}, {2, 1}}));
  EXPECT_EQ(sorted(pairs.fold_by_key(std::string{}, std::plus<>{}).collect()),
            (std::vector<std::pair<int, std::string>>{{1, "ab"}, {2, "c"}}));
}

TEST(GroupByKey, KeepsTheValuesOfAKeyInBatchOrder) {
  const auto pairs = random_pairs(many, 99, 4);
  std::map<int, std::vector<int>> expected;
  for (const auto& [key, value] : pairs) expected[key].push_back(value);
  for (const std::size_t n : partition_counts) {
    const auto groups = four_threads().parallelize(pairs, n).group_by_key().collect();
    EXPECT_EQ((std::map<int, std::vector<int>>{groups.begin(), groups.end()}), expected) << n;
  }
}

TEST(GroupByKey, MovesValuesThatCannotBeCopied) {
  const auto groups = four_threads()
                          .parallelize(numbers(6), 2)
                          .map([](int i) {
                            return std::pair{i % 2, std::make_unique<int>(i)};
                          })
                          .group_by_key();
  int sum = 0;
  for (const auto& [key, boxes] : groups.map_values([](const auto& b) { return b.size(); }).collect()) {
    sum += key + static_cast<int>(boxes);
  }
  EXPECT_EQ(sum, 7);
}

TEST(CountByKey, CountsPairs) {
  const auto pairs =
      four_threads().parallelize(std::vector<std::pair<std::string, int>>{{"a", 1}, {"b", 2}, {"a", 3}}, 2);
  const std::unordered_map<std::string, std::size_t> counts = pairs.count_by_key();
  EXPECT_EQ(counts, (std::unordered_map<std::string, std::size_t>{{"a", 2}, {"b", 1}}));
}

TEST(Lookup, FindsTheValuesOfAKeyInBatchOrder) {
  const auto pairs =
      four_threads().parallelize(std::vector<std::pair<std::string, int>>{{"a", 1}, {"b", 2}, {"a", 3}}, 2);
  EXPECT_EQ(pairs.lookup("a"), (std::vector{1, 3}));
  EXPECT_EQ(pairs.lookup(std::string_view{"b"}), (std::vector{2}));
  EXPECT_TRUE(pairs.lookup("c").empty());
  const auto placed = pairs.partition_by(3);
  EXPECT_EQ(placed.lookup("a"), (std::vector{1, 3}));
  EXPECT_EQ(placed.lookup(std::string{"b"}), (std::vector{2}));
}

TEST(PartitionBy, PutsEqualKeysTogetherAndKeepsTheirOrder) {
  const auto pairs = random_pairs(many, 100, 5);
  const auto placed = four_threads().parallelize(pairs, 3).partition_by(5);
  EXPECT_EQ(placed.num_partitions(), 5u);
  EXPECT_EQ(sorted(placed.collect()), sorted(pairs));
  std::map<int, std::size_t> home;
  std::size_t p = 0;
  for (const auto& part : placed.glom().collect()) {
    for (const auto& pair : part) EXPECT_EQ(home.try_emplace(pair.first, p).first->second, p);
    ++p;
  }
  std::map<int, std::vector<int>> expected;
  std::map<int, std::vector<int>> found;
  for (const auto& [key, value] : pairs) expected[key].push_back(value);
  for (const auto& [key, value] : placed.collect()) found[key].push_back(value);
  EXPECT_EQ(found, expected);
  EXPECT_EQ(placed.partition_by(5).node_pointer(), placed.node_pointer()) << "it lies like that already";
}

TEST(KeyedOperators, TakeANumberOfPartitionsOrAPartitioner) {
  Context context{{.parallelism = 2}};
  const auto pairs = context.parallelize(std::vector<std::pair<int, int>>{{1, 1}, {2, 2}, {3, 3}, {1, 4}}).cache();
  const auto by_parity = partition_by_function<int>(2, [](int key) { return key % 2; });
  const auto expect_by_parity = [&](const auto& batch) {
    EXPECT_EQ(batch.partitioner(), by_parity);
    std::vector<std::size_t> sizes;
    for (const auto& part : batch.glom().collect()) sizes.push_back(part.size());
    EXPECT_EQ(sizes, (std::vector<std::size_t>{1, 2})) << "2, then 1 and 3";
  };
  expect_by_parity(pairs.group_by_key(by_parity));
  expect_by_parity(pairs.aggregate_by_key(0, std::plus<>{}, std::plus<>{}, by_parity));
  expect_by_parity(pairs.fold_by_key(0, std::plus<>{}, by_parity));
  expect_by_parity(pairs.combine_by_key([](int v) { return v; }, std::plus<>{}, std::plus<>{}, by_parity));
  EXPECT_EQ(pairs.group_by_key(5).num_partitions(), 5u);

  const auto records = pairs.keys();
  const auto parts = [](const auto& batch) { return batch.glom().collect(); };
  using Parts = std::vector<std::vector<int>>;
  EXPECT_EQ(parts(records.distinct(by_parity)), (Parts{{2}, {1, 3}}));
  EXPECT_EQ(parts(records.intersection(context.parallelize(std::vector{3, 2, 9}), by_parity)), (Parts{{2}, {3}}));
  EXPECT_EQ(parts(records.subtract(context.parallelize(std::vector{3}), by_parity)), (Parts{{2}, {1, 1}}));
  EXPECT_THROW((void)records.distinct(std::make_shared<HashPartitioner<std::string>>(2)), PlanError);
}

TEST(KeyedOperators, NameANumberOfPartitionsThatCannotBe) {
  const Context context{{.parallelism = 1}};
  const auto refusal = [&](std::size_t partitions) -> std::string {
    try {
      static_cast<void>(context.parallelize(std::vector{std::pair{1, 1}}).group_by_key(partitions).collect());
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "nothing was thrown";
  };
  EXPECT_THAT(refusal(static_cast<std::size_t>(-1)),
              ::testing::HasSubstr("1000000 partitions at most, and 18446744073709551615 were asked for"));
}

TEST(MapPartitions, KeepsThePartitionerIfToldThatKeysStay) {
  Context context{{.parallelism = 2}};
  const auto pairs = context.parallelize(std::vector<std::pair<int, int>>{{1, 1}, {2, 2}}).partition_by(3);
  const auto same = [](std::size_t, std::span<const std::pair<int, int>> records) {
    return std::vector(records.begin(), records.end());
  };
  EXPECT_EQ(pairs.map_partitions_with_index(same).partitioner(), nullptr);
  EXPECT_EQ(pairs.map_partitions_with_index(same, PreservesPartitioning::yes).partitioner(), pairs.partitioner());
}

TEST(PartitionBy, RefusesAPartitionerForOtherKeys) {
  const auto pairs = four_threads().parallelize(random_pairs(4, 4, 6), 2);
  EXPECT_THROW((void)pairs.partition_by(std::make_shared<HashPartitioner<std::string>>(2)), PlanError);
  EXPECT_THROW((void)HashPartitioner<int>{0}, ConfigError);
}

TEST(PartitionBy, CutsByRange) {
  const auto by_range = std::make_shared<RangePartitioner<int>>(std::vector{2, 5});
  const auto parts =
      four_threads().parallelize(random_pairs(200, 9, 7), 3).partition_by(by_range).keys().glom().collect();
  ASSERT_EQ(parts.size(), 3u);
  for (const int k : parts[0]) EXPECT_LE(k, 2);
  for (const int k : parts[1]) EXPECT_TRUE(k > 2 && k <= 5);
  for (const int k : parts[2]) EXPECT_GT(k, 5);
}

}  // namespace
}  // namespace tidemill
