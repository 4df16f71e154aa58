#include "tidemill/state/durable_state.hpp"

namespace tidemill {

DurableState::~DurableState() = default;

}  // namespace tidemill
