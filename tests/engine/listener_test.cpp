// What the engine tells about its work. SEMANTICS E1–E6.
#include "engine/harness.hpp"
#include "tidemill/testing/sim_fs.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;

// Every event as a line.
struct Diary final : StreamingListener {
  void on_streaming_started(Time t) override { lines.add("streaming started " + to_string(t)); }
  void on_receiver_started(const ReceiverInfo& r) override { lines.add("receiver started " + r.name); }
  void on_receiver_error(const ReceiverInfo& r) override { lines.add("receiver error " + r.name + ": " + r.message); }
  void on_receiver_stopped(const ReceiverInfo& r) override {
    lines.add("receiver stopped " + r.name + ": " + r.message);
  }
  void on_batch_submitted(const BatchInfo& b) override {
    lines.add("submitted " + to_string(b.batch_time));
    submitted.add(b);
  }
  void on_batch_started(const BatchInfo& b) override {
    lines.add("started " + to_string(b.batch_time));
    started.add(b);
  }
  void on_batch_completed(const BatchInfo& b) override {
    lines.add("completed " + to_string(b.batch_time));
    batches.add(b);
  }
  void on_output_operation_started(const OutputOperationInfo& o) override {
    lines.add("output " + o.name + " started");
  }
  void on_output_operation_completed(const OutputOperationInfo& o) override {
    lines.add("output " + o.name + " completed");
  }
  Journal<std::string> lines;
  Journal<BatchInfo> submitted;
  Journal<BatchInfo> started;
  Journal<BatchInfo> batches;  // completed
};

std::shared_ptr<Diary> keep_diary(StreamingContext& ssc) {
  auto diary = std::make_shared<Diary>();
  ssc.add_listener(diary);
  return diary;
}

TEST(Listener, HearsEverythingInOrder) {  // E1, E4
  Rig rig;
  const auto diary = keep_diary(rig.ssc);
  const auto stream = rig.ssc.receiver_stream(std::make_shared<Feed<int>>(), {.name = "feed"});
  stream.foreach_batch([](const auto&) {}, "first");
  stream.print();
  rig.ssc.start(Drive::by_host);
  rig.pass(1s);
  rig.ssc.stop();
  EXPECT_THAT(
      diary->lines.all(),
      ElementsAre("streaming started 1000000 ms", "receiver started feed", "submitted 1001000 ms", "started 1001000 ms",
                  "output first started", "output first completed", "output print started", "output print completed",
                  "completed 1001000 ms", "receiver stopped feed: "));
}

TEST(Listener, IsToldTheDelaysOfABatch) {  // E2, E3: exact, under a manual clock
  Rig rig;
  const auto diary = keep_diary(rig.ssc);
  const auto feed = std::make_shared<Feed<int>>();
  const auto stream = rig.ssc.receiver_stream(feed, {.name = "feed"});
  stream.foreach_batch([&](const auto&) { rig.clock->advance(1200ms); }, "slow");
  stream.foreach_batch([&](const auto&) { rig.clock->advance(300ms); }, "quick");
  rig.ssc.start(Drive::by_host);
  feed->put_all({1, 2, 3});
  rig.clock->set(at(1001));
  EXPECT_TRUE(rig.ssc.step());  // 1001 s: runs from 1001 to 1002.5
  EXPECT_TRUE(rig.ssc.step());  // 1002 s: runs from 1002.5 to 1004
  const auto batches = diary->batches.all();
  ASSERT_EQ(batches.size(), 2u);

  const BatchInfo& first = batches[0];
  EXPECT_EQ(first.batch_time, at(1001));
  EXPECT_EQ(first.submission_time, at(1001));
  EXPECT_EQ(first.processing_start_time, at(1001));
  EXPECT_EQ(first.processing_end_time, at(1002.5));
  EXPECT_EQ(first.scheduling_delay(), 0s);
  EXPECT_EQ(first.processing_delay(), 1500ms);
  EXPECT_EQ(first.total_delay(), 1500ms);
  EXPECT_EQ(first.num_records(), 3u);
  ASSERT_EQ(first.inputs.size(), 1u);
  EXPECT_EQ(first.inputs[0].stream_id, 0u);
  EXPECT_EQ(first.inputs[0].name, "feed");
  EXPECT_EQ(first.inputs[0].records, 3u);

  const BatchInfo& second = batches[1];
  EXPECT_EQ(second.submission_time, at(1002)) << "it was due then, and had to wait";
  EXPECT_EQ(second.scheduling_delay(), 500ms);
  EXPECT_EQ(second.processing_delay(), 1500ms);
  EXPECT_EQ(second.total_delay(), 2s);
  EXPECT_EQ(second.num_records(), 0u);

  ASSERT_EQ(first.outputs.size(), 2u);
  EXPECT_EQ(first.outputs[0].id, 0u);
  EXPECT_EQ(first.outputs[0].name, "slow");
  EXPECT_EQ(first.outputs[0].batch_time, at(1001));
  EXPECT_EQ(first.outputs[0].start_time, at(1001));
  EXPECT_EQ(first.outputs[0].end_time, at(1002.2));
  EXPECT_EQ(first.outputs[0].duration(), 1200ms);
  EXPECT_EQ(first.outputs[0].failure_reason, std::nullopt);
  EXPECT_EQ(first.outputs[1].id, 1u);
  EXPECT_EQ(first.outputs[1].duration(), 300ms);
}

TEST(Listener, IsToldFromTheSubmissionOnWhichOutputsHaveWorkInTheBatch) {  // E2
  for (const std::size_t concurrent_jobs : {1u, 2u}) {
    StreamingOptions options;
    options.concurrent_jobs = concurrent_jobs;
    Rig rig{1s, options};
    const auto diary = keep_diary(rig.ssc);
    const auto stream = rig.ssc.receiver_stream(std::make_shared<Feed<int>>());
    stream.foreach_batch([](const auto&) {}, "every second");
    stream.window(2s, 2s).foreach_batch([](const auto&) {}, "every other second");
    rig.ssc.start();
    rig.clock->advance(1s);
    ASSERT_TRUE(diary->batches.wait_for(1));
    rig.clock->advance(1s);
    ASSERT_TRUE(diary->batches.wait_for(2));
    for (const auto& batches : {diary->submitted.all(), diary->started.all(), diary->batches.all()}) {
      ASSERT_EQ(batches.size(), 2u);
      ASSERT_EQ(batches[0].outputs.size(), 1u);
      EXPECT_EQ(batches[0].outputs[0].name, "every second");
      ASSERT_EQ(batches[1].outputs.size(), 2u);
      EXPECT_EQ(batches[1].outputs[1].id, 1u);
      EXPECT_EQ(batches[1].outputs[1].batch_time, at(1002));
      EXPECT_EQ(batches[1].outputs[1].name, "every other second");
    }
    EXPECT_EQ(diary->started.all()[1].outputs[1].start_time, std::nullopt);
    EXPECT_NE(diary->batches.all()[1].outputs[1].end_time, std::nullopt);
    rig.ssc.stop();
  }
}

TEST(Listener, HearsThatAFailedBatchIsCompletedAndWhy) {  // E3, E4
  Rig rig;
  const auto diary = keep_diary(rig.ssc);
  const auto stream = rig.ssc.receiver_stream(std::make_shared<Feed<int>>());
  stream.foreach_batch([](const auto&) { throw std::runtime_error{"no connection to the shop"}; }, "shop");
  stream.foreach_batch([](const auto&) {}, "fine");
  rig.ssc.start(Drive::by_host);
  rig.pass(1s);
  ASSERT_EQ(diary->batches.size(), 1u);
  const auto outputs = diary->batches.all()[0].outputs;
  ASSERT_EQ(outputs.size(), 2u);
  ASSERT_TRUE(outputs[0].failure_reason.has_value());
  EXPECT_THAT(*outputs[0].failure_reason, HasSubstr("no connection to the shop"));
  EXPECT_EQ(outputs[1].failure_reason, std::nullopt);
}

TEST(Listener, HearsThatABatchWhichIsTriedAgainEndsWithItsLastAttempt) {  // E2
  const auto clock = std::make_shared<ManualClock>();
  const Context context{{.app_name = "engine-test",
                         .parallelism = 1,
                         .executor = nullptr,
                         .clock = clock,
                         .log = nullptr,
                         .fs = std::make_shared<testing::SimFs>()}};
  StreamingContext ssc{context, 1s};
  ssc.checkpoint("checkpoint");
  const auto diary = keep_diary(ssc);
  const auto stream = ssc.receiver_stream(std::make_shared<Feed<int>>());
  int attempts = 0;
  stream.foreach_batch([&](const auto&) {
    clock->advance(100ms);
    if (++attempts == 1) throw std::runtime_error{"no connection to the shop"};
  });
  stream.foreach_batch([&](const auto&) { clock->advance(100ms); });
  ssc.start(Drive::by_host);
  clock->advance(1s);
  EXPECT_TRUE(ssc.step());
  ASSERT_EQ(diary->batches.size(), 1u);
  const BatchInfo batch = diary->batches.all()[0];
  ASSERT_EQ(batch.outputs.size(), 2u);
  EXPECT_EQ(batch.processing_start_time, at(1001));
  EXPECT_EQ(batch.outputs[1].end_time, at(1001.2));
  EXPECT_EQ(batch.outputs[0].start_time, at(1001.2));
  EXPECT_EQ(batch.outputs[0].failure_reason, std::nullopt);
  EXPECT_EQ(batch.processing_end_time, at(1001.3));
}

TEST(Listener, HearsOfReceiversWhatTheySayOnTheirOwnThreads) {  // E1, EN6
  Rig rig;
  const auto diary = keep_diary(rig.ssc);
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed, {.name = "feed"}));
  rig.ssc.start(Drive::by_host);
  std::thread{[&] {
    feed->report_error("lost a packet", std::make_exception_ptr(std::runtime_error{"checksum"}));
  }}.join();
  EXPECT_EQ(diary->lines.size(), 0u) << "all events come from the thread that drives";
  rig.ssc.step();
  EXPECT_THAT(diary->lines.all(), ElementsAre("streaming started 1000000 ms", "receiver started feed",
                                              "receiver error feed: lost a packet: checksum"));
  EXPECT_EQ(rig.ssc.metrics().receiver_errors, 1u);
}

TEST(Listener, HearsAReceiverAtOnceFromAThreadOfTheEngine) {
  Rig rig;
  const auto diary = keep_diary(rig.ssc);
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start();
  ASSERT_TRUE(diary->lines.wait_for(2));
  feed->report_error("odd");
  EXPECT_TRUE(diary->lines.wait_for(3)) << "without waiting for the next batch";
}

struct Throwing final : StreamingListener {
  void on_batch_submitted(const BatchInfo&) override { throw std::runtime_error{"a listener's mistake"}; }
  void on_batch_completed(const BatchInfo&) override { throw 7; }
};

TEST(Listener, ThatThrowsIsLoggedAndHarmsNobody) {
  Rig rig;
  rig.ssc.add_listener(std::make_shared<Throwing>());
  const auto diary = keep_diary(rig.ssc);
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  rig.ssc.start(Drive::by_host);
  rig.pass(1s);
  EXPECT_EQ(seen->size(), 1u);
  EXPECT_EQ(diary->batches.size(), 1u) << "the next listener hears all the same";
  EXPECT_TRUE(rig.log.says("error", "a listener's mistake"));
  EXPECT_FALSE(rig.ssc.await_termination_or_timeout(0s)) << "and it is no error of the stream";
}

TEST(Listener, MayBeAddedAndRemovedWhileTheContextRuns) {  // C16
  Rig rig;
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  rig.ssc.start(Drive::by_host);
  rig.pass(1s);
  const auto diary = keep_diary(rig.ssc);
  rig.pass(1s);
  rig.ssc.remove_listener(diary);
  rig.pass(1s);
  ASSERT_EQ(diary->batches.size(), 1u);
  EXPECT_EQ(diary->batches.all()[0].batch_time, at(1002));
  EXPECT_THAT(message_of<ConfigError>([&] { rig.ssc.add_listener(nullptr); }), HasSubstr("null"));
}

TEST(Metrics, CountBatchesAndRecords) {  // E6
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  const auto queue = std::make_shared<BatchQueue<int>>();
  auto of_feed = record(rig.ssc.receiver_stream(feed));
  auto of_queue = record(rig.ssc.queue_stream(queue).map([](int i) {
    if (i < 0) throw std::runtime_error{"negative"};
    return i;
  }));
  StreamingMetrics metrics = rig.ssc.metrics();
  EXPECT_EQ(metrics.receivers, 1u) << "a queue is no receiver";
  EXPECT_EQ(metrics.last_received_batch, std::nullopt);
  EXPECT_EQ(metrics.last_completed_batch, std::nullopt);
  EXPECT_EQ(metrics.waiting_batches, 0u) << "not started yet";

  rig.ssc.start(Drive::by_host);
  feed->put_all({1, 2});
  queue->push(std::vector<int>{-1, 2, 3});
  rig.clock->advance(3s);
  EXPECT_EQ(rig.ssc.metrics().waiting_batches, 3u);
  EXPECT_EQ(rig.ssc.metrics().unprocessed_batches, 3u);
  EXPECT_TRUE(rig.ssc.step());
  metrics = rig.ssc.metrics();
  EXPECT_EQ(metrics.total_completed_batches, 1u);
  EXPECT_EQ(metrics.total_failed_batches, 1u);
  EXPECT_EQ(metrics.total_received_records, 5u);
  EXPECT_EQ(metrics.total_processed_records, 5u);
  EXPECT_EQ(metrics.waiting_batches, 2u);
  EXPECT_EQ(metrics.running_batches, 0u);
  ASSERT_TRUE(metrics.last_completed_batch.has_value());
  EXPECT_EQ(metrics.last_completed_batch->batch_time, at(1001));
  EXPECT_EQ(metrics.last_completed_batch->num_records(), 5u);
  rig.pass(0s);
  metrics = rig.ssc.metrics();
  EXPECT_EQ(metrics.total_completed_batches, 3u);
  EXPECT_EQ(metrics.total_failed_batches, 1u);
  EXPECT_EQ(metrics.unprocessed_batches, 0u);
}

TEST(Metrics, ShowWhatWasReceivedLastAlsoWhenItNeverHadAJob) {  // E6
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed).transform([](const Batch<int>& batch, Time t) {
    if (t == at(1002)) throw std::runtime_error{"no reference data"};
    return batch;
  }));
  rig.ssc.start(Drive::by_host);
  feed->put_all({1, 2});
  rig.pass(1s);
  StreamingMetrics metrics = rig.ssc.metrics();
  ASSERT_TRUE(metrics.last_received_batch.has_value());
  EXPECT_EQ(metrics.last_received_batch->batch_time, at(1001));
  EXPECT_EQ(metrics.last_received_batch->processing_delay(), 0s) << "it is completed";
  feed->put(3);
  rig.pass(1s);
  metrics = rig.ssc.metrics();
  EXPECT_EQ(metrics.last_completed_batch->batch_time, at(1001));
  EXPECT_EQ(metrics.last_received_batch->batch_time, at(1002));
  EXPECT_EQ(metrics.last_received_batch->num_records(), 1u);
  EXPECT_EQ(metrics.last_received_batch->processing_start_time, std::nullopt);
}

TEST(Metrics, ShowTheRunningBatchToOtherThreads) {  // E6
  Rig rig;
  Door running;
  Door go_on;
  rig.ssc.receiver_stream(std::make_shared<Feed<int>>()).foreach_batch([&](const auto&) {
    running.open();
    EXPECT_TRUE(go_on.wait());
  });
  rig.ssc.start();
  rig.clock->advance(2s);
  ASSERT_TRUE(running.wait());
  const StreamingMetrics metrics = rig.ssc.metrics();
  EXPECT_EQ(metrics.running_batches, 1u);
  EXPECT_EQ(metrics.waiting_batches, 1u);
  EXPECT_EQ(metrics.unprocessed_batches, 2u);
  go_on.open();
  rig.ssc.stop();
  EXPECT_EQ(rig.ssc.metrics().running_batches, 0u);
}

TEST(StatsReport, LogsTheDistributionEverySoManyBatches) {  // E5
  Log log;
  StatsReportListener report{log.logger(), 4};
  for (int i = 1; i <= 7; ++i) {
    BatchInfo batch;
    batch.submission_time = at(1000);
    batch.processing_start_time = at(1001);
    batch.processing_end_time = at(1001) + i * 10ms;
    report.on_batch_completed(batch);
    EXPECT_EQ(log.lines().size(), i < 4 ? 0u : 2u) << "after batch " << i;
  }
  EXPECT_THAT(log.lines()[0], HasSubstr("processing time of 4 batches: min 10 ms"));
  EXPECT_THAT(log.lines()[0], HasSubstr("max 40 ms"));
  EXPECT_THAT(log.lines()[1], HasSubstr("total delay of 4 batches: min 1010 ms"));
  EXPECT_THROW(StatsReportListener(log.logger(), 0), ConfigError);
  EXPECT_THROW(StatsReportListener(nullptr), ConfigError);
}

}  // namespace
}  // namespace tidemill
