// The store on the file system of the machine: locks between processes, a full disk, directories that cannot be written.
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/harness.hpp"

namespace {

using namespace tidemill_test;

class RealCheckpoint : public testing::Test {
 protected:
  RealCheckpoint() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tidemill-checkpoint-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary directory");
    parent_ = pattern;
    directory_ = pattern + "/checkpoint";
  }
  ~RealCheckpoint() override {
    std::error_code ignored;
    std::filesystem::remove_all(parent_, ignored);
  }

  static CheckpointOptions options() {
    CheckpointOptions options = small_options(nullptr);
    options.min_free_bytes = 0;
    return options;
  }

  std::string parent_;
  std::string directory_;
};

std::string code_of_open(const std::string& directory, const CheckpointOptions& options) {
  try {
    CheckpointStore store{directory, options};
    return "";
  } catch (const StateError& error) {
    return error.code();
  }
}

TEST_F(RealCheckpoint, WithoutAFileDescriptorLeftABatchIsRefusedAndMayBeTriedAgain) {  // F19
#if TIDEMILL_SANITIZED
  GTEST_SKIP() << "a sanitizer needs descriptors itself";
#endif
  CheckpointStore store{directory_, options()};
  store.begin_run(run_record());
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const int next = ::dup(0);  // the lowest that is free
  ::close(next);
  int refused = 0;
  for (int batch = 1; batch <= 60; ++batch) {
    BatchPlan plan;
    plan.time = time_at(batch);
    plan.inputs = {{"lines", std::string(1500, 'p')}};
    struct rlimit none = before;
    none.rlim_cur = static_cast<rlim_t>(next);
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
    bool done = false;
    Retry retry = Retry::may_help;
    std::string what;
    try {
      store.plan(plan);
      done = true;
    } catch (const StateError& error) {
      retry = error.retry();
      what = error.what();
    }
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
    ASSERT_EQ(retry, Retry::may_help) << what;
    if (!done) {
      EXPECT_THAT(what, testing::HasSubstr("ulimit -n"));
      ++refused;
      store.plan(plan);
    }
    store.commit(time_at(batch), commits_of(changes_of(batch, "")));
  }
  store.close();
  EXPECT_GT(refused, 5);
  EXPECT_EQ(batch_at(CheckpointStore{directory_, options()}.last_committed()->time), 60);
}

TEST_F(RealCheckpoint, AProgramOfManyLivesFindsItsState) {
  Program program;
  program.directory = directory_;
  program.batches = 60;
  program.batches_of_a_life = 17;
  program.adjust = [](CheckpointOptions& options) { options.min_free_bytes = 0; };
  program.run(nullptr);
  EXPECT_EQ(program.truth.committed, 60);
}

TEST_F(RealCheckpoint, ThreadsMakeSnapshotsWhileBatchesGoOn) {
  States expected;
  CheckpointOptions threaded = options();
  threaded.writer = CheckpointOptions::Writer::background;
  {
    CheckpointStore store{directory_, threaded};
    store.begin_run(run_record());
    for (int batch = 1; batch <= 400; ++batch) {
      BatchPlan plan;
      plan.time = time_at(batch);
      store.plan(plan);
      const auto changes = changes_of(batch, "p");
      apply_changes(expected, changes);
      store.commit(time_at(batch), commits_of(changes));
    }
    store.sync();
    store.take_snapshot();
    EXPECT_EQ(store.statistics().snapshot_failures, 0U) << store.statistics().last_failure;
  }
  CheckpointStore store{directory_, threaded};
  EXPECT_EQ(states_in(store), expected);
}

// Large enough for several threads to verify and to read it.
TEST_F(RealCheckpoint, ALargeStateComesBackAndDamageAnywhereInItIsFound) {
  CheckpointOptions threaded = options();
  threaded.writer = CheckpointOptions::Writer::background;
  threaded.commit_segment_bytes = 1024 * 1024;
  threaded.merge_bytes = 64 * 1024 * 1024;
  threaded.snapshot_min_log_bytes = 1024 * 1024 * 1024;  // none but the one that is asked for
  constexpr unsigned entries = 30'000;
  const std::string value(100, 'v');
  const auto key = [](unsigned i) { return "key " + std::to_string(i); };
  const auto plan_of = [](int batch) {
    BatchPlan plan;
    plan.time = time_at(batch);
    return plan;
  };
  {
    CheckpointStore store{directory_, threaded};
    store.begin_run(run_record());
    store.plan(plan_of(1));
    std::vector<StateCommit> commits(1);
    commits[0].state = "counts";
    for (unsigned i = 0; i < entries; ++i) commits[0].changes.put(static_cast<KeyGroup>(i % 256), key(i), value);
    store.commit(time_at(1), std::move(commits));
    store.sync();
    store.take_snapshot();
    store.plan(plan_of(2));
    commits.resize(1);
    commits[0].state = "counts";
    commits[0].changes.erase(7, key(7));
    commits[0].changes.put(8, key(8), std::string{"new"});
    store.commit(time_at(2), std::move(commits));
  }
  const auto read = [&](std::size_t parts, const auto& see) {
    CheckpointStore store{directory_, threaded};
    EXPECT_EQ(store.expected_entries("counts"), std::uint64_t{store.warnings().empty() ? entries : entries + 2U});
    store.for_each_entry("counts", see, parts);
    return store.warnings().size();
  };
  struct Seen {
    KeyGroup last = 0;
    unsigned right = 0;
    unsigned wrong = 0;
  };
  const auto expect_all = [&](std::size_t warnings, std::size_t parts = 1) {
    std::vector<Seen> seen(parts);  // one thread at a time sees a part
    EXPECT_EQ(read(parts,
                   [&](KeyGroup group, std::string_view k, std::string_view v) {
                     Seen& part = seen[(group * parts) >> 8];
                     const auto expected = tidemill::decode<std::string>(k) == key(8) ? "new" : value;
                     const bool good = group >= part.last && tidemill::decode<std::string>(v) == expected;
                     ++(good ? part.right : part.wrong);
                     part.last = group;
                   }),
              warnings);
    Seen all;
    for (const Seen& part : seen) {
      all.right += part.right;
      all.wrong += part.wrong;
    }
    EXPECT_EQ(all.right, entries - 1);
    EXPECT_EQ(all.wrong, 0U);
  };
  for (const std::size_t parts : {1, 2, 3, 100, 256}) expect_all(0, parts);
  // Whoever is given the entries may stop at any time.
  for (const int most : {0, 1, 15'000}) {
    std::atomic<int> left = most;
    EXPECT_THROW(read(3,
                      [&](auto&&...) {
                        if (left-- == 0) throw std::runtime_error{"enough"};
                      }),
                 std::runtime_error);
  }
  // A flipped bit in any part: the log, which is whole, makes up for it.
  const std::string snapshot = directory_ + "/snapshot-0000000001.dat";
  const auto size = std::filesystem::file_size(snapshot);
  for (std::uintmax_t part = 0; part < 4; ++part) {
    std::fstream file{snapshot, std::ios::in | std::ios::out | std::ios::binary};
    const auto at = static_cast<std::streamoff>(size / 4 * part + 1000);
    file.seekg(at);
    const char byte = static_cast<char>(file.get());
    file.seekp(at);
    file.put(static_cast<char>(byte ^ 4));
    file.close();
    expect_all(1, 2);
    std::filesystem::rename(snapshot + ".damaged", snapshot);
    std::fstream again{snapshot, std::ios::in | std::ios::out | std::ios::binary};
    again.seekp(at);
    again.put(byte);
  }
  expect_all(0);
}

TEST_F(RealCheckpoint, ASecondStoreInTheSameProcessIsRefused) {
  CheckpointStore store{directory_, options()};
  EXPECT_EQ(code_of_open(directory_, options()), "checkpoint_in_use");
}

// Another process, started anew, so that nothing is inherited but what it is told.
TEST_F(RealCheckpoint, AnotherProcessIsRefusedWithinASecondNamingTheHolder) {
  { CheckpointStore store{directory_, options()}; }
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ready[1], 1);
    // flock(1) takes the same kind of lock, so that a stranger stands for another store.
    ::execlp("flock", "flock", "-n", "-F", (directory_ + "/LOCK").c_str(), "sh", "-c", "echo held; exec sleep 60",
             nullptr);
    ::_exit(127);
  }
  ::close(ready[1]);
  char byte = 0;
  const bool held = ::read(ready[0], &byte, 1) == 1;
  ::close(ready[0]);
  if (held) {
    const auto before = std::chrono::steady_clock::now();
    EXPECT_EQ(code_of_open(directory_, options()), "checkpoint_in_use");
    EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds{1});
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  if (!held) GTEST_SKIP() << "the program flock is not installed";
  EXPECT_EQ(code_of_open(directory_, options()), "");  // the lock went with its holder
}

TEST_F(RealCheckpoint, TheLockOfAKilledOwnerStaysWithTheChildThatItForked) {
  int ready[2];
  int end[2];
  ASSERT_EQ(::pipe(ready), 0);
  ASSERT_EQ(::pipe(end), 0);
  const pid_t owner = ::fork();
  if (owner == 0) {
    const CheckpointStore store{directory_, options()};  // never destroyed: the process is killed
    if (::fork() == 0) {
      char byte;
      ::close(end[1]);
      static_cast<void>(::read(end[0], &byte, 1));
      ::_exit(0);
    }
    static_cast<void>(::write(ready[1], "r", 1));
    ::pause();
    ::_exit(0);
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  ::kill(owner, SIGKILL);
  ::waitpid(owner, nullptr, 0);
  try {
    CheckpointStore store{directory_, options()};
    ADD_FAILURE();
  } catch (const StateError& error) {
    EXPECT_EQ(error.code(), "checkpoint_in_use");
    EXPECT_THAT(error.what(), testing::HasSubstr("process " + std::to_string(owner)));
    EXPECT_THAT(error.what(), testing::HasSubstr("a process that it forked holds the lock"));
  }
  ::close(end[0]);
  ::close(end[1]);  // the child ends
  ::close(ready[0]);
  ::close(ready[1]);
  std::string code;
  do {
    code = code_of_open(directory_, options());
  } while (code == "checkpoint_in_use");
  EXPECT_EQ(code, "");
}

TEST_F(RealCheckpoint, KilledProcessesLoseNothingThatWasDurable) {
  for (int life = 0; life < 20; ++life) {
    int durable[2];
    ASSERT_EQ(::pipe(durable), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        CheckpointStore store{directory_, options()};
        int batch = store.last_committed() ? batch_at(store.last_committed()->time) : 0;
        store.drop_uncommitted();
        store.begin_run(run_record());
        for (;;) {
          ++batch;
          BatchPlan plan;
          plan.time = time_at(batch);
          store.plan(plan);
          store.commit(time_at(batch), commits_of(changes_of(batch, "p")));
          static_cast<void>(::write(durable[1], &batch, sizeof batch));
          store.maintain();
        }
      } catch (...) {
      }
      ::_exit(1);
    }
    ::close(durable[1]);
    int last = 0;
    int batch = 0;
    const int batches = 3 + life * 2;
    for (int i = 0; i < batches && ::read(durable[0], &batch, sizeof batch) == sizeof batch; ++i) last = batch;
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    while (::read(durable[0], &batch, sizeof batch) == sizeof batch) last = batch;
    ::close(durable[0]);
    CheckpointStore store{directory_, options()};
    ASSERT_TRUE(store.last_committed());
    const int committed = batch_at(store.last_committed()->time);
    ASSERT_GE(committed, last);
    ASSERT_LE(committed, last + 1);
    EXPECT_TRUE(store.warnings().empty());
    States expected;
    for (int i = 1; i <= committed; ++i) apply_changes(expected, changes_of(i, "p"));
    std::erase_if(expected, [](const auto& state) { return state.second.empty(); });
    ASSERT_EQ(states_in(store), expected);
  }
}

TEST_F(RealCheckpoint, WhatCannotBeWrittenIsRefusedAtTheStart) {
  EXPECT_EQ(code_of_open(parent_ + "/no/such/parent", options()), "not_found");
  ::close(::creat((parent_ + "/file").c_str(), 0600));
  EXPECT_EQ(code_of_open(parent_ + "/file", options()), "not_found");
}

// In a child, which stops being root first: root may write anywhere.
TEST_F(RealCheckpoint, ADirectoryWithoutPermissionIsRefusedAtTheStart) {
  using std::filesystem::perms;
  constexpr perms readable = perms::owner_read | perms::owner_exec | perms::others_read | perms::others_exec;
  std::filesystem::create_directory(parent_ + "/d");
  std::filesystem::permissions(parent_, perms::owner_all | perms::others_read | perms::others_exec);
  std::filesystem::permissions(parent_ + "/d", readable);
  const pid_t child = ::fork();
  if (child == 0) {
    constexpr unsigned nobody = 65534;
    if (::geteuid() == 0 && (::setgid(nobody) != 0 || ::setuid(nobody) != 0)) ::_exit(2);
    ::_exit(code_of_open(parent_ + "/d", options()) == "permission_denied" ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 2) GTEST_SKIP() << "this process is root and may be nobody else";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// No file of this process can be larger, which fails as a full disk does.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_{std::signal(SIGXFSZ, SIG_IGN)} {
    EXPECT_EQ(::getrlimit(RLIMIT_FSIZE, &before_), 0);
    struct rlimit limit = before_;
    limit.rlim_cur = bytes;
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &before_), 0);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  struct rlimit before_ {};
  void (*handler_)(int);
};

// A disk of 256 KiB, which is filled and emptied; where this process may not mount one, no file can be larger than half a
// segment, which fails in the same way but for the hope that it gets better by itself.
class SmallDisk {
 public:
  explicit SmallDisk(std::string at) : at_{std::move(at)} {
    std::filesystem::create_directory(at_);
    is_mounted_ = ::mount("none", at_.c_str(), "tmpfs", 0, "size=256k") == 0;
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  ~SmallDisk() {
    limit_.reset();
    if (is_mounted_) ::umount2(at_.c_str(), MNT_DETACH);
  }

  void fill() {
    if (!is_mounted_) {
      limit_.emplace(2048);
      return;
    }
    const int filler = ::creat((at_ + "/filler").c_str(), 0600);
    const std::string bytes(4096, 'f');
    while (::write(filler, bytes.data(), bytes.size()) > 0) {
    }
    ::close(filler);
  }
  void make_room() {
    limit_.reset();
    std::filesystem::remove(at_ + "/filler");
  }
  [[nodiscard]] Retry retry() const { return is_mounted_ ? Retry::may_help : Retry::is_useless; }

 private:
  const std::string at_;
  bool is_mounted_;
  std::optional<FileSizeLimit> limit_;
};

TEST_F(RealCheckpoint, AFullDiskIsAnErrorAndTheSameBatchGoesThroughLater) {
  SmallDisk disk{parent_ + "/small"};
  const std::string directory = parent_ + "/small/checkpoint";
  {
    CheckpointStore store{directory, options()};
    store.begin_run(run_record());
    disk.fill();
    std::string code;
    int batch = 0;
    while (code.empty() && batch < 10'000) {
      ++batch;
      try {
        BatchPlan plan;
        plan.time = time_at(batch);
        store.plan(plan);
        store.commit(time_at(batch), {});
      } catch (const StateError& error) {
        code = error.code();
        EXPECT_EQ(error.retry(), disk.retry());
      }
    }
    EXPECT_EQ(code, "disk_full");
    EXPECT_GT(batch, 1) << "there was room in what had been made";
    disk.make_room();
    BatchPlan plan;
    plan.time = time_at(batch);
    try {
      store.plan(plan);
    } catch (const tidemill::PlanError&) {  // the plan was durable, and the commit failed
    }
    store.commit(time_at(batch), {});
    EXPECT_EQ(store.durable_until(), time_at(batch));
  }
  EXPECT_EQ(code_of_open(directory, options()), "");
}

}  // namespace
