// The write-ahead log of one input: what is received is written down before a batch can take it, so that a program that is killed
// receives it, so to say, a second time. Records are numbered from the first one ever; a batch takes a range of numbers.
// Source: Spark `spark.streaming.receiver.writeAheadLog.enable`. [R9, R10]
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tidemill/checkpoint/block_log.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/state/durable_state.hpp"

namespace tidemill::detail {

/// Records [first, end) of an input, as batches take them and plans name them.
struct ReceivedRange {
  std::uint64_t first = 0;
  std::uint64_t end = 0;
  bool logged = false;  ///< whether a log has them
};

/// Up to which record batches have taken. A checkpoint keeps it as its only entry. `records` is the layout of what the log holds:
/// records of another type would be read wrongly, or not at all.
class TIDEMILL_API ReceivedPosition final : public DurableState {
 public:
  explicit ReceivedPosition(std::string records) : records_{std::move(records)} {}

  std::uint64_t taken = 0;

  [[nodiscard]] StateSchema schema() const override;
  void track_changes() override {}
  void restore(KeyGroup group, std::string_view key, std::string_view value) override;
  void restored(Time) override {}
  void take_changes(StateChanges& to) override;

 private:
  const std::string records_;
};

/// A block in a log: a stretch of records.
struct LoggedBlock {
  std::uint64_t first = 0;  ///< the number of its first record
  std::uint64_t records = 0;
  std::string bytes;
  [[nodiscard]] std::uint64_t end() const noexcept { return first + records; }
};

/// A BlockLog whose blocks say which records they hold.
/// Errors:  those of BlockLog.
/// Threads: `append` one at a time (the inbox calls it under its mutex); the rest any.
class TIDEMILL_API ReceivedLog {
 public:
  explicit ReceivedLog(std::unique_ptr<BlockLog> log);
  ~ReceivedLog();

  /// What the log holds from record `first` on, oldest first. To be called once, before anything is appended.
  [[nodiscard]] std::vector<LoggedBlock> read_from(std::uint64_t first);
  /// The next record has at least this number. Batches may have been planned with records that the log does not have: there
  /// was none yet, or its end was damaged. Before anything is appended.
  void continue_at(std::uint64_t next) noexcept { next_ = std::max(next_, next); }

  /// Records [first, end), which no plan names, are not in the log. Errors: StateError "checkpoint_damaged", unless the log
  /// leaves out what is damaged.
  void is_missing(const std::string& input, std::uint64_t first, std::uint64_t end) const;

  /// Adds a block of so many records; durable after `sync` of what it returns.
  std::uint64_t append(std::uint64_t records, std::string_view bytes);
  void sync(std::uint64_t id) { log_->sync(id); }
  /// Has it survive the process, without waiting for the disk. What goes wrong is told by the next `sync`.
  void write(std::uint64_t id);
  void sync() { log_->sync(); }

  /// Records below `end` will not be asked for again.
  void forget_before(std::uint64_t end);

 private:
  std::unique_ptr<BlockLog> log_;
  std::uint64_t next_ = 0;                                    // the number of the next record
  std::mutex mutex_;                                          // guards ends_
  std::deque<std::pair<std::uint64_t, std::uint64_t>> ends_;  // block, and the record after its last one
};

}  // namespace tidemill::detail
