// The engine's side of a checkpoint: what the graph calls its states and inputs, whether an earlier run fits this program, and
// the order of things around a batch: plan, run, commit.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tidemill/checkpoint/checkpoint_store.hpp"
#include "tidemill/engine/recovery.hpp"
#include "tidemill/io/input.hpp"
#include "tidemill/state/durable_state.hpp"

namespace tidemill::detail {

/// A state as the engine knows it.
struct GraphState {
  std::string name;
  std::shared_ptr<DurableState> state;  // shared with its operator; null: it cannot be kept
  std::string why_not;
};

/// An input as the engine knows it.
struct GraphInput {
  std::string name;
  std::string kind;
  std::shared_ptr<Input> input;  // shared with the engine
};

/// Threads: the thread that starts, drives or stops the context, one at a time.
class Durability {
 public:
  Durability(std::string directory, RecoveryOptions options, Existing existing);

  /// What an earlier run left.
  struct Resumed {
    std::optional<RunRecord> run;  ///< absent: there was none
    std::optional<Time> last_committed;
    std::vector<BatchPlan> unfinished;  ///< to be run again first
    std::vector<std::string> warnings;  ///< for the log
    /// The last time for which there is a batch.
    [[nodiscard]] std::optional<Time> last_planned() const {
      return unfinished.empty() ? last_committed : std::optional{unfinished.back().time};
    }
  };

  /// Locks the directory, compares what is there with the program, and gives the states back to their operators.
  /// Errors: PlanError "checkpoint_exists", "not_encodable", "incompatible_checkpoint"; StateError of the store.
  Resumed open(std::vector<GraphState> states, std::vector<GraphInput> inputs, bool own_threads,
               const std::string& thread_name);
  /// The run begins at `now`: batch times are on `zero` + n * `interval`.
  void begin_run(const std::string& app_name, Time now, Time zero, Duration interval);
  /// When an input was first started, in this run or in an earlier one that had it. Pre: the run has begun.
  [[nodiscard]] Time first_start(std::size_t input) const { return first_starts_.at(input); }

  /// The inputs take again what `plan` says; appends what each gave, in their order. An input that the plan does not name, since
  /// it is new, takes nothing.
  void replay(const BatchPlan& plan, std::vector<InputInfo>& infos);

  /// The batch of `t` will take what the inputs have cut. Durable when it returns.
  void plan(Time t);
  /// The batch of `t` is done, and its states are what they are.
  void commit(Time t);
  /// Everything is durable, and the directory is free.
  void close();

  [[nodiscard]] const RecoveryOptions& options() const noexcept { return options_; }
  [[nodiscard]] const std::string& directory() const noexcept { return directory_; }
  [[nodiscard]] bool is_open() const noexcept { return store_.has_value(); }

 private:
  void end_logs() noexcept;
  void check_fits(const RunRecord& before) const;

  const std::string directory_;
  const RecoveryOptions options_;
  const Existing existing_;
  std::vector<GraphState> states_;
  std::vector<GraphInput> inputs_;
  std::vector<NamedInput> earlier_inputs_;  // of the run that this one continues
  std::vector<Time> first_starts_;          // of the inputs
  std::vector<StateCommit> changes_;        // of an earlier batch: memory for the next
  std::optional<CheckpointStore> store_;    // present while open
  bool by_caller_ = false;                  // no threads: snapshots are made between batches
};

}  // namespace tidemill::detail
