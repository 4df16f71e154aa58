#include "tidemill/testing/sim_fs.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace {

using tidemill::FsError;
using tidemill::testing::SimCrash;
using tidemill::testing::SimFault;
using tidemill::testing::SimFs;

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span{text}); }

// Writes a file as it should be done, with the steps that are asked for.
void write_file(SimFs& disk, const std::string& path, std::string_view text, bool sync = true,
                bool sync_directory = true) {
  const auto file = disk.create(path);
  file->append(bytes(text));
  if (sync) file->sync();
  if (sync_directory) disk.sync_directory(".");
}

TEST(SimFs, KeepsEverythingWhenTheProcessIsKilled) {
  SimFs disk{1};
  write_file(disk, "a", "written", false, false);
  disk.kill();
  EXPECT_THROW(static_cast<void>(disk.exists("a")), SimCrash);
  disk.restart();
  EXPECT_EQ(disk.contents("a"), "written");
}

TEST(SimFs, WhatWasSynchronisedSurvivesThePower) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    SimFs disk{seed};
    write_file(disk, "a", "written");
    disk.lose_power();
    disk.restart();
    EXPECT_EQ(disk.contents("a"), "written");
  }
}

TEST(SimFs, WhatWasNotSynchronisedIsSometimesLostSometimesTornSometimesThere) {
  int lost = 0, torn = 0, whole = 0;
  const std::string text(5000, 'x');
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SimFs disk{seed};
    write_file(disk, "a", "", true, true);
    disk.open("a")->append(bytes(text));
    disk.lose_power();
    disk.restart();
    const std::string left = disk.contents("a");
    if (left == text)
      ++whole;
    else if (left.find('x') == std::string::npos)
      ++lost;
    else
      ++torn;
  }
  EXPECT_GT(lost, 10);
  EXPECT_GT(torn, 10);
  EXPECT_GT(whole, 5);
}

TEST(SimFs, NamesThatWereNotSynchronisedAreSometimesUndone) {
  int undone = 0, done = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    SimFs disk{seed};
    write_file(disk, "new", "2");
    write_file(disk, "final", "1");
    disk.rename("new", "final");
    disk.lose_power();
    disk.restart();
    // All of the rename or nothing of it.
    ++(disk.contents("final") == "2" ? done : undone);
    EXPECT_EQ(disk.exists("new"), disk.contents("final") == "1");
  }
  EXPECT_GT(undone, 20);
  EXPECT_GT(done, 20);
}

TEST(SimFs, ADirectoryIsMovedWithWhatIsDurableInIt) {
  int moved = 0, not_moved = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    SimFs disk{seed};
    disk.make_directory("staging");
    disk.sync_directory(".");
    disk.create("staging/durable")->sync();
    disk.sync_directory("staging");
    disk.create("staging/not");
    auto lock = disk.lock_directory("staging");
    disk.rename("staging", "final");
    EXPECT_EQ(disk.lock_directory("final"), nullptr);
    EXPECT_TRUE(disk.exists("final/not"));
    disk.lose_power();
    disk.restart();
    ++(disk.exists("final/durable") ? moved : not_moved);
    EXPECT_NE(disk.exists("final/durable"), disk.exists("staging/durable"));
  }
  EXPECT_GT(moved, 20);
  EXPECT_GT(not_moved, 20);
}

TEST(SimFs, DirectoriesAreExchangedWholeOrNotAtAll) {
  int exchanged = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    SimFs disk{seed};
    for (const std::string name : {"a", "b"}) {
      disk.make_directory(name);
      disk.create(name + "/in " + name);
      disk.sync_directory(name);
    }
    disk.sync_directory(".");
    EXPECT_TRUE(disk.exchange("a", "b"));
    EXPECT_THROW(disk.rename("a", "b"), FsError) << "it is not empty";
    EXPECT_THROW(disk.remove_directory("a"), FsError);
    disk.lose_power();
    disk.restart();
    exchanged += disk.exists("a/in b") ? 1 : 0;
    EXPECT_EQ(disk.exists("a/in b"), disk.exists("b/in a"));
    EXPECT_NE(disk.exists("a/in b"), disk.exists("a/in a"));
  }
  EXPECT_GT(exchanged, 20);
  EXPECT_LT(exchanged, 80);
}

TEST(SimFs, AFailedSyncDropsTheBytesAndTheNextOneSucceeds) {
  SimFs disk{1};
  write_file(disk, "a", "");
  {
    const auto file = disk.open("a");
    file->append(bytes("dropped"));
    disk.fail_at(1, SimFault::sync_lost);
    EXPECT_THROW(file->sync(), FsError);
    EXPECT_TRUE(disk.fault_happened());
    EXPECT_THROW(file->sync(), FsError);  // this one is never trusted again
    disk.open("a")->sync();               // and another one is told a lie
  }
  EXPECT_EQ(disk.contents("a"), "dropped");
  disk.lose_power();
  disk.restart();
  EXPECT_EQ(disk.contents("a").find('d'), std::string::npos);
}

TEST(SimFs, ErrorsComeOnceOrForEver) {
  SimFs disk{1};
  disk.fail_at(2, SimFault::io_error);
  const auto file = disk.create("a");
  EXPECT_THROW(file->append(bytes("x")), FsError);
  const auto again = disk.create("b");
  again->append(bytes("x"));
  disk.fail_at(1, SimFault::disk_full, true);
  EXPECT_THROW(again->append(bytes("x")), FsError);
  EXPECT_THROW(static_cast<void>(disk.create("c")), FsError);
  disk.sync_directory(".");  // takes no room
  EXPECT_TRUE(disk.remove("a"));
  disk.clear_faults();
  static_cast<void>(disk.create("c"));
}

TEST(SimFs, SaysWhatAFileIsAndWhenItWasModified) {
  using namespace std::chrono_literals;
  SimFs disk;
  EXPECT_EQ(disk.status("a"), std::nullopt);
  disk.set_time(tidemill::Time{5s});
  disk.set_contents("a", "four");
  const auto a = disk.status("a");
  ASSERT_TRUE(a);
  EXPECT_EQ(a->type, tidemill::FsStatus::Type::file);
  EXPECT_EQ(a->size, 4U);
  EXPECT_EQ(a->modified, 5s);
  EXPECT_EQ(disk.read("a")->status(), *a);
  disk.set_time(tidemill::Time{6s});
  EXPECT_EQ(disk.status("a"), a);
  disk.open("a")->append(bytes("x"));
  EXPECT_EQ(disk.status("a")->modified, 6s);
  EXPECT_EQ(disk.status("a")->inode, a->inode);
  disk.set_contents("a", "four");
  EXPECT_NE(disk.status("a")->inode, a->inode) << "it is another file";
  disk.make_directory("d");
  EXPECT_EQ(disk.status("d")->type, tidemill::FsStatus::Type::directory);
}

TEST(SimFs, LocksKeepOthersOutUntilTheyGo) {
  SimFs disk{1};
  auto lock = disk.lock("LOCK", "me");
  EXPECT_EQ(disk.lock("LOCK", "you"), nullptr);
  EXPECT_TRUE(disk.is_locked("LOCK"));
  EXPECT_EQ(disk.contents("LOCK"), "me");
  lock.reset();
  EXPECT_NE(disk.lock("LOCK", "you"), nullptr);
}

TEST(SimFs, EqualSeedsAndCallsGiveEqualBytesAndTraces) {
  const auto run = [](std::uint64_t seed) {
    SimFs disk{seed};
    for (int i = 0; i < 10; ++i)
      write_file(disk, "f" + std::to_string(i), std::string(3000, 'a'), i % 2 == 0, i % 3 == 0);
    disk.lose_power();
    disk.restart();
    std::string all = std::to_string(disk.trace());
    for (const std::string& file : disk.files()) all += file + disk.contents(file);
    return all;
  };
  EXPECT_EQ(run(7), run(7));
  EXPECT_NE(run(7), run(8));
}

}  // namespace
