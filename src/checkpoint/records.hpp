// What is inside the records of a checkpoint: plans and runs in the plan log, heads of commits and of snapshots. The entries of
// states are as StateChanges writes them.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/segment_log.hpp"
#include "tidemill/batch/partitioner.hpp"

namespace tidemill::detail {

[[nodiscard]] inline std::int64_t stamp_of(Time time) noexcept { return time.time_since_epoch().count(); }
[[nodiscard]] inline Time time_of(std::int64_t stamp) noexcept { return Time{Duration{stamp}}; }

/// A commit that was durable, as plans name it (P3).
struct Witness {
  std::int64_t time = 0;
  std::uint32_t chain = 0;
  friend bool operator==(const Witness&, const Witness&) = default;
};

struct PlanRecord {
  BatchPlan plan;
  std::uint64_t run = 0;
  std::optional<Witness> witness;
};

struct NumberedRun {
  std::uint64_t number = 0;  // 1 for the first
  RunRecord run;
};

/// What a snapshot says of itself, before the states.
struct SnapshotHead {
  std::int64_t time = 0;           // of the newest commit in it
  LogPosition position;            // of the commit log, behind that commit
  std::uint64_t plan_segment = 0;  // where the plan of that commit stands: the first one needed
  NumberedRun run;                 // that made the commit
  std::vector<NamedState> states;  // in the order of their records
};

/// What the last record of a snapshot says of a state.
struct SnapshotState {
  std::uint64_t entries = 0;
  /// Where the entries of each group begin within the record of the state, and where those of the last one end.
  std::array<std::uint64_t, key_groups + 1> groups{};
};
using SnapshotEnd = std::vector<SnapshotState>;  // in the order of their records

// Errors when reading: StateError "malformed_data".
[[nodiscard]] std::string encode_run(const NumberedRun& run);
[[nodiscard]] NumberedRun decode_run(std::string_view bytes);
[[nodiscard]] std::string encode_plan(const PlanRecord& record);
[[nodiscard]] PlanRecord decode_plan(std::int64_t stamp, std::string_view bytes);
[[nodiscard]] std::string encode_snapshot_head(const SnapshotHead& head);
[[nodiscard]] SnapshotHead decode_snapshot_head(std::string_view bytes);
[[nodiscard]] std::string encode_snapshot_end(const SnapshotEnd& end);
[[nodiscard]] SnapshotEnd decode_snapshot_end(const SnapshotHead& head, std::string_view bytes);

/// Before the entries, the record of a state of a snapshot has the size of its name and the name.
[[nodiscard]] inline std::uint64_t state_head_bytes(std::string_view name) noexcept { return 4 + name.size(); }

// A commit is: u32 checksum of the plan, u32 number of states, then for each u32 size of the name, name, u64 size, entries.

/// The head of a commit; then, for each state, commit_state() and the entries.
[[nodiscard]] std::string commit_head(std::uint32_t plan_chain, std::size_t states);
[[nodiscard]] std::string commit_state(std::string_view name, std::uint64_t size);

}  // namespace tidemill::detail
