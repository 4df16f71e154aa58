// The store by itself: what it takes, gives back and refuses. What survives which fault is in fault_sweep_test.cpp.
#include "tidemill/checkpoint/checkpoint_store.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/harness.hpp"
#include "tidemill/core/crc32c.hpp"

namespace {

using namespace tidemill_test;
using namespace std::chrono_literals;

std::shared_ptr<SimFs> new_disk(std::uint64_t seed = 1) { return std::make_shared<SimFs>(seed); }

BatchPlan plan_of(int batch, std::string bytes = "offsets") {
  BatchPlan plan;
  plan.time = time_at(batch);
  plan.inputs = {{"lines", std::move(bytes)}};
  return plan;
}

template <class Function>
std::string code_of(Function function) {
  try {
    function();
  } catch (const tidemill::Error& error) {
    return error.code();
  }
  return "";
}

TEST(CheckpointStore, OptionsThatCannotBeAreNamedWithTheirValues) {
  const auto refused = [](const std::function<void(CheckpointOptions&)>& change) -> std::string {
    CheckpointOptions options = small_options(new_disk());
    change(options);
    try {
      CheckpointStore{"checkpoint", options};
    } catch (const tidemill::ConfigError& error) {
      return error.what();
    }
    return "";
  };
  using testing::HasSubstr;
  EXPECT_THAT(refused([](auto& options) { options.plan_segment_bytes = 5000; }),
              HasSubstr("plan_segment_bytes is 5000"));
  EXPECT_THAT(refused([](auto& options) { options.commit_segment_bytes = 512; }),
              HasSubstr("commit_segment_bytes is 512"));
  EXPECT_THAT(refused([](auto& options) { options.keep_snapshots = 1; }), HasSubstr("keep_snapshots is 1"));
  EXPECT_THAT(refused([](auto& options) { options.max_commits_in_flight = 0; }),
              HasSubstr("max_commits_in_flight is 0"));
  EXPECT_THAT(refused([](auto& options) { options.snapshot_log_fraction = -0.5; }),
              HasSubstr("snapshot_log_fraction is -0.5"));
  EXPECT_THAT(refused([](auto& options) { options.keep_for = -5s; }), HasSubstr("keep_for is -5"));
}

TEST(CheckpointStore, SnapshotsAreKeptAsLongAsIsAskedFor) {
  const auto snapshots_after = [](tidemill::Duration keep_for) {
    const auto disk = new_disk();
    Program program;
    program.batches = 60;
    program.adjust = [&](CheckpointOptions& options) { options.keep_for = keep_for; };
    program.run(disk);
    const auto files = disk->files();
    return std::count_if(files.begin(), files.end(),
                         [](const std::string& file) { return file.find("/snapshot-") != std::string::npos; });
  };
  const auto few = snapshots_after(0s);
  const auto some = snapshots_after(20s);
  const auto all = snapshots_after(1h);
  EXPECT_EQ(few, 2);
  EXPECT_GT(some, few);
  EXPECT_GT(all, some);
}

TEST(CheckpointStore, ANewOneHoldsNothing) {
  CheckpointStore store{"checkpoint", small_options(new_disk())};
  EXPECT_FALSE(store.last_run());
  EXPECT_FALSE(store.last_committed());
  EXPECT_TRUE(store.uncommitted().empty());
  EXPECT_TRUE(store.states().empty());
  EXPECT_TRUE(store.warnings().empty());
  EXPECT_FALSE(store.durable_until());
}

TEST(CheckpointStore, GivesBackTheRunThePlansAndTheStates) {
  const auto disk = new_disk();
  {
    CheckpointStore store{"checkpoint", small_options(disk)};
    store.begin_run(run_record());
    store.plan(plan_of(1, "one"));
    store.commit(time_at(1),
                 commits_of({{"counts", 3, "a", "1"}, {"counts", 200, "b", "1"}, {"sessions", 0, "s", "x"}}));
    store.plan(plan_of(2, "two"));
    store.commit(time_at(2), commits_of({{"counts", 3, "a", "2"}, {"sessions", 0, "s", std::nullopt}}));
    store.plan(plan_of(3, "three"));
    EXPECT_EQ(store.durable_until(), time_at(2));
  }
  CheckpointStore store{"checkpoint", small_options(disk)};
  EXPECT_EQ(store.last_run(), run_record());
  EXPECT_EQ(store.last_committed(), plan_of(2, "two"));
  EXPECT_THAT(store.uncommitted(), testing::ElementsAre(plan_of(3, "three")));
  ASSERT_EQ(store.states().size(), 2U);
  EXPECT_EQ(store.states()[0].name, "counts");
  EXPECT_EQ(store.states()[1].schema.parameters, "timeout 5 s");
  EXPECT_EQ(states_in(store), (States{{"counts", {{{3, "a"}, "2"}, {{200, "b"}, "1"}}}}));
  store.for_each_entry("no such state", [](auto...) { ADD_FAILURE(); });
}

TEST(CheckpointStore, AnUncommittedBatchIsCommittedByTheNextRun) {
  const auto disk = new_disk();
  {
    CheckpointStore store{"checkpoint", small_options(disk)};
    store.begin_run(run_record());
    store.plan(plan_of(1));
    store.plan(plan_of(2));
  }
  {
    CheckpointStore store{"checkpoint", small_options(disk)};
    ASSERT_EQ(store.uncommitted().size(), 2U);
    store.begin_run(run_record());
    store.commit(time_at(1), commits_of({{"counts", 1, "a", "1"}}));
    EXPECT_EQ(code_of([&] { store.plan(plan_of(2)); }), "illegal_state");  // it is planned already
    store.commit(time_at(2), {});
    store.plan(plan_of(3));
  }
  CheckpointStore store{"checkpoint", small_options(disk)};
  EXPECT_EQ(store.last_committed()->time, time_at(2));
  EXPECT_EQ(store.uncommitted().size(), 1U);
}

TEST(CheckpointStore, DroppedPlansDoNotComeBack) {
  const auto disk = new_disk();
  {
    CheckpointStore store{"checkpoint", small_options(disk)};
    store.begin_run(run_record());
    store.plan(plan_of(1));
    store.commit(time_at(1), {});
    store.plan(plan_of(2, "first"));
    store.plan(plan_of(3, "first"));
  }
  {
    CheckpointStore store{"checkpoint", small_options(disk)};
    store.drop_uncommitted();
    EXPECT_TRUE(store.uncommitted().empty());
    store.begin_run(run_record());
    store.plan(plan_of(2, "second"));
  }
  CheckpointStore store{"checkpoint", small_options(disk)};
  EXPECT_THAT(store.uncommitted(), testing::ElementsAre(plan_of(2, "second")));
}

TEST(CheckpointStore, StatesThatARunDoesNotNameAreDroppedWithItsFirstCommit) {
  const auto disk = new_disk();
  {
    CheckpointStore store{"checkpoint", small_options(disk)};
    store.begin_run(run_record());
    store.plan(plan_of(1));
    store.commit(time_at(1), commits_of({{"counts", 1, "a", "1"}, {"sessions", 1, "s", "1"}}));
    store.take_snapshot();
  }
  RunRecord run = run_record();
  run.states[1].schema.value = "i64";  // the same name, another schema
  {
    CheckpointStore store{"checkpoint", small_options(disk)};
    store.begin_run(run);  // nothing is committed, so nothing is dropped
  }
  {
    CheckpointStore store{"checkpoint", small_options(disk)};
    EXPECT_EQ(states_in(store).size(), 2U);
    store.begin_run(run);
    store.plan(plan_of(2));
    store.commit(time_at(2), commits_of({{"sessions", 9, "t", "2"}}));
  }
  const States expected{{"counts", {{{1, "a"}, "1"}}}, {"sessions", {{{9, "t"}, "2"}}}};
  {
    CheckpointStore store{"checkpoint", small_options(disk)};
    EXPECT_EQ(states_in(store), expected);
    EXPECT_EQ(store.states()[1].schema.value, "i64");
    store.take_snapshot();
  }
  CheckpointStore store{"checkpoint", small_options(disk)};
  EXPECT_EQ(states_in(store), expected);
}

TEST(CheckpointStore, SnapshotsReplaceTheLogAndFilesStayFew) {
  const auto disk = new_disk();
  Program program;
  program.batches = 200;
  program.batches_of_a_life = 70;
  program.run(disk);
  int snapshots = 0;
  for (const std::string& file : disk->files()) snapshots += file.find("snapshot-") != std::string::npos ? 1 : 0;
  EXPECT_EQ(snapshots, 2) << testing::PrintToString(disk->files());
  EXPECT_LT(disk->files().size(), 20U);
}

TEST(CheckpointStore, KeepsAsManySnapshotsAsAskedFor) {
  const auto disk = new_disk();
  Program program;
  program.batches = 100;
  program.batches_of_a_life = 100;
  program.adjust = [](CheckpointOptions& options) { options.keep_snapshots = 4; };
  program.run(disk);
  int snapshots = 0;
  for (const std::string& file : disk->files()) snapshots += file.find("snapshot-") != std::string::npos ? 1 : 0;
  EXPECT_EQ(snapshots, 4);
}

TEST(CheckpointStore, APlanCostsOneSyncAndNothingElse) {
  const auto disk = new_disk();
  CheckpointStore store{"checkpoint", small_options(disk)};
  store.begin_run(run_record());
  disk->record_calls(true);
  store.plan(plan_of(1));
  EXPECT_THAT(disk->calls(),
              testing::ElementsAre("write checkpoint/plan-0000000001.log", "sync_data checkpoint/plan-0000000001.log"));
}

TEST(CheckpointStore, CallsOutOfOrderAreRefused) {
  CheckpointStore store{"checkpoint", small_options(new_disk())};
  EXPECT_EQ(code_of([&] { store.plan(plan_of(1)); }), "illegal_state");
  EXPECT_EQ(code_of([&] { store.commit(time_at(1), {}); }), "illegal_state");
  RunRecord twice = run_record();
  twice.states.push_back(twice.states[0]);
  EXPECT_EQ(code_of([&] { store.begin_run(twice); }), "config");
  store.begin_run(run_record());
  EXPECT_EQ(code_of([&] { store.begin_run(run_record()); }), "illegal_state");
  EXPECT_EQ(code_of([&] { store.commit(time_at(1), {}); }), "illegal_state");
  store.plan(plan_of(5));
  EXPECT_EQ(code_of([&] { store.plan(plan_of(4)); }), "illegal_state");
  EXPECT_EQ(code_of([&] { store.commit(time_at(4), {}); }), "illegal_state");
  EXPECT_EQ(code_of([&] { store.commit(time_at(5), commits_of({{"other", 1, "a", "1"}})); }), "illegal_state");
  store.commit(time_at(5), {});
  store.close();
  EXPECT_EQ(code_of([&] { store.plan(plan_of(6)); }), "illegal_state");
}

TEST(CheckpointStore, TheSecondStoreInAProcessIsRefusedWithTheHolder) {
  const auto disk = new_disk();
  CheckpointStore store{"checkpoint", small_options(disk)};
  try {
    CheckpointStore second{"checkpoint", small_options(disk)};
    FAIL();
  } catch (const StateError& error) {
    EXPECT_EQ(error.code(), "checkpoint_in_use");
    EXPECT_THAT(error.what(), testing::HasSubstr("process " + std::to_string(::getpid())));
    EXPECT_THAT(error.what(), testing::HasSubstr("which is this one"));
  }
  store.close();
  CheckpointStore third{"checkpoint", small_options(disk)};
}

TEST(CheckpointStore, AnUnsafeFileSystemIsRefusedUnlessAllowed) {
  const auto disk = new_disk();
  disk->set_kind({"nfs", false});
  EXPECT_EQ(code_of([&] { CheckpointStore{"checkpoint", small_options(disk)}; }), "unsafe_filesystem");
  EXPECT_TRUE(disk->files().empty());
  CheckpointOptions options = small_options(disk);
  options.allow_unsafe_filesystem = true;
  CheckpointStore store{"checkpoint", options};
}

TEST(CheckpointStore, ABatchIsRefusedWhileTheDiskIsNearlyFull) {
  const auto disk = new_disk();
  CheckpointStore store{"checkpoint", small_options(disk)};
  store.begin_run(run_record());
  disk->set_free_space(1000);
  try {
    store.plan(plan_of(1));
    FAIL();
  } catch (const StateError& error) {
    EXPECT_EQ(error.code(), "disk_full");
    EXPECT_EQ(error.retry(), Retry::may_help);
  }
  disk->set_free_space(std::uint64_t{1} << 30);
  store.plan(plan_of(1));
}

TEST(CheckpointStore, ANewerFormatIsRefusedAndNothingIsTouched) {
  const auto disk = new_disk();
  { CheckpointStore store{"checkpoint", small_options(disk)}; }
  std::string meta = disk->contents("checkpoint/META");
  meta[8] = 2;
  const std::uint32_t crc = tidemill::crc32c(std::as_bytes(std::span{meta}).first(60));
  for (int i = 0; i < 4; ++i) meta[static_cast<std::size_t>(60 + i)] = static_cast<char>(crc >> (8 * i));
  disk->set_contents("checkpoint/META", meta);
  disk->record_calls(true);
  try {
    CheckpointStore store{"checkpoint", small_options(disk)};
    FAIL();
  } catch (const StateError& error) {
    EXPECT_EQ(error.code(), "newer_format");
    EXPECT_THAT(error.what(), testing::HasSubstr("version 2"));
  }
  EXPECT_THAT(disk->calls(), testing::IsEmpty());
}

TEST(CheckpointStore, AFailedCommitLeavesItsChangesToBeCommittedAgain) {
  const auto disk = new_disk();
  {
    CheckpointStore store{"checkpoint", small_options(disk)};
    store.begin_run(run_record());
    store.plan(plan_of(1));
    auto changes = commits_of({{"counts", 1, "a", "1"}});
    disk->fail_at(1, SimFault::io_error, true);
    EXPECT_EQ(code_of([&] { store.commit(time_at(1), std::move(changes)); }), "io");
    disk->clear_faults();
    store.commit(time_at(1), std::move(changes));  // NOLINT(bugprone-use-after-move): it was not taken
  }
  CheckpointStore store{"checkpoint", small_options(disk)};
  EXPECT_EQ(states_in(store), (States{{"counts", {{{1, "a"}, "1"}}}}));
}

TEST(CheckpointStore, OfSnapshotsThatWereFoundDamagedTheNewestIsKept) {
  const auto disk = new_disk();
  const auto damaged = [&] {
    std::vector<std::string> names = disk->list("checkpoint");
    std::erase_if(names, [](const std::string& name) { return !name.ends_with(".damaged"); });
    return names;
  };
  for (int batch = 1; batch <= 4; ++batch) {
    CheckpointStore store{"checkpoint", small_options(disk)};
    EXPECT_EQ(store.warnings().size(), batch > 2 ? 1U : 0U);
    store.begin_run(run_record());
    store.plan(plan_of(batch));
    store.commit(time_at(batch), commits_of({{"counts", 1, "a", std::to_string(batch)}}));
    store.take_snapshot();
    store.close();
    if (batch == 1) continue;  // nothing would make up for it
    const std::string newest = "checkpoint/snapshot-000000000" + std::to_string(batch) + ".dat";
    std::string bytes = disk->contents(newest);
    bytes[100] ^= 1;
    disk->set_contents(newest, bytes);
  }
  EXPECT_THAT(damaged(), testing::ElementsAre("snapshot-0000000003.dat.damaged"));
  CheckpointStore store{"checkpoint", small_options(disk)};
  EXPECT_THAT(damaged(), testing::ElementsAre("snapshot-0000000004.dat.damaged"));
  EXPECT_EQ(states_in(store), (States{{"counts", {{{1, "a"}, "4"}}}}));
}

// --- With threads ---

CheckpointOptions threaded_options(const std::shared_ptr<SimFs>& disk) {
  CheckpointOptions options = small_options(disk);
  options.writer = CheckpointOptions::Writer::background;
  return options;
}

TEST(CheckpointStoreThreads, CommitsBecomeDurableInTheBackground) {
  const auto disk = new_disk();
  States expected;
  {
    CheckpointStore store{"checkpoint", threaded_options(disk)};
    store.begin_run(run_record());
    for (int batch = 1; batch <= 300; ++batch) {
      store.plan(plan_of(batch));
      const auto changes = changes_of(batch, "p");
      apply_changes(expected, changes);
      store.commit(time_at(batch), commits_of(changes));
    }
    store.sync();
    EXPECT_EQ(store.durable_until(), time_at(300));
    EXPECT_EQ(store.statistics().commits, 300U);
    EXPECT_EQ(store.statistics().commits_in_flight, 0U);
  }
  CheckpointStore store{"checkpoint", threaded_options(disk)};
  EXPECT_EQ(states_in(store), expected);
  EXPECT_TRUE(store.uncommitted().empty());
}

TEST(CheckpointStoreThreads, AFailureIsHeardOfAndWhatWasHandedOverIsTriedAgain) {
  const auto disk = new_disk();
  {
    CheckpointStore store{"checkpoint", threaded_options(disk)};
    store.begin_run(run_record());
    store.plan(plan_of(1));
    store.plan(plan_of(2));
    disk->fail_at(1, SimFault::io_error, true);
    store.commit(time_at(1), commits_of({{"counts", 1, "a", "1"}}));
    EXPECT_EQ(code_of([&] { store.sync(); }), "io");
    disk->clear_faults();
    store.sync();
    EXPECT_EQ(store.durable_until(), time_at(1));
    store.commit(time_at(2), commits_of({{"counts", 1, "b", "2"}}));
  }
  CheckpointStore store{"checkpoint", threaded_options(disk)};
  EXPECT_EQ(states_in(store), (States{{"counts", {{{1, "a"}, "1"}, {{1, "b"}, "2"}}}}));
  EXPECT_EQ(store.last_committed()->time, time_at(2));
}

TEST(CheckpointStoreThreads, CommitWaitsWhileTooMuchIsInFlight) {
  const auto disk = new_disk();
  CheckpointOptions options = threaded_options(disk);
  options.max_commits_in_flight = 2;
  CheckpointStore store{"checkpoint", options};
  store.begin_run(run_record());
  for (int batch = 1; batch <= 50; ++batch) {
    store.plan(plan_of(batch));
    store.commit(time_at(batch), {});
    EXPECT_LE(store.statistics().commits_in_flight, 2U);
  }
  store.sync();
}

TEST(CheckpointStoreThreads, ADiskThatStaysFullDoesNotKeepTheStoreFromClosing) {
  const auto disk = new_disk();
  {
    CheckpointStore store{"checkpoint", threaded_options(disk)};
    store.begin_run(run_record());
    store.plan(plan_of(1));
    disk->fail_at(1, SimFault::disk_full, true);
    store.commit(time_at(1), commits_of({{"counts", 1, "a", "1"}}));
    EXPECT_EQ(code_of([&] { store.close(); }), "disk_full");
    store.close();
  }
  disk->clear_faults();
  CheckpointStore store{"checkpoint", threaded_options(disk)};
  EXPECT_EQ(store.uncommitted().size(), 1U);
}

}  // namespace
