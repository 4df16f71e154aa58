#include "tidemill/state/durable_keyed.hpp"

#include "tidemill/core/error.hpp"

namespace tidemill::detail {

void throw_key_restored_twice() {
  throw StateError("malformed_state", "a checkpoint gave the same key of a state twice", Retry::is_useless);
}

}  // namespace tidemill::detail
