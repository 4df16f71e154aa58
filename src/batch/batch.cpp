#include "tidemill/batch/batch.hpp"

#include <string>

#include "tidemill/core/error.hpp"

namespace tidemill::detail {

void throw_empty_batch(const char* action) {
  throw PlanError("empty_batch", std::string{action} +
                                     " was called on a batch without records; ask is_empty() first, or use take(1), "
                                     "try_reduce or fold");
}

}  // namespace tidemill::detail
