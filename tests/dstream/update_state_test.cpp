// update_state_by_key: the whole state, batch after batch. SEMANTICS U1–U8.
#include <map>
#include <random>
#include <ranges>

#include "dstream/streams.hpp"
#include "tidemill/batch/split.hpp"
#include "tidemill/dstream/dstream.hpp"

namespace tidemill::update_state_test {
namespace {

using namespace testing_streams;
using ::testing::UnorderedElementsAreArray;
using Pair = std::pair<std::string, int>;
using Total = std::pair<std::string, long>;

constexpr auto add_up = [](const std::vector<int>& values, std::optional<long> total) -> std::optional<long> {
  return std::accumulate(values.begin(), values.end(), total.value_or(0));
};

TEST(UpdateStateByKey, GivesTheWholeStateInEveryBatch) {  // U1, U7
  for_each_parallelism([](StreamTest<Pair>& test) {
    test.run(test.input().update_state_by_key<long>(add_up), {{{"a", 1}, {"b", 2}, {"a", 3}}, {}, {{"c", 5}, {"a", 1}}})
        .expect_batches({{{"a", 4}, {"b", 2}}, {{"a", 4}, {"b", 2}}, {{"a", 5}, {"b", 2}, {"c", 5}}});
  });
}

TEST(UpdateStateByKey, CallsForEveryKeyInEveryBatchAlsoWithoutData) {  // U2, U6
  StreamTest<Pair> test;
  const auto ages = test.input().update_state_by_key<int>(
      [](const std::vector<int>& values, std::optional<int> batches_without) -> std::optional<int> {
        return values.empty() ? *batches_without + 1 : 0;
      });
  test.run(ages, {{{"a", 1}}, {{"b", 1}}, {}, {{"a", 1}}})
      .expect_batches({{{"a", 0}}, {{"a", 1}, {"b", 0}}, {{"a", 2}, {"b", 1}}, {{"a", 0}, {"b", 2}}});
}

TEST(UpdateStateByKey, NothingReturnedRemovesTheKeyOrNeverMakesIt) {  // U3
  for_each_parallelism([](StreamTest<Pair>& test) {
    const auto kept = test.input().update_state_by_key<long>(
        [](const std::vector<int>& values, std::optional<long> state) -> std::optional<long> {
          if (!values.empty() && values.back() == 0) return std::nullopt;
          return values.empty() ? state : values.back();
        });
    test.run(kept, {{{"a", 1}, {"b", 0}}, {{"a", 0}}, {{"a", 2}}}).expect_batches({{{"a", 1}}, {}, {{"a", 2}}});
  });
}

TEST(UpdateStateByKey, ValuesOfAKeyComeAsOneListInBatchOrder) {  // U4
  for_each_parallelism([](StreamTest<Pair>& test) {
    const auto lists = test.input().update_state_by_key<std::vector<int>>(
        [](const std::vector<int>& values, const std::vector<int>*) -> std::optional<std::vector<int>> {
          return values;
        });
    test.run(lists, {{{"a", 3}, {"b", 9}, {"a", 1}, {"a", 2}}}).expect_batches({{{"a", {3, 1, 2}}, {"b", {9}}}});
  });
}

TEST(UpdateStateByKey, TellsTimeAndKeyToThoseWhoAsk) {  // U1
  StreamTest<Pair> test;
  const auto last = test.input().update_state_by_key<std::string>(
      [](Time t, std::string_view key, const std::vector<int>&,
         std::optional<std::string>) -> std::optional<std::string> { return std::string{key} + '@' + to_string(t); });
  const auto by_string = test.collect(test.input().update_state_by_key<long>(
      [](Time, const std::string& key, const std::vector<int>&, const long*) -> std::optional<long> {
        return static_cast<long>(key.size());
      }));
  test.run(last, {{{"a", 1}}, {}}).expect_batches({{{"a", "a@1001000 ms"}}, {{"a", "a@1002000 ms"}}});
  EXPECT_THAT(by_string->front(), ElementsAre(Total{"a", 1}));
}

TEST(UpdateStateByKey, BeginsWithTheInitialStateWhoseKeysAreCalledWithoutValues) {  // U5
  for_each_parallelism([](StreamTest<Pair>& test) {
    const std::vector<Total> initial{{"a", 10}, {"z", 7}};
    const auto from_pairs = test.input().update_state_by_key<long>(add_up, 0, initial);
    const auto from_batch =
        test.collect(test.input().update_state_by_key<long>(add_up, 2, test.context().parallelize(initial)));
    test.run(from_pairs, {{{"a", 1}}, {}}).expect_batches({{{"a", 11}, {"z", 7}}, {{"a", 11}, {"z", 7}}});
    EXPECT_THAT(from_batch->back(), UnorderedElementsAreArray({Total{"a", 11}, Total{"z", 7}}));
  });
}

TEST(UpdateStateByKey, CallsForTheKeysOfTheInitialStateInTheFirstBatch) {  // U5, U2
  StreamTest<Pair> test;
  const auto ages = test.input().update_state_by_key<long>(
      [](const std::vector<int>& values, std::optional<long> age) -> std::optional<long> {
        if (age == 9) return std::nullopt;
        return values.empty() ? age.value_or(0) + 1 : age.value_or(0);
      },
      0, std::vector<Total>{{"a", 10}, {"z", 7}, {"gone", 9}, {"z", 20}});
  test.run(ages, {{{"a", 1}}, {}}).expect_batches({{{"a", 10}, {"z", 21}}, {{"a", 11}, {"z", 22}}});
}

TEST(UpdateStateByKey, AFunctionOfWholePartitionsMayChangeTheKeys) {  // U1
  for_each_parallelism([](StreamTest<Pair>& test) {
    using Update = StateUpdate<std::string, int, long>;
    const auto moved = test.input().update_state_by_key<long>(
        [](std::span<const Update> updates) {
          std::vector<Total> next;
          for (const Update& update : updates) {
            const long sum = std::accumulate(update.values.begin(), update.values.end(),
                                             update.state == nullptr ? 0L : *update.state);
            if (sum != 0) next.emplace_back(std::string{update.key} + (sum > 9 ? "!" : ""), sum);
          }
          return next;
        },
        4);
    test.run(moved, {{{"a", 1}, {"b", 5}, {"c", 0}}, {{"b", 5}}, {}})
        .expect_batches({{{"a", 1}, {"b", 5}}, {{"a", 1}, {"b!", 10}}, {{"a", 1}, {"b!!", 10}}});
  });
}

TEST(UpdateStateByKey, AFunctionOfWholePartitionsMayReturnAView) {
  StreamTest<Pair> test;
  const auto doubled =
      test.input().update_state_by_key<long>([](std::span<const StateUpdate<std::string, int, long>> updates) {
        return updates | std::views::transform([](const auto& update) {
                 return std::pair{update.key, update.state == nullptr ? 1L : 2 * *update.state};
               });
      });
  test.run(doubled, {{{"a", 1}}, {}, {{"b", 1}}}).expect_batches({{{"a", 1}}, {{"a", 2}}, {{"a", 4}, {"b", 1}}});
}

TEST(UpdateStateByKey, OwnsKeysThatAreViews) {
  StreamTest<std::string> test;
  const auto counts = test.input().flat_map(words(' ')).map([](std::string_view word) { return std::pair{word, 1}; });
  test.run(counts.update_state_by_key<long>(add_up), {{"ebb a-word-of-more-than-fifteen-bytes"}, {"ebb"}})
      .expect_batches({{{"ebb", 1}, {"a-word-of-more-than-fifteen-bytes", 1}},
                       {{"ebb", 2}, {"a-word-of-more-than-fifteen-bytes", 1}}});
}

TEST(UpdateStateByKey, ResultsLieByKeyAndComeInAnOrderThatDependsOnTheKeys) {
  std::vector<std::vector<Total>> answers;
  for (const unsigned seed : {1u, 2u}) {
    std::vector<Pair> records;
    for (int i = 0; i < 3000; ++i) records.emplace_back(std::to_string(i), i);
    std::shuffle(records.begin(), records.end(), std::mt19937{seed});
    StreamTest<Pair> test{1s, 2};
    const auto totals = test.input().update_state_by_key<long>(add_up, 5);
    answers.push_back(
        test.run(totals, {{records.begin(), records.begin() + 1000}, {records.begin() + 1000, records.end()}})
            .get()[1]);
    EXPECT_EQ(totals.slice(batch_time(1), batch_time(1)).front().num_partitions(), 5u);
  }
  EXPECT_EQ(answers[0], answers[1]);
}

TEST(UpdateStateByKey, AFailedBatchLeavesTheStateAsItWasAndIsTriedAgainBeforeTheNext) {
  for_each_parallelism([](StreamTest<Pair>& test) {
    bool throws = true;
    const auto totals = test.input().update_state_by_key<long>(
        [&throws](const std::vector<int>& values, std::optional<long> total) -> std::optional<long> {
          if (throws && !values.empty() && values.front() == 13) throw std::runtime_error{"boom"};
          return add_up(values, total);
        });
    const auto seen = test.collect(totals);
    test.step({{"a", 1}, {"b", 1}});
    expect_boom(test, {{"a", 1}, {"c", 5}, {"b", 13}}, "update_state_by_key");
    EXPECT_THAT(totals.state().snapshot().entries, UnorderedElementsAreArray({Total{"a", 1}, Total{"b", 1}}));
    throws = false;
    test.step({{"a", 100}});
    EXPECT_THAT(seen->back(), UnorderedElementsAreArray({Total{"a", 102}, Total{"b", 14}, Total{"c", 5}}));
  });
}

TEST(UpdateStateByKey, FailsAsAWholeAlsoWhenItWorksOnPartitions) {
  StreamTest<Pair> test;
  bool throws = true;
  const auto totals =
      test.input().update_state_by_key<long>([&throws](std::span<const StateUpdate<std::string, int, long>> updates) {
        std::vector<Total> next;
        for (const auto& update : updates) next.emplace_back(update.key, update.values.size());
        if (throws && updates.size() == 2) throw std::runtime_error{"boom"};
        return next;
      });
  const auto seen = test.collect(totals);
  test.step({{"a", 1}});
  expect_boom(test, {{"b", 1}}, "update_state_by_key");
  EXPECT_THAT(totals.state().snapshot().entries, ElementsAre(Total{"a", 1}));
  throws = false;
  test.step({});
  EXPECT_THAT(seen->back(), UnorderedElementsAreArray({Total{"a", 0}, Total{"b", 0}}));
}

TEST(UpdateStateByKey, TakesStatesThatCannotBeCompared) {
  struct Opaque {
    int value;
  };
  StreamTest<Pair> test;
  const auto lists = test.input().update_state_by_key<std::vector<Opaque>>(
      [](const std::vector<int>& values, std::optional<std::vector<Opaque>> all) -> std::optional<std::vector<Opaque>> {
        if (!all) all.emplace();
        for (const int value : values) all->push_back({value});
        return all;
      });
  test.run(lists.map_values([](const std::vector<Opaque>& all) { return all.size(); }),
           {{{"a", 1}}, {{"a", 2}, {"b", 1}}})
      .expect_batches({{{"a", 1}}, {{"a", 2}, {"b", 1}}});
}

TEST(UpdateStateByKey, AgreesWithAnOracleOnRandomBatches) {
  for (const std::size_t parallelism : {1u, 3u}) {
    StreamTest<std::pair<int, int>> test{1s, parallelism};
    const auto seen = test.collect(test.input().update_state_by_key<long>(
        [](const std::vector<int>& values, std::optional<long> state) -> std::optional<long> {
          const long sum = std::accumulate(values.begin(), values.end(), state.value_or(0));
          return sum % 7 == 0 ? std::nullopt : std::optional{values.empty() ? sum + 1 : sum};
        }));
    std::map<int, long> oracle;
    std::mt19937 random{3};
    for (int i = 0; i < 40; ++i) {
      std::vector<std::pair<int, int>> records(random() % 300);
      std::map<int, std::vector<int>> values;
      for (const auto& [key, state] : oracle) values[key];
      for (auto& [key, value] : records) {
        key = static_cast<int>(random() % 100);
        value = static_cast<int>(random() % 10);
        values[key].push_back(value);
      }
      for (const auto& [key, came] : values) {
        const long sum = std::accumulate(came.begin(), came.end(), oracle.contains(key) ? oracle[key] : 0L);
        if (sum % 7 == 0) {
          oracle.erase(key);
        } else {
          oracle[key] = came.empty() ? sum + 1 : sum;
        }
      }
      test.step(std::move(records));
      ASSERT_THAT(seen->back(),
                  UnorderedElementsAreArray(std::vector<std::pair<int, long>>(oracle.begin(), oracle.end())));
    }
  }
}

}  // namespace
}  // namespace tidemill::update_state_test
