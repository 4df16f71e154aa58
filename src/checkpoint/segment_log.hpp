// An append-only log of records in numbered files of fixed size: what the plan log, the commit log and the log of a receiver
// have in common. scan_log() reads and verifies, and changes nothing; SegmentLog writes.
//
//   L1  A segment has its whole size, all of it zeros but the header, and is durable under its name, before it is used.
//   L2  Before anything is written to segment n, segment n + 1 is there, so that a missing last segment is noticed.
//   L3  The first frame of a segment says which bytes it continues (segment and offset) and repeats their checksum. So what
//       stands behind those bytes, left by a write that failed, is not part of the log, nor is a segment that is skipped.
//   L4  Bytes are written once. What a process finds as the last segment, it replaces by a copy of the part that is good.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/format.hpp"
#include "tidemill/core/function_ref.hpp"

namespace tidemill::detail {

/// Where a log is, and how its files are made.
struct LogPlace {
  Fs* fs = nullptr;
  std::string directory;
  std::string prefix;  // of file names: "plan"
  FileKind kind = FileKind::plan_log;
  CheckpointId id{};
  std::uint64_t segment_bytes = 0;
  CheckpointChecks checks;
  /// Segments are made of zeros that were written, not of room. Then the file system has nothing to note down when a record is
  /// synchronised, and does not wait for what other files have to note down.
  bool filled = false;

  [[nodiscard]] std::string path(std::uint64_t segment) const;
  /// The numbers of the segments that are there, ascending.
  [[nodiscard]] std::vector<std::uint64_t> segments() const;
};

/// "plan-0000000001.log" and back.
[[nodiscard]] std::string numbered_name(std::string_view prefix, std::uint64_t number, std::string_view suffix);
[[nodiscard]] std::optional<std::uint64_t> number_of(std::string_view name, std::string_view prefix,
                                                     std::string_view suffix);

/// Errors: ConfigError naming the option and its value, unless segments can have that size.
void check_segment_bytes(std::string_view option, std::uint64_t bytes);

/// A place between two records.
struct LogPosition {
  std::uint64_t segment = 0;  // 0: before the first
  std::uint64_t offset = 0;
  std::uint32_t chain = 0;
  friend bool operator==(const LogPosition&, const LogPosition&) = default;
};

/// The part of a log behind a position in it.
[[nodiscard]] std::vector<Extent> extents_behind(const std::vector<Extent>& extents, const LogPosition& from);

/// What becomes of a record at the end of a log that is damaged, and not as a crash would damage it.
enum class DamagedEnd { refuse, cut };

struct LogScan {
  std::vector<Extent> extents;  // in order; the last one ends at `end`
  LogPosition end;              // behind the last whole record
  std::uint64_t first_file = 0;
  std::uint64_t last_file = 0;
  std::vector<std::uint64_t> leftovers;  // behind the last segment of the log and not unused, descending
  std::vector<std::string> warnings;
  bool end_was_cut = false;  // damage that no crash explains
  bool found_landmark = false;
};

struct ScanOptions {
  std::uint64_t base = 1;  // the first segment that is needed
  DamagedEnd damaged_end = DamagedEnd::refuse;
  /// Damage before the last segment is not an error: the log goes on in the next segment, and `on_gap` is called.
  bool allow_gaps = false;
  /// A place behind a frame, to be looked for.
  LogPosition landmark;
};

/// Verifies the log. `visit` gets all frames but those at the beginning of segments, also of a record that turns out to have
/// no end; `on_gap` is called where frames are missing.
/// Errors:  StateError "checkpoint_damaged", "newer_format".
LogScan scan_log(const LogPlace& place, const ScanOptions& options,
                 FunctionRef<void(std::uint64_t segment, const Frame&)> visit, FunctionRef<void()> on_gap);

struct LogRecord {
  FrameType type = FrameType::plan;
  std::int64_t stamp = 0;
  std::vector<std::string_view> parts;  // joined they are the record
};

/// The end of a log where records are added.
/// Errors:  FsError; what was written since the last sync is then not in the log, and goes into a new segment when it is
///          written again.
/// Threads: start(), set_preamble(), write(), sync() and append() by one at a time, the others by any, for which the log ends
///          where it was durable last.
class SegmentLog {
 public:
  /// Makes the first segments of a new log. What a process left that was interrupted while it did so is replaced.
  static void create(const LogPlace& place);

  /// Continues what was found. Writes nothing before start().
  SegmentLog(LogPlace place, LogScan found);

  /// Replaces what is left over behind the log, and its last segment by a copy (L4).
  void start();

  /// In every segment from now on this record stands before all that begin there.
  void set_preamble(FrameType type, std::int64_t stamp, std::string bytes);

  /// Writes the records, so that they survive the process. `at`, if it is given, gets the position behind each of them.
  void write(std::span<const LogRecord> records, std::vector<LogPosition>* at = nullptr);
  /// Makes durable what was written.
  void sync();
  /// Both: a write and an fdatasync, unless a new segment is begun.
  void append(std::span<const LogRecord> records, std::vector<LogPosition>* at = nullptr) {
    write(records, at);
    sync();
  }

  /// Whether the current segment is half full and the one after the next is not there yet; makes it.
  [[nodiscard]] bool wants_segment() const noexcept;
  void make_ready();

  /// Removes the segments before this one, as far as they are not needed for the log to go on.
  void remove_before(std::uint64_t segment);

  [[nodiscard]] LogPosition position() const;
  /// The log from `from` to its end.
  [[nodiscard]] std::vector<Extent> extents_from(const LogPosition& from) const;
  [[nodiscard]] std::vector<Extent> extents() const;
  [[nodiscard]] std::uint64_t disk_bytes() const;

 private:
  // What was written since the last sync: the end of the log once it is durable.
  struct Ahead {
    LogPosition position;
    std::vector<Extent> extents;  // the first one is the last of extents_ if there is any
  };

  void give_up() noexcept;
  void make_room(FsFile& file, std::uint64_t from, std::uint64_t size) const;
  void make_segment(std::uint64_t number);
  void ensure_file(std::uint64_t number);

  const LogPlace place_;
  const std::vector<std::uint64_t> leftovers_;

  // Of write() and sync().
  std::unique_ptr<FsFile> file_;  // null: the next record begins a new segment
  std::uint64_t capacity_ = 0;    // of file_
  std::uint64_t used_ = 0;        // the last segment that something may have been written to
  std::optional<Ahead> ahead_;    // absent: all is durable
  std::string buffer_;
  std::optional<LogRecord> preamble_;
  std::string preamble_bytes_;
  bool preamble_due_ = false;  // the current segment does not have it yet

  std::mutex files_;                       // held while segments are made
  std::atomic<std::uint64_t> first_file_;  // the segments that are there
  std::atomic<std::uint64_t> last_file_;

  mutable std::mutex mutex_;  // guards what follows
  LogPosition position_;
  std::vector<Extent> extents_;
};

}  // namespace tidemill::detail
