// What RecoveryOptions says reaches the store of a context: each option that is given to StreamingContext::checkpoint has its
// effect, and each that cannot be is refused at the start. The rest: recovery_test.cpp, received_test.cpp.
#include <algorithm>
#include <numeric>

#include "checkpoint/sabotaged_fs.hpp"
#include "engine/harness.hpp"
#include "tidemill/testing/sim_fs.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;
using testing::SimFs;
using tidemill_test::Sabotage;
using tidemill_test::SabotagedFs;

// A state that grows with each batch.
struct Growing : Rig {
  explicit Growing(const std::function<void(RecoveryOptions&)>& change, std::shared_ptr<Fs> fs = nullptr) {
    RecoveryOptions options;
    options.store.fs = fs ? std::move(fs) : disk;
    options.store.plan_segment_bytes = options.store.commit_segment_bytes = 4096;
    change(options);
    const auto counts = ssc.receiver_stream(feed, {.block_interval = 200ms})
                            .map([](int i) {
                              return std::pair{i, 1L};
                            })
                            .update_state_by_key<long>([](const std::vector<long>& values, std::optional<long> total) {
                              return std::optional<long>{total.value_or(0) + static_cast<long>(values.size())};
                            });
    seen = record(counts.count());
    ssc.checkpoint("checkpoint", options);
  }
  // With threads of its own, whose disk may be held up.
  ~Growing() {
    door.open();
    ssc.stop();
  }

  void run(int batches) {
    ssc.start(Drive::by_host);
    for (int i = 0; i < batches; ++i) {
      feed->put(i);
      pass(1s);
    }
  }
  [[nodiscard]] auto snapshot_files() const {
    const auto files = disk->files();
    return std::count_if(files.begin(), files.end(),
                         [](const std::string& file) { return file.find("/snapshot-") != std::string::npos; });
  }
  [[nodiscard]] std::uint64_t snapshots() const { return ssc.metrics().checkpoint.value().snapshots; }

  Door door;
  std::shared_ptr<SimFs> disk = std::make_shared<SimFs>(1);
  std::shared_ptr<Feed<int>> feed = std::make_shared<Feed<int>>();
  std::shared_ptr<Journal<Seen<std::size_t>>> seen;
};

TEST(RecoveryOptions, ThatCannotBeAreRefusedAtTheStartByName) {
  const auto refused = [](const std::function<void(RecoveryOptions&)>& change) {
    Growing job{change};
    return message_of<ConfigError>([&] { job.ssc.start(Drive::by_host); });
  };
  EXPECT_THAT(refused([](auto& o) { o.store.plan_segment_bytes = 5000; }), HasSubstr("plan_segment_bytes is 5000"));
  EXPECT_THAT(refused([](auto& o) { o.store.commit_segment_bytes = 512; }), HasSubstr("commit_segment_bytes is 512"));
  EXPECT_THAT(refused([](auto& o) { o.store.keep_snapshots = 1; }), HasSubstr("keep_snapshots is 1"));
  EXPECT_THAT(refused([](auto& o) { o.store.keep_for = -5s; }), HasSubstr("keep_for is -5"));
  EXPECT_THAT(refused([](auto& o) { o.store.max_commits_in_flight = 0; }), HasSubstr("max_commits_in_flight is 0"));
  EXPECT_THAT(refused([](auto& o) { o.store.snapshot_log_fraction = -0.5; }),
              HasSubstr("snapshot_log_fraction is -0.5"));
  EXPECT_THAT(refused([](auto& o) {
                o.log_received = true;
                o.received.segment_bytes = 5000;
              }),
              HasSubstr("segment_bytes of a receiver's log is 5000"));
}

// Six ticks pass while no commit becomes durable. Returns how many commits were handed over at most: the next one waits.
std::size_t most_in_flight(std::size_t expected, const std::function<void(RecoveryOptions&)>& change) {
  constexpr std::size_t ticks = 6;
  Door door;
  std::atomic<bool> is_slow = false;
  const auto disk = std::make_shared<SimFs>(1);
  const auto fs = std::make_shared<SabotagedFs>(disk, Sabotage{.before_sync_of = [&](const std::string& path) {
                                                  if (is_slow && path.find("commit-") != std::string::npos) {
                                                    EXPECT_TRUE(door.wait());
                                                  }
                                                }});
  Growing job{change, fs};
  job.ssc.start();
  EXPECT_TRUE(job.feed->life.wait_for(1));
  is_slow = true;
  for (std::size_t tick = 0; tick < ticks; ++tick) {
    EXPECT_TRUE(job.feed->put(static_cast<int>(tick)));
    job.clock->advance(1s);
  }
  const auto in_flight = [&] { return job.ssc.metrics().checkpoint.value().commits_in_flight; };
  const auto waits = [&] {
    const auto stages = job.ssc.metrics().running_stages;
    return !stages.empty() && stages[0].kind == RunningStage::Kind::commit &&
           stages[0].batch_time == at(1001.0 + static_cast<double>(expected));
  };
  EXPECT_TRUE(eventually([&] { return in_flight() >= expected && (expected == ticks || waits()); }));
  const std::size_t most = in_flight();
  door.open();
  job.ssc.stop();
  return most;
}

TEST(RecoveryOptions, CommitsInFlightBoundHowFarTheContextGetsAheadOfItsDisk) {
  EXPECT_EQ(most_in_flight(6, [](auto&) {}), 6u) << "all";
  EXPECT_EQ(most_in_flight(2, [](auto& o) { o.store.max_commits_in_flight = 2; }), 2u);
  EXPECT_EQ(most_in_flight(1, [](auto& o) { o.store.max_bytes_in_flight = 1; }), 1u) << "one, however large it is";
}

TEST(RecoveryOptions, ABatchNeedsRoomOnTheDisk) {
  Growing job{[](auto& o) { o.store.min_free_bytes = 1'000'000; }};
  job.disk->set_free_space(999'999);
  job.run(1);
  EXPECT_EQ(job.ssc.state(), StreamingState::stopped);
  EXPECT_TRUE(job.log.says("error", "a batch is begun only with 1000000"));
  Growing frugal{[](auto& o) { o.store.min_free_bytes = 0; }};
  frugal.disk->set_free_space(999'999);
  frugal.run(1);
  EXPECT_EQ(frugal.seen->size(), 1u);
}

TEST(RecoveryOptions, AFileSystemWithoutLocksIsRefusedUnlessItIsAllowed) {
  Growing job{[](auto&) {}};
  job.disk->set_kind({.name = "nfs", .safe = false});
  EXPECT_EQ(code_of<StateError>([&] { job.ssc.start(Drive::by_host); }), "unsafe_filesystem");
  Growing allowed{[](auto& o) { o.store.allow_unsafe_filesystem = true; }};
  allowed.disk->set_kind({.name = "nfs", .safe = false});
  allowed.run(1);
  EXPECT_EQ(allowed.seen->size(), 1u);
}

TEST(RecoveryOptions, SnapshotsAreMadeWhenTheLogIsLargeEnough) {
  const auto made = [](std::uint64_t min_bytes, double fraction) {
    Growing job{[&](auto& o) {
      o.store.snapshot_min_log_bytes = min_bytes;
      o.store.snapshot_log_fraction = fraction;
    }};
    job.run(8);
    return job.snapshots();
  };
  EXPECT_EQ(made(1, 0), 8u) << "after each batch";
  EXPECT_EQ(made(1'000'000, 0), 0u);
  EXPECT_EQ(made(1, 1000), 1u) << "the second would need a log a thousand times as large as the first";
}

// How often a file of the commit log is opened to make a snapshot of twenty keys.
std::size_t reads_for_a_snapshot(std::size_t merge_bytes) {
  std::size_t reads = 0;
  const auto disk = std::make_shared<SimFs>(1);
  const auto fs = std::make_shared<SabotagedFs>(
      disk, Sabotage{.before_read_of = [&](const std::string& path) { reads += path.find("commit-") != path.npos; }});
  Growing job{[&](auto& o) {
                o.store.snapshot_min_log_bytes = 1;
                o.store.merge_bytes = merge_bytes;
              },
              fs};
  job.ssc.start(Drive::by_host);
  std::vector<int> keys(20);
  std::iota(keys.begin(), keys.end(), 0);
  job.feed->put_all(keys);
  reads = 0;
  job.pass(1s);
  EXPECT_EQ(job.snapshots(), 1u);
  return reads;
}

TEST(RecoveryOptions, ASnapshotReadsTheLogOnceForEachPartThatFitsIntoItsMemory) {
  const std::size_t least = reads_for_a_snapshot(1'000'000);
  EXPECT_GT(least, 0u);
  EXPECT_GE(reads_for_a_snapshot(1), 5 * least) << "key group after key group";
}

// How often the log of what was received is synchronised before the first batch takes five blocks.
std::size_t syncs_before_a_batch(std::size_t max_unsynced_bytes) {
  std::size_t syncs = 0;
  const auto disk = std::make_shared<SimFs>(1);
  const auto fs = std::make_shared<SabotagedFs>(disk, Sabotage{.before_sync_of = [&](const std::string& path) {
                                                  syncs += path.find("/receivers/") != path.npos;
                                                }});
  Growing job{[&](auto& o) {
                o.log_received = true;
                o.received.segment_bytes = 4096;
                o.received.max_unsynced_bytes = max_unsynced_bytes;
              },
              fs};
  job.ssc.start(Drive::by_host);
  syncs = 0;
  for (int i = 0; i < 5; ++i) {
    job.feed->put(i);  // logs the block before
    job.clock->advance(200ms);
  }
  return syncs;
}

TEST(RecoveryOptions, WhatIsReceivedIsMadeDurableBeforeItIsTooMuch) {
  EXPECT_EQ(syncs_before_a_batch(1'000'000), 0u) << "the plan of the batch is early enough";
  EXPECT_EQ(syncs_before_a_batch(1), 3u) << "the second block waits for the first, and so on";
}

// One life of a program that counts what it has received so far.
struct Counting {
  Counting(const std::shared_ptr<SimFs>& disk, bool drop_damaged_plan) {
    RecoveryOptions options;
    options.store.fs = disk;
    options.store.drop_damaged_plan = drop_damaged_plan;
    options.store.plan_segment_bytes = options.store.commit_segment_bytes = 4096;
    const auto setup = [this] {
      auto fresh = std::make_unique<StreamingContext>(rig.context, 1s);
      const auto totals = fresh->receiver_stream(feed).count().map([](std::uint64_t n) { return std::pair{0, n}; });
      seen = record(totals.map_with_state(
          state_spec<std::uint64_t>([this](int, std::optional<std::uint64_t> n, State<std::uint64_t>& total) {
            on_batch();
            total.update(total.get_option().value_or(0) + *n);
            return total.get();
          })));
      return fresh;
    };
    ssc = StreamingContext::get_or_create("checkpoint", setup, options);
    ssc->start(Drive::by_host);
  }
  std::size_t pass(Duration d) {
    rig.clock->advance(d);
    std::size_t batches = 0;
    while (ssc->step()) ++batches;
    return batches;
  }

  Rig rig;
  std::function<void()> on_batch = [] {};
  std::shared_ptr<Feed<int>> feed = std::make_shared<Feed<int>>();
  std::shared_ptr<Journal<Seen<std::uint64_t>>> seen;
  std::unique_ptr<StreamingContext> ssc;
};

TEST(RecoveryOptions, ADamagedLastPlanIsRefusedUntilItIsDropped) {
  std::shared_ptr<SimFs> killed;
  {
    const auto disk = std::make_shared<SimFs>(1);
    Counting job{disk, false};
    job.feed->put_all({1, 2});
    EXPECT_EQ(job.pass(1s), 1u);
    job.on_batch = [&] { killed = disk->copy(1); };  // the plan is there, the commit is not
    job.feed->put_all({3, 4, 5});
    EXPECT_EQ(job.pass(1s), 1u);
  }
  std::string damaged;
  std::size_t end = 0;
  for (const std::string& file : killed->files()) {
    if (file.find("/plan-") == file.npos) continue;
    if (const std::size_t last = killed->contents(file).find_last_not_of('\0'); last > end) {
      damaged = file;
      end = last;
    }
  }
  std::string bytes = killed->contents(damaged);
  bytes[end] ^= 1;
  killed->set_contents(damaged, bytes);
  {
    const auto disk = killed->copy(2);
    std::string message;
    EXPECT_EQ(code_of<StateError>([&] { Counting(disk, false); }, &message), "checkpoint_damaged");
    EXPECT_THAT(message, HasSubstr(damaged));
  }
  Counting job{killed, true};
  EXPECT_TRUE(job.rig.log.says("warning", damaged));
  job.feed->put_all({6});
  EXPECT_EQ(job.pass(2s), 1u);
  EXPECT_THAT(job.seen->all(), ElementsAre(Seen<std::uint64_t>{at(1002), {3}}))
      << "that batch is planned anew, on the state of the one before";
}

TEST(RecoveryOptions, SnapshotsAreKeptByNumberAndByAge) {
  const auto kept = [](std::size_t number, Duration age) {
    Growing job{[&](auto& o) {
      o.store.snapshot_min_log_bytes = 1;
      o.store.snapshot_log_fraction = 0;
      o.store.keep_snapshots = number;
      o.store.keep_for = age;
    }};
    job.run(8);
    return job.snapshot_files();
  };
  EXPECT_EQ(kept(2, 0s), 2);
  EXPECT_EQ(kept(4, 0s), 4);
  EXPECT_EQ(kept(2, 1h), 8);
}

}  // namespace
}  // namespace tidemill
