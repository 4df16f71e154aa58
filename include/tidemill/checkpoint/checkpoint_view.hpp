// A checkpoint looked at from outside: what is in it, whether it is whole, and all of it as JSON, without the program that
// wrote it and without changing a byte. What the tool tidemill-checkpoint stands on.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tidemill/checkpoint/checkpoint_store.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/core/fs.hpp"
#include "tidemill/core/function_ref.hpp"

namespace tidemill {

/// Errors:  those of opening a CheckpointStore, but for the lock: a checkpoint that a program is writing can be looked at, and
///          may then seem damaged because it changes under the eyes. StateError "not_found" when there is no checkpoint.
/// Threads: one at a time.
class TIDEMILL_API CheckpointView {
 public:
  explicit CheckpointView(std::string directory, std::shared_ptr<Fs> fs = nullptr);
  ~CheckpointView();
  CheckpointView(const CheckpointView&) = delete;
  CheckpointView& operator=(const CheckpointView&) = delete;

  /// Who has it open, in words; nothing when nobody does. To tell, it shares the lock for an instant, and a program that starts
  /// just then is refused.
  [[nodiscard]] std::optional<std::string> holder() const;

  struct File {
    std::string path;
    std::string kind;  ///< "head", "plan log", "commit log", "snapshot", "receiver log", "unfinished", "other"
    std::uint64_t bytes = 0;
    std::string problem;  ///< empty when nothing is wrong with it by itself
  };
  /// Every file, each looked at by itself: headers, and all of snapshots and receivers' logs.
  [[nodiscard]] std::vector<File> files() const;

  struct State {
    NamedState state;
    std::uint64_t entries = 0;
    std::uint64_t bytes = 0;
  };
  struct Summary {
    std::string id;
    std::uint64_t run = 0;
    std::optional<RunRecord> last_run;
    std::optional<Time> committed;
    std::vector<BatchPlan> uncommitted;
    std::vector<State> states;
    std::vector<std::string> warnings;  ///< damage that opening would make up for
  };
  /// What a program that opened it would be given. Reads and verifies all that it would.
  [[nodiscard]] Summary summary() const;

  /// Calls `line` with a JSON object for every entry of every state, or of one: {"state":…,"group":…,"key":…,"value":…}.
  void dump_states(std::optional<std::string_view> state, FunctionRef<void(std::string_view)> line) const;
  /// The same for the records of the logs: runs and plans, then commits, from the newest good snapshot on; then the blocks of
  /// each receiver's log: {"type":"block","receiver":…,"number":…,"bytes":"…"}.
  void dump_logs(FunctionRef<void(std::string_view)> line) const;

 private:
  std::string directory_;
  std::shared_ptr<Fs> fs_;
};

}  // namespace tidemill
