// Joins and cogroup, against nested loops.
#include <atomic>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "batch/batches.hpp"

namespace tidemill {
namespace {

using namespace testing_batches;
using Pairs = std::vector<std::pair<int, int>>;

const Pairs left{{1, 10}, {2, 20}, {1, 11}, {3, 30}};
const Pairs right{{1, 100}, {3, 300}, {3, 301}, {4, 400}};

TEST(Join, PairsTheValuesOfKeysOnBothSides) {
  using Row = std::pair<int, std::pair<int, int>>;
  for (const std::size_t n : partition_counts) {
    const Context context = four_threads();
    const auto joined = context.parallelize(left, n).join(context.parallelize(right, 2), n);
    EXPECT_EQ(joined.num_partitions(), n);
    EXPECT_EQ(sorted(joined.collect()),
              (std::vector<Row>{{1, {10, 100}}, {1, {11, 100}}, {3, {30, 300}}, {3, {30, 301}}}));
  }
}

TEST(OuterJoins, KeepTheKeysOfOneSideOrBoth) {
  using std::nullopt;
  const Context context = four_threads();
  for (const std::size_t n : partition_counts) {
    const auto here = context.parallelize(left, n);
    const auto there = context.parallelize(right, n);
    using LeftRow = std::pair<int, std::pair<int, std::optional<int>>>;
    EXPECT_EQ(
        sorted(here.left_outer_join(there).collect()),
        (std::vector<LeftRow>{{1, {10, 100}}, {1, {11, 100}}, {2, {20, nullopt}}, {3, {30, 300}}, {3, {30, 301}}}));
    using RightRow = std::pair<int, std::pair<std::optional<int>, int>>;
    EXPECT_EQ(
        sorted(here.right_outer_join(there).collect()),
        (std::vector<RightRow>{{1, {10, 100}}, {1, {11, 100}}, {3, {30, 300}}, {3, {30, 301}}, {4, {nullopt, 400}}}));
    using FullRow = std::pair<int, std::pair<std::optional<int>, std::optional<int>>>;
    EXPECT_EQ(
        sorted(here.full_outer_join(there).collect()),
        (std::vector<FullRow>{
            {1, {10, 100}}, {1, {11, 100}}, {2, {20, nullopt}}, {3, {30, 300}}, {3, {30, 301}}, {4, {nullopt, 400}}}));
  }
}

TEST(Join, WithAnEmptySideIsEmptyAndTheOuterOnesAreNot) {
  const Context context = four_threads();
  const auto here = context.parallelize(left, 2);
  const auto nothing = context.empty_batch<std::pair<int, int>>();
  EXPECT_TRUE(here.join(nothing).collect().empty());
  EXPECT_TRUE(nothing.join(here).collect().empty());
  EXPECT_TRUE(nothing.full_outer_join(nothing).collect().empty());
  EXPECT_EQ(here.left_outer_join(nothing).count(), 4u);
  EXPECT_EQ(nothing.right_outer_join(here).count(), 4u);
}

TEST(Join, AgreesWithNestedLoopsOnRandomInput) {
  const auto a = random_pairs(6000, 2000, 11);
  const auto b = random_pairs(5000, 2500, 12);
  std::map<int, std::vector<int>> index;
  for (const auto& [key, value] : b) index[key].push_back(value);
  std::map<int, std::vector<std::pair<int, int>>> expected;
  for (const auto& [key, value] : a) {
    for (const int theirs : index[key]) expected[key].emplace_back(value, theirs);
  }
  std::erase_if(expected, [](const auto& entry) { return entry.second.empty(); });
  const Context context = four_threads();
  for (const std::size_t n : partition_counts) {
    std::map<int, std::vector<std::pair<int, int>>> found;
    const auto joined = context.parallelize(a, n).join(context.parallelize(b, 3), 4);
    for (const auto& [key, values] : joined.collect()) found[key].push_back(values);
    EXPECT_EQ(found, expected) << "in batch order for each key, " << n << " partitions";
  }
}

TEST(Join, DoesNotMoveInputsThatArePartitionedAlike) {
  const Context context = four_threads();
  std::atomic<int> asked = 0;
  const auto by = partition_by_function<int>(3, [&asked](int key) {
    ++asked;
    return key % 3;
  });
  const auto here = context.parallelize(left, 2).partition_by(by);
  const auto there = context.parallelize(right, 2).partition_by(by);
  (void)here.count();
  (void)there.count();
  const int before = asked;
  const auto joined = here.join(there);
  EXPECT_EQ(joined.count(), 4u);
  EXPECT_EQ(asked, before);
  EXPECT_EQ(joined.partitioner(), by);
  // One that lies right and one that does not: only the other is moved, one question for each of its keys and
  // partitions.
  EXPECT_EQ(here.join(context.parallelize(right, 1)).count(), 4u);
  EXPECT_EQ(asked, before + 3);
}

TEST(Join, TakesTheLargerPartitionerOfItsInputs) {
  const Context context = four_threads();
  const auto here = context.parallelize(left, 2).partition_by(2);
  const auto there = context.parallelize(right, 2).partition_by(5);
  EXPECT_EQ(here.join(there).num_partitions(), 5u);
  EXPECT_EQ(here.join(there, 2).num_partitions(), 2u);
  EXPECT_EQ(here.join(there, std::make_shared<HashPartitioner<int>>(7)).num_partitions(), 7u);
  EXPECT_EQ(sorted(here.join(there).collect()), sorted(here.join(there, 2).collect()));
}

TEST(Join, MatchesViewsWithStringsAndOutlivesTemporaries) {
  const Context context = four_threads();
  const auto name = [](int i) { return "a key that is longer than fifteen bytes " + std::to_string(i); };
  std::vector<std::pair<std::string, int>> table;
  for (int i = 0; i < 20; ++i) table.emplace_back(name(i), i);
  const auto info = context.parallelize(table, 2);
  const auto events = context.parallelize(numbers(100), 3)
                          .map([&](int i) {
                            return std::pair{name(i % 25), "value " + name(i)};
                          })
                          .map([](const std::pair<std::string, std::string>& p) {
                            return std::pair{std::string_view{p.first}, std::string_view{p.second}};
                          });
  const auto joined = events.join(info).collect();  // the enrichment idiom
  EXPECT_EQ(joined.size(), 80u);
  for (const auto& [key, values] : joined) EXPECT_EQ(key, name(values.second));
  EXPECT_EQ(info.join(events).count(), 80u);
  EXPECT_EQ(events.left_outer_join(info).count(), 100u);
}

TEST(Cogroup, GathersUpToFourInputs) {
  const Context context = four_threads();
  const auto a = context.parallelize(Pairs{{1, 1}, {2, 2}, {1, 3}}, 2);
  const auto b = context.parallelize(std::vector<std::pair<int, std::string>>{{1, "x"}, {3, "y"}}, 2);
  const auto c = context.parallelize(std::vector<std::pair<int, double>>{{3, 0.5}}, 1);
  using V = std::vector<int>;
  using S = std::vector<std::string>;
  using D = std::vector<double>;
  EXPECT_EQ(sorted(a.cogroup(b).collect()), (std::vector<std::pair<int, std::tuple<V, S>>>{
                                                {1, {V{1, 3}, S{"x"}}}, {2, {V{2}, S{}}}, {3, {V{}, S{"y"}}}}));
  EXPECT_EQ(sorted(a.cogroup(b, c, 3).collect()),
            (std::vector<std::pair<int, std::tuple<V, S, D>>>{
                {1, {V{1, 3}, S{"x"}, D{}}}, {2, {V{2}, S{}, D{}}}, {3, {V{}, S{"y"}, D{0.5}}}}));
  EXPECT_EQ(sorted(a.cogroup(b, c, a).collect()),
            (std::vector<std::pair<int, std::tuple<V, S, D, V>>>{
                {1, {V{1, 3}, S{"x"}, D{}, V{1, 3}}}, {2, {V{2}, S{}, D{}, V{2}}}, {3, {V{}, S{"y"}, D{0.5}, V{}}}}));
}

TEST(Cogroup, MovesValuesThatCannotBeCopied) {
  const Context context = four_threads();
  const auto boxes = context.parallelize(numbers(4), 2).map([](int i) {
    return std::pair{i % 2, std::make_unique<int>(i)};
  });
  EXPECT_EQ(boxes.cogroup(context.parallelize(left, 2)).count(), 4u);
}

TEST(SubtractByKey, KeepsThePairsWhoseKeyIsNotThere) {
  const Context context = four_threads();
  for (const std::size_t n : partition_counts) {
    EXPECT_EQ(
        sorted(context.parallelize(left, n).subtract_by_key(context.parallelize(Pairs{{2, 0}, {3, 0}}, n)).collect()),
        (Pairs{{1, 10}, {1, 11}}));
  }
}

TEST(Join, NamesTheOperatorOfItsInputsWhenTheyThrow) {
  const Context context = four_threads();
  const auto bad = context.parallelize(numbers(4), 2).map(BoomAt{3}).map([](int x) { return std::pair{x, x}; });
  expect_user_error([&] { (void)bad.join(bad).collect(); }, "map", 1);
  const auto by = partition_by_function<int>(2, [](int key) { return BoomAt{2}(key) % 2; });
  const auto here = context.parallelize(left, 1);
  expect_user_error([&] { (void)here.join(here, by).collect(); }, "join", 0);
}

TEST(Join, NamesTheBatchTimeOfTheSideThatHasOne) {
  const Context context = four_threads();
  const auto table = context.parallelize(left, 1);
  const Time time{std::chrono::seconds{5}};
  const Batch<std::pair<int, int>> batch{std::make_shared<const detail::VectorNode<std::pair<int, int>>>(
      std::make_shared<const detail::Scope>(detail::Scope{context.runtime(), time}), right, 2)};
  const auto by = partition_by_function<int>(2, [](int key) { return BoomAt{3}(key) % 2; });
  const auto time_of = [](const auto& failing) -> std::optional<Time> {
    try {
      (void)failing.count();
    } catch (const UserCodeError& error) {
      return error.context().batch_time;
    }
    return std::nullopt;
  };
  EXPECT_EQ(time_of(table.join(batch, by)), time);
  EXPECT_EQ(time_of(batch.join(table, by)), time);
  EXPECT_EQ(time_of(table.union_with(batch).map([](const auto& pair) { return BoomAt{4}(pair.first); })), time);
}

}  // namespace
}  // namespace tidemill
