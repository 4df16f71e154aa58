// Which batches a window holds: pure arithmetic of times. Folding them is the work of window_fold.hpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/engine/engine.hpp"

namespace tidemill::detail {

/// A division that rounds towards the past. Pre: divisor > 0.
[[nodiscard]] constexpr std::int64_t floor_div(std::int64_t number, std::int64_t divisor) noexcept {
  return number / divisor - (number % divisor < 0 ? 1 : 0);
}

/// Windows of `length` that end every `slide`: the one that ends at t holds the batches of (t - length, t]. [W3]
///
/// Time is cut into *panes* at every moment where a window begins or ends, so that a window is a run of whole panes and a batch
/// is folded into one pane, once. A slide is one pane when the length is a multiple of it, else two:
///
///     length 5, slide 2      batches    1   2   3   4   5   6   7   8   9
///     window that ends at 6                 [---|-------|-------]
///     panes                         ----|---|---|---|---|---|---|---|---      "first" and "second" of each slide in turn
///
/// Panes are numbered by absolute time, so that two runs of a program number them alike, whenever each began.
struct TIDEMILL_API WindowShape {
  struct Pane {
    std::int64_t index;
    Time last;  ///< of the latest batch that can be in it
  };

  /// Errors: PlanError "needs_interval" when the gate is on_arrival, "invalid_window" unless both are positive multiples of the
  /// slide of the parent. [W1]
  WindowShape(const char* op, const GraphNode& parent, Duration window_length, std::optional<Duration> window_slide);

  /// When the first window ends that ends at t or later. Windows end at zero + slide, zero + 2 slide, … [W4]
  [[nodiscard]] Time next_end(Time t, Time zero) const noexcept;
  [[nodiscard]] bool ends_at(Time t, Time zero) const noexcept { return is_multiple_of(t, slide, zero); }
  /// The pane of the batch of t; none when no window holds it, as it happens when the slide is longer than the length. [W2]
  [[nodiscard]] std::optional<Pane> pane_of(Time t, Time zero) const noexcept;
  /// Whether no window that ends at `now` or later holds the batch of t.
  [[nodiscard]] bool is_over(Time t, Time now, Time zero) const noexcept { return t <= next_end(now, zero) - length; }

  /// "length 60 s, slide 1 s": what two runs of a program must agree on.
  [[nodiscard]] std::string text() const;

  Duration length;
  Duration slide;
  Duration second;     // length of the second pane of a slide; zero when a slide is one pane
  std::int64_t panes;  // in a window
};

/// Errors: PlanError "window_passed".
[[noreturn]] TIDEMILL_API void throw_window_passed(const char* op, Time wanted, Time now);

}  // namespace tidemill::detail
