// The log of a receiver: what it keeps through faults, and what it says of damage.
#include "tidemill/checkpoint/block_log.hpp"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/harness.hpp"

namespace {

using namespace tidemill_test;
using tidemill::BlockLog;
using tidemill::BlockLogOptions;

BlockLogOptions small_blocks() {
  BlockLogOptions options;
  options.segment_bytes = 4096;
  return options;
}

std::string block(std::uint64_t id) { return "block " + std::to_string(id) + std::string(id % 7 * 100, 'b'); }

std::vector<std::string> all_of(BlockLog& log) {
  std::vector<std::string> blocks;
  log.read(log.first_id(), log.end_id(), [&](std::uint64_t, std::string_view bytes) { blocks.emplace_back(bytes); });
  return blocks;
}

TEST(BlockLog, GivesBackWhatWasAppended) {
  const auto disk = std::make_shared<SimFs>(1);
  {
    CheckpointStore store{"checkpoint", small_options(disk)};
    const auto log = store.open_block_log("orders/eu", small_blocks());
    for (std::uint64_t id = 0; id < 100; ++id) EXPECT_EQ(log->append(block(id)), id);
    EXPECT_EQ(log->durable_end(), 0U);
    log->sync(49);
    EXPECT_GE(log->durable_end(), 50U);
    log->append(std::string(10'000, 'x'));  // more than a segment
    log->append("");
    log->sync();
  }
  CheckpointStore store{"checkpoint", small_options(disk)};
  const auto log = store.open_block_log("orders/eu", small_blocks());
  EXPECT_EQ(log->first_id(), 0U);
  EXPECT_EQ(log->end_id(), 102U);
  std::uint64_t expected = 37;
  log->read(37, 100, [&](std::uint64_t id, std::string_view bytes) {
    EXPECT_EQ(id, expected);
    EXPECT_EQ(bytes, block(expected++));
  });
  EXPECT_EQ(expected, 100U);
  EXPECT_EQ(all_of(*log)[100].size(), 10'000U);
  EXPECT_THROW(log->read(90, 103, [](auto...) {}), StateError);
}

TEST(BlockLog, TruncationFreesFilesAndNumbersGoOn) {
  const auto disk = std::make_shared<SimFs>(1);
  for (int life = 0; life < 5; ++life) {
    CheckpointStore store{"checkpoint", small_options(disk)};
    const auto log = store.open_block_log("orders", small_blocks());
    for (int i = 0; i < 100; ++i) {
      const std::uint64_t id = log->append(block(log->end_id()));
      log->sync(id);
      if (id >= 10) log->truncate_before(id - 10);
    }
    EXPECT_EQ(log->end_id(), static_cast<std::uint64_t>(life + 1) * 100);
    EXPECT_LE(log->disk_bytes(), 6U * 4096);
    std::uint64_t id = log->first_id();
    EXPECT_LE(id, log->end_id() - 11);
    for (const std::string& bytes : all_of(*log)) EXPECT_EQ(bytes, block(id++));
  }
}

TEST(BlockLog, AcknowledgedBlocksSurviveEveryFault) {
  int cases = 0;
  for (const SimFault fault :
       {SimFault::kill, SimFault::power_loss, SimFault::io_error, SimFault::sync_lost, SimFault::disk_full}) {
    for (std::uint64_t call = 1; call < 120; ++call) {
      const auto disk = std::make_shared<SimFs>(call);
      disk->fail_at(call, fault);
      std::uint64_t durable = 0;  // or written, where only the process ends
      std::uint64_t appended = 0;
      for (int life = 0; life < 3; ++life) {
        try {
          const auto store = [&] {
            for (;;) {
              try {
                return std::make_unique<CheckpointStore>("checkpoint", small_options(disk));
              } catch (const StateError& error) {
                if (error.retry() == Retry::is_useless) throw;
              }
            }
          }();
          std::unique_ptr<BlockLog> log;
          while (!log) {
            try {
              log = store->open_block_log("orders", small_blocks());
            } catch (const StateError& error) {
              ASSERT_EQ(error.retry(), Retry::may_help) << error.what();
            }
          }
          ASSERT_GE(log->end_id(), durable) << "call " << call;
          ASSERT_LE(log->end_id(), appended);
          std::uint64_t id = log->first_id();
          for (const std::string& bytes : all_of(*log)) ASSERT_EQ(bytes, block(id++));
          durable = appended = log->end_id();
          while (appended < static_cast<std::uint64_t>(life + 1) * 40) {
            for (int i = 0; i < 3; ++i) log->append(block(appended++));
            try {
              log->write(appended - 1);
              if (fault == SimFault::kill) durable = appended;
              log->append(block(appended++));
            } catch (const StateError&) {  // it is in memory
            }
            while (log->durable_end() < appended) {
              try {
                log->sync();
              } catch (const StateError&) {  // goes into a new file
              }
            }
            durable = appended;
            if (durable > 20) log->truncate_before(durable - 20);
          }
        } catch (const SimCrash&) {
        } catch (const StateError& error) {
          ASSERT_NE(fault, SimFault::kill) << error.what();
        }
        disk->kill();
        disk->restart();
        ++cases;
      }
    }
  }
  RecordProperty("cases", cases);
}

TEST(BlockLog, ABlockWhoseAppendFailsIsNotInIt) {
  int failures = 0;
  for (const SimFault fault : {SimFault::io_error, SimFault::sync_lost, SimFault::disk_full}) {
    for (std::uint64_t call = 1; call < 60; ++call) {
      const auto disk = std::make_shared<SimFs>(call);
      std::vector<std::string> taken;
      {
        CheckpointStore store{"checkpoint", small_options(disk)};
        BlockLogOptions options = small_blocks();
        options.max_unsynced_bytes = 400;  // some of the blocks are larger
        const auto log = store.open_block_log("orders", options);
        disk->fail_at(call, fault);
        for (std::uint64_t i = 0; i < 40; ++i) {
          try {
            const std::uint64_t id = log->append(block(i));
            ASSERT_EQ(id, taken.size()) << "numbers without gaps";
            taken.push_back(block(i));
          } catch (const StateError& error) {
            EXPECT_EQ(error.retry(), Retry::may_help);
            ++failures;
          }
        }
        disk->clear_faults();
        log->sync();
        ASSERT_EQ(all_of(*log), taken) << "call " << call;
      }
      CheckpointStore store{"checkpoint", small_options(disk)};
      ASSERT_EQ(all_of(*store.open_block_log("orders", small_blocks())), taken) << "call " << call;
    }
  }
  EXPECT_GT(failures, 50);
}

TEST(BlockLog, ManyThreadsShareSyncs) {
  const auto disk = std::make_shared<SimFs>(1);
  CheckpointStore store{"checkpoint", small_options(disk)};
  const auto log = store.open_block_log("orders");
  std::vector<std::thread> producers;
  for (int producer = 0; producer < 4; ++producer) {
    producers.emplace_back([&, producer] {
      for (int i = 0; i < 200; ++i) {
        const std::uint64_t id = log->append(std::to_string(producer) + ":" + std::to_string(i));
        log->sync(id);
        EXPECT_GT(log->durable_end(), id);
      }
    });
  }
  for (std::thread& producer : producers) producer.join();
  std::map<char, int> next;
  for (const std::string& bytes : all_of(*log))
    EXPECT_EQ(bytes, std::string{bytes[0]} + ":" + std::to_string(next[bytes[0]]++));
  EXPECT_EQ(log->end_id(), 800U);
}

TEST(BlockLog, DamageInTheMiddleIsAnErrorOrCounted) {
  const auto disk = std::make_shared<SimFs>(1);
  {
    CheckpointStore store{"checkpoint", small_options(disk)};
    const auto log = store.open_block_log("orders", small_blocks());
    for (std::uint64_t id = 0; id < 60; ++id) log->append(block(id));
    log->sync();
  }
  const std::string file = "checkpoint/receivers/orders/blocks-0000000002.log";
  std::string bytes = disk->contents(file);
  bytes[1000] ^= 4;
  disk->set_contents(file, bytes);
  {
    CheckpointStore store{"checkpoint", small_options(disk)};
    try {
      static_cast<void>(store.open_block_log("orders", small_blocks()));
      FAIL();
    } catch (const StateError& error) {
      EXPECT_EQ(error.code(), "checkpoint_damaged");
      EXPECT_THAT(error.what(), testing::HasSubstr(file));
      EXPECT_TRUE(error.context().offset);
    }
  }
  CheckpointStore store{"checkpoint", small_options(disk)};
  BlockLogOptions options = small_blocks();
  options.skip_corrupt_blocks = true;
  const auto log = store.open_block_log("orders", options);
  EXPECT_GT(log->skipped(), 0U);
  EXPECT_EQ(log->end_id(), 60U);
  std::uint64_t id = log->first_id();
  for (const std::string& found : all_of(*log)) EXPECT_EQ(found, block(id++));
  EXPECT_EQ(id, 60U);
}

// ---- damage -------------------------------------------------------------------------------------------------------------

// A log of several segments, all of it acknowledged.
struct Logged {
  static constexpr std::uint64_t blocks = 30;
  std::shared_ptr<SimFs> disk = std::make_shared<SimFs>(1);
  std::vector<std::string> files;  // of the log

  Logged() {
    CheckpointStore store{"checkpoint", small_options(disk)};
    const auto log = store.open_block_log("orders", small_blocks());
    for (std::uint64_t id = 0; id < blocks; ++id) log->sync(log->append(block(id)));
    for (const std::string& file : disk->files()) {
      if (file.find("blocks-") != std::string::npos) files.push_back(file);
    }
  }
};

enum class Outcome { exact, refused, left_out, wrong };

// Blocks that are there are what they were, without gaps and up to the end; a refusal names a file and a place in it.
Outcome outcome_of(const std::shared_ptr<SimFs>& disk, bool skip, std::string& what) {
  CheckpointStore store{"checkpoint", small_options(disk)};
  BlockLogOptions options = small_blocks();
  options.skip_corrupt_blocks = skip;
  try {
    const auto log = store.open_block_log("orders", options);
    std::uint64_t id = log->first_id();
    for (const std::string& bytes : all_of(*log)) {
      if (bytes != block(id++)) {
        what = "block " + std::to_string(id - 1) + " is another";
        return Outcome::wrong;
      }
    }
    if (log->first_id() == 0 && id == Logged::blocks) return Outcome::exact;
    what = "blocks " + std::to_string(log->first_id()) + " to " + std::to_string(id);
    return Outcome::left_out;
  } catch (const StateError& error) {
    what = error.what();
    const bool says_where = what.find("checkpoint/receivers/orders/blocks-") != std::string::npos &&
                            what.find("byte ") != std::string::npos;
    return error.code() == "checkpoint_damaged" && says_where ? Outcome::refused : Outcome::wrong;
  }
}

constexpr std::size_t stride = TIDEMILL_SANITIZED ? 27 : 3;  // of the bits

TEST(BlockLog, OneFlippedBitIsRefusedOrLeftOutAndNeverReadAsABlock) {
  const Logged logged;
  ASSERT_GE(logged.files.size(), 4U);
  int refused = 0;
  int left_out = 0;
  for (const std::string& file : logged.files) {
    const std::string good = logged.disk->contents(file);
    const std::size_t used = good.find_last_not_of('\0') + 1;
    for (std::size_t bit = 0; bit < good.size() * 8; bit += stride) {
      const std::size_t at = bit / 8;
      if (at >= used + 40 && bit % 211 != 0) continue;
      const auto disk = logged.disk->copy(1);
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << (bit % 8)));
      disk->set_contents(file, bad);
      std::string what;
      const Outcome strict = outcome_of(disk, false, what);
      ASSERT_TRUE(strict == Outcome::refused || (strict == Outcome::exact && at >= used))
          << file << ", bit " << bit << ": " << what;
      refused += strict == Outcome::refused ? 1 : 0;
      if (bit % 7 != 0) continue;
      const Outcome lenient = outcome_of(disk, true, what);
      ASSERT_NE(lenient, Outcome::wrong) << file << ", bit " << bit << ": " << what;
      left_out += lenient == Outcome::left_out ? 1 : 0;
    }
  }
  EXPECT_GT(refused, 10'000 / static_cast<int>(stride));
  EXPECT_GT(left_out, 1000 / static_cast<int>(stride));
}

TEST(BlockLog, FilesThatAreCutMissingOrSwappedAreRefusedOrLackBlocksOfTheFront) {
  const Logged logged;
  const auto expect = [&](const std::shared_ptr<SimFs>& disk, const std::string& damage, bool may_lack_front) {
    std::string what;
    const Outcome outcome = outcome_of(disk, false, what);
    // A missing file cannot be told from one that was no longer needed: whoever reads the log knows what it must have.
    const bool front = may_lack_front && outcome == Outcome::left_out && what.ends_with(std::to_string(Logged::blocks));
    EXPECT_TRUE(outcome == Outcome::refused || outcome == Outcome::exact || front) << damage << ": " << what;
    EXPECT_NE(outcome_of(disk->copy(2), true, what), Outcome::wrong) << damage << ": " << what;
    return outcome;
  };
  int refused = 0;
  for (const std::string& file : logged.files) {
    const std::string good = logged.disk->contents(file);
    for (std::size_t size = 0; size < good.size(); size += 7) {
      const auto disk = logged.disk->copy(1);
      disk->set_contents(file, good.substr(0, size));
      refused += expect(disk, file + " of " + std::to_string(size) + " bytes", false) == Outcome::refused ? 1 : 0;
    }
    const auto disk = logged.disk->copy(1);
    disk->erase(file);
    static_cast<void>(expect(disk, file + " is missing", true));
    for (const std::string& other : logged.files) {
      if (file >= other) continue;
      const auto swapped = logged.disk->copy(1);
      swapped->set_contents(file, logged.disk->contents(other));
      swapped->set_contents(other, good);
      EXPECT_EQ(expect(swapped, file + " and " + other, false), Outcome::refused);
    }
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
