#include "tidemill/batch/detail/partition_nodes.hpp"

#include <cmath>
#include <string>

#include "tidemill/batch/batch.hpp"

namespace tidemill::detail {

std::size_t SampleRandom::poisson(double mean) noexcept {
  // A Poisson number of mean a + b is the sum of one of mean a and one of mean b; exp(-16) is far from underflow.
  constexpr double step = 16;
  std::size_t events = 0;
  for (double rest = mean; rest > 0; rest -= step) {
    const double limit = std::exp(-std::min(rest, step));
    for (double product = next(); product > limit; product *= next()) ++events;
  }
  return events;
}

void throw_zip_mismatch(const char* what, std::size_t mine, std::size_t theirs) {
  throw PlanError("zip_mismatch",
                  std::string{"zip pairs batches of the same shape, and these have different numbers of "} + what +
                      ": " + std::to_string(mine) + " and " + std::to_string(theirs) +
                      "; number both by zip_with_index and join them instead");
}

void RangeNode::run(std::size_t partition, ChunkSink<std::int64_t> sink) const {
  std::array<std::int64_t, chunk_records> chunk;
  std::size_t i = slice_begin(count_, partitions_, partition);
  const std::size_t end = slice_begin(count_, partitions_, partition + 1);
  while (i < end) {
    const std::size_t size = std::min(chunk.size(), end - i);
    // Unsigned, because the last number may lie at the end of its range and the one after it beyond.
    auto number = static_cast<std::uint64_t>(first_) + static_cast<std::uint64_t>(step_) * i;
    for (std::size_t k = 0; k < size; ++k, number += static_cast<std::uint64_t>(step_)) {
      chunk[k] = static_cast<std::int64_t>(number);
    }
    if (!sink(std::span<const std::int64_t>{chunk.data(), size})) return;
    i += size;
  }
}

void check_fraction(double fraction, bool with_replacement) {
  const bool possible = fraction >= 0 && (with_replacement ? std::isfinite(fraction) : fraction <= 1);
  if (possible) return;
  throw ConfigError("the fraction of a sample must be " +
                    std::string{with_replacement ? "a number from 0 up" : "a number between 0 and 1"} + ", and it is " +
                    std::to_string(fraction));
}

}  // namespace tidemill::detail
