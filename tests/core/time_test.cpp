// Batch time: rounding, multiples, sequences, text.
#include "tidemill/core/time.hpp"

#include <chrono>
#include <vector>

#include <gtest/gtest.h>

#include "tidemill/core/error.hpp"

namespace tidemill {
namespace {

using namespace std::chrono_literals;

constexpr Time at(std::chrono::milliseconds since_epoch) { return Time{since_epoch}; }

TEST(FloorTo, RoundsDownToAMultipleCountedFromTheEpochOrAZeroTime) {
  EXPECT_EQ(floor_to(at(1250ms), 1s), at(1000ms));
  EXPECT_EQ(floor_to(at(1000ms), 1s), at(1000ms));
  EXPECT_EQ(floor_to(at(-1ms), 1s), at(-1000ms));
  EXPECT_EQ(floor_to(at(1250ms), 1s, at(300ms)), at(300ms));
  EXPECT_EQ(floor_to(at(100ms), 1s, at(300ms)), at(-700ms)) << "also right before zero";
}

TEST(IsMultipleOf, ForTimesAndDurations) {
  EXPECT_TRUE(is_multiple_of(at(4000ms), 2s));
  EXPECT_FALSE(is_multiple_of(at(3000ms), 2s));
  EXPECT_TRUE(is_multiple_of(at(3000ms), 2s, at(1000ms)));
  EXPECT_TRUE(is_multiple_of(Duration{6s}, Duration{2s}));
  EXPECT_FALSE(is_multiple_of(Duration{3s}, Duration{2s}));
}

TEST(UntilAndTo, ListTimesWithoutAndWithTheEnd) {
  EXPECT_EQ(until(at(0ms), at(3000ms), 1s), (std::vector{at(0ms), at(1000ms), at(2000ms)}));
  EXPECT_EQ(to(at(0ms), at(2000ms), 1s), (std::vector{at(0ms), at(1000ms), at(2000ms)}));
  EXPECT_EQ(to(at(0ms), at(2500ms), 1s).size(), 3u);
  EXPECT_TRUE(until(at(1000ms), at(1000ms), 1s).empty());
  EXPECT_EQ(to(at(1000ms), at(1000ms), 1s).size(), 1u);
  EXPECT_TRUE(to(at(1000ms), at(0ms), 1s).empty());
  EXPECT_THROW((void)until(at(0ms), at(1000ms), 0s), ConfigError);
  EXPECT_THROW((void)to(at(0ms), at(1000ms), -1s), ConfigError);
}

TEST(Interval, ShiftsAndMeasures) {
  const Interval i{at(1000ms), at(3000ms)};
  EXPECT_EQ(i.duration(), 2s);
  EXPECT_EQ(i + 500ms, (Interval{at(1500ms), at(3500ms)}));
  EXPECT_EQ(i - 1s, (Interval{at(0ms), at(2000ms)}));
}

TEST(ToString, OfTimesIsInMilliseconds) {
  EXPECT_EQ(to_string(at(1700000000000ms)), "1700000000000 ms");
  EXPECT_EQ(to_string(Time{1500us}), "1.500 ms");
  EXPECT_EQ(millis(Time{1999us}), 1);
  EXPECT_EQ(millis(Time{-1us}), -1) << "rounded down";
}

TEST(ToString, OfDurationsIsInTheLargestUnitThatReadsWell) {
  EXPECT_EQ(to_string(Duration{250ms}), "250 ms");
  EXPECT_EQ(to_string(Duration{1500ms}), "1.5 s");
  EXPECT_EQ(to_string(Duration{459250us}), "459.25 ms");
  EXPECT_EQ(to_string(Duration{-1234567us}), "-1234.567 ms");
  EXPECT_EQ(to_string(Duration{7us}), "7 us");
  EXPECT_EQ(to_string(Duration{120s}), "2 min");
  EXPECT_EQ(to_string(Duration{-30min}), "-30 min");
  EXPECT_EQ(to_string(Duration::zero()), "0 us");
  EXPECT_EQ(to_string(Duration{9223372036854000000}), "153722867280.9 min");
  EXPECT_EQ(to_string(Duration::max()), "9223372036854775.807 ms");
  EXPECT_EQ(to_string(Duration::min()), "-9223372036854775.808 ms");
}

}  // namespace
}  // namespace tidemill
