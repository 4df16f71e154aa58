// States as they are after a number of batches: a snapshot, and the changes in the log since. Both are read in the order of
// key group and key, in parts that fit into a given memory, and never held whole.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/records.hpp"
#include "tidemill/core/function_ref.hpp"

namespace tidemill::detail {

/// A snapshot that was found good.
struct SnapshotFile {
  std::uint64_t number = 0;
  std::string path;
  std::uint64_t size = 0;
  SnapshotHead head;
  SnapshotEnd states;
  std::vector<std::uint64_t> records;  // of the states: where they begin
};

/// What is to be folded.
struct FoldSource {
  Fs* fs = nullptr;
  CheckpointChecks checks;
  std::optional<SnapshotFile> snapshot;
  std::vector<Extent> log;  // since the snapshot

  [[nodiscard]] RecordReader log_reader() const { return {*fs, log, checks}; }
  /// The records of the snapshot.
  [[nodiscard]] RecordReader snapshot_reader() const { return {*fs, {snapshot_extent()}, checks}; }
  /// From the frame there to the end.
  [[nodiscard]] Extent snapshot_extent(std::uint64_t from = file_header_bytes) const;
};

/// What there is to fold: made by reading the log once.
struct FoldIndex {
  struct Group {
    std::uint64_t changes = 0;  // in the log
    std::uint64_t bytes = 0;    // of their keys and values
  };
  struct State {
    NamedState state;
    std::optional<std::size_t> in_snapshot;  // its place there
    std::uint64_t from = 0;                  // changes in earlier records of the log belong to a state that was dropped
    std::array<Group, key_groups> groups{};
  };
  std::vector<State> states;  // by name
  std::uint64_t commits = 0;
};

[[nodiscard]] FoldIndex index_log(const FoldSource& source);

using EntryVisitor = FunctionRef<void(KeyGroup, std::string_view, std::string_view)>;

/// The groups from `first` to the one before `end`.
struct Groups {
  unsigned first = 0;
  unsigned end = key_groups;
};

/// Gives every entry of a state that is of these groups, by group and key. Memory: `merge_bytes` of changes, if no group has
/// more. Threads: any number may read the same source.
void fold_state(const FoldSource& source, const FoldIndex::State& state, std::size_t merge_bytes, Groups groups,
                EntryVisitor visit);

/// Calls `task(0)` to `task(count - 1)`, all at the same time if there are threads to be had. Errors: rethrows what the lowest
/// failing one threw, after all have ended.
void in_parallel(std::size_t count, FunctionRef<void(std::size_t)> task);

/// Opens a snapshot and reads all of it, with so many threads if it is large. Errors: StateError as for any file that is damaged.
[[nodiscard]] SnapshotFile verify_snapshot(Fs& fs, const std::string& path, std::uint64_t number,
                                           const CheckpointId& id, const CheckpointChecks& checks,
                                           unsigned threads = 1);

/// Writes what `source` folds to, durable when it returns, its name included. Returns its description.
[[nodiscard]] SnapshotFile write_snapshot(const FoldSource& source, const FoldIndex& index, const SnapshotHead& head,
                                          const std::string& directory, std::uint64_t number, const CheckpointId& id,
                                          std::size_t merge_bytes);

inline constexpr std::string_view snapshot_prefix = "snapshot";
inline constexpr std::string_view snapshot_suffix = ".dat";

}  // namespace tidemill::detail
