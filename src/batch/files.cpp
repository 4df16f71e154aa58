#include "tidemill/batch/files.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <mutex>
#include <optional>
#include <string>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "tidemill/batch/text.hpp"

namespace tidemill {
namespace detail {
namespace {

namespace fs = std::filesystem;

// A file is read in pieces of this size, over as many threads as there are.
constexpr std::size_t piece_bytes = std::size_t{4} << 20;
// A guess, for size hints only.
constexpr std::size_t text_bytes_per_line = 64;

[[noreturn]] void fail(const Scope& scope, const char* op, std::string code, const std::string& message,
                       Retry retry = Retry::may_help, std::optional<std::uint64_t> offset = {}) {
  throw SourceError(std::move(code), message, retry,
                    {.application = scope.runtime->app_name,
                     .op = op,
                     .batch_time = scope.batch_time,
                     .partition = {},
                     .offset = offset});
}

[[noreturn]] void fail_errno(const Scope& scope, const char* op, const fs::path& path, const char* what, int error) {
  const char* code = "io";
  if (error == ENOENT || error == ENOTDIR) code = "not_found";
  if (error == EACCES || error == EPERM) code = "permission_denied";
  fail(scope, op, code, path.string() + ": cannot " + what + ": " + std::generic_category().message(error));
}

class Descriptor {
 public:
  explicit Descriptor(int fd) noexcept : fd_{fd} {}
  Descriptor(Descriptor&& other) noexcept : fd_{std::exchange(other.fd_, -1)} {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const noexcept { return fd_; }

 private:
  int fd_;
};

struct FileContents {
  fs::path path;
  std::shared_ptr<char[]> bytes;  // shared with the blocks of text cut from it
  std::size_t size = 0;

  [[nodiscard]] std::string_view text() const noexcept { return {bytes.get(), size}; }
};

// Reads whole files, all at once. Each piece is opened for itself, so there are never more open files than threads.
class Reader {
 public:
  Reader(const Scope& scope, const char* op) : scope_{scope}, op_{op} {}

  [[nodiscard]] std::vector<FileContents> read(const std::vector<fs::path>& paths) const {
    std::vector<Planned> files;
    for (const fs::path& path : paths) plan(path, files);
    std::vector<Piece> pieces;
    for (Planned& file : files) {
      std::size_t at = 0;
      do {
        pieces.push_back({&file, at, std::min(piece_bytes, file.contents.size - at)});
        at += piece_bytes;
      } while (at < file.contents.size);
    }
    std::size_t bytes = 0;
    for (const Planned& file : files) bytes += file.contents.size;
    for_each_partition(*scope_.runtime->executor, pieces.size(),
                       bytes > piece_bytes / 4 ? Spread::over_workers : Spread::inline_only,
                       [&](std::size_t i) { read_piece(pieces[i]); });
    std::vector<FileContents> contents;
    contents.reserve(files.size());
    for (Planned& file : files) contents.push_back(std::move(file.contents));
    return contents;
  }

  // About how many bytes will be read; what cannot be looked at counts nothing.
  [[nodiscard]] static std::size_t estimate(const std::vector<fs::path>& paths) {
    std::size_t bytes = 0;
    for (const fs::path& path : paths) {
      struct stat status {};
      if (::stat(path.c_str(), &status) != 0) continue;
      // A directory, or a file without a size: may be large.
      bytes += S_ISREG(status.st_mode) && status.st_size > 0 ? static_cast<std::size_t>(status.st_size) : piece_bytes;
    }
    return bytes;
  }

 private:
  struct Planned {
    FileContents contents;
    dev_t device;
    ino_t inode;
  };
  struct Piece {
    Planned* file;
    std::size_t offset;
    std::size_t size;
  };

  void plan(const fs::path& path, std::vector<Planned>& files) const {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) fail_errno(scope_, op_, path, "find the file", errno);
    if (S_ISDIR(status.st_mode)) {
      for (const fs::path& file : files_in(path)) plan_file(file, files);
    } else {
      plan_file(path, files);
    }
  }

  void plan_file(const fs::path& path, std::vector<Planned>& files) const {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) fail_errno(scope_, op_, path, "find the file", errno);
    if (!S_ISREG(status.st_mode))
      fail(scope_, op_, "not_a_file",
           path.string() + ": is neither a regular file nor a directory of such files; name one", Retry::is_useless);
    const auto size = static_cast<std::size_t>(status.st_size);
    files.push_back({{path, size == 0 ? nullptr : std::make_shared_for_overwrite<char[]>(size), size},
                     status.st_dev,
                     status.st_ino});
  }

  [[nodiscard]] std::vector<fs::path> files_in(const fs::path& directory) const {
    std::error_code failure;
    std::vector<fs::path> files;
    for (fs::directory_iterator entry{directory, failure}, end; !failure && entry != end; entry.increment(failure)) {
      const std::string name = entry->path().filename().string();
      std::error_code unknown;
      if (name.front() != '.' && name.front() != '_' && entry->is_regular_file(unknown)) files.push_back(entry->path());
    }
    if (failure) fail_errno(scope_, op_, directory, "list the directory", failure.value());
    std::sort(files.begin(), files.end());
    return files;
  }

  void read_piece(const Piece& piece) const {
    Planned& file = *piece.file;
    // Should the file have become a pipe meanwhile, nobody waits for its other end.
    const Descriptor descriptor{::open(file.contents.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (descriptor.get() < 0) fail_errno(scope_, op_, file.contents.path, "open the file", errno);
    struct stat status {};
    if (::fstat(descriptor.get(), &status) != 0) fail_errno(scope_, op_, file.contents.path, "look at the file", errno);
    if (status.st_dev != file.device || status.st_ino != file.inode) fail_changed(file.contents, "it was replaced");
    if (file.contents.size == 0) return read_to_end(descriptor, file.contents);

    std::size_t done = 0;
    while (done < piece.size) {
      const std::size_t got = read_some(descriptor, file.contents.path, file.contents.bytes.get() + piece.offset + done,
                                        piece.size - done, piece.offset + done);
      if (got == 0)
        fail_changed(file.contents, "it ended at byte " + std::to_string(piece.offset + done) + " and had " +
                                        std::to_string(file.contents.size) + " bytes before");
      done += got;
    }
  }

  // An empty file, or one of the kernel's that has no size until it is read.
  void read_to_end(const Descriptor& descriptor, FileContents& contents) const {
    std::string bytes;
    std::array<char, 4096> some;
    while (const std::size_t got = read_some(descriptor, contents.path, some.data(), some.size(), bytes.size()))
      bytes.append(some.data(), got);
    if (bytes.empty()) return;
    contents.bytes = std::make_shared_for_overwrite<char[]>(bytes.size());
    bytes.copy(contents.bytes.get(), bytes.size());
    contents.size = bytes.size();
  }

  std::size_t read_some(const Descriptor& descriptor, const fs::path& path, char* to, std::size_t size,
                        std::size_t offset) const {
    while (true) {
      const ssize_t got = ::pread(descriptor.get(), to, size, static_cast<off_t>(offset));
      if (got >= 0) return static_cast<std::size_t>(got);
      if (errno != EINTR) fail_errno(scope_, op_, path, "read the file", errno);
    }
  }

  [[noreturn]] void fail_changed(const FileContents& contents, const std::string& how) const {
    fail(scope_, op_, "file_changed",
         contents.path.string() + ": the file changed while it was read: " + how +
             "; write it elsewhere and move it into place when it is complete");
  }

  const Scope& scope_;
  const char* const op_;
};

// Files that are read once, in `prepare`, into a fixed number of partitions.
template <class T>
class FilesNode : public BatchNode<T> {
 public:
  FilesNode(std::shared_ptr<const Scope> scope, std::vector<fs::path> paths, std::size_t partitions,
            std::size_t record_bytes)
      : BatchNode<T>{std::move(scope)},
        paths_{std::move(paths)},
        partitions_{paths_.empty()    ? 1
                    : partitions != 0 ? partitions
                                      : this->scope()->runtime->executor->parallelism()},
        record_bytes_{record_bytes} {}

  [[nodiscard]] std::size_t partitions() const final { return partitions_; }
  void prepare() const final {
    const std::scoped_lock lock{mutex_};
    if (ready_.load(std::memory_order_relaxed)) return;
    bytes_ = load(paths_);
    ready_.store(true, std::memory_order_release);
  }
  [[nodiscard]] std::size_t size_hint() const final {
    return (ready_.load(std::memory_order_acquire) ? bytes_ : Reader::estimate(paths_)) / record_bytes_;
  }

 protected:
  /// Returns how many bytes there are.
  virtual std::size_t load(const std::vector<fs::path>& paths) const = 0;

 private:
  const std::vector<fs::path> paths_;
  const std::size_t partitions_;
  const std::size_t record_bytes_;
  mutable std::mutex mutex_;  // guards bytes_ and what `load` sets until ready_, after which nothing changes
  mutable std::atomic<bool> ready_ = false;
  mutable std::size_t bytes_ = 0;
};

class TextFilesNode final : public FilesNode<std::string_view> {
 public:
  TextFilesNode(std::shared_ptr<const Scope> scope, std::vector<fs::path> paths, std::size_t partitions,
                std::size_t max_line_bytes)
      : FilesNode{std::move(scope), std::move(paths), partitions, text_bytes_per_line},
        max_line_bytes_{max_line_bytes} {}

  void run(std::size_t partition, ChunkSink<std::string_view> sink) const override {
    if (partition < lines_->partitions()) lines_->run(partition, sink);
  }

 protected:
  std::size_t load(const std::vector<fs::path>& paths) const override {
    std::vector<TextBlock> blocks;
    std::size_t bytes = 0;
    for (FileContents& file : Reader{*scope(), "text_file"}.read(paths)) {
      if (const auto offset = first_long_line(file.text(), max_line_bytes_)) {
        fail(*scope(), "text_file", "line_too_long",
             file.path.string() + ": the line at byte " + std::to_string(*offset) + " is longer than " +
                 std::to_string(max_line_bytes_) + " bytes; give a larger max_line_bytes, or other text",
             Retry::is_useless, *offset);
      }
      bytes += file.size;
      const std::string_view text = file.text();
      blocks.push_back({text, std::move(file.bytes)});
    }
    lines_ = text_blocks_batch(scope(), std::move(blocks), partitions()).node_pointer();
    lines_->prepare();
    return bytes;
  }

 private:
  const std::size_t max_line_bytes_;
  mutable std::shared_ptr<const BatchNode<std::string_view>> lines_;  // may have fewer partitions; set by load
};

class BinaryRecordsNode final : public FilesNode<std::span<const std::byte>> {
  using Record = std::span<const std::byte>;

 public:
  BinaryRecordsNode(std::shared_ptr<const Scope> scope, std::vector<fs::path> paths, std::size_t partitions,
                    std::size_t record_length)
      : FilesNode{std::move(scope), std::move(paths), partitions, record_length}, record_length_{record_length} {}

  void run(std::size_t partition, ChunkSink<Record> sink) const override {
    std::size_t skip = slice_begin(records_, partitions(), partition);
    std::size_t left = slice_begin(records_, partitions(), partition + 1) - skip;
    std::array<Record, chunk_records> chunk;
    std::size_t filled = 0;
    for (const FileContents& file : files_) {
      const std::size_t here = file.size / record_length_;
      if (skip >= here) {
        skip -= here;
        continue;
      }
      const auto bytes = std::as_bytes(std::span{file.text()});
      for (std::size_t i = skip; i < here && left != 0; ++i, --left) {
        chunk[filled++] = bytes.subspan(i * record_length_, record_length_);
        if (filled < chunk.size()) continue;
        if (!sink(chunk)) return;
        filled = 0;
      }
      skip = 0;
      if (left == 0) break;
    }
    if (filled != 0) sink(std::span{chunk.data(), filled});
  }

 protected:
  std::size_t load(const std::vector<fs::path>& paths) const override {
    files_ = Reader{*scope(), "binary_records"}.read(paths);
    records_ = 0;
    for (const FileContents& file : files_) {
      if (file.size % record_length_ != 0) {
        fail(*scope(), "binary_records", "record_length",
             file.path.string() + ": has " + std::to_string(file.size) +
                 " bytes, which is no multiple of the record length " + std::to_string(record_length_) +
                 "; the last record would have " + std::to_string(file.size % record_length_),
             Retry::is_useless, file.size / record_length_ * record_length_);
      }
      records_ += file.size / record_length_;
    }
    return records_ * record_length_;
  }

 private:
  const std::size_t record_length_;
  mutable std::vector<FileContents> files_;  // set by load, as is
  mutable std::size_t records_ = 0;          // the number of records in them
};

}  // namespace

Batch<std::string_view> text_files_batch(std::shared_ptr<const Scope> scope, std::vector<fs::path> paths,
                                         std::size_t partitions, std::size_t max_line_bytes) {
  return Batch<std::string_view>{
      std::make_shared<const TextFilesNode>(std::move(scope), std::move(paths), partitions, max_line_bytes)};
}

Batch<std::span<const std::byte>> binary_records_batch(std::shared_ptr<const Scope> scope, std::vector<fs::path> paths,
                                                       std::size_t record_length, std::size_t partitions) {
  if (record_length == 0) throw ConfigError("binary records were given a length of 0; give at least 1 byte");
  return Batch<std::span<const std::byte>>{
      std::make_shared<const BinaryRecordsNode>(std::move(scope), std::move(paths), partitions, record_length)};
}

}  // namespace detail

Batch<std::string_view> Context::text_file(const std::filesystem::path& path, std::size_t partitions) const {
  return detail::text_files_batch(std::make_shared<const detail::Scope>(detail::Scope{runtime_, std::nullopt}), {path},
                                  partitions);
}

}  // namespace tidemill
