// Feeds damaged bytes to what decodes the files of a Kafka stream: the ranges of a plan, and where the partitions of a group
// began. Each is a value that can be, and is encoded to the same again, or a StateError. The first byte chooses which; with the
// third choice the checksum is made to hold.
// With libFuzzer: clang++ -fsanitize=fuzzer,address,undefined -DTIDEMILL_LIBFUZZER …; without it, main() below runs a
// number of seeded random inputs (first argument, 20000 if there is none), so that the same file is a test.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tidemill/core/codec.hpp"
#include "tidemill/core/crc32c.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/kafka/group.hpp"
#include "tidemill/kafka/source.hpp"

namespace {

using namespace tidemill;
using detail::KafkaGroupOrigin;

void check_plan(std::string_view bytes) {
  std::vector<KafkaOffsetRange> ranges;
  try {
    ranges = detail::kafka_ranges_of_plan(bytes);
  } catch (const StateError&) {
    return;
  }
  for (const KafkaOffsetRange& range : ranges) {
    if (range.topic.empty() || range.partition < 0 || range.from < 0 || range.until < range.from) __builtin_trap();
  }
  if (detail::kafka_ranges_of_plan(encode(ranges)) != ranges) __builtin_trap();
}

void check_origin(std::string_view bytes) {
  KafkaGroupOrigin origin;
  try {
    origin = detail::decode_kafka_group_origin(bytes);
  } catch (const StateError&) {
    return;
  }
  for (const auto& [partition, first] : origin.first) {
    if (partition.topic.empty() || partition.partition < 0 || first < 0) __builtin_trap();
  }
  const KafkaGroupOrigin again = detail::decode_kafka_group_origin(detail::encode_kafka_group_origin(origin));
  if (again.group_id != origin.group_id || again.first != origin.first) __builtin_trap();
}

// The bytes with the checksum that they should have: four bytes from the 12th on, over all the others.
std::string with_checksum(std::string bytes) {
  if (bytes.size() < 16) return bytes;
  const auto all = std::as_bytes(std::span{bytes});
  const std::uint32_t crc = crc32c(all.subspan(16), crc32c(all.first(12)));
  for (unsigned i = 0; i < 4; ++i) bytes[12 + i] = static_cast<char>(crc >> 8 * i & 0xFF);
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  const std::string bytes{reinterpret_cast<const char*>(data) + 1, size - 1};
  switch (data[0] % 3) {
    case 0: check_plan(bytes); break;
    case 1: check_origin(bytes); break;
    default: check_origin(with_checksum(bytes)); break;
  }
  return 0;
}

#ifndef TIDEMILL_LIBFUZZER
#include "random_inputs.hpp"

int main(int count, char** arguments) {
  const std::string plan = '\x00' + encode(std::vector<KafkaOffsetRange>{{"orders", 0, 5, 9}, {"orders", 1, 7, 7}});
  const std::string origin = '\x02' + detail::encode_kafka_group_origin(
                                          {.group_id = "totals", .first = {{{"orders", 0}, 5}, {{"orders", 1}, 7}}});
  return tidemill_fuzz::run_random_inputs(count, arguments, plan, LLVMFuzzerTestOneInput) +
         tidemill_fuzz::run_random_inputs(count, arguments, origin, LLVMFuzzerTestOneInput);
}
#endif
