// The one seam through which every durable byte goes: files, directories, locks and what the file system says of itself.
// The real one makes system calls; testing/sim_fs.hpp has one in memory that loses, tears and refuses as told.
//
// How a file becomes durable is the same everywhere: write, sync(), rename to the final name, sync_directory(). A file of
// which a write or a sync has failed is never trusted and never tried again, because a system that failed to write pages
// back may forget that it did: the caller writes a new file. The real files hold to that: after a failure every further
// call on the same FsFile fails too.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tidemill/core/config.hpp"
#include "tidemill/core/error.hpp"

namespace tidemill {

/// What the file system refused. `code()` is "disk_full", "permission_denied", "not_found", "exists", "too_many_files" or
/// "io"; context().op is the path.
class TIDEMILL_API FsError : public WorldError {
 public:
  /// `action` as in "cannot <action> <path>: …".
  FsError(std::string_view action, const std::string& path, int error_number);
  ~FsError() override;
  [[nodiscard]] int error_number() const noexcept { return error_number_; }  ///< errno
  [[nodiscard]] const std::string& path() const noexcept { return context().op; }
  /// what() without the place at its end: for an error that is made of this one.
  [[nodiscard]] std::string sentence() const { return std::string{what(), sentence_size_}; }

 private:
  FsError(const std::string& path, int error_number, const std::string& sentence);
  int error_number_;
  std::size_t sentence_size_;
};

/// A file open for writing.
/// Errors:  FsError; afterwards the file is lost (see above), and what is in it is unknown.
/// Threads: one at a time.
class TIDEMILL_API FsFile {
 public:
  virtual ~FsFile();  ///< closes, without making anything durable

  /// Writes all the bytes at `offset`; the file grows if it must, and a gap reads as zeros.
  virtual void write_at(std::uint64_t offset, std::span<const std::byte> bytes) = 0;
  /// Writes all the bytes at the end.
  virtual void append(std::span<const std::byte> bytes) = 0;
  /// Makes the file `size` bytes long at least, and takes the room on the disk; what is new reads as zeros.
  virtual void allocate(std::uint64_t size) = 0;
  virtual void truncate(std::uint64_t size) = 0;
  /// Makes the bytes durable, and the size if it has changed (fdatasync).
  virtual void sync_data() = 0;
  /// Makes bytes and attributes durable (fsync). That the file is found by its name takes sync_directory().
  virtual void sync() = 0;
};

/// What can be said of a file without reading it.
struct FsStatus {
  enum class Type : std::uint8_t { file, directory, other };
  Type type = Type::file;
  std::uint64_t size = 0;                ///< in bytes
  std::chrono::nanoseconds modified{0};  ///< when its bytes were last changed, since the epoch
  /// Which file it is, whatever its name: no two that are there at a time have the same pair.
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  friend bool operator==(const FsStatus&, const FsStatus&) = default;
};

/// A file open for reading.
/// Errors:  FsError.
/// Threads: any number at once.
class TIDEMILL_API FsReader {
 public:
  virtual ~FsReader();

  [[nodiscard]] virtual FsStatus status() const = 0;
  [[nodiscard]] std::uint64_t size() const { return status().size; }
  /// Fills `to` from `offset` on; fewer bytes only where the file ends. Returns how many.
  [[nodiscard]] virtual std::size_t read_at(std::uint64_t offset, std::span<std::byte> to) const = 0;
};

/// Holds a lock until it is destroyed, or the process is gone.
class TIDEMILL_API FsLock {
 public:
  virtual ~FsLock();
};

/// What a file system is, as far as it matters for durability.
struct FsKind {
  std::string name;  ///< "ext4", "nfs", …; "0x…" when it is not known
  /// Locks and syncs mean what they should: not for those of the network and of user space.
  bool safe = true;
};

/// The operations. Paths are the system's; entries of a directory are found by names.
/// Errors:  FsError.
/// Threads: any number at once.
class TIDEMILL_API Fs {
 public:
  virtual ~Fs();

  /// The file system of this process.
  [[nodiscard]] static std::shared_ptr<Fs> real();

  /// A new, empty file. Errors: "exists" when there is something of that name.
  [[nodiscard]] virtual std::unique_ptr<FsFile> create(const std::string& path) = 0;
  /// A file that is there, to be written.
  [[nodiscard]] virtual std::unique_ptr<FsFile> open(const std::string& path) = 0;
  /// Never waits for the other end of a pipe.
  [[nodiscard]] virtual std::unique_ptr<FsReader> read(const std::string& path) = 0;

  /// Gives a file or a directory another name in the same directory or another. A file, or an empty directory, that had that
  /// name is gone. Atomic.
  virtual void rename(const std::string& from, const std::string& to) = 0;
  /// Gives two files or directories the names of each other. Atomic. Returns false where the file system cannot do that.
  [[nodiscard]] virtual bool exchange(const std::string& one, const std::string& other) = 0;
  /// Gives a file a second name. Errors: "exists" when there is something of that name.
  virtual void link(const std::string& from, const std::string& to) = 0;
  /// Removes the name of a file. Returns false when there is none.
  virtual bool remove(const std::string& path) = 0;
  /// Makes a directory; its parent is there. Returns false when it was there already.
  virtual bool make_directory(const std::string& path) = 0;
  /// Removes an empty directory. Returns false when there is none.
  virtual bool remove_directory(const std::string& path) = 0;
  /// Makes durable what was created, renamed, linked and removed in the directory.
  virtual void sync_directory(const std::string& path) = 0;

  [[nodiscard]] virtual bool exists(const std::string& path) = 0;
  /// Whether a directory has that name; a link to one is none.
  [[nodiscard]] virtual bool is_directory(const std::string& path) = 0;
  /// Nothing when there is no file of that name, or a link to none; of a link it is what the link points to.
  [[nodiscard]] virtual std::optional<FsStatus> status(const std::string& path) = 0;
  /// The names in a directory, in ascending order, without "." and "..".
  [[nodiscard]] virtual std::vector<std::string> list(const std::string& path) = 0;

  /// Takes the lock of a file, which is created if need be, and writes `holder` into it. Null when somebody holds it, in this
  /// process or another; the file then says who. Does not wait.
  [[nodiscard]] virtual std::unique_ptr<FsLock> lock(const std::string& path, std::string_view holder) = 0;

  /// Takes the lock of a directory, which goes with it when it is renamed. Null when somebody holds it, or nothing, or something
  /// else, has that name when the lock is there. Does not wait. Errors: FsError too where directories have no locks.
  [[nodiscard]] virtual std::unique_ptr<FsLock> lock_directory(const std::string& path) = 0;

  /// Whether somebody holds the lock of a file now. Changes nothing, but who asks at the same instant may find it held by this.
  [[nodiscard]] virtual bool is_locked(const std::string& path) = 0;

  /// The path from the root, whatever directory the process works in later; what a link of that name points to.
  [[nodiscard]] virtual std::string resolve(const std::string& path) = 0;

  [[nodiscard]] virtual FsKind kind(const std::string& path) = 0;
  /// Bytes that this user may still write there.
  [[nodiscard]] virtual std::uint64_t free_space(const std::string& path) = 0;

  /// Sixteen bytes that nobody else has: chance comes from outside like everything else.
  [[nodiscard]] virtual std::array<std::byte, 16> random_id() = 0;

  // --- Made from the above ---

  /// The whole file, if it has no more than `limit` bytes.
  [[nodiscard]] std::string read_all(const std::string& path, std::uint64_t limit = 64 * 1024 * 1024);
};

namespace detail {

/// "/a/b" and "c" make "/a/b/c".
[[nodiscard]] TIDEMILL_API std::string join_path(std::string_view directory, std::string_view name);
/// The directory in which the last name of `path` stands: "." when there is none.
[[nodiscard]] TIDEMILL_API std::string parent_path(std::string_view path);

}  // namespace detail
}  // namespace tidemill
