// A user function that throws fails its batch with an error that says where; the next batch is not harmed. SEMANTICS L14, L15.
#include "dstream/streams.hpp"

namespace tidemill::user_error_test {
namespace {

using namespace testing_streams;
using Pair = std::pair<int, int>;

// Builds a stream with an operator whose function throws, and expects an error that names it.
template <class T, class Build>
void expect_op(const char* op, std::vector<T> records, Build build) {
  SCOPED_TRACE(op);
  StreamTest<T> test;
  const auto seen = test.collect(build(test.input()));
  expect_boom(test, records, op);
  EXPECT_TRUE(seen->empty());
  test.step();
  EXPECT_EQ(seen->size(), 1u) << "an empty batch calls nothing, and works";
  expect_boom(test, std::move(records), op);
}

TEST(UserError, NamesTheNarrowOperator) {
  const std::vector<int> some{1, 2};
  expect_op<int>("map", some, [](auto s) { return s.map(Boom{}); });
  expect_op<int>("filter", some, [](auto s) { return s.filter(Boom{}); });
  expect_op<int>("flat_map", some,
                 [](auto s) { return s.flat_map([](int) -> std::vector<int> { throw std::runtime_error{"boom"}; }); });
  expect_op<int>("key_by", some, [](auto s) { return s.key_by(Boom{}); });
}

TEST(UserError, NamesTheOperatorOfPairs) {
  const std::vector<Pair> some{{1, 1}, {1, 2}};
  expect_op<Pair>("map_values", some, [](auto s) { return s.map_values(Boom{}); });
  expect_op<Pair>("flat_map_values", some, [](auto s) {
    return s.flat_map_values([](int) -> std::vector<int> { throw std::runtime_error{"boom"}; });
  });
  expect_op<Pair>("reduce_by_key", some, [](auto s) { return s.reduce_by_key(Boom{}); });
  expect_op<Pair>("combine_by_key", some, [](auto s) { return s.combine_by_key(Boom{}, Boom{}, Boom{}); });
}

TEST(UserError, NamesTheOperatorThatFolds) {
  expect_op<int>("reduce", {1, 2}, [](auto s) { return s.reduce(Boom{}); });
  expect_op<int>("map", {1, 2}, [](auto s) { return s.map(Boom{}).count(); });
}

TEST(UserError, NamesThePartition) {
  StreamTest<int> test{1s, 4};
  const auto seen = test.collect(test.input().map([](int i) { return i == 6 ? throw std::runtime_error{"boom"} : i; }));
  try {
    test.step({0, 1, 2, 3, 4, 5, 6, 7});
    ADD_FAILURE();
  } catch (const UserCodeError& error) {
    EXPECT_EQ(error.context().partition, 3u);
    EXPECT_THAT(error.what(), HasSubstr("boom"));
    EXPECT_THAT(error.what(), HasSubstr("1001000 ms"));
  }
}

TEST(UserError, NamesTheOperatorThatWorksOnWholeBatches) {
  StreamTest<int> test;
  auto [other, queue] = test.add_input<int>();
  bool in_transform = true;
  const auto boom_while = [&in_transform](bool wanted, const Batch<int>& batch) {
    if (in_transform == wanted) throw std::runtime_error{"boom"};
    return batch;
  };
  const auto a = test.collect(test.input().transform([&](const Batch<int>& b) { return boom_while(true, b); }));
  const auto b = test.collect(
      test.input().transform_with(other, [&](const Batch<int>& x, const Batch<int>&) { return boom_while(false, x); }));
  expect_boom(test, {1}, "transform");
  in_transform = false;
  expect_boom(test, {1}, "transform_with");
}

TEST(UserError, NamesTheOutput) {
  StreamTest<int> test;
  test.input().foreach_batch([](const Batch<int>& batch) {
    if (!batch.is_empty()) throw std::runtime_error{"boom"};
  });
  expect_boom(test, {1}, "foreach_batch");
  test.step();
}

TEST(UserError, OfAnActionInAnOutputNamesTheOperatorOfTheAction) {
  StreamTest<int> test;
  test.input().foreach_batch([](const Batch<int>& batch) { batch.foreach (Boom{}); });
  expect_boom(test, {1}, "foreach");
}

TEST(UserError, MayBeAnything) {
  StreamTest<int> test;
  const auto seen = test.collect(test.input().map([](int i) -> int { throw i; }));
  try {
    test.step({42});
    ADD_FAILURE();
  } catch (const UserCodeError& error) {
    try {
      std::rethrow_if_nested(error);
      ADD_FAILURE();
    } catch (const int number) {
      EXPECT_EQ(number, 42);
    }
  }
}

}  // namespace
}  // namespace tidemill::user_error_test
