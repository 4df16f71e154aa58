// What becomes of a stream when records are not there any more, when brokers are away or slow, and when they answer by errors.
// The mock keeps 5 MiB a partition and drops whole batches from its front, silently, as retention does. [F45, F46, F48]
#include "kafka/harness.hpp"

namespace tidemill::source_faults_test {
namespace {

using namespace testing_kafka;
using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Range = KafkaOffsetRange;

// So many records of 10 kB that the first ones go; returns the first offset that is left.
std::int64_t overfill(MockKafka& kafka, std::int64_t beyond = 0) {
  while (kafka.offsets("words", 0).first <= beyond) kafka.produce("words", 0, numbers(0, 300, 10'000));
  return kafka.offsets("words", 0).first;
}
std::string lost_range(std::int64_t from, std::int64_t until) {
  return "words[0] offsets " + std::to_string(from) + " to " + std::to_string(until - 1);
}
std::size_t lost(const Life& life) {
  std::size_t all = 0;
  for (const InputInfo& info : life.infos) all += info.lost;
  return all;
}
// The offsets of all records that batches had, in order.
std::vector<std::int64_t> offsets(const Life& life) {
  std::vector<std::int64_t> all;
  for (const auto& [_, records] : life.taken) {
    for (const OwnedKafkaRecord& record : records) all.push_back(record.offset);
  }
  return all;
}
KafkaSource from_first(const MockKafka& kafka) {
  KafkaSource source = source_of(kafka, {"words"});
  source.start = KafkaStart::from({{{"words", 0}, 0}});
  return source;
}

// ---- lost data: F48 -------------------------------------------------------------------------------------------------

TEST(KafkaDataLoss, StopsAFreshRunAndNamesTheOffsets) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  const std::int64_t first = overfill(kafka);
  Life life{from_first(kafka)};
  life.start();
  ASSERT_TRUE(life.is_told(lost_range(0, first)));
  EXPECT_THAT(life.failure(), HasSubstr("kafka_data_loss: "));
  EXPECT_THAT(life.failure(), HasSubstr(lost_range(0, first) + " are not there any more"));
  EXPECT_THAT(life.failure(), HasSubstr("KafkaSource::fail_on_data_loss")) << "the way out";
  EXPECT_TRUE(life.taken.empty()) << "no batch was cut";
}

TEST(KafkaDataLoss, IsLeftOutReportedAndCountedWhenItIsAllowed) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  const std::int64_t first = overfill(kafka);
  KafkaSource source = from_first(kafka);
  source.fail_on_data_loss = false;
  Life life{std::move(source)};
  life.start();
  ASSERT_TRUE(life.is_told(lost_range(0, first) + " are not there any more; left out"));
  ASSERT_TRUE(life.pass_until(static_cast<std::size_t>(kafka.offsets("words", 0).second - first)));
  EXPECT_EQ(lost(life), static_cast<std::size_t>(first));
  EXPECT_EQ(offsets(life).front(), first);
}

// A stream that is slower than the retention. What it had fetched before is still worked on.
TEST(KafkaDataLoss, InTheMiddleOfARun) {
  for (const bool stops : {true, false}) {
    MockKafka kafka;
    kafka.create_topic("words", 1);
    kafka.produce("words", 0, numbers(0, 300, 10'000));
    KafkaSource source = from_first(kafka);
    source.max_buffered_bytes = std::size_t{1} << 20;
    source.settings.emplace_back("fetch.max.bytes", "1000000");
    source.settings.emplace_back("message.max.bytes", "1000000");
    source.fail_on_data_loss = stops;
    Life life{std::move(source)};
    life.start();
    ASSERT_TRUE(await([&] { return life.input->buffered_bytes() >= std::size_t{1} << 20; }));
    const std::int64_t first = overfill(kafka, 299);  // beyond everything that can have been fetched
    const std::int64_t end = kafka.offsets("words", 0).second;
    ASSERT_TRUE(await([&] {
      if (life.input->buffered_records() != 0) life.pass();
      return life.has_said(" are not there any more");
    }));
    if (stops) {
      ASSERT_TRUE(await([&] {
        life.pass();
        return life.failure() != "none";
      }));
    } else {
      ASSERT_TRUE(await([&] {
        if (life.input->buffered_records() != 0) life.pass();
        return offsets(life).back() == end - 1;
      }));
    }
    std::int64_t next = 0;
    for (const std::int64_t offset : offsets(life)) {
      if (offset != next) {
        EXPECT_EQ(offset, first) << "there is one gap, and it ends here";
        EXPECT_TRUE(life.is_told(lost_range(next, first)));
        EXPECT_EQ(lost(life), static_cast<std::size_t>(first - next));
      }
      next = offset + 1;
    }
    if (stops) {
      EXPECT_GE(next, 100);
      EXPECT_THAT(life.failure(), HasSubstr(lost_range(next, first)));
    } else {
      EXPECT_EQ(next, end);
    }
  }
}

// A program that was killed in its first batch, which had the first three records.
std::shared_ptr<SimFs> killed_at_three(MockKafka& kafka) {
  kafka.create_topic("words", 1);
  kafka.produce("words", 0, numbers(0, 3));
  Life life{source_of(kafka, {"words"}), {.disk = new_disk()}};
  life.start();
  EXPECT_TRUE(life.pass_with(3));
  return life.killed;
}

TEST(KafkaDataLoss, StopsARestartWhoseRangesAreGone) {
  MockKafka kafka;
  const std::shared_ptr<SimFs> killed = killed_at_three(kafka);
  const std::int64_t first = overfill(kafka, 3);
  Life life{source_of(kafka, {"words"}), {.disk = killed, .now = Time{1001s}}};
  life.start();
  while (life.ssc->step()) {
  }
  EXPECT_THAT(life.failure(), HasSubstr("kafka_data_loss: "));
  EXPECT_THAT(life.failure(), HasSubstr(lost_range(0, first)));
  EXPECT_EQ(life.ssc->state(), StreamingState::stopped);
  EXPECT_TRUE(life.taken.empty());
}

TEST(KafkaDataLoss, IsLeftOutOfABatchThatIsRunAgain) {
  MockKafka kafka;
  const std::shared_ptr<SimFs> killed = killed_at_three(kafka);
  const std::int64_t first = overfill(kafka, 3);
  KafkaSource source = source_of(kafka, {"words"});
  source.fail_on_data_loss = false;
  Life life{std::move(source), {.disk = killed, .now = Time{1001s}}};
  life.start();
  while (life.ssc->step()) {
  }
  ASSERT_FALSE(life.taken.empty());
  EXPECT_THAT(life.ranges.begin()->second, ElementsAre(Range{"words", 0, 0, 3})) << "the batch keeps its range";
  EXPECT_THAT(life.taken.begin()->second, ElementsAre()) << "of which nothing is left";
  ASSERT_TRUE(life.pass_until(static_cast<std::size_t>(kafka.offsets("words", 0).second - first)));
  EXPECT_EQ(lost(life), static_cast<std::size_t>(first));
  EXPECT_EQ(offsets(life).front(), first);
  EXPECT_EQ(life.failure(), "none");
}

// Another cluster takes the place of the first: the topic begins anew.
TEST(KafkaDataLoss, IsATopicThatWasMadeAnew) {
  for (const bool stops : {true, false}) {
    std::shared_ptr<SimFs> disk = new_disk();
    {
      MockKafka kafka;
      kafka.create_topic("words", 1);
      kafka.produce("words", 0, numbers(0, 5));
      Life life{source_of(kafka, {"words"}), {.disk = disk}};
      life.start();
      ASSERT_TRUE(life.pass_with(5));
      life.pass();
      static_cast<void>(life.ssc->stop());
    }
    MockKafka kafka;
    kafka.create_topic("words", 1);
    kafka.produce("words", 0, numbers(50, 52));
    KafkaSource source = source_of(kafka, {"words"});
    source.fail_on_data_loss = stops;
    Life life{std::move(source), {.disk = disk, .now = Time{1010s}}};
    life.start();
    while (life.ssc->step()) {
    }
    ASSERT_TRUE(life.is_told(lost_range(2, 5) + " were there and are not: the topic was made anew"));
    if (stops) {
      EXPECT_THAT(life.failure(), HasSubstr(lost_range(2, 5)));
      EXPECT_TRUE(life.values().empty());
    } else {
      kafka.produce("words", 0, numbers(52, 54));
      ASSERT_TRUE(life.pass_until(2));
      EXPECT_EQ(life.values(), texts(52, 54));
      EXPECT_EQ(lost(life), 3u);
    }
  }
}

TEST(KafkaDataLoss, IsABatchToBeRunAgainOfATopicThatWasMadeAnew) {
  for (const int left : {0, 2}) {
    std::shared_ptr<SimFs> killed;
    {
      MockKafka kafka;
      killed = killed_at_three(kafka);
    }
    MockKafka kafka;
    kafka.create_topic("words", 1);
    if (left != 0) kafka.produce("words", 0, numbers(0, left));
    KafkaSource source = source_of(kafka, {"words"});
    source.stall_timeout = 1s;  // an end that comes too soon may be a broker that has not caught up
    {
      Life life{source, {.disk = killed->copy(1), .now = Time{1001s}}};
      life.start();
      while (life.ssc->step()) {
      }
      EXPECT_THAT(life.failure(), HasSubstr("kafka_data_loss: "));
      EXPECT_THAT(life.failure(), HasSubstr(lost_range(left, 3) + " were there and are not"));
    }
    source.fail_on_data_loss = false;
    Life life{source, {.disk = killed->copy(1), .now = Time{1001s}}};
    life.start();
    while (life.ssc->step()) {
    }
    EXPECT_EQ(life.failure(), "none");
    EXPECT_EQ(life.values(), texts(0, left));
    EXPECT_EQ(lost(life), static_cast<std::size_t>(3 - left));
    kafka.produce("words", 0, numbers(left, left + 2));
    ASSERT_TRUE(life.pass_until(static_cast<std::size_t>(left + 2)));
    EXPECT_EQ(life.values(), texts(0, left + 2)) << "it goes on where the new topic ended";
  }
}

// ---- outages: F45, F46 ----------------------------------------------------------------------------------------------

TEST(KafkaOutage, IsReportedAndNothingIsLostOrDoubled) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  kafka.produce("words", 0, numbers(0, 3));
  Life life{source_of(kafka, {"words"})};
  life.start();
  ASSERT_TRUE(life.pass_with(3));
  kafka.set_down();
  ASSERT_TRUE(life.is_told("ALL_BROKERS_DOWN"));
  EXPECT_TRUE(life.last().empty()) << "batches go on without records";
  kafka.set_up();
  kafka.produce("words", 0, numbers(3, 6));
  ASSERT_TRUE(life.pass_until(6));
  EXPECT_EQ(life.values(), texts(0, 6));
}

TEST(KafkaOutage, ABatchThatIsRunAgainWaitsForBrokersThatComeBack) {
  MockKafka kafka;
  const std::shared_ptr<SimFs> killed = killed_at_three(kafka);
  kafka.set_down();
  Life life{source_of(kafka, {"words"}), {.disk = killed, .now = Time{1001s}}};
  life.start();
  std::thread repair{[&] {
    EXPECT_TRUE(await([&] { return life.has_said("ALL_BROKERS_DOWN"); }));
    kafka.set_up();
  }};
  while (life.ssc->step()) {
  }
  repair.join();
  EXPECT_EQ(life.failure(), "none");
  EXPECT_EQ(life.values(), texts(0, 3));
}

TEST(KafkaOutage, ALeaderThatMovesIsFollowed) {
  MockKafka kafka{2};
  kafka.create_topic("words", 1);
  kafka.set_leader("words", 0, 1);
  kafka.produce("words", 0, numbers(0, 3));
  Life life{source_of(kafka, {"words"})};
  life.start();
  ASSERT_TRUE(life.pass_with(3));
  kafka.set_leader("words", 0, 2);
  kafka.set_down(1);
  kafka.produce("words", 0, numbers(3, 6));
  ASSERT_TRUE(life.pass_until(6));
  EXPECT_EQ(life.values(), texts(0, 6));
}

TEST(KafkaOutage, SlowBrokersOnlyMakeRecordsLate) {
  MockKafka kafka;
  kafka.create_topic("words", 2);
  kafka.produce("words", 0, numbers(0, 3));
  kafka.produce("words", 1, numbers(3, 6));
  kafka.set_round_trip(150ms);
  Life life{source_of(kafka, {"words"})};
  life.start();
  life.pass();
  EXPECT_TRUE(life.last().empty()) << "no batch waits for a broker";
  ASSERT_TRUE(life.pass_until(6));
  EXPECT_THAT(life.values(), ::testing::UnorderedElementsAreArray(texts(0, 6)));
}

TEST(KafkaOutage, FromTheFirstMomentOnDoesNotMoveTheStart) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  kafka.produce("words", 0, numbers(0, 5));
  KafkaSource source = source_of(kafka, {"words"});
  source.start = KafkaStart::from({{{"words", 0}, 3}});
  const std::shared_ptr<SimFs> disk = new_disk();
  kafka.set_down();
  {
    Life life{source, {.disk = disk}};
    life.start();
    life.pass();
    life.pass();
    static_cast<void>(life.ssc->stop());
  }
  kafka.set_up();
  Life life{source, {.disk = disk, .now = Time{1010s}}};
  life.start();
  while (life.ssc->step()) {
  }
  ASSERT_TRUE(life.pass_until(2));
  EXPECT_EQ(life.values(), texts(3, 5)) << "the first run had not come to know any partition";
}

// ---- errors ---------------------------------------------------------------------------------------------------------

struct Failure {
  const char* what;
  std::int16_t request;  // Kafka's number
  int error;
  const char* words;  // with which the listener hears of it
};
void PrintTo(const Failure& failure, std::ostream* out) { *out << failure.what; }

class KafkaSourceErrors : public ::testing::TestWithParam<Failure> {};

TEST_P(KafkaSourceErrors, ReachTheListenerAndReadingGoesOn) {
  const Failure& failure = GetParam();
  MockKafka kafka;
  kafka.create_topic("words", 1);
  kafka.produce("words", 0, numbers(0, 3));
  const std::vector<int> errors(1, failure.error);
  kafka.fail_requests(failure.request, errors);
  Life life{source_of(kafka, {"words"})};
  life.start();
  EXPECT_TRUE(life.is_told(failure.words)) << life.log();
  EXPECT_GE(life.ssc->metrics().receiver_errors, 1u);
  ASSERT_TRUE(life.pass_until(3));
  EXPECT_EQ(life.values(), texts(0, 3));
}

INSTANTIATE_TEST_SUITE_P(, KafkaSourceErrors,
                         ::testing::Values(Failure{"fetch", 1, RD_KAFKA_RESP_ERR_INVALID_MSG, "INVALID_MSG"},
                                           Failure{"list offsets", 2, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
                                                   "the offsets of words[0] could not be asked for: "}),
                         [](const auto& test) { return test.index == 0 ? "OfFetch" : "OfListOffsets"; });

TEST(KafkaSource, ATopicThatIsNotThereYetIsAwaitedWhileOthersAreRead) {
  MockKafka kafka;
  kafka.create_topic("late", 1);
  kafka.create_topic("words", 1);
  kafka.produce("late", 0, numbers(10, 12));
  kafka.produce("words", 0, numbers(0, 3));
  kafka.fail_topic("late", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
  Life life{source_of(kafka, {"late", "words"})};
  life.start();
  EXPECT_TRUE(life.is_told("the topic late: "));
  ASSERT_TRUE(life.pass_until(3));
  EXPECT_EQ(life.values(), texts(0, 3));
  kafka.fail_topic("late", RD_KAFKA_RESP_ERR_NO_ERROR);
  ASSERT_TRUE(life.pass_until(5));
  EXPECT_THAT(life.values(), ::testing::UnorderedElementsAre("0", "1", "2", "10", "11"));
}

TEST(KafkaSource, AStartByATimeThatNoRecordHasIsWhatComesFromNowOn) {
  MockKafka kafka;  // which finds no record by its time; a broker does in tests/integration.sh
  kafka.create_topic("words", 1);
  kafka.produce("words", 0, numbers(0, 3));
  KafkaSource source = source_of(kafka, {"words"});
  source.start = KafkaStart::from(Time{5s});
  Life life{std::move(source)};
  life.start();
  ASSERT_TRUE(await([&] { return life.input->positioned_partitions() == 1; }));
  kafka.produce("words", 0, numbers(3, 5));
  ASSERT_TRUE(life.pass_until(2));
  EXPECT_EQ(life.values(), texts(3, 5));
}

// The mock cannot add partitions to a topic, so the program meets them after a restart: on another cluster.
TEST(KafkaSource, PartitionsThatACheckpointDoesNotKnowAreReadFromTheirFirstRecord) {
  const std::shared_ptr<SimFs> disk = new_disk();
  {
    MockKafka kafka;
    kafka.create_topic("words", 1);
    kafka.produce("words", 0, numbers(0, 3));
    Life life{source_of(kafka, {"words"}), {.disk = disk}};
    life.start();
    ASSERT_TRUE(life.pass_with(3));
    life.pass();
    static_cast<void>(life.ssc->stop());
  }
  MockKafka kafka;
  kafka.create_topic("words", 2);
  kafka.produce("words", 0, numbers(0, 4));
  kafka.produce("words", 1, numbers(10, 12));
  KafkaSource source = source_of(kafka, {"words"});
  source.start = KafkaStart::latest();
  Life life{std::move(source), {.disk = disk, .now = Time{1010s}}};
  life.start();
  while (life.ssc->step()) {
  }
  ASSERT_TRUE(life.pass_until(3));
  EXPECT_THAT(life.values(), ::testing::UnorderedElementsAre("3", "10", "11"));
}

}  // namespace
}  // namespace tidemill::source_faults_test
