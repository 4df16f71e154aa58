// Windows whose functions throw: nothing is lost and nothing counted twice.
#include "dstream/streams.hpp"

namespace tidemill::window_errors_test {
namespace {

using namespace testing_streams;

using Count = std::pair<std::string, long>;

// Throws when it is told to: `fail` is in how many calls.
struct Sometimes {
  std::shared_ptr<int> fail = std::make_shared<int>(0);
  std::shared_ptr<int> calls = std::make_shared<int>(0);
  long operator()(long a, long b) const {
    ++*calls;
    if (*fail > 0 && --*fail == 0) throw std::runtime_error{"boom"};
    return a + b;
  }
};

TEST(WindowErrors, AreThoseOfTheOperator) {
  {
    StreamTest<Count> test;
    const auto sums = test.collect(
        test.input().reduce_by_key_and_window([](long, long) -> long { throw std::runtime_error{"boom"}; }, 2s));
    expect_boom<Count>(test, {{"a", 1}, {"a", 2}}, "reduce_by_key_and_window");
  }
  {
    StreamTest<int> test;
    const auto sums =
        test.collect(test.input().reduce_by_window([](int, int) -> int { throw std::runtime_error{"boom"}; }, 2s));
    test.step({1});
    expect_boom<int>(test, {2}, "reduce_by_window");
  }
  {
    StreamTest<int> test;
    const auto window = test.collect(test.input()
                                         .map([](int i) {
                                           if (i == 0) throw std::runtime_error{"boom"};
                                           return i;
                                         })
                                         .window(2s));
    expect_boom<int>(test, {0}, "map");
  }
}

// Whichever call fails, the next batch makes up for it: no record is lost, none is counted twice.
TEST(WindowErrors, AreMadeUpForByTheNextBatch) {
  for (int fail = 1; fail <= 12; ++fail) {
    SCOPED_TRACE("call " + std::to_string(fail) + " fails");
    for (const bool with_inverse : {false, true}) {
      StreamTest<Count> test;
      const Sometimes add;
      const auto sums = with_inverse
                            ? DStream<Count>{test.input().reduce_by_key_and_window(add, std::minus<>{}, 4s, 2s)}
                            : DStream<Count>{test.input().reduce_by_key_and_window(add, 4s, 2s)};
      const auto seen = test.collect(sums.transform([](const auto& batch) { return batch.sort_by_key(); }));
      const auto input = [](int t) { return std::vector<Count>{{"a", t}, {"a", 10 * t}, {"b", t % 2}}; };
      for (int t = 1; t <= 6; ++t) test.step(input(t));
      *add.fail = fail;
      for (int t = 7; t <= 12; ++t) {
        try {
          test.step(input(t));
        } catch (const UserCodeError&) {
        }
      }
      ASSERT_EQ(*add.fail, 0);
      EXPECT_EQ(seen->back(), (std::vector<Count>{{"a", 11 * (9 + 10 + 11 + 12)}, {"b", 2}}));
    }
  }
}

// As a context with a checkpoint does, which stores what a batch has changed when it is done.
TEST(WindowErrors, AreMadeUpForByTheSameBatchWhenItIsTriedAgain) {
  StreamTest<Count> test;
  const Sometimes add;
  const auto sums = test.input().reduce_by_key_and_window(add, 2s, 2s);
  const auto seen = test.collect(sums);
  *add.fail = 1;
  EXPECT_THROW(test.step({{"a", 1}, {"a", 2}}), UserCodeError);  // no output operation asks for this batch
  EXPECT_EQ(*add.calls, 1);
  sums.node().settle(batch_time(0));
  EXPECT_EQ(*add.calls, 2);
  sums.node().settle(batch_time(0));
  EXPECT_EQ(*add.calls, 2) << "it is done";
  *add.fail = 1;
  EXPECT_THROW(test.step({{"a", 4}, {"a", 8}}), UserCodeError);
  EXPECT_EQ(*add.calls, 3) << "once for the output operation, and not again for the window";
  sums.node().settle(batch_time(1));
  EXPECT_EQ(*add.calls, 5);
  EXPECT_EQ(sums.at(batch_time(1)).collect(), (std::vector<Count>{{"a", 15}}));
}

TEST(WindowErrors, OfABatchThatAlwaysFailsEndWithTheWindowsThatHaveIt) {
  for (const bool keyed : {false, true}) {
    StreamTest<int> test;
    const auto checked = test.input().map([](int i) {
      if (i == 0) throw std::runtime_error{"boom"};
      return i;
    });
    std::vector<int> sums;
    const auto see = [&](const Batch<int>& batch) {
      int sum = 0;
      for (const int i : batch.collect()) sum += i;
      sums.push_back(sum);
    };
    if (keyed) {
      checked.reduce_by_window(std::plus<>{}, 3s).foreach_batch(see);
    } else {
      checked.window(3s).foreach_batch(see);
    }
    int failed = 0;
    for (const int i : {1, 0, 3, 4, 5, 6}) {
      try {
        test.step({i});
      } catch (const UserCodeError&) {
        ++failed;
      }
    }
    EXPECT_EQ(failed, 3);
    EXPECT_EQ(sums, (std::vector{1, 12, 15}));
  }
}

TEST(WindowErrors, OfAFilterFailTheWindowAndNoLaterOne) {
  StreamTest<Count> test;
  bool fail = false;
  const auto filter = [&](const std::string&, long) {
    if (fail) throw std::runtime_error{"boom"};
    return true;
  };
  const auto sums =
      test.collect(test.input().reduce_by_key_and_window(std::plus<>{}, std::minus<>{}, 2s, 1s, 1, filter));
  test.step({{"a", 1}});
  fail = true;
  expect_boom<Count>(test, {{"a", 2}}, "reduce_by_key_and_window");
  fail = false;
  test.step({{"a", 4}});
  EXPECT_EQ(*sums, (std::vector<std::vector<Count>>{{{"a", 1}}, {{"a", 6}}}));
}

}  // namespace
}  // namespace tidemill::window_errors_test
