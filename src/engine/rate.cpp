#include "tidemill/engine/rate.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>
#include <utility>

#include "tidemill/core/error.hpp"

namespace tidemill::detail {
namespace {

double seconds(Duration d) noexcept { return std::chrono::duration<double>{d}.count(); }

void check_coefficient(const char* name, double value) {
  if (std::isfinite(value) && value >= 0) return;
  throw ConfigError(std::string{"the coefficient "} + name + " of backpressure must be 0 or more, and it is " +
                    std::to_string(value));
}

void check_rate(const char* name, double value) {
  if (std::isfinite(value) && value > 0) return;
  throw ConfigError(std::string{"the "} + name + " of backpressure must be above 0 records a second, and it is " +
                    std::to_string(value));
}

}  // namespace

void check(const Backpressure& options) {
  check_coefficient("kp", options.kp);
  check_coefficient("ki", options.ki);
  check_coefficient("kd", options.kd);
  check_rate("min_rate", options.min_rate);
  if (options.initial_rate) check_rate("initial_rate", *options.initial_rate);
}

PidRateEstimator::PidRateEstimator(Duration batch_interval, const Backpressure& options)
    : interval_{seconds(batch_interval)}, options_{options} {
  if (batch_interval <= Duration::zero())
    throw ConfigError("the batch interval of a rate estimator must be positive, and it is " +
                      to_string(batch_interval));
  check(options_);
}

std::optional<double> PidRateEstimator::update(Time end, std::size_t records, Duration processing,
                                               Duration scheduling) noexcept {
  if ((last_end_ && end <= *last_end_) || records == 0 || processing <= Duration::zero()) return std::nullopt;
  const double worked_on = static_cast<double>(records) / seconds(processing);
  const std::optional<Time> before = std::exchange(last_end_, end);
  if (!before) {
    last_rate_ = worked_on;
    return std::nullopt;
  }
  const double error = last_rate_ - worked_on;
  const double piled_up =
      seconds(scheduling) * worked_on / interval_;  // records let in too many, a second of an interval
  const double trend = (error - last_error_) / seconds(end - *before);
  last_rate_ =
      std::max(options_.min_rate, last_rate_ - options_.kp * error - options_.ki * piled_up - options_.kd * trend);
  last_error_ = error;
  return last_rate_;
}

}  // namespace tidemill::detail
