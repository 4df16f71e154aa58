// The gate that opens on arrivals: a lone record is worked on at once, a burst becomes a batch.
#include <numeric>

#include "engine/harness.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;

TEST(OnArrival, WaitsUntilSomethingArrives) {
  Rig rig{on_arrival};
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  rig.ssc.start(Drive::by_host);
  rig.clock->advance(1h);
  EXPECT_FALSE(rig.ssc.step());
  EXPECT_EQ(rig.ssc.next_batch_time(), std::nullopt);
  EXPECT_EQ(rig.ssc.metrics().waiting_batches, 0u);
}

TEST(OnArrival, ALoneRecordIsABatchAtOnceStampedByTheClock) {
  Rig rig{on_arrival};
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start(Drive::by_host);
  rig.clock->set(at(1000.123));
  feed->put(7);
  EXPECT_EQ(rig.ssc.metrics().waiting_batches, 1u);
  EXPECT_EQ(rig.ssc.next_batch_time(), at(1000.123));
  EXPECT_TRUE(rig.ssc.step());
  EXPECT_FALSE(rig.ssc.step());
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1000.123), {7}}));
}

TEST(OnArrival, ABurstIsOneBatch) {
  Rig rig{on_arrival};
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start(Drive::by_host);
  for (int i = 0; i < 5; ++i) {
    feed->put(i);
    rig.clock->advance(1ms);
  }
  EXPECT_TRUE(rig.ssc.step());
  EXPECT_FALSE(rig.ssc.step());
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1000.005), {0, 1, 2, 3, 4}}));
}

TEST(OnArrival, BatchTimesAreUniqueAndIncreasingWhileTheClockStands) {  // EN1
  Rig rig{on_arrival};
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start(Drive::by_host);
  for (int i = 0; i < 3; ++i) {
    feed->put(i);
    EXPECT_TRUE(rig.ssc.step());
  }
  const auto batches = seen->all();
  ASSERT_EQ(batches.size(), 3u);
  EXPECT_GT(batches[0].time, at(1000)) << "nothing is generated at the zero time";
  EXPECT_EQ(batches[1].time, batches[0].time + 1us);
  EXPECT_EQ(batches[2].time, batches[1].time + 1us);
}

TEST(OnArrival, MaxBatchRecordsCutsABurstOfSingleRecords) {
  Rig rig{OnArrival{.max_batch_records = 3}};
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start(Drive::by_host);
  rig.clock->advance(1ms);
  for (int i = 0; i < 8; ++i) feed->put(i);
  EXPECT_EQ(rig.pass(0s), 3u) << "the rest follows at once";
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1000.001), {0, 1, 2}}, Seen<int>{at(1000.001001), {3, 4, 5}},
                                       Seen<int>{at(1000.001002), {6, 7}}));
}

TEST(OnArrival, MaxBatchRecordsCutsBlocksAndQueuedVectors) {
  Rig rig{OnArrival{.max_batch_records = 4}};
  const auto feed = std::make_shared<Feed<int>>();
  const auto queue = std::make_shared<BatchQueue<int>>();
  auto blocks = record(rig.ssc.receiver_stream(feed));
  auto queued = record(rig.ssc.queue_stream(queue));
  rig.ssc.start(Drive::by_host);
  feed->put_all({0, 1, 2, 3, 4, 5});
  feed->put_all({6, 7, 8});
  queue->push(std::vector<int>{10, 11, 12, 13, 14, 15});
  EXPECT_EQ(rig.pass(1ms), 3u);
  std::vector<std::vector<int>> of_blocks;
  std::vector<std::vector<int>> of_queue;
  for (const auto& batch : blocks->all()) of_blocks.push_back(batch.records);
  for (const auto& batch : queued->all()) of_queue.push_back(batch.records);
  EXPECT_THAT(of_blocks, ElementsAre(ElementsAre(0, 1, 2, 3), ElementsAre(4, 5, 6, 7), ElementsAre(8)))
      << "the limit is for each input";
  EXPECT_THAT(of_queue, ElementsAre(ElementsAre(10, 11, 12, 13), ElementsAre(14, 15), IsEmpty()));
}

TEST(OnArrival, MinIntervalKeepsBatchesApart) {
  Rig rig{OnArrival{.min_interval = 10ms}};
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start(Drive::by_host);
  rig.clock->set(at(1000.1));
  feed->put(1);
  EXPECT_TRUE(rig.ssc.step()) << "the last batch is long ago";
  feed->put(2);
  EXPECT_EQ(rig.ssc.next_batch_time(), at(1000.11));
  rig.clock->set(at(1000.109));
  feed->put(3);
  EXPECT_FALSE(rig.ssc.step());
  rig.clock->set(at(1000.11));
  EXPECT_TRUE(rig.ssc.step());
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1000.1), {1}}, Seen<int>{at(1000.11), {2, 3}}));
}

TEST(OnArrival, MinIntervalIsKeptByTheOwnThreadToo) {
  Rig rig{OnArrival{.min_interval = 10ms}};
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start();
  rig.clock->set(at(1000.1));
  feed->put(1);
  ASSERT_TRUE(seen->wait_for(1));
  feed->put(2);
  rig.clock->set(at(1000.2));
  ASSERT_TRUE(seen->wait_for(2));
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1000.1), {1}}, Seen<int>{at(1000.2), {2}}));
}

TEST(OnArrival, WhatComesWhileABatchRunsIsTheNextBatch) {
  Context context{{.app_name = "on-arrival", .parallelism = 1}};  // the system's clock, a thread of its own
  StreamingContext ssc{context, on_arrival};
  const auto feed = std::make_shared<Feed<int>>();
  const auto stream = ssc.receiver_stream(feed);
  auto seen = record(stream);
  Door running;
  Door go_on;
  stream.foreach_batch([&](const auto&, Time) {
    running.open();
    EXPECT_TRUE(go_on.wait());
  });
  ssc.start();
  feed->put(0);
  ASSERT_TRUE(running.wait());
  for (int i = 1; i <= 100; ++i) feed->put(i);
  go_on.open();
  ASSERT_TRUE(seen->wait_for(2));
  ssc.stop();
  const auto batches = seen->all();
  ASSERT_EQ(batches.size(), 2u);
  EXPECT_THAT(batches[0].records, ElementsAre(0));
  EXPECT_EQ(batches[1].records.size(), 100u);
  EXPECT_GT(batches[1].time, batches[0].time);
}

TEST(OnArrival, LosesNothingOfWhatManyThreadsFeedIt) {
  Context context{{.app_name = "on-arrival", .parallelism = 1}};
  StreamingContext ssc{context, OnArrival{.max_batch_records = 100}};
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(ssc.receiver_stream(feed));
  ssc.start();
  constexpr int each = 2000;
  std::vector<std::thread> producers;
  for (int p = 0; p < 3; ++p) {
    producers.emplace_back([&, p] {
      for (int i = 0; i < each; ++i) feed->put(p * each + i);
    });
  }
  for (auto& producer : producers) producer.join();
  EXPECT_TRUE(ssc.stop(StopMode::graceful));
  std::vector<int> records;
  Time last = Time::min();
  for (const auto& batch : seen->all()) {
    EXPECT_GT(batch.time, last);
    EXPECT_LE(batch.records.size(), 100u);
    EXPECT_FALSE(batch.records.empty()) << "there is a batch only when something has arrived";
    last = batch.time;
    records.insert(records.end(), batch.records.begin(), batch.records.end());
  }
  std::sort(records.begin(), records.end());
  std::vector<int> all(3 * each);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(records, all);
}

TEST(OnArrival, RefusesAConstantStreamAndSaysWhy) {  // I8
  Rig rig{on_arrival};
  std::string message;
  EXPECT_EQ(code_of([&] { (void)rig.ssc.constant_stream(rig.context.parallelize(std::vector{1})); }, &message),
            "needs_interval");
  EXPECT_THAT(message, HasSubstr("nothing ever arrives"));
  EXPECT_THAT(message, HasSubstr("give the context a batch interval"));
}

TEST(OnArrival, RefusesSlicesAndSaysWhy) {  // M22
  Rig rig{on_arrival};
  const auto stream = rig.ssc.receiver_stream(std::make_shared<Feed<int>>());
  auto seen = record(stream);
  rig.ssc.start(Drive::by_host);
  std::string message;
  EXPECT_EQ(code_of([&] { (void)stream.slice(at(1000), at(1001)); }, &message), "needs_interval");
  EXPECT_THAT(message, HasSubstr("give the context a batch interval"));
}

TEST(OnArrival, RefusesOptionsThatCannotBe) {
  const Context context;
  EXPECT_THAT(message_of<ConfigError>([&] {
                StreamingContext{context, OnArrival{.max_batch_records = 0}};
              }),
              HasSubstr("max_batch_records"));
  EXPECT_THAT(message_of<ConfigError>([&] {
                StreamingContext{context, OnArrival{.min_interval = -1ms}};
              }),
              HasSubstr("-1 ms"));
}

}  // namespace
}  // namespace tidemill
