// The gate of an interval: which ticks there are, and which records each takes. SEMANTICS B1, B2, B5, J1–J3, R6.
#include <numeric>

#include "engine/harness.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;

TEST(IntervalGate, FirstBatchIsTheNextMultipleOfTheIntervalAfterTheStart) {  // B1
  Rig rig{2s};
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  rig.clock->set(at(1000.3));
  rig.ssc.start(Drive::by_host);
  EXPECT_EQ(rig.ssc.next_batch_time(), at(1002));
  EXPECT_EQ(rig.ssc.engine()->zero_time(), at(1000));
  rig.clock->set(at(1001.999999));
  EXPECT_FALSE(rig.ssc.step()) << "the tick has not come";
  rig.clock->set(at(1002));
  EXPECT_TRUE(rig.ssc.step());
  ASSERT_EQ(seen->size(), 1u);
  EXPECT_EQ(seen->all()[0].time, at(1002));
}

TEST(IntervalGate, StartedOnATickTheFirstBatchIsTheOneAfterIt) {  // B1: strictly after
  Rig rig{250ms};
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  rig.ssc.start(Drive::by_host);
  EXPECT_EQ(rig.ssc.engine()->zero_time(), at(1000));
  EXPECT_FALSE(rig.ssc.step()) << "nothing is ever generated at the zero time";
  EXPECT_EQ(rig.ssc.next_batch_time(), at(1000.25));
}

TEST(IntervalGate, IntervalsThatDoNotDivideASecondAreAlignedToTheEpochToo) {  // B1
  Rig rig{7s};
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  rig.ssc.start(Drive::by_host);
  EXPECT_EQ(rig.ssc.engine()->zero_time(), at(142 * 7));
  EXPECT_EQ(rig.ssc.next_batch_time(), at(143 * 7));
}

TEST(IntervalGate, AStreamHasBatchesAfterTheZeroTimeAndAWindowOnItsSlideOnly) {  // B2
  Rig rig;
  const auto stream = rig.ssc.receiver_stream(std::make_shared<Feed<int>>());
  const auto window = stream.window(4s, 2s).map([](int i) { return i; });
  auto seen = record(stream);
  rig.ssc.start(Drive::by_host);
  EXPECT_FALSE(stream.has_batch_at(at(999)));
  EXPECT_FALSE(stream.has_batch_at(at(1000)));
  EXPECT_TRUE(stream.has_batch_at(at(1001)));
  EXPECT_FALSE(window.has_batch_at(at(1000)));
  EXPECT_FALSE(window.has_batch_at(at(1001)));
  EXPECT_TRUE(window.has_batch_at(at(1002)));
}

TEST(IntervalGate, TicksQueueAndNeverMerge) {  // B5, EN3
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  rig.ssc.start(Drive::by_host);
  rig.clock->advance(3500ms);
  EXPECT_EQ(rig.ssc.metrics().waiting_batches, 3u);
  EXPECT_TRUE(rig.ssc.step());
  EXPECT_TRUE(rig.ssc.step());
  EXPECT_TRUE(rig.ssc.step());
  EXPECT_FALSE(rig.ssc.step());
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {}}, Seen<int>{at(1002), {}}, Seen<int>{at(1003), {}}));
}

TEST(IntervalGate, ARecordStampedOnTheTickBelongsToItAndTheNextMomentToTheNext) {  // R6
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start(Drive::by_host);
  rig.clock->set(at(1000.000001));
  feed->put(1);
  rig.clock->set(at(1001));
  feed->put(2);
  rig.clock->set(at(1001.000001));
  feed->put(3);
  rig.clock->set(at(1002));
  while (rig.ssc.step()) {
  }
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {1, 2}}, Seen<int>{at(1002), {3}}));
}

TEST(IntervalGate, RecordsGoToTheBatchOfTheirStampHoweverLateTheCut) {  // B5, R6
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  const auto stream = rig.ssc.receiver_stream(feed);
  // The first batch takes two and a half intervals; 10, 20 and 30 arrive meanwhile.
  stream.foreach_batch([&](const auto&, Time t) {
    if (t != at(1001)) return;
    for (const int i : {10, 20, 30}) {
      rig.clock->advance(i == 10 ? 500ms : 1s);
      feed->put(i);
    }
  });
  auto seen = record(stream);
  rig.ssc.start(Drive::by_host);
  feed->put(1);
  EXPECT_EQ(rig.pass(1s), 3u);
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {1}}, Seen<int>{at(1002), {10}}, Seen<int>{at(1003), {20}}));
  EXPECT_EQ(rig.pass(500ms), 1u);
  EXPECT_EQ(seen->all().back(), (Seen<int>{at(1004), {30}}));
}

TEST(IntervalGate, OutputsRunInOrderOfRegistrationAndBatchesInOrderOfTime) {  // J1, J2, EN2
  Rig rig;
  const auto stream = rig.ssc.receiver_stream(std::make_shared<Feed<int>>());
  std::vector<std::string> order;
  for (const char* name : {"a", "b", "c"}) {
    stream.foreach_batch(
        [&order, name](const auto&, Time t) { order.push_back(name + std::to_string(millis(t) / 1000)); });
  }
  rig.ssc.start(Drive::by_host);
  rig.pass(2s);
  EXPECT_THAT(order, ElementsAre("a1001", "b1001", "c1001", "a1002", "b1002", "c1002"));
}

class Skipping final : public detail::OutputOperation {
 public:
  using detail::OutputOperation::OutputOperation;
  std::function<void()> generate(Time t) override {
    return t == at(1001) ? nullptr : std::function<void()>{[] {}};
  }
};

struct Completed final : StreamingListener {
  void on_batch_submitted(const BatchInfo& batch) override { submitted.push_back(batch.batch_time); }
  void on_batch_completed(const BatchInfo& batch) override { completed.push_back(batch); }
  std::vector<Time> submitted;
  std::vector<BatchInfo> completed;
};

TEST(IntervalGate, ABatchWithoutAJobIsNotTracked) {  // J3
  Rig rig;
  const auto listener = std::make_shared<Completed>();
  rig.ssc.add_listener(listener);
  rig.ssc.engine()->add_output(std::make_shared<Skipping>("skips the first"));
  rig.ssc.start(Drive::by_host);
  rig.pass(2s);
  EXPECT_THAT(listener->submitted, ElementsAre(at(1002)));
  EXPECT_EQ(rig.ssc.metrics().total_completed_batches, 1u);
}

TEST(IntervalGate, AnOutputKeepsItsNumberInABatchWhereAnEarlierOneHasNoJob) {  // E3
  Rig rig;
  const auto listener = std::make_shared<Completed>();
  rig.ssc.add_listener(listener);
  rig.ssc.engine()->add_output(std::make_shared<Skipping>("skips the first"));
  rig.ssc.receiver_stream(std::make_shared<Feed<int>>()).foreach_batch([](const auto&) {}, "always");
  rig.ssc.start(Drive::by_host);
  rig.pass(1s);
  ASSERT_EQ(listener->completed.size(), 1u);
  ASSERT_EQ(listener->completed[0].outputs.size(), 1u);
  EXPECT_EQ(listener->completed[0].outputs[0].name, "always");
  EXPECT_EQ(listener->completed[0].outputs[0].id, 1u);
}

TEST(IntervalGate, RefusesIntervalsThatCannotBe) {
  const Context context;
  EXPECT_THAT(message_of<ConfigError>([&] { StreamingContext{context, Duration{0}}; }), HasSubstr("0 us"));
  EXPECT_THAT(message_of<ConfigError>([&] { StreamingContext{context, Duration{-5ms}}; }), HasSubstr("-5 ms"));
  EXPECT_THAT(message_of<ConfigError>([&] { StreamingContext{context, Duration::max()}; }), HasSubstr("1000 years"));
}

// The engine has one loop. These run it on its own thread, first under a clock turned by hand and then under the real one.

TEST(IntervalGate, RunsOnItsOwnThreadUnderAManualClock) {  // B4, B5
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start();
  EXPECT_NE(rig.ssc.state(), StreamingState::initialized);
  feed->put(1);
  rig.clock->advance(1s);
  ASSERT_TRUE(seen->wait_for(1));
  feed->put(2);
  rig.clock->advance(3s);
  ASSERT_TRUE(seen->wait_for(4));
  rig.ssc.stop();
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {1}}, Seen<int>{at(1002), {2}}, Seen<int>{at(1003), {}},
                                       Seen<int>{at(1004), {}}));
}

TEST(IntervalGate, RunsOnItsOwnThreadUnderTheSystemClockWithoutLosingATick) {  // B1, B5, T2: epoch-aligned, no drift
  Context context{{.app_name = "gate-test", .parallelism = 1}};
  StreamingContext ssc{context, 2ms};
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(ssc.receiver_stream(feed));
  const Time before = context.clock().now();
  ssc.start();
  for (int i = 0; i < 100; ++i) feed->put(i);
  ASSERT_TRUE(seen->wait_for(50));
  ssc.stop();
  const auto batches = seen->all();
  std::vector<int> records;
  EXPECT_GT(batches[0].time, before);
  for (std::size_t i = 0; i < batches.size(); ++i) {
    EXPECT_EQ(batches[i].time, batches[0].time + static_cast<int>(i) * 2ms) << "tick " << i;
    records.insert(records.end(), batches[i].records.begin(), batches[i].records.end());
  }
  EXPECT_TRUE(is_multiple_of(batches[0].time, 2ms));
  std::vector<int> all(100);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(records, all) << "nothing lost, doubled or out of order";
}

}  // namespace
}  // namespace tidemill
