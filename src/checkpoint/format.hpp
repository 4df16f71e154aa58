// The bytes of checkpoint files: headers, frames, and records made of frames. docs/checkpoint-format.md is the description;
// this is all that knows it, apart from what is inside the records (records.hpp).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tidemill/checkpoint/checkpoint_store.hpp"
#include "tidemill/core/fs.hpp"

namespace tidemill::detail {

inline constexpr std::uint16_t checkpoint_format_version = 1;

using CheckpointId = std::array<std::byte, 16>;

[[nodiscard]] inline std::span<const std::byte> bytes_of(std::string_view text) noexcept {
  return std::as_bytes(std::span{text});
}

/// What the file system refuses leaves the module as StateError, whichever file it was.
template <class Function>
auto with_state_errors(Function function) {
  try {
    return function();
  } catch (const FsError& error) {
    throw StateError(error.code(), error.what(), error.retry(), error.context());
  }
}

[[nodiscard]] std::string to_hex(std::span<const std::byte> bytes);

/// "checkpoint_damaged", of which no repetition helps.
[[noreturn]] void fail_damaged(const std::string& path, std::uint64_t offset, std::string_view what);

// --- The header of every file ---

enum class FileKind : std::uint16_t { meta = 1, plan_log = 2, commit_log = 3, snapshot = 4, block_log = 5 };

struct FileHeader {
  FileKind kind = FileKind::meta;
  CheckpointId id{};
  std::uint64_t number = 0;    // as in the file's name
  std::uint64_t capacity = 0;  // the size of the file, for those that have it from the beginning; else 0
};

inline constexpr std::size_t file_header_bytes = 64;

[[nodiscard]] std::string encode_header(const FileHeader& header);
/// Errors: StateError "newer_format"; "checkpoint_damaged" when these are not the bytes of a header.
[[nodiscard]] FileHeader decode_header(std::string_view bytes, const std::string& path, const CheckpointChecks& checks);
/// Reads and compares with what the file must be. Errors: as above, and when it is another file's.
void check_header(const FsReader& file, const std::string& path, const FileHeader& expected,
                  const CheckpointChecks& checks);

// --- Frames ---

// Of each value more than one bit is set, so that no flipped bit makes it the 0 of bytes that were never written.
enum class FrameType : std::uint8_t {
  begin = 0x11,     // of a segment: which bytes it continues
  run = 0x12,       // a start of the program
  plan = 0x14,      // of a batch
  drop = 0x18,      // a plan that will not be run
  commit = 0x21,    // of a batch
  snapshot = 0x22,  // head of a snapshot: which log it continues
  state = 0x24,     // all entries of a state
  end = 0x28,       // of a snapshot
  block = 0x41,     // of a receiver
};

inline constexpr std::size_t frame_header_bytes = 24;
inline constexpr std::size_t max_frame_payload = 256 * 1024;
inline constexpr std::size_t sector_bytes = 512;  // what a disk writes whole or not at all

/// Header, payload, padding and the last byte.
[[nodiscard]] constexpr std::uint64_t frame_bytes(std::uint64_t payload) noexcept {
  return (frame_header_bytes + payload + 1 + 7) / 8 * 8;
}

struct Frame {
  FrameType type = FrameType::begin;
  bool first = false;  // of its record
  bool last = false;
  std::int64_t stamp = 0;   // batch time in microseconds, or the number of a block
  std::uint32_t chain = 0;  // checksum of this frame, which the next one repeats
  std::uint32_t previous = 0;
  std::uint64_t offset = 0;  // where it begins
  std::string_view payload;
};

/// Appends a frame and returns its checksum.
std::uint32_t append_frame(std::string& out, FrameType type, bool first, bool last, std::int64_t stamp,
                           std::uint32_t previous, std::string_view payload);

struct FrameHead;

/// Takes frames from a file, one after the other.
class FrameReader {
 public:
  enum class Outcome {
    frame,
    end,  // nothing was written here
    bad,  // something was
  };

  /// From `offset` to `end`; the first frame is to continue `chain`.
  FrameReader(const FsReader& file, std::uint64_t offset, std::uint64_t end, std::uint32_t chain,
              const CheckpointChecks& checks);

  /// The payload lasts until the next call.
  Outcome next(Frame& frame);
  /// The same, looking at the header alone, which has a checksum of its own: the frame has no payload then.
  Outcome skip(Frame& frame);
  /// The first frame of a segment may continue anything that is not there any more.
  void accept_any_chain() noexcept { any_chain_ = true; }

  [[nodiscard]] std::uint64_t offset() const noexcept { return offset_; }
  [[nodiscard]] std::uint32_t chain() const noexcept { return chain_; }

 private:
  std::string_view look(std::size_t bytes);          // at offset_; fewer at the end
  bool accept(const FrameHead& head, Frame& frame);  // whether it continues what was read

  const FsReader& file_;
  const CheckpointChecks checks_;
  std::uint64_t offset_;
  const std::uint64_t end_;
  std::uint32_t chain_;
  bool any_chain_ = false;
  std::unique_ptr<char[]> buffer_;  // bytes of the file from buffer_offset_ on
  std::size_t room_ = 0;            // in the buffer
  std::size_t filled_ = 0;
  std::uint64_t buffer_offset_ = 0;
};

/// Reads, and once more if that fails. Returns how many bytes.
std::size_t read_twice(const FsReader& file, std::uint64_t offset, std::span<std::byte> to);

/// Whether a crash explains what stands at `offset`: a sector of the frame, or its end, was never written.
[[nodiscard]] bool is_torn(const FsReader& file, std::uint64_t offset, std::uint64_t end);
/// Whether the first frame of a record stands anywhere in (offset, end).
[[nodiscard]] bool has_record_after(const FsReader& file, std::uint64_t offset, std::uint64_t end);

// --- Records ---

/// A part of a log in one file: frames from `from`, of which the first continues `chain`, to `to`.
struct Extent {
  std::string path;
  std::uint64_t segment = 0;
  std::uint64_t from = 0;
  std::uint64_t to = 0;
  std::uint32_t chain = 0;
};

/// Takes records from a log or a snapshot that was found good. What is found otherwise now is "checkpoint_damaged".
class RecordReader {
 public:
  RecordReader(Fs& fs, std::vector<Extent> extents, const CheckpointChecks& checks);
  RecordReader(RecordReader&&) = default;
  ~RecordReader();

  /// Goes to the next record, wherever the current one was left. False at the end. A log whose beginning was removed may begin
  /// within a record, which is passed over.
  bool next();
  /// Instead of the first next(): the first frame is one of a record of this type, of which so many bytes are passed over.
  void enter(FrameType type, std::size_t bytes);
  [[nodiscard]] FrameType type() const noexcept { return head_.type; }
  [[nodiscard]] std::int64_t stamp() const noexcept { return head_.stamp; }
  /// Where the record begins.
  [[nodiscard]] std::uint64_t segment() const noexcept { return segment_; }
  [[nodiscard]] std::uint64_t offset() const noexcept { return head_.offset; }

  /// Takes bytes of the record; the view lasts until the next call. Errors: fewer are left.
  std::string_view take(std::size_t bytes) {
    if (bytes <= rest_.size()) [[likely]] {
      const std::string_view taken = rest_.substr(0, bytes);
      rest_.remove_prefix(bytes);
      return taken;
    }
    return take_across(bytes);
  }
  template <class T>
  T take_number() {
    T value{};
    const std::string_view bytes = take(sizeof(T));
    for (std::size_t i = sizeof(T); i > 0; --i)
      value = static_cast<T>(static_cast<std::uint64_t>(value) << 8 | static_cast<unsigned char>(bytes[i - 1]));
    return value;
  }
  /// Takes a u32 and so many bytes.
  std::string_view take_sized() { return take(take_number<std::uint32_t>()); }
  /// Takes an entry as StateChanges writes it; the views last until the next call.
  struct Entry {
    bool erased = false;
    KeyGroup group = 0;
    std::string_view key;
    std::string_view value;
  };
  void take_entry(Entry& entry);
  /// Takes what is left.
  [[nodiscard]] std::string take_rest();
  /// Takes so many bytes without looking at them.
  void skip(std::uint64_t bytes);
  /// Whether all of the record was taken.
  [[nodiscard]] bool at_end();
  /// Of the current frame: after at_end() that of the record.
  [[nodiscard]] std::uint32_t chain() const noexcept { return frame_.chain; }

  [[noreturn]] void fail(std::string_view what) const;

 private:
  std::string_view take_across(std::size_t bytes);
  bool next_frame();      // of the log; false at its end
  void next_of_record();  // the next frame of this record

  Fs& fs_;
  bool begun_ = false;
  bool passing_over_ = false;  // the rest of a record
  std::vector<Extent> extents_;
  const CheckpointChecks checks_;
  std::size_t extent_ = 0;  // the next one to open
  std::unique_ptr<FsReader> file_;
  std::unique_ptr<FrameReader> frames_;
  Frame head_;   // first frame of the record, its payload no longer valid
  Frame frame_;  // current frame
  std::uint64_t segment_ = 0;
  std::string_view rest_;  // of the payload of the current frame
  std::string stitched_;   // bytes across frames
  std::string key_;        // of an entry across frames
};

}  // namespace tidemill::detail
