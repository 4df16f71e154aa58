// The harness that users get: batches in, batches out, and failures that show both sides. SEMANTICS B4, PP25.
#include "tidemill/testing/stream_test.hpp"

#include <chrono>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tidemill {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using tidemill::testing::ExpectationFailed;
using tidemill::testing::StreamTest;

std::string failure_of(const std::function<void()>& expectation) {
  try {
    expectation();
  } catch (const ExpectationFailed& failure) {
    return failure.what();
  }
  return "it held";
}

TEST(StreamTestHarness, ComparesBatchByBatchWhateverTheOrderWithin) {
  StreamTest<int> test;
  const auto result = test.run(test.input().map([](int i) { return 2 * i; }), {{1, 2}, {}, {3}});
  EXPECT_EQ(result.get(), (std::vector<std::vector<int>>{{2, 4}, {}, {6}}));
  result.expect_batches({{4, 2}, {}, {6}}).expect_batches_in_order({{2, 4}, {}, {6}});
  EXPECT_THAT(failure_of([&] { result.expect_batches_in_order({{4, 2}, {}, {6}}); }), HasSubstr("batch 0"));
}

TEST(StreamTestHarness, ShowsBothSidesOfWhatDiffers) {
  StreamTest<std::pair<std::string, int>> test;
  const auto result = test.run(test.input(), {{{"a", 1}}, {}});
  EXPECT_EQ(failure_of([&] {
              result.expect_batches({{{"a", 2}, {"b", 1}}, {}, {{"c", 3}}});
            }),
            "the stream gave other batches than expected\n"
            "  batch 0:  expected [(a,2), (b,1)]\n"
            "            came     [(a,1)]\n"
            "  batch 1:  expected []\n"
            "            came     []\n"
            "  batch 2:  expected [(c,3)]\n"
            "            came     no batch");
}

TEST(StreamTestHarness, CountsRecordsThatOccurTwice) {
  StreamTest<int> test;
  const auto result = test.run(test.input(), {{1, 1, 2}});
  EXPECT_NE(failure_of([&] { result.expect_batches({{1, 2, 2}}); }), "it held");
  EXPECT_NE(failure_of([&] { result.expect_batches({{1, 2}}); }), "it held");
  EXPECT_NE(failure_of([&] { result.expect_batches({{1, 1, 2, 2}}); }), "it held");
  EXPECT_NE(failure_of([&] { result.expect_batches({}); }), "it held");
  EXPECT_EQ(failure_of([&] { result.expect_batches({{2, 1, 1}}); }), "it held");
}

TEST(StreamTestHarness, StepsOneIntervalAtATime) {
  StreamTest<int> test{100ms};
  const auto seen = test.collect(test.input());
  const Time start = test.clock().now();
  test.step({1});
  EXPECT_EQ(test.clock().now(), start + 100ms);
  EXPECT_EQ(*seen, (std::vector<std::vector<int>>{{1}}));
  test.step();
  test.step({2, 3});
  EXPECT_EQ(*seen, (std::vector<std::vector<int>>{{1}, {}, {2, 3}}));
}

TEST(StreamTestHarness, HasAsManyInputsAsAreNeeded) {
  StreamTest<int> test;
  const auto [names, queue] = test.add_input<std::string>();
  const auto seen = test.collect(names);
  const auto numbers = test.collect(test.input());
  queue->push(std::vector<std::string>{"a"});
  test.step({1});
  EXPECT_EQ(*seen, (std::vector<std::vector<std::string>>{{"a"}}));
  EXPECT_EQ(*numbers, (std::vector<std::vector<int>>{{1}}));
}

TEST(StreamTestHarness, ThrowsWhatABatchThrewAndGoesOn) {
  StreamTest<int> test;
  const auto seen =
      test.collect(test.input().map([](int i) { return i < 0 ? throw std::runtime_error{"negative"} : i; }));
  EXPECT_THROW(test.step({-1}), UserCodeError);
  EXPECT_NO_THROW(test.step({1})) << "the failure before is not told again";
  EXPECT_THROW(test.step({-2}), UserCodeError);
  EXPECT_EQ(*seen, (std::vector<std::vector<int>>{{1}}));
}

TEST(StreamTestHarness, KeepsWhatPrintWrote) {
  StreamTest<int> test;
  test.input().print();
  test.step({7});
  EXPECT_THAT(test.printed(), HasSubstr("Time: 1001000 ms"));
  EXPECT_THAT(test.printed(), HasSubstr("\n7\n"));
}

TEST(StreamTestHarness, GivesTheSameAnswerWithMoreThreads) {
  for (const std::size_t parallelism : {1u, 2u, 7u}) {
    StreamTest<int> test{1s, parallelism};
    EXPECT_EQ(test.context().parallelism(), parallelism);
    test.run(test.input()
                 .map([](int i) {
                   return std::pair{i % 2, i};
                 })
                 .reduce_by_key(std::plus<>{}),
             {{1, 2, 3, 4, 5}})
        .expect_batches({{{1, 9}, {0, 6}}});
  }
}

}  // namespace
}  // namespace tidemill
