// The output of one batch as a directory of files that appears whole or not at all, and may be written again: what
// save_as_text_files and save_as_object_files stand on. Object files are also read back here. What a record looks like
// is decided elsewhere (core/text_form.hpp, core/codec.hpp), and which path belongs to which batch is the caller's.
//
//     tidemill::OutputDirectory output{"counts-1700000000000"};
//     auto part = output.open_part(0);                     // one for each partition, from any thread
//     part.write("tide\t3\n");
//     part.close();
//     output.commit();                                     // now, and not before, the directory exists
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tidemill/core/codec.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/core/fs.hpp"

namespace tidemill {

namespace detail {

class PartFile;

/// How a directory that is there already is replaced. `exchange` is atomic; where the file system cannot do it,
/// `two_renames` is used, which leaves a moment without a directory of that name.
enum class ReplaceBy { exchange, two_renames };

}  // namespace detail

/// One file `part-NNNNN` of an OutputDirectory, written from front to end through a buffer.
/// Errors:  SinkError naming the path, what the system said and the way out. The part is then lost, and commit() of the
///          directory refuses: a file that failed once is never trusted; write the batch again into a new OutputDirectory.
/// Threads: one at a time; different parts at once.
/// Lifetime: may outlive the directory, but can no longer be written once that is committed or gone.
class TIDEMILL_API PartWriter {
 public:
  PartWriter(PartWriter&&) noexcept;
  PartWriter& operator=(PartWriter&&) noexcept;
  /// A part that was neither closed nor committed is given up, as it happens when an exception passes.
  ~PartWriter();

  /// Appends the bytes as they are.
  void write(std::string_view bytes);

  /// Writes out what is buffered and makes the file durable. Nothing can be written afterwards. A second call does nothing.
  void close();

  /// The bytes written so far.
  [[nodiscard]] std::uint64_t size() const noexcept;

 private:
  friend class OutputDirectory;
  friend class ObjectFileWriter;
  explicit PartWriter(std::shared_ptr<detail::PartFile> file) noexcept;

  std::shared_ptr<detail::PartFile>
      file_;  // shared with the directory, which closes it or gives it up; null when moved from
};

/// Writes a directory beside its final place, then puts it there in one step.
///
/// Until commit() everything is in a hidden sibling, `.<name>.tmp-<n>`. commit() makes the files durable, adds `_SUCCESS`
/// and renames. A directory that an earlier run of the batch left at `path` is replaced, and whoever looks sees the old
/// one or the new one; only what this class wrote is replaced (names `part-*` and `_SUCCESS`), so a wrong path costs no
/// data. Without commit() the destructor removes what was written. What a killed process leaves behind is removed when
/// the batch is run again.
///
/// Errors:  SinkError, naming the path, what the system said and the way out; code() is "disk_full", "permission_denied",
///          "not_found", "too_many_files", "not_an_output" (something else is at `path`), "incomplete" (a part was given
///          up) or "io".
/// Threads: open_part() from any number at once; commit() and the destructor while no part is being written.
class TIDEMILL_API OutputDirectory {
 public:
  /// Creates the staging directory, and the parents of `path` where they are missing. A null `fs` is Fs::real().
  explicit OutputDirectory(std::string path, std::shared_ptr<Fs> fs = nullptr,
                           detail::ReplaceBy replace_by = detail::ReplaceBy::exchange);
  OutputDirectory(OutputDirectory&&) noexcept;
  OutputDirectory& operator=(OutputDirectory&&) noexcept;
  ~OutputDirectory();

  /// The writer of `part-<partition>`. Each partition is opened once.
  [[nodiscard]] PartWriter open_part(std::size_t partition);

  /// Closes the parts that are still open and publishes. If it throws, nothing was published, unless the message says so;
  /// it cannot be called again.
  void commit();

  /// The path as it was given.
  [[nodiscard]] const std::string& path() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The parts of a directory that OutputDirectory wrote, in the order of their partitions; of a plain file, the file.
/// Hidden files and those that begin with `_` are left out. A null `fs` is Fs::real(). Errors: SourceError.
[[nodiscard]] TIDEMILL_API std::vector<std::string> part_files(const std::string& path,
                                                               const std::shared_ptr<Fs>& fs = nullptr);

// --- Object files ---
//
// The layout, version 1; numbers are little-endian.
//
//     header   8 bytes "TMOBJ1\n\0"   u16 object_file_version   u16 codec_format_version   u32 CRC-32C of the 12 bytes before
//     chunk    u32 length   u32 records > 0   u32 CRC-32C of (length, records, bytes)   `length` bytes: values, see codec.hpp
//     ...
//     end      a chunk of 0 records, whose 8 bytes are the u64 number of records in the file; nothing follows it
//
// The end tells a whole file from one that was cut between two chunks.

inline constexpr std::uint16_t object_file_version = 1;

/// Writes records in their serialised form into a part.
/// Errors:  those of PartWriter; SinkError "record_too_large" for a record of 4 GiB or more; what the codec throws, and
///          then the record is not in the file and the next one may be written.
/// Threads: one at a time.
class TIDEMILL_API ObjectFileWriter {
 public:
  explicit ObjectFileWriter(PartWriter part);
  ObjectFileWriter(ObjectFileWriter&&) noexcept = default;
  ObjectFileWriter& operator=(ObjectFileWriter&&) noexcept = default;

  /// Appends a record.
  template <class T>
  void write(const T& record) {
    encode_to(chunk_, record);
    ++chunk_records_;
    if (chunk_.size() >= chunk_bytes) end_chunk();
  }

  /// Writes the end and closes the part. A file without it is incomplete, so commit() refuses one that was not closed.
  void close();

 private:
  static constexpr std::size_t chunk_bytes = 64 * 1024;  // a damaged byte is found before more than this is decoded
  void end_chunk();
  void put_chunk(std::string_view bytes, std::uint32_t records);

  PartWriter part_;
  std::string chunk_;                // the records since the last chunk
  std::uint32_t chunk_records_ = 0;  // how many they are; at most one a byte
  std::uint64_t records_ = 0;        // in the chunks before
  bool closed_ = false;
};

/// Reads the records of an object file, from first to last.
/// Errors:  SourceError "malformed_file" naming the file, the byte offset, what was expected there and what was found: for
///          another kind of file, another version, one that was cut or extended, and one with any byte changed. A record
///          is given out only after the checksum of its chunk. That a T was written is not recorded; another type is
///          found out when its bytes do not fit.
/// Threads: one at a time.
class TIDEMILL_API ObjectFileReader {
 public:
  /// A null `fs` is Fs::real().
  explicit ObjectFileReader(std::string path, std::shared_ptr<Fs> fs = nullptr);
  ObjectFileReader(ObjectFileReader&&) noexcept;
  ObjectFileReader& operator=(ObjectFileReader&&) noexcept;
  ~ObjectFileReader();

  /// The next record, or nothing after the last. Views in it last until the next call.
  template <class T>
  [[nodiscard]] std::optional<T> next() {
    if (!has_record()) return std::nullopt;
    Decoder from{rest_of_chunk()};
    std::optional<T> record;
    try {
      record.emplace(from.value<T>());
    } catch (const StateError& error) {
      fail_record(error);
    }
    took_record(from.offset());
    return record;
  }

  [[nodiscard]] const std::string& path() const noexcept;

 private:
  [[nodiscard]] bool has_record();  // reads the next chunk when this one is used up
  [[nodiscard]] std::span<const std::byte> rest_of_chunk() const noexcept;
  void took_record(std::size_t bytes);
  [[noreturn]] void fail_record(const StateError& error) const;

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidemill
