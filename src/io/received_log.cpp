#include "tidemill/io/received_log.hpp"

#include <algorithm>
#include <limits>

#include "tidemill/core/codec.hpp"
#include "tidemill/core/codec_layout.hpp"
#include "tidemill/core/error.hpp"

namespace tidemill::detail {

StateSchema ReceivedPosition::schema() const {
  return {.kind = "received",
          .key = codec_layout<std::uint8_t>(),
          .value = codec_layout<std::uint64_t>(),
          .parameters = "records of " + records_};
}
void ReceivedPosition::restore(KeyGroup, std::string_view, std::string_view value) {
  taken = decode<std::uint64_t>(value);
}
void ReceivedPosition::take_changes(StateChanges& to) { to.put(0, std::uint8_t{0}, taken); }

ReceivedLog::ReceivedLog(std::unique_ptr<BlockLog> log) : log_{std::move(log)} {}
ReceivedLog::~ReceivedLog() = default;

std::vector<LoggedBlock> ReceivedLog::read_from(std::uint64_t first) {
  std::vector<LoggedBlock> blocks;
  next_ = first;
  std::uint64_t begun = 0;  // behind the block before
  log_->read(log_->first_id(), log_->end_id(), [&](std::uint64_t id, std::string_view bytes) {
    Decoder from{std::as_bytes(std::span{bytes})};
    LoggedBlock block;
    block.first = from.fixed<std::uint64_t>("the number of a record");
    block.records = from.fixed<std::uint64_t>("a number of records");
    if (block.first < begun || block.records > std::numeric_limits<std::uint64_t>::max() - block.first)
      throw StateError("malformed_data",
                       "block " + std::to_string(id) + " of a receiver's log says that it holds " +
                           std::to_string(block.records) + " records from number " + std::to_string(block.first) +
                           " on, and the block before it ends at " + std::to_string(begun),
                       Retry::is_useless);
    const std::uint64_t end = begun = block.end();
    {
      const std::scoped_lock lock{mutex_};
      ends_.emplace_back(id, end);
    }
    next_ = std::max(next_, end);
    if (end <= first) return;
    block.bytes = bytes.substr(from.offset());
    blocks.push_back(std::move(block));
  });
  return blocks;
}

void ReceivedLog::is_missing(const std::string& input, std::uint64_t first, std::uint64_t end) const {
  if (log_->skips_corrupt_blocks()) return;
  throw StateError(
      "checkpoint_damaged",
      "the log of the input \"" + input + "\" has no records " + std::to_string(first) + " to " +
          std::to_string(end - 1) +
          ", which were received after those of the last batch, and has later ones: a file of it is missing; "
          "restore it, or go on without them by BlockLogOptions::skip_corrupt_blocks",
      Retry::is_useless);
}

std::uint64_t ReceivedLog::append(std::uint64_t records, std::string_view bytes) {
  std::string block;
  block.reserve(bytes.size() + 16);
  Encoder to{block};
  to.fixed(next_);
  to.fixed(records);
  block += bytes;
  const std::scoped_lock lock{mutex_};
  ends_.emplace_back(0, next_ + records);
  try {
    ends_.back().first = log_->append(block);
  } catch (...) {
    ends_.pop_back();
    throw;
  }
  next_ += records;
  return ends_.back().first;
}

void ReceivedLog::write(std::uint64_t id) {
  try {
    log_->write(id);
  } catch (const std::exception&) {  // it stays in memory
  }
}

void ReceivedLog::forget_before(std::uint64_t end) {
  std::uint64_t keep_from = 0;
  {
    const std::scoped_lock lock{mutex_};
    while (!ends_.empty() && ends_.front().second <= end) {
      keep_from = ends_.front().first + 1;
      ends_.pop_front();
    }
  }
  if (keep_from != 0) log_->truncate_before(keep_from);
}

}  // namespace tidemill::detail
