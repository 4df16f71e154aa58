#include "tidemill/state/durable_state.hpp"

namespace tidemill {

DurableState::~DurableState() = default;
void DurableState::restoring(std::uint64_t) {}
std::size_t DurableState::restore_parts() const { return 1; }

}  // namespace tidemill
