#include "tidemill/batch/partitioner.hpp"

#include <string>

namespace tidemill {

AnyPartitioner::~AnyPartitioner() = default;

void detail::check_partitions(std::size_t partitions) {
  if (partitions == 0) throw ConfigError("a batch needs at least one partition, and 0 were asked for");
  if (partitions > most_partitions)
    throw ConfigError("a batch may have " + std::to_string(most_partitions) + " partitions at most, and " +
                      std::to_string(partitions) + " were asked for; more than a few for each thread make it slower");
}

void detail::throw_partition_out_of_range(std::size_t partition, std::size_t partitions) {
  throw PlanError("partition_out_of_range", "the partitioner answered " + std::to_string(partition) +
                                                ", and the partitions are 0 to " + std::to_string(partitions - 1));
}

void detail::throw_wrong_partitioner(const char* op) {
  throw PlanError("wrong_partitioner", std::string{op} +
                                           " was given a partitioner for keys of another type than those of the batch; "
                                           "derive it from tidemill::Partitioner<K> for the K of its pairs");
}

}  // namespace tidemill
