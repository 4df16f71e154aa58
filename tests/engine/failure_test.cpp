// What fails, and what goes on all the same. SEMANTICS L14, L15; invariant EN5.
#include <numeric>

#include "engine/harness.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;

int fussy(int i) {
  if (i < 0) throw std::runtime_error{"no negative numbers"};
  return i;
}

TEST(Failure, OfABatchIsDeliveredToThoseWhoWaitAndTheContextRunsOn) {  // L14
  for (const Drive drive : {Drive::own_thread, Drive::by_host}) {
    Rig rig;
    const auto feed = std::make_shared<Feed<int>>();
    auto seen = record(rig.ssc.receiver_stream(feed).map(fussy));
    rig.ssc.start(drive);
    feed->put(-1);
    rig.clock->advance(1s);
    if (drive == Drive::by_host) {
      EXPECT_TRUE(rig.ssc.step()) << "a failed batch is a batch";
    }
    try {
      rig.ssc.await_termination();
      ADD_FAILURE() << "nothing was delivered";
    } catch (const UserCodeError& error) {
      EXPECT_EQ(error.context().op, "map");
      EXPECT_EQ(error.context().batch_time, at(1001));
      EXPECT_EQ(error.context().application, "engine-test");
      EXPECT_TRUE(error.context().partition.has_value());
      EXPECT_THAT(error.what(), HasSubstr("no negative numbers"));
      EXPECT_THROW(std::rethrow_if_nested(error), std::runtime_error);
    }
    EXPECT_EQ(rig.ssc.state(), StreamingState::active);
    feed->put(2);
    rig.clock->advance(1s);
    if (drive == Drive::by_host) {
      EXPECT_TRUE(rig.ssc.step());
    }
    ASSERT_TRUE(seen->wait_for(1));
    EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1002), {2}}));
    EXPECT_THROW(rig.ssc.await_termination(), UserCodeError) << "the first error stays";
  }
}

TEST(Failure, OfOneOutputLeavesTheOthersOfItsBatchAlone) {  // L14
  Rig rig;
  const auto stream = rig.ssc.receiver_stream(std::make_shared<Feed<int>>());
  stream.foreach_batch([](const auto&) { throw std::runtime_error{"first"}; });
  stream.foreach_batch([](const auto&) { throw std::runtime_error{"second"}; });
  auto seen = record(stream);
  rig.ssc.start(Drive::by_host);
  EXPECT_EQ(rig.pass(1s), 1u);
  EXPECT_EQ(seen->size(), 1u);
  EXPECT_THAT(message_of<UserCodeError>([&] { rig.ssc.await_termination(); }), HasSubstr("first"));
  EXPECT_TRUE(rig.log.says("error", "first"));
  EXPECT_TRUE(rig.log.says("error", "second")) << "only the first is delivered, and every one is logged";
}

TEST(Failure, EndsAllWhoWaitAsynchronouslyOnce) {  // L14, C18
  Rig rig;
  rig.ssc.receiver_stream(std::make_shared<Feed<int>>()).foreach_batch([](const auto&) { throw 42; });
  int called = 0;
  rig.ssc.engine()->when_terminated([&](std::exception_ptr error) {
    ++called;
    EXPECT_THAT(describe(error), HasSubstr("not a std::exception"));
  });
  rig.ssc.start(Drive::by_host);
  rig.pass(2s);
  EXPECT_EQ(called, 1);
  rig.ssc.stop();
  EXPECT_EQ(called, 1);
}

TEST(Failure, OfATransformGivesABatchWithoutJobs) {  // L15
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  const auto stream = rig.ssc.receiver_stream(feed);
  auto before = record(stream);
  auto after = record(stream.transform([](const Batch<int>& batch, Time t) {
    if (t == at(1001)) throw std::runtime_error{"no reference data"};
    return batch;
  }));
  rig.ssc.start(Drive::by_host);
  feed->put(1);
  EXPECT_EQ(rig.pass(1s), 1u);
  EXPECT_EQ(before->size(), 0u) << "no output of that batch runs";
  try {
    rig.ssc.await_termination();
    ADD_FAILURE();
  } catch (const UserCodeError& error) {
    EXPECT_EQ(error.context().op, "transform");
    EXPECT_EQ(error.context().batch_time, at(1001));
  }
  EXPECT_EQ(rig.ssc.metrics().total_completed_batches, 0u);
  EXPECT_EQ(rig.ssc.metrics().total_received_records, 1u);
  feed->put(2);
  rig.pass(1s);
  EXPECT_THAT(before->all(), ElementsAre(Seen<int>{at(1002), {2}}))
      << "what the failed batch had taken is not repeated";
  EXPECT_EQ(after->size(), 1u);
}

TEST(Failure, OfATransformSeveralTimesLosesNothingForTheStatesAndWindowsAboveIt) {
  using Pair = std::pair<int, int>;
  Rig rig;
  const auto feed = std::make_shared<Feed<Pair>>();
  bool down = true;
  const auto looked_up = rig.ssc.receiver_stream(feed).transform([&down](const Batch<Pair>& batch, Time) {
    if (down) throw std::runtime_error{"no reference data"};
    return batch;
  });
  auto totals = record(looked_up.update_state_by_key<int>([](const std::vector<int>& values, std::optional<int> state) {
    return std::optional{std::accumulate(values.begin(), values.end(), state.value_or(0))};
  }));
  auto sums = record(looked_up.reduce_by_key_and_window(std::plus<>{}, 10s));
  auto window = record(looked_up.window(10s));
  rig.ssc.start(Drive::by_host);
  for (int i = 1; i <= 4; ++i) {
    down = i < 4;
    feed->put({7, i});
    EXPECT_EQ(rig.pass(1s), 1u);
  }
  EXPECT_THAT(totals->all(), ElementsAre(Seen<Pair>{at(1004), {{7, 10}}}));
  EXPECT_THAT(sums->all(), ElementsAre(Seen<Pair>{at(1004), {{7, 10}}}));
  EXPECT_THAT(window->all(), ElementsAre(Seen<Pair>{at(1004), {{7, 1}, {7, 2}, {7, 3}, {7, 4}}}));
}

TEST(Failure, OfATransformThatReturnsNoBatchDoesNotCompileButAnEmptyOneIsFine) {  // M9
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()).transform([&](const Batch<int>&) {
    return rig.context.empty_batch<int>();
  }));
  rig.ssc.start(Drive::by_host);
  rig.pass(1s);
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {}}));
}

TEST(Failure, ToAllocateInAUserFunctionFailsTheBatchOnly) {
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed).map([](int i) {
    if (i == 0) throw std::bad_alloc{};
    return i;
  }));
  rig.ssc.start(Drive::by_host);
  feed->put(0);
  rig.pass(1s);
  try {
    rig.ssc.await_termination();
    ADD_FAILURE();
  } catch (const UserCodeError& error) {
    EXPECT_THROW(std::rethrow_if_nested(error), std::bad_alloc);
  }
  feed->put(1);
  rig.pass(1s);
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1002), {1}}));
}

TEST(Failure, OfAScheduledTaskIsReportedAndNotTheEnd) {  // EN5
  Rig rig;
  class Scheduling final : public detail::Input {
   public:
    [[nodiscard]] std::string name() const override { return "scheduling"; }
    void start(detail::InputHost& host, std::size_t) override {
      host.schedule(at(1000.5), [] { throw SourceError("gone", "the source is gone", Retry::may_help); });
    }
    void stop() noexcept override {}
    [[nodiscard]] bool has_pending() const noexcept override { return false; }
    InputInfo cut(Time, std::size_t) override { return {}; }
    [[nodiscard]] std::string plan() const override { return {}; }
    InputInfo replay(Time, std::string_view) override { return {}; }
  };
  rig.ssc.engine()->add_input(std::make_shared<Scheduling>());
  auto seen = record(rig.ssc.queue_stream(std::make_shared<BatchQueue<int>>()));
  rig.ssc.start(Drive::by_host);
  EXPECT_EQ(rig.pass(1s), 1u);
  EXPECT_EQ(code_of<SourceError>([&] { rig.ssc.await_termination(); }), "gone");
  EXPECT_EQ(seen->size(), 1u);
}

TEST(Failure, OfTheLoggerIsSwallowed) {
  Context context{{.app_name = "loud",
                   .parallelism = 1,
                   .executor = nullptr,
                   .clock = std::make_shared<ManualClock>(),
                   .log = [](LogLevel, std::string_view) { throw std::runtime_error{"the disk of the log is full"}; }}};
  StreamingContext ssc{context, 1s};
  ssc.receiver_stream(std::make_shared<Feed<int>>()).foreach_batch([](const auto&) {
    throw std::runtime_error{"boom"};
  });
  ssc.start(Drive::by_host);
  static_cast<ManualClock&>(context.clock()).advance(1s);
  EXPECT_TRUE(ssc.step());
  EXPECT_THAT(message_of<UserCodeError>([&] { ssc.await_termination(); }), HasSubstr("boom"));
}

}  // namespace
}  // namespace tidemill
