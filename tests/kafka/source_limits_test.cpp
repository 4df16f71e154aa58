// How much of Kafka a batch takes and how much waits for one: rates, lag, the memory bound; and what the group is told.
#include "kafka/harness.hpp"

namespace tidemill::source_limits_test {
namespace {

using namespace testing_kafka;
using ::testing::ElementsAre;
using Sizes = std::vector<std::size_t>;

// How many records of each partition the last batch had.
Sizes last_sizes(const Life& life) {
  Sizes sizes;
  for (const KafkaOffsetRange& range : life.ranges.rbegin()->second)
    sizes.push_back(static_cast<std::size_t>(range.until - range.from));
  return sizes;
}

// Two partitions of "words" with so many records each.
void fill(MockKafka& kafka, int first, int second) {
  kafka.create_topic("words", 2);
  kafka.produce("words", 0, numbers(0, first));
  kafka.produce("words", 1, numbers(0, second));
}

// ---- rates ----------------------------------------------------------------------------------------------------------

TEST(KafkaRates, MaxRateBoundsWhatABatchTakesOfEachPartition) {
  MockKafka kafka;
  fill(kafka, 25, 4);
  KafkaSource source = source_of(kafka, {"words"});
  source.max_rate_per_partition = 10;
  Life life{std::move(source)};
  life.start();
  ASSERT_TRUE(life.pass_with(29));
  EXPECT_THAT(last_sizes(life), ElementsAre(10, 4));
  life.pass();
  EXPECT_THAT(last_sizes(life), ElementsAre(10, 0));
  life.pass();
  EXPECT_THAT(last_sizes(life), ElementsAre(5, 0));
  EXPECT_EQ(life.values().size(), 29u);
}

TEST(KafkaRates, WithoutAnIntervalTheRateGoesByTheClock) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  kafka.produce("words", 0, numbers(0, 5));
  KafkaSource source = source_of(kafka, {"words"});
  source.max_rate_per_partition = 2;
  Life life{std::move(source), {.on_arrival = true}};
  life.start();
  ASSERT_TRUE(await([&] { return life.input->buffered_records() == 5 && life.ssc->next_batch_time(); }));
  const auto run = [&] {
    while (life.ssc->step()) {
    }
    return life.values().size();
  };
  EXPECT_EQ(run(), 2u) << "a second's worth";
  life.clock->advance(400ms);
  EXPECT_EQ(run(), 2u);
  life.clock->advance(200ms);
  EXPECT_EQ(run(), 3u) << "half a second has let in one more";
  life.clock->advance(10s);
  EXPECT_EQ(run(), 5u);
}

TEST(KafkaRates, ABatchMayTakeSoManyRecordsHoweverLowTheRate) {
  MockKafka kafka;
  fill(kafka, 12, 12);
  KafkaSource source = source_of(kafka, {"words"});
  source.max_rate_per_partition = 0.5;
  source.min_records_per_partition = 5;
  Life life{std::move(source)};
  life.start();
  ASSERT_TRUE(life.pass_with(24));
  EXPECT_THAT(last_sizes(life), ElementsAre(5, 5));
  life.pass();
  EXPECT_THAT(last_sizes(life), ElementsAre(5, 5));
}

TEST(KafkaRates, BackpressureIsSharedAmongThePartitionsByTheirLag) {
  MockKafka kafka;
  fill(kafka, 300, 100);
  KafkaSource source = source_of(kafka, {"words"});
  source.max_rate_per_partition = 45;
  // Under a clock that stands still while a batch runs there is no estimate, and the first rate stays.
  Life life{std::move(source), {.streaming = {.backpressure = Backpressure{.initial_rate = 40}}}};
  life.start();
  ASSERT_TRUE(life.pass_with(400));
  EXPECT_THAT(last_sizes(life), ElementsAre(30, 10));
  life.pass();
  EXPECT_THAT(last_sizes(life), ElementsAre(30, 10));
  EXPECT_EQ(life.infos.back().lag, 320u);

  life.input->limit_rate(8);
  life.pass();
  EXPECT_THAT(last_sizes(life), ElementsAre(6, 2));
  life.input->limit_rate(120);
  life.pass();
  EXPECT_THAT(last_sizes(life), ElementsAre(45, 30)) << "of 90 and 30 the first is more than the partition's own rate";
}

TEST(KafkaRates, APartitionThatItsRateHoldsBackLeavesRoomForOthers) {
  MockKafka kafka;
  kafka.create_topic("words", 2);
  kafka.produce("words", 0, numbers(0, 5, 100));
  KafkaSource source = source_of(kafka, {"words"});
  source.max_buffered_bytes = std::size_t{1} << 20;  // less than that
  Life other{source};
  source.max_rate_per_partition = 5;
  Life life{source};
  life.start();
  ASSERT_TRUE(life.pass_with(5));  // from now on it knows what a batch takes
  kafka.produce("words", 0, numbers(5, 20'000, 100));
  ASSERT_TRUE(await([&] { return life.input->buffered_bytes() >= source.max_buffered_bytes / 4; }));
  other.start();  // without a rate: gets all of it meanwhile
  ASSERT_TRUE(other.pass_until(20'000));
  const std::size_t waiting = life.input->buffered_records();
  kafka.produce("words", 1, numbers(0, 5));
  EXPECT_TRUE(await([&] { return life.input->buffered_records() == waiting + 5; }));
  life.pass();
  EXPECT_THAT(last_sizes(life), ElementsAre(5, 5));
}

// ---- lag ------------------------------------------------------------------------------------------------------------

TEST(KafkaLag, IsWhatTheBrokersHoldBeyondTheBatch) {
  MockKafka kafka;
  fill(kafka, 20, 5);
  KafkaSource source = source_of(kafka, {"words"});
  source.max_rate_per_partition = 10;
  Life life{std::move(source)};
  life.start();
  life.ssc->step();
  ASSERT_TRUE(life.pass_with(25));
  EXPECT_EQ(life.infos.back().lag, 10u);
  const StreamingMetrics metrics = life.ssc->metrics();
  ASSERT_TRUE(metrics.last_completed_batch);
  EXPECT_EQ(metrics.last_completed_batch->inputs.at(0).lag, 10u);
  life.pass();
  EXPECT_EQ(life.infos.back().lag, 0u);
}

TEST(KafkaLag, IsAbsentUntilABrokerHasToldIt) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  kafka.set_down();
  Life life{source_of(kafka, {"words"})};
  life.start();
  life.pass();
  EXPECT_EQ(life.infos.back().lag, std::nullopt);
}

// ---- memory ---------------------------------------------------------------------------------------------------------

// [KF4] Of 4 MB, 1 MiB may wait, and what one read brings.
TEST(KafkaMemory, FetchingPausesAtTheBoundAndGoesOnBehindIt) {
  constexpr int partitions = 4;
  constexpr int each = 100;
  constexpr std::size_t bound = std::size_t{1} << 20;
  MockKafka kafka;
  kafka.create_topic("words", partitions);
  for (int p = 0; p < partitions; ++p) kafka.produce("words", p, numbers(0, each, 10'000));
  KafkaSource source = source_of(kafka, {"words"});
  source.max_buffered_bytes = bound;
  source.settings.emplace_back("fetch.max.bytes", "1000000");
  source.settings.emplace_back("message.max.bytes", "1000000");
  Life life{source};
  life.start();
  ASSERT_TRUE(await([&] { return life.input->buffered_bytes() >= bound; }));
  // One like it that begins only now, and whose batches take what comes, gets all of it meanwhile.
  Life other{source};
  other.start();
  ASSERT_TRUE(other.pass_until(std::size_t{partitions} * each));
  constexpr std::size_t one_read = 1'000'000 + bound / 4 + 100'000;  // a fetch, and what else waits in librdkafka
  EXPECT_LT(life.input->buffered_bytes(), bound + one_read);
  ASSERT_TRUE(life.pass_until(std::size_t{partitions} * each));
  EXPECT_EQ(life.values().size(), std::size_t{partitions} * each);
}

// ---- the group ------------------------------------------------------------------------------------------------------

class KafkaCommits : public ::testing::Test {
 protected:
  KafkaCommits() {
    kafka.create_topic("words", 1);
    source = source_of(kafka, {"words"});
    source.group_id = "watched";
    source.commit_offsets = true;
  }
  [[nodiscard]] std::optional<std::int64_t> committed() { return kafka.committed(source.group_id, "words", 0); }

  MockKafka kafka;
  KafkaSource source;
};

TEST_F(KafkaCommits, HearsWhatWasWorkedOnAndNeverMore) {
  for (const bool has_checkpoint : {false, true}) {
    source.group_id = has_checkpoint ? "watched" : "watched too";
    Life life{source, {.disk = has_checkpoint ? new_disk() : nullptr}};
    life.start();
    std::vector<std::int64_t> ahead;
    life.on_batch = [&](const std::vector<KafkaOffsetRange>& ranges) {
      if (!ranges.empty() && committed().value_or(0) > ranges[0].from) ahead.push_back(ranges[0].from);
    };
    std::int64_t end = 0;
    for (int batch = 0; batch < 4; ++batch) {
      kafka.produce("words", 0, numbers(0, 3));
      end = kafka.offsets("words", 0).second;
      ASSERT_TRUE(life.pass_with(3));
    }
    ASSERT_TRUE(await([&] { return committed() >= end - 3; })) << "that of the batch before the last";
    static_cast<void>(life.ssc->stop());
    if (!has_checkpoint) {
      EXPECT_EQ(committed(), end);  // with one, the last may become durable when the inputs have gone
    }
    EXPECT_THAT(ahead, ElementsAre());
  }
}

TEST_F(KafkaCommits, DoesNotHearOfABatchThatFailed) {
  Life life{source, {.disk = new_disk()}};
  life.start();
  kafka.produce("words", 0, numbers(0, 3));
  ASSERT_TRUE(life.pass_with(3));
  life.on_batch = [](const auto&) { throw std::runtime_error("no"); };
  kafka.produce("words", 0, numbers(3, 5));
  ASSERT_TRUE(life.pass_with(2));
  while (life.ssc->step()) {
  }
  ASSERT_EQ(life.ssc->state(), StreamingState::stopped);
  life.ssc.reset();
  life.input.reset();  // and with it the client, which has sent what it had to
  EXPECT_EQ(committed(), 3);
}

TEST_F(KafkaCommits, HearsNothingUnlessItIsAsked) {
  source.commit_offsets = false;
  kafka.produce("words", 0, numbers(0, 3));
  Life life{source};
  life.start();
  ASSERT_TRUE(life.pass_with(3));
  life.pass();
  static_cast<void>(life.ssc->stop());
  EXPECT_EQ(committed(), std::nullopt);
}

TEST_F(KafkaCommits, ThatCannotBeToldIsAnErrorForTheListener) {
  constexpr std::int16_t offset_commit = 8;
  const std::vector<int> errors(1, RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED);
  kafka.fail_requests(offset_commit, errors);
  kafka.produce("words", 0, numbers(0, 3));
  Life life{source};
  life.start();
  ASSERT_TRUE(life.pass_with(3));
  life.pass();
  EXPECT_TRUE(life.is_told("offsets could not be committed to the consumer group: "));
}

}  // namespace
}  // namespace tidemill::source_limits_test
