// Every kind of file of a checkpoint, damaged in every way: what is given back is exact, or the checkpoint is refused and
// nothing is touched. Rows F30 to F36 of the table in docs/checkpoint-format.md.
#include <span>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/harness.hpp"
#include "tidemill/core/crc32c.hpp"

namespace {

using namespace tidemill_test;

/// A checkpoint as a program leaves it: several segments, two snapshots, one plan that is not committed.
struct Left {
  std::shared_ptr<SimFs> disk = std::make_shared<SimFs>(3);
  Program program;

  explicit Left(int batches = 33, std::uint64_t snapshot_min_log_bytes = 3000) {
    program.adjust = [snapshot_min_log_bytes](CheckpointOptions& options) {
      options.snapshot_min_log_bytes = snapshot_min_log_bytes;
    };
    program.batches = batches;
    program.batches_of_a_life = 11;
    program.run(disk);
    program.leave_uncommitted(disk);
    disk->restart();
  }
};

enum class Outcome { exact, refused, wrong };

struct Result {
  Outcome outcome = Outcome::exact;
  std::string what;
};

/// What becomes of a damaged disk. At most the newest commit may be lost, if its plan is there to be run again.
Result outcome_of(const std::shared_ptr<SimFs>& disk, const Program& program,
                  const tidemill::detail::CheckpointChecks& checks) {
  CheckpointOptions options = small_options(disk);
  options.checks = checks;
  disk->record_calls(true);
  try {
    CheckpointStore store{program.directory, options};
    Program::Truth truth = program.truth;
    Program::compare(store, truth, 1);
    if (truth.committed < program.truth.committed && store.warnings().empty()) return {Outcome::wrong, "a silent loss"};
    return {};
  } catch (const StateError& error) {
    if (error.code() != "checkpoint_damaged" && error.code() != "newer_format") return {Outcome::wrong, error.what()};
    for (const std::string& call : disk->calls()) {
      if (!call.starts_with("sync_directory")) return {Outcome::wrong, "refused, but before: " + call};
    }
    return {Outcome::refused, error.what()};
  } catch (const std::exception& error) {
    return {Outcome::wrong, error.what()};
  }
}

std::string kind_of(const std::string& path) {
  const std::string name = path.substr(path.rfind('/') + 1);
  return name.substr(0, name.find('-'));
}

bool matters(const std::string& file) { return kind_of(file) != "LOCK"; }

// Under a sanitizer the sweeps take one bit or length of nine: they take ten times as long there.
constexpr std::size_t step = TIDEMILL_SANITIZED ? 9 : 1;

// All bits where there is something, and some of those where there is nothing.
std::string flip_sweep(const Left& left, std::string_view kinds, const tidemill::detail::CheckpointChecks& checks,
                       int* cases) {
  for (const std::string& file : left.disk->files()) {
    if (!matters(file) || kinds.find(kind_of(file)) == std::string_view::npos) continue;
    const std::string good = left.disk->contents(file);
    for (std::size_t at = 0; at < good.size(); ++at) {
      const std::size_t from = at < 32 ? 0 : at - 32;
      const bool used = good.substr(from, 64).find_first_not_of('\0') != std::string::npos;
      for (int bit = 0; bit < 8; ++bit) {
        if (!used && (at * 8 + static_cast<std::size_t>(bit)) % 211 != 0) continue;
        if ((at * 8 + static_cast<std::size_t>(bit)) % step != 0) continue;
        const auto disk = left.disk->copy(1);
        std::string bad = good;
        bad[at] = static_cast<char>(bad[at] ^ (1 << bit));
        disk->set_contents(file, bad);
        ++*cases;
        const Result result = outcome_of(disk, left.program, checks);
        if (result.outcome == Outcome::wrong)
          return file + ", byte " + std::to_string(at) + ", bit " + std::to_string(bit) + ": " + result.what;
        const bool must_refuse = kind_of(file) == "META";
        if (must_refuse && result.outcome != Outcome::refused) return file + " was changed, and it was not refused";
        if (kind_of(file) == "snapshot" && result.outcome != Outcome::exact)
          return file + " was changed, and an older snapshot would have done: " + result.what;
      }
    }
  }
  return "";
}

void expect_no_wrong_answer(std::string_view kinds) {
  const Left left{12};
  int cases = 0;
  EXPECT_EQ(flip_sweep(left, kinds, {}, &cases), "");
  EXPECT_GT(cases, 1000);
  testing::Test::RecordProperty("cases", cases);
}

TEST(CorruptionSweep, OneFlippedBitAnywhereInThePlanLog) { expect_no_wrong_answer("plan"); }
TEST(CorruptionSweep, OneFlippedBitAnywhereInTheCommitLog) { expect_no_wrong_answer("commit"); }
TEST(CorruptionSweep, OneFlippedBitAnywhereInASnapshotOrTheHead) { expect_no_wrong_answer("snapshot META"); }

// The end of a snapshot says where the groups of each state are. A checksum keeps that whole; here it is wrong all the same.
TEST(CorruptionSweep, AnEndOfASnapshotThatIsWrongUnderARightChecksum) {
  const Left left{12};
  int exact = 0;
  int refused = 0;
  for (const std::string& file : left.disk->files()) {
    if (kind_of(file) != "snapshot") continue;
    const std::string good = left.disk->contents(file);
    const auto number_at = [&](std::size_t at) {
      std::uint32_t number = 0;
      for (std::size_t i = 4; i > 0; --i) number = number << 8 | static_cast<unsigned char>(good[at + i - 1]);
      return number;
    };
    std::size_t end = 64;  // of the file's frames, the last
    std::size_t size = 0;
    for (std::size_t at = end; at < good.size(); at += size) {
      end = at;
      size = (24 + number_at(at + 16) + 1 + 7) / 8 * 8;
    }
    for (std::size_t at = 0; at < number_at(end + 16); ++at) {
      for (int bit = 0; bit < 8; ++bit) {
        const auto disk = left.disk->copy(1);
        std::string bad = good;
        bad[end + 24 + at] = static_cast<char>(bad[end + 24 + at] ^ (1 << bit));
        const std::uint32_t checksum = tidemill::crc32c(std::as_bytes(std::span{bad}.subspan(end + 4, size - 4)));
        for (std::size_t i = 0; i < 4; ++i) bad[end + i] = static_cast<char>(checksum >> (8 * i));
        disk->set_contents(file, bad);
        try {
          CheckpointStore store{left.program.directory, small_options(disk)};
          Program::Truth truth = left.program.truth;
          Program::compare(store, truth, 0);
          ++exact;
        } catch (const StateError& error) {
          ASSERT_EQ(error.code(), "checkpoint_damaged") << file << ", byte " << at << ", bit " << bit;
          ++refused;
        }
      }
    }
  }
  EXPECT_GT(exact, 0);
  EXPECT_GT(refused, 0);
}

TEST(CorruptionSweep, EveryFileTruncatedAtEveryLength) {
  const Left left{12};
  int cases = 0;
  int refused = 0;
  for (const std::string& file : left.disk->files()) {
    if (!matters(file)) continue;
    const std::string good = left.disk->contents(file);
    for (std::size_t size = 0; size < good.size(); size += step) {
      const auto disk = left.disk->copy(1);
      disk->set_contents(file, good.substr(0, size));
      const Result result = outcome_of(disk, left.program, {});
      ASSERT_NE(result.outcome, Outcome::wrong) << file << " of " << size << " bytes: " << result.what;
      // Of the logs, only segments that are kept for an older snapshot can do without some bytes.
      if (kind_of(file) == "snapshot") {
        ASSERT_EQ(result.outcome, Outcome::exact) << file << " of " << size << " bytes: " << result.what;
      }
      if (kind_of(file) == "META" || kind_of(file) == "plan") {
        ASSERT_EQ(result.outcome, Outcome::refused) << file << " of " << size << " bytes";
      }
      refused += result.outcome == Outcome::refused ? 1 : 0;
      ++cases;
    }
  }
  EXPECT_GT(refused, 4 * 4096 / static_cast<int>(step));
  RecordProperty("cases", cases);
}

TEST(CorruptionSweep, EveryFileMissing) {
  const Left left;
  for (const std::string& file : left.disk->files()) {
    if (!matters(file)) continue;
    const auto disk = left.disk->copy(1);
    disk->erase(file);
    const Result result = outcome_of(disk, left.program, {});
    if (kind_of(file) == "snapshot") {
      EXPECT_EQ(result.outcome, Outcome::exact) << file << ": " << result.what;
    } else {
      EXPECT_NE(result.outcome, Outcome::wrong) << file << ": " << result.what;
    }
  }
}

// ---- what becomes of each place -----------------------------------------------------------------------------------------

struct FoundFrame {
  std::string file;
  std::size_t offset = 0;
  std::size_t size = 0;
  int type = 0;
  bool whole = false;  // a record in one frame
  std::int64_t stamp = 0;
};

std::vector<FoundFrame> frames_in(const SimFs& disk, const std::string& kind) {
  std::vector<FoundFrame> frames;
  for (const std::string& file : disk.files()) {
    if (kind_of(file) != kind) continue;
    const std::string bytes = disk.contents(file);
    const auto number = [&](std::size_t at, std::size_t size) {
      std::uint64_t value = 0;
      for (std::size_t i = size; i > 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[at + i - 1]);
      return value;
    };
    for (std::size_t at = 64; at + 24 < bytes.size() && number(at + 22, 2) != 0; at += frames.back().size) {
      frames.push_back({.file = file,
                        .offset = at,
                        .size = static_cast<std::size_t>((24 + number(at + 16, 4) + 1 + 7) / 8 * 8),
                        .type = static_cast<int>(number(at + 20, 1)),
                        .whole = number(at + 21, 1) == 3,
                        .stamp = static_cast<std::int64_t>(number(at + 8, 8))});
    }
  }
  return frames;
}

// Opens it with one bit of the frame flipped.
struct Opened {
  Outcome outcome;
  std::string what;
  int committed = 0;
  std::size_t warnings = 0;
};
Opened open_damaged(const Left& left, const FoundFrame& frame, std::size_t at) {
  const auto disk = left.disk->copy(1);
  std::string bytes = disk->contents(frame.file);
  bytes[frame.offset + at] ^= 16;
  disk->set_contents(frame.file, bytes);
  const auto same = disk->copy(1);
  const Result result = outcome_of(disk, left.program, {});
  Opened opened{result.outcome, result.what};
  if (result.outcome != Outcome::exact) return opened;
  const CheckpointStore store{"checkpoint", small_options(same)};
  opened.committed = batch_at(store.last_committed()->time);
  opened.warnings = store.warnings().size();
  return opened;
}

TEST(CorruptionSweep, EachCommitHasTheOutcomeThatItsPlaceHas) {  // F33, F34, F36
  const Left left;
  std::int64_t in_snapshot = 0;
  for (const FoundFrame& frame : frames_in(*left.disk, "snapshot")) in_snapshot = std::max(in_snapshot, frame.stamp);
  const std::vector<FoundFrame> frames = frames_in(*left.disk, "commit");
  std::int64_t last = 0;
  for (const FoundFrame& frame : frames) last = std::max(last, frame.stamp);
  int of_the_last = 0;
  int earlier = 0;
  int in_the_snapshot = 0;
  for (const FoundFrame& frame : frames) {
    if (frame.type != 0x21 || !frame.whole || frame.stamp == in_snapshot) continue;
    for (std::size_t at = 0; at < frame.size; at += 5) {
      const Opened opened = open_damaged(left, frame, at);
      const std::string where = frame.file + ", frame at " + std::to_string(frame.offset) + ", byte " +
                                std::to_string(at) + ": " + opened.what;
      if (frame.stamp == last) {
        ASSERT_EQ(opened.outcome, Outcome::exact) << where;
        ASSERT_EQ(opened.committed, left.program.truth.committed - 1) << where << "it is run again with its plan";
        ASSERT_GT(opened.warnings, 0U) << where;
        ++of_the_last;
      } else if (frame.stamp > in_snapshot) {
        ASSERT_EQ(opened.outcome, Outcome::refused) << where;
        ASSERT_NE(opened.what.find(frame.file + ", byte " + std::to_string(frame.offset)), std::string::npos) << where;
        ++earlier;
      } else {
        ASSERT_EQ(opened.outcome, Outcome::exact) << where;
        ASSERT_EQ(opened.committed, left.program.truth.committed) << where;
        ++in_the_snapshot;
      }
    }
  }
  EXPECT_GT(of_the_last, 10);
  EXPECT_GT(earlier, 10);
  EXPECT_GT(in_the_snapshot, 10);
}

TEST(CorruptionSweep, APlanOfABatchThatIsDoneIsMissedWithAWarning) {  // F31
  const Left left{120, 1000000};                                      // no snapshot, so that all plans are read
  const std::vector<FoundFrame> frames = frames_in(*left.disk, "plan");
  std::string newest;  // the file of the newest commit's plan
  for (const FoundFrame& frame : frames) {
    if (frame.type == 0x14 && frame.stamp == time_at(left.program.truth.committed).time_since_epoch().count())
      newest = frame.file;
  }
  int warned = 0;
  for (const FoundFrame& frame : frames) {
    if (frame.type != 0x14 || !frame.whole || frame.file >= newest) continue;
    for (std::size_t at = 0; at < frame.size; at += 25) {
      const Opened opened = open_damaged(left, frame, at);
      ASSERT_EQ(opened.outcome, Outcome::exact) << frame.file << ", " << frame.offset << " + " << at << opened.what;
      ASSERT_EQ(opened.committed, left.program.truth.committed);
      warned += opened.warnings > 0 ? 1 : 0;
    }
  }
  EXPECT_GT(warned, 10);
}

TEST(CorruptionSweep, AReadThatFailsIsTriedOnceMore) {  // F17
  const Left left{12};
  std::uint64_t reads = 0;
  for (bool failed = true; failed; reads += failed ? 1 : 0) {
    const auto once = left.disk->copy(1);
    once->fail_read_at(reads + 1);
    const Result result = outcome_of(once, left.program, {});
    ASSERT_EQ(result.outcome, Outcome::exact) << "read " << reads << ": " << result.what;
    const auto for_ever = left.disk->copy(1);
    for_ever->fail_read_at(reads + 1, true);
    for_ever->record_calls(true);
    failed = false;
    try {
      CheckpointStore store{"checkpoint", small_options(for_ever)};
      static_cast<void>(states_in(store));
    } catch (const StateError& error) {
      failed = true;
      EXPECT_THAT(error.what(), testing::HasSubstr("checkpoint/")) << "read " << reads;
    }
  }
  EXPECT_GT(reads, 10U);
}

TEST(CorruptionSweep, AllSnapshotsMissingIsRefused) {
  const Left left;
  for (const std::string& file : left.disk->files()) {
    if (kind_of(file) == "snapshot") left.disk->erase(file);
  }
  EXPECT_EQ(outcome_of(left.disk, left.program, {}).outcome, Outcome::refused);
}

TEST(CorruptionSweep, EveryFileSwappedWithEveryOther) {
  const Left left;
  const auto files = left.disk->files();
  for (const std::string& one : files) {
    for (const std::string& other : files) {
      if (one >= other || !matters(one) || !matters(other)) continue;
      const auto disk = left.disk->copy(1);
      disk->set_contents(one, left.disk->contents(other));
      disk->set_contents(other, left.disk->contents(one));
      const Result result = outcome_of(disk, left.program, {});
      EXPECT_NE(result.outcome, Outcome::wrong) << one << " and " << other << ": " << result.what;
    }
  }
}

TEST(CorruptionSweep, EveryPageOfZeros) {
  const Left left;
  for (const std::string& file : left.disk->files()) {
    if (!matters(file)) continue;
    const std::string good = left.disk->contents(file);
    for (std::size_t at = 0; at < good.size(); at += 512) {
      const auto disk = left.disk->copy(1);
      std::string bad = good;
      for (std::size_t i = at; i < std::min(at + 512, bad.size()); ++i) bad[i] = '\0';
      disk->set_contents(file, bad);
      Program program = left.program;
      // The sector with the last plan looks as if it had never been written: this once, it may be planned anew.
      --program.truth.planned;
      const Result result = outcome_of(disk, program, {});
      EXPECT_NE(result.outcome, Outcome::wrong) << file << " from " << at << ": " << result.what;
    }
  }
}

// Two futures of one checkpoint, with the same id: files of the one are put into the other.
std::string splice(const tidemill::detail::CheckpointChecks& checks) {
  const auto disk = std::make_shared<SimFs>(3);
  Program program;
  program.batches = 14;
  program.run(disk);
  const auto other_disk = disk->copy(1);
  Program other = program;
  other.attempts = 1000;  // it plans otherwise
  program.batches = other.batches = 40;
  program.run(disk);
  other.run(other_disk);
  program.leave_uncommitted(disk);
  disk->restart();
  for (const std::string& file : other_disk->files()) {
    if (!matters(file)) continue;
    const auto spliced = disk->copy(1);
    spliced->set_contents(file, other_disk->contents(file));
    const Result result = outcome_of(spliced, program, checks);
    if (result.outcome == Outcome::wrong) return file + ": " + result.what;
  }
  // All of the commit log, all of the plan log.
  for (const char* const kind : {"commit", "plan", "snapshot"}) {
    const auto spliced = disk->copy(1);
    for (const std::string& file : disk->files()) {
      if (kind_of(file) == kind) spliced->erase(file);
    }
    for (const std::string& file : other_disk->files()) {
      if (kind_of(file) == kind) spliced->set_contents(file, other_disk->contents(file));
    }
    const Result result = outcome_of(spliced, program, checks);
    if (result.outcome == Outcome::wrong) return std::string{"all of "} + kind + ": " + result.what;
  }
  return "";
}

TEST(CorruptionSweep, FilesOfAnotherFutureOfTheSameCheckpoint) { EXPECT_EQ(splice({}), ""); }

TEST(CorruptionSweep, AnOlderCopyOfOneLogIsRefused) {
  const auto disk = std::make_shared<SimFs>(3);
  Program program;
  program.batches = 9;
  program.run(disk);
  const auto older = disk->copy(1);
  program.batches = 12;
  program.run(disk);
  program.leave_uncommitted(disk);
  disk->restart();
  for (const char* const kind : {"commit", "plan"}) {
    const auto mixed = disk->copy(1);
    for (const std::string& file : older->files()) {
      if (kind_of(file) == kind) mixed->set_contents(file, older->contents(file));
    }
    EXPECT_EQ(outcome_of(mixed, program, {}).outcome, Outcome::refused) << kind;
  }
}

TEST(CorruptionSweep, ADamagedLastPlanIsRefusedUntilItIsDropped) {
  Left left;
  std::string newest;
  for (const std::string& file : left.disk->files()) {
    if (kind_of(file) == "plan" && left.disk->contents(file).find("lines") != std::string::npos) newest = file;
  }
  std::string bytes = left.disk->contents(newest);
  bytes[bytes.rfind("attempt")] ^= 1;
  left.disk->set_contents(newest, bytes);
  EXPECT_EQ(outcome_of(left.disk, left.program, {}).outcome, Outcome::refused);
  CheckpointOptions options = small_options(left.disk);
  options.drop_damaged_plan = true;
  CheckpointStore store{"checkpoint", options};
  EXPECT_TRUE(store.uncommitted().empty());
  EXPECT_EQ(store.warnings().size(), 1U);
  EXPECT_EQ(batch_at(store.last_committed()->time), left.program.truth.committed);
}

// --- Tests of the test ---

TEST(PlantedFaults, AStoreThatDoesNotLookAtChecksumsIsFound) {
  const Left left;
  int cases = 0;
  EXPECT_NE(flip_sweep(left, "plan commit snapshot META", {.crc = false, .chain = true}, &cases), "");
}

TEST(PlantedFaults, AStoreThatDoesNotLookAtTheChainIsFound) { EXPECT_NE(splice({.crc = true, .chain = false}), ""); }

}  // namespace
