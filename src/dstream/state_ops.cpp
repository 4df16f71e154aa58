#include "tidemill/core/error.hpp"
#include "tidemill/dstream/dstream.hpp"

namespace tidemill::detail {

void throw_state_forgotten(const std::string& op, Time t) {
  throw PlanError("state_forgotten",
                  "the batch of " + to_string(t) + " of " + op +
                      " is no longer remembered, and a state does not go back; call remember() for longer");
}

Duration lazy_timeouts_every(const StreamingEngine& engine, Duration slide, std::optional<Duration> idle,
                             Duration every) {
  if (!idle)
    throw ConfigError(
        "lazy_timeouts() says when timeouts are looked at, and there are none; add timeout(idle) to the spec");
  if (every != Duration::zero()) return every;
  if (engine.gate_is_on_arrival())
    throw ConfigError(
        "lazy_timeouts() needs a time when the gate is on_arrival, where there is no batch interval to go by");
  return 10 * slide;
}

}  // namespace tidemill::detail
