// The estimator of backpressure, row by row. SEMANTICS BP4–BP7.
#include "tidemill/engine/rate.hpp"

#include <cmath>
#include <limits>
#include <string>

#include "engine/harness.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;
using detail::PidRateEstimator;
using ::testing::DoubleNear;
using ::testing::Optional;

constexpr auto none = std::nullopt;
// The coefficients of the sums below; interval 2 s.
constexpr Backpressure pid{.initial_rate = none, .min_rate = 10, .kp = 0.5, .ki = 0.25, .kd = 0.125};

TEST(PidRateEstimator, TheFirstSampleIsKeptAndPublishesNothing) {  // BP7
  PidRateEstimator estimator{2s, pid};
  EXPECT_EQ(estimator.update(at(1), 1000, 1s, 0s), none);
  // 1000 was kept as the last rate, and 0 as the last error: a batch at the same speed changes nothing.
  EXPECT_THAT(estimator.update(at(3), 1000, 1s, 0s), Optional(DoubleNear(1000, 1e-9)));
}

TEST(PidRateEstimator, CorrectsByErrorByWhatHasPiledUpAndByTrend) {  // BP5
  PidRateEstimator estimator{2s, pid};
  EXPECT_EQ(estimator.update(at(1), 1000, 1s, 0s), none);
  // p = 800, error = 200, piled up = 1 × 800 / 2 = 400, trend = 200 / 4 = 50
  const double second = 1000 - 0.5 * 200 - 0.25 * 400 - 0.125 * 50;
  EXPECT_THAT(estimator.update(at(5), 1600, 2s, 1s), Optional(DoubleNear(second, 1e-9)));
  // p = 900, nothing piled up; the error before was 200
  const double error = second - 900;
  EXPECT_THAT(estimator.update(at(7), 450, 500ms, 0s),
              Optional(DoubleNear(second - 0.5 * error - 0.125 * (error - 200) / 2, 1e-9)));
}

TEST(PidRateEstimator, WithSparksCoefficientsTheRateIsThatOfTheLastBatchLessAFifthOfWhatPiledUp) {  // BP6
  const Backpressure defaults;
  EXPECT_EQ(defaults.kp, 1.0);
  EXPECT_EQ(defaults.ki, 0.2);
  EXPECT_EQ(defaults.kd, 0.0);
  EXPECT_EQ(defaults.min_rate, 100);
  PidRateEstimator estimator{1s, defaults};
  EXPECT_EQ(estimator.update(at(1), 7, 1s, 0s), none);
  EXPECT_THAT(estimator.update(at(2), 5000, 1s, 0s), Optional(DoubleNear(5000, 1e-9)));
  EXPECT_THAT(estimator.update(at(3), 4000, 1s, 2s), Optional(DoubleNear(4000 - 0.2 * 2 * 4000, 1e-9)));
}

TEST(PidRateEstimator, NeverGoesBelowTheMinimum) {  // BP5
  PidRateEstimator estimator{1s, {.min_rate = 250}};
  EXPECT_EQ(estimator.update(at(1), 1000, 1s, 0s), none);
  EXPECT_EQ(estimator.update(at(2), 1000, 1s, 100s), std::optional{250.0});
  // … and goes on from there.
  EXPECT_THAT(estimator.update(at(3), 1000, 1s, 0s), Optional(DoubleNear(1000, 1e-9)));
}

TEST(PidRateEstimator, ABatchThatSaysNothingChangesNothing) {  // BP4
  PidRateEstimator estimator{2s, pid};
  PidRateEstimator undisturbed{2s, pid};
  EXPECT_EQ(estimator.update(at(1), 0, 1s, 0s), none) << "not even the first";
  EXPECT_EQ(estimator.update(at(1), 5, 0s, 0s), none);
  for (auto* each : {&estimator, &undisturbed}) EXPECT_EQ(each->update(at(2), 1000, 1s, 0s), none);
  EXPECT_EQ(estimator.update(at(3), 0, 1s, 5s), none) << "without a record";
  EXPECT_EQ(estimator.update(at(4), 70, 0s, 5s), none) << "without a duration";
  EXPECT_EQ(estimator.update(at(2), 70, 1s, 5s), none) << "not later than the last one";
  EXPECT_EQ(estimator.update(at(1.5), 70, 1s, 5s), none);
  EXPECT_EQ(estimator.update(at(6), 900, 2s, 1s), undisturbed.update(at(6), 900, 2s, 1s));
}

TEST(PidRateEstimator, RefusesWhatCannotBeAndNamesIt) {  // BP6
  const auto refusal = [](Backpressure options) {
    return message_of<ConfigError>([&] { PidRateEstimator{1s, options}; });
  };
  EXPECT_THAT(refusal({.kp = -1}), HasSubstr("kp of backpressure must be 0 or more, and it is -1"));
  EXPECT_THAT(refusal({.ki = -0.5}), HasSubstr("ki of backpressure must be 0 or more, and it is -0.5"));
  EXPECT_THAT(refusal({.kd = std::nan("")}), HasSubstr("kd of backpressure must be 0 or more, and it is nan"));
  EXPECT_THAT(refusal({.min_rate = 0}), HasSubstr("min_rate of backpressure must be above 0"));
  EXPECT_THAT(refusal({.initial_rate = -3.0}), HasSubstr("initial_rate of backpressure must be above 0"));
  EXPECT_THAT(refusal({.initial_rate = std::numeric_limits<double>::infinity()}), HasSubstr("initial_rate"));
  EXPECT_EQ(refusal({.kp = 0, .ki = 0, .kd = 0}), "nothing was thrown");
  EXPECT_THAT(message_of<ConfigError>([] { PidRateEstimator{0s, {}}; }), HasSubstr("batch interval"));
}

}  // namespace
}  // namespace tidemill
