// What may be said to sources, sinks and groups: an option has an effect, or is refused with its value and the way out.
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kafka/harness.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/dstream/streaming_context.hpp"
#include "tidemill/kafka/group.hpp"
#include "tidemill/kafka/mock_kafka.hpp"
#include "tidemill/kafka/sink.hpp"
#include "tidemill/kafka/source.hpp"

namespace tidemill::kafka_options_test {
namespace {

using namespace testing_kafka;
using ::testing::AllOf;
using ::testing::HasSubstr;

template <class Task>
std::string refusal_of(const Task& task) {
  try {
    task();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "nothing was refused";
}

KafkaSource words() { return {.brokers = "localhost:1", .topics = {"words"}}; }

std::string refusal_of(KafkaSource source) {
  return refusal_of([&] { static_cast<void>(detail::KafkaInput{"reader", std::move(source)}); });
}

template <class Change>
std::string refusal_but(const Change& change) {
  KafkaSource source = words();
  change(source);
  return refusal_of(std::move(source));
}

class SettingsForNobody : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

// Each would silence errors or reports, change the host, or put another cluster in the place of the brokers.
TEST_P(SettingsForNobody, AreRefusedByNameOfSourceSinkAndGroup) {
  const std::string name = GetParam().first;
  const KafkaSettings settings{{name, GetParam().second}};
  const std::string words_of_it = "the setting \"" + name + "\" may not be given: ";
  EXPECT_THAT(refusal_but([&](KafkaSource& s) { s.settings = settings; }), HasSubstr(words_of_it));
  EXPECT_THAT(
      refusal_of([&] { const KafkaWriter writer{{.brokers = "localhost:1", .topic = "out", .settings = settings}}; }),
      HasSubstr(words_of_it));
  KafkaGroupOptions options{.source = words(), .checkpoint = "shared", .membership = settings};
  options.source.group_id = "counters";
  EXPECT_THAT(refusal_of([&] {
                const KafkaGroup group{Context{}, options, [](auto&, const auto&, const auto&) {}};
              }),
              HasSubstr(words_of_it));
}

INSTANTIATE_TEST_SUITE_P(, SettingsForNobody,
                         ::testing::Values(std::pair{"log.queue", "true"}, std::pair{"enable.random.seed", "true"},
                                           std::pair{"enabled_events", "1"}, std::pair{"enable_sasl_queue", "true"},
                                           std::pair{"internal.termination.signal", "10"},
                                           std::pair{"test.mock.num.brokers", "1"}));

TEST(KafkaStartOptions, WhatWouldHaveNoEffectIsRefused) {
  const auto start = [](KafkaStart from) { return refusal_but([&](KafkaSource& s) { s.start = std::move(from); }); };
  EXPECT_EQ(start(KafkaStart::from(Time{1s})), "nothing was refused");
  EXPECT_EQ(start(KafkaStart::from({{{"words", 7}, 3}})), "nothing was refused") << "it may be added";
  // -1 ms and -2 ms would be the protocol's numbers for the end and the beginning.
  EXPECT_THAT(start(KafkaStart::from(Time{-2ms})), AllOf(HasSubstr("-2 ms"), HasSubstr("earliest()")));
  EXPECT_THAT(start({.at = KafkaStart::At::earliest, .time = Time{1s}}), HasSubstr("KafkaStart::from(time)"));
  EXPECT_THAT(start({.at = KafkaStart::At::latest, .time = {}, .offsets = {{{"words", 0}, 3}}}),
              HasSubstr("KafkaStart::from(offsets)"));
  EXPECT_THAT(start(KafkaStart::from({{{"word", 0}, 3}})),
              AllOf(HasSubstr("where word[0] begins"), HasSubstr("does not read it")));
  EXPECT_THAT(refusal_but([](KafkaSource& s) {
                s.topics.clear();
                s.partitions = {{"words", 0}};
                s.start = KafkaStart::from({{{"words", 1}, 3}});
              }),
              HasSubstr("where words[1] begins"));
}

TEST(KafkaStartOptions, AreLookedAtBeforeAGroupSettlesThem) {
  KafkaGroupOptions options{.source = words(), .checkpoint = "shared"};
  options.source.group_id = "counters";
  options.source.start = KafkaStart::from({{{"word", 0}, 3}});
  EXPECT_THAT(refusal_of([&] {
                const KafkaGroup group{Context{}, options, [](auto&, const auto&, const auto&) {}};
              }),
              HasSubstr("where word[0] begins"));
}

TEST(KafkaSourceOptions, TimesThatNoClockCanAddAreRefused) {
  EXPECT_THAT(refusal_but([](KafkaSource& s) { s.stall_timeout = Duration::max(); }),
              HasSubstr("stall_timeout must be above 0 and at most 1 day"));
  EXPECT_THAT(refusal_but([](KafkaSource& s) { s.discovery_interval = Duration::max(); }),
              HasSubstr("discovery_interval must be above 0 and at most 1 day"));
}

TEST(KafkaSourceOptions, AMinimumOfABatchNeedsAnInterval) {
  KafkaSource source = words();
  source.min_records_per_partition = 5;
  StreamingContext ticking{Context{}, 1s};
  static_cast<void>(kafka_direct_stream(ticking, source));
  StreamingContext ssc{Context{}, on_arrival};
  EXPECT_THAT(refusal_of([&] { static_cast<void>(kafka_direct_stream(ssc, source)); }),
              AllOf(HasSubstr("min_records_per_partition is 5"), HasSubstr("on_arrival")));
}

// "." and "*" would lead to what the brokers keep for themselves, of which a transaction writes some each time.
TEST(KafkaPattern, DoesNotReadTheTopicsOfTheBrokersThemselves) {
  MockKafka kafka;
  for (const char* topic : {"__consumer_offsets", "__transaction_state", "words"}) {
    kafka.create_topic(topic, 1);
    kafka.produce(topic, 0, {{.value = topic}});
  }
  KafkaSource source = source_of(kafka, {});
  source.topic_pattern = ".*";
  Life life{source};
  life.start();
  ASSERT_TRUE(await([&] { return life.input->positioned_partitions() != 0; }));
  EXPECT_EQ(life.input->positioned_partitions(), 1U);
  ASSERT_TRUE(life.pass_with(1));
  EXPECT_THAT(life.values(), ::testing::ElementsAre("words"));
}

TEST(KafkaPattern, TellsThatNoTopicIsLikeIt) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  KafkaSource source = source_of(kafka, {});
  source.topic_pattern = "word";
  source.discovery_interval = 1h;
  Life life{source};
  life.start();
  EXPECT_TRUE(life.is_told("no topic has a name like KafkaSource::topic_pattern, \"word\", which is for whole names"))
      << life.log();
}

// Without transactions they would do nothing.
TEST(KafkaSinkOptions, OfTransactionsAreRefusedOfASinkThatHasNone) {
  MockKafka kafka;
  kafka.create_topic("out", 1);
  const auto open = [&](KafkaSink sink, bool has_checkpoint) {
    sink.brokers = kafka.brokers();
    sink.topic = "out";
    KafkaWriter writer{std::move(sink)};
    return refusal_of(
        [&] { writer.open({.name = "results", .id = "job", .has_checkpoint = has_checkpoint, .runtime = nullptr}); });
  };
  const KafkaSink watched{.brokers = {}, .topic = {}, .offsets_group = "lag"};
  EXPECT_EQ(open(watched, true), "nothing was refused");
  EXPECT_THAT(open(watched, false),
              AllOf(HasSubstr("KafkaSink::offsets_group is \"lag\""), HasSubstr("get_or_create")));
  KafkaSink named{.brokers = {}, .topic = {}, .delivery = KafkaDelivery::at_least_once, .transactional_id = "me"};
  EXPECT_THAT(open(named, true),
              AllOf(HasSubstr("KafkaSink::transactional_id is \"me\""), HasSubstr("let delivery be exactly_once")));
  named.delivery = KafkaDelivery::exactly_once;
  named.offsets_group = "me";
  EXPECT_THAT(open(named, true), HasSubstr("offsets_group is \"me\", the transactional id"));
}

TEST(KafkaSinkErrors, NameThePartitionThatIsNotThere) {
  MockKafka kafka;
  kafka.create_topic("out", 2);
  KafkaWriter writer{{.brokers = kafka.brokers(), .topic = "out"}};
  writer.open({.name = "results", .id = "job", .has_checkpoint = false, .runtime = nullptr});
  writer.begin(Time{1s});
  const std::vector<KafkaMessage> records{{.value = "a", .partition = 7}};
  try {
    writer.write(std::span{records});
    writer.commit({.batch_time = Time{1s}, .positions = {}});
    FAIL() << "there are two";
  } catch (const SinkError& error) {
    EXPECT_THAT(error.what(), HasSubstr("to the topic \"out\", partition 7: Local: Unknown partition"));
  }
}

TEST(KafkaSinkErrors, NameTheSettingsForARecordThatIsTooLarge) {
  MockKafka kafka;
  kafka.create_topic("out", 1);
  KafkaWriter writer{{.brokers = kafka.brokers(), .topic = "out"}};
  writer.open({.name = "results", .id = "job", .has_checkpoint = false, .runtime = nullptr});
  writer.begin(Time{1s});
  const std::vector<std::pair<std::string, std::string>> records{{"key", std::string(2'000'000, 'x')}};
  try {
    writer.write(std::span{records});
    FAIL() << "1 MB is the most";
  } catch (const SinkError& error) {
    EXPECT_THAT(error.what(), HasSubstr("key and value have 2000003 bytes; raise message.max.bytes"));
  }
}

}  // namespace
}  // namespace tidemill::kafka_options_test
