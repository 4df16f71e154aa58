// An input that gives each batch the files that have appeared in a directory since the batch before. It decides which files
// those are and reads none of them; batches over files are batch/files.hpp.
//
// How to write files for it: elsewhere on the same file system, and then move them in, so that none is seen half written.
// A file is taken once; what is appended to it in the next minute (min_remember) is not read, and a change after that makes
// it a new file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "tidemill/batch/context.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/io/input.hpp"

namespace tidemill {

struct DirectoryOptions {
  /// Which files are meant. Absent: those whose names do not begin with ".".
  std::function<bool(const std::filesystem::path&)> filter = nullptr;
  /// Whether files that were last changed before the stream was started are left out.
  bool new_files_only = true;
  /// For how long files are remembered that were taken, rounded up to a whole number of intervals. A file must become
  /// visible within this time of its modification time, or it is lost.
  /// Source: Spark `spark.streaming.fileStream.minRememberDuration`.
  Duration min_remember = std::chrono::seconds{60};
  /// Text only: a longer line fails the batch.
  std::size_t max_line_bytes = std::size_t{1} << 20;
};

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
  DirectoryMonitor(std::filesystem::path directory, Duration interval, Time start, DirectoryOptions options = {});

  struct Selection {
    std::vector<std::filesystem::path> files;  ///< by modification time, then name
    std::string error;  ///< why nothing, or not everything, could be looked at; empty when all is well
  };
  /// The files of the batch of `batch_time`. Batch times increase from call to call.
  /// Errors: UserCodeError when the filter throws; then nothing was selected.
  [[nodiscard]] Selection select(Time batch_time);

  [[nodiscard]] const std::filesystem::path& directory() const noexcept { return directory_; }
  [[nodiscard]] Duration remember_window() const noexcept { return window_; }

 private:
  void forget_before(Time oldest);

  const std::filesystem::path directory_;
  const DirectoryOptions options_;
  const Duration window_;
  const std::optional<Time> start_;                                // absent: files of any age
  std::deque<std::pair<Time, std::vector<std::string>>> batches_;  // names selected, oldest first
  std::unordered_set<std::string> selected_;                       // the same names
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

  /// The files of the last cut; they can be taken once. Errors: UserCodeError when the filter threw.
  [[nodiscard]] std::vector<std::filesystem::path> take_cut();

 private:
  const std::filesystem::path directory_;
  const DirectoryOptions options_;
  std::optional<DirectoryMonitor> monitor_;  // kept from run to run, so that no file is taken twice
  InputHost* host_ = nullptr;                // null when not started
  std::size_t stream_id_ = 0;
  std::vector<std::filesystem::path> cut_;
  std::exception_ptr cut_error_;
};

}  // namespace detail

/// Errors: ConfigError when the path is empty or min_remember is not positive. A directory that is not there is no error here.
[[nodiscard]] TIDEMILL_API std::shared_ptr<detail::DirectoryInput> make_directory_input(
    const std::shared_ptr<detail::Runtime>& runtime, std::filesystem::path directory, DirectoryOptions options = {});

}  // namespace tidemill
