#include "tidemill/dstream/state_spec.hpp"

namespace tidemill::detail {

void throw_state_misuse(StateMisuse misuse, const std::string& key) {
  const std::string whose = key.empty() ? std::string{"the state of the key"} : "the state of key \"" + key + '"';
  switch (misuse) {
    case StateMisuse::absent:
      throw PlanError("state_absent", whose + " was read, and there is none; ask exists() first, or use get_option()");
    case StateMisuse::removed:
      throw PlanError("state_removed", whose + " was updated after it was removed in the same call");
    case StateMisuse::removed_twice: throw PlanError("state_removed", whose + " was removed twice in the same call");
    case StateMisuse::timing_out: break;
  }
  throw PlanError("state_timing_out",
                  whose + " was changed while it times out, and is removed anyway; ask is_timing_out() first");
}

void check_timeout(Duration idle) {
  if (idle <= Duration::zero())
    throw ConfigError("timeout() needs an idle time above zero, and was given " + to_string(idle));
}
void check_lazy_timeouts(Duration every) {
  if (every < Duration::zero())
    throw ConfigError("lazy_timeouts() needs a time of zero or more, and was given " + to_string(every));
}

}  // namespace tidemill::detail
