#include "tidemill/io/directory.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <sys/stat.h>
#include <system_error>
#include <tuple>

#include "tidemill/core/error.hpp"

namespace tidemill {
namespace {

namespace fs = std::filesystem;
using Nanoseconds = std::chrono::nanoseconds;

Duration window_of(Duration interval, Duration min_remember) {
  if (interval <= Duration::zero())
    throw ConfigError("a directory is looked at once an interval, and the interval is " + to_string(interval) +
                      "; it must be positive");
  if (min_remember <= Duration::zero())
    throw ConfigError("min_remember must be positive, and it is " + to_string(min_remember));
  const auto intervals = min_remember / interval + (min_remember % interval == Duration::zero() ? 0 : 1);
  return interval * intervals;
}

bool is_meant(const DirectoryOptions& options, const fs::path& path, Time batch_time) {
  if (!options.filter) return !path.filename().native().starts_with('.');
  try {
    return options.filter(path);
  } catch (...) {
    throw UserCodeError{std::current_exception(),
                        {.application = {},
                         .op = "filter of directory " + path.parent_path().string(),
                         .batch_time = batch_time,
                         .partition = {},
                         .offset = {}}};
  }
}

struct Candidate {
  Nanoseconds modified;  // since the epoch, as the file system has it
  std::string name;
};

// The regular files of a directory that the filter lets pass. Names `error` what cannot be looked at.
std::vector<Candidate> list(const fs::path& directory, const DirectoryOptions& options, Time batch_time,
                            std::string& error) {
  std::vector<Candidate> files;
  std::error_code failure;
  for (fs::directory_iterator entry{directory, failure}, end; !failure && entry != end; entry.increment(failure)) {
    if (!is_meant(options, entry->path(), batch_time)) continue;
    struct stat status {};
    if (::stat(entry->path().c_str(), &status) != 0) {
      // A file that has gone since it was listed, or a link to nowhere, is no error.
      if (errno != ENOENT) error = entry->path().string() + ": " + std::generic_category().message(errno);
      continue;
    }
    if (!S_ISREG(status.st_mode)) continue;
    files.push_back({std::chrono::seconds{status.st_mtim.tv_sec} + Nanoseconds{status.st_mtim.tv_nsec},
                     entry->path().filename().string()});
  }
  if (failure) {
    error = directory.string() + ": the directory cannot be listed: " + failure.message() + "; the batch has no files";
    files.clear();
  }
  return files;
}

}  // namespace

DirectoryMonitor::DirectoryMonitor(fs::path directory, Duration interval, Time start, DirectoryOptions options)
    : directory_{std::move(directory)},
      options_{std::move(options)},
      window_{window_of(interval, options_.min_remember)},
      start_{options_.new_files_only ? std::optional{start} : std::nullopt} {}

DirectoryMonitor::Selection DirectoryMonitor::select(Time batch_time) {
  Selection selection;
  std::vector<Candidate> files = list(directory_, options_, batch_time, selection.error);

  const Time oldest = batch_time - window_;
  const Nanoseconds threshold = std::max(start_.value_or(oldest), oldest).time_since_epoch();
  const Nanoseconds latest = batch_time.time_since_epoch();
  forget_before(oldest);
  std::erase_if(files, [&](const Candidate& file) {
    return file.modified <= threshold || file.modified > latest || selected_.contains(file.name);
  });
  std::sort(files.begin(), files.end(), [](const Candidate& a, const Candidate& b) {
    return std::tie(a.modified, a.name) < std::tie(b.modified, b.name);
  });

  std::vector<std::string> names;
  names.reserve(files.size());
  selection.files.reserve(files.size());
  for (Candidate& file : files) {
    selection.files.push_back(directory_ / file.name);
    names.push_back(std::move(file.name));
  }
  if (!names.empty()) {
    selected_.insert(names.begin(), names.end());
    batches_.emplace_back(batch_time, std::move(names));
  }
  return selection;
}

// A file that an older batch selected cannot pass the threshold any more, unless it was changed since and so is new.
void DirectoryMonitor::forget_before(Time oldest) {
  while (!batches_.empty() && batches_.front().first < oldest) {
    for (const std::string& name : batches_.front().second) selected_.erase(name);
    batches_.pop_front();
  }
}

namespace detail {

DirectoryInput::DirectoryInput(fs::path directory, DirectoryOptions options)
    : directory_{std::move(directory)}, options_{std::move(options)} {
  if (directory_.empty()) throw ConfigError("the path of a directory input is empty; name a directory");
  if (options_.min_remember <= Duration::zero())
    throw ConfigError("min_remember must be positive, and it is " + to_string(options_.min_remember));
}

std::string DirectoryInput::name() const { return "directory " + directory_.string(); }

const char* DirectoryInput::refuses_on_arrival() const noexcept {
  return "a directory is looked at once every batch interval, and nothing rings when a file appears; give the "
         "StreamingContext an interval";
}

void DirectoryInput::start(InputHost& host, std::size_t stream_id) {
  if (!monitor_) monitor_.emplace(directory_, host.batch_interval(), host.runtime()->clock->now(), options_);
  host_ = &host;
  stream_id_ = stream_id;
}

void DirectoryInput::stop() noexcept { host_ = nullptr; }

InputInfo DirectoryInput::cut(Time t, std::size_t) {
  InputInfo info{.stream_id = stream_id_, .name = name(), .records = 0, .metadata = {}};
  cut_.clear();
  cut_error_ = nullptr;
  if (host_ == nullptr) return info;

  const auto begin = std::chrono::steady_clock::now();
  DirectoryMonitor::Selection selection;
  try {
    selection = monitor_->select(t);
  } catch (...) {
    cut_error_ = std::current_exception();  // the batch over the files fails, not the cut of all inputs
    return info;
  }
  const auto taken = std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now() - begin);
  if (taken > host_->batch_interval()) {
    host_->runtime()->log(LogLevel::warning, name() + ": listing it took " + to_string(taken) +
                                                 ", longer than the batch interval of " +
                                                 to_string(host_->batch_interval()) +
                                                 "; keep fewer files there, or give a longer interval");
  }
  if (!selection.error.empty()) host_->receiver_error(stream_id_, name(), selection.error);
  for (const fs::path& file : selection.files) {
    if (!info.metadata.empty()) info.metadata += '\n';
    info.metadata += file.string();
  }
  cut_ = std::move(selection.files);
  return info;
}

std::vector<fs::path> DirectoryInput::take_cut() {
  if (cut_error_) std::rethrow_exception(std::exchange(cut_error_, nullptr));
  return std::exchange(cut_, {});
}

}  // namespace detail

std::shared_ptr<detail::DirectoryInput> make_directory_input(const std::shared_ptr<detail::Runtime>&,
                                                             fs::path directory, DirectoryOptions options) {
  return std::make_shared<detail::DirectoryInput>(std::move(directory), std::move(options));
}

}  // namespace tidemill
