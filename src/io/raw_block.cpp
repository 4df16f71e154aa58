#include "tidemill/io/raw_block.hpp"

#include <algorithm>
#include <iterator>

namespace tidemill::detail {
namespace {

void put_big_endian(char* to, std::uint32_t value) noexcept {
  for (int shift = 24; shift >= 0; shift -= 8) *to++ = static_cast<char>(value >> shift & 0xFF);
}

}  // namespace

void finish_raw_block(std::string& block, std::size_t records) {
  constexpr std::size_t most = std::numeric_limits<std::uint32_t>::max();
  const std::size_t length = block.size() - 4;
  if (length > most || records > most)
    throw ConfigError("a raw block of " + std::to_string(records) + " records and " + std::to_string(block.size()) +
                      " bytes is too large; both must stay below 4294967296, so send several blocks");
  put_big_endian(block.data(), static_cast<std::uint32_t>(length));
  put_big_endian(block.data() + 4, static_cast<std::uint32_t>(records));
}

RecordMarks::Mark RecordMarks::before(std::size_t record) const {
  const std::scoped_lock lock{mutex_};
  const auto after = offsets_.upper_bound(record);
  if (after == offsets_.begin()) return {};
  const auto& [known, offset] = *std::prev(after);
  return {known, offset};
}

void RecordMarks::add(Mark mark) {
  const std::scoped_lock lock{mutex_};
  offsets_.emplace(mark.record, mark.offset);
}

// A block is logged as it came, before anything was cut from it.
void BlockTraits<RawBlock>::encode(const RawBlock& block, std::string& out) {
  Encoder to{out};
  to.varint(block.records);
  to.varint(block.position);
  to.bytes(block.payload);
}

RawBlock BlockTraits<RawBlock>::decode(const std::string& bytes) {
  auto owner = std::make_shared<const std::string>(bytes);  // shared by what is cut from the block
  Decoder from{std::as_bytes(std::span{*owner})};
  RawBlock block;
  block.records = static_cast<std::size_t>(from.varint("a number of records"));
  block.position = from.varint("a position");
  block.payload = from.bytes(from.remaining(), "a payload");
  if (block.records > block.payload.size())
    throw StateError("malformed_data",
                     "a logged block claims " + std::to_string(block.records) + " records in " +
                         std::to_string(block.payload.size()) + " bytes",
                     Retry::is_useless);
  block.charged_bytes = block.payload.size();
  block.owner = std::move(owner);
  return block;
}

std::vector<RawBlock> BlockTraits<RawBlock>::pieces(RawBlock block, std::size_t first, std::size_t each) {
  if (!block.marks) block.marks = std::make_shared<RecordMarks>();
  std::vector<RawBlock> cut;
  std::size_t left = block.records;
  std::size_t left_bytes = block.charged_bytes;
  for (std::size_t wanted = first; left != 0; wanted = each) {
    RawBlock piece = block;
    piece.first = block.first + (block.records - left);
    piece.records = std::min(wanted, left);
    piece.charged_bytes =
        piece.records == left ? left_bytes : std::min(left_bytes, block.charged_bytes / block.records * piece.records);
    piece.ends_payload = block.ends_payload && piece.records == left;
    left -= piece.records;
    left_bytes -= piece.charged_bytes;
    cut.push_back(std::move(piece));
  }
  return cut;
}

std::vector<std::vector<RawBlock>> spread_raw_blocks(std::vector<RawBlock> blocks, std::size_t partitions) {
  const std::size_t wanted = std::clamp<std::size_t>(blocks.size(), 1, std::max<std::size_t>(1, partitions));
  std::size_t total = 0;
  for (const RawBlock& block : blocks) total += block.charged_bytes;
  std::vector<std::vector<RawBlock>> parts(1);
  std::size_t placed = 0;
  for (RawBlock& block : blocks) {
    if (!parts.back().empty() && parts.size() < wanted && placed >= slice_begin(total, wanted, parts.size()))
      parts.emplace_back();
    placed += block.charged_bytes;
    parts.back().push_back(std::move(block));
  }
  return parts;
}

void fail_raw_block(const Scope& scope, const std::string& source, const RawBlock& block, const StateError& error) {
  throw SourceError("malformed_block",
                    source + ": the raw block at byte " + std::to_string(block.position) + " of its connection, " +
                        std::to_string(block.payload.size()) + " bytes, does not hold what is expected of it: " +
                        error.what() + "; sender and receiver must agree on the type of the records",
                    Retry::is_useless,
                    {.application = scope.runtime->app_name,
                     .op = source,
                     .batch_time = scope.batch_time,
                     .partition = {},
                     .offset = block.position});
}

}  // namespace tidemill::detail
