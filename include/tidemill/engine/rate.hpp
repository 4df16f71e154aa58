// How fast an input may take records in, worked out from how long its batches took: a controller of the PID family.
// It only computes; whoever asks it tells the input (engine.cpp), which holds its producers back (io/inbox.hpp).
// Source: Spark `PIDRateEstimator`.
#pragma once

#include <cstddef>
#include <optional>

#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"

namespace tidemill {

/// Backpressure: inputs take in what their batches have time for. Of the batches that are done it learns how many records a
/// second they work on, and lets in so many; fewer while batches wait for their turn. Each receiver and each socket has a rate
/// of its own.
/// Source: Spark `spark.streaming.backpressure.*`.
struct Backpressure {
  /// Records a second of each input until there is an estimate, which takes two batches. Absent: its max_rate. [BP2]
  std::optional<double> initial_rate = std::nullopt;
  double min_rate = 100;  ///< the estimate is never lower, so that there is always something to learn from; above 0
  double kp = 1.0;        ///< the answer to the difference between the rate let in and the rate worked on; 0 or more
  double ki = 0.2;        ///< the answer to what has piled up: how fast a delay is worked off; 0 or more
  double kd = 0.0;        ///< the answer to the trend of the difference; sensitive to noise; 0 or more
};

namespace detail {

/// Errors: ConfigError naming the value. [BP6]
TIDEMILL_API void check(const Backpressure& options);

/// The estimator of one input.
/// Units:   records a second.
/// Errors:  the constructor throws ConfigError naming the value; nothing else throws.
/// Threads: one at a time.
class TIDEMILL_API PidRateEstimator {
 public:
  PidRateEstimator(Duration batch_interval, const Backpressure& options);

  /// A batch was done at `end`: it had `records` of this input, and took `processing` after it had waited for `scheduling`.
  /// Returns the new rate; nothing when there is none: for the first batch, and for one that says nothing. [BP3, BP4, BP7]
  std::optional<double> update(Time end, std::size_t records, Duration processing, Duration scheduling) noexcept;

 private:
  const double interval_;  // seconds
  const Backpressure options_;
  std::optional<Time> last_end_;  // of the last batch that said something
  double last_rate_ = 0;
  double last_error_ = 0;
};

}  // namespace detail
}  // namespace tidemill
