// What the tests of streams share.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tidemill/testing/stream_test.hpp"

namespace tidemill::testing_streams {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using tidemill::testing::StreamTest;

/// The time of batch i of a StreamTest, from 0.
inline Time batch_time(int i) { return Time{std::chrono::seconds{1001 + i}}; }

/// Runs a test with one, two and five threads and partitions: the answer has to be the same.
template <class T>
void for_each_parallelism(void (*test)(StreamTest<T>&)) {
  for (const std::size_t parallelism : {1u, 2u, 5u}) {
    SCOPED_TRACE("parallelism " + std::to_string(parallelism));
    StreamTest<T> one{1s, parallelism};
    test(one);
  }
}
template <class F>
void for_each_parallelism(F test) {
  for_each_parallelism(+test);
}

/// The user function that every operator has to survive.
struct Boom {
  template <class... Args>
  int operator()(const Args&...) const {
    throw std::runtime_error{"boom"};
  }
};

/// Steps with `records`; the batch must fail with a UserCodeError that names the operator, the time and the cause.
template <class T>
void expect_boom(StreamTest<T>& test, std::vector<T> records, const std::string& op) {
  const Time time = test.clock().now() + test.streaming().batch_interval();
  try {
    test.step(std::move(records));
    ADD_FAILURE() << op << ": nothing was thrown";
  } catch (const UserCodeError& error) {
    EXPECT_EQ(error.context().op, op);
    EXPECT_EQ(error.context().batch_time, time) << op;
    EXPECT_EQ(error.context().application, "test") << op;
    EXPECT_THROW(std::rethrow_if_nested(error), std::runtime_error) << op;
  }
}

}  // namespace tidemill::testing_streams
