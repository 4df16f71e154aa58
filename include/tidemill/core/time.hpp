// Instants, durations and intervals of batch time, and the arithmetic of epoch-aligned ticks. All of it is std::chrono:
// what chrono has (comparison, +, -, min, max) is used as it is, and only Spark's extras are added here.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "tidemill/core/config.hpp"

namespace tidemill {

/// A length of time. Units: microseconds, so `1s`, `250ms` and `30us` all convert without loss.
/// Source: Spark Streaming `Duration` (milliseconds there; finer here because batches may follow each other faster).
using Duration = std::chrono::microseconds;

/// An absolute instant. Units: microseconds since the Unix epoch.
/// Source: Spark Streaming `Time`.
using Time = std::chrono::time_point<std::chrono::system_clock, Duration>;

/// A stretch of batch time from `begin` to `end`. When an interval selects batches (`slice`), *both ends belong to it*.
/// Source: Spark Streaming `Interval`.
struct Interval {
  Time begin;
  Time end;

  [[nodiscard]] constexpr Duration duration() const noexcept { return end - begin; }
  friend constexpr Interval operator+(Interval i, Duration d) noexcept { return {i.begin + d, i.end + d}; }
  friend constexpr Interval operator-(Interval i, Duration d) noexcept { return {i.begin - d, i.end - d}; }
  friend constexpr bool operator==(const Interval&, const Interval&) = default;
};

/// Rounds `t` down to a multiple of `step` counted from `zero` (by default the epoch); also right before `zero`.
/// Pre: step > 0.   Source: Spark Streaming `Time.floor`.
[[nodiscard]] constexpr Time floor_to(Time t, Duration step, Time zero = Time{}) noexcept {
  const Duration since = t - zero;
  Duration rest = since % step;
  if (rest < Duration::zero()) rest += step;
  return t - rest;
}

/// Whether `t` lies on a multiple of `step` counted from `zero`. Pre: step > 0.
[[nodiscard]] constexpr bool is_multiple_of(Time t, Duration step, Time zero = Time{}) noexcept {
  return (t - zero) % step == Duration::zero();
}

/// Whether `d` is a whole number of `step`. Pre: step > 0.
[[nodiscard]] constexpr bool is_multiple_of(Duration d, Duration step) noexcept { return d % step == Duration::zero(); }

/// The instants first, first + step, … that lie before `end`. Errors: ConfigError unless step > 0.
[[nodiscard]] TIDEMILL_API std::vector<Time> until(Time first, Time end, Duration step);

/// The instants first, first + step, … up to and including `last`. Errors: ConfigError unless step > 0.
[[nodiscard]] TIDEMILL_API std::vector<Time> to(Time first, Time last, Duration step);

/// Milliseconds since the Unix epoch, rounded down.
[[nodiscard]] constexpr std::int64_t millis(Time t) noexcept {
  return std::chrono::floor<std::chrono::milliseconds>(t).time_since_epoch().count();
}

namespace detail {

/// t + d, or the end of time where that lies beyond it: a limit of Duration::max() is none.
[[nodiscard]] constexpr Time later(Time t, Duration d) noexcept {
  return d <= Duration::zero() || t <= Time::max() - d ? t + d : Time::max();
}

/// Batch intervals, window lengths and slides are no longer than this, so that a few of them may be added to any time.
inline constexpr Duration longest_interval = std::chrono::years{1000};

}  // namespace detail

/// "1700000000000 ms" as Spark prints it; with three decimals when `t` is not a whole millisecond.
[[nodiscard]] TIDEMILL_API std::string to_string(Time t);

/// "250 ms", "1.5 s", "2 min": the largest unit in which the number is short.
[[nodiscard]] TIDEMILL_API std::string to_string(Duration d);

}  // namespace tidemill
