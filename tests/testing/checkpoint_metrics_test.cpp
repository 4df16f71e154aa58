// What a checkpoint does, as StreamingContext::metrics and the log tell it: RELIABILITY F13, F21, F35, F40.
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/sabotaged_fs.hpp"
#include "engine/harness.hpp"
#include "tidemill/testing/sim_fs.hpp"
#include "tidemill/testing/tape.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;
using testing::SimFs;
using testing::Tape;

const std::string directory = "/checkpoint";

// Running totals by word over a tape; a snapshot after each batch, unless told otherwise.
struct Totals {
  Rig rig;
  std::unique_ptr<StreamingContext> ssc;

  Totals(const Tape<std::string>& tape, std::shared_ptr<Fs> fs, std::uint64_t snapshot_min_log_bytes = 1) {
    RecoveryOptions options;
    options.store.fs = std::move(fs);
    options.store.snapshot_min_log_bytes = snapshot_min_log_bytes;
    options.store.snapshot_log_fraction = 0;
    options.store.plan_segment_bytes = options.store.commit_segment_bytes = 4096;
    ssc = StreamingContext::get_or_create(
        directory,
        [&] {
          auto fresh = std::make_unique<StreamingContext>(rig.context, 1s);
          tape.stream(*fresh)
              .map([](const std::string& word) {
                return std::pair{word, 1L};
              })
              .map_with_state(state_spec<long>([](const std::string&, std::optional<long> n, State<long>& total) {
                total.update(total.get_option().value_or(0) + n.value_or(0));
                return total.get();
              }))
              .foreach_batch([](const auto& batch) { static_cast<void>(batch.count()); });
          return fresh;
        },
        options);
  }
  void pass(Duration d) {
    rig.clock->advance(d);
    while (ssc->step()) {
    }
  }
  [[nodiscard]] CheckpointMetrics metrics() const { return ssc->metrics().checkpoint.value(); }
  [[nodiscard]] std::size_t snapshot_warnings() const {
    const auto lines = rig.log.lines();
    return static_cast<std::size_t>(std::count_if(lines.begin(), lines.end(), [](const std::string& line) {
      return line.starts_with("warning: checkpoint: no snapshot of the states could be made");
    }));
  }
};

TEST(CheckpointMetrics, AreThereFromTheStartOnAndStayAfterTheEnd) {
  Rig without;
  without.ssc.queue_stream(std::make_shared<BatchQueue<int>>()).print();
  without.ssc.start(Drive::by_host);
  EXPECT_FALSE(without.ssc.metrics().checkpoint) << "it has none";

  Tape<std::string> tape;
  Totals job{tape, std::make_shared<SimFs>(), 1'000'000};
  EXPECT_FALSE(job.ssc->metrics().checkpoint) << "not started";
  job.ssc->start(Drive::by_host);
  EXPECT_EQ(job.metrics().durable_until, std::nullopt);
  EXPECT_EQ(job.metrics().commits, 0u);

  tape.write({"a", "b"});
  job.pass(1s);
  const CheckpointMetrics first = job.metrics();
  EXPECT_EQ(first.durable_until, at(1001));
  EXPECT_EQ(first.plans, 1u);
  EXPECT_EQ(first.commits, 1u);
  EXPECT_EQ(first.commits_in_flight, 0u) << "with step() a commit is durable when the step ends";
  EXPECT_GT(first.commit_bytes, 0u);
  EXPECT_EQ(first.commit_log_bytes, first.commit_bytes) << "no snapshot yet";
  EXPECT_EQ(first.snapshots, 0u);

  job.pass(1s);
  EXPECT_GT(job.metrics().commit_log_bytes, first.commit_log_bytes);
  EXPECT_TRUE(job.ssc->stop());
  EXPECT_EQ(job.metrics().durable_until, at(1002));
  EXPECT_EQ(job.metrics().commits, 2u);
}

TEST(CheckpointMetrics, ASnapshotThatFailsIsCountedAndWarnedOfOnceForEachKindOfFailure) {
  bool full = true;
  const auto disk = std::make_shared<SimFs>();
  const auto fs = std::make_shared<tidemill_test::SabotagedFs>(
      disk, tidemill_test::Sabotage{.full_for = [&](const std::string& path) {
        return full && path.find("snapshot") != std::string::npos;
      }});
  Tape<std::string> tape;
  Totals job{tape, fs};
  job.ssc->start(Drive::by_host);
  for (int batch = 0; batch < 3; ++batch) {
    tape.write({"a"});
    job.pass(1s);
  }
  EXPECT_EQ(job.ssc->state(), StreamingState::active) << "the stream goes on";
  EXPECT_EQ(job.metrics().durable_until, at(1003));
  EXPECT_EQ(job.metrics().snapshots, 0u);
  EXPECT_EQ(job.metrics().snapshot_failures, 3u);
  EXPECT_THAT(job.metrics().last_snapshot_failure, HasSubstr("snapshot"));
  EXPECT_EQ(job.metrics().commit_log_bytes, job.metrics().commit_bytes) << "the log grows";
  EXPECT_EQ(job.snapshot_warnings(), 1u) << "and not for each batch";

  full = false;
  tape.write({"a"});
  job.pass(1s);
  EXPECT_EQ(job.metrics().snapshots, 1u);
  EXPECT_EQ(job.metrics().commit_log_bytes, 0u);
  EXPECT_GT(job.metrics().snapshot_bytes, 0u);
  EXPECT_EQ(job.snapshot_warnings(), 1u);

  full = true;
  tape.write({"a"});
  job.pass(1s);
  EXPECT_EQ(job.snapshot_warnings(), 2u) << "it had got better in between";
  EXPECT_TRUE(job.ssc->stop());
}

TEST(CheckpointMetrics, ADamagedSnapshotThatAnOlderOneMadeUpForIsARepair) {
  const auto disk = std::make_shared<SimFs>();
  Tape<std::string> tape;
  {
    Totals job{tape, disk};
    job.ssc->start(Drive::by_host);
    for (int batch = 0; batch < 2; ++batch) {
      tape.write({"a"});
      job.pass(1s);
    }
    EXPECT_EQ(job.metrics().snapshots, 2u);
    EXPECT_EQ(job.metrics().state_repairs, 0u);
  }
  std::string newest;
  for (const std::string& path : disk->files()) {
    if (path.find("snapshot") != std::string::npos) newest = std::max(newest, path);
  }
  std::string bytes = disk->contents(newest);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  disk->set_contents(newest, bytes);

  Totals job{tape, disk};
  job.ssc->start(Drive::by_host);
  EXPECT_EQ(job.metrics().state_repairs, 1u);
  EXPECT_TRUE(job.rig.log.says("warning: checkpoint: ", "snapshot"));
}

// A receiver whose blocks are logged, and its damaged ones left out.
struct Receiving {
  Rig rig;
  std::shared_ptr<Feed<std::string>> feed = std::make_shared<Feed<std::string>>();  // shared with the context
  std::unique_ptr<StreamingContext> ssc;

  explicit Receiving(std::shared_ptr<Fs> fs) {
    RecoveryOptions options{.log_received = true};
    options.store.fs = std::move(fs);
    options.received.skip_corrupt_blocks = true;
    ssc = StreamingContext::get_or_create(
        directory,
        [&] {
          auto fresh = std::make_unique<StreamingContext>(rig.context, 1s);
          fresh->receiver_stream(feed).foreach_batch([](const auto&) {});
          return fresh;
        },
        options);
    ssc->start(Drive::by_host);
  }
  [[nodiscard]] CheckpointMetrics metrics() const { return ssc->metrics().checkpoint.value(); }
};

TEST(CheckpointMetrics, DamagedBlocksThatWereLeftOutAreCounted) {
  const auto disk = std::make_shared<SimFs>();
  Receiving before{disk};
  before.feed->put_all({"first block"});
  before.feed->put_all({"second block"});
  EXPECT_GT(before.metrics().received_log_bytes, 0u);
  EXPECT_EQ(before.metrics().received_blocks_lost, 0u);

  const auto killed = disk->copy(1);
  for (const std::string& path : killed->files()) {
    std::string bytes = killed->contents(path);
    if (const auto place = bytes.find("second block"); place != std::string::npos) {
      bytes[place] = 'S';
      killed->set_contents(path, bytes);
    }
  }
  Receiving after{killed};
  EXPECT_EQ(after.metrics().received_blocks_lost, 1u);
  EXPECT_TRUE(after.ssc->stop(StopMode::graceful));
  EXPECT_EQ(after.metrics().received_blocks_lost, 1u) << "the log has gone, what is known of it stays";
}

}  // namespace
}  // namespace tidemill
