// What errors say, what they carry, and how a user's exception finds its way into one.
#include "tidemill/core/error.hpp"

#include <stdexcept>
#include <string>

#include <gtest/gtest.h>

namespace tidemill {
namespace {

using namespace std::chrono_literals;

TEST(Error, SaysWhereItHappenedAsFarAsThatIsKnown) {
  EXPECT_STREQ(ConfigError{"no partitions"}.what(), "no partitions");
  const SourceError error{"line_too_long",
                          "a line is too long",
                          Retry::is_useless,
                          {.application = "app", .op = "socket", .batch_time = Time{2s}, .partition = 3, .offset = 99}};
  EXPECT_STREQ(error.what(),
               "a line is too long [application app, operator socket, batch 2000 ms, partition 3, offset 99]");
  EXPECT_EQ(error.code(), "line_too_long");
  EXPECT_EQ(error.retry(), Retry::is_useless);
  EXPECT_EQ(error.context().offset, 99u);
}

TEST(Error, KindsAreCaughtByTheirFamily) {
  EXPECT_THROW(throw ConfigError{"x"}, Error);
  EXPECT_THROW((throw PlanError{"code", "x"}), Error);
  EXPECT_THROW((throw SinkError{"code", "x", Retry::may_help}), WorldError);
  EXPECT_THROW((throw StateError{"code", "x", Retry::may_help}), WorldError);
  EXPECT_THROW(throw ConfigError{"x"}, std::runtime_error);
}

std::exception_ptr failure(const char* op, auto thrown) {
  try {
    try {
      try {
        throw thrown;
      } catch (...) {
        detail::throw_user_failure(op);
      }
    } catch (...) {
      detail::throw_user_failure("outer");  // keeps the first label
    }
  } catch (...) {
    return detail::with_context({.application = "app", .op = {}, .batch_time = {}, .partition = 1, .offset = {}});
  }
}

TEST(UserCodeError, NestsTheCauseAndNamesTheInnermostOperator) {
  try {
    std::rethrow_exception(failure("map", std::out_of_range{"no such key"}));
  } catch (const UserCodeError& error) {
    EXPECT_STREQ(error.what(),
                 "a user function threw in map: no such key [application app, operator map, partition 1]");
    EXPECT_EQ(error.code(), "user_code");
    EXPECT_THROW(std::rethrow_if_nested(error), std::out_of_range);
  }
}

TEST(UserCodeError, TakesWhatIsNoException) {
  try {
    std::rethrow_exception(failure("filter", 42));
  } catch (const UserCodeError& error) {
    EXPECT_NE(std::string{error.what()}.find("not a std::exception"), std::string::npos);
    EXPECT_THROW(std::rethrow_if_nested(error), int);
  }
}

// `thrown` after it has passed a place that knows `outer`.
template <class E>
E after(const E& thrown, const ErrorContext& outer) {
  std::exception_ptr kept;
  try {
    throw thrown;
  } catch (...) {
    kept = detail::with_context(outer);
  }
  try {
    std::rethrow_exception(kept);
  } catch (const E& error) {
    return error;
  }
}

const ErrorContext in_a_batch{
    .application = "app", .op = "print", .batch_time = Time{2s}, .partition = 1, .offset = std::nullopt};

TEST(WithContext, FillsInWhatAnErrorOfOursLeavesOpen) {
  const ErrorContext of_a_file{.application = {}, .op = "text_file", .batch_time = {}, .partition = {}, .offset = 7};
  const SourceError source = after(SourceError{"io", "a bad disk", Retry::may_help, of_a_file}, in_a_batch);
  EXPECT_STREQ(source.what(), "a bad disk [application app, operator text_file, batch 2000 ms, offset 7]")
      << "partition 1 is one of print's";
  EXPECT_EQ(source.code(), "io");
  EXPECT_EQ(source.retry(), Retry::may_help);
  EXPECT_EQ(source.context().offset, 7u);

  const std::string everywhere = " [application app, operator print, batch 2000 ms, partition 1]";
  EXPECT_EQ(after(SinkError{"io", "full", Retry::is_useless}, in_a_batch).what(), "full" + everywhere);
  EXPECT_EQ(after(StateError{"io", "torn", Retry::is_useless}, in_a_batch).what(), "torn" + everywhere);
  EXPECT_EQ(after(ConfigError{"no partitions"}, in_a_batch).what(), "no partitions" + everywhere);
  const PlanError plan = after(PlanError{"zip_mismatch", "different shapes"}, in_a_batch);
  EXPECT_EQ(plan.what(), "different shapes" + everywhere);
  EXPECT_EQ(plan.code(), "zip_mismatch");
}

TEST(WithContext, KeepsWhatIsKnownAlready) {
  const ErrorContext known{.application = "other", .op = "map", .batch_time = Time{1s}, .partition = 3, .offset = 4};
  EXPECT_EQ(after(PlanError{"code", "x", known}, in_a_batch).context(), known);
}

TEST(WithContext, GivesABatchTimeToTheUsersErrorAndKeepsItsCause) {
  std::exception_ptr kept;
  try {
    std::rethrow_exception(failure("map", std::out_of_range{"no such key"}));  // knows application and partition
  } catch (...) {
    kept = detail::with_context(in_a_batch);
  }
  try {
    std::rethrow_exception(kept);
  } catch (const UserCodeError& error) {
    EXPECT_STREQ(
        error.what(),
        "a user function threw in map: no such key [application app, operator map, batch 2000 ms, partition 1]");
    EXPECT_THROW(std::rethrow_if_nested(error), std::out_of_range);
  }
}

TEST(WithContext, LeavesErrorsAsTheyAreThatAProgramDerivedFromOurs) {
  struct Refused : SinkError {
    explicit Refused(int n) : SinkError{"refused", "no room", Retry::may_help}, seats{n} {}
    int seats;
  };
  const Refused kept = after(Refused{3}, in_a_batch);
  EXPECT_EQ(kept.seats, 3);
  EXPECT_STREQ(kept.what(), "no room");
  EXPECT_EQ(after(std::out_of_range{"no such key"}, in_a_batch).what(), std::string{"no such key"});
}

TEST(Describe, FindsWordsForEverything) {
  EXPECT_EQ(describe(nullptr), "no error");
  EXPECT_EQ(describe(std::make_exception_ptr(std::runtime_error{"boom"})), "boom");
  EXPECT_EQ(describe(std::make_exception_ptr(7)), "an exception that is not a std::exception");
}

TEST(Assert, ThrowsAnInternalErrorThatNamesTheCondition) {
  const auto check = [](int n) { TIDEMILL_ASSERT(n > 0, "a batch has partitions"); };
  EXPECT_NO_THROW(check(1));
  try {
    check(0);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const InternalError& error) {
    EXPECT_NE(std::string{error.what()}.find("n > 0"), std::string::npos);
    EXPECT_NE(std::string{error.what()}.find("a batch has partitions"), std::string::npos);
  }
}

}  // namespace
}  // namespace tidemill
