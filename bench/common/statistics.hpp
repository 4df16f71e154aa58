// Medians and percentiles of a benchmark's samples.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

namespace tidemill::bench {

/// The nearest-rank percentile: the smallest sample that at least `percent` % of the samples do not exceed. 0 if there
/// are none.
inline double percentile(std::vector<double> samples, double percent) {
  if (samples.empty()) {
    return 0;
  }
  const auto size = static_cast<double>(samples.size());
  const auto rank = static_cast<std::size_t>(std::clamp(std::ceil(percent / 100 * size), 1.0, size));
  const auto at = samples.begin() + static_cast<std::ptrdiff_t>(rank - 1);
  std::nth_element(samples.begin(), at, samples.end());
  return *at;
}

inline double median(const std::vector<double>& samples) { return percentile(samples, 50); }

/// Adds <prefix>p50_us, <prefix>p99_us and <prefix>p999_us from samples in nanoseconds.
inline void report_percentiles(benchmark::State& state, const std::string& prefix, std::vector<double> nanoseconds) {
  std::sort(nanoseconds.begin(), nanoseconds.end());
  state.counters[prefix + "p50_us"] = percentile(nanoseconds, 50) / 1e3;
  state.counters[prefix + "p99_us"] = percentile(nanoseconds, 99) / 1e3;
  state.counters[prefix + "p999_us"] = percentile(nanoseconds, 99.9) / 1e3;
}

}  // namespace tidemill::bench
