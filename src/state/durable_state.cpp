#include "tidemill/state/durable_state.hpp"

namespace tidemill {

DurableState::~DurableState() = default;
void DurableState::restoring(std::uint64_t) {}

}  // namespace tidemill
