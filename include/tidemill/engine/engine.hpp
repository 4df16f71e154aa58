// The spine that carries both front ends: the gate closes a batch, inputs are cut, every output operation makes its job, jobs
// run in order, results are published. Untyped and compiled once; a DStream or a table is a stranger here.
//
// One thread drives a context (its own, or the host's that calls `step`). There is no separate timer: what belongs to a batch
// follows from the arrival stamps of the data (io/inbox.hpp), so a cut that comes late, because the batch before was slow,
// falls where it should have. Ticks are therefore never lost, and an idle batch costs one wake-up. Only when more of them wait
// than EngineOptions::max_pending_batches are ticks merged: then a later batch takes what they would have had.
//
// With EngineOptions::concurrent_jobs above 1 output operations run on threads of their own, and the driving thread goes on
// to the next batch as long as fewer than so many are running or waiting. It still cuts, generates and settles one batch after
// the other, and it settles a batch before its jobs begin, so states and windows move in order of time whatever the jobs do
// (docs/adr/0010).
#pragma once

#include <cstddef>
#include <exception>
#include <functional>
#include <iosfwd>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "tidemill/batch/context.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/engine/gate.hpp"
#include "tidemill/engine/listener.hpp"
#include "tidemill/engine/rate.hpp"
#include "tidemill/engine/recovery.hpp"
#include "tidemill/io/input.hpp"
#include "tidemill/io/sink.hpp"
#include "tidemill/state/durable_state.hpp"
#include "tidemill/state/host_state.hpp"

namespace tidemill::detail {

class StreamingEngine;

/// What an operator does with keys. That matters to a program which sees a part of its input (StreamingEngine::see_part).
enum class KeyUse : std::uint8_t {
  keeps,    ///< records keep their keys
  changes,  ///< what comes out may have other keys, or none
  by_key,   ///< it brings the records of a key together, and keeps the keys
  of_all,   ///< it brings all records together
};

/// A vertex of the stream graph: what the engine has to know of a stream.
class TIDEMILL_API GraphNode {
 public:
  /// Registers nothing by itself: see StreamingEngine::add.
  GraphNode(std::shared_ptr<StreamingEngine> engine, std::string op, Duration slide);
  virtual ~GraphNode();
  GraphNode(const GraphNode&) = delete;
  GraphNode& operator=(const GraphNode&) = delete;

  [[nodiscard]] const std::shared_ptr<StreamingEngine>& engine() const noexcept { return engine_; }
  [[nodiscard]] const std::string& op() const noexcept { return op_; }
  /// Time between two batches of this stream; zero when the gate opens on arrivals.
  [[nodiscard]] Duration slide() const noexcept { return slide_; }

  /// Where the node stands, from its source on: "socket_text.reduce_by_key.update_state_by_key". The name of its state in a
  /// checkpoint, unless it was given one.
  [[nodiscard]] const std::string& place() const noexcept { return place_; }
  [[nodiscard]] const std::string& name() const noexcept { return name_.empty() ? place_ : name_; }
  /// Whether give_name has been called.
  [[nodiscard]] bool is_pinned() const noexcept { return !name_.empty(); }
  /// Errors: PlanError once the context is started; ConfigError for a name that is empty or has characters other than letters,
  /// digits and `_ - . #`.
  void give_name(std::string name);

  /// Whether the stream has a batch at `t`, at which the context has one: a windowed stream on its slide, others at any time
  /// after the zero time, so that what an earlier run planned keeps its time whatever the interval is now. [B2]
  [[nodiscard]] bool has_batch_at(Time t) const noexcept;
  /// Whether the stream is a window, or made of one.
  [[nodiscard]] bool is_windowed() const noexcept { return is_windowed_; }
  /// Whether a program that sees a part of its input sees all records of those keys that the stream has.
  [[nodiscard]] bool keys_are_whole() const noexcept { return keys_are_whole_; }
  void say_keys_are_whole() noexcept { keys_are_whole_ = true; }

  /// The inputs have been cut for the batch of time t: a stream that reads one takes its part now, needed or not.
  virtual void on_cut([[maybe_unused]] Time t) {}
  /// The output operations of batch t have run, or failed: a stateful stream catches up with t, asked for or not. Called in
  /// the order of registration. What it throws is reported like the failure of an output operation.
  virtual void settle([[maybe_unused]] Time t) {}
  /// The first time for which this stream has still to ask its parents, because they failed when it did; absent: none that has
  /// passed. No stream lets go of batches of that time and later, so that what failed finds again what it was made of.
  [[nodiscard]] virtual std::optional<Time> needs_from() const { return std::nullopt; }
  /// Lets go of batches of `last` and before.
  virtual void forget(Time last) noexcept = 0;

 protected:
  /// Says from which stream this one is made, for `place`; said by constructors.
  void grow_from(const GraphNode& parent);
  void grow_from(const GraphNode& parent, const GraphNode& other);
  /// Said by constructors once they have grown; `whole_before`: the keys of all parents are.
  /// Errors: PlanError "needs_whole_input" in a program that sees a part of what the operator has to see.
  void use_keys(KeyUse use, bool whole_before);
  void joins(const GraphNode& other) { is_windowed_ = is_windowed_ || other.is_windowed_; }
  /// For a window of the parent.
  void grow_from_window(const GraphNode& parent) {
    grow_from(parent);
    is_windowed_ = true;
  }

 private:
  std::shared_ptr<StreamingEngine> engine_;  // shared: handles to streams may outlive their context
  std::string op_;
  Duration slide_;
  std::string place_;
  std::string name_;  // empty: none was given
  bool is_windowed_ = false;
  bool keys_are_whole_ = false;
};

/// Something that happens once a batch. `generate` looks at the streams and returns the job that does the work.
class TIDEMILL_API OutputOperation {
 public:
  explicit OutputOperation(std::string name) : name_{std::move(name)} {}
  virtual ~OutputOperation();
  [[nodiscard]] const std::string& name() const noexcept { return name_; }

  /// The job of time t, which is called once or not at all; null when there is none. With concurrent jobs several are called
  /// at a time. It is valid as long as the operation.
  [[nodiscard]] virtual std::function<void()> generate(Time t) = 0;

 private:
  const std::string name_;
};

/// How a context works.
struct EngineOptions {
  std::optional<Duration> interval;  ///< absent: on arrival
  OnArrival on_arrival;
  std::optional<Duration> graceful_stop_timeout;
  std::ostream* output = nullptr;  ///< where print() writes; not owned; null: the standard output
  std::optional<Backpressure> backpressure;
  std::size_t max_pending_batches = 1000;
  std::size_t concurrent_jobs = 1;
  std::optional<Duration> watchdog;  ///< absent: 30 s on threads of our own, none with Drive::by_host; zero: none
};

/// Threads: registration by one thread before the start; after it, every public member by any thread unless it says otherwise.
class TIDEMILL_API StreamingEngine final : public std::enable_shared_from_this<StreamingEngine> {
 public:
  /// Errors: ConfigError naming the value.
  StreamingEngine(std::shared_ptr<Runtime> runtime, EngineOptions options);
  ~StreamingEngine();
  StreamingEngine(const StreamingEngine&) = delete;
  StreamingEngine& operator=(const StreamingEngine&) = delete;

  // ---- building the graph; PlanError "illegal_state" once started -------------------------------------------------------
  void add(const std::shared_ptr<GraphNode>& node);
  /// Returns the id of the stream.
  std::size_t add_input(std::shared_ptr<Input> input);
  /// The stream of that input, whose name a checkpoint uses for it.
  void name_input(std::size_t id, std::shared_ptr<const GraphNode> node);
  void add_output(std::shared_ptr<OutputOperation> output);
  /// Errors: PlanError "ambiguous_name" when there is one of that name.
  void add_sink(std::shared_ptr<SinkTransactions> sink);
  /// A state that checkpoints keep, under the name of its node; `part` tells several states of one node apart.
  void add_state(std::shared_ptr<const GraphNode> node, std::shared_ptr<DurableState> state, std::string part = {});
  /// A state that no checkpoint can keep, and why: such a program runs without one only.
  void add_unsaved_state(std::shared_ptr<const GraphNode> node, std::string why);
  /// A state that shows a batch to the host when the transactions of the batch have committed.
  void add_host_state(std::shared_ptr<HostState> state);
  void check_can_change(const char* what) const;
  /// The program is one of several that share their input, and sees the part of this name; said before anything else is added.
  /// From then on operators that have to see more are refused.
  void see_part(std::string name);
  void remember(Duration d);
  /// Batches are planned, and states kept, in this directory. Errors: PlanError when another was named before; ConfigError.
  void checkpoint(std::string directory, RecoveryOptions options, Existing existing);

  // ---- facts --------------------------------------------------------------------------------------------------------------
  [[nodiscard]] const std::shared_ptr<Runtime>& runtime() const noexcept;
  [[nodiscard]] Duration batch_interval() const noexcept;  ///< zero when the gate opens on arrivals
  [[nodiscard]] bool gate_is_on_arrival() const noexcept;
  [[nodiscard]] std::ostream& output() const noexcept;
  /// Of the input, which the program sees; empty: all of it.
  [[nodiscard]] const std::string& part() const noexcept;
  [[nodiscard]] StreamingState state() const noexcept;
  [[nodiscard]] Time zero_time() const noexcept;  ///< meaningful once started
  /// The last batch of the run that this one continues: later ones have been worked on here. The zero time without one.
  [[nodiscard]] Time resumed_from() const noexcept;
  /// No later batch was worked on by an earlier run, or planned by one at a time that is no tick of this one: what is forgotten
  /// of them cannot be computed again.
  [[nodiscard]] Time remembered_from() const noexcept;
  /// The scope of the batch that is being generated or was last.
  [[nodiscard]] std::shared_ptr<const Scope> scope_of(Time t);
  /// The latest time for which the inputs have been cut: later batches do not exist yet. Needs the graph mutex.
  [[nodiscard]] Time cut_until() const noexcept;
  /// Held while streams compute their batches: streams are not thread-safe by themselves.
  [[nodiscard]] std::recursive_mutex& graph_mutex() noexcept;
  /// Held while print() writes: several may at once.
  [[nodiscard]] std::mutex& print_mutex() noexcept;

  // ---- life -----------------------------------------------------------------------------------------------------------------
  void start(Drive drive);
  /// Runs the oldest batch that is due, on the calling thread. False when none is.
  bool step();
  /// When the next batch is due, as far as it is known; absent while the gate waits for an arrival.
  [[nodiscard]] std::optional<Time> next_batch_time() const;
  /// Returns whether everything that was received has been worked on.
  bool stop(StopMode mode);
  void request_stop(StopMode mode);
  /// The same as stop, for at most `timeout` (real time).
  StopReport stop_or_timeout(std::chrono::nanoseconds timeout, StopMode mode);
  /// Waits for the end, or for the deadline (real time). True when stopped; throws the first error that was reported.
  bool await_termination(std::optional<std::chrono::nanoseconds> timeout);
  /// The last error that was reported since the last call; null when there was none.
  [[nodiscard]] std::exception_ptr take_last_error() noexcept;
  /// Calls `done` once: at the end, or with the first error. At once when that has been.
  void when_terminated(std::function<void(std::exception_ptr)> done);
  /// The end of the context object: stops what runs and lets go of the graph. Also from an output operation of its own: then
  /// it ends with the batch.
  void shut_down() noexcept;

  /// What a batch found in the data of an input, long after it was cut: told as if the input had said it.
  void receiver_error(std::size_t stream_id, const std::string& name, const std::string& message) noexcept;

  void add_listener(std::shared_ptr<StreamingListener> listener);
  void remove_listener(const std::shared_ptr<StreamingListener>& listener);
  [[nodiscard]] StreamingMetrics metrics() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidemill::detail
