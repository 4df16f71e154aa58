// The inside of BlockLog, for the store that opens it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/segment_log.hpp"
#include "tidemill/checkpoint/block_log.hpp"

namespace tidemill {

namespace detail {

/// The directory of a receiver, made if need be. Characters that have a meaning in paths are replaced by their numbers.
[[nodiscard]] std::string block_log_directory(Fs& fs, const std::string& checkpoint, std::string_view name);

[[nodiscard]] LogPlace block_log_place(Fs& fs, const std::string& directory, const CheckpointId& id,
                                       const CheckpointChecks& checks);

/// What is in the log of a receiver.
struct BlockScan {
  LogScan log;
  // The first block that begins in a segment, by segment.
  struct Place {
    std::uint64_t segment = 0;
    std::uint64_t first = 0;
  };
  std::deque<Place> places;
  std::uint64_t first = 0;  // blocks [first, end) are there
  std::uint64_t end = 0;
  std::uint64_t skipped = 0;
};
/// Verifies it. Pre: there are segments. Errors: those of scan_log.
[[nodiscard]] BlockScan scan_blocks(const LogPlace& place, bool skip_corrupt_blocks);

}  // namespace detail

struct BlockLog::Impl {
  Impl(std::shared_ptr<Fs> fs, const std::string& directory, const detail::CheckpointId& id, BlockLogOptions options,
       const detail::CheckpointChecks& checks);

  std::uint64_t append(std::string_view bytes);
  enum class Reach { written, durable };
  void bring(std::uint64_t to, Reach how);  // the blocks below `to`
  void synced();
  void make_ready();
  void read(std::uint64_t first, std::uint64_t end, FunctionRef<void(std::uint64_t, std::string_view)> visit);
  void truncate_before(std::uint64_t id);

  const std::shared_ptr<Fs> fs;  // shared with the store, of which it outlives nothing else
  const BlockLogOptions options;
  const detail::CheckpointChecks checks;
  std::optional<detail::SegmentLog> log;

  struct Block {
    std::string bytes;
    std::uint64_t segment = 0;  // in which it ends, once it is written
  };

  mutable std::mutex mutex;  // guards what follows
  std::condition_variable done;
  bool writing = false;        // one thread writes for all that wait
  std::deque<Block> unsynced;  // [durable_end, end)
  std::size_t unsynced_bytes = 0;
  std::uint64_t first = 0;
  std::uint64_t durable_end = 0;
  std::uint64_t written_end = 0;  // durable_end <= written_end <= end
  std::uint64_t end = 0;
  std::uint64_t skipped = 0;
  std::deque<detail::BlockScan::Place> places;
};

}  // namespace tidemill
