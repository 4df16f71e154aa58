// The Kafka sink on the mock cluster: what it writes, and what becomes of every kind of error. The mock forgets the offsets that
// a transaction commits and shows what was aborted, so exactly once is proven elsewhere, on a real broker: tests/integration.sh.
#include "tidemill/kafka/sink.hpp"

#include <librdkafka/rdkafka.h>

#include "engine/harness.hpp"
#include "tidemill/kafka/mock_kafka.hpp"
#include "tidemill/testing/sim_fs.hpp"
#include "tidemill/testing/stream_test.hpp"
#include "tidemill/testing/tape.hpp"

namespace tidemill::kafka_sink_test {
namespace {

using namespace testing_engine;
using testing::MockKafka;
using testing::MockRecord;
using testing::SimFs;
using testing::StreamTest;
using testing::Tape;
using Pair = std::pair<std::string, std::string>;

// Requests by Kafka's numbers.
constexpr std::int16_t produce = 0;
constexpr std::int16_t init_producer_id = 22;
constexpr std::int16_t add_partitions = 24;
constexpr std::int16_t add_offsets = 25;
constexpr std::int16_t end_transaction = 26;
constexpr std::int16_t commit_offsets = 28;

std::vector<std::string> values(MockKafka& kafka, const std::string& topic, std::int32_t partition = 0) {
  std::vector<std::string> all;
  for (const MockRecord& record : kafka.read(topic, partition)) {
    if (record.value) all.push_back(*record.value);
  }
  return all;
}

/// A program with a checkpoint that writes words to the topic "out", which has one partition.
class Program {
 public:
  explicit Program(KafkaSink sink = {.brokers = {}, .topic = {}}, RecoveryOptions options = {}) {
    kafka.create_topic("out", 1);
    sink.brokers = kafka.brokers();
    sink.topic = "out";
    start(sink, std::move(options));
  }
  void start(const KafkaSink& sink, RecoveryOptions options = {}) {
    const Context context{
        {.app_name = "job", .parallelism = 1, .executor = nullptr, .clock = clock, .log = log.logger(), .fs = disk}};
    ssc = StreamingContext::get_or_create(
        "checkpoint",
        [&] {
          auto fresh = std::make_unique<StreamingContext>(context, 1s);
          save_to_kafka(tape.stream(*fresh), sink);
          return fresh;
        },
        std::move(options));
    ssc->start(Drive::by_host);
  }
  /// One batch; what it reported.
  std::string step(std::vector<std::string> words) {
    tape.write(std::move(words));
    clock->advance(1s);
    ssc->step();
    if (const std::exception_ptr error = ssc->engine()->take_last_error()) return describe(error);
    return "";
  }

  MockKafka kafka;
  Log log;
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  std::shared_ptr<SimFs> disk = std::make_shared<SimFs>();
  Tape<std::string> tape;
  std::unique_ptr<StreamingContext> ssc;
};

TEST(KafkaSink, WritesValuesAndKeys) {
  MockKafka kafka;
  kafka.create_topic("out", 1);
  StreamTest<Pair> test;
  save_to_kafka(test.input(), {.brokers = kafka.brokers(), .topic = "out"});
  test.step({{"k", "one"}, {"", ""}});
  test.step({});
  test.step({{"k", "two"}});
  const std::vector<MockRecord> records = kafka.read("out", 0);
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records[0].key, "k");
  EXPECT_EQ(records[0].value, "one");
  EXPECT_EQ(records[1].key, "") << "empty, and not absent";
  EXPECT_EQ(records[1].value, "");
  EXPECT_EQ(records[2].value, "two");
}

TEST(KafkaSink, WritesMessagesWithHeadersToTheirOwnTopicsAndPartitions) {
  MockKafka kafka;
  kafka.create_topic("out", 2);
  kafka.create_topic("other", 1);
  StreamTest<std::string> test;
  const auto messages = test.input().map([](const std::string& word) {
    KafkaMessage message{.value = word, .headers = {{"from", "test"}, {"nothing", std::nullopt}}};
    if (word == "gone") {
      message.key = word;
      message.value = std::nullopt;
      message.topic = "other";
    } else {
      message.partition = 1;
    }
    return message;
  });
  save_to_kafka(messages, {.brokers = kafka.brokers(), .topic = "out"});
  test.step({"here", "gone"});
  EXPECT_THAT(values(kafka, "out", 0), IsEmpty());
  const std::vector<MockRecord> here = kafka.read("out", 1);
  ASSERT_EQ(here.size(), 1U);
  EXPECT_EQ(here[0].key, std::nullopt);
  ASSERT_EQ(here[0].headers.size(), 2U);
  EXPECT_EQ(here[0].headers[0].second, "test");
  EXPECT_EQ(here[0].headers[1].second, std::nullopt);
  const std::vector<MockRecord> gone = kafka.read("other", 0);
  ASSERT_EQ(gone.size(), 1U);
  EXPECT_EQ(gone[0].key, "gone");
  EXPECT_EQ(gone[0].value, std::nullopt) << "a tombstone";
}

TEST(KafkaSink, WritesFromForeachBatchWithinATransaction) {
  MockKafka kafka;
  kafka.create_topic("out", 1);
  StreamTest<std::string> test;
  auto sink =
      test.streaming().add_sink(std::make_shared<KafkaWriter>(KafkaSink{.brokers = kafka.brokers(), .topic = "out"}));
  test.input().foreach_batch([sink](const auto& batch, Time t) { sink.write(batch, t); });
  test.step({"a", "b"});
  EXPECT_THAT(values(kafka, "out"), ElementsAre("a", "b"));
}

TEST(KafkaSink, IsToldOfEveryRecordThatIsNotDelivered) {
  MockKafka kafka;
  kafka.create_topic("out", 1);
  StreamTest<std::string> test;
  const auto messages = test.input().map(
      [](const std::string& word) { return KafkaMessage{.value = word, .partition = word == "nowhere" ? 7 : 0}; });
  save_to_kafka(messages, {.brokers = kafka.brokers(), .topic = "out"});
  test.step({"a"});
  try {
    test.step({"nowhere", "b"});
    FAIL() << "partition 7 does not exist";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("UNKNOWN_PARTITION"));
  }
  test.step({"c"});
  EXPECT_EQ(values(kafka, "out").back(), "c");
  const std::vector<int> refusals(20, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
  kafka.fail_requests(produce, refusals);
  EXPECT_THROW(test.step({"d"}), SinkError);
}

TEST(KafkaSink, CommitsATransactionABatchWithACheckpointAndNoneWithoutRecords) {
  Program program;
  EXPECT_EQ(program.step({"a", "b"}), "");
  const std::vector<int> errors(1, RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS);
  program.kafka.fail_requests(end_transaction, errors);
  EXPECT_EQ(program.step({}), "");
  EXPECT_EQ(program.kafka.failures_left(end_transaction), 1U) << "no transaction has ended";
  EXPECT_EQ(program.step({"c"}), "");
  EXPECT_EQ(program.kafka.failures_left(end_transaction), 0U) << "one has, at the second request";
  EXPECT_THAT(values(program.kafka, "out"), ElementsAre("a", "b", "c"));
}

// That the group has the offsets then is seen on a real broker (tests/integration.sh): the mock forgets those of transactions.
TEST(KafkaSink, TellsAGroupOfOffsetsOnceAndNotInEveryBatchWithoutRecords) {
  Program program{{.brokers = {}, .topic = {}, .offsets_group = "watched"}};
  program.kafka.create_topic("tape", 1);
  EXPECT_EQ(program.step({"a"}), "");
  EXPECT_EQ(program.step({}), "");
  program.kafka.fail_requests(commit_offsets, std::vector<int>(1, RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS));
  EXPECT_EQ(program.step({}), "");
  EXPECT_EQ(program.kafka.failures_left(commit_offsets), 1U) << "nothing new to tell";
  EXPECT_EQ(program.step({"b"}), "");
  EXPECT_EQ(program.kafka.failures_left(commit_offsets), 0U);
  EXPECT_THAT(values(program.kafka, "out"), ElementsAre("a", "b"));
}

TEST(KafkaSink, IsRefusedByACheckpointWhoseMarkItHasLost) {
  Program program;
  EXPECT_EQ(program.step({"a"}), "");
  static_cast<void>(program.ssc->stop());
  try {  // the mock keeps no offsets of transactions, as a cluster that was made anew
    program.start({.brokers = program.kafka.brokers(), .topic = "out"});
    FAIL() << "what has been written is not known";
  } catch (const SinkError& error) {
    EXPECT_EQ(error.code(), "sink_behind");
    EXPECT_THAT(error.what(), HasSubstr("1001000 ms"));
  }
}

// An error in the answer to a request of the second batch.
struct Injected {
  std::int16_t request;
  int error;
  friend std::ostream& operator<<(std::ostream& to, const Injected& one) {
    return to << "request " << one.request << ": " << rd_kafka_err2name(static_cast<rd_kafka_resp_err_t>(one.error));
  }
};
class KafkaErrors : public ::testing::TestWithParam<Injected> {
 protected:
  void inject(int times = 1) {
    EXPECT_EQ(program.step({"a"}), "");
    program.kafka.fail_requests(GetParam().request,
                                std::vector<int>(static_cast<std::size_t>(times), GetParam().error));
  }
  void expect_that_all_was_injected() { EXPECT_EQ(program.kafka.failures_left(GetParam().request), 0U); }
  Program program{{.brokers = {}, .topic = {}}, {.failed_batch = FailedBatch::carry_on}};
};

using ErrorsThatPass = KafkaErrors;
TEST_P(ErrorsThatPass, AreNoticedByNobody) {  // the same request is sent again
  inject(2);
  EXPECT_EQ(program.step({"b"}), "");
  EXPECT_EQ(program.step({"c"}), "");
  expect_that_all_was_injected();
  EXPECT_FALSE(program.log.says("warning: ", "the batch is tried again"));
  EXPECT_THAT(values(program.kafka, "out"), ElementsAre("a", "b", "c"));
}
INSTANTIATE_TEST_SUITE_P(, ErrorsThatPass,
                         ::testing::Values(Injected{add_partitions, RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE},
                                           Injected{add_partitions, RD_KAFKA_RESP_ERR_NOT_COORDINATOR},
                                           Injected{add_partitions, RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS},
                                           Injected{add_offsets, RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS},
                                           Injected{commit_offsets, RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS},
                                           Injected{commit_offsets, RD_KAFKA_RESP_ERR_NOT_COORDINATOR},
                                           Injected{end_transaction, RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE},
                                           Injected{end_transaction, RD_KAFKA_RESP_ERR_NOT_COORDINATOR},
                                           Injected{end_transaction, RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS},
                                           Injected{produce, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION},
                                           Injected{produce, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS}));

TEST(KafkaSink, WaitsForACoordinatorThatIsNotReadyAtTheStart) {
  Program program;
  MockKafka& kafka = program.kafka;
  program.ssc->stop();
  kafka.fail_requests(init_producer_id, std::vector<int>(2, RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS));
  program.start({.brokers = kafka.brokers(), .topic = "out"});
  EXPECT_EQ(program.step({"a"}), "");
  EXPECT_EQ(kafka.failures_left(init_producer_id), 0U);
}

using ErrorsThatAbort = KafkaErrors;
TEST_P(ErrorsThatAbort, HaveTheWholeBatchTriedAgain) {  // the transaction is rolled back first [F43]
  inject();
  EXPECT_EQ(program.step({"b", "c"}), "");
  expect_that_all_was_injected();
  EXPECT_TRUE(program.log.says("warning: ", "the batch is tried again"));
  EXPECT_EQ(program.step({"d"}), "");
  // The mock shows what was rolled back, where it had been produced already.
  const auto all = values(program.kafka, "out");
  EXPECT_THAT(std::vector(all.end() - 3, all.end()), ElementsAre("b", "c", "d"));
}
INSTANTIATE_TEST_SUITE_P(, ErrorsThatAbort,
                         ::testing::Values(Injected{add_partitions, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED},
                                           Injected{produce, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE},
                                           Injected{commit_offsets, RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION},
                                           Injected{commit_offsets, RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID}));

using ErrorsForGood = KafkaErrors;
TEST_P(ErrorsForGood, AreTriedOnceWithAFreshProducer) {  // [F44]
  inject();
  EXPECT_EQ(program.step({"b"}), "");
  expect_that_all_was_injected();
  EXPECT_EQ(program.step({"c"}), "");
  const auto all = values(program.kafka, "out");
  EXPECT_THAT(std::vector(all.end() - 2, all.end()), ElementsAre("b", "c"));
}
INSTANTIATE_TEST_SUITE_P(, ErrorsForGood,
                         ::testing::Values(Injected{add_partitions,
                                                    RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED},
                                           Injected{end_transaction, RD_KAFKA_RESP_ERR_INVALID_TXN_STATE},
                                           Injected{produce, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER}));

using ErrorsOfAnotherWriter = KafkaErrors;
TEST_P(ErrorsOfAnotherWriter, StopTheContextWithoutAnotherAttempt) {  // whatever its options are [F42]
  inject();
  EXPECT_THAT(program.step({"b"}), HasSubstr("another writer has taken over"));
  expect_that_all_was_injected();
  static_cast<void>(program.ssc->step());
  EXPECT_EQ(program.ssc->state(), StreamingState::stopped);
}
INSTANTIATE_TEST_SUITE_P(, ErrorsOfAnotherWriter,
                         ::testing::Values(Injected{add_partitions, RD_KAFKA_RESP_ERR_PRODUCER_FENCED},
                                           Injected{add_offsets, RD_KAFKA_RESP_ERR_PRODUCER_FENCED},
                                           Injected{commit_offsets, RD_KAFKA_RESP_ERR_PRODUCER_FENCED},
                                           Injected{end_transaction, RD_KAFKA_RESP_ERR_PRODUCER_FENCED},
                                           Injected{add_partitions, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH},
                                           Injected{end_transaction, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH}));

TEST(KafkaSink, NamesTheSettingWhenABatchOutlastsItsTransaction) {
  Program program{{.brokers = {}, .topic = {}, .transaction_timeout = 1s, .stall_timeout = 1s}};
  EXPECT_EQ(program.step({"a"}), "");
  program.kafka.set_down();
  program.step({"b"});
  EXPECT_TRUE(program.log.says("warning: ", "KafkaSink::transaction_timeout")) << "at the first attempt";
  EXPECT_FALSE(program.ssc->step());
  EXPECT_EQ(program.ssc->state(), StreamingState::stopped);
  EXPECT_EQ(program.ssc->metrics().total_failed_batches, 1U);
}

std::string refusal(const KafkaSink& sink) {
  try {
    const KafkaWriter writer{sink};
    return "";
  } catch (const ConfigError& error) {
    return error.what();
  }
}

TEST(KafkaSink, RefusesSettingsThatWouldBreakThePromiseByName) {
  const auto with = [](const char* name, const char* value) {
    return refusal({.brokers = "localhost:1", .topic = "out", .settings = {{name, value}}});
  };
  EXPECT_EQ(with("linger.ms", "5"), "");
  for (const char* name : {"transactional.id", "enable.idempotence", "acks", "message.timeout.ms", "bootstrap.servers"})
    EXPECT_THAT(with(name, "1"), HasSubstr(name));
  EXPECT_THAT(with("no.such.setting", "1"), HasSubstr("no.such.setting"));
  EXPECT_THAT(with("linger.ms", "soon"), HasSubstr("linger.ms"));
  EXPECT_THAT(refusal({.brokers = "", .topic = "out"}), HasSubstr("KafkaSink::brokers"));
  EXPECT_THAT(refusal({.brokers = "localhost:1", .topic = ""}), HasSubstr("KafkaSink::topic"));
  EXPECT_THAT(refusal({.brokers = "localhost:1", .topic = "out", .transaction_timeout = 1ms}),
              HasSubstr("transaction_timeout"));
}

// On a real broker too: tests/integration.sh.
TEST(KafkaSink, DoesNotOpenWithoutItsTopicAndNamesIt) {
  MockKafka kafka;
  kafka.fail_topic("out", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
  for (const auto delivery : {KafkaDelivery::at_least_once, KafkaDelivery::exactly_once}) {
    KafkaWriter writer{{.brokers = kafka.brokers(), .topic = "out", .delivery = delivery}};
    try {
      writer.open({.name = "results", .id = "job", .has_checkpoint = true, .runtime = nullptr});
      FAIL() << "there is no topic";
    } catch (const SinkError& error) {  // long before stall_timeout, 5 minutes
      EXPECT_THAT(error.what(), HasSubstr("results: the topic \"out\" is not there"));
      EXPECT_THAT(error.what(), HasSubstr("create it, or correct KafkaSink::topic"));
    }
  }
}

TEST(KafkaSink, DoesNotAskAgainWhetherItMay) {
  MockKafka kafka;
  kafka.fail_topic("out", RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
  KafkaWriter writer{{.brokers = kafka.brokers(), .topic = "out"}};
  try {
    writer.open({.name = "results", .id = "job", .has_checkpoint = true, .runtime = nullptr});
    FAIL() << "it may not";
  } catch (const SinkError& error) {
    EXPECT_THAT(error.what(), HasSubstr("the topic \"out\" cannot be written to: "));
    EXPECT_THAT(error.what(), HasSubstr("TOPIC_AUTHORIZATION_FAILED"));
  }
}

TEST(KafkaSink, RefusesExactlyOnceWithoutACheckpoint) {
  MockKafka kafka;
  StreamTest<std::string> test;
  save_to_kafka(test.input(), {.brokers = kafka.brokers(), .topic = "out", .delivery = KafkaDelivery::exactly_once});
  EXPECT_THROW(test.step(), ConfigError);
}

}  // namespace
}  // namespace tidemill::kafka_sink_test
