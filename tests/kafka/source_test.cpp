// Kafka as a source, on the mock cluster: what batches hold, and that a restart reads the same again.
#include "kafka/harness.hpp"

namespace tidemill::source_test {
namespace {

using namespace testing_kafka;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Range = KafkaOffsetRange;

// What `make` says when it throws a ConfigError.
template <class Make>
std::string refusal(const Make& make) {
  try {
    make();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "nothing was refused";
}
std::string refusal_of(KafkaSource source) {
  return refusal([&] { detail::KafkaInput{"app", std::move(source)}; });
}

// ---- what batches hold ----------------------------------------------------------------------------------------------

TEST(KafkaSource, GivesEachBatchTheRangeOfOffsetsThatHasCome) {
  MockKafka kafka;
  kafka.create_topic("words", 2);
  kafka.produce("words", 0, {{.value = "a"}, {.value = "b"}});
  kafka.produce("words", 1, {{.value = "c"}});
  Life life{source_of(kafka, {"words"})};
  life.start();
  ASSERT_TRUE(life.pass_with(3));
  EXPECT_EQ(life.values(), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_THAT(life.ranges.rbegin()->second, ElementsAre(Range{"words", 0, 0, 2}, Range{"words", 1, 0, 1}));
  EXPECT_EQ(life.infos.back().records, 3u);
  EXPECT_EQ(life.infos.back().metadata, "words[0] 0..2\nwords[1] 0..1");

  kafka.produce("words", 0, {{.value = "d"}});
  ASSERT_TRUE(life.pass_with(1));
  EXPECT_THAT(life.ranges.rbegin()->second, ElementsAre(Range{"words", 0, 2, 3}, Range{"words", 1, 1, 1}));
  EXPECT_EQ(life.last().size(), 1u);
  EXPECT_TRUE(life.errors.empty()) << life.errors.front();
}

TEST(KafkaSource, ShowsAllOfARecord) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  kafka.produce(
      "words", 0,
      {{.key = "k", .value = "v", .headers = {{"a", "1"}, {"b", std::nullopt}, {"a", "2"}}, .timestamp_ms = 1500},
       {.key = "", .value = std::nullopt, .timestamp_ms = 2500}});
  Life life{source_of(kafka, {"words"})};
  life.start();
  ASSERT_TRUE(life.pass_with(2));
  const auto records = life.last();
  EXPECT_EQ(records[0], (OwnedKafkaRecord{.topic = "words",
                                          .partition = 0,
                                          .offset = 0,
                                          .timestamp = Time{1500ms},
                                          .key = "k",
                                          .value = "v",
                                          .headers = {{"a", "1"}, {"b", std::nullopt}, {"a", "2"}}}));
  EXPECT_EQ(records[1].key, "") << "an empty key is there";
  EXPECT_EQ(records[1].value, std::nullopt);
  EXPECT_EQ(records[1].offset, 1);
}

TEST(KafkaSource, RecordsAreViewsThatLiveAsLongAsTheBatch) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  kafka.produce("words", 0, {{.key = "k", .value = "v", .headers = {{"h", "x"}}}});
  const auto input = std::make_shared<detail::KafkaInput>("reader", source_of(kafka, {"words"}));
  const auto clock = std::make_shared<ManualClock>();
  const Context context{{.app_name = "reader", .parallelism = 1, .executor = nullptr, .clock = clock, .log = nullptr}};
  std::optional<Batch<KafkaRecord>> kept;
  std::vector<std::string> headers;
  {
    StreamingContext ssc{context, 1s};
    const auto stream = detail::make_kafka_stream(ssc, input);
    stream.foreach_batch([&](const Batch<KafkaRecord>& batch) { kept = batch; });
    // Made by a function, so that they have to be copied where they wait.
    stream.map([](const KafkaRecord& record) {
            return std::pair{record.topic(), record};
          })
        .group_by_key()
        .foreach_batch([&](const auto& batch) {
          for (const auto& [_, records] : batch.collect()) {
            for (const OwnedKafkaRecord& record : records) headers.push_back(record.headers.at(0).first);
          }
        });
    ssc.start(Drive::by_host);
    ASSERT_TRUE(await([&] { return input->buffered_records() == 1; }));
    clock->advance(1s);
    ASSERT_TRUE(ssc.step());
  }
  ASSERT_TRUE(kept);
  const auto records = kept->collect();  // long after the context has gone
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].value, "v");
  EXPECT_EQ(records[0].headers.at(0).second, "x");
  EXPECT_THAT(headers, ElementsAre("h"));
  EXPECT_THROW(static_cast<void>(offset_ranges(context.empty_batch<KafkaRecord>())), PlanError);
}

TEST(KafkaSource, FeedsAGateThatOpensOnArrival) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  Life life{source_of(kafka, {"words"}), {.on_arrival = true}};
  life.start();
  EXPECT_FALSE(life.ssc->step()) << "nothing has arrived";
  kafka.produce("words", 0, numbers(0, 3));
  ASSERT_TRUE(await([&] { return life.input->buffered_records() == 3 && life.ssc->next_batch_time(); }));
  EXPECT_TRUE(life.ssc->step());
  EXPECT_EQ(life.values(), texts(0, 3));
  EXPECT_FALSE(life.ssc->step());
}

// ---- where it begins ------------------------------------------------------------------------------------------------

TEST(KafkaSource, BeginsWhereItIsTold) {
  MockKafka kafka;
  kafka.create_topic("words", 2);
  kafka.produce("words", 0, numbers(0, 5));
  const auto first_values = [&](KafkaStart start, std::size_t count) {
    KafkaSource source = source_of(kafka, {"words"});
    source.start = std::move(start);
    Life life{std::move(source)};
    life.start();
    EXPECT_TRUE(await([&] { return life.input->positioned_partitions() == 2; }));
    kafka.produce("words", 1, numbers(9, 10));
    EXPECT_TRUE(await([&] {
      life.pass();
      return life.values().size() >= count;
    }));
    return life.values();
  };
  EXPECT_THAT(first_values(KafkaStart::latest(), 1), ElementsAre("9"));
  EXPECT_THAT(first_values(KafkaStart::from({{{"words", 0}, 3}, {{"words", 1}, 1}}), 3),
              ::testing::UnorderedElementsAre("3", "4", "9"));
}

TEST(KafkaSource, ReadsThePartitionsItIsTold) {
  MockKafka kafka;
  kafka.create_topic("words", 3);
  for (int p = 0; p < 3; ++p) kafka.produce("words", p, numbers(p, p + 1));
  KafkaSource source = source_of(kafka, {});
  source.partitions = {{"words", 2}, {"words", 0}};
  Life life{std::move(source)};
  life.start();
  ASSERT_TRUE(life.pass_with(2));
  EXPECT_THAT(life.values(), ElementsAre("0", "2"));
}

TEST(KafkaSource, FindsNewTopicsOfAPatternAndReadsThemFromTheirFirstRecord) {
  MockKafka kafka;
  kafka.create_topic("orders-de", 1);
  kafka.create_topic("other-orders-de", 1);
  kafka.produce("orders-de", 0, numbers(0, 2));
  kafka.produce("other-orders-de", 0, numbers(50, 52));
  KafkaSource source = source_of(kafka, {});
  source.topic_pattern = "orders-..";
  source.start = KafkaStart::latest();
  source.discovery_interval = 20ms;
  Life life{std::move(source)};
  life.start();
  ASSERT_TRUE(await([&] { return life.input->positioned_partitions() == 1; }));
  kafka.create_topic("orders-fr", 1);
  kafka.produce("orders-fr", 0, numbers(10, 12));
  ASSERT_TRUE(life.pass_with(2));
  EXPECT_EQ(life.values(), texts(10, 12));
  EXPECT_THAT(life.ranges.rbegin()->second, ElementsAre(Range{"orders-de", 0, 2, 2}, Range{"orders-fr", 0, 0, 2}));
}

// ---- restarts -------------------------------------------------------------------------------------------------------

TEST(KafkaSource, ARestartReadsTheSameRangesAgainAndGoesOnBehindThem) {
  MockKafka kafka;
  kafka.create_topic("words", 2);
  std::shared_ptr<SimFs> disk = new_disk();
  Time now{1000s};
  std::map<Time, std::vector<OwnedKafkaRecord>> taken;
  int next = 0;
  for (int life_number = 0; life_number < 4; ++life_number) {
    Life life{source_of(kafka, {"words"}), {.disk = disk, .now = now}};
    life.start();
    while (life.ssc->step()) {  // what was not finished
    }
    for (int batch = 0; batch < 3; ++batch) {
      kafka.produce("words", next % 2, numbers(next, next + 3));
      next += 3;
      ASSERT_TRUE(life.pass_with(3));
    }
    for (const auto& [t, records] : life.taken) {
      if (const auto before = taken.find(t); before != taken.end()) {
        EXPECT_EQ(before->second, records) << "the batch of " << to_string(t) << " was another when it was run again";
      }
      taken[t] = records;
    }
    disk = life.killed;
    now = life.clock->now();
  }
  std::map<std::int32_t, std::int64_t> offsets;
  int records = 0;
  for (const auto& [_, batch] : taken) {
    for (const OwnedKafkaRecord& record : batch) {
      EXPECT_EQ(record.offset, offsets[record.partition]++) << "each record once, in order";
      ++records;
    }
  }
  EXPECT_EQ(records, next);
}

TEST(KafkaSource, ARunThatWasKilledInItsFirstBatchDoesNotMoveItsStart) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  kafka.produce("words", 0, numbers(0, 4));
  KafkaSource source = source_of(kafka, {"words"});
  source.start = KafkaStart::latest();
  std::shared_ptr<SimFs> killed;
  {
    Life life{source, {.disk = new_disk()}};
    life.start();
    ASSERT_TRUE(await([&] { return life.input->positioned_partitions() == 1; }));
    life.pass();
    killed = life.killed;
  }
  kafka.produce("words", 0, numbers(4, 6));
  Life life{source, {.disk = killed, .now = Time{1001s}}};
  life.start();
  while (life.ssc->step()) {
  }
  ASSERT_TRUE(life.pass_with(2));
  EXPECT_EQ(life.values(), texts(4, 6));
}

TEST(KafkaSource, ABatchThatIsRunAgainWaitsForTheBrokersOnlySoLong) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  kafka.produce("words", 0, numbers(0, 3));
  std::shared_ptr<SimFs> killed;
  {
    Life life{source_of(kafka, {"words"}), {.disk = new_disk()}};
    life.start();
    ASSERT_TRUE(life.pass_with(3));
    killed = life.killed;
  }
  kafka.set_down();
  {
    KafkaSource source = source_of(kafka, {"words"});
    source.stall_timeout = 100ms;
    Life life{std::move(source), {.disk = killed->copy(1), .now = Time{1001s}}};
    life.start();
    life.ssc->step();
    try {
      life.ssc->await_termination();
      FAIL() << "the batch cannot have been run";
    } catch (const SourceError& error) {
      EXPECT_EQ(error.code(), "kafka_stalled");
      EXPECT_THAT(error.what(), HasSubstr("words[0] offsets 0 to 2"));
      EXPECT_THAT(error.what(), HasSubstr("stall_timeout"));
    }
    while (life.ssc->step()) {
    }
    EXPECT_EQ(life.ssc->state(), StreamingState::stopped);
  }
  kafka.set_up();
  Life life{source_of(kafka, {"words"}), {.disk = killed->copy(1), .now = Time{1001s}}};
  life.start();
  while (life.ssc->step()) {
  }
  EXPECT_EQ(life.values(), texts(0, 3));
}

// ---- what is refused ------------------------------------------------------------------------------------------------

TEST(KafkaSource, RefusesWhatWouldBreakItsPromises) {
  const KafkaSource good{.brokers = "localhost:1", .topics = {"words"}};
  const auto with = [&](const char* name, const char* value) {
    KafkaSource source = good;
    source.settings = {{name, value}};
    return refusal_of(std::move(source));
  };
  EXPECT_THAT(with("enable.auto.commit", "true"),
              HasSubstr("\"enable.auto.commit\" may not be given: the stream itself"));
  EXPECT_THAT(with("auto.offset.reset", "earliest"), HasSubstr("fail_on_data_loss"));
  EXPECT_THAT(with("enable.partition.eof", "false"), HasSubstr("may not be given"));
  EXPECT_THAT(with("group.instance.id", "me"), HasSubstr("no consumer group assigns"));
  EXPECT_THAT(with("bootstrap.servers", "x"), HasSubstr("KafkaSource::brokers"));
  EXPECT_THAT(with("no.such.setting", "1"),
              HasSubstr("\"no.such.setting\" cannot be \"1\": No such configuration property"));
  EXPECT_THAT(with("session.timeout.ms", "soon"), HasSubstr("session.timeout.ms"));
  EXPECT_EQ(with("security.protocol", "ssl"), "nothing was refused");
}

TEST(KafkaSource, RefusesASourceThatSaysTooLittleOrTooMuch) {
  const KafkaSource good{.brokers = "localhost:1", .topics = {"words"}};
  const auto but = [&](auto change) {
    KafkaSource source = good;
    change(source);
    return refusal_of(std::move(source));
  };
  EXPECT_THAT(but([](KafkaSource& s) { s.brokers.clear(); }), HasSubstr("brokers is empty"));
  EXPECT_THAT(but([](KafkaSource& s) { s.topics.clear(); }), HasSubstr("0 of them are given"));
  EXPECT_THAT(but([](KafkaSource& s) { s.topic_pattern = ".*"; }), HasSubstr("2 of them are given"));
  EXPECT_THAT(but([](KafkaSource& s) { s.topics = {""}; }), HasSubstr("one of KafkaSource::topics is empty"));
  EXPECT_THAT(but([](KafkaSource& s) { s.topics.clear(), s.topic_pattern = "("; }), HasSubstr("no regular expression"));
  EXPECT_THAT(but([](KafkaSource& s) { s.max_rate_per_partition = 0; }), HasSubstr("max_rate_per_partition"));
  EXPECT_THAT(but([](KafkaSource& s) { s.min_records_per_partition = 0; }), HasSubstr("min_records_per_partition"));
  EXPECT_THAT(but([](KafkaSource& s) { s.max_buffered_bytes = 1; }), HasSubstr("at least 1 MiB, and it is 1"));
  EXPECT_THAT(but([](KafkaSource& s) { s.stall_timeout = 0s; }), HasSubstr("stall_timeout"));
  EXPECT_THAT(but([](KafkaSource& s) { s.discovery_interval = 0s; }), HasSubstr("discovery_interval"));
  EXPECT_THAT(but([](KafkaSource& s) { s.commit_offsets = true; }), HasSubstr("group_id"));
  EXPECT_THAT(but([](KafkaSource& s) { s.start = KafkaStart::from({{{"words", 0}, -1}}); }), HasSubstr("words[0]"));
}

TEST(KafkaSource, RefusesAPlanThatNoBatchCanHaveHad) {
  const auto plan = [](std::vector<Range> ranges) { return detail::kafka_ranges_of_plan(encode(ranges)); };
  EXPECT_THAT(plan({{"a", 0, 1, 2}, {"a", 1, 5, 5}}), ElementsAre(Range{"a", 0, 1, 2}, Range{"a", 1, 5, 5}));
  EXPECT_THROW(plan({{"a", 0, 2, 1}}), StateError);
  EXPECT_THROW(plan({{"a", 0, -1, 1}}), StateError);
  EXPECT_THROW(plan({{"a", -1, 0, 1}}), StateError);
  EXPECT_THROW(plan({{"", 0, 0, 1}}), StateError);
  EXPECT_THROW(plan({{"a", 0, 0, 1}, {"a", 0, 1, 2}}), StateError);
  EXPECT_THROW(static_cast<void>(detail::kafka_ranges_of_plan("no plan")), StateError);
}

}  // namespace
}  // namespace tidemill::source_test
