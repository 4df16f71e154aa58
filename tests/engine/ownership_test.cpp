// Who outlives whom: contexts that end early, streams and batches that end late, several contexts side by side.
#include <optional>

#include "engine/harness.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;

struct Parts {
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  Context context{{.app_name = "ownership", .parallelism = 1, .executor = nullptr, .clock = clock, .log = nullptr}};
  std::optional<StreamingContext> ssc;

  template <class Gate>
  StreamingContext& make(Gate gate) {
    return ssc.emplace(context, gate);
  }
};

TEST(Ownership, DestroyingAnActiveContextStopsItAtOnce) {
  for (const Drive drive : {Drive::own_thread, Drive::by_host}) {
    Parts parts;
    const auto feed = std::make_shared<Feed<int>>();
    auto seen = record(parts.make(Duration{1s}).receiver_stream(feed));
    parts.ssc->start(drive);
    feed->put(1);
    parts.ssc.reset();
    EXPECT_THAT(feed->life.all(), ElementsAre("start", "stop"));
    EXPECT_EQ(seen.use_count(), 1) << "the graph is gone";
    EXPECT_EQ(seen->size(), 0u);
    EXPECT_EQ(feed.use_count(), 1);
    EXPECT_FALSE(feed->put(2)) << "a receiver without a stream refuses";
  }
}

TEST(Ownership, AContextMayBeDestroyedByItsOwnOutputOperation) {
  for (const Drive drive : {Drive::own_thread, Drive::by_host}) {
    Parts parts;
    const auto feed = std::make_shared<Feed<int>>();
    const auto alive = std::make_shared<int>();
    Journal<std::string> order;
    const auto stream = parts.make(Duration{1s}).receiver_stream(feed);
    stream.foreach_batch([&, alive](const auto&) {
      parts.ssc.reset();
      order.add("first");
    });
    stream.foreach_batch([&, alive](const auto&) { order.add("second"); });
    parts.ssc->start(drive);
    parts.clock->advance(3s);
    if (drive == Drive::by_host) {
      StreamingContext& ssc = *parts.ssc;
      EXPECT_TRUE(ssc.step());
    }
    ASSERT_TRUE(eventually([&] { return alive.use_count() == 1; })) << "the graph goes when the batch ends";
    EXPECT_THAT(order.all(), ElementsAre("first", "second")) << "the batch is finished, and no other begins";
    EXPECT_THAT(feed->life.all(), ElementsAre("start", "stop"));
  }
}

TEST(Ownership, AContextMayBeDestroyedWithinItsOwnGracefulStop) {
  Parts parts;
  const auto feed = std::make_shared<Feed<int>>();
  const auto alive = std::make_shared<int>();
  parts.make(Duration{1s}).receiver_stream(feed).foreach_batch([&, alive](const auto&) { parts.ssc.reset(); });
  parts.ssc->start(Drive::by_host);
  feed->put(1);
  parts.ssc->stop(StopMode::graceful);
  EXPECT_EQ(alive.use_count(), 1);
}

struct Destroying final : StreamingListener {
  explicit Destroying(Parts& p) : parts{p} {}
  void on_batch_completed(const BatchInfo&) override {
    parts.ssc.reset();
    destroyed.open();
  }
  Parts& parts;
  Door destroyed;
};

TEST(Ownership, AContextMayBeDestroyedByAListener) {
  Parts parts;
  const auto alive = std::make_shared<int>();
  parts.make(Duration{1s}).receiver_stream(std::make_shared<Feed<int>>()).foreach_batch([alive](const auto&) {});
  const auto listener = std::make_shared<Destroying>(parts);
  parts.ssc->add_listener(listener);
  parts.ssc->start();
  parts.clock->advance(1s);
  ASSERT_TRUE(listener->destroyed.wait());
  EXPECT_TRUE(eventually([&] { return alive.use_count() == 1; }));
}

TEST(Ownership, StreamsMayOutliveTheirContextAndRefuseToGrow) {
  for (const bool started : {false, true}) {
    std::optional<DStream<int>> stream;
    const auto alive = std::make_shared<int>();
    {
      Parts parts;
      stream =
          parts.make(Duration{1s}).receiver_stream(std::make_shared<Feed<int>>()).map([alive](int i) { return i; });
      auto seen = record(*stream);
      if (started) parts.ssc->start();
    }
    EXPECT_EQ(stream->slide_duration(), 1s);
    EXPECT_EQ(code_of([&] { (void)stream->count(); }), "illegal_state");
    EXPECT_EQ(code_of([&] { stream->print(); }), "illegal_state");
    EXPECT_EQ(alive.use_count(), 2) << "the stream keeps its functions";
    stream.reset();
    EXPECT_EQ(alive.use_count(), 1) << "and nothing keeps the stream";
  }
}

TEST(Ownership, BatchesMayOutliveTheirContext) {
  std::optional<Batch<int>> kept;
  {
    Parts parts;
    const auto feed = std::make_shared<Feed<int>>();
    parts.make(Duration{1s})
        .receiver_stream(feed)
        .map([](int i) { return 10 * i; })
        .foreach_batch([&](const Batch<int>& batch) { kept = batch; });
    parts.ssc->start(Drive::by_host);
    feed->put_all({1, 2});
    parts.clock->advance(1s);
    EXPECT_TRUE(parts.ssc->step());
  }
  EXPECT_THAT(kept->collect(), ElementsAre(10, 20));
}

TEST(Ownership, AContextThatNeverStartsTellsThoseWhoWait) {
  Parts parts;
  int called = 0;
  parts.make(Duration{1s}).engine()->when_terminated([&](std::exception_ptr error) {
    ++called;
    EXPECT_EQ(error, nullptr);
  });
  parts.ssc.reset();
  EXPECT_EQ(called, 1);
}

class Failing final : public detail::OutputOperation {
 public:
  using detail::OutputOperation::OutputOperation;
  std::function<void()> generate(Time) override {
    return [] { throw SinkError("full", "the disk is full", Retry::may_help); };
  }
};

TEST(Ownership, ContextsRunSideBySideAndFailApart) {  // in place of L4
  Parts parts;
  StreamingContext other{parts.context, on_arrival};
  const auto slow = std::make_shared<Feed<int>>();
  const auto quick = std::make_shared<Feed<int>>();
  auto of_slow = record(parts.make(Duration{1s}).receiver_stream(slow));
  parts.ssc->engine()->add_output(std::make_shared<Failing>("failing"));
  auto of_quick = record(other.receiver_stream(quick));
  parts.ssc->start();
  other.start();
  quick->put(1);
  ASSERT_TRUE(of_quick->wait_for(1));
  EXPECT_EQ(of_slow->size(), 0u);
  slow->put(2);
  parts.clock->advance(1s);
  ASSERT_TRUE(of_slow->wait_for(1));
  EXPECT_EQ(code_of<SinkError>([&] { parts.ssc->await_termination(); }), "full");
  EXPECT_FALSE(other.await_termination_or_timeout(0s));
  parts.ssc->stop();
  quick->put(3);
  ASSERT_TRUE(of_quick->wait_for(2));
  EXPECT_TRUE(other.stop(StopMode::graceful));
}

}  // namespace
}  // namespace tidemill
