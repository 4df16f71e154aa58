// The stations of a context's life and the rules between them. SEMANTICS L1–L3, L5, L7–L9, L11, L12, L15 for inputs.
#include "engine/harness.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;

TEST(LifeCycle, BeginsInitializedIsActiveOnceStartedAndStoppedAfterTheStop) {  // C20
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  EXPECT_EQ(rig.ssc.state(), StreamingState::initialized);
  rig.ssc.start();
  EXPECT_EQ(rig.ssc.state(), StreamingState::active);
  EXPECT_TRUE(rig.ssc.stop());
  EXPECT_EQ(rig.ssc.state(), StreamingState::stopped);
}

TEST(LifeCycle, NothingIsAddedToAContextThatIsActiveOrStopped) {  // L1
  Rig rig;
  const auto stream = rig.ssc.receiver_stream(std::make_shared<Feed<int>>());
  auto seen = record(stream);
  rig.ssc.start(Drive::by_host);
  for (const char* state : {"active", "stopped"}) {
    SCOPED_TRACE(state);
    const auto refused = [&](const std::function<void()>& action) {
      std::string message;
      EXPECT_EQ(code_of(action, &message), "illegal_state");
      EXPECT_THAT(message, HasSubstr(state));
      EXPECT_THAT(message, HasSubstr("inputs, transformations and output operations"));
    };
    refused([&] { (void)rig.ssc.queue_stream(std::make_shared<BatchQueue<int>>()); });
    refused([&] { (void)rig.ssc.receiver_stream(std::make_shared<Feed<int>>()); });
    refused([&] { (void)stream.map([](int i) { return i; }); });
    refused([&] { (void)stream.count(); });
    refused([&] { (void)stream.union_with(stream); });
    refused([&] { stream.print(); });
    refused([&] { stream.foreach_batch([](const auto&) {}); });
    refused([&] { rig.ssc.remember(5s); });
    rig.ssc.stop();
  }
}

TEST(LifeCycle, StartingAnActiveContextOnlyWarns) {  // L2
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  rig.ssc.start(Drive::by_host);
  rig.ssc.start(Drive::by_host);
  EXPECT_EQ(rig.ssc.state(), StreamingState::active);
  EXPECT_TRUE(rig.log.says("warning", "active already"));
  EXPECT_EQ(rig.pass(1s), 1u);
}

TEST(LifeCycle, AStoppedContextCannotStartAgain) {  // L3
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  rig.ssc.start(Drive::by_host);
  rig.ssc.stop();
  EXPECT_EQ(code_of([&] { rig.ssc.start(); }), "illegal_state");
  EXPECT_EQ(rig.ssc.state(), StreamingState::stopped);
}

TEST(LifeCycle, StartingWithoutOutputsFailsAndStopsTheContext) {  // L5
  Rig rig;
  (void)rig.ssc.receiver_stream(std::make_shared<Feed<int>>()).count();
  std::string message;
  EXPECT_EQ(code_of([&] { rig.ssc.start(); }, &message), "no_output_operations");
  EXPECT_THAT(message, HasSubstr("foreach_batch"));
  EXPECT_EQ(rig.ssc.state(), StreamingState::stopped);
  EXPECT_TRUE(rig.ssc.await_termination_or_timeout(0s));
}

TEST(LifeCycle, StoppingBeforeTheStartWarnsAndStops) {  // L7
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  EXPECT_TRUE(rig.ssc.stop());
  EXPECT_TRUE(rig.log.says("warning", "before start()"));
  EXPECT_EQ(rig.ssc.state(), StreamingState::stopped);
  EXPECT_EQ(code_of([&] { rig.ssc.start(); }), "illegal_state");
}

TEST(LifeCycle, StoppingTwiceOnlyWarns) {  // L8
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  rig.ssc.start();
  rig.ssc.stop();
  EXPECT_FALSE(rig.log.says("warning"));
  EXPECT_TRUE(rig.ssc.stop());
  EXPECT_TRUE(rig.log.says("warning", "stopped already"));
}

TEST(LifeCycle, StopIsRefusedWithinABatchAndRequestStopIsNot) {  // L9
  for (const Drive drive : {Drive::own_thread, Drive::by_host}) {
    Rig rig;
    Journal<std::string> codes;
    rig.ssc.receiver_stream(std::make_shared<Feed<int>>()).foreach_batch([&](const auto&) {
      codes.add(code_of([&] { rig.ssc.stop(); }));
      codes.add(code_of([&] { rig.ssc.await_termination(); }));
      codes.add(code_of([&] { rig.ssc.step(); }));
      rig.ssc.request_stop();
    });
    rig.ssc.start(drive);
    rig.clock->advance(1s);
    if (drive == Drive::by_host) {
      EXPECT_TRUE(rig.ssc.step());
      EXPECT_EQ(rig.ssc.state(), StreamingState::active) << "the stop happens in the next step";
      EXPECT_FALSE(rig.ssc.step());
    } else {
      rig.ssc.await_termination();
    }
    EXPECT_EQ(rig.ssc.state(), StreamingState::stopped);
    EXPECT_THAT(codes.all(), ElementsAre("illegal_state", "illegal_state", "illegal_state"));
  }
}

struct Stopping final : StreamingListener {
  void on_batch_completed(const BatchInfo&) override {
    codes.add(code_of([this] { ssc->stop(); }));
    ssc->request_stop();
  }
  StreamingContext* ssc = nullptr;
  Journal<std::string> codes;
};

TEST(LifeCycle, StopIsRefusedFromAListenerAndRequestStopIsNot) {  // L9
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  const auto listener = std::make_shared<Stopping>();
  listener->ssc = &rig.ssc;
  rig.ssc.add_listener(listener);
  rig.ssc.start();
  rig.clock->advance(1s);
  rig.ssc.await_termination();
  EXPECT_THAT(listener->codes.all(), ElementsAre("illegal_state"));
}

TEST(LifeCycle, AStopRequestedBeforeTheStartEndsTheContextAtItsFirstTurn) {
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  rig.ssc.request_stop();
  rig.ssc.start();
  rig.ssc.await_termination();
  EXPECT_EQ(rig.ssc.state(), StreamingState::stopped);
}

TEST(LifeCycle, AnImmediateStopDropsWhatIsNotBatchedAndSaysSo) {  // L11
  for (const Drive drive : {Drive::own_thread, Drive::by_host}) {
    Rig rig;
    const auto feed = std::make_shared<Feed<int>>();
    auto seen = record(rig.ssc.receiver_stream(feed));
    rig.ssc.start(drive);
    feed->put(1);
    EXPECT_FALSE(rig.ssc.stop(StopMode::immediate)) << "not everything was worked on";
    EXPECT_THAT(seen->all(), IsEmpty());
    EXPECT_FALSE(feed->put(2)) << "a stopped receiver is refused";
  }
}

TEST(LifeCycle, AnImmediateStopFinishesTheRunningBatchOnly) {  // L11
  Rig rig;
  Door running;
  Door go_on;
  Journal<Time> finished;
  rig.ssc.receiver_stream(std::make_shared<Feed<int>>()).foreach_batch([&](const auto&, Time t) {
    running.open();
    EXPECT_TRUE(go_on.wait());
    finished.add(t);
  });
  rig.ssc.start();
  rig.clock->advance(5s);
  ASSERT_TRUE(running.wait());
  rig.ssc.request_stop();
  go_on.open();
  rig.ssc.stop();
  EXPECT_THAT(finished.all(), ElementsAre(at(1001)));
}

TEST(LifeCycle, AGracefulStopByTheHostWorksOnEverythingAtOnce) {  // L12
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start(Drive::by_host);
  feed->put(1);
  EXPECT_TRUE(rig.ssc.stop(StopMode::graceful)) << "without waiting for the tick";
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {1}}));
  EXPECT_THAT(feed->life.all(), ElementsAre("start", "stop"));
}

TEST(LifeCycle, AGracefulStopByTheHostDrainsAQueueBatchByBatch) {  // L12
  Rig rig;
  const auto queue = std::make_shared<BatchQueue<int>>();
  auto seen = record(rig.ssc.queue_stream(queue));
  rig.ssc.start(Drive::by_host);
  for (int i = 0; i < 3; ++i) queue->push(std::vector<int>{i});
  EXPECT_TRUE(rig.ssc.stop(StopMode::graceful));
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {0}}, Seen<int>{at(1002), {1}}, Seen<int>{at(1003), {2}}));
}

TEST(LifeCycle, AGracefulStopRunsTheTicksThatHadPassed) {  // L12, B5
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  rig.ssc.start(Drive::by_host);
  rig.clock->advance(3500ms);
  EXPECT_TRUE(rig.ssc.stop(StopMode::graceful));
  EXPECT_EQ(seen->size(), 3u);
}

TEST(LifeCycle, AGracefulStopOfTheOwnThreadStopsTheReceiversFirstAndWaitsForTheTick) {  // L12
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start();
  feed->put(1);
  rig.ssc.request_stop(StopMode::graceful);
  ASSERT_TRUE(feed->life.wait_for(2));
  EXPECT_FALSE(feed->put(2)) << "receivers are stopped before the last batch";
  EXPECT_EQ(rig.ssc.state(), StreamingState::active);
  rig.clock->advance(1s);
  EXPECT_TRUE(rig.ssc.stop(StopMode::graceful));
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {1}}));
}

TEST(LifeCycle, AGracefulStopEndsThoughEveryBatchIsSlowerThanTheInterval) {  // L12
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  const auto stream = rig.ssc.receiver_stream(feed);
  stream.foreach_batch([&](const auto&) { rig.clock->advance(1500ms); });
  auto seen = record(stream);
  rig.ssc.start(Drive::by_host);
  rig.clock->advance(1s);
  feed->put(1);
  EXPECT_TRUE(rig.ssc.stop(StopMode::graceful));
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {1}}))
      << "ticks that pass during the drain have nothing to do";
}

TEST(LifeCycle, AGracefulStopGivesUpAfterTenIntervals) {  // L12: the bound and its default
  Rig rig;
  const auto queue = std::make_shared<BatchQueue<int>>();
  const auto stream = rig.ssc.queue_stream(queue);
  stream.foreach_batch([&](const auto&) { rig.clock->advance(4s); });
  auto seen = record(stream);
  rig.ssc.start(Drive::by_host);
  for (int i = 0; i < 10; ++i) queue->push(std::vector<int>{i});
  EXPECT_FALSE(rig.ssc.stop(StopMode::graceful));
  EXPECT_EQ(seen->size(), 3u) << "after 12 s the 10 s are over";
  EXPECT_EQ(queue->size(), 7u);
  EXPECT_TRUE(rig.log.says("error", "longer than 10 s"));
  EXPECT_EQ(rig.ssc.state(), StreamingState::stopped);
}

TEST(LifeCycle, AGracefulStopOfShortIntervalsHasTenSeconds) {  // a slow disk costs no data
  Rig rig{1ms};
  const auto queue = std::make_shared<BatchQueue<int>>();
  const auto stream = rig.ssc.queue_stream(queue);
  stream.foreach_batch([&](const auto&) { rig.clock->advance(900ms); });
  auto seen = record(stream);
  rig.ssc.start(Drive::by_host);
  for (int i = 0; i < 10; ++i) queue->push(std::vector<int>{i});
  EXPECT_TRUE(rig.ssc.stop(StopMode::graceful));
  EXPECT_EQ(seen->size(), 10u);
}

TEST(LifeCycle, TheBoundOfAGracefulStopCanBeChosenAndHoldsForTheOwnThread) {  // L12
  Rig rig{1s, {.graceful_stop_timeout = 300ms}};
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start();
  feed->put(1);
  rig.ssc.request_stop(StopMode::graceful);
  ASSERT_TRUE(feed->life.wait_for(2));
  rig.clock->advance(300ms);
  EXPECT_FALSE(rig.ssc.stop(StopMode::graceful));
  EXPECT_THAT(seen->all(), IsEmpty()) << "the tick had not come when the time was over";
  EXPECT_TRUE(rig.log.says("error", "longer than 300 ms"));
  EXPECT_THAT(message_of<ConfigError>([&] {
                Rig{1s, {.graceful_stop_timeout = 0s}};
              }),
              HasSubstr("graceful_stop_timeout"));
}

TEST(LifeCycle, AGracefulStopMayHaveAllTheTimeThereIs) {  // L12
  Rig rig{1s, {.graceful_stop_timeout = Duration::max()}};
  const auto queue = std::make_shared<BatchQueue<int>>();
  const auto stream = rig.ssc.queue_stream(queue);
  stream.foreach_batch([&](const auto&) { rig.clock->advance(1h); });
  auto seen = record(stream);
  rig.ssc.start(Drive::by_host);
  for (int i = 0; i < 10; ++i) queue->push(std::vector<int>{i});
  EXPECT_TRUE(rig.ssc.stop(StopMode::graceful));
  EXPECT_EQ(queue->size(), 0u);
}

TEST(LifeCycle, AnImmediateStopOverridesAGracefulOneAndNotTheOtherWayRound) {
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start();
  feed->put(1);
  rig.ssc.request_stop(StopMode::graceful);
  ASSERT_TRUE(feed->life.wait_for(2));
  rig.ssc.request_stop(StopMode::immediate);
  rig.ssc.request_stop(StopMode::graceful);
  EXPECT_FALSE(rig.ssc.stop(StopMode::graceful));
  EXPECT_THAT(seen->all(), IsEmpty());
}

TEST(LifeCycle, StepIsForHostsThatSaidSo) {
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  EXPECT_THAT(message_of([&] { rig.ssc.step(); }), HasSubstr("before start(Drive::by_host)"));
  rig.ssc.start();
  EXPECT_THAT(message_of([&] { rig.ssc.step(); }), HasSubstr("runs its own thread"));
  rig.ssc.stop();
  EXPECT_FALSE(rig.ssc.step()) << "a stopped context has no more batches";
  EXPECT_EQ(rig.ssc.next_batch_time(), std::nullopt);
}

TEST(LifeCycle, AwaitTerminationWithATimeoutTellsWhetherTheContextHasStopped) {  // C18
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  rig.ssc.start();
  EXPECT_FALSE(rig.ssc.await_termination_or_timeout(1ms));
  std::thread other{[&] { rig.ssc.request_stop(); }};
  EXPECT_TRUE(rig.ssc.await_termination_or_timeout(std::chrono::nanoseconds::max())) << "longer than a clock can tell";
  other.join();
  rig.ssc.stop();
  EXPECT_TRUE(rig.ssc.await_termination_or_timeout(0s));
}

TEST(LifeCycle, ThoseWhoWaitForTheEndAreCalledOnce) {
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  Journal<bool> failed;
  const auto note = [&](std::exception_ptr error) { failed.add(error != nullptr); };
  rig.ssc.engine()->when_terminated(note);
  rig.ssc.engine()->when_terminated([](std::exception_ptr) { throw std::runtime_error{"a bad handler"}; });
  rig.ssc.start();
  EXPECT_EQ(failed.size(), 0u);
  rig.ssc.stop();
  EXPECT_THAT(failed.all(), ElementsAre(false));
  rig.ssc.engine()->when_terminated(note);
  EXPECT_THAT(failed.all(), ElementsAre(false, false)) << "at once when it is over already";
  EXPECT_TRUE(rig.log.says("error", "completion handler"));
}

TEST(LifeCycle, RememberIsSaidOnceAndIsPositive) {  // C4
  Rig rig;
  EXPECT_THAT(message_of<ConfigError>([&] { rig.ssc.remember(0s); }), HasSubstr("positive"));
  rig.ssc.remember(5s);
  EXPECT_THAT(message_of([&] { rig.ssc.remember(6s); }), HasSubstr("twice"));
}

// An input that notes what happens to it.
class ProbeInput final : public detail::Input {
 public:
  ProbeInput(Journal<std::string>& life, std::string name, bool fails)
      : life_{life}, name_{std::move(name)}, fails_{fails} {}
  [[nodiscard]] std::string name() const override { return name_; }
  void start(detail::InputHost&, std::size_t) override {
    life_.add("start " + name_);
    if (fails_) throw SourceError("no_luck", "the input cannot start", Retry::is_useless);
  }
  void stop() noexcept override { life_.add("stop " + name_); }
  [[nodiscard]] bool has_pending() const noexcept override { return false; }
  InputInfo cut(Time, std::size_t) override { return {}; }
  [[nodiscard]] std::string plan() const override { return {}; }
  InputInfo replay(Time, std::string_view) override { return {}; }

 private:
  Journal<std::string>& life_;
  std::string name_;
  bool fails_;
};

TEST(LifeCycle, AnInputThatCannotStartStopsTheContextAndTheInputsThatHadStarted) {
  for (const Drive drive : {Drive::own_thread, Drive::by_host}) {
    Rig rig;
    Journal<std::string> life;
    for (const char* name : {"a", "b", "c"}) {
      rig.ssc.engine()->add_input(std::make_shared<ProbeInput>(life, name, name == std::string{"b"}));
    }
    rig.ssc.queue_stream(std::make_shared<BatchQueue<int>>()).print();
    EXPECT_EQ(code_of<SourceError>([&] { rig.ssc.start(drive); }), "no_luck");
    EXPECT_THAT(life.all(), ElementsAre("start a", "start b", "stop a"));
    EXPECT_EQ(rig.ssc.state(), StreamingState::stopped);
    EXPECT_TRUE(rig.ssc.await_termination_or_timeout(0s));
  }
}

}  // namespace
}  // namespace tidemill
