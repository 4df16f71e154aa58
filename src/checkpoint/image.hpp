// A checkpoint as it lies in its directory: read, verified and understood, without changing anything. What CheckpointStore
// continues from, and what the tool shows.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/fold.hpp"

namespace tidemill::detail {

inline constexpr std::string_view meta_name = "META";
inline constexpr std::string_view lock_name = "LOCK";
inline constexpr std::string_view receivers_name = "receivers";

/// A plan in the plan log.
struct PlanPlace {
  std::int64_t time = 0;
  std::uint32_t chain = 0;
  std::uint64_t segment = 0;
};

struct CheckpointImage {
  bool is_new = true;  // nothing there, or what was left by a process that had only begun to make it
  CheckpointId id{};

  LogScan plan_scan;
  LogScan commit_scan;
  FoldSource source;  // the newest good snapshot and the log since
  FoldIndex index;

  std::optional<NumberedRun> run;
  std::optional<Witness> committed;  // the newest commit
  std::optional<BatchPlan> last_committed;
  std::vector<BatchPlan> uncommitted;
  std::deque<PlanPlace> plans;  // that are there, by time

  std::vector<SnapshotFile> older;       // snapshots, of which only the heads were read; newest first
  std::uint64_t newest_number = 0;       // of any snapshot, good or not
  std::vector<std::string> unusable;     // paths of snapshots
  std::vector<std::string> temporaries;  // paths of what was never finished
  std::vector<std::string> warnings;
};

struct ImageOptions {
  bool drop_damaged_plan = false;
  unsigned threads = 1;  // to read with
  CheckpointChecks checks;
};

[[nodiscard]] LogPlace plan_place(Fs& fs, const std::string& directory, const CheckpointId& id,
                                  const CheckpointChecks& checks);
[[nodiscard]] LogPlace commit_place(Fs& fs, const std::string& directory, const CheckpointId& id,
                                    const CheckpointChecks& checks);

/// Before anything is touched. Errors: StateError "newer_format"; what else may be wrong load_image() will say.
void refuse_newer_format(Fs& fs, const std::string& directory);

/// Errors: StateError "checkpoint_damaged", "newer_format"; FsError.
[[nodiscard]] CheckpointImage load_image(Fs& fs, const std::string& directory, const ImageOptions& options);

}  // namespace tidemill::detail
