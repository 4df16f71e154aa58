// Windows of records and of one value. SEMANTICS M15-M18, W1-W4, W6, W9.
#include <memory>
#include <set>

#include "dstream/streams.hpp"
#include "tidemill/batch/split.hpp"

namespace tidemill::window_test {
namespace {

using namespace testing_streams;

using Count = std::pair<std::string, long>;

// ---- the shape ----------------------------------------------------------------------------------------------------------

// batch at, s     1001  1002  1003  1004  1005
// window of 3 s    [1]
//                  [1    2]
//                  [1    2     3]
//                       [2     3     4]
//                             [3     4     5]
TEST(Window, HoldsTheBatchesOfItsLengthAndThoseThereAreAtTheStart) {  // M15, W3, W4
  for_each_parallelism<int>([](StreamTest<int>& test) {
    test.run(test.input().window(3s), {{1}, {2}, {3}, {4}, {5}})
        .expect_batches_in_order({{1}, {1, 2}, {1, 2, 3}, {2, 3, 4}, {3, 4, 5}});
  });
}

TEST(Window, SlidesByMoreThanABatch) {
  StreamTest<int> test;
  test.run(test.input().window(4s, 2s), {{1}, {2}, {3}, {4}, {5}, {6}, {7}})
      .expect_batches_in_order({{1, 2}, {1, 2, 3, 4}, {3, 4, 5, 6}});
}

TEST(Window, SkipsBatchesWhenItSlidesByMoreThanItsLength) {  // W2
  StreamTest<int> test;
  test.run(test.input().window(2s, 3s), {{1}, {2}, {3}, {4}, {5}, {6}}).expect_batches_in_order({{2, 3}, {5, 6}});
}

TEST(Window, MayHaveALengthThatIsNoMultipleOfItsSlide) {
  StreamTest<int> test;
  test.run(test.input().window(3s, 2s), {{1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}})
      .expect_batches_in_order({{1, 2}, {2, 3, 4}, {4, 5, 6}, {6, 7, 8}});
}

TEST(Window, SumsInEveryShape) {
  struct Shape {
    Duration length, slide;
    std::vector<std::vector<long>> sums;
  };
  const Shape shapes[] = {
      {3s, 1s, {{1}, {3}, {6}, {9}, {12}, {15}, {18}, {21}}},
      {3s, 2s, {{3}, {9}, {15}, {21}}},
      {2s, 3s, {{5}, {11}}},
      {4s, 4s, {{10}, {26}}},
      {5s, 2s, {{3}, {10}, {20}, {30}}},
  };
  for (const Shape& shape : shapes) {
    SCOPED_TRACE(to_string(shape.length) + " every " + to_string(shape.slide));
    const std::vector<std::vector<long>> input{{1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}};
    StreamTest<long> stacks;
    stacks.run(stacks.input().reduce_by_window(std::plus<>{}, shape.length, shape.slide), input)
        .expect_batches(shape.sums);
    StreamTest<long> totals;
    totals.run(totals.input().reduce_by_window(std::plus<>{}, std::minus<>{}, shape.length, shape.slide), input)
        .expect_batches(shape.sums);
  }
}

TEST(Window, SaysWhichLengthsAndSlidesArePossible) {  // W1
  StreamTest<int> test{2s};
  const auto refused = [&](Duration length, std::optional<Duration> slide) -> std::string {
    try {
      (void)test.input().window(length, slide);
    } catch (const PlanError& error) {
      EXPECT_EQ(error.code(), "invalid_window");
      return error.what();
    }
    return "nothing was thrown";
  };
  EXPECT_THAT(refused(5s, 2s), AllOf(HasSubstr("length 5 s"), HasSubstr("slide 2 s"), HasSubstr("4 s or 6 s")));
  EXPECT_THAT(refused(6s, 3s), AllOf(HasSubstr("the slide must be"), HasSubstr("2 s or 4 s")));
  EXPECT_THAT(refused(1s, 2s), AllOf(HasSubstr("the length must be"), HasSubstr("nearest that are: 2 s")));
  EXPECT_THAT(refused(0s, 2s), HasSubstr("nearest that are: 2 s"));
  EXPECT_THAT(refused(-4s, 2s), HasSubstr("nearest that are: 2 s"));
  EXPECT_THAT(refused(4s, 0s), HasSubstr("the slide must be"));
  EXPECT_THAT(refused(Duration::max(), 2s), HasSubstr("the length must be at most 1000 years"));
  EXPECT_THAT(refused(2s, Duration::max()), HasSubstr("the slide must be at most 1000 years"));
  EXPECT_THAT(refused(Duration::min(), 2s), HasSubstr("nearest that are: 2 s"));
}

TEST(Window, MayBeLongerThanAnyRun) {
  constexpr Duration century = 1s * 100L * 365 * 24 * 3600;
  StreamTest<int> test;
  const auto sum = test.collect(test.input().reduce_by_window(std::plus<>{}, std::minus<>{}, 10 * century, 1s));
  const auto all = test.collect(test.input().window(10 * century));
  const auto none = test.collect(test.input().window(1s, 10 * century));
  for (const int i : {1, 2, 3}) test.step({i});
  EXPECT_EQ(sum->back(), std::vector{6});
  EXPECT_EQ(all->back(), (std::vector{1, 2, 3}));
  EXPECT_THAT(*none, ElementsAre());
}

TEST(Window, IsMeasuredByTheSlideOfItsParent) {  // W1: not only of the batch interval
  StreamTest<int> test;
  const auto pairs = test.input().window(2s, 2s);
  EXPECT_EQ(pairs.slide_duration(), 2s);
  EXPECT_THROW((void)pairs.window(3s), PlanError);
  EXPECT_THROW((void)pairs.reduce_by_window(std::plus<>{}, 4s, 1s), PlanError);
  EXPECT_NO_THROW((void)pairs.window(6s));
}

TEST(Window, NeedsABatchInterval) {
  const Context context{{.parallelism = 1}};
  StreamingContext ssc{context, on_arrival};
  const auto numbers = ssc.queue_stream(std::make_shared<BatchQueue<int>>());
  try {
    (void)numbers.window(1s);
    FAIL() << "nothing was thrown";
  } catch (const PlanError& error) {
    EXPECT_EQ(error.code(), "needs_interval");
  }
}

TEST(Window, OfAWindowHoldsTheSmallerOnes) {
  StreamTest<long> test;
  const auto two = test.input().reduce_by_window(std::plus<>{}, 2s, 2s);
  const auto both = test.collect(two.window(4s, 2s));
  const auto sums = test.collect(two.reduce_by_window(std::plus<>{}, std::minus<>{}, 4s, 4s));
  for (long i = 1; i <= 8; ++i) test.step({i});
  EXPECT_EQ(*both, (std::vector<std::vector<long>>{{3}, {3, 7}, {7, 11}, {11, 15}}));
  EXPECT_EQ(*sums, (std::vector<std::vector<long>>{{10}, {26}}));
}

TEST(Window, IsComputedWhetherSomebodyAsksForItOrNot) {  // and remembered: M22, C4
  StreamTest<int> test;
  test.streaming().remember(1h);
  const auto sums = test.input().reduce_by_window(std::plus<>{}, 3s, 2s);
  const auto window = test.input().window(2s);
  const auto seen = test.collect(test.input());
  for (int i = 1; i <= 6; ++i) test.step({i});
  std::vector<std::vector<int>> batches;
  for (const auto& batch : sums.slice(batch_time(0), batch_time(9))) batches.push_back(batch.collect());
  EXPECT_EQ(batches, (std::vector<std::vector<int>>{{3}, {9}, {15}}));
  batches.clear();
  for (const auto& batch : window.slice(batch_time(2), batch_time(3))) batches.push_back(batch.collect());
  EXPECT_EQ(batches, (std::vector<std::vector<int>>{{2, 3}, {3, 4}}));
}

TEST(Window, ThatIsForgottenIsComputedFromWhatItsParentRemembers) {  // M22: computes missing ones
  StreamTest<int> test;
  const auto sums = test.input().reduce_by_window(std::plus<>{}, 1s);
  const auto window = test.input().window(1s);
  std::vector<int> last;
  test.input().foreach_batch([&](const Batch<int>&, Time t) {
    for (const auto& batch : sums.slice(t - 1s, t)) last.push_back(batch.collect().front());
    for (const auto& batch : window.slice(t - 1s, t)) last.push_back(batch.collect().front());
  });
  test.step({1});
  last.clear();
  test.step({2});
  EXPECT_EQ(last, (std::vector{1, 2, 1, 2}));
}

// ---- records ------------------------------------------------------------------------------------------------------------

TEST(Window, KeepsWhatItsRecordsLookAt) {
  StreamTest<std::string> test;
  const auto words = test.input().flat_map(tidemill::words(' '));
  test.run(words.window(2s), {{"a flood tide that is long enough"}, {"ebb"}, {}})
      .expect_batches_in_order({{"a", "flood", "tide", "that", "is", "long", "enough"},
                                {"a", "flood", "tide", "that", "is", "long", "enough", "ebb"},
                                {"ebb"}});
}

TEST(Window, OfRecordsThatCanOnlyBeMoved) {
  StreamTest<int> test;
  const auto boxed = test.input().map([](int i) { return std::make_unique<int>(i); });
  test.run(boxed.window(2s).map([](const std::unique_ptr<int>& i) { return *i; }), {{1}, {2, 3}, {4}})
      .expect_batches_in_order({{1}, {1, 2, 3}, {2, 3, 4}});
}

TEST(Window, LetsGoOfTheRecordsOfABatchAtItsEnd) {  // received blocks are not kept for the window
  StreamTest<std::string> test;
  std::weak_ptr<const detail::BatchNode<std::string>> block;
  const auto input = test.input().transform([&](const Batch<std::string>& batch) {
    block = batch.node_pointer();
    return batch;
  });
  const auto views = input.map([](const std::string& line) { return std::pair{std::string_view{line}, 1L}; });
  const auto sums = test.collect(views.reduce_by_key_and_window(std::plus<>{}, 60s, 60s));
  const auto lines = test.collect(views.window(60s, 60s));
  test.step({"a line that does not fit into a small string"});
  const auto first = block;
  test.step();
  test.step();
  EXPECT_TRUE(first.expired());
}

TEST(Window, KeepsThePartitionerOfItsBatches) {  // W6
  StreamTest<Count> test{1s, 3};
  std::vector<bool> known;
  const auto counts = test.input().reduce_by_key(std::plus<>{});
  counts.window(2s).foreach_batch([&](const Batch<Count>& batch) { known.push_back(batch.partitioner() != nullptr); });
  test.input().window(2s).foreach_batch(
      [&](const Batch<Count>& batch) { known.push_back(batch.partitioner() != nullptr); });
  test.step({{"a", 1}, {"b", 2}});
  test.step({{"a", 1}});
  EXPECT_EQ(known, (std::vector{true, false, true, false}));
}

// ---- one value ------------------------------------------------------------------------------------------------------------

TEST(ReduceByWindow, GivesNothingForAWindowWithoutRecords) {  // M16
  StreamTest<int> test;
  test.run(test.input().reduce_by_window(std::plus<>{}, 2s), {{}, {1, 2}, {}, {}, {3}})
      .expect_batches({{}, {3}, {3}, {}, {3}});
}

TEST(ReduceByWindow, WithAnInverseKeepsTheNeutralValue) {  // M17, W9
  StreamTest<int> test;
  test.run(test.input().reduce_by_window(std::plus<>{}, std::minus<>{}, 2s), {{}, {1, 2}, {}, {}, {3}})
      .expect_batches({{}, {3}, {3}, {0}, {3}});
}

TEST(ReduceByWindow, FoldsInOrderOfTime) {
  for_each_parallelism<std::string>([](StreamTest<std::string>& test) {
    test.run(test.input().reduce_by_window(std::plus<>{}, 3s), {{"a", "b"}, {"c"}, {"d"}, {"e", "f"}, {}})
        .expect_batches({{"ab"}, {"abc"}, {"abcd"}, {"cdef"}, {"def"}});
  });
}

TEST(ReduceByWindow, TakesAFunctionThatFoldsInPlace) {
  StreamTest<int> test;
  const auto sets = test.input().map([](int i) { return std::set<int>{i}; });
  const auto all = [](std::set<int>& into, const std::set<int>& from) { into.insert(from.begin(), from.end()); };
  test.run(sets.reduce_by_window(all, 2s), {{1}, {2, 1}, {3}, {}})
      .expect_batches({{{1}}, {{1, 2}}, {{1, 2, 3}}, {{3}}});
}

TEST(CountByWindow, IsZeroOnceDataHasGoneAndNothingBeforeThereWasAny) {  // M18
  StreamTest<int> test;
  test.run(test.input().count_by_window(2s), {{}, {7, 8}, {9}, {}, {}, {1}})
      .expect_batches({{}, {2}, {3}, {1}, {0}, {1}});
}

}  // namespace
}  // namespace tidemill::window_test
