// Windows by key. SEMANTICS M19, P3-P6, W6-W10.
#include "dstream/streams.hpp"
#include "tidemill/batch/split.hpp"

namespace tidemill::window_by_key_test {
namespace {

using namespace testing_streams;

using Count = std::pair<std::string, long>;
constexpr auto max_of = [](long a, long b) { return std::max(a, b); };

TEST(ReduceByKeyAndWindow, HasTheKeysOfTheWindowAndNoOthers) {  // P5
  for_each_parallelism<Count>([](StreamTest<Count>& test) {
    test.run(test.input().reduce_by_key_and_window(std::plus<>{}, 2s),
             {{{"a", 1}, {"a", 2}, {"b", 5}}, {{"b", 1}}, {}, {}, {{"a", 4}}})
        .expect_batches({{{"a", 3}, {"b", 5}}, {{"a", 3}, {"b", 6}}, {{"b", 1}}, {}, {{"a", 4}}});
  });
}

TEST(ReduceByKeyAndWindow, FoldsTheValuesOfAKeyInOrderOfTime) {
  using Text = std::pair<int, std::string>;
  StreamTest<Text> test;
  test.run(test.input().reduce_by_key_and_window(std::plus<>{}, 3s),
           {{{1, "a"}, {2, "x"}}, {{1, "b"}}, {{1, "c"}}, {{2, "y"}, {1, "d"}}, {{1, "e"}}})
      .expect_batches({{{1, "a"}, {2, "x"}},
                       {{1, "ab"}, {2, "x"}},
                       {{1, "abc"}, {2, "x"}},
                       {{1, "bcd"}, {2, "y"}},
                       {{1, "cde"}, {2, "y"}}});
}

TEST(ReduceByKeyAndWindow, NeedsNoInverse) {
  StreamTest<Count> test;
  test.run(test.input().reduce_by_key_and_window(max_of, 3s), {{{"a", 9}}, {{"a", 1}}, {{"a", 4}}, {}, {}, {}})
      .expect_batches({{{"a", 9}}, {{"a", 9}}, {{"a", 9}}, {{"a", 4}}, {{"a", 4}}, {}});
}

TEST(ReduceByKeyAndWindow, OwnsItsKeys) {
  StreamTest<std::string> test;
  const auto ones = test.input().flat_map(tidemill::words(' ')).map([](std::string_view word) {
    return std::pair{word, 1L};
  });
  const auto counts = ones.reduce_by_key_and_window(std::plus<>{}, 2s);
  static_assert(std::is_same_v<decltype(counts)::value_type, Count>);
  test.run(counts, {{"ebb and a flow of more than fifteen letters"}, {"ebb"}, {"flow"}, {}})
      .expect_batches({{{"ebb", 1},
                        {"and", 1},
                        {"a", 1},
                        {"flow", 1},
                        {"of", 1},
                        {"more", 1},
                        {"than", 1},
                        {"fifteen", 1},
                        {"letters", 1}},
                       {{"ebb", 2},
                        {"and", 1},
                        {"a", 1},
                        {"flow", 1},
                        {"of", 1},
                        {"more", 1},
                        {"than", 1},
                        {"fifteen", 1},
                        {"letters", 1}},
                       {{"ebb", 1}, {"flow", 1}},
                       {{"flow", 1}}});
}

TEST(ReduceByKeyAndWindow, TakesANumberOfPartitionsOrAPartitioner) {
  StreamTest<Count> test{1s, 2};
  std::vector<std::size_t> partitions;
  std::vector<std::size_t> found;
  const auto look = [&](const Batch<Count>& batch) {
    partitions.push_back(batch.num_partitions());
    for (const auto& part : batch.glom().collect()) found.push_back(part.size());
  };
  test.input().reduce_by_key_and_window(std::plus<>{}, 2s, 1s, 3).foreach_batch(look);
  const auto by_length = partition_by_function<std::string>(4, [](const std::string& key) { return key.size(); });
  test.input().reduce_by_key_and_window(std::plus<>{}, std::minus<>{}, 2s, 1s, by_length).foreach_batch(look);
  test.step({{"a", 1}, {"bb", 1}, {"cc", 2}, {"ddd", 3}});
  EXPECT_EQ(partitions, (std::vector<std::size_t>{3, 4}));
  EXPECT_EQ((std::vector(found.end() - 4, found.end())), (std::vector<std::size_t>{0, 1, 2, 1}));
}

TEST(ReduceByKeyAndWindow, IsJoinedWithoutMovingARecord) {  // W6
  StreamTest<Count> test{1s, 2};
  std::vector<bool> same;
  const auto sums = test.input().reduce_by_key_and_window(std::plus<>{}, 2s);
  sums.foreach_batch([&](const Batch<Count>& batch) {
    same.push_back(batch.partitioner() && batch.partitioner()->equals(HashPartitioner<std::string>{2}));
  });
  test.step({{"a", 1}});
  EXPECT_EQ(same, std::vector{true});
}

TEST(ReduceByKeyAndWindow, WithAnInverseKeepsKeysWhoseValueIsNeutral) {  // P6, W9
  StreamTest<Count> test;
  test.run(test.input().reduce_by_key_and_window(std::plus<>{}, std::minus<>{}, 2s),
           {{{"a", 1}}, {{"b", 2}}, {}, {{"a", 7}}, {}, {}})
      .expect_batches({{{"a", 1}},
                       {{"a", 1}, {"b", 2}},
                       {{"a", 0}, {"b", 2}},
                       {{"a", 7}, {"b", 0}},
                       {{"a", 7}, {"b", 0}},
                       {{"a", 0}, {"b", 0}}});
}

TEST(ReduceByKeyAndWindow, TakesWhatLeftBeforeItAddsWhatEntered) {  // W7, W8
  StreamTest<Count> test;
  std::vector<std::string> calls;
  const auto add = [&](long a, long b) { return calls.push_back("add " + std::to_string(b)), a + b; };
  const auto subtract = [&](long a, long b) { return calls.push_back("subtract " + std::to_string(b)), a - b; };
  const auto sums = test.collect(test.input().reduce_by_key_and_window(add, subtract, 2s));
  test.step({{"a", 1}});
  test.step({{"a", 2}});
  calls.clear();
  test.step({{"a", 4}});
  EXPECT_THAT(calls, ElementsAre("subtract 1", "add 4"));
}

TEST(ReduceByKeyAndWindow, DropsKeysThatTheFilterRejects) {  // P6
  const auto positive = [](const Count& count) { return count.second > 0; };
  StreamTest<Count> test;
  test.run(test.input().reduce_by_key_and_window(std::plus<>{}, std::minus<>{}, 2s, 1s, 2, positive),
           {{{"a", 1}}, {{"b", 2}}, {}, {{"a", 7}}, {}, {}})
      .expect_batches({{{"a", 1}}, {{"a", 1}, {"b", 2}}, {{"b", 2}}, {{"a", 7}}, {{"a", 7}}, {}});
}

// In Spark the batch at which what was dropped leaves the window fails. [W10]
TEST(ReduceByKeyAndWindow, GoesOnRightlyAfterTheFilterRejectedAKeyThatIsStillInTheWindow) {
  const auto at_least_three = [](const std::string&, long count) { return count >= 3; };
  StreamTest<Count> test;
  test.run(test.input().reduce_by_key_and_window(std::plus<>{}, std::minus<>{}, 3s, {}, 1, at_least_three),
           {{{"a", 1}}, {{"a", 1}}, {{"a", 1}}, {{"a", 2}}, {}, {}, {{"a", 3}}, {}, {}, {}})
      .expect_batches({{}, {}, {{"a", 3}}, {{"a", 4}}, {{"a", 3}}, {}, {{"a", 3}}, {{"a", 3}}, {{"a", 3}}, {}});
}

TEST(CountByValueAndWindow, CountsTheWindowAndForgetsWhatHasLeftIt) {  // M19
  for_each_parallelism<std::string>([](StreamTest<std::string>& test) {
    test.run(test.input().count_by_value_and_window(2s), {{"a", "b", "a"}, {"b"}, {}, {}})
        .expect_batches({{{"a", 2}, {"b", 1}}, {{"a", 2}, {"b", 2}}, {{"b", 1}}, {}});
  });
}

TEST(GroupByKeyAndWindow, HasTheValuesInBatchOrder) {  // P4
  for_each_parallelism<Count>([](StreamTest<Count>& test) {
    test.run(test.input().group_by_key_and_window(2s),
             {{{"a", 3}, {"b", 1}, {"a", 1}}, {{"a", 2}}, {{"b", 5}, {"b", 4}}, {}, {}})
        .expect_batches({{{"a", {3, 1}}, {"b", {1}}},
                         {{"a", {3, 1, 2}}, {"b", {1}}},
                         {{"a", {2}}, {"b", {5, 4}}},
                         {{"b", {5, 4}}},
                         {}});
  });
}

TEST(GroupByKeyAndWindow, OfViews) {
  StreamTest<std::string> test;
  const auto pairs = test.input().map([](const std::string& line) {
    const std::string_view text{line};
    return std::pair{text.substr(0, 1), text.substr(2)};
  });
  test.run(pairs.group_by_key_and_window(2s, 1s, 3), {{"a one that is long enough to move", "b two"}, {"a three"}, {}})
      .expect_batches({{{"a", {"one that is long enough to move"}}, {"b", {"two"}}},
                       {{"a", {"one that is long enough to move", "three"}}, {"b", {"two"}}},
                       {{"a", {"three"}}}});
}

TEST(Window, StreamsOfWindowsAreJoinedByTheirTimes) {
  StreamTest<Count> test;
  const auto sum = test.input().reduce_by_key_and_window(std::plus<>{}, 3s);
  const auto top = test.input().reduce_by_key_and_window(max_of, 2s);
  test.run(sum.join(top), {{{"a", 5}}, {{"a", 1}, {"b", 2}}, {{"b", 4}}})
      .expect_batches({{{"a", {5, 5}}}, {{"a", {6, 5}}, {"b", {2, 2}}}, {{"a", {6, 1}}, {"b", {6, 4}}}});
  EXPECT_THROW((void)sum.join(test.input().reduce_by_key_and_window(max_of, 2s, 2s)), PlanError);
}

}  // namespace
}  // namespace tidemill::window_by_key_test
