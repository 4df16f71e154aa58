// Streams from queues, and the constant one. SEMANTICS C13, I7, I8.
#include "engine/harness.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;

template <class T>
std::vector<std::vector<T>> records_of(const std::vector<Seen<T>>& batches) {
  std::vector<std::vector<T>> records;
  for (const auto& batch : batches) records.push_back(batch.records);
  return records;
}

TEST(QueueStream, GivesOneQueuedBatchAnIntervalAndEmptyOnesAfterwards) {  // I7
  Rig rig;
  const auto queue = std::make_shared<BatchQueue<int>>();
  auto seen = record(rig.ssc.queue_stream(queue));
  queue->push(std::vector<int>{1, 2});
  queue->push(rig.context.parallelize(std::vector<int>{3}));
  rig.ssc.start(Drive::by_host);
  rig.pass(3s);
  EXPECT_THAT(records_of(seen->all()), ElementsAre(ElementsAre(1, 2), ElementsAre(3), IsEmpty()));
}

TEST(QueueStream, GivesAllQueuedBatchesInOneWhenToldTo) {  // I7
  Rig rig;
  const auto queue = std::make_shared<BatchQueue<int>>();
  auto seen = record(rig.ssc.queue_stream(queue, QueueMode::all_at_once));
  queue->push(std::vector<int>{1, 2});
  queue->push(rig.context.parallelize(std::vector<int>{3}));
  queue->push(std::vector<int>{4});
  rig.ssc.start(Drive::by_host);
  rig.pass(2s);
  EXPECT_THAT(records_of(seen->all()), ElementsAre(ElementsAre(1, 2, 3, 4), IsEmpty()));
}

TEST(QueueStream, GivesTheBatchForEmptyQueuesWhenThereIsOne) {  // I7
  Rig rig;
  const auto queue = std::make_shared<BatchQueue<int>>();
  auto seen = record(
      rig.ssc.queue_stream(queue, QueueMode::one_at_a_time, std::optional{rig.context.parallelize(std::vector{7})}));
  rig.ssc.start(Drive::by_host);
  queue->push(std::vector<int>{1});
  rig.pass(2s);
  queue->push(std::vector<int>{});
  rig.pass(1s);
  EXPECT_THAT(records_of(seen->all()), ElementsAre(ElementsAre(1), ElementsAre(7), IsEmpty()))
      << "an empty batch is a batch too";
}

TEST(QueueStream, CountsWhatItGives) {  // E2
  Rig rig;
  const auto queue = std::make_shared<BatchQueue<int>>();
  auto seen = record(rig.ssc.queue_stream(queue));
  rig.ssc.start(Drive::by_host);
  queue->push(std::vector<int>{1, 2, 3});
  rig.pass(1s);
  EXPECT_EQ(rig.ssc.metrics().last_completed_batch->num_records(), 3u);
}

TEST(QueueStream, FeedsAGateThatOpensOnArrivals) {
  Rig rig{on_arrival};
  const auto queue = std::make_shared<BatchQueue<std::string>>();
  auto seen = record(rig.ssc.queue_stream(queue));
  rig.ssc.start();
  queue->push(std::vector<std::string>{"now"});
  ASSERT_TRUE(seen->wait_for(1));
  queue->push(std::vector<std::string>{"and", "again"});
  ASSERT_TRUE(seen->wait_for(2));
  EXPECT_THAT(records_of(seen->all()), ElementsAre(ElementsAre("now"), ElementsAre("and", "again")));
}

TEST(QueueStream, NeedsAQueue) {
  Rig rig;
  EXPECT_THROW((void)rig.ssc.queue_stream(std::shared_ptr<BatchQueue<int>>{}), ConfigError);
}

TEST(ConstantStream, GivesTheSameBatchEveryInterval) {  // I8
  Rig rig;
  auto seen = record(rig.ssc.constant_stream(rig.context.parallelize(std::vector{1, 2})));
  rig.ssc.start(Drive::by_host);
  rig.pass(2s);
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {1, 2}}, Seen<int>{at(1002), {1, 2}}));
}

}  // namespace
}  // namespace tidemill
