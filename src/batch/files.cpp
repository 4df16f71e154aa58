#include "tidemill/batch/files.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
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
    try {
      return read_whole(paths);
    } catch (const FsError& error) {
      fail(scope_, op_, error.code(), error.sentence());
    }
  }

  // About how many bytes will be read; what cannot be looked at counts nothing.
  [[nodiscard]] static std::size_t estimate(Fs& disk, const std::vector<fs::path>& paths) {
    std::size_t bytes = 0;
    for (const fs::path& path : paths) {
      try {
        const std::optional<FsStatus> status = disk.status(path.string());
        if (!status) continue;
        // A directory, or a file without a size: may be large.
        const bool known = status->type == FsStatus::Type::file && status->size > 0;
        bytes += known ? static_cast<std::size_t>(status->size) : piece_bytes;
      } catch (const FsError&) {
      }
    }
    return bytes;
  }

 private:
  struct Planned {
    FileContents contents;
    FsStatus status;
  };
  struct Piece {
    Planned* file;
    std::size_t offset;
    std::size_t size;
  };

  [[nodiscard]] std::vector<FileContents> read_whole(const std::vector<fs::path>& paths) const {
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

  [[nodiscard]] Fs& disk() const noexcept { return *scope_.runtime->fs; }

  void plan(const fs::path& path, std::vector<Planned>& files) const {
    const FsStatus status = status_of(path);
    if (status.type != FsStatus::Type::directory) return plan_file(path, status, files);
    for (const std::string& name : disk().list(path.string())) {
      if (name.starts_with('.') || name.starts_with('_')) continue;
      const fs::path file = path / name;
      const std::optional<FsStatus> below = disk().status(file.string());
      if (below && below->type == FsStatus::Type::file) plan_file(file, *below, files);
    }
  }

  [[nodiscard]] FsStatus status_of(const fs::path& path) const {
    const std::optional<FsStatus> status = disk().status(path.string());
    if (!status) throw FsError("find the file", path.string(), ENOENT);
    return *status;
  }

  void plan_file(const fs::path& path, const FsStatus& status, std::vector<Planned>& files) const {
    if (status.type != FsStatus::Type::file)
      fail(scope_, op_, "not_a_file",
           path.string() + ": is neither a regular file nor a directory of such files; name one", Retry::is_useless);
    const auto size = static_cast<std::size_t>(status.size);
    files.push_back({{path, size == 0 ? nullptr : std::make_shared_for_overwrite<char[]>(size), size}, status});
  }

  void read_piece(const Piece& piece) const {
    Planned& file = *piece.file;
    const auto reader = disk().read(file.contents.path.string());
    const FsStatus now = reader->status();
    if (now.device != file.status.device || now.inode != file.status.inode)
      fail_changed(file.contents, "it was replaced");
    if (file.contents.size == 0) return read_to_end(*reader, file.contents);
    const std::span<char> to{file.contents.bytes.get() + piece.offset, piece.size};
    const std::size_t got = reader->read_at(piece.offset, std::as_writable_bytes(to));
    if (got < piece.size)
      fail_changed(file.contents, "it ended at byte " + std::to_string(piece.offset + got) + " and had " +
                                      std::to_string(file.contents.size) + " bytes before");
  }

  // An empty file, or one of the kernel's that has no size until it is read.
  static void read_to_end(const FsReader& reader, FileContents& contents) {
    std::string bytes;
    std::array<char, 4096> some;
    while (const std::size_t got = reader.read_at(bytes.size(), std::as_writable_bytes(std::span{some})))
      bytes.append(some.data(), got);
    if (bytes.empty()) return;
    contents.bytes = std::make_shared_for_overwrite<char[]>(bytes.size());
    bytes.copy(contents.bytes.get(), bytes.size());
    contents.size = bytes.size();
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
    return (ready_.load(std::memory_order_acquire) ? bytes_ : Reader::estimate(*this->scope()->runtime->fs, paths_)) /
           record_bytes_;
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
                std::size_t max_line_bytes, LinesLeftOut left_out)
      : FilesNode{std::move(scope), std::move(paths), partitions, text_bytes_per_line},
        max_line_bytes_{max_line_bytes},
        left_out_{std::move(left_out)} {}

  void run(std::size_t partition, ChunkSink<std::string_view> sink) const override {
    if (partition < lines_->partitions()) lines_->run(partition, sink);
  }

 protected:
  std::size_t load(const std::vector<fs::path>& paths) const override {
    std::vector<TextBlock> blocks;
    std::size_t bytes = 0;
    for (const FileContents& file : Reader{*scope(), "text_file"}.read(paths)) {
      bytes += file.size;
      cut_lines(file, blocks);
    }
    lines_ = text_blocks_batch(scope(), std::move(blocks), partitions()).node_pointer();
    lines_->prepare();
    return bytes;
  }

 private:
  // Blocks of whole lines, without those that are too long: a line that no program expects must not cost the batch its files.
  void cut_lines(const FileContents& file, std::vector<TextBlock>& blocks) const {
    std::size_t long_lines = 0;
    std::size_t first = 0;
    for (std::string_view rest = file.text(); !rest.empty();) {
      const std::optional<std::size_t> long_line = first_long_line(rest, max_line_bytes_);
      const std::size_t good = long_line.value_or(rest.size());
      if (good != 0) blocks.push_back({rest.substr(0, good), file.bytes});
      if (!long_line) break;
      if (long_lines++ == 0) first = file.size - rest.size() + good;
      const std::size_t newline = rest.find('\n', good);
      rest.remove_prefix(newline == std::string_view::npos ? rest.size() : newline + 1);
    }
    if (long_lines == 0 || !left_out_) return;
    std::string complaint = file.path.string() + ": the line at byte " + std::to_string(first) + " is longer than " +
                            std::to_string(max_line_bytes_) + " bytes (max_line_bytes) and is left out";
    if (long_lines > 1) complaint += ", as are " + std::to_string(long_lines - 1) + " lines after it";
    left_out_(complaint, long_lines);
  }

  const std::size_t max_line_bytes_;
  const LinesLeftOut left_out_;
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
                                         std::size_t partitions, std::size_t max_line_bytes, LinesLeftOut left_out) {
  return Batch<std::string_view>{std::make_shared<const TextFilesNode>(std::move(scope), std::move(paths), partitions,
                                                                       max_line_bytes, std::move(left_out))};
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
