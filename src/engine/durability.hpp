// The engine's side of a checkpoint: what the graph calls its states and inputs, whether an earlier run fits this program, and
// the order of things around a batch: plan, run, commit.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "tidemill/checkpoint/checkpoint_store.hpp"
#include "tidemill/core/fs.hpp"
#include "tidemill/engine/listener.hpp"
#include "tidemill/engine/recovery.hpp"
#include "tidemill/io/input.hpp"
#include "tidemill/state/durable_state.hpp"

namespace tidemill::detail {

/// A state as the engine knows it.
struct GraphState {
  std::string name;
  bool is_pinned;                       // by .name("...")
  bool is_windowed;                     // of a window, or of a stream made of one
  std::shared_ptr<DurableState> state;  // shared with its operator; null: it cannot be kept
  std::string why_not;
};

/// An input as the engine knows it.
struct GraphInput {
  std::string name;
  bool is_pinned;
  std::string kind;
  std::shared_ptr<Input> input;  // shared with the engine
};

/// 32 hexadecimal digits that nobody else has.
[[nodiscard]] std::string fresh_id(Fs& fs);

/// Threads: the thread that starts, drives or stops the context, one at a time; metrics() from any.
class Durability {
 public:
  Durability(std::string directory, RecoveryOptions options, Existing existing);

  /// What an earlier run left.
  struct Resumed {
    std::optional<RunRecord> run;  ///< absent: there was none
    std::optional<Time> last_committed;
    std::vector<BatchPlan> unfinished;  ///< to be run again first
    bool has_windows = false;           ///< among its states
    std::vector<std::string> warnings;  ///< for the log
    /// The last time for which there is a batch.
    [[nodiscard]] std::optional<Time> last_planned() const {
      return unfinished.empty() ? last_committed : std::optional{unfinished.back().time};
    }
  };

  /// Locks the directory, compares what is there with the program, and gives the states back to their operators.
  /// Errors: PlanError "checkpoint_exists", "not_encodable", "ambiguous_name", "incompatible_checkpoint"; StateError of the
  ///         store.
  Resumed open(std::vector<GraphState> states, std::vector<GraphInput> inputs, bool own_threads,
               const std::string& thread_name);
  /// The run begins at `now`: batch times are on `zero` + n * `interval`.
  void begin_run(const std::string& app_name, Time now, Time zero, Duration interval);
  /// Names this checkpoint, and no other: the same in every run. Pre: it is open.
  [[nodiscard]] const std::string& id() const noexcept { return id_; }
  /// When an input was first started, in this run or in an earlier one that had it. Pre: the run has begun.
  [[nodiscard]] Time first_start(std::size_t input) const { return first_starts_.at(input); }

  /// The inputs take again what `plan` says; appends what each gave, in their order. An input that the plan does not name, since
  /// it is new, takes nothing.
  void replay(const BatchPlan& plan, std::vector<InputInfo>& infos);

  /// The batch of `t` will take what the inputs have cut. Durable when it returns.
  void plan(Time t);
  /// The batch that was planned last is done, and its states are what they are.
  void take_changes();
  /// Hands over what was taken. When it throws it may be called again.
  void commit(Time t);
  /// Lets go of what is not needed any more. When it throws nothing is lost, and the next call tries again.
  void maintain();
  /// Whether the batch of t is done for good.
  [[nodiscard]] bool is_durable(Time t) const { return store_->durable_until() >= std::optional{t}; }
  /// Everything is durable, and the directory is free.
  void close();

  /// Absent before it was first opened.
  [[nodiscard]] std::optional<CheckpointMetrics> metrics() const;
  /// For the log: how the making of snapshots has failed since the last call, once for each kind of failure until one succeeds.
  [[nodiscard]] std::optional<std::string> take_snapshot_warning();

  [[nodiscard]] const RecoveryOptions& options() const noexcept { return options_; }
  [[nodiscard]] const std::string& directory() const noexcept { return directory_; }
  [[nodiscard]] bool is_open() const noexcept { return store_.has_value(); }

 private:
  void settle_names();
  void end_logs() noexcept;
  void update_metrics() const noexcept;
  void check_fits(const RunRecord& before) const;

  const std::string directory_;
  const RecoveryOptions options_;
  const Existing existing_;
  std::vector<GraphState> states_;
  std::vector<GraphInput> inputs_;
  std::vector<NamedInput> earlier_inputs_;  // of the run that this one continues
  std::vector<Time> first_starts_;          // of the inputs
  std::vector<StateCommit> changes_;        // of the batch that is done, or of an earlier one: memory for the next
  std::optional<CheckpointStore> store_;    // present while open
  std::string id_;
  bool by_caller_ = false;           // no threads: snapshots are made between batches
  std::uint64_t failures_seen_ = 0;  // of snapshots
  std::uint64_t snapshots_seen_ = 0;
  std::set<std::string> kinds_told_;  // of failures, since the last snapshot that succeeded

  mutable std::mutex metrics_mutex_;  // guards what follows
  bool is_watched_ = false;           // the store, and the logs, are there to be asked
  std::vector<const BlockLog*> logs_;
  mutable std::optional<CheckpointMetrics> metrics_;
};

}  // namespace tidemill::detail
