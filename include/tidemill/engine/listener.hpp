// What the engine tells about its work: events to listeners, and a snapshot of gauges. Fields and their meanings are Spark's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/io/input.hpp"

namespace tidemill {

/// One output operation in one batch. Source: Spark `OutputOperationInfo`.
struct OutputOperationInfo {
  Time batch_time;                            ///< of the batch in which it runs
  std::size_t id = 0;                         ///< in order of registration, from 0
  std::string name;                           ///< "print", "foreach_batch", or the name that was given to it
  std::optional<Time> start_time;             ///< absent until it has begun
  std::optional<Time> end_time;               ///< absent until it is done
  std::optional<std::string> failure_reason;  ///< what it threw, when it failed

  /// end - start.
  [[nodiscard]] std::optional<Duration> duration() const noexcept {
    if (!start_time || !end_time) return std::nullopt;
    return *end_time - *start_time;
  }
};

/// One batch. Source: Spark `BatchInfo`.
struct BatchInfo {
  Time batch_time;                ///< its tick, or when the gate closed
  std::vector<InputInfo> inputs;  ///< what it took, an input each, by stream id
  Time submission_time;           ///< when it was due: its tick, or when the gate closed if nothing held it up
  std::optional<Time> processing_start_time;  ///< of its first output operation
  std::optional<Time> processing_end_time;    ///< of its last output operation
  std::vector<OutputOperationInfo> outputs;   ///< all that have work in it, by id, from its submission on
  std::uint64_t merged_ticks = 0;             ///< earlier ticks that have no batch of their own: too many were waiting

  /// Of all inputs.
  [[nodiscard]] std::size_t num_records() const noexcept {
    std::size_t records = 0;
    for (const InputInfo& input : inputs) records += input.records;
    return records;
  }
  /// How long it waited for earlier batches: start - submission.
  [[nodiscard]] std::optional<Duration> scheduling_delay() const noexcept {
    if (!processing_start_time) return std::nullopt;
    return *processing_start_time - submission_time;
  }
  /// end - start.
  [[nodiscard]] std::optional<Duration> processing_delay() const noexcept {
    if (!processing_start_time || !processing_end_time) return std::nullopt;
    return *processing_end_time - *processing_start_time;
  }
  /// end - submission.
  [[nodiscard]] std::optional<Duration> total_delay() const noexcept {
    if (!processing_end_time) return std::nullopt;
    return *processing_end_time - submission_time;
  }
};

/// Something that happened to an input that data comes to from outside. Source: Spark `ReceiverInfo`.
struct ReceiverInfo {
  std::size_t stream_id = 0;  ///< of the input, by which BatchInfo::inputs knows it too
  std::string name;           ///< of the input
  std::string message;        ///< what went wrong, or why it stopped; empty for a start
};

/// Derive from it and override what you want to hear.
/// Threads: all calls of one context come one at a time, from the thread that runs its batches, between and around the
///          batches; so be quick. What a listener throws is logged and forgotten. It must not stop the context; it may call
///          `request_stop`.
/// Source: Spark `StreamingListener`.
class TIDEMILL_API StreamingListener {
 public:
  virtual ~StreamingListener();
  /// The context was started at `time`.
  virtual void on_streaming_started([[maybe_unused]] Time time) {}
  /// A receiver has started, or a socket is connected; also when it happens again.
  virtual void on_receiver_started([[maybe_unused]] const ReceiverInfo& receiver) {}
  /// Something went wrong, or was reported; the input goes on unless it is told to have stopped.
  virtual void on_receiver_error([[maybe_unused]] const ReceiverInfo& receiver) {}
  /// It has stopped, or lost its connection: for good, or until it starts again.
  virtual void on_receiver_stopped([[maybe_unused]] const ReceiverInfo& receiver) {}
  /// The batch has taken its inputs.
  virtual void on_batch_submitted([[maybe_unused]] const BatchInfo& batch) {}
  /// Before the first output operation of the batch runs.
  virtual void on_batch_started([[maybe_unused]] const BatchInfo& batch) {}
  /// Also after a batch that failed: look at the outputs' failure_reason.
  virtual void on_batch_completed([[maybe_unused]] const BatchInfo& batch) {}
  /// Before it runs.
  virtual void on_output_operation_started([[maybe_unused]] const OutputOperationInfo& output) {}
  /// Also when it failed.
  virtual void on_output_operation_completed([[maybe_unused]] const OutputOperationInfo& output) {}
};

/// How fast an input may take records in.
struct InputRate {
  std::size_t stream_id = 0;       ///< of the input
  std::string name;                ///< of the input
  std::optional<double> estimate;  ///< records a second, the last that backpressure has published
  double limit =
      unlimited_rate;  ///< the rate in force: the estimate, or before it the initial rate, and at most max_rate
};

/// What the checkpoint of a context does, since the start; after the end what it was then.
struct CheckpointMetrics {
  std::optional<Time> durable_until;     ///< the newest batch that is done for good: no later run has it again
  std::uint64_t plans = 0;               ///< batches written down before they ran
  std::uint64_t commits = 0;             ///< batches whose changes are durable
  std::uint64_t commit_bytes = 0;        ///< what those changes took
  std::size_t commits_in_flight = 0;     ///< batches that are done, and whose changes are not durable yet
  std::size_t bytes_in_flight = 0;       ///< of those changes
  std::uint64_t commit_log_bytes = 0;    ///< since the newest snapshot: what a start reads besides it
  std::uint64_t snapshots = 0;           ///< that were made
  std::uint64_t snapshot_failures = 0;   ///< each is tried again when the log has grown further; also in the log
  std::string last_snapshot_failure;     ///< in words
  std::uint64_t snapshot_bytes = 0;      ///< size of the newest
  std::uint64_t state_repairs = 0;       ///< damage found at the start that older copies made up for; also in the log
  std::uint64_t received_log_bytes = 0;  ///< of the logs of receivers and sockets, on disk
  std::uint64_t received_blocks_lost =
      0;  ///< damaged ones, left out at the start (BlockLogOptions::skip_corrupt_blocks)
};

/// Something that a context is doing just now, and that may be waiting for a function of yours, a disk or a network.
struct RunningStage {
  /// What it does.
  enum class Kind : std::uint8_t {
    cut,         ///< takes what has arrived at an input
    plan,        ///< writes down what the batch takes
    generate,    ///< asks an output operation for its job: functions given to `transform` run
    output,      ///< an output operation
    settle,      ///< lets streams with state catch up
    commit,      ///< hands what the states have become to the checkpoint, and lets go of what it needs no more
    listener,    ///< tells listeners
    input_task,  ///< what inputs have to do between batches
    stop_input,  ///< stops an input
    close,       ///< closes sinks and checkpoint
  };
  Kind kind = Kind::cut;  ///< what it does
  std::string name;       ///< of the input, output operation or operator; empty: it is about none, or about all
  std::optional<Time> batch_time;  ///< absent: it belongs to no batch
  Time since;                      ///< by the context's clock
};

/// For messages: "the output operation \"print\" of the batch of …".
[[nodiscard]] TIDEMILL_API std::string to_string(const RunningStage& stage);

/// What has become of a stop that was not waited for to its end.
struct StopReport {
  bool is_stopped = false;            ///< the context has ended, and its threads are joined
  bool is_drained = false;            ///< and everything that was received has been worked on
  std::vector<RunningStage> running;  ///< what it still waits for, the oldest first; empty once it is stopped
};

/// Counters and gauges since the start. Source: Spark `StreamingSource`.
struct StreamingMetrics {
  std::size_t receivers = 0;                  ///< inputs to which data is pushed: receivers and sockets
  std::uint64_t total_completed_batches = 0;  ///< well or not
  std::uint64_t total_failed_batches = 0;     ///< of the completed ones, those with a failed output operation
  std::uint64_t total_received_records = 0;   ///< in all batches, also those that failed before they had a job
  std::uint64_t total_processed_records = 0;  ///< in batches that were completed
  std::uint64_t unprocessed_batches = 0;      ///< waiting + running
  std::uint64_t waiting_batches = 0;          ///< ticks that have passed and whose batch has not begun
  std::uint64_t running_batches = 0;          ///< more than 1 only with concurrent jobs
  std::uint64_t merged_ticks = 0;     ///< ticks without a batch of their own (StreamingOptions::max_pending_batches)
  std::uint64_t receiver_errors = 0;  ///< of all inputs, as listeners hear of them
  std::vector<RunningStage> running_stages;     ///< the oldest first; several only with concurrent jobs
  std::vector<InputRate> input_rates;           ///< of receivers and sockets
  std::optional<CheckpointMetrics> checkpoint;  ///< absent: the context has none, or has not been started
  /// The last whose inputs were taken, also when it failed before it had a job. Until it is completed it has no times of
  /// processing and no outputs.
  std::optional<BatchInfo> last_received_batch;
  std::optional<BatchInfo> last_completed_batch;  ///< absent before the first
};

/// A listener that logs, every `batches` batches, the distribution of processing time and total delay.
/// Source: Spark `StatsReportListener`.
class TIDEMILL_API StatsReportListener final : public StreamingListener {
 public:
  /// `log` gets the lines, every `batches` batches.
  explicit StatsReportListener(Logger log, std::size_t batches = 10);
  void on_batch_completed(const BatchInfo& batch) override;

 private:
  Logger log_;
  std::size_t batches_;
  std::vector<Duration> processing_;
  std::vector<Duration> total_;
};

}  // namespace tidemill
