#include "tidemill/core/file_output.hpp"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <mutex>
#include <set>

#include "tidemill/core/crc32c.hpp"

namespace tidemill {
namespace {

using detail::join_path;

// What the file system refuses becomes an error of the output, or of the input.
template <class ErrorType, class F>
decltype(auto) as_error(F&& f) {
  try {
    return f();
  } catch (const FsError& error) {
    throw ErrorType(error.code(), error.sentence(), error.retry(), error.context());
  }
}

[[noreturn]] void fail_sink(const char* code, const std::string& path, const std::string& message) {
  ErrorContext context;
  context.op = path;
  throw SinkError(code, message, Retry::is_useless, std::move(context));
}

std::shared_ptr<Fs> or_real(std::shared_ptr<Fs> fs) { return fs ? std::move(fs) : Fs::real(); }

constexpr std::string_view success_name = "_SUCCESS";
constexpr std::string_view part_prefix = "part-";

std::string part_name(std::size_t partition) {
  std::string number = std::to_string(partition);
  if (number.size() < 5) number.insert(0, 5 - number.size(), '0');
  return std::string{part_prefix} + number;
}

// The name of a file that OutputDirectory or Hadoop writes into an output directory; Hadoop adds hidden checksums.
bool is_output_name(std::string_view name) {
  if (name.starts_with('.')) name.remove_prefix(1);
  return name.starts_with(part_prefix) || name.starts_with(success_name);
}

// The name of an entry that is not ours to remove, if there is one.
std::optional<std::string> foreign_entry(Fs& fs, const std::string& directory) {
  for (const std::string& name : fs.list(directory)) {
    if (!is_output_name(name) || fs.is_directory(join_path(directory, name))) return name;
  }
  return std::nullopt;
}

void remove_files(Fs& fs, const std::string& directory) {
  for (const std::string& name : fs.list(directory)) {
    const std::string path = join_path(directory, name);
    if (is_output_name(name) && !fs.is_directory(path)) fs.remove(path);
  }
}

// Removes a directory with its output files, as far as that goes; what stays is reclaimed when the batch is run again.
void remove_output(Fs& fs, const std::string& directory) noexcept {
  try {
    remove_files(fs, directory);
    fs.remove_directory(directory);
  } catch (...) {
  }
}

}  // namespace

// --- One part ---

class detail::PartFile {
 public:
  explicit PartFile(std::string path) : path_{std::move(path)} {}

  void create(Fs& fs) {
    guarded([&] { file_ = fs.create(path_); });
  }

  void write(std::string_view bytes) {
    check_open();
    size_ += bytes.size();
    if (buffer_.size() + bytes.size() <= buffer_bytes) {
      if (buffer_.capacity() < buffer_bytes) buffer_.reserve(buffer_bytes);
      buffer_.append(bytes);
      return;
    }
    flush();
    if (bytes.size() >= buffer_bytes) {
      write_out(bytes);
    } else {
      buffer_.append(bytes);
    }
  }

  void close() {
    if (state_ == State::closed) return;
    check_open();
    flush();
    guarded([&] { file_->sync(); });
    file_.reset();
    state_ = State::closed;
    buffer_ = std::string{};
  }

  // Nothing more is written, and the directory refuses to be committed.
  void give_up() noexcept {
    if (state_ != State::open) return;
    state_ = State::given_up;
    file_.reset();
  }

  void commit() {
    if (state_ == State::open && needs_end_) {
      give_up();
      fail_sink("incomplete", path_, "cannot publish " + path_ + ": its writer was not closed, so the file has no end");
    }
    if (state_ == State::given_up) {
      fail_sink("incomplete", path_,
                "cannot publish " + path_ +
                    ": writing it failed or was given up before; write the batch again into a new OutputDirectory");
    }
    close();
  }

  void need_end() noexcept { needs_end_ = true; }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  static constexpr std::size_t buffer_bytes = 64 * 1024;
  enum class State { open, closed, given_up };

  void check_open() const {
    if (state_ == State::closed) {
      fail_sink("io", path_, "cannot write " + path_ + ": it was closed, or its directory committed, before");
    }
    if (state_ == State::given_up) {
      fail_sink("incomplete", path_, "cannot write " + path_ + ": an earlier write failed, or its directory is gone");
    }
  }

  void flush() {
    write_out(buffer_);
    buffer_.clear();
  }

  void write_out(std::string_view bytes) {
    if (bytes.empty()) return;
    guarded([&] { file_->write_at(written_, std::as_bytes(std::span{bytes})); });
    written_ += bytes.size();
  }

  // Whatever comes out of the file system, the part is lost.
  template <class F>
  void guarded(F f) {
    try {
      as_error<SinkError>(f);
    } catch (...) {
      give_up();
      throw;
    }
  }

  std::unique_ptr<FsFile> file_;
  std::string path_;  // in the staging directory
  std::string buffer_;
  std::uint64_t size_ = 0;
  std::uint64_t written_ = 0;  // of size_, those that are not in the buffer
  State state_ = State::open;
  bool needs_end_ = false;  // to be closed by its writer, not by commit()
};

namespace {

[[noreturn]] void fail_moved_from() {
  throw PlanError("illegal_state", "this PartWriter was moved from; use the one that it was moved to");
}

}  // namespace

PartWriter::PartWriter(std::shared_ptr<detail::PartFile> file) noexcept : file_{std::move(file)} {}
PartWriter::PartWriter(PartWriter&&) noexcept = default;
PartWriter& PartWriter::operator=(PartWriter&& other) noexcept {
  if (this != &other) {
    if (file_) file_->give_up();
    file_ = std::move(other.file_);
  }
  return *this;
}
PartWriter::~PartWriter() {
  if (file_) file_->give_up();
}

void PartWriter::write(std::string_view bytes) {
  if (file_ == nullptr) fail_moved_from();
  file_->write(bytes);
}

void PartWriter::close() {
  if (file_ == nullptr) fail_moved_from();
  file_->close();
}

std::uint64_t PartWriter::size() const noexcept { return file_ ? file_->size() : 0; }

// --- The directory ---

struct OutputDirectory::Impl {
  std::shared_ptr<Fs> fs;  // the caller's, who may keep it
  std::string path;        // as given, for messages
  std::string target;      // in full, the links of the name itself followed
  std::string name;        // its last component
  std::string parent;      // the rest
  std::string staging;
  std::unique_ptr<FsLock> staging_lock;  // held, where the file system can, until the directory is published or gone
  bool has_staging = false;
  detail::ReplaceBy replace_by = detail::ReplaceBy::exchange;
  enum class State { writing, committing, published } state = State::writing;

  std::mutex mutex;  // guards the two below, against open_part() from several threads
  std::vector<std::shared_ptr<detail::PartFile>> parts;
  std::set<std::size_t> partitions;

  ~Impl() {
    for (const auto& part : parts) part->give_up();
    if (has_staging) remove_output(*fs, staging);
  }

  void resolve() {
    std::string_view text = path;
    while (text.size() > 1 && text.ends_with('/')) text.remove_suffix(1);  // "out/" is "out"
    const std::string_view last = text.substr(text.rfind('/') + 1);
    if (last.empty() || last == "." || last == "..") {
      fail_sink("not_an_output", path, "cannot write to \"" + path + "\": it does not end in the name of a directory");
    }
    target = fs->resolve(std::string{text});
    name = target.substr(target.rfind('/') + 1);
    parent = detail::parent_path(target);
  }

  // Creates what is missing of a directory. A new directory is durable only when its own parent is; one that is there already
  // may be new too, made by a process that was killed before it came to that.
  void make_directories(const std::string& directory) {
    const std::string above = detail::parent_path(directory);
    if (above == directory) return;
    if (!fs->exists(directory)) {
      make_directories(above);
      fs->make_directory(directory);
    }
    try {
      fs->sync_directory(above);
    } catch (const FsError& error) {
      if (error.code() != "permission_denied") throw;  // who may not look at it has made nothing there
    }
  }

  // Takes the first `.<name>.tmp-<n>` that nobody uses. A directory that is there but not locked was left by a process
  // that died; taking the lock makes it ours to empty.
  void create_staging() {
    constexpr int most = 1000;  // writers of one path at the same time; also bounds the races below
    for (int n = 0; n < most; ++n) {
      const std::string candidate = join_path(parent, '.' + name + ".tmp-" + std::to_string(n));
      bool created = false;
      try {
        created = fs->make_directory(candidate);
      } catch (const FsError& error) {
        // A file is there, or a directory that somebody removes just now.
        if (error.error_number() != ENOTDIR && error.error_number() != EEXIST) throw;
        continue;
      }
      std::unique_ptr<FsLock> lock;
      try {
        lock = fs->lock_directory(candidate);
        if (!lock) continue;
      } catch (const FsError&) {
        // Without locks only a directory that was not there is known to be nobody's.
        if (!created) continue;
      }
      if (!created) {
        if (foreign_entry(*fs, candidate)) continue;
        remove_files(*fs, candidate);
      }
      staging = candidate;
      staging_lock = std::move(lock);
      has_staging = true;
      return;
    }
    fail_sink("io", path,
              "cannot write to " + path + ": " + std::to_string(most) +
                  " directories .<name>.tmp-<n> are in use beside it; remove them if no process is");
  }

  // Checks that what is at the final name now, if anything is, may be replaced.
  void check_old() const {
    if (!fs->exists(target)) return;
    if (!fs->is_directory(target)) {
      fail_sink(
          "not_an_output", path,
          "cannot write to " + path + ": a file that is not a directory is there; remove it, or choose another path");
    }
    std::optional<std::string> foreign;
    try {
      foreign = foreign_entry(*fs, target);
    } catch (const FsError& error) {
      if (error.error_number() != ENOENT) throw;  // somebody moved it away just now
    }
    if (foreign) {
      fail_sink("not_an_output", path,
                "cannot replace " + path + ": it holds \"" + *foreign +
                    "\", which no output of a batch does; remove the directory, or choose another path");
    }
  }

  void publish() {
    constexpr int attempts = 16;  // somebody else may create or remove the target between two steps
    for (int attempt = 0; attempt < attempts; ++attempt) {
      if (rename_to_target()) {  // none there, or an empty one
        make_durable();
        return;
      }
      std::string old;
      try {
        check_old();
        if (!exchange(old)) continue;
      } catch (const FsError& error) {
        if (error.error_number() != ENOENT) throw;
        continue;  // the old one is gone
      }
      make_durable();
      // Under its new, hidden name the old directory looks like an orphan to other writers, who may take it as their staging
      // directory: who holds its lock may. The writer that published it may hold that until a moment after its rename.
      try {
        if (const auto lock = fs->lock_directory(old)) remove_output(*fs, old);
      } catch (const FsError&) {  // no locks: nobody else takes it either
        remove_output(*fs, old);
      }
      return;
    }
    fail_sink("io", path, "cannot publish " + path + ": another process keeps changing what is there");
  }

  // False: something that is not an empty directory is there.
  bool rename_to_target() {
    try {
      fs->rename(staging, target);
      has_staging = false;
      return true;
    } catch (const FsError& error) {
      const int number = error.error_number();
      if (number == EEXIST || number == ENOTEMPTY || number == ENOTDIR) return false;
      throw;
    }
  }

  // Puts the staging directory at the final name and the old directory at `old`. False: the old one is gone.
  bool exchange(std::string& old) {
    old = staging;
    if (replace_by == detail::ReplaceBy::exchange && fs->exchange(staging, target)) {
      has_staging = false;
      return true;
    }
    old = join_path(parent, '.' + name + ".old");
    if (fs->is_directory(old)) remove_output(*fs, old);
    fs->rename(target, old);
    try {
      fs->rename(staging, target);
    } catch (const FsError&) {
      fs->rename(old, target);
      throw;
    }
    has_staging = false;
    return true;
  }

  void make_durable() {
    state = State::published;
    staging_lock.reset();
    try {
      fs->sync_directory(parent);
    } catch (const FsError& error) {
      throw SinkError(error.code(), path + " is published, but may be lost in a power cut: " + error.sentence(),
                      error.retry(), error.context());
    }
  }
};

OutputDirectory::OutputDirectory(std::string path, std::shared_ptr<Fs> fs, detail::ReplaceBy replace_by)
    : impl_{std::make_unique<Impl>()} {
  impl_->fs = or_real(std::move(fs));
  impl_->path = std::move(path);
  impl_->replace_by = replace_by;
  as_error<SinkError>([&] {
    impl_->resolve();
    impl_->make_directories(impl_->parent);
    impl_->check_old();  // what cannot be replaced is reported before the work, not after
    impl_->create_staging();
  });
}

OutputDirectory::OutputDirectory(OutputDirectory&&) noexcept = default;
OutputDirectory& OutputDirectory::operator=(OutputDirectory&&) noexcept = default;
OutputDirectory::~OutputDirectory() = default;

const std::string& OutputDirectory::path() const noexcept { return impl_->path; }

PartWriter OutputDirectory::open_part(std::size_t partition) {
  const std::string name = part_name(partition);
  const std::lock_guard lock{impl_->mutex};
  if (impl_->state != Impl::State::writing) {
    fail_sink("io", impl_->path,
              "cannot write " + name + " of " + impl_->path + ": the directory was committed before");
  }
  if (!impl_->partitions.insert(partition).second) {
    fail_sink("io", impl_->path,
              "cannot write " + name + " of " + impl_->path + ": it was opened before; each partition has one writer");
  }
  // First, so that commit() knows if this fails.
  impl_->parts.push_back(std::make_shared<detail::PartFile>(join_path(impl_->staging, name)));
  impl_->parts.back()->create(*impl_->fs);
  return PartWriter{impl_->parts.back()};
}

void OutputDirectory::commit() {
  {
    const std::lock_guard lock{impl_->mutex};
    if (impl_->state != Impl::State::writing) {
      fail_sink("io", impl_->path, "cannot commit " + impl_->path + ": that was done or tried before");
    }
    impl_->state = Impl::State::committing;
  }
  for (const auto& part : impl_->parts) part->commit();
  as_error<SinkError>([&] {
    static_cast<void>(impl_->fs->create(join_path(impl_->staging, success_name)));
    impl_->fs->sync_directory(impl_->staging);  // the mark is empty: it is durable with its name
    impl_->publish();
  });
}

std::vector<std::string> part_files(const std::string& path, const std::shared_ptr<Fs>& given) {
  const std::shared_ptr<Fs> fs = or_real(given);
  return as_error<SourceError>([&] {
    const std::string target = fs->resolve(path);
    if (!fs->is_directory(target)) {
      static_cast<void>(fs->read(target));  // is there, and may be read
      return std::vector<std::string>{path};
    }
    std::vector<std::string> files;
    for (std::string& name : fs->list(target)) {
      if (name.starts_with(part_prefix) && !fs->is_directory(join_path(target, name))) files.push_back(std::move(name));
    }
    std::sort(files.begin(), files.end(), [](const std::string& a, const std::string& b) {
      return std::pair{a.size(), std::string_view{a}} <
             std::pair{b.size(), std::string_view{b}};  // part-100000 is last
    });
    for (std::string& file : files) file = join_path(path, file);
    return files;
  });
}

// --- Object files ---

namespace {

constexpr std::string_view magic{"TMOBJ1\n\0", 8};
constexpr std::size_t header_bytes = 16;
constexpr std::size_t chunk_header_bytes = 12;
constexpr std::size_t end_bytes = 8;  // of the chunk of 0 records

std::uint32_t checksum(std::string_view a, std::string_view b = {}) {
  return crc32c(std::as_bytes(std::span{b}), crc32c(std::as_bytes(std::span{a})));
}

template <class T>
T load(std::string_view bytes, std::size_t at) {
  return decode<T>(bytes.substr(at, sizeof(T)));
}

}  // namespace

ObjectFileWriter::ObjectFileWriter(PartWriter part) : part_{std::move(part)} {
  std::string header{magic};
  encode_to(header, object_file_version);
  encode_to(header, codec_format_version);
  encode_to(header, checksum(header));
  part_.write(header);
  part_.file_->need_end();
}

void ObjectFileWriter::put_chunk(std::string_view bytes, std::uint32_t records) {
  if (bytes.size() > 0xFFFF'FFFFU) {
    const std::string& path = part_.file_->path();
    part_.file_->give_up();
    fail_sink("record_too_large", path,
              "cannot write a record of " + std::to_string(bytes.size()) + " bytes to " + path +
                  ": a record of an object file has less than 4 GiB; split it");
  }
  std::string header;
  encode_to(header, static_cast<std::uint32_t>(bytes.size()));
  encode_to(header, records);
  encode_to(header, checksum(header, bytes));
  part_.write(header);
  part_.write(bytes);
}

void ObjectFileWriter::end_chunk() {
  put_chunk(chunk_, chunk_records_);
  records_ += chunk_records_;
  chunk_.clear();
  chunk_records_ = 0;
}

void ObjectFileWriter::close() {
  if (closed_) return;
  if (chunk_records_ > 0) end_chunk();
  put_chunk(encode(records_), 0);
  part_.close();
  closed_ = true;
}

struct ObjectFileReader::Impl {
  std::string path;
  std::shared_ptr<Fs> fs;  // the caller's, who may keep it
  std::unique_ptr<FsReader> file;
  std::uint64_t size = 0;    // of the file when it was opened
  std::uint64_t offset = 0;  // of what is read next
  std::string chunk;
  std::uint64_t chunk_offset = 0;  // of the bytes of `chunk` in the file
  std::size_t taken = 0;           // of `chunk`, by the records before
  std::uint32_t left = 0;          // records of `chunk` not yet given out
  std::uint64_t records = 0;       // of all chunks so far
  bool ended = false;

  [[noreturn]] void fail(std::uint64_t at, std::string_view expected, std::string_view found) const {
    std::string message{"cannot read the object file "};
    message.append(path).append(": at byte ").append(std::to_string(at)).append(" expected ").append(expected);
    message.append(", found ").append(found);
    ErrorContext context;
    context.op = path;
    context.offset = at;
    throw SourceError("malformed_file", message, Retry::is_useless, std::move(context));
  }

  // Reads exactly `count` bytes at `at` into `into`.
  void read(std::string& into, std::uint64_t at, std::size_t count, std::string_view expected) const {
    if (count > size - at) {  // before anything is allocated
      fail(at, std::string{expected} + " of " + std::to_string(count) + " bytes",
           "the end of the file after " + std::to_string(size - at) + " bytes: the file was cut, or is damaged");
    }
    into.resize(count);
    const std::size_t got =
        as_error<SourceError>([&] { return file->read_at(at, std::as_writable_bytes(std::span{into})); });
    if (got < count) fail(at + got, expected, "the end of the file: it was cut while it was read");
  }

  void read_header() {
    std::string header;
    read(header, 0, header_bytes, "the header of an object file");
    if (std::string_view{header}.substr(0, magic.size()) != magic) {
      fail(0, "the mark \"TMOBJ1\" of an object file", "something else: it is another kind of file, or is damaged");
    }
    const auto file_version = load<std::uint16_t>(header, 8);
    const auto codec_version = load<std::uint16_t>(header, 10);
    if (load<std::uint32_t>(header, 12) != checksum(std::string_view{header}.substr(0, 12))) {
      fail(12, "the checksum of the header", "another one: the header is damaged");
    }
    if (file_version != object_file_version || codec_version != codec_format_version) {
      fail(8, "versions " + std::to_string(object_file_version) + " and " + std::to_string(codec_format_version),
           std::to_string(file_version) + " and " + std::to_string(codec_version) +
               ": another version of the library wrote the file");
    }
    offset = header_bytes;
  }

  // False at the end of the file. After an error `offset` is where it was, so that the next call fails too.
  bool read_chunk() {
    if (ended) return false;
    const std::uint64_t begin = offset;
    std::string header;
    read(header, begin, chunk_header_bytes, "the header of a chunk");
    const auto length = load<std::uint32_t>(header, 0);
    const auto count = load<std::uint32_t>(header, 4);
    const auto expected_checksum = load<std::uint32_t>(header, 8);
    chunk_offset = begin + chunk_header_bytes;
    read(chunk, chunk_offset, length, "the records of a chunk");
    const std::uint64_t end = chunk_offset + length;
    const std::uint32_t found_checksum = checksum(std::string_view{header}.substr(0, 8), chunk);
    if (found_checksum != expected_checksum) {
      fail(begin, "a chunk with the checksum " + std::to_string(expected_checksum),
           "one with " + std::to_string(found_checksum) + ": the file is damaged");
    }
    taken = 0;
    if (count > 0) {
      left = count;
      records += count;
      offset = end;
      return true;
    }
    if (length != end_bytes) fail(begin, "an end of 8 bytes", "one of " + std::to_string(length));
    if (const auto total = load<std::uint64_t>(chunk, 0); total != records) {
      fail(begin, "the end of a file of " + std::to_string(records) + " records",
           "the end of one of " + std::to_string(total) + ": chunks are missing or were added");
    }
    if (end != size) fail(end, "the end of the file", std::to_string(size - end) + " more bytes");
    ended = true;
    return false;
  }
};

ObjectFileReader::ObjectFileReader(std::string path, std::shared_ptr<Fs> fs) : impl_{std::make_unique<Impl>()} {
  impl_->path = std::move(path);
  impl_->fs = or_real(std::move(fs));
  as_error<SourceError>([&] {
    if (impl_->fs->is_directory(impl_->path)) impl_->fail(0, "a file", "a directory; see part_files() for directories");
    impl_->file = impl_->fs->read(impl_->path);
    impl_->size = impl_->file->size();
  });
  impl_->read_header();
}

ObjectFileReader::ObjectFileReader(ObjectFileReader&&) noexcept = default;
ObjectFileReader& ObjectFileReader::operator=(ObjectFileReader&&) noexcept = default;
ObjectFileReader::~ObjectFileReader() = default;

const std::string& ObjectFileReader::path() const noexcept { return impl_->path; }

bool ObjectFileReader::has_record() { return impl_->left > 0 || impl_->read_chunk(); }

std::span<const std::byte> ObjectFileReader::rest_of_chunk() const noexcept {
  return std::as_bytes(std::span{impl_->chunk}).subspan(impl_->taken);
}

void ObjectFileReader::took_record(std::size_t bytes) {
  const std::size_t taken = impl_->taken + bytes;
  if (impl_->left == 1 && taken != impl_->chunk.size()) {
    impl_->fail(impl_->chunk_offset + taken, "the end of a chunk after its last record",
                std::to_string(impl_->chunk.size() - taken) +
                    " more bytes: the file was written from another type, or another version of it");
  }
  impl_->taken = taken;
  --impl_->left;
}

void ObjectFileReader::fail_record(const StateError& error) const {
  const std::uint64_t at = impl_->chunk_offset + impl_->taken;
  std::string message{"cannot read the object file "};
  message.append(impl_->path).append(": the record at byte ").append(std::to_string(at));
  message.append(" does not fit the type it is read as (counted from there, ").append(error.what()).append(")");
  ErrorContext context;
  context.op = impl_->path;
  context.offset = at + error.context().offset.value_or(0);
  throw SourceError("malformed_file", message, Retry::is_useless, std::move(context));
}

}  // namespace tidemill
