// Leaves a checkpoint in the directory that is given, for the test of the tool.
#include "checkpoint/harness.hpp"

int main(int count, char** arguments) {
  if (count != 2) return 2;
  tidemill_test::Program program;
  program.directory = arguments[1];
  program.batches = 33;
  program.adjust = [](tidemill::CheckpointOptions& options) {
    options.min_free_bytes = 0;
    options.snapshot_min_log_bytes = 7000;  // so that the log goes on behind the last one
  };
  program.run(nullptr);
  program.leave_uncommitted(nullptr);
  tidemill::CheckpointOptions options;
  options.min_free_bytes = 0;
  tidemill::CheckpointStore store{program.directory, options};
  const auto log = store.open_block_log("orders", {.segment_bytes = 4096});
  for (int i = 0; i < 100; ++i) log->append("order " + std::to_string(i) + std::string(60, '.'));
  log->sync();
}
