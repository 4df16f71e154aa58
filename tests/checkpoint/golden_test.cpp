// A checkpoint of format version 1 as it was written when that version was made: what a later version of the library must read.
//   TIDEMILL_WRITE_GOLDEN=file   writes it anew, in the form of golden_v1.inc; only with a new version of the format
#include "checkpoint/golden.hpp"

#include <cstdlib>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/harness.hpp"
#include "tidemill/checkpoint/checkpoint_view.hpp"

namespace {

using namespace tidemill_test;

constexpr const char* golden =
#include "checkpoint/golden_v1.inc"
    ;

// What it holds: the states of 12 batches, a plan that is not committed, and blocks of a receiver of which one is divided.
Program write(const std::shared_ptr<SimFs>& disk) {
  Program program;
  program.adjust = [](CheckpointOptions& options) { options.snapshot_min_log_bytes = 2000; };
  program.run(disk);
  program.leave_uncommitted(disk);
  CheckpointStore store{"checkpoint", small_options(disk)};
  const auto log = store.open_block_log("orders/eu", {.segment_bytes = 4096});
  for (int i = 0; i < 3; ++i)
    log->append("block " + std::to_string(i) + std::string(static_cast<std::size_t>(i) * 2000, 'b'));
  log->sync();
  store.close();
  disk->restart();
  return program;
}

std::shared_ptr<SimFs> disk_of(const std::string& text) {
  const auto disk = std::make_shared<SimFs>(1);
  put_golden(*disk, text);
  return disk;
}

TEST(GoldenCheckpoint, OfVersion1IsReadAndWrittenOn) {
  const auto now = std::make_shared<SimFs>(3);
  Program program = write(now);
  if (const char* const file = std::getenv("TIDEMILL_WRITE_GOLDEN")) {
    std::ofstream{file} << "R\"(" << golden_text(*now) << ")\"\n";
    return;
  }
  const auto disk = disk_of(golden);
  for (const auto& file : tidemill::CheckpointView{"checkpoint", disk}.files())
    EXPECT_EQ(file.problem, "") << file.path;
  {
    CheckpointStore store{"checkpoint", small_options(disk)};
    Program::Truth truth = program.truth;
    EXPECT_NO_THROW(Program::compare(store, truth, 0));
    EXPECT_TRUE(store.warnings().empty());
    ASSERT_TRUE(store.last_run());
    EXPECT_EQ(store.last_run()->states, run_record().states);
    EXPECT_EQ(store.uncommitted().size(), 1U);
    std::size_t blocks = 0;
    const auto log = store.open_block_log("orders/eu", {.segment_bytes = 4096});
    log->read(0, 3, [&](std::uint64_t id, std::string_view bytes) {
      EXPECT_EQ(bytes, "block " + std::to_string(id) + std::string(static_cast<std::size_t>(id) * 2000, 'b'));
      ++blocks;
    });
    EXPECT_EQ(blocks, 3U);
  }
  program.batches = 20;
  EXPECT_NO_THROW(program.run(disk));
}

}  // namespace
