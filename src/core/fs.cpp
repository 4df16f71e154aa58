#include "tidemill/core/fs.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <dirent.h>
#include <fcntl.h>
#include <filesystem>
#include <mutex>
#include <random>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace tidemill {
namespace {

struct Advice {
  const char* code;
  const char* way_out;
  Retry retry;
};

Advice advice_on(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT: return {"disk_full", "free some space, or choose a path on another disk", Retry::may_help};
    case EFBIG:
      return {"disk_full", "it is larger than the file system or the limit of this process (ulimit -f) allows",
              Retry::is_useless};
    case EACCES:
    case EPERM:
      return {"permission_denied", "give this user the permission, or choose another path", Retry::is_useless};
    case EROFS:
      return {"permission_denied", "the file system is mounted read-only: choose another path", Retry::is_useless};
    case ENOENT:
      return {"not_found", "it, or a directory above it, does not exist or was removed meanwhile", Retry::is_useless};
    case ENOTDIR: return {"not_found", "a part of the path is a file where a directory is needed", Retry::is_useless};
    case EEXIST: return {"exists", "choose another path, or remove what is there", Retry::is_useless};
    case EMFILE:
    case ENFILE: return {"too_many_files", "raise the limit of open files (ulimit -n), or open fewer", Retry::may_help};
    case EISDIR: return {"io", "a directory is there where a file is needed", Retry::is_useless};
    case ENAMETOOLONG: return {"io", "choose a shorter name", Retry::is_useless};
    default: return {"io", "see the log of the system for the device", Retry::may_help};
  }
}

std::string fs_message(std::string_view action, std::string_view path, int error) {
  std::string message{"cannot "};
  message.append(action).append(" ").append(path).append(": ");
  message.append(std::generic_category().message(error)).append("; ").append(advice_on(error).way_out);
  return message;
}

ErrorContext context_of(std::string path) {
  ErrorContext context;
  context.op = std::move(path);
  return context;
}

// Repeats a system call that a signal interrupted.
template <class Call>
auto uninterrupted(Call call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
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
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

Descriptor open_path(const std::string& path, int flags, std::string_view action) {
  const int fd = uninterrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC, 0666); });
  if (fd < 0) throw FsError(action, path, errno);
  return Descriptor{fd};
}

class RealFile final : public FsFile {
 public:
  RealFile(std::string path, Descriptor fd) : path_{std::move(path)}, fd_{std::move(fd)} {}

  void write_at(std::uint64_t offset, std::span<const std::byte> bytes) override {
    check("write");
    while (!bytes.empty()) {
      const ssize_t written =
          uninterrupted([&] { return ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
      if (written < 0) fail("write", errno);
      if (written == 0) fail("write", EIO);  // a disk that neither takes bytes nor says why
      offset += static_cast<std::uint64_t>(written);
      bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
  }

  void append(std::span<const std::byte> bytes) override {
    check("write");
    write_at(length(), bytes);
  }

  void allocate(std::uint64_t size) override {
    check("allocate room for");
    if (uninterrupted([&] { return ::fallocate(fd_.get(), 0, 0, static_cast<off_t>(size)); }) == 0) return;
    if (errno != EOPNOTSUPP && errno != ENOSYS) fail("allocate room for", errno);
    static constexpr std::array<std::byte, 64 * 1024> zeros{};
    for (std::uint64_t at = length(); at < size;) {
      const auto step = std::min<std::uint64_t>(zeros.size(), size - at);
      write_at(at, std::span{zeros}.first(static_cast<std::size_t>(step)));
      at += step;
    }
  }

  void truncate(std::uint64_t size) override {
    check("truncate");
    if (uninterrupted([&] { return ::ftruncate(fd_.get(), static_cast<off_t>(size)); }) != 0) fail("truncate", errno);
  }

  void sync_data() override {
    check("sync");
    if (uninterrupted([&] { return ::fdatasync(fd_.get()); }) != 0) fail("sync", errno);
  }

  void sync() override {
    check("sync");
    if (uninterrupted([&] { return ::fsync(fd_.get()); }) != 0) fail("sync", errno);
  }

 private:
  void check(std::string_view action) const {
    if (failed_ != 0) throw FsError(action, path_, failed_);
  }
  [[noreturn]] void fail(std::string_view action, int error) {
    failed_ = error;
    throw FsError(action, path_, error);
  }
  std::uint64_t length() {
    struct stat status {};
    if (::fstat(fd_.get(), &status) != 0) fail("look at", errno);
    return static_cast<std::uint64_t>(status.st_size);
  }

  std::string path_;
  Descriptor fd_;
  int failed_ = 0;  // the error after which the file is not to be trusted
};

FsStatus status_of(const struct stat& status) {
  FsStatus result;
  result.type = S_ISREG(status.st_mode)   ? FsStatus::Type::file
                : S_ISDIR(status.st_mode) ? FsStatus::Type::directory
                                          : FsStatus::Type::other;
  result.size = static_cast<std::uint64_t>(status.st_size);
  result.modified = std::chrono::seconds{status.st_mtim.tv_sec} + std::chrono::nanoseconds{status.st_mtim.tv_nsec};
  result.device = static_cast<std::uint64_t>(status.st_dev);
  result.inode = static_cast<std::uint64_t>(status.st_ino);
  return result;
}

class RealReader final : public FsReader {
 public:
  RealReader(std::string path, Descriptor fd) : path_{std::move(path)}, fd_{std::move(fd)} {}

  FsStatus status() const override {
    struct stat status {};
    if (::fstat(fd_.get(), &status) != 0) throw FsError("look at", path_, errno);
    return status_of(status);
  }

  std::size_t read_at(std::uint64_t offset, std::span<std::byte> to) const override {
    std::size_t done = 0;
    while (done < to.size()) {
      const ssize_t got = uninterrupted(
          [&] { return ::pread(fd_.get(), to.data() + done, to.size() - done, static_cast<off_t>(offset + done)); });
      if (got < 0) throw FsError("read", path_, errno);
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
    }
    return done;
  }

 private:
  std::string path_;
  Descriptor fd_;
};

// The lock goes with the open file description (flock), so that a second open in the same process meets it too and closing
// some other descriptor of the file does not lose it, as it would with fcntl's.
class RealLock final : public FsLock {
 public:
  explicit RealLock(Descriptor fd) : fd_{std::move(fd)} {}

 private:
  Descriptor fd_;
};

struct KnownKind {
  std::uint64_t type;
  const char* name;
  bool safe;
};

constexpr KnownKind known_kinds[] = {
    {0xEF53, "ext4", true},          {0x58465342, "xfs", true},     {0x9123683E, "btrfs", true},
    {0xF2F52010, "f2fs", true},      {0x2FC12FC1, "zfs", true},     {0xCA451A4E, "bcachefs", true},
    {0x01021994, "tmpfs", true},     {0x794C7630, "overlay", true}, {0x6969, "nfs", false},
    {0xFF534D42, "cifs", false},     {0xFE534D42, "smb2", false},   {0x517B, "smb", false},
    {0x65735546, "fuse", false},     {0x01021997, "9p", false},     {0x5346414F, "afs", false},
    {0x6B414653, "afs", false},      {0x73757245, "coda", false},   {0x00C36400, "ceph", false},
    {0x786F4256, "vboxsf", false},   {0xBACBACBC, "vmhgfs", false}, {0x7C7C6673, "prl_fs", false},
    {0x4D44, "msdos", false},        {0x2011BAB0, "exfat", false},  {0x858458F6, "ramfs", true},
    {0x0BD00BD0, "lustre", false},   {0x47504653, "gpfs", false},   {0x19830326, "beegfs", false},
    {0x20030528, "orangefs", false},
};

class RealFs final : public Fs {
 public:
  std::unique_ptr<FsFile> create(const std::string& path) override {
    return std::make_unique<RealFile>(path, open_path(path, O_RDWR | O_CREAT | O_EXCL, "create"));
  }
  std::unique_ptr<FsFile> open(const std::string& path) override {
    return std::make_unique<RealFile>(path, open_path(path, O_RDWR, "open"));
  }
  std::unique_ptr<FsReader> read(const std::string& path) override {
    return std::make_unique<RealReader>(path, open_path(path, O_RDONLY | O_NONBLOCK, "open"));
  }

  void rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) throw FsError("move to", to, errno);
  }
  bool exchange(const std::string& one, const std::string& other) override {
    if (::renameat2(AT_FDCWD, one.c_str(), AT_FDCWD, other.c_str(), RENAME_EXCHANGE) == 0) return true;
    if (errno == EINVAL || errno == ENOSYS || errno == ENOTSUP) return false;
    throw FsError("exchange", other, errno);
  }
  void link(const std::string& from, const std::string& to) override {
    if (::link(from.c_str(), to.c_str()) != 0) throw FsError("link a file to", to, errno);
  }
  bool remove(const std::string& path) override {
    if (::unlink(path.c_str()) == 0) return true;
    if (errno == ENOENT) return false;
    throw FsError("remove", path, errno);
  }
  bool make_directory(const std::string& path) override {
    if (::mkdir(path.c_str(), 0777) == 0) return true;
    const int error = errno;
    struct stat status {};
    if (error == EEXIST && ::stat(path.c_str(), &status) == 0) {
      if (S_ISDIR(status.st_mode)) return false;
      throw FsError("make the directory", path, ENOTDIR);
    }
    throw FsError("make the directory", path, error);
  }
  bool remove_directory(const std::string& path) override {
    if (::rmdir(path.c_str()) == 0) return true;
    if (errno == ENOENT) return false;
    throw FsError("remove the directory", path, errno);
  }
  void sync_directory(const std::string& path) override {
    const Descriptor fd = open_path(path, O_RDONLY | O_DIRECTORY, "open the directory");
    if (uninterrupted([&] { return ::fsync(fd.get()); }) == 0) return;
    // Some file systems of the network and of user space cannot, and say so; kind() calls them unsafe.
    if (errno != EINVAL && errno != ENOTSUP) throw FsError("sync the directory", path, errno);
  }

  bool exists(const std::string& path) override {
    struct stat status {};
    if (::lstat(path.c_str(), &status) == 0) return true;
    if (errno == ENOENT) return false;
    throw FsError("look at", path, errno);
  }
  bool is_directory(const std::string& path) override {
    struct stat status {};
    if (::lstat(path.c_str(), &status) == 0) return S_ISDIR(status.st_mode);
    if (errno == ENOENT) return false;
    throw FsError("look at", path, errno);
  }
  std::optional<FsStatus> status(const std::string& path) override {
    struct stat status {};
    if (::stat(path.c_str(), &status) == 0) return status_of(status);
    if (errno == ENOENT) return std::nullopt;
    throw FsError("look at", path, errno);
  }
  std::vector<std::string> list(const std::string& path) override {
    Descriptor fd = open_path(path, O_RDONLY | O_DIRECTORY, "open the directory");
    struct CloseDirectory {
      void operator()(DIR* d) const { ::closedir(d); }
    };
    const std::unique_ptr<DIR, CloseDirectory> entries{::fdopendir(fd.get())};
    if (!entries) throw FsError("list", path, errno);
    static_cast<void>(fd.release());  // closedir() closes it
    std::vector<std::string> names;
    for (;;) {
      errno = 0;
      const dirent* const entry = ::readdir(entries.get());
      if (entry == nullptr) break;
      const std::string_view name{entry->d_name};
      if (name != "." && name != "..") names.emplace_back(name);
    }
    if (errno != 0) throw FsError("list", path, errno);
    std::sort(names.begin(), names.end());
    return names;
  }

  std::unique_ptr<FsLock> lock(const std::string& path, std::string_view holder) override {
    Descriptor fd = open_path(path, O_RDWR | O_CREAT, "open");
    if (uninterrupted([&] { return ::flock(fd.get(), LOCK_EX | LOCK_NB); }) != 0) {
      if (errno == EWOULDBLOCK) return nullptr;
      throw FsError("lock", path, errno);
    }
    if (::ftruncate(fd.get(), 0) != 0) throw FsError("write", path, errno);
    for (std::size_t done = 0; done < holder.size();) {
      const ssize_t written = uninterrupted(
          [&] { return ::pwrite(fd.get(), holder.data() + done, holder.size() - done, static_cast<off_t>(done)); });
      if (written <= 0) throw FsError("write", path, written < 0 ? errno : EIO);
      done += static_cast<std::size_t>(written);
    }
    return std::make_unique<RealLock>(std::move(fd));
  }

  std::unique_ptr<FsLock> lock_directory(const std::string& path) override {
    Descriptor fd{uninterrupted([&] { return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); })};
    if (fd.get() < 0) {
      if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP) return nullptr;
      throw FsError("open the directory", path, errno);
    }
    if (uninterrupted([&] { return ::flock(fd.get(), LOCK_EX | LOCK_NB); }) != 0) {
      if (errno == EWOULDBLOCK) return nullptr;
      throw FsError("lock the directory", path, errno);
    }
    struct stat locked {};
    struct stat named {};  // it may have been renamed or removed between the two calls
    if (::fstat(fd.get(), &locked) != 0) throw FsError("look at", path, errno);
    if (::lstat(path.c_str(), &named) != 0) return nullptr;
    if (locked.st_dev != named.st_dev || locked.st_ino != named.st_ino) return nullptr;
    return std::make_unique<RealLock>(std::move(fd));
  }

  bool is_locked(const std::string& path) override {
    const Descriptor fd = open_path(path, O_RDONLY, "open");
    if (uninterrupted([&] { return ::flock(fd.get(), LOCK_SH | LOCK_NB); }) == 0) return false;
    if (errno == EWOULDBLOCK) return true;
    throw FsError("look at the lock of", path, errno);
  }

  std::string resolve(const std::string& path) override {
    namespace files = std::filesystem;
    std::error_code error;
    if (files::is_symlink(path, error)) {
      const auto target = files::canonical(path, error);
      if (error) throw FsError("follow the link", path, error.value());
      return target.string();
    }
    const auto absolute = files::absolute(path, error);
    if (error) throw FsError("find", path, error.value());
    return absolute.string();
  }

  FsKind kind(const std::string& path) override {
    struct statfs status {};
    if (uninterrupted([&] { return ::statfs(path.c_str(), &status); }) != 0) throw FsError("look at", path, errno);
    const auto type = static_cast<std::uint64_t>(status.f_type) & 0xFFFFFFFF;
    for (const KnownKind& known : known_kinds) {
      if (known.type == type) return {known.name, known.safe};
    }
    char text[24];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(type));
    return {text, true};
  }
  std::uint64_t free_space(const std::string& path) override {
    struct statvfs status {};
    if (uninterrupted([&] { return ::statvfs(path.c_str(), &status); }) != 0) throw FsError("look at", path, errno);
    return static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
  }

  std::array<std::byte, 16> random_id() override {
    std::random_device random;
    std::array<std::byte, 16> id;
    for (std::byte& byte : id) byte = static_cast<std::byte>(random() & 0xFF);
    return id;
  }
};

}  // namespace

FsError::FsError(std::string_view action, const std::string& path, int error_number)
    : FsError(path, error_number, fs_message(action, path, error_number)) {}
FsError::FsError(const std::string& path, int error_number, const std::string& sentence)
    : WorldError(advice_on(error_number).code, sentence, advice_on(error_number).retry, context_of(path)),
      error_number_{error_number},
      sentence_size_{sentence.size()} {}
FsError::~FsError() = default;

FsFile::~FsFile() = default;
FsReader::~FsReader() = default;
FsLock::~FsLock() = default;
Fs::~Fs() = default;

std::shared_ptr<Fs> Fs::real() { return std::make_shared<RealFs>(); }

std::string Fs::read_all(const std::string& path, std::uint64_t limit) {
  const auto file = read(path);
  const std::uint64_t size = file->size();
  if (size > limit) throw FsError("read the whole of", path, EFBIG);
  std::string bytes(static_cast<std::size_t>(size), '\0');
  bytes.resize(file->read_at(0, std::as_writable_bytes(std::span{bytes})));
  return bytes;
}

namespace detail {

std::string join_path(std::string_view directory, std::string_view name) {
  std::string path{directory};
  if (!path.empty() && path.back() != '/') path.push_back('/');
  return path.append(name);
}

std::string parent_path(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  const std::size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return ".";
  return std::string{path.substr(0, slash == 0 ? 1 : slash)};
}

}  // namespace detail
}  // namespace tidemill
