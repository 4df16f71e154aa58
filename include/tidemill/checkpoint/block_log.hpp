// What a receiver stored, on disk until the batches that read it are committed: a log of blocks of bytes, numbered without
// gaps. Part of a checkpoint (checkpoint_store.hpp), which opens it.
//
//     auto log = store.open_block_log("orders");
//     const std::uint64_t id = log->append(bytes);       // from any thread
//     log->sync(id);                                     // durable; threads that sync at once share one fdatasync
//     log->read(first, end, [](std::uint64_t id, std::string_view bytes) { ... });
//     log->truncate_before(first_needed);
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "tidemill/core/config.hpp"
#include "tidemill/core/fs.hpp"
#include "tidemill/core/function_ref.hpp"

namespace tidemill {

struct BlockLogOptions {
  std::uint64_t segment_bytes = 16 * 1024 * 1024;
  /// append() first makes durable what is not when it would be more than this together with the new block.
  std::size_t max_unsynced_bytes = 16 * 1024 * 1024;
  /// A block that is damaged in the middle is left out and counted, instead of an error.
  bool skip_corrupt_blocks = false;
};

/// Errors:  StateError: "checkpoint_damaged" naming file and offset when a block that was durable is not what it was (what was
///          never acknowledged is cut off silently); those of FsError otherwise, after which the same call may be tried again:
///          what is not durable is kept in memory and goes into a new file.
/// Threads: any number at once.
class TIDEMILL_API BlockLog {
 public:
  ~BlockLog();
  BlockLog(const BlockLog&) = delete;
  BlockLog& operator=(const BlockLog&) = delete;

  /// Adds a block and returns its number. Durable only after sync(). A block that it throws for is not in the log.
  std::uint64_t append(std::string_view bytes);
  /// Hands all blocks up to `id` to the operating system: they survive the process, but not a loss of power.
  void write(std::uint64_t id);
  /// Makes durable all blocks up to `id`.
  void sync(std::uint64_t id);
  /// Makes all blocks durable.
  void sync();

  /// The numbers of the blocks that are there: [first_id, end_id).
  [[nodiscard]] std::uint64_t first_id() const;
  [[nodiscard]] std::uint64_t end_id() const;
  /// Blocks below this number are durable.
  [[nodiscard]] std::uint64_t durable_end() const;

  /// Calls `visit(id, bytes)` for the blocks in [first, end), in order; the view lasts as long as the call. Syncs first when
  /// some of them are not durable. Errors: StateError "not_found" when a block of the range is not there.
  void read(std::uint64_t first, std::uint64_t end, FunctionRef<void(std::uint64_t, std::string_view)> visit);

  /// Blocks below `id` are no longer needed. Whole files are removed, so that some of them may stay for a while.
  void truncate_before(std::uint64_t id);

  /// BlockLogOptions::skip_corrupt_blocks.
  [[nodiscard]] bool skips_corrupt_blocks() const noexcept;
  /// Blocks that were left out because they were damaged (skip_corrupt_blocks).
  [[nodiscard]] std::uint64_t skipped() const;
  /// Bytes on disk.
  [[nodiscard]] std::uint64_t disk_bytes() const;

 private:
  friend class CheckpointStore;
  struct Impl;
  explicit BlockLog(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidemill
