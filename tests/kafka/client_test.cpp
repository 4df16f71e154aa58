// The client as settings make it, and the mock cluster on which all other tests rest.
#include <librdkafka/rdkafka.h>

#include "tidemill/kafka/mock_kafka.hpp"

namespace tidemill::client_test {
namespace {

using testing::MockKafka;
using testing::MockRecord;

TEST(MockKafka, KeepsWhatWasProduced) {
  MockKafka kafka;
  kafka.create_topic("words", 2);
  kafka.produce("words", 1,
                {{.key = "k", .value = "one", .headers = {{"h", "x"}, {"null", std::nullopt}}, .timestamp_ms = 5000}});
  kafka.produce("words", 1, {{.value = "two"}, {.key = "k", .value = std::nullopt}});

  EXPECT_EQ(kafka.offsets("words", 0), (std::pair<std::int64_t, std::int64_t>{0, 0}));
  EXPECT_EQ(kafka.offsets("words", 1), (std::pair<std::int64_t, std::int64_t>{0, 3}));
  const std::vector<MockRecord> records = kafka.read("words", 1);
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[0].key, "k");
  EXPECT_EQ(records[0].value, "one");
  EXPECT_EQ(records[0].timestamp_ms, 5000);
  ASSERT_EQ(records[0].headers.size(), 2u);
  EXPECT_EQ(records[0].headers[0].second, "x");
  EXPECT_EQ(records[0].headers[1].second, std::nullopt);
  EXPECT_EQ(records[1].key, std::nullopt);
  EXPECT_EQ(records[2].value, std::nullopt) << "a record without a value says that its key has gone";
}

TEST(MockKafka, AnswersRequestsByTheErrorsItWasGiven) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  const std::vector<int> leader_elsewhere(2, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION);
  kafka.fail_requests(0, leader_elsewhere);
  EXPECT_EQ(kafka.failures_left(0), 2u);
  kafka.produce("words", 0, {{.value = "one"}});
  EXPECT_EQ(kafka.failures_left(0), 0u);
  EXPECT_EQ(kafka.read("words", 0).size(), 1u);
}

TEST(MockKafka, RefusesATopicThatIsThere) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  EXPECT_THROW(kafka.create_topic("words", 2), SourceError);
}

}  // namespace
}  // namespace tidemill::client_test
