#include "tidemill/core/file_output.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <dirent.h>
#include <fcntl.h>
#include <filesystem>
#include <mutex>
#include <set>
#include <sys/file.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

#include "tidemill/core/crc32c.hpp"

namespace tidemill {
namespace {

// --- What the system said, as a sentence with a way out ---

struct Advice {
  const char* code;
  const char* way_out;
  Retry retry;
};

Advice advice_on(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return {"disk_full", "the disk is full: free some space, or choose a path on another disk", Retry::may_help};
    case EFBIG:
      return {"disk_full", "the file is larger than the file system or the limit of this process (ulimit -f) allows",
              Retry::is_useless};
    case EACCES:
    case EPERM:
      return {"permission_denied", "give this user the permission, or choose another path", Retry::is_useless};
    case EROFS:
      return {"permission_denied", "the file system is mounted read-only: choose another path", Retry::is_useless};
    case ENOENT:
      return {"not_found", "it, or a directory above it, does not exist or was removed meanwhile", Retry::is_useless};
    case ENOTDIR: return {"not_found", "a part of the path is a file where a directory is needed", Retry::is_useless};
    case ENAMETOOLONG:
      return {"io", "choose a shorter name: with what is added to it for the time of writing it is too long",
              Retry::is_useless};
    case EMFILE:
    case ENFILE:
      return {"io", "too many files are open: raise the limit (ulimit -n), or use fewer partitions at once",
              Retry::may_help};
    default: return {"io", "see the log of the system for the device, and run the batch again", Retry::may_help};
  }
}

template <class ErrorType>
[[noreturn]] void fail_system(std::string_view action, const std::string& path, int error) {
  const Advice advice = advice_on(error);
  std::string message{"cannot "};
  message.append(action).append(" ").append(path).append(": ").append(std::generic_category().message(error));
  message.append("; ").append(advice.way_out);
  ErrorContext context;
  context.op = path;
  throw ErrorType(advice.code, message, advice.retry, std::move(context));
}

[[noreturn]] void fail_sink(const char* code, const std::string& path, const std::string& message) {
  ErrorContext context;
  context.op = path;
  throw SinkError(code, message, Retry::is_useless, std::move(context));
}

// --- Descriptors ---

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) noexcept : fd_{fd} {}
  Descriptor(Descriptor&& other) noexcept : fd_{std::exchange(other.fd_, -1)} {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~Descriptor() { reset(); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }
  void reset() noexcept {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
  // The error of close(), or 0. The descriptor is gone in either case, as Linux has it, so that there is no retry.
  [[nodiscard]] int close() noexcept {
    const int fd = std::exchange(fd_, -1);
    return fd < 0 || ::close(fd) == 0 || errno == EINTR ? 0 : errno;
  }

 private:
  int fd_ = -1;
};

Descriptor open_at(int directory, const char* name, int flags) {
  int fd;
  do {
    fd = ::openat(directory, name, flags | O_CLOEXEC, 0666);
  } while (fd < 0 && errno == EINTR);
  return Descriptor{fd};
}

Descriptor open_directory_at(int parent, const char* name, int flags = O_NOFOLLOW) {
  return open_at(parent, name, O_RDONLY | O_DIRECTORY | flags);
}

// 0, or what the system said.
int sync(int fd) {
  int result;
  do {
    result = ::fsync(fd);
  } while (result != 0 && errno == EINTR);
  return result == 0 ? 0 : errno;
}

// Directories on some network and user-space file systems cannot be synchronised, and say so.
int sync_directory(int fd) {
  const int error = sync(fd);
  return error == EINVAL || error == ENOTSUP ? 0 : error;
}

// Calls `visit(name, is_directory)` for all entries but "." and ".."; it returns false to stop. 0, or the error.
template <class Visit>
int for_each_entry(int directory, Visit visit) {
  Descriptor own = open_directory_at(directory, ".");  // a position of its own: `directory` can be read again
  if (!own) return errno;
  struct CloseDirectory {
    void operator()(DIR* d) const { ::closedir(d); }
  };
  const std::unique_ptr<DIR, CloseDirectory> entries{::fdopendir(own.get())};
  if (!entries) return errno;
  static_cast<void>(own.release());  // closedir() closes it
  for (;;) {
    errno = 0;
    const dirent* const entry = ::readdir(entries.get());
    if (entry == nullptr) return errno;
    const std::string_view name{entry->d_name};
    if (name == "." || name == "..") continue;
    bool is_directory = entry->d_type == DT_DIR;
    if (entry->d_type == DT_UNKNOWN) {
      struct stat status {};
      is_directory = ::fstatat(directory, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(status.st_mode);
    }
    if (!visit(name, is_directory)) return 0;
  }
}

constexpr std::string_view success_name = "_SUCCESS";
constexpr std::string_view part_prefix = "part-";

std::string part_name(std::size_t partition) {
  std::string number = std::to_string(partition);
  if (number.size() < 5) number.insert(0, 5 - number.size(), '0');
  return std::string{part_prefix} + number;
}

// A file that OutputDirectory or Hadoop writes into an output directory; Hadoop adds hidden checksums.
bool is_output_file(std::string_view name, bool is_directory) {
  if (is_directory) return false;
  if (name.starts_with('.')) name.remove_prefix(1);
  return name.starts_with(part_prefix) || name.starts_with(success_name);
}

// Removes the output files of a directory, as far as that goes. They go by the descriptor, so that they are those of this
// directory whatever its name is by now.
void remove_files(int directory) {
  std::vector<std::string> files;  // first listed, then removed: removing while listing may skip entries
  for_each_entry(directory, [&](std::string_view file, bool is_directory) {
    if (is_output_file(file, is_directory)) files.emplace_back(file);
    return true;
  });
  for (const std::string& file : files) ::unlinkat(directory, file.c_str(), 0);
}

// Removes a directory with its output files, as far as that goes; what stays is reclaimed when the batch is run again.
void remove_directory(int parent, const std::string& name, int directory) noexcept {
  try {
    remove_files(directory);
  } catch (const std::bad_alloc&) {
    return;
  }
  ::unlinkat(parent, name.c_str(), AT_REMOVEDIR);
}

// The name of an entry that is not ours to remove, if there is one.
std::optional<std::string> foreign_entry(int directory, const std::string& path) {
  std::optional<std::string> foreign;
  const int error = for_each_entry(directory, [&](std::string_view name, bool is_directory) {
    if (is_output_file(name, is_directory)) return true;
    foreign.emplace(name);
    return false;
  });
  if (error != 0) fail_system<SinkError>("list the directory", path, error);
  return foreign;
}

bool same_file(int descriptor, int parent, const std::string& name) {
  struct stat open {};
  struct stat named {};
  return ::fstat(descriptor, &open) == 0 && ::fstatat(parent, name.c_str(), &named, AT_SYMLINK_NOFOLLOW) == 0 &&
         open.st_dev == named.st_dev && open.st_ino == named.st_ino;
}

enum class Lock { taken, held_by_another, not_supported };

// flock() and not fcntl(): it belongs to the descriptor, so two directories in one process exclude each other too.
Lock try_lock(int descriptor) {
  if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) return Lock::taken;
  return errno == EWOULDBLOCK ? Lock::held_by_another : Lock::not_supported;
}

}  // namespace

// --- One part ---

class detail::PartFile {
 public:
  explicit PartFile(std::string path) : path_{std::move(path)} {}

  void create(int directory, const std::string& name) {
    file_ = open_at(directory, name.c_str(), O_WRONLY | O_CREAT | O_EXCL);
    if (!file_) fail("create", errno);
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
    if (const int error = sync(file_.get()); error != 0) fail("make durable", error);
    if (const int error = file_.close(); error != 0) fail("close", error);
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
    while (!bytes.empty()) {
      const ssize_t written = ::write(file_.get(), bytes.data(), bytes.size());
      if (written >= 0) {
        bytes.remove_prefix(static_cast<std::size_t>(written));
      } else if (errno != EINTR) {
        fail("write", errno);
      }
    }
  }

  [[noreturn]] void fail(std::string_view action, int error) {
    give_up();
    fail_system<SinkError>(action, path_, error);
  }

  Descriptor file_;
  std::string path_;  // in the staging directory
  std::string buffer_;
  std::uint64_t size_ = 0;
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
  std::string path;         // as given, for messages
  std::string name;         // last component
  std::string parent_path;  // the rest, symbolic links of the name itself resolved
  Descriptor parent;
  std::string staging_name;
  Descriptor staging;  // locked, where the file system can, for as long as it is open
  detail::ReplaceBy replace_by = detail::ReplaceBy::exchange;
  enum class State { writing, committing, published } state = State::writing;

  std::mutex mutex;  // guards the two below, against open_part() from several threads
  std::vector<std::shared_ptr<detail::PartFile>> parts;
  std::set<std::size_t> partitions;

  ~Impl() {
    for (const auto& part : parts) part->give_up();
    if (staging) remove_directory(parent.get(), staging_name, staging.get());
  }

  [[nodiscard]] std::string in_parent(const std::string& entry) const {
    return (std::filesystem::path{parent_path} / entry).string();
  }

  void resolve() {
    namespace fs = std::filesystem;
    fs::path target{path};
    std::error_code error;
    if (fs::is_symlink(target, error)) {  // the directory behind it is replaced, not the link
      target = fs::canonical(target, error);
      if (error) fail_system<SinkError>("follow the link", path, error.value());
    }
    while (!target.has_filename() && target.has_relative_path()) target = target.parent_path();  // "out/" is "out"
    name = target.filename().string();
    if (name.empty() || name == "." || name == "..") {
      fail_sink("not_an_output", path, "cannot write to \"" + path + "\": it does not end in the name of a directory");
    }
    parent_path = target.has_parent_path() ? target.parent_path().string() : ".";
  }

  // Opens the parent, creating what is missing of it. A new directory is durable only when its own parent is.
  static Descriptor open_parents(const std::filesystem::path& directory) {
    const std::string text = directory.empty() ? "." : directory.string();
    if (Descriptor found = open_directory_at(AT_FDCWD, text.c_str(), 0)) return found;
    if (errno != ENOENT || !directory.has_relative_path()) fail_system<SinkError>("open the directory", text, errno);
    const Descriptor above = open_parents(directory.parent_path());
    const std::string last = directory.filename().string();
    if (::mkdirat(above.get(), last.c_str(), 0777) != 0 && errno != EEXIST) {
      fail_system<SinkError>("create the directory", text, errno);
    }
    Descriptor created = open_directory_at(above.get(), last.c_str(), 0);
    if (!created) fail_system<SinkError>("open the directory", text, errno);
    if (const int error = sync_directory(above.get()); error != 0) {
      fail_system<SinkError>("make durable the directory above", text, error);
    }
    return created;
  }

  // Takes the first `.<name>.tmp-<n>` that nobody uses. A directory that is there but not locked was left by a process
  // that died; taking the lock makes it ours to empty.
  void create_staging() {
    constexpr int most = 1000;  // writers of one path at the same time; also bounds the races below
    for (int n = 0; n < most; ++n) {
      const std::string candidate = '.' + name + ".tmp-" + std::to_string(n);
      const bool created = ::mkdirat(parent.get(), candidate.c_str(), 0777) == 0;
      if (!created && errno != EEXIST) fail_system<SinkError>("create the directory", in_parent(candidate), errno);
      Descriptor directory = open_directory_at(parent.get(), candidate.c_str());
      if (!directory) {
        if (created && errno != ENOENT) {
          const int error = errno;
          ::unlinkat(parent.get(), candidate.c_str(), AT_REMOVEDIR);
          fail_system<SinkError>("open the directory", in_parent(candidate), error);
        }
        continue;
      }
      const Lock lock = try_lock(directory.get());
      if (lock == Lock::held_by_another || (lock == Lock::not_supported && !created)) continue;
      if (!same_file(directory.get(), parent.get(), candidate)) continue;  // removed between open and lock
      if (!created) {
        if (foreign_entry(directory.get(), in_parent(candidate))) continue;
        remove_files(directory.get());
      }
      staging_name = candidate;
      staging = std::move(directory);
      return;
    }
    fail_sink("io", path,
              "cannot write to " + path + ": " + std::to_string(most) +
                  " directories .<name>.tmp-<n> are in use beside it; remove them if no process is");
  }

  // The directory that is at the final name now, checked and locked; empty if there is none.
  [[nodiscard]] Descriptor open_old() const {
    Descriptor old = open_directory_at(parent.get(), name.c_str());
    if (!old) {
      if (errno == ENOENT) return old;
      if (errno == ENOTDIR || errno == ELOOP) {
        fail_sink("not_an_output", path,
                  "cannot write to " + path +
                      ": a file that is not a directory is there; remove "
                      "it, or choose another path");
      }
      fail_system<SinkError>("open the directory", path, errno);
    }
    if (const auto foreign = foreign_entry(old.get(), path)) {
      fail_sink("not_an_output", path,
                "cannot replace " + path + ": it holds \"" + *foreign +
                    "\", which no output of a batch does; remove the directory, or choose another path");
    }
    return old;
  }

  void publish() {
    constexpr int attempts = 16;  // somebody else may create or remove the target between two steps
    for (int attempt = 0; attempt < attempts; ++attempt) {
      if (::renameat(parent.get(), staging_name.c_str(), parent.get(), name.c_str()) ==
          0) {  // none there, or an empty one
        staging.reset();
        make_durable();
        return;
      }
      if (errno != EEXIST && errno != ENOTEMPTY && errno != ENOTDIR) fail_system<SinkError>("publish", path, errno);
      Descriptor old = open_old();
      if (!old) continue;
      // Under its new, hidden name the old directory looks like an orphan to other writers, who may take it as their
      // staging directory. The lock keeps them off, and only who holds it may remove the directory. The writer that
      // published the old one may hold it until a moment after its rename, so it is asked for twice.
      Lock lock = try_lock(old.get());
      std::string old_name = staging_name;
      if (!exchange(old_name)) continue;
      staging.reset();
      make_durable();
      if (lock == Lock::held_by_another) lock = try_lock(old.get());
      if (lock != Lock::held_by_another && same_file(old.get(), parent.get(), old_name)) {
        remove_directory(parent.get(), old_name, old.get());
      }
      return;
    }
    fail_sink("io", path, "cannot publish " + path + ": another process keeps changing what is there");
  }

  // Puts the staging directory at the final name and the old directory at `old_name`. False: the old one is gone.
  bool exchange(std::string& old_name) {
    if (replace_by == detail::ReplaceBy::exchange) {
      if (::renameat2(parent.get(), staging_name.c_str(), parent.get(), name.c_str(), RENAME_EXCHANGE) == 0)
        return true;
      if (errno == ENOENT) return false;
      if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) fail_system<SinkError>("publish", path, errno);
    }
    old_name = '.' + name + ".old";
    if (const Descriptor left_over = open_directory_at(parent.get(), old_name.c_str())) {
      remove_directory(parent.get(), old_name, left_over.get());
    }
    if (::renameat(parent.get(), name.c_str(), parent.get(), old_name.c_str()) != 0) {
      if (errno == ENOENT) return false;
      fail_system<SinkError>("move away the former output", path, errno);
    }
    if (::renameat(parent.get(), staging_name.c_str(), parent.get(), name.c_str()) != 0) {
      const int error = errno;
      ::renameat(parent.get(), old_name.c_str(), parent.get(), name.c_str());
      fail_system<SinkError>("publish", path, error);
    }
    return true;
  }

  void make_durable() {
    state = State::published;
    if (const int error = sync_directory(parent.get()); error != 0) {
      fail_system<SinkError>("make durable (it is published, but may be lost in a power cut)", path, error);
    }
  }
};

OutputDirectory::OutputDirectory(std::string path, detail::ReplaceBy replace_by) : impl_{std::make_unique<Impl>()} {
  impl_->path = std::move(path);
  impl_->replace_by = replace_by;
  impl_->resolve();
  impl_->parent = Impl::open_parents(impl_->parent_path);
  static_cast<void>(impl_->open_old());  // what cannot be replaced is reported before the work, not after
  impl_->create_staging();
}

OutputDirectory::OutputDirectory(OutputDirectory&&) noexcept = default;
OutputDirectory& OutputDirectory::operator=(OutputDirectory&&) noexcept = default;
OutputDirectory::~OutputDirectory() = default;

const std::string& OutputDirectory::path() const noexcept { return impl_->path; }

PartWriter OutputDirectory::open_part(std::size_t partition) {
  const std::string name = part_name(partition);
  const std::string file_path = impl_->in_parent(impl_->staging_name) + '/' + name;
  const std::lock_guard lock{impl_->mutex};
  if (impl_->state != Impl::State::writing) {
    fail_sink("io", impl_->path,
              "cannot write " + name + " of " + impl_->path + ": the directory was committed before");
  }
  if (!impl_->partitions.insert(partition).second) {
    fail_sink("io", impl_->path,
              "cannot write " + name + " of " + impl_->path + ": it was opened before; each partition has one writer");
  }
  impl_->parts.push_back(std::make_shared<detail::PartFile>(file_path));  // first, so that commit() knows if this fails
  impl_->parts.back()->create(impl_->staging.get(), name);
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
  const std::string success{success_name};
  Descriptor file = open_at(impl_->staging.get(), success.c_str(), O_WRONLY | O_CREAT | O_EXCL);
  const std::string success_path = impl_->in_parent(impl_->staging_name) + '/' + success;
  if (!file) fail_system<SinkError>("create", success_path, errno);
  if (const int error = sync(file.get()); error != 0) fail_system<SinkError>("make durable", success_path, error);
  if (const int error = file.close(); error != 0) fail_system<SinkError>("close", success_path, error);
  if (const int error = sync_directory(impl_->staging.get()); error != 0) {
    fail_system<SinkError>("make durable", impl_->in_parent(impl_->staging_name), error);
  }
  impl_->publish();
}

std::vector<std::string> part_files(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) fail_system<SourceError>("read", path, errno);
  if (!S_ISDIR(status.st_mode)) return {path};
  const Descriptor directory = open_directory_at(AT_FDCWD, path.c_str(), 0);
  if (!directory) fail_system<SourceError>("open the directory", path, errno);
  std::vector<std::string> files;
  const int error = for_each_entry(directory.get(), [&](std::string_view name, bool is_directory) {
    if (!is_directory && name.starts_with(part_prefix)) files.emplace_back(name);
    return true;
  });
  if (error != 0) fail_system<SourceError>("list the directory", path, error);
  std::sort(files.begin(), files.end(), [](const std::string& a, const std::string& b) {
    return std::pair{a.size(), std::string_view{a}} < std::pair{b.size(), std::string_view{b}};  // part-100000 is last
  });
  for (std::string& file : files) file.insert(0, path.ends_with('/') ? path : path + '/');
  return files;
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
  Descriptor file;
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
    for (std::size_t done = 0; done < count;) {
      const ssize_t got = ::pread(file.get(), into.data() + done, count - done, static_cast<off_t>(at + done));
      if (got > 0) {
        done += static_cast<std::size_t>(got);
      } else if (got == 0) {
        fail(at + done, expected, "the end of the file: it was cut while it was read");
      } else if (errno != EINTR) {
        fail_system<SourceError>("read", path, errno);
      }
    }
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

ObjectFileReader::ObjectFileReader(std::string path) : impl_{std::make_unique<Impl>()} {
  impl_->path = std::move(path);
  impl_->file = open_at(AT_FDCWD, impl_->path.c_str(), O_RDONLY);
  if (!impl_->file) fail_system<SourceError>("open", impl_->path, errno);
  struct stat status {};
  if (::fstat(impl_->file.get(), &status) != 0) fail_system<SourceError>("read", impl_->path, errno);
  if (!S_ISREG(status.st_mode)) impl_->fail(0, "a file", "a directory or a device; see part_files() for directories");
  impl_->size = static_cast<std::uint64_t>(status.st_size);
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
