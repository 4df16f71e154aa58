#include "tidemill/batch/partitioner.hpp"

namespace tidemill {

AnyPartitioner::~AnyPartitioner() = default;

void detail::check_partitions(std::size_t partitions) {
  if (partitions == 0) throw ConfigError("a batch needs at least one partition, and 0 were asked for");
}

}  // namespace tidemill
