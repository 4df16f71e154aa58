#include "tidemill/state/host_state.hpp"

namespace tidemill {

HostState::~HostState() = default;

}  // namespace tidemill
