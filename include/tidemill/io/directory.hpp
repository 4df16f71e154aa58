// An input that gives each batch the files that have appeared in a directory since the batch before. It decides which files
// those are and reads none of them; batches over files are batch/files.hpp.
//
// How to write files for it: elsewhere on the same file system, and then move them in, so that none is seen half written.
// A file is taken once; what is appended to it in the next minute (min_remember) is not read, and a change after that makes
// it a new file.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "tidemill/batch/context.hpp"
#include "tidemill/batch/text.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/core/fs.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/io/input.hpp"
#include "tidemill/state/durable_state.hpp"

namespace tidemill {

/// A file that a batch has to read a second time was changed, replaced or removed.
enum class ChangedFile : std::uint8_t {
  fail,  ///< the batch fails: its result would not be what it was
  skip,  ///< it is left out, and reported like an error of a receiver
};

struct DirectoryOptions {
  /// Which files are meant. Absent: those whose names do not begin with ".".
  std::function<bool(const std::filesystem::path&)> filter = nullptr;
  /// Whether files that were last changed before the stream was started are left out; up to 10 ms before, they may be
  /// taken, because a file made right after the start can bear a time of the tick of the kernel before.
  bool new_files_only = true;
  /// For how long files are remembered that were taken, rounded up to a whole number of intervals. A file must become
  /// visible within this time of its modification time, or it is lost.
  /// Source: Spark `spark.streaming.fileStream.minRememberDuration`.
  Duration min_remember = std::chrono::seconds{60};
  /// What becomes of a batch that is run again after a restart when one of its files is no longer what it was.
  ChangedFile changed_file = ChangedFile::fail;
  /// Text only: a longer line is left out, and reported like an error of a receiver.
  std::size_t max_line_bytes = detail::default_max_line_bytes;
};

/// A file as it was when it was selected.
struct DirectoryFile {
  std::string name;
  std::chrono::nanoseconds modified{0};  ///< since the epoch, as the file system has it
  std::uint64_t size = 0;
  std::uint64_t inode = 0;
  friend bool operator==(const DirectoryFile&, const DirectoryFile&) = default;
};

namespace detail {

/// Which files the batches of the last remember window have selected: what a restart needs, so that no file is taken twice and
/// none that appeared meanwhile is missed.
class TIDEMILL_API DirectoryMemory final : public DurableState {
 public:
  [[nodiscard]] bool contains(const std::string& name) const { return selected_.contains(name); }
  /// How far back the first batch must look: the last batch of the run that this one continues, or the start.
  [[nodiscard]] std::optional<Time> resumed_from() const noexcept { return resumed_from_; }
  void resume_from(std::optional<Time> last) noexcept { resumed_from_ = last; }
  void remember(Time batch_time, const std::vector<DirectoryFile>& files);
  void forget_before(Time oldest);

  [[nodiscard]] StateSchema schema() const override;
  void track_changes() override { tracking_ = true; }
  [[nodiscard]] bool is_tracked() const noexcept { return tracking_; }
  void restore(KeyGroup group, std::string_view key, std::string_view value) override;
  void restored(Time last) override { resumed_from_ = last; }
  void take_changes(StateChanges& to) override;

 private:
  std::multimap<Time, std::string> by_time_;  // names selected, oldest first
  std::unordered_set<std::string> selected_;  // the same names
  std::optional<Time> resumed_from_;
  bool tracking_ = false;
  StateChanges changes_;  // since the last batch, when they are tracked
};

}  // namespace detail

/// Which files of a directory belong to which batch. A file is selected when
///   - the filter holds for it, and it is a regular file (links are followed; directories below are not looked into),
///   - its modification time is later than the threshold, which is the later of `batch time - remember window` and, with
///     new_files_only, the start,
///   - its modification time is not later than the batch time: a file from the future waits for its time,
///   - no batch of the last remember window has selected it.
/// The remember window is `interval * ceil(min_remember / interval)`. Modification times are compared in nanoseconds.
/// Threads: one at a time.
/// Source:  Spark `FileInputDStream`.
class TIDEMILL_API DirectoryMonitor {
 public:
  /// Errors: ConfigError unless interval and options.min_remember are positive.
  /// What `memory` holds of an earlier run is continued. Without `fs` it is Fs::real().
  DirectoryMonitor(std::filesystem::path directory, Duration interval, Time start, DirectoryOptions options = {},
                   std::shared_ptr<detail::DirectoryMemory> memory = nullptr, std::shared_ptr<Fs> fs = nullptr);

  struct Selection {
    std::vector<DirectoryFile> files;  ///< by modification time, then name
    std::string error;                 ///< why nothing, or not everything, could be looked at; empty when all is well
  };
  /// The files of the batch of `batch_time`. Batch times increase from call to call.
  /// Errors: UserCodeError when the filter throws; then nothing was selected.
  [[nodiscard]] Selection select(Time batch_time);
  /// The files that an earlier run selected for `batch_time`, as far as they are still what they were.
  [[nodiscard]] Selection select_again(Time batch_time, std::vector<DirectoryFile> files);
  [[nodiscard]] std::filesystem::path path_of(const DirectoryFile& file) const { return directory_ / file.name; }

  [[nodiscard]] const std::filesystem::path& directory() const noexcept { return directory_; }
  [[nodiscard]] Duration remember_window() const noexcept { return window_; }

 private:
  const std::filesystem::path directory_;
  const DirectoryOptions options_;
  const Duration window_;
  const std::optional<Time> start_;                  // absent: files of any age
  std::shared_ptr<detail::DirectoryMemory> memory_;  // shared with the input, which shows it to the checkpoint
  const std::shared_ptr<Fs> fs_;                     // shared with the context
};

namespace detail {

/// A DirectoryMonitor as an input. A directory that cannot be listed is a receiver error, and the batch is empty.
class TIDEMILL_API DirectoryInput final : public Input {
 public:
  DirectoryInput(std::filesystem::path directory, DirectoryOptions options);

  [[nodiscard]] std::string name() const override;
  void start(InputHost& host, std::size_t stream_id) override;
  void stop() noexcept override;
  /// Nothing is known to wait: the directory is looked at when a batch is due.
  [[nodiscard]] bool has_pending() const noexcept override { return false; }
  /// Lists the directory. Records are not counted, and `max_records` is not kept; metadata names the files, one a line.
  InputInfo cut(Time t, std::size_t max_records) override;
  [[nodiscard]] const char* refuses_on_arrival() const noexcept override;
  [[nodiscard]] std::string plan() const override;
  InputInfo replay(Time t, std::string_view plan) override;
  [[nodiscard]] std::shared_ptr<DurableState> durable_state() override { return memory_; }

  /// The files of the last cut; they can be taken once. Errors: UserCodeError when the filter threw.
  [[nodiscard]] std::vector<std::filesystem::path> take_cut();
  [[nodiscard]] std::size_t stream_id() const noexcept { return stream_id_; }

 private:
  const std::filesystem::path directory_;
  InputInfo take(FunctionRef<DirectoryMonitor::Selection()> select);

  const DirectoryOptions options_;
  std::shared_ptr<DirectoryMemory> memory_ = std::make_shared<DirectoryMemory>();  // shared with monitor and engine
  std::optional<DirectoryMonitor> monitor_;
  InputHost* host_ = nullptr;  // null when not started
  std::size_t stream_id_ = 0;
  std::vector<DirectoryFile> cut_;
  std::exception_ptr cut_error_;
};

}  // namespace detail

/// Errors: ConfigError when the path is empty or min_remember is not positive. A directory that is not there is no error here.
[[nodiscard]] TIDEMILL_API std::shared_ptr<detail::DirectoryInput> make_directory_input(
    const std::shared_ptr<detail::Runtime>& runtime, std::filesystem::path directory, DirectoryOptions options = {});

}  // namespace tidemill
