// The surroundings of batches and streams: what they are called, which threads work on them, which clock they follow and
// where they log. It takes the role of Spark's SparkContext and of its `local[N]` master.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tidemill/core/clock.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/core/log.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/exec/executor.hpp"

namespace tidemill {

class Fs;
template <class T>
class Batch;
template <class T>
class Broadcast;
template <class N>
class SumAccumulator;
template <class T>
class CollectionAccumulator;
/// What an accumulator of your own keeps: a copyable object that is neutral when made, that takes things in by `add`, and
/// that takes in another of its kind by `merge`.
template <class S>
concept AccumulatorState = std::copy_constructible<S> && requires(S state, const S& other) { state.merge(other); };
template <AccumulatorState State>
class Accumulator;

struct ContextOptions {
  /// Appears in errors, logs and thread names.
  std::string app_name = "tidemill";
  /// Threads that may work on one batch, the one that runs it included. 0 means one per core.
  /// Not used when `executor` is given.
  std::size_t parallelism = 0;
  /// The host's own threads instead of ours, for example `tidemill::asio_executor(io_context, 4)`.
  std::shared_ptr<Executor> executor = nullptr;
  /// The time that gates and timestamps follow; the system's clock when absent.
  std::shared_ptr<Clock> clock = nullptr;
  /// What the library has to say goes here; nowhere when absent.
  Logger log = nullptr;
  /// Where files, output and checkpoints are written and read, and directories looked at; the file system of this process when
  /// absent. For tests: `testing::SimFs`.
  std::shared_ptr<Fs> fs = nullptr;
};

namespace detail {

/// What a Context stands for; shared by the handles, the batches and the streams made from them, so it goes when the last
/// of them goes.
class TIDEMILL_API Runtime {
 public:
  explicit Runtime(ContextOptions options);
  ~Runtime();

  const std::string app_name;
  const std::shared_ptr<Clock> clock;        // never null
  const std::shared_ptr<Executor> executor;  // never null
  WorkerPool* const own_workers;             // the executor, when it is ours; else null
  const std::shared_ptr<Fs> fs;              // never null

  /// Hands a line to the host's logger; swallows what that throws.
  void log(LogLevel level, std::string_view line) const noexcept;

 private:
  const Logger logger_;
};

/// What the batches of one interval have in common.
struct Scope {
  std::shared_ptr<Runtime> runtime;  // shared: a batch may outlive the handles of its context
  std::optional<Time> batch_time;    // for error messages; absent for batches that no stream made
};

}  // namespace detail

/// A handle to the surroundings of batches and streams. Copies are the same context. Several contexts live side by side
/// in one process. Worker threads start when the first batch is large enough to need them.
/// Threads: every member may be called by any thread.
/// Source: Spark `SparkContext`.
class TIDEMILL_API Context {
 public:
  using Options = ContextOptions;

  /// Errors: ConfigError when a value is out of range; the message names it and the range.
  explicit Context(Options options = {});
  /// The context that a batch or stream belongs to.
  explicit Context(std::shared_ptr<detail::Runtime> runtime) noexcept : runtime_{std::move(runtime)} {}

  [[nodiscard]] const std::string& app_name() const noexcept;
  /// Threads that may work on one batch, and the default number of partitions. Source: Spark `defaultParallelism`.
  [[nodiscard]] std::size_t parallelism() const noexcept;
  [[nodiscard]] Clock& clock() const noexcept;

  /// A batch of `records` in `partitions` slices of nearly equal size (default: `parallelism()`; never more than records).
  /// Source: Spark `parallelize`.
  template <class T>
  [[nodiscard]] Batch<T> parallelize(std::vector<T> records, std::size_t partitions = 0) const;

  /// A batch without records, in one partition. Source: Spark `emptyRDD`.
  template <class T>
  [[nodiscard]] Batch<T> empty_batch() const;

  /// The lines of `text` as views into it. CRLF and LF both end a line; an empty line is an empty record; a last line needs
  /// no newline. Partitions are cut at line ends (default: `parallelism()`, fewer for short texts).
  [[nodiscard]] Batch<std::string_view> text_batch(std::string text, std::size_t partitions = 0) const;

  /// The lines of a file, or of all files of a directory whose names begin with neither "." nor "_" (as written by
  /// `save_as_text_file`), in order of name. Read when an action needs them, and held in memory as long as the batch.
  /// Errors: SourceError (from the action) naming the path.   Source: Spark `textFile`.
  [[nodiscard]] Batch<std::string_view> text_file(const std::filesystem::path& path, std::size_t partitions = 0) const;

  /// The records that `save_as_object_file` wrote. Errors: SourceError naming file, byte offset, expected and found.
  template <class T>
  [[nodiscard]] Batch<T> object_file(const std::filesystem::path& path) const;

  /// The numbers begin, begin + step, … before `end`, made when they are needed. Errors: ConfigError when step is 0.
  /// Source: Spark `range`.
  [[nodiscard]] Batch<std::int64_t> range(std::int64_t begin, std::int64_t end, std::int64_t step = 1,
                                          std::size_t partitions = 0) const;

  /// A value that user functions read, shared by all that capture the handle (broadcast.hpp).
  template <class T>
  [[nodiscard]] Broadcast<T> broadcast(T value) const;

  /// What user functions add to (accumulator.hpp).
  [[nodiscard]] SumAccumulator<std::int64_t> long_accumulator() const;
  [[nodiscard]] SumAccumulator<double> double_accumulator() const;
  template <class T>
  [[nodiscard]] CollectionAccumulator<T> collection_accumulator() const;
  /// `State` has `add(value)` and `merge(const State&)`.
  template <class State>
  [[nodiscard]] Accumulator<State> accumulator(State zero) const;

  /// For those who build on batches (streams, tests).
  [[nodiscard]] const std::shared_ptr<detail::Runtime>& runtime() const noexcept { return runtime_; }

 private:
  std::shared_ptr<detail::Runtime> runtime_;  // shared with batches and streams
};

}  // namespace tidemill
