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
  SnapshotEnd entries;  // of each state
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
  [[nodiscard]] Extent snapshot_extent() const;
};

/// What there is to fold: made by reading the log once.
struct FoldIndex {
  struct State {
    NamedState state;
    std::optional<std::size_t> in_snapshot;  // its place there
    std::uint64_t from = 0;                  // changes in earlier records of the log belong to a state that was dropped
    std::uint64_t changes = 0;               // in the log
    std::array<std::uint64_t, 256> bytes{};  // of changes, for each group
  };
  std::vector<State> states;  // by name
  std::uint64_t commits = 0;
};

[[nodiscard]] FoldIndex index_log(const FoldSource& source);

using EntryVisitor = FunctionRef<void(KeyGroup, std::string_view, std::string_view)>;

/// Gives every entry of a state, by group and key. Memory: `merge_bytes` of changes, if no group has more.
void fold_state(const FoldSource& source, const FoldIndex::State& state, std::size_t merge_bytes, EntryVisitor visit);

/// The same, read by another thread than the one that calls `visit`, which is this one.
void fold_state_ahead(const FoldSource& source, const FoldIndex::State& state, std::size_t merge_bytes,
                      EntryVisitor visit);

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
