// A function of the user that hangs is named, by the metrics, by the log and by a stop that is not waited for; its thread is
// never ended, and everything goes on when it returns. RELIABILITY F59.
#include <algorithm>
#include <filesystem>
#include <fstream>

#include "engine/harness.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;
using Kind = RunningStage::Kind;

[[nodiscard]] std::vector<std::string> told(const std::vector<RunningStage>& stages) {
  std::vector<std::string> all;
  for (const RunningStage& stage : stages) all.push_back(to_string(stage) + ", since " + to_string(stage.since));
  return all;
}

// A context with an output "sink" that hangs until the door opens.
struct Hanging : Rig {
  explicit Hanging(StreamingOptions options = {}) : Rig{1s, std::move(options)} {
    ssc.receiver_stream(feed).foreach_batch([this](const auto&, Time t) {
      began.add(t);
      hang(t);
    });
  }
  // A test that fails must not hang itself, and the output uses what is below.
  ~Hanging() {
    door.open();
    ssc.stop();
  }

  void hang(Time t) {
    if (t == at(1001)) {
      EXPECT_TRUE(door.wait());
    }
  }

  std::shared_ptr<Feed<int>> feed = std::make_shared<Feed<int>>();
  Door door;
  Journal<Time> began;
};

const std::string output_at_1001 = "the output operation \"foreach_batch\" of the batch of " + to_string(at(1001));

TEST(Watchdog, MetricsNameWhatRunsItsBatchAndSinceWhen) {
  Hanging rig;
  rig.ssc.start();
  EXPECT_TRUE(eventually([&] { return rig.ssc.metrics().running_stages.empty(); }));
  rig.clock->advance(1s);
  ASSERT_TRUE(rig.began.wait_for(1));
  rig.clock->advance(5s);
  const std::vector<RunningStage> stages = rig.ssc.metrics().running_stages;
  ASSERT_EQ(stages.size(), 1u);
  EXPECT_EQ(stages[0].kind, Kind::output);
  EXPECT_EQ(stages[0].name, "foreach_batch");
  EXPECT_EQ(stages[0].batch_time, at(1001));
  EXPECT_EQ(stages[0].since, at(1001));
  rig.door.open();
  EXPECT_TRUE(rig.ssc.stop());
  EXPECT_THAT(rig.ssc.metrics().running_stages, IsEmpty());
}

TEST(Watchdog, TheLogIsToldOnceWhenAnOutputHasRunForThirtySeconds) {
  Hanging rig;
  rig.ssc.start();
  rig.clock->advance(1s);
  ASSERT_TRUE(rig.began.wait_for(1));
  rig.clock->advance(29s);
  rig.clock->advance(1s);
  EXPECT_TRUE(eventually([&] { return rig.log.says("warning: " + output_at_1001, "running for 30 s"); }));
  rig.clock->advance(60s);
  rig.clock->advance(60s);
  rig.door.open();
  EXPECT_TRUE(rig.ssc.stop());
  const auto lines = rig.log.lines();
  EXPECT_EQ(std::count_if(lines.begin(), lines.end(),
                          [](const auto& line) { return line.find(output_at_1001) != line.npos; }),
            1);
}

TEST(Watchdog, ItsLimitIsAnOption) {
  Hanging rig{{.watchdog = 2s}};
  rig.ssc.start();
  rig.clock->advance(1s);
  ASSERT_TRUE(rig.began.wait_for(1));
  rig.clock->advance(2s);
  EXPECT_TRUE(eventually([&] { return rig.log.says("warning: " + output_at_1001, "running for 2 s"); }));
  rig.door.open();
}

TEST(Watchdog, ALimitBelowZeroIsRefused) {
  EXPECT_THAT(message_of<ConfigError>([] { Rig rig(1s, {.watchdog = -1s}); }),
              HasSubstr("watchdog must not be negative"));
}

// The names of the threads of this process.
[[nodiscard]] bool has_thread(std::string_view name) {
  for (const auto& entry : std::filesystem::directory_iterator{"/proc/self/task"}) {
    std::string line;
    std::getline(std::ifstream{entry.path() / "comm"}, line);
    if (line == name) return true;
  }
  return false;
}

TEST(Watchdog, HasAThreadOnlyWhileTheContextRunsAndOnlyWhereItIsWanted) {
  const auto watches = [](Drive drive, std::optional<Duration> limit) {
    Hanging rig{{.watchdog = limit}};
    rig.ssc.start(drive);
    // The driving thread, or the step, has begun when the thread was made; its name is given by itself.
    const bool found = limit == Duration::zero() || (!limit && drive == Drive::by_host)
                           ? has_thread("engine-te-watch")
                           : eventually([] { return has_thread("engine-te-watch"); });
    rig.ssc.stop();
    EXPECT_FALSE(has_thread("engine-te-watch")) << "it is joined by the stop";
    return found;
  };
  EXPECT_TRUE(watches(Drive::own_thread, std::nullopt));
  EXPECT_TRUE(watches(Drive::by_host, 30s));
  EXPECT_FALSE(watches(Drive::by_host, std::nullopt));
  EXPECT_FALSE(watches(Drive::own_thread, Duration::zero()));
}

TEST(Watchdog, WithConcurrentJobsEachIsNamed) {
  Door door;
  Journal<int> began;
  Rig rig{1s, {.concurrent_jobs = 2}};
  const auto stream = rig.ssc.receiver_stream(std::make_shared<Feed<int>>());
  for (const int id : {1, 2}) {
    stream.foreach_batch([&, id](const auto&) {
      began.add(id);
      EXPECT_TRUE(door.wait());
    });
  }
  rig.ssc.start();
  rig.clock->advance(1s);
  ASSERT_TRUE(began.wait_for(2));
  EXPECT_TRUE(eventually([&] {
    return told(rig.ssc.metrics().running_stages) ==
           std::vector<std::string>(2, output_at_1001 + ", since " + to_string(at(1001)));
  }));
  door.open();
  rig.ssc.stop();
}

TEST(Watchdog, AStreamThatHangsWhileItsJobIsMadeIsNamedByItsOutput) {
  Door door;
  Journal<Time> began;
  Rig rig;
  auto seen =
      record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()).transform([&](const Batch<int>& batch, Time t) {
        began.add(t);
        EXPECT_TRUE(door.wait());
        return batch;
      }));
  rig.ssc.start();
  rig.clock->advance(1s);
  ASSERT_TRUE(began.wait_for(1));
  const std::vector<RunningStage> stages = rig.ssc.metrics().running_stages;
  ASSERT_EQ(stages.size(), 1u);
  EXPECT_EQ(stages[0].kind, Kind::generate);
  EXPECT_EQ(stages[0].name, "foreach_batch");
  door.open();
  rig.ssc.stop();
}

struct SlowListener final : StreamingListener {
  void on_batch_completed(const BatchInfo& batch) override {
    told.add(batch.batch_time);
    EXPECT_TRUE(door.wait());
  }
  Door door;
  Journal<Time> told;
};

TEST(Watchdog, AListenerThatHangsIsNamed) {
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  const auto listener = std::make_shared<SlowListener>();
  rig.ssc.add_listener(listener);
  rig.ssc.start();
  rig.clock->advance(1s);
  ASSERT_TRUE(listener->told.wait_for(1));
  const std::vector<RunningStage> stages = rig.ssc.metrics().running_stages;
  ASSERT_EQ(stages.size(), 1u);
  EXPECT_EQ(stages[0].kind, Kind::listener);
  listener->door.open();
  rig.ssc.stop();
}

// ---- a stop with a limit ------------------------------------------------------------------------------------------------

TEST(StopOrTimeout, ReturnsAtTheDeadlineAndNamesWhatHangs) {
  Hanging rig;
  rig.ssc.start();
  rig.clock->advance(1s);
  ASSERT_TRUE(rig.began.wait_for(1));
  for (const StopMode mode : {StopMode::graceful, StopMode::immediate}) {
    const StopReport report = rig.ssc.stop_or_timeout(1ms, mode);
    EXPECT_FALSE(report.is_stopped);
    EXPECT_FALSE(report.is_drained);
    EXPECT_THAT(told(report.running), ElementsAre(output_at_1001 + ", since " + to_string(at(1001))));
    EXPECT_EQ(rig.ssc.state(), StreamingState::active);
  }
  rig.door.open();
  rig.ssc.await_termination();  // the stop stays asked for
  const StopReport report = rig.ssc.stop_or_timeout(deadline);
  EXPECT_TRUE(report.is_stopped);
  EXPECT_TRUE(report.is_drained);
  EXPECT_THAT(report.running, IsEmpty());
}

TEST(StopOrTimeout, IsNotHeldUpByAnotherThreadThatWaitsInStop) {
  Hanging rig;
  rig.ssc.start();
  rig.clock->advance(1s);
  ASSERT_TRUE(rig.began.wait_for(1));
  std::thread waiting{[&] { EXPECT_TRUE(rig.ssc.stop()); }};
  EXPECT_FALSE(rig.ssc.stop_or_timeout(1ms).is_stopped);
  rig.door.open();
  EXPECT_TRUE(rig.ssc.stop_or_timeout(deadline).is_stopped);
  waiting.join();
}

TEST(StopOrTimeout, WithAGracefulStopWorksOnWhatHasArrived) {
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start();
  ASSERT_TRUE(feed->life.wait_for(1));
  ASSERT_TRUE(feed->put(7));
  rig.clock->advance(1s);
  const StopReport report = rig.ssc.stop_or_timeout(deadline, StopMode::graceful);
  EXPECT_TRUE(report.is_stopped);
  EXPECT_TRUE(report.is_drained);
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {7}}));
}

TEST(StopOrTimeout, SaysWhatWasDroppedByAnImmediateStop) {
  for (const Drive drive : {Drive::own_thread, Drive::by_host}) {
    Rig rig;
    const auto feed = std::make_shared<Feed<int>>();
    auto seen = record(rig.ssc.receiver_stream(feed));
    rig.ssc.start(drive);
    if (drive == Drive::own_thread) {
      ASSERT_TRUE(feed->life.wait_for(1));
    }
    ASSERT_TRUE(feed->put(7));
    const StopReport report = rig.ssc.stop_or_timeout(deadline);
    EXPECT_TRUE(report.is_stopped);
    EXPECT_FALSE(report.is_drained);
  }
}

TEST(StopOrTimeout, OfAHostThatHangsInAStepReturnsToAnotherThreadAndTheNextStepEnds) {
  Hanging rig;
  rig.ssc.start(Drive::by_host);
  rig.clock->advance(1s);
  std::thread host{[&] { EXPECT_TRUE(rig.ssc.step()); }};
  EXPECT_TRUE(rig.began.wait_for(1));
  const StopReport report = rig.ssc.stop_or_timeout(1ms);
  EXPECT_FALSE(report.is_stopped);
  EXPECT_THAT(told(report.running), ElementsAre(output_at_1001 + ", since " + to_string(at(1001))));
  rig.door.open();
  host.join();
  EXPECT_FALSE(rig.ssc.step());
  EXPECT_EQ(rig.ssc.state(), StreamingState::stopped);
}

TEST(Watchdog, WithTheLongestTimeThereIsSaysNothing) {
  Hanging rig{{.watchdog = Duration::max()}};
  rig.ssc.start();
  rig.clock->advance(1s);
  ASSERT_TRUE(rig.began.wait_for(1));
  rig.clock->advance(1000h);
  rig.door.open();
  rig.ssc.stop();
  EXPECT_FALSE(rig.log.says("warning", "has been running"));
}

TEST(StopOrTimeout, ByTheHostLooksAtTheTimeBetweenBatches) {
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  rig.ssc.start(Drive::by_host);
  rig.clock->advance(3s);
  const StopReport report = rig.ssc.stop_or_timeout(0s, StopMode::graceful);
  EXPECT_FALSE(report.is_stopped);
  EXPECT_EQ(seen->size(), 1u) << "three ticks were due";
  EXPECT_TRUE(rig.ssc.stop());
  EXPECT_EQ(rig.ssc.state(), StreamingState::stopped);
}

TEST(StopOrTimeout, EndsAContextThatWasNotStarted) {
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  EXPECT_TRUE(rig.ssc.stop_or_timeout(1ms).is_stopped);
  EXPECT_EQ(rig.ssc.state(), StreamingState::stopped);
}

TEST(StopOrTimeout, IsRefusedWithinABatch) {
  Rig rig;
  Journal<std::string> codes;
  rig.ssc.receiver_stream(std::make_shared<Feed<int>>()).foreach_batch([&](const auto&) {
    codes.add(code_of([&] { (void)rig.ssc.stop_or_timeout(1ms); }));
  });
  rig.ssc.start(Drive::by_host);
  EXPECT_EQ(rig.pass(1s), 1u);
  EXPECT_EQ(rig.pass(1s), 1u) << "no stop was asked for";
  EXPECT_THAT(codes.all(), ElementsAre("illegal_state", "illegal_state"));
}

}  // namespace
}  // namespace tidemill
