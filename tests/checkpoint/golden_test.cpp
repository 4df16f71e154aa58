// A checkpoint of format version 1 as it was written when that version was made: what a later version of the library must read.
//   TIDEMILL_WRITE_GOLDEN=file   writes it anew, in the form of golden_v1.inc; only with a new version of the format
#include <cstdlib>
#include <fstream>
#include <sstream>

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

// "path size", then "offset hex" for every stretch that is not zeros.
std::string text_of(const SimFs& disk) {
  static constexpr std::size_t step = 32;
  std::ostringstream text;
  for (const std::string& file : disk.files()) {
    if (file.ends_with("/LOCK")) continue;
    const std::string bytes = disk.contents(file);
    text << file << ' ' << bytes.size() << '\n';
    for (std::size_t at = 0; at < bytes.size(); at += step) {
      const std::string part = bytes.substr(at, step);
      if (part.find_first_not_of('\0') == std::string::npos) continue;
      text << at << ' ';
      for (const char c : part)
        text << "0123456789abcdef"[static_cast<unsigned char>(c) >> 4] << "0123456789abcdef"[c & 15];
      text << '\n';
    }
  }
  return text.str();
}

std::shared_ptr<SimFs> disk_of(const std::string& text) {
  const auto disk = std::make_shared<SimFs>(1);
  disk->make_directory("checkpoint");
  disk->make_directory("checkpoint/receivers");
  disk->make_directory("checkpoint/receivers/orders%2feu");
  std::string path;
  std::string bytes;
  const auto finish = [&] {
    if (!path.empty()) disk->set_contents(path, bytes);
  };
  std::istringstream lines{text};
  for (std::string first, second; lines >> first >> second;) {
    if (first.starts_with("checkpoint/")) {
      finish();
      path = first;
      bytes.assign(std::stoul(second), '\0');
      continue;
    }
    for (std::size_t i = 0; i < second.size(); i += 2)
      bytes.at(std::stoul(first) + i / 2) = static_cast<char>(std::stoul(second.substr(i, 2), nullptr, 16));
  }
  finish();
  return disk;
}

TEST(GoldenCheckpoint, OfVersion1IsReadAndWrittenOn) {
  const auto now = std::make_shared<SimFs>(3);
  Program program = write(now);
  if (const char* const file = std::getenv("TIDEMILL_WRITE_GOLDEN")) {
    std::ofstream{file} << "R\"(" << text_of(*now) << ")\"\n";
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
