// Every fault at every durable call, and the same against stores with planted faults: those must be found.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/harness.hpp"
#include "checkpoint/sabotaged_fs.hpp"

namespace {

using namespace tidemill_test;

struct Fault {
  SimFault what = SimFault::kill;
  std::uint64_t call = 1;
  bool for_ever = false;
  std::uint64_t seed = 1;
};

std::string text_of(const Fault& fault) {
  static const char* const names[] = {"none", "kill", "power_loss", "io_error", "disk_full", "sync_lost"};
  return std::string{names[static_cast<int>(fault.what)]} + (fault.for_ever ? " for ever" : "") + " at call " +
         std::to_string(fault.call) + ", seed " + std::to_string(fault.seed);
}

/// Runs the program with faults, one after the other, each in the life that follows the one before; then without any, until
/// all is done. Returns what was violated; "" means nothing. `happened`: whether the first fault did.
std::string run_case(const std::vector<Fault>& faults, const Sabotage& sabotage, bool* happened = nullptr) {
  const auto disk = std::make_shared<SimFs>(faults.front().seed * 7919 + faults.front().call);
  const auto fs = std::make_shared<SabotagedFs>(disk, sabotage);
  Program program;
  std::size_t next = 0;
  for (int lives = 0; lives < 20; ++lives) {
    const Fault* const fault = next < faults.size() ? &faults[next++] : nullptr;
    if (fault != nullptr) disk->fail_at(fault->call, fault->what, fault->for_ever);
    bool ended = false;
    std::string error;
    try {
      program.run(fs);
      ended = true;
    } catch (const SimCrash&) {
    } catch (const StateError& stopped) {
      error = stopped.what();
      if (stopped.code() == "checkpoint_damaged") return "refused: " + error;
      // One error that can be made up for must be, without a new start.
      if (fault == nullptr || !disk->fault_happened()) return "an error without a fault: " + error;
      if (!fault->for_ever) return "one error was too much: " + error;
    } catch (const Violation& violation) {
      return violation.what();
    } catch (const tidemill::Error& other) {
      return std::string{"another error: "} + other.what();
    }
    if (happened != nullptr && fault == &faults.front()) *happened = disk->fault_happened();
    if (ended && next == faults.size()) {
      // What is there now must also survive the power.
      disk->lose_power();
      disk->restart();
      try {
        program.check(fs);
      } catch (const std::exception& violation) {
        return std::string{"after the end: "} + violation.what();
      }
      for (const std::string& file : disk->files()) {
        if (file.ends_with(".tmp")) return "left behind: " + file;
      }
      return "";
    }
    if (!ended && !error.empty()) disk->kill();  // the host gives up; what was written stays in the cache
    disk->restart();
  }
  return "no end";
}

// Under a sanitizer the sweeps take one call of three, each seed others: they take ten times as long there.
constexpr std::uint64_t stride = TIDEMILL_SANITIZED ? 3 : 1;

/// Every call of the program, or one of `step`, with one kind of fault. Returns the first violation, and counts the cases.
std::string sweep(SimFault what, bool for_ever, std::vector<std::uint64_t> seeds, std::uint64_t step,
                  const Sabotage& sabotage, int* cases) {
  for (const std::uint64_t seed : seeds) {
    for (std::uint64_t call = 1 + seed % step;; call += step) {
      const Fault fault{what, call, for_ever, seed};
      bool happened = false;
      const std::string violation = run_case({fault}, sabotage, &happened);
      if (!violation.empty()) return text_of(fault) + ": " + violation;
      if (!happened) break;
      ++*cases;
    }
  }
  return "";
}

void expect_none(SimFault what, bool for_ever, std::vector<std::uint64_t> seeds) {
  int cases = 0;
  EXPECT_EQ(sweep(what, for_ever, std::move(seeds), stride, {}, &cases), "");
  EXPECT_GT(cases * static_cast<int>(stride), 100);
  testing::Test::RecordProperty("cases", cases);
}

TEST(FaultSweep, KillAtEveryCall) { expect_none(SimFault::kill, false, {1, 2}); }
TEST(FaultSweep, PowerLossAtEveryCall) { expect_none(SimFault::power_loss, false, {1, 2, 3, 4}); }
TEST(FaultSweep, OneErrorAtEveryCall) { expect_none(SimFault::io_error, false, {1}); }
TEST(FaultSweep, ErrorsForEverFromEveryCallOn) { expect_none(SimFault::io_error, true, {1}); }
TEST(FaultSweep, OneFullDiskAtEveryCall) { expect_none(SimFault::disk_full, false, {1}); }
TEST(FaultSweep, AFullDiskForEverFromEveryCallOn) { expect_none(SimFault::disk_full, true, {1}); }
TEST(FaultSweep, OneLostSyncAtEveryCall) { expect_none(SimFault::sync_lost, false, {1}); }
TEST(FaultSweep, LostSyncsForEverFromEveryCallOn) { expect_none(SimFault::sync_lost, true, {1}); }

TEST(FaultSweep, ASecondFaultDuringRecovery) {
  int cases = 0;
  const SimFault kinds[] = {SimFault::kill, SimFault::power_loss, SimFault::sync_lost};
  for (const SimFault first : kinds) {
    for (const SimFault second : {SimFault::kill, SimFault::power_loss}) {
      for (std::uint64_t call = 1; call <= 150; call += 7 * stride) {
        for (std::uint64_t again = 1; again <= 30; again += 2) {
          const std::vector<Fault> faults{{first, call, first == SimFault::sync_lost, 5},
                                          {second, again, false, 5},
                                          {second, again / 2 + 1, false, 5}};
          const std::string violation = run_case(faults, {});
          ASSERT_EQ(violation, "") << text_of(faults[0]) << ", then " << text_of(faults[1]);
          ++cases;
        }
      }
    }
  }
  RecordProperty("cases", cases);
}

TEST(FaultSweep, EqualSeedsGiveEqualTraces) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    std::vector<std::uint64_t> traces;
    for (int twice = 0; twice < 2; ++twice) {
      const auto disk = std::make_shared<SimFs>(seed);
      disk->fail_at(20 + seed * 5, SimFault::power_loss);
      Program program;
      EXPECT_THROW(program.run(disk), SimCrash);
      disk->restart();
      program.run(disk);
      traces.push_back(disk->trace());
    }
    EXPECT_EQ(traces[0], traces[1]);
  }
}

// --- Tests of the test: each of these stores has one step too few ---

void expect_found(const Sabotage& sabotage) {
  int cases = 0;
  EXPECT_NE(sweep(SimFault::power_loss, false, {1, 2, 3, 4, 5, 6}, 1, sabotage, &cases), "")
      << "in " << cases << " cases";
}

TEST(PlantedFaults, PlansThatAreNotSynchronisedAreFound) { expect_found({.no_sync_of = names_with("plan-")}); }
TEST(PlantedFaults, CommitsThatAreNotSynchronisedAreFound) { expect_found({.no_sync_of = names_with("commit-")}); }
TEST(PlantedFaults, SnapshotsThatAreNotDurableBeforeTheLogIsRemovedAreFound) {
  expect_found({.no_sync_of = names_with("snapshot-")});
}
TEST(PlantedFaults, AMissingHeadIsFound) { expect_found({.no_sync_of = names_with("META")}); }
TEST(PlantedFaults, DirectoriesThatAreNotSynchronisedAreFound) {
  expect_found({.no_sync_directory_of = names_with("")});
}

}  // namespace
