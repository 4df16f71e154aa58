// Feeds damaged raw blocks, in arbitrary pieces, to what raw_socket_stream is made of: from bytes to the records of a batch.
// The blocks that are found, and where the connection is given up, must be those of the whole wire read at once. Each block, cut
// or from a log, gives as many records as it claims, or one error. The first byte chooses the pieces.
// With libFuzzer: clang++ -fsanitize=fuzzer,address,undefined -DTIDEMILL_LIBFUZZER …; without it, main() below runs a
// number of seeded random inputs (first argument, 20000 if there is none), so that the same file is a test.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tidemill/batch/context.hpp"
#include "tidemill/io/raw_block.hpp"
#include "tidemill/io/socket.hpp"

namespace {

using namespace tidemill;
using detail::RawBlock;
using Traits = detail::BlockTraits<RawBlock>;

constexpr std::size_t max_block_bytes = 64;

struct Wire {
  std::vector<std::pair<std::string, std::size_t>> blocks;  // payload, records
  bool is_malformed = false;
};

[[nodiscard]] std::size_t number_at(std::string_view bytes, std::size_t at) {
  std::size_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8U | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

[[nodiscard]] Wire read_at_once(std::string_view bytes) {
  Wire wire;
  while (bytes.size() >= 8) {
    const std::size_t length = number_at(bytes, 0);
    const std::size_t records = number_at(bytes, 4);
    wire.is_malformed =
        length < 4 || length - 4 > max_block_bytes || records > length - 4 || (records == 0 && length != 4);
    if (wire.is_malformed || bytes.size() < 4 + length) break;
    if (records != 0) wire.blocks.emplace_back(bytes.substr(8, length - 4), records);
    bytes.remove_prefix(4 + length);
  }
  return wire;
}

// The records; absent: the block does not hold what it claims.
[[nodiscard]] std::optional<std::vector<std::string>> records_of(const std::vector<RawBlock>& blocks,
                                                                 std::size_t partitions) {
  static const Context context{{.app_name = "fuzz", .parallelism = 1}};
  const auto scope = std::make_shared<const detail::Scope>(detail::Scope{context.runtime(), Time{}});
  try {
    return detail::raw_blocks_batch<std::string>(scope, blocks, partitions, "fuzz").collect();
  } catch (const SourceError& error) {
    if (error.code() != "malformed_block") __builtin_trap();
    return std::nullopt;
  }
}

void check_block(const RawBlock& block) {
  const auto whole = records_of({block}, 1);
  if (whole && whole->size() != block.records) __builtin_trap();
  if (block.records > 1) {  // in two pieces, of two batches; the first may still be right where the whole is not
    const std::vector<RawBlock> pieces = Traits::pieces(block, 1, block.records);
    const auto first = records_of({pieces.at(0)}, 1);
    const auto second = records_of({pieces.at(1)}, 1);
    if (whole && (!first || !second || first->size() != 1 || second->size() != whole->size() - 1)) __builtin_trap();
    if (!whole && first && second) __builtin_trap();
  }
  std::string logged;
  Traits::encode(block, logged);
  const RawBlock again = Traits::decode(logged);
  if (again.records != block.records || again.position != block.position || records_of({again}, 1) != whole)
    __builtin_trap();
}

// A block of a log whose checksum holds, and whose bytes are arbitrary all the same.
void check_logged(const std::string& bytes) {
  try {
    const RawBlock block = Traits::decode(bytes);
    if (block.records <= 1'000) static_cast<void>(records_of({block}, 1));
  } catch (const StateError&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  std::uint32_t chance = data[0];
  const std::string bytes{reinterpret_cast<const char*>(data) + 1, size - 1};
  const Wire expected = read_at_once(bytes);

  detail::Inbox<RawBlock> inbox{std::make_shared<ManualClock>(), InboxLimits{}};
  inbox.open();
  const auto sink = detail::make_raw_sink(inbox, {.max_block_bytes = max_block_bytes, .read_buffer_bytes = 16});
  sink->begin();
  bool is_malformed = false;
  std::string complaint;
  try {
    for (std::string_view rest = bytes; !rest.empty();) {
      const auto space = sink->space();
      chance = chance * 1'664'525U + 1'013'904'223U;
      const std::size_t piece = std::min({space.size(), rest.size(), std::size_t{chance >> 24U} % 23U + 1U});
      std::memcpy(space.data(), rest.data(), piece);
      rest.remove_prefix(piece);
      static_cast<void>(sink->received(piece, complaint));
    }
    static_cast<void>(sink->end(complaint));
  } catch (const SourceError& error) {
    if (error.code() != "malformed_block") __builtin_trap();
    is_malformed = true;
  }
  const std::vector<RawBlock> blocks = inbox.take_until(Time::max(), SIZE_MAX);
  if (is_malformed != expected.is_malformed || blocks.size() != expected.blocks.size()) __builtin_trap();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const std::string_view payload{reinterpret_cast<const char*>(blocks[i].payload.data()), blocks[i].payload.size()};
    if (payload != expected.blocks[i].first || blocks[i].records != expected.blocks[i].second) __builtin_trap();
    check_block(blocks[i]);
  }
  check_logged(bytes);
  return 0;
}

#ifndef TIDEMILL_LIBFUZZER
#include "random_inputs.hpp"

int main(int count, char** arguments) {
  const std::string good = '\x2A' + encode_raw_block(std::vector<std::string>{"one", "two"}) +
                           encode_raw_block(std::vector<std::string>{}) +
                           encode_raw_block(std::vector<std::string>{"", "four", "and five"});
  return tidemill_fuzz::run_random_inputs(count, arguments, good, LLVMFuzzerTestOneInput);
}
#endif
