// What happens when a program with a checkpoint is started again, and when one of its batches fails.
#pragma once

#include <cstdint>

#include "tidemill/checkpoint/checkpoint_store.hpp"

namespace tidemill {

/// The ticks that passed while the program was down. What an earlier run planned and did not finish is run again first, in
/// any case. [K6]
enum class CatchUp : std::uint8_t {
  all,     ///< each has its batch, one directly after the other: what Spark does
  merged,  ///< one batch, at the last of them, takes everything; but the ends of windows that slide by more have theirs
  throttled,  ///< each has its batch, two an interval, so that a long pause does not take the machine
};

/// A batch failed, and failed again when it was tried a second time.
enum class FailedBatch : std::uint8_t {
  stop,  ///< the context stops with the error; the next start runs the batch again: nothing is lost
  /// Later batches run, and the failed one is not tried again: what Spark does. It is committed as it is. What states and
  /// windows could not take of it they try again with the batches that follow, as long as the process lives; after a restart it
  /// is missing there, as it is in the outputs that failed.
  carry_on,
};

/// How a context with a checkpoint goes on after a crash, and after a batch that failed twice.
struct RecoveryOptions {
  CatchUp catch_up = CatchUp::all;               ///< what becomes of the ticks that passed meanwhile
  FailedBatch failed_batch = FailedBatch::stop;  ///< what becomes of a batch that failed twice
  /// What receivers and sockets receive is written into the checkpoint before a batch takes it, and a later run takes it again:
  /// a block that `store` has returned for is not lost, and what a socket has read not when only the process ends
  /// (docs/guarantees.md). Without it such inputs lose what was not worked on. [R9, R11]
  bool log_received = false;
  /// The log of each such input.
  BlockLogOptions received = {};
  /// How the store works; `writer` and `thread_name` are set by the context, and so is `fs` when it is null.
  CheckpointOptions store = {};
};

/// What a directory that holds a checkpoint already means.
enum class Existing : std::uint8_t { refuse, resume };

}  // namespace tidemill
