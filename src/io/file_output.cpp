#include "tidemill/io/file_output.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <mutex>
#include <set>
#include <system_error>

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
    case ENOTDIR:
      return {"not_found", "a part of the path is a file where a directory is needed", Retry::is_useless};
    case ENAMETOOLONG:
      return {"io", "choose a shorter name: with what is added to it for the time of writing it is too long",
              Retry::is_useless};
    case EMFILE:
    case ENFILE:
      return {"io", "too many files are open: raise the limit (ulimit -n), or use fewer partitions at once",
              Retry::may_help};
    default:
      return {"io", "see the log of the system for the device, and run the batch again", Retry::may_help};
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
  return error == EINVAL || error == ENOTSUP || error == EBADF ? 0 : error;
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
  static_cast<void>(std::exchange(own, Descriptor{}).close_later());
  for (;;) {
    errno = 0;
    const dirent* const entry = ::readdir(entries.get());
    if (entry == nullptr) return errno;
    const std::string_view name{entry->d_name};
    if (name == "." || name == "..") continue;
    bool is_directory = entry->d_type == DT_DIR;
    if (entry->d_type == DT_UNKNOWN) {
      struct stat status {};
      is_directory =
          ::fstatat(directory, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(status.st_mode);
    }
    if (!visit(name, is_directory)) return 0;
  }
}

}  // namespace
}  // namespace tidemill
