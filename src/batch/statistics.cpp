#include "tidemill/batch/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "tidemill/batch/batch.hpp"
#include "tidemill/core/error.hpp"

namespace tidemill {

void Statistics::add_to_sum(double x) noexcept {
  const double total = sum_ + x;
  if (std::isfinite(total)) {  // with an infinity there is nothing left to lose
    lost_ += std::abs(sum_) >= std::abs(x) ? (sum_ - total) + x : (x - total) + sum_;
  }
  sum_ = total;
}

void Statistics::add(double x) noexcept {
  ++count_;
  const double from_mean = x - mean_;
  mean_ += from_mean / static_cast<double>(count_);
  squares_ += from_mean * (x - mean_);
  add_to_sum(x);
  if (x < min_) min_ = x;
  if (x > max_) max_ = x;
}

void Statistics::merge(const Statistics& other) noexcept {
  if (other.count_ == 0) return;
  if (count_ == 0) {
    *this = other;
    return;
  }
  const auto mine = static_cast<double>(count_);
  const auto theirs = static_cast<double>(other.count_);
  const double apart = other.mean_ - mean_;
  mean_ += apart * (theirs / (mine + theirs));
  squares_ += other.squares_ + apart * apart * (mine * theirs / (mine + theirs));
  count_ += other.count_;
  const double lost = other.lost_;
  add_to_sum(other.sum_);
  lost_ += lost;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
}

double Statistics::variance() const noexcept {
  return count_ == 0 ? std::numeric_limits<double>::quiet_NaN() : squares_ / static_cast<double>(count_);
}
double Statistics::sample_variance() const noexcept {
  return count_ < 2 ? std::numeric_limits<double>::quiet_NaN() : squares_ / static_cast<double>(count_ - 1);
}
double Statistics::stdev() const noexcept { return std::sqrt(variance()); }
double Statistics::sample_stdev() const noexcept { return std::sqrt(sample_variance()); }

namespace detail {

void check_bounds(const std::vector<double>& bounds) {
  if (bounds.size() < 2) {
    throw ConfigError("a histogram needs at least two bounds, and " + std::to_string(bounds.size()) + " were given");
  }
  for (std::size_t i = 1; i < bounds.size(); ++i) {
    if (!(bounds[i - 1] < bounds[i])) {
      throw ConfigError("the bounds of a histogram must ascend, and " + std::to_string(bounds[i]) + " follows " +
                        std::to_string(bounds[i - 1]));
    }
  }
}

std::vector<double> even_bounds(const Statistics& seen, std::size_t buckets) {
  if (buckets == 0) throw ConfigError("a histogram needs at least one bucket, and 0 were asked for");
  if (seen.count() == 0) throw_empty_batch("histogram");
  if (!std::isfinite(seen.min()) || !std::isfinite(seen.max()) || std::isnan(seen.mean())) {
    throw PlanError(
        "not_finite",
        "histogram cannot choose its bounds, because the batch holds a NaN or an infinity; give it the bounds, "
        "or filter by std::isfinite first");
  }
  if (seen.min() == seen.max()) return {seen.min(), seen.max()};
  std::vector<double> bounds;
  bounds.reserve(buckets + 1);
  // Scaled before they are subtracted, since max - min may be too large for a double.
  const double parts = static_cast<double>(buckets);
  const double width = seen.max() / parts - seen.min() / parts;
  for (std::size_t i = 0; i < buckets; ++i) bounds.push_back(seen.min() + static_cast<double>(i) * width);
  bounds.push_back(seen.max());
  return bounds;
}

void count_into(const std::vector<double>& bounds, std::vector<std::size_t>& counts, double x) noexcept {
  if (!(x >= bounds.front() && x <= bounds.back())) return;
  const auto above = std::upper_bound(bounds.begin(), bounds.end(), x);
  const auto bucket = static_cast<std::size_t>(above - bounds.begin()) - 1;
  ++counts[std::min(bucket, counts.size() - 1)];
}

}  // namespace detail
}  // namespace tidemill
