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
      std::uint64_t durable = 0;
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
          while (appended < static_cast<std::uint64_t>(life + 1) * 30) {
            for (int i = 0; i < 3; ++i) log->append(block(appended++));
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

}  // namespace
