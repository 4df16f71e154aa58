#include "tidemill/state/keyed_table.hpp"

namespace tidemill::detail {

void throw_table_full() {
  throw StateError("table_full",
                   "one partition of a state has more than four billion keys; give the state more partitions",
                   Retry::is_useless);
}

}  // namespace tidemill::detail
