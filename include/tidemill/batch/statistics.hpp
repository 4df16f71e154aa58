// Count, mean, deviation, extremes and sum of numbers, in one pass and mergeable, so that partitions can be summarised
// apart.
#pragma once

#include <cstddef>
#include <limits>
#include <vector>

#include "tidemill/core/config.hpp"

namespace tidemill {

/// What `stats()` finds out about a batch of numbers. Numerically stable: the mean and the squared deviations are
/// updated and merged as differences from the mean (Welford; Chan, Golub and LeVeque), and the sum carries its rounding
/// error along (Neumaier).
/// A NaN makes mean, deviations and sum NaN; `min` and `max` leave it out.
/// Threads: a value; one writer at a time.
/// Source: Spark `StatCounter`.
class TIDEMILL_API Statistics {
 public:
  /// Adds a number.
  void add(double x) noexcept;
  /// Adds what another one has seen.
  void merge(const Statistics& other) noexcept;

  [[nodiscard]] std::size_t count() const noexcept { return count_; }
  [[nodiscard]] double mean() const noexcept { return mean_; }  ///< 0 when there is no number
  [[nodiscard]] double sum() const noexcept { return sum_ + lost_; }
  [[nodiscard]] double min() const noexcept { return min_; }  ///< +infinity when there is no number
  [[nodiscard]] double max() const noexcept { return max_; }  ///< -infinity when there is no number
  [[nodiscard]] double variance() const noexcept;             ///< of the population; NaN when there is no number
  [[nodiscard]] double sample_variance() const noexcept;      ///< divides by count - 1; NaN below two numbers
  [[nodiscard]] double stdev() const noexcept;                ///< of the population
  [[nodiscard]] double sample_stdev() const noexcept;

 private:
  void add_to_sum(double x) noexcept;

  std::size_t count_ = 0;
  double mean_ = 0;
  double squares_ = 0;  // sum of squared differences from the mean
  double sum_ = 0;
  double lost_ = 0;  // what rounding took from sum_
  double min_ = std::numeric_limits<double>::infinity();
  double max_ = -std::numeric_limits<double>::infinity();
};

/// Numbers counted by range: bucket i holds those in [bounds[i], bounds[i + 1]), the last one its upper bound too.
struct Histogram {
  std::vector<double> bounds;
  std::vector<std::size_t> counts;
};

namespace detail {

/// Errors: ConfigError unless there are two bounds or more, each greater than the one before.
TIDEMILL_API void check_bounds(const std::vector<double>& bounds);

/// Bounds of `buckets` ranges of equal width over what the statistics have seen; one bucket when all numbers are equal.
/// Errors: ConfigError for 0 buckets; PlanError "empty_batch"; PlanError "not_finite" for NaN and infinities.
[[nodiscard]] TIDEMILL_API std::vector<double> even_bounds(const Statistics& seen, std::size_t buckets);

/// Counts x, unless it lies outside of all buckets.
TIDEMILL_API void count_into(const std::vector<double>& bounds, std::vector<std::size_t>& counts, double x) noexcept;

}  // namespace detail
}  // namespace tidemill
