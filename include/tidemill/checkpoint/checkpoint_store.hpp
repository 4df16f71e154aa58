// What survives a restart, on disk: the plan of every batch before it runs, the changes of every state after it, and now and
// then all states as a snapshot. The store keeps bytes and knows no operators; docs/checkpoint-format.md has every byte.
//
//     tidemill::CheckpointStore store{"/var/lib/app/checkpoint"};
//     for (const auto& state : store.states()) store.for_each_entry(state.name, take_back);
//     for (const auto& plan : store.uncommitted()) rerun(plan);     // with exactly these inputs, then commit it
//     store.begin_run(run);
//     ...
//     store.plan({.time = t, .inputs = {{"lines", offsets}}});      // durable when it returns: one fdatasync
//     ...                                                           // the batch runs
//     store.commit(t, std::move(changes));                          // handed over; durable_until() says when
//
// The protocol, numbered, because the code and its tests quote it:
//   P1  A plan is durable before anything of its batch is.           P2  Batches are committed in the order of their times.
//   P3  A commit names its plan, a plan the newest commit that was durable: neither log can lose its end unnoticed.
//   P4  A file that failed is never written or trusted again: the same records go into a new one.
//   P5  The last segment of an earlier process is written anew before anything is added to it.
//   P6  A file is removed only after what replaces it is durable, its name included.
//   P7  Opening writes nothing until everything that it relies on has been verified.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tidemill/checkpoint/block_log.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/core/fs.hpp"
#include "tidemill/core/function_ref.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/state/durable_state.hpp"

namespace tidemill {

/// A name in a checkpoint and what stands behind it.
struct NamedState {
  std::string name;
  StateSchema schema;
  friend bool operator==(const NamedState&, const NamedState&) = default;
};
struct NamedInput {
  std::string name;
  std::string kind;    ///< "directory", "socket", …
  Time first_start{};  ///< in this run, or in the earliest one that had the input and that this one continues
  friend bool operator==(const NamedInput&, const NamedInput&) = default;
};

/// One life of a program between two starts: what it was, for the comparison with the program that continues it.
struct RunRecord {
  std::string app_name;
  Time zero_time{};           ///< batch times are zero_time + n * batch_interval
  Duration batch_interval{};  ///< 0 for a gate without interval
  std::vector<NamedState> states;
  std::vector<NamedInput> inputs;
  std::string engine;  ///< whatever else the caller wants back
  friend bool operator==(const RunRecord&, const RunRecord&) = default;
};

/// What a batch will read.
struct BatchPlan {
  struct Input {
    std::string name;
    std::string bytes;
    friend bool operator==(const Input&, const Input&) = default;
  };
  Time time{};
  std::vector<Input> inputs;
  std::string engine;  ///< whatever else the caller wants back
  friend bool operator==(const BatchPlan&, const BatchPlan&) = default;
};

/// What a batch changed in one state.
struct StateCommit {
  std::string state;
  StateChanges changes;
};

namespace detail {

/// Checks that a test of the tests leaves out, to see that the tests notice.
struct CheckpointChecks {
  bool crc = true;
  bool chain = true;
};

}  // namespace detail

struct CheckpointOptions {
  /// Commits by a thread of the store, and snapshots by another; or everything by the caller, in commit() and maintain().
  enum class Writer { background, caller };
  Writer writer = Writer::background;

  /// commit() waits while more than this is not durable yet.
  std::size_t max_commits_in_flight = 64;
  std::size_t max_bytes_in_flight = 64 * 1024 * 1024;

  /// A snapshot is made when the commit log since the last one is larger than both of these. A greater fraction costs batches
  /// less, since fewer snapshots are written, and the next start more, since it reads a longer log.
  std::uint64_t snapshot_min_log_bytes = 16 * 1024 * 1024;
  double snapshot_log_fraction = 1;  ///< of the size of the last snapshot
  /// Memory for making a snapshot: that many bytes of changes at a time, for each of which the log is read once, and no more
  /// than there are. One key group of one state is never divided.
  std::size_t merge_bytes = 256 * 1024 * 1024;

  /// Snapshots that are kept, with the log since the oldest of them; at least 2, so that a damaged one can be replaced.
  std::size_t keep_snapshots = 2;
  /// Snapshots of the last so long (batch time) are kept too: whole days of history, for instance.
  Duration keep_for{0};

  std::uint64_t plan_segment_bytes = 4 * 1024 * 1024;
  std::uint64_t commit_segment_bytes = 16 * 1024 * 1024;

  /// plan() refuses a batch, so that it can be tried again later, when the disk has less room than this.
  std::uint64_t min_free_bytes = 64 * 1024 * 1024;

  /// Allows network and user-space file systems, whose locks and syncs may do nothing.
  bool allow_unsafe_filesystem = false;
  /// The last plan is damaged in a way that no crash explains: instead of refusing, drop it, and with it the batch.
  bool drop_damaged_plan = false;

  /// null: Fs::real().
  std::shared_ptr<Fs> fs = nullptr;
  /// What threads are named after.
  std::string thread_name = "tidemill-ckpt";

  detail::CheckpointChecks checks = {};
};

/// A directory with the checkpoint of one program, locked as long as the store lives.
///
/// Errors:  ConfigError for options that cannot be. PlanError "illegal_state" for calls out of order. StateError, naming the
///          file and the offset, whose retry() says whether the same call may succeed later. Codes when opening:
///            "checkpoint_in_use"   somebody holds the directory; the message names process, host and start time
///            "unsafe_filesystem"   see CheckpointOptions
///            "newer_format"        written by a later version of the library; nothing was touched
///            "checkpoint_damaged"  bytes were changed or lost, and no older copy makes up for it; nothing was touched
///          and at any time those of FsError ("disk_full", "permission_denied", "io", …).
///          A call that throws has done nothing and may be repeated; what was handed over before is kept and tried again.
/// Threads: one at a time; durable_until() and statistics() from any.
class TIDEMILL_API CheckpointStore {
 public:
  /// Opens the checkpoint in `directory`, or begins one where there is none; the parent of `directory` exists.
  explicit CheckpointStore(std::string directory, CheckpointOptions options = {});
  /// As close(), without throwing: what is not durable then is run again by the next run.
  ~CheckpointStore();
  CheckpointStore(const CheckpointStore&) = delete;
  CheckpointStore& operator=(const CheckpointStore&) = delete;

  // --- What was found; until begin_run() ---

  /// The newest run that planned or committed anything or only began; nothing in a new checkpoint.
  [[nodiscard]] const std::optional<RunRecord>& last_run() const noexcept;
  /// The plan of the newest committed batch: where its inputs ended, the next ones begin.
  [[nodiscard]] const std::optional<BatchPlan>& last_committed() const noexcept;
  /// Batches that were planned and not committed, by time: to be run again with these very plans, and then committed.
  [[nodiscard]] const std::vector<BatchPlan>& uncommitted() const noexcept;
  /// The states that there are, by name.
  [[nodiscard]] const std::vector<NamedState>& states() const noexcept;
  /// What was found damaged and could be made up for, in words.
  [[nodiscard]] const std::vector<std::string>& warnings() const noexcept;

  /// About how many entries a state has: as many as its newest snapshot, or as there are changes in the log without one.
  [[nodiscard]] std::uint64_t expected_entries(std::string_view state) const noexcept;
  /// Calls `visit(group, key, value)` once for every entry of a state after the newest committed batch, by group, then key.
  /// Views last as long as the call. Nothing for a state that is not there.
  /// In `parts`, at most 256, a large state is visited by several threads at a time: the groups g of a part, those with the same
  /// (g * parts) >> 8, by one of them, in that order.
  /// Cost: the snapshot is read once and the log since by each thread; memory for the changes in that log.
  void for_each_entry(std::string_view state, FunctionRef<void(KeyGroup, std::string_view, std::string_view)> visit,
                      std::size_t parts = 1);

  /// Gives up the batches that are not committed: the next plan may be for their times. What they put out stays, so that this
  /// is for an operator who knows that it was nothing, or too little to matter.
  void drop_uncommitted();

  // --- Running ---

  /// Begins a run: durable when it returns. States that `run` does not name, or names with another schema, are dropped with
  /// the first commit of this run. Errors: ConfigError when a name is there twice.
  void begin_run(RunRecord run);

  /// Makes a plan durable: one write and one fdatasync on this thread. Times ascend.
  void plan(const BatchPlan& plan);

  /// Hands over what the batch of `time` changed; `time` is that of the oldest plan that is not committed. Waits only while
  /// too much is in flight. With Writer::caller it is durable when the call returns. Afterwards `changes` holds some
  /// that are durable, or nothing: memory for the next ones, to be cleared. When it throws, `changes` is as it was, for another
  /// attempt.
  void commit(Time time, std::vector<StateCommit>&& changes);

  /// The time of the newest batch whose commit is durable.
  [[nodiscard]] std::optional<Time> durable_until() const;

  /// Waits until everything handed over is durable; after a failure it is tried again first.
  void sync();

  /// For Writer::caller: makes a segment ready and a snapshot, if one is due. Returns whether it made a snapshot.
  bool maintain();

  /// Makes a snapshot of what is durable, on this thread, whether one is due or not.
  void take_snapshot();

  /// The log of what a receiver stored, in receivers/NAME/. It must not outlive the store.
  [[nodiscard]] std::unique_ptr<BlockLog> open_block_log(std::string_view name, BlockLogOptions options = {});

  /// sync(), then ends the threads and gives the lock back. A second call does nothing.
  void close();

  struct Statistics {
    std::uint64_t plans = 0;
    std::uint64_t commits = 0;  ///< durable ones
    std::uint64_t commit_bytes = 0;
    std::size_t commits_in_flight = 0;
    std::size_t bytes_in_flight = 0;
    std::uint64_t snapshots = 0;
    std::uint64_t snapshot_failures = 0;  ///< each is tried again when the log has grown further
    std::uint64_t snapshot_bytes = 0;     ///< size of the newest
    std::uint64_t log_bytes = 0;          ///< commit log since the newest snapshot
    std::uint64_t repairs = 0;            ///< damage at opening that was made up for: size of warnings()
    std::string last_failure;             ///< of a snapshot, in words
    std::string last_failure_code;        ///< and what Error::code() says of it; "unknown" for what is no Error
  };
  [[nodiscard]] Statistics statistics() const;

  [[nodiscard]] const std::string& directory() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidemill
