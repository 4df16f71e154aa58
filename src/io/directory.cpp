#include "tidemill/io/directory.hpp"

#include <algorithm>
#include <chrono>
#include <tuple>

#include "tidemill/core/codec.hpp"
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

// Nothing when there is no regular file of that name.
std::optional<DirectoryFile> look_at(Fs& disk, const fs::path& path) {
  const std::optional<FsStatus> status = disk.status(path.string());
  if (!status || status->type != FsStatus::Type::file) return std::nullopt;
  return DirectoryFile{
      .name = path.filename().string(), .modified = status->modified, .size = status->size, .inode = status->inode};
}

// The regular files of a directory that the filter lets pass. Says in `error` what cannot be looked at.
std::vector<DirectoryFile> list(Fs& disk, const fs::path& directory, const DirectoryOptions& options, Time batch_time,
                                std::string& error) {
  std::vector<std::string> names;
  try {
    names = disk.list(directory.string());
  } catch (const FsError& failure) {
    error = failure.sentence() + "; the batch has no files";
    return {};
  }
  std::vector<DirectoryFile> files;
  for (const std::string& name : names) {
    const fs::path path = directory / name;
    if (!is_meant(options, path, batch_time)) continue;
    try {
      // A file that has gone since it was listed, or a link to nowhere, is no error.
      if (auto file = look_at(disk, path)) files.push_back(*std::move(file));
    } catch (const FsError& failure) {
      error = failure.sentence();
    }
  }
  return files;
}

}  // namespace

DirectoryMonitor::DirectoryMonitor(fs::path directory, Duration interval, Time start, DirectoryOptions options,
                                   std::shared_ptr<detail::DirectoryMemory> memory, std::shared_ptr<Fs> fs)
    : directory_{std::move(directory)},
      options_{std::move(options)},
      window_{window_of(interval, options_.min_remember)},
      start_{options_.new_files_only ? std::optional{start} : std::nullopt},
      memory_{memory ? std::move(memory) : std::make_shared<detail::DirectoryMemory>()},
      fs_{fs ? std::move(fs) : Fs::real()} {}

DirectoryMonitor::Selection DirectoryMonitor::select(Time batch_time) {
  Selection selection;
  std::vector<DirectoryFile> files = list(*fs_, directory_, options_, batch_time, selection.error);

  // The first batch of a run that continues another looks back to the last batch of that one, however long ago it was.
  const Time oldest = std::min(batch_time, memory_->resumed_from().value_or(batch_time)) - window_;
  const Nanoseconds threshold = std::max(start_.value_or(oldest), oldest).time_since_epoch();
  const Nanoseconds latest = batch_time.time_since_epoch();
  memory_->forget_before(oldest);
  std::erase_if(files, [&](const DirectoryFile& file) {
    return file.modified <= threshold || file.modified > latest || memory_->contains(file.name);
  });
  std::sort(files.begin(), files.end(), [](const DirectoryFile& a, const DirectoryFile& b) {
    return std::tie(a.modified, a.name) < std::tie(b.modified, b.name);
  });
  memory_->remember(batch_time, files);
  memory_->resume_from(std::nullopt);
  selection.files = std::move(files);
  return selection;
}

DirectoryMonitor::Selection DirectoryMonitor::select_again(Time batch_time, std::vector<DirectoryFile> files) {
  Selection selection;
  memory_->remember(batch_time, files);
  memory_->resume_from(batch_time);
  for (DirectoryFile& file : files) {
    const fs::path path = path_of(file);
    const std::optional<DirectoryFile> now = look_at(*fs_, path);
    if (now == file) {
      selection.files.push_back(std::move(file));
      continue;
    }
    const std::string error = path.string() + (now ? ": the file was changed" : ": the file has gone") +
                              " since the batch of " + to_string(batch_time) +
                              " took it in a run that did not finish the batch";
    if (options_.changed_file == ChangedFile::fail)
      throw SourceError(
          "file_changed",
          error + "; put it back as it was, or set DirectoryOptions::changed_file to leave such files out",
          Retry::may_help);
    selection.error += (selection.error.empty() ? "" : "\n") + error;
  }
  return selection;
}

namespace detail {

// The entries: for each file its name with the time of its batch.

StateSchema DirectoryMemory::schema() const {
  return {.kind = "directory", .key = "string", .value = "i64", .parameters = {}};
}

void DirectoryMemory::remember(Time batch_time, const std::vector<DirectoryFile>& files) {
  for (const auto& file : files) {
    if (!selected_.insert(file.name).second) continue;
    by_time_.emplace(batch_time, file.name);
    if (tracking_) changes_.put(0, file.name, batch_time);
  }
}

// A file that an older batch selected cannot pass the threshold any more, unless it was changed since and so is new.
void DirectoryMemory::forget_before(Time oldest) {
  const auto end = by_time_.lower_bound(oldest);
  for (auto entry = by_time_.begin(); entry != end; ++entry) {
    selected_.erase(entry->second);
    if (tracking_) changes_.erase(0, entry->second);
  }
  by_time_.erase(by_time_.begin(), end);
}

void DirectoryMemory::restore(KeyGroup, std::string_view key, std::string_view value) {
  auto name = decode<std::string>(key);
  const auto time = decode<Time>(value);
  if (selected_.insert(name).second) {
    by_time_.emplace(time, std::move(name));
  }
}

void DirectoryMemory::take_changes(StateChanges& to) {
  to.append(changes_);
  changes_.clear();
}

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
  // The times of files come from the kernel's tick, so that a file made now may say that it is somewhat older.
  constexpr Duration kernel_tick = std::chrono::milliseconds{10};
  if (!monitor_) {
    const Time first = host.first_start(stream_id) - kernel_tick;
    if (!memory_->resumed_from())
      memory_->resume_from(first);  // an earlier run may have ended before its first batch did
    monitor_.emplace(directory_, host.batch_interval(), first, options_, memory_, host.runtime()->fs);
  }
  host_ = &host;
  stream_id_ = stream_id;
}

void DirectoryInput::stop() noexcept { host_ = nullptr; }

InputInfo DirectoryInput::cut(Time t, std::size_t) {
  return take([&] {
    const auto begin = std::chrono::steady_clock::now();
    DirectoryMonitor::Selection selection = monitor_->select(t);
    const auto taken = std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now() - begin);
    if (taken > host_->batch_interval()) {
      host_->runtime()->log(LogLevel::warning, name() + ": listing it took " + to_string(taken) +
                                                   ", longer than the batch interval of " +
                                                   to_string(host_->batch_interval()) +
                                                   "; keep fewer files there, or give a longer interval");
    }
    return selection;
  });
}

InputInfo DirectoryInput::replay(Time t, std::string_view plan) {
  return take([&] { return monitor_->select_again(t, decode<std::vector<DirectoryFile>>(plan)); });
}

// A selection that throws fails the batch over the files, not the cut of all inputs; but with a checkpoint there is no plan then,
// and the next run selects again.
InputInfo DirectoryInput::take(FunctionRef<DirectoryMonitor::Selection()> select) {
  InputInfo info{.stream_id = stream_id_, .name = name(), .records = 0, .metadata = {}, .lost = 0};
  cut_.clear();
  cut_error_ = nullptr;
  if (host_ == nullptr) return info;
  DirectoryMonitor::Selection selection;
  try {
    selection = select();
  } catch (...) {
    if (memory_->is_tracked()) throw;
    cut_error_ = std::current_exception();
    return info;
  }
  if (!selection.error.empty()) host_->receiver_error(stream_id_, name(), selection.error);
  for (const DirectoryFile& file : selection.files) {
    if (!info.metadata.empty()) info.metadata += '\n';
    info.metadata += monitor_->path_of(file).string();
  }
  cut_ = std::move(selection.files);
  return info;
}

std::string DirectoryInput::plan() const { return encode(cut_); }

std::vector<fs::path> DirectoryInput::take_cut() {
  if (cut_error_) std::rethrow_exception(std::exchange(cut_error_, nullptr));
  std::vector<fs::path> paths;
  for (const DirectoryFile& file : std::exchange(cut_, {})) paths.push_back(monitor_->path_of(file));
  return paths;
}

}  // namespace detail

std::shared_ptr<detail::DirectoryInput> make_directory_input(const std::shared_ptr<detail::Runtime>&,
                                                             fs::path directory, DirectoryOptions options) {
  return std::make_shared<detail::DirectoryInput>(std::move(directory), std::move(options));
}

}  // namespace tidemill
