// Receivers: what they hand over, how they are held back, how they end and begin again. SEMANTICS R1–R6, R8, C6; invariant RC1.
#include <list>

#include "engine/harness.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;

TEST(Receiver, StoresOneManyAndRanges) {  // R1–R3
  class Storing final : public Receiver<std::string> {
    void on_start() override {
      EXPECT_TRUE(store("one"));
      EXPECT_TRUE(store(std::string{"two"}));
      EXPECT_TRUE(store(std::vector<std::string>{"three", "four"}));
      const std::list<const char*> range{"five", "six"};
      EXPECT_TRUE(store(range));
      EXPECT_TRUE(store(std::vector<std::string>{})) << "nothing is stored without trouble";
    }
    void on_stop() override {}
  };
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Storing>()));
  rig.ssc.start(Drive::by_host);
  rig.pass(1s);
  EXPECT_THAT(seen->all(), ElementsAre(Seen<std::string>{at(1001), {"one", "two", "three", "four", "five", "six"}}));
}

TEST(Receiver, GivesAnEmptyBatchWhenNothingCame) {  // M11, R8
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  rig.ssc.start(Drive::by_host);
  rig.pass(2s);
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {}}, Seen<int>{at(1002), {}}));
}

TEST(Receiver, RefusesBeforeTheStartAndAfterTheEnd) {  // R5
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  EXPECT_FALSE(feed->put(1));
  EXPECT_FALSE(feed->put_all({1}));
  EXPECT_EQ(feed->buffered(), 0u);
  EXPECT_TRUE(feed->is_stopped());
  rig.ssc.start(Drive::by_host);
  EXPECT_TRUE(feed->is_started());
  EXPECT_TRUE(feed->put(2));
  EXPECT_EQ(feed->buffered(), sizeof(int));
  rig.ssc.stop();
  EXPECT_TRUE(feed->is_stopped());
  EXPECT_FALSE(feed->put(3));
}

TEST(Receiver, HasTheNumberOfItsStream) {  // R1
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  auto queued = record(rig.ssc.queue_stream(std::make_shared<BatchQueue<int>>()));
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start(Drive::by_host);
  EXPECT_EQ(feed->stream_id(), 1u);
}

TEST(Receiver, CarriesRecordsThatCanOnlyBeMoved) {
  Rig rig;
  const auto feed = std::make_shared<Feed<std::unique_ptr<int>>>();
  auto seen = record(rig.ssc.receiver_stream(feed).map([](const std::unique_ptr<int>& p) { return *p; }));
  rig.ssc.start(Drive::by_host);
  feed->put(std::make_unique<int>(1));
  std::vector<std::unique_ptr<int>> more;
  more.push_back(std::make_unique<int>(2));
  feed->put_all(std::move(more));
  rig.pass(1s);
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {1, 2}}));
}

// A thread that stores until it is refused; `entered` counts the calls.
struct Producer {
  explicit Producer(Feed<int>& feed)
      : thread{[&feed, this] {
          for (int i = 0; feed.put(i); ++i) accepted = i + 1;
          refused.open();
        }} {}
  ~Producer() { thread.join(); }
  std::atomic<int> accepted = 0;
  Door refused;
  std::thread thread;
};

const ReceiverOptions room_for_three{.name = {}, .restart_delay = 2s, .inbox = {.max_buffered_bytes = 3 * sizeof(int)}};

TEST(Receiver, AProducerWaitsWhileTheBufferIsFullAndACutReleasesIt) {  // R4
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed, room_for_three));
  rig.ssc.start(Drive::by_host);
  Producer producer{*feed};
  ASSERT_TRUE(eventually([&] { return producer.accepted == 3; }));
  EXPECT_EQ(feed->buffered(), 3 * sizeof(int));
  rig.pass(1s);
  ASSERT_TRUE(eventually([&] { return producer.accepted == 6; })) << "the cut made room for three more";
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {0, 1, 2}}));
  rig.ssc.stop();
  EXPECT_TRUE(producer.refused.wait());
  EXPECT_EQ(producer.accepted, 6);
}

TEST(Receiver, AProducerThatWaitsIsReleasedByTheStopWhichMayJoinIt) {  // R4, R5
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed, room_for_three));
  std::optional<Producer> producer;
  feed->when_started = [&] { producer.emplace(*feed); };
  feed->when_stopped = [&] { producer.reset(); };  // joins
  rig.ssc.start();
  ASSERT_TRUE(eventually([&] { return producer->accepted == 3; }));
  EXPECT_FALSE(rig.ssc.stop()) << "three records were dropped";
  EXPECT_THAT(feed->life.all(), ElementsAre("start", "stop"));
}

TEST(Receiver, AProducerThatWaitsIsReleasedByARestartTooAndWhatItStoredIsKept) {  // R4
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed, room_for_three));
  std::optional<Producer> producer;
  feed->when_started = [&] {
    if (feed->life.size() == 1) producer.emplace(*feed);
  };
  feed->when_stopped = [&] { producer.reset(); };
  rig.ssc.start(Drive::by_host);
  ASSERT_TRUE(eventually([&] { return producer->accepted == 3; }));
  feed->restart("a new connection", nullptr, Duration{0});
  while (feed->life.size() < 3) rig.ssc.step();
  EXPECT_THAT(feed->life.all(), ElementsAre("start", "stop", "start"));
  rig.pass(1s);
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {0, 1, 2}}));
  EXPECT_TRUE(feed->put(9)) << "it takes records again";
  rig.ssc.stop();  // while there is a producer to let go
}

TEST(Receiver, ABlockLargerThanTheBufferStillPasses) {  // R4
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed, room_for_three));
  rig.ssc.start(Drive::by_host);
  EXPECT_TRUE(feed->put_all({1, 2, 3, 4, 5}));
  rig.pass(1s);
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {1, 2, 3, 4, 5}}));
}

TEST(Receiver, RestartsAfterItsDelay) {  // R1
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed, {.name = "feed", .restart_delay = 1500ms}));
  rig.ssc.start(Drive::by_host);
  feed->restart("the line is dead");
  EXPECT_THAT(feed->life.all(), ElementsAre("start")) << "restart returns at once";
  rig.ssc.step();
  EXPECT_THAT(feed->life.all(), ElementsAre("start", "stop"));
  EXPECT_TRUE(feed->is_stopped());
  feed->restart("again");  // a restart is under way already
  rig.clock->advance(1499ms);
  rig.ssc.step();
  EXPECT_EQ(feed->life.size(), 2u);
  rig.clock->advance(1ms);
  rig.ssc.step();
  EXPECT_THAT(feed->life.all(), ElementsAre("start", "stop", "start"));
  EXPECT_TRUE(rig.log.says("warning", "feed: restarting: the line is dead"));
  EXPECT_EQ(rig.pass(10s), 10u);
  EXPECT_EQ(feed->life.size(), 3u);
}

TEST(Receiver, RestartsAfterTheDelayThatItAskedForOnTheOwnThread) {  // R1
  Rig rig{1h};
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start();
  feed->restart("busy", nullptr, Duration{30s});
  ASSERT_TRUE(feed->life.wait_for(2));
  // Its delay begins some time after it was stopped, so the clock is moved until it is over.
  ASSERT_TRUE(eventually([&] {
    rig.clock->advance(1ms);
    return feed->life.size() == 3;
  }));
  EXPECT_GE(rig.clock->now(), at(1030));
  rig.ssc.stop();
  EXPECT_THAT(feed->life.all(), ElementsAre("start", "stop", "start", "stop"));
}

TEST(Receiver, WhoseStartThrowsIsReportedAndTriedAgain) {  // R1
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  int failures = 2;
  feed->when_started = [&] {
    if (failures-- > 0) throw std::runtime_error{"no such device"};
  };
  auto seen = record(rig.ssc.receiver_stream(feed, {.name = "device", .restart_delay = 2s}));
  rig.ssc.start(Drive::by_host);
  EXPECT_EQ(rig.ssc.state(), StreamingState::active);
  EXPECT_TRUE(feed->is_stopped());
  EXPECT_TRUE(rig.log.says("warning", "tried again in 2 s: no such device"));
  rig.pass(2s);
  rig.pass(2s);
  EXPECT_TRUE(feed->is_started());
  EXPECT_THAT(feed->life.all(), ElementsAre("start", "start", "start")) << "what did not start is not stopped";
  EXPECT_TRUE(feed->put(1));
  rig.pass(1s);
  EXPECT_EQ(seen->all().back().records, std::vector{1});
}

TEST(Receiver, WhoseStartAsksForARestartAndThrowsIsStartedOnce) {  // RC1
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  feed->when_started = [&] {
    if (feed->life.size() > 1) return;
    feed->restart("not like this");
    throw std::runtime_error{"and not like that"};
  };
  auto seen = record(rig.ssc.receiver_stream(feed, {.name = "hasty", .restart_delay = 1s}));
  rig.ssc.start(Drive::by_host);
  rig.pass(1s);
  rig.pass(1s);
  rig.pass(5s);
  EXPECT_THAT(feed->life.all(), ElementsAre("start", "start"));
  rig.ssc.stop();
  EXPECT_THAT(feed->life.all(), ElementsAre("start", "start", "stop"));
}

TEST(Receiver, ThatStopsForGoodIsNotStartedAgainAndTheStreamGoesOn) {  // R1
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed, {.name = "feed"}));
  rig.ssc.start(Drive::by_host);
  feed->put(1);
  feed->restart("a restart is pending");
  feed->stop("the file is read", std::make_exception_ptr(std::runtime_error{"end of file"}));
  rig.pass(5s);
  EXPECT_THAT(feed->life.all(), ElementsAre("start", "stop"));
  EXPECT_TRUE(rig.log.says("info", "feed stopped: the file is read: end of file"));
  EXPECT_EQ(seen->size(), 5u);
  EXPECT_EQ(seen->all()[0].records, std::vector{1}) << "what it stored before is worked on";
  EXPECT_FALSE(feed->put(2));
  feed->restart("in vain");
  rig.pass(5s);
  rig.ssc.stop();
  EXPECT_THAT(feed->life.all(), ElementsAre("start", "stop"));
}

TEST(Receiver, WhoseStopThrowsIsStoppedAllTheSame) {
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  feed->when_stopped = [] { throw std::runtime_error{"jammed"}; };
  auto seen = record(rig.ssc.receiver_stream(feed, {.name = "feed"}));
  rig.ssc.start(Drive::by_host);
  rig.ssc.stop();
  EXPECT_EQ(rig.ssc.state(), StreamingState::stopped);
  EXPECT_TRUE(rig.log.says("warning", "on_stop() threw: jammed"));
}

TEST(Receiver, FeedsOneRunningStreamAtATime) {  // C6
  Rig rig;
  Rig other;
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed, {.name = "feed"}));
  auto refused = record(other.ssc.receiver_stream(feed, {.name = "feed"}));
  rig.ssc.start(Drive::by_host);
  EXPECT_EQ(code_of([&] { other.ssc.start(Drive::by_host); }), "receiver_in_use");
  EXPECT_EQ(other.ssc.state(), StreamingState::stopped);
  EXPECT_TRUE(feed->put(1)) << "the stream that has it is not disturbed";
  rig.pass(1s);
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {1}}));
  EXPECT_THAT(feed->life.all(), ElementsAre("start"));
}

TEST(Receiver, MayFeedAnotherContextOnceTheFirstHasStopped) {  // C6
  const auto feed = std::make_shared<Feed<int>>();
  Rig second;
  auto seen = record(second.ssc.receiver_stream(feed));
  {
    Rig first;
    auto before = record(first.ssc.receiver_stream(feed));
    first.ssc.start(Drive::by_host);
    first.ssc.stop();
    second.ssc.start(Drive::by_host);
  }
  EXPECT_TRUE(feed->put(2)) << "also when the first context goes later";
  second.pass(1s);
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {2}}));
}

TEST(Receiver, MayNotBeNull) {
  Rig rig;
  EXPECT_THROW((void)rig.ssc.receiver_stream(std::shared_ptr<Feed<int>>{}), ConfigError);
  EXPECT_THAT(message_of<ConfigError>([&] {
                (void)rig.ssc.receiver_stream(std::make_shared<Feed<int>>(), {.inbox = {.max_buffered_bytes = 0}});
              }),
              HasSubstr("max_buffered_bytes"));
}

}  // namespace
}  // namespace tidemill
