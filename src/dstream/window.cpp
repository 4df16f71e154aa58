#include <string>

#include "tidemill/core/error.hpp"
#include "tidemill/dstream/detail/window_shape.hpp"

namespace tidemill::detail {
namespace {

// "2 s or 3 s": the multiples of `step` on both sides of d, as far as they are positive.
std::string neighbours(Duration d, Duration step) {
  if (d < step) return to_string(step);
  const Duration below = d - d % step;
  return to_string(below) + " or " + to_string(below + step);
}

void check_multiple(const char* op, const char* what, Duration d, Duration step, const std::string& both) {
  const ErrorContext context{.application = {}, .op = op, .batch_time = {}, .partition = {}, .offset = {}};
  if (d > longest_interval)
    throw PlanError("invalid_window",
                    std::string{op} + " was given " + both + ", and the " + what + " must be at most 1000 years",
                    context);
  if (d > Duration::zero() && is_multiple_of(d, step)) return;
  throw PlanError("invalid_window",
                  std::string{op} + " was given " + both + ", and the " + what +
                      " must be a positive multiple of the slide of the stream it is made from, which is " +
                      to_string(step) + "; the nearest that are: " + neighbours(d, step),
                  context);
}

}  // namespace

WindowShape::WindowShape(const char* op, const GraphNode& parent, Duration window_length,
                         std::optional<Duration> window_slide)
    : length{window_length}, slide{window_slide.value_or(parent.slide())}, second{}, panes{} {
  if (parent.engine()->gate_is_on_arrival())
    throw PlanError(
        "needs_interval",
        std::string{op} +
            " needs batches at regular times, and the gate of this context is on_arrival, where batches come "
            "when data does; give the context a batch interval",
        {.application = {}, .op = op, .batch_time = {}, .partition = {}, .offset = {}});
  const std::string both = "the window length " + to_string(length) + " and the slide " + to_string(slide);
  check_multiple(op, "length", length, parent.slide(), both);
  check_multiple(op, "slide", slide, parent.slide(), both);
  second = length % slide;
  panes = second == Duration::zero() ? length / slide : 2 * (length / slide) + 1;
}

Time WindowShape::next_end(Time t, Time zero) const noexcept {
  const Time floor = floor_to(t, slide, zero);
  return floor == t ? t : floor + slide;
}

std::optional<WindowShape::Pane> WindowShape::pane_of(Time t, Time zero) const noexcept {
  const Time end = next_end(t, zero);
  const std::int64_t index = floor_div(end.time_since_epoch().count(), slide.count());
  if (second == Duration::zero()) return Pane{index, end};
  if (t > end - second) return Pane{2 * index + 1, end};
  if (slide > length) return std::nullopt;
  return Pane{2 * index, end - second};
}

std::string WindowShape::text() const { return "length " + to_string(length) + ", slide " + to_string(slide); }

void throw_window_passed(const char* op, Time wanted, Time now) {
  throw PlanError(
      "window_passed",
      "the window that ends at " + to_string(wanted) +
          " cannot be computed any more, since the stream has gone on to " + to_string(now) +
          ": it could not be when its batch ran, which was reported then, or an earlier run had a part of it; take a "
          "later one",
      {.application = {}, .op = op, .batch_time = wanted, .partition = {}, .offset = {}});
}

}  // namespace tidemill::detail
