// N copies of a program that share partitions, on the mock cluster: who has what, and that states move with partitions.
#include "tidemill/kafka/group.hpp"

#include "kafka/harness.hpp"

namespace tidemill::group_test {
namespace {

using namespace testing_kafka;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// What all copies put out: (key, how often it has come so far), in order of time, by partition.
class Results {
 public:
  void add(const KafkaPartition& partition, const std::vector<std::pair<std::string, int>>& counts) {
    const std::scoped_lock lock{mutex_};
    auto& all = counts_[partition];
    all.insert(all.end(), counts.begin(), counts.end());
  }
  [[nodiscard]] std::size_t size() const {
    const std::scoped_lock lock{mutex_};
    std::size_t size = 0;
    for (const auto& [_, counts] : counts_) size += counts.size();
    return size;
  }
  /// Whether each partition counted its key from 1 on without a gap, `count` times.
  [[nodiscard]] ::testing::AssertionResult each_counted_to(int count, int partitions) const {
    const std::scoped_lock lock{mutex_};
    if (counts_.size() != static_cast<std::size_t>(partitions))
      return ::testing::AssertionFailure() << counts_.size() << " partitions";
    for (const auto& [partition, counts] : counts_) {
      for (int i = 0; i < static_cast<int>(counts.size()); ++i) {
        if (counts[static_cast<std::size_t>(i)].second != i + 1)
          return ::testing::AssertionFailure() << detail::to_text(partition) << ": result " << i << " is "
                                               << counts[static_cast<std::size_t>(i)].second;
      }
      if (counts.size() != static_cast<std::size_t>(count))
        return ::testing::AssertionFailure() << detail::to_text(partition) << ": " << counts.size() << " results";
    }
    return ::testing::AssertionSuccess();
  }

 private:
  mutable std::mutex mutex_;
  std::map<KafkaPartition, std::vector<std::pair<std::string, int>>> counts_;
};

// As it happens, in words.
class Events final : public KafkaGroupListener {
 public:
  explicit Events(std::string copy) : copy_{std::move(copy)} {}
  void on_partition_taken(const KafkaPartition& partition) override { add("takes " + detail::to_text(partition)); }
  void on_partition_given_up(const KafkaPartition& partition) override {
    add("gives up " + detail::to_text(partition));
  }
  void on_partition_leaving(const KafkaPartition& partition) override {
    add("is to give up " + detail::to_text(partition));
  }
  void on_error(const std::string& message) override { add(message); }
  [[nodiscard]] std::string text() const {
    const std::scoped_lock lock{mutex_};
    return text_;
  }
  [[nodiscard]] bool has(const std::string& words) const { return text().find(words) != std::string::npos; }

 private:
  void add(const std::string& event) {
    const std::scoped_lock lock{mutex_};
    text_ += copy_ + ' ' + event + '\n';
  }
  const std::string copy_;
  mutable std::mutex mutex_;
  std::string text_;
};

KafkaGroupOptions options_of(const MockKafka& kafka, std::vector<std::string> topics = {"words"}) {
  KafkaGroupOptions options{.source = source_of(kafka, std::move(topics)), .checkpoint = "shared"};
  options.source.group_id = "counters";
  options.membership = {{"session.timeout.ms", "6000"}, {"heartbeat.interval.ms", "200"}};
  return options;
}

// One copy: counts the records of each key, in a state.
struct Copy {
  using Hook = std::function<void(const KafkaPartition&)>;

  Copy(
      const std::string& name, KafkaGroupOptions options, const std::shared_ptr<SimFs>& disk, Results& results,
      Hook in_batch = [](const KafkaPartition&) {})
      : events{std::make_shared<Events>(name)},
        group{Context{{.app_name = name,
                       .parallelism = 1,
                       .executor = nullptr,
                       .clock = nullptr,
                       .log = nullptr,
                       .fs = disk}},
              std::move(options),
              [&results, in_batch](StreamingContext&, const DStream<KafkaRecord>& words,
                                   const KafkaPartition& partition) {
                words.map([](const KafkaRecord& word) {
                       return std::pair{std::string{word.key().value_or("")}, 1};
                     })
                    .keyed_by_partition()
                    .map_with_state(
                        state_spec<int>([](const std::string& key, const std::optional<int>& one, State<int>& state) {
                          state.update(state.get_option().value_or(0) + one.value_or(0));
                          return std::pair{key, state.get()};
                        }))
                    .foreach_batch([&results, in_batch, partition](const auto& batch) {
                      in_batch(partition);
                      results.add(partition, batch.collect());
                    });
              }} {
    group.add_listener(events);
  }
  [[nodiscard]] bool has(std::size_t partitions) const {
    return await([&] { return group.partitions().size() == partitions; });
  }

  std::shared_ptr<Events> events;
  KafkaGroup group;
};

void produce(MockKafka& kafka, const std::string& topic, int partitions, int records) {
  const std::vector<MockRecord> same(static_cast<std::size_t>(records), {.key = "k", .value = "v"});
  for (int p = 0; p < partitions; ++p) kafka.produce(topic, p, same);
}

// What a group has committed; -1001 for nothing.
std::int64_t committed(const MockKafka& kafka, const std::string& group, const KafkaPartition& partition) {
  detail::KafkaConf conf{"a monitor of lag"};
  conf.set("bootstrap.servers", kafka.brokers());
  conf.set("group.id", group);
  const detail::KafkaClient monitor{RD_KAFKA_CONSUMER, std::move(conf), nullptr, nullptr};
  const detail::KafkaList list = detail::make_kafka_list(1);
  rd_kafka_topic_partition_list_add(list.get(), partition.topic.c_str(), partition.partition);
  EXPECT_EQ(rd_kafka_committed(monitor.get(), list.get(), 60'000), RD_KAFKA_RESP_ERR_NO_ERROR);
  return list->elems[0].offset;
}

// ---- who has what ---------------------------------------------------------------------------------------------------

TEST(KafkaGroup, OneCopyHasAllPartitions) {
  MockKafka kafka;
  kafka.create_topic("words", 3);
  produce(kafka, "words", 3, 4);
  Results results;
  Copy only{"only", options_of(kafka), new_disk(), results};
  only.group.start();
  ASSERT_TRUE(await([&] { return results.size() == 12; }));
  EXPECT_TRUE(results.each_counted_to(4, 3));
  EXPECT_THAT(only.group.partitions(),
              ElementsAre(KafkaPartition{"words", 0}, KafkaPartition{"words", 1}, KafkaPartition{"words", 2}));
  EXPECT_EQ(only.group.metrics().at({"words", 1}).total_received_records, 4u);
  only.group.stop();
  EXPECT_TRUE(only.group.partitions().empty());
  EXPECT_NO_THROW(only.group.await_termination());
  EXPECT_TRUE(only.events->has("only gives up words[2]"));
}

TEST(KafkaGroup, StatesMoveWithPartitionsWhenCopiesComeAndGo) {
  MockKafka kafka;
  kafka.create_topic("words", 4);
  const auto disk = new_disk();
  Results results;
  produce(kafka, "words", 4, 5);
  auto first = std::make_unique<Copy>("first", options_of(kafka), disk, results);
  first->group.start();
  ASSERT_TRUE(await([&] { return results.size() == 20; }));

  Copy second{"second", options_of(kafka), disk, results};
  second.group.start();
  ASSERT_TRUE(second.has(2)) << first->events->text() << second.events->text();
  ASSERT_TRUE(first->has(2));
  produce(kafka, "words", 4, 5);
  ASSERT_TRUE(await([&] { return results.size() == 40; }));
  EXPECT_TRUE(results.each_counted_to(10, 4));

  first.reset();  // leaves the group
  ASSERT_TRUE(second.has(4)) << second.events->text();
  produce(kafka, "words", 4, 5);
  ASSERT_TRUE(await([&] { return results.size() == 60; }));
  EXPECT_TRUE(results.each_counted_to(15, 4));
}

TEST(KafkaGroup, WorksWithARebalanceOfAllPartitionsAtOnce) {
  MockKafka kafka;
  kafka.create_topic("words", 2);
  const auto disk = new_disk();
  Results results;
  produce(kafka, "words", 2, 3);
  auto options = options_of(kafka);
  options.membership.emplace_back("partition.assignment.strategy", "range");
  Copy first{"first", options, disk, results};
  first.group.start();
  ASSERT_TRUE(await([&] { return results.size() == 6; }));
  Copy second{"second", options, disk, results};
  second.group.start();
  ASSERT_TRUE(second.has(1)) << first.events->text() << second.events->text();
  ASSERT_TRUE(first.has(1));
  produce(kafka, "words", 2, 3);
  ASSERT_TRUE(await([&] { return results.size() == 12; }));
  EXPECT_TRUE(results.each_counted_to(6, 2));
}

TEST(KafkaGroup, APartitionIsHandedOverWhenItsBatchHasEnded) {  // KG1
  MockKafka kafka;
  kafka.create_topic("words", 2);
  const auto disk = new_disk();
  Results results;
  std::atomic<int> in_batches = 0;
  std::atomic<bool> may_go_on = false;
  Copy first{"first", options_of(kafka), disk, results, [&](const KafkaPartition&) {
               ++in_batches;
               while (!may_go_on) std::this_thread::yield();
             }};
  produce(kafka, "words", 2, 3);
  first.group.start();
  ASSERT_TRUE(await([&] { return in_batches == 2; }));  // both batches hang

  Copy second{"second", options_of(kafka), disk, results};
  second.group.start();
  ASSERT_TRUE(await([&] { return first.events->has("is to give up"); }));
  // What must not happen can only be watched for: a partition that is given back comes to the second copy in about 3 s.
  EXPECT_FALSE(await([&] { return !second.events->text().empty(); }, 6s)) << second.events->text();
  EXPECT_EQ(results.size(), 0u);
  EXPECT_TRUE(second.group.partitions().empty());
  may_go_on = true;
  ASSERT_TRUE(second.has(1)) << first.events->text() << second.events->text();
  produce(kafka, "words", 2, 3);
  ASSERT_TRUE(await([&] { return results.size() == 12; }));
  EXPECT_TRUE(results.each_counted_to(6, 2));
  EXPECT_FALSE(second.events->has("waits until")) << "its checkpoint was free when the partition came";
}

TEST(KafkaGroup,
     APartitionWaitsWhileItsCheckpointIsHeld) {  // KG1: a copy that is out of the group, and does not know it yet
  MockKafka kafka;
  kafka.create_topic("words", 2);
  const auto disk = new_disk();
  Results results;
  produce(kafka, "words", 2, 3);
  auto before = std::make_unique<Copy>("before", options_of(kafka), disk, results);
  before->group.start();
  ASSERT_TRUE(await([&] { return results.size() == 6; }));
  before.reset();
  auto held = disk->lock("shared/words-1/LOCK", "process 1 on elsewhere");
  ASSERT_NE(held, nullptr);

  produce(kafka, "words", 2, 3);
  Copy after{"after", options_of(kafka), disk, results};
  after.group.start();
  ASSERT_TRUE(await([&] { return results.size() == 9; })) << "the other partition runs";
  ASSERT_TRUE(await([&] { return after.events->has("words[1] waits until the copy before has let go of it"); }));
  EXPECT_THAT(after.group.partitions(), ElementsAre(KafkaPartition{"words", 0}));
  held.reset();
  ASSERT_TRUE(await([&] { return results.size() == 12; }));
  EXPECT_TRUE(results.each_counted_to(6, 2));
}

// ---- where partitions begin -------------------------------------------------------------------------------------------

TEST(KafkaGroup, ItIsSettledOnceWherePartitionsBegin) {  // KG2
  MockKafka kafka;
  kafka.create_topic("words", 2);
  produce(kafka, "words", 2, 7);  // before the group; not to be read
  const auto disk = new_disk();
  auto options = options_of(kafka);
  options.source.start = KafkaStart::latest();
  Results results;
  {
    Copy first{"first", options, disk, results};
    first.group.start();
    ASSERT_TRUE(first.has(2));
  }
  produce(kafka, "words", 2, 3);  // while no copy runs
  Copy second{"second", options, disk, results};
  second.group.start();
  ASSERT_TRUE(await([&] { return results.size() == 6; })) << second.events->text();
  EXPECT_TRUE(results.each_counted_to(3, 2));
  EXPECT_EQ(detail::decode_kafka_group_origin(disk->read_all("shared/GROUP")).first,
            (std::map<KafkaPartition, std::int64_t>{{{"words", 0}, 7}, {{"words", 1}, 7}}));
}

TEST(KafkaGroup, APartitionThatWasNotThereAtFirstIsReadFromItsFirstRecordOn) {  // KG2
  MockKafka kafka;
  kafka.create_topic("words", 2);
  produce(kafka, "words", 2, 3);
  const auto disk = new_disk();
  disk->make_directory("shared");
  const std::string origin =
      detail::encode_kafka_group_origin({.group_id = "counters", .first = {{{"words", 0}, 3}}});  // one partition then
  const auto file = disk->create("shared/GROUP");
  file->append(std::as_bytes(std::span{origin}));
  auto options = options_of(kafka);
  options.source.start = KafkaStart::latest();
  Results results;
  Copy copy{"copy", options, disk, results};
  copy.group.start();
  ASSERT_TRUE(await([&] { return results.size() == 3; }));
  produce(kafka, "words", 1, 3);
  ASSERT_TRUE(await([&] { return results.size() == 6; }));
  EXPECT_TRUE(results.each_counted_to(3, 2));
}

TEST(KafkaGroup, TheOriginOfAnotherGroupIsRefused) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  const auto disk = new_disk();
  disk->make_directory("shared");
  const std::string origin = detail::encode_kafka_group_origin({.group_id = "others", .first = {}});
  disk->create("shared/GROUP")->append(std::as_bytes(std::span{origin}));
  Results results;
  Copy copy{"copy", options_of(kafka), disk, results};
  try {
    copy.group.start();
    FAIL() << "it started";
  } catch (const StateError& error) {
    EXPECT_EQ(error.code(), "incompatible_checkpoint");
    EXPECT_THAT(error.what(), AllOf(HasSubstr("\"others\""), HasSubstr("\"counters\"")));
  }
  EXPECT_NO_THROW(copy.group.await_termination());
}

TEST(KafkaGroupOrigin, ComesBackAsItWas) {
  const detail::KafkaGroupOrigin origin{.group_id = "g", .first = {{{"a", 0}, 0}, {{"a", 1}, 1'000'000'000'000}}};
  const auto back = detail::decode_kafka_group_origin(detail::encode_kafka_group_origin(origin));
  EXPECT_EQ(back.group_id, origin.group_id);
  EXPECT_EQ(back.first, origin.first);
}

TEST(KafkaGroupOrigin, EveryDamageIsFound) {
  const std::string good = detail::encode_kafka_group_origin({.group_id = "group", .first = {{{"topic", 3}, 12345}}});
  const auto code_of = [](const std::string& bytes) -> std::string {
    try {
      static_cast<void>(detail::decode_kafka_group_origin(bytes));
    } catch (const StateError& error) {
      return error.code();
    }
    return "accepted";
  };
  for (std::size_t i = 0; i < good.size(); ++i) {
    EXPECT_EQ(code_of(good.substr(0, i)), "checkpoint_damaged") << "cut to " << i;
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      const bool is_newer = i == 9 || (i == 8 && bit != 0);
      EXPECT_EQ(code_of(bad), is_newer ? "newer_format" : "checkpoint_damaged") << "byte " << i << " bit " << bit;
    }
  }
}

// ---- what is refused, and what fails ------------------------------------------------------------------------------------

TEST(KafkaGroup, WhatNeedsAllPartitionsEndsTheGroupByName) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  KafkaGroup group{Context{{.app_name = "whole",
                            .parallelism = 1,
                            .executor = nullptr,
                            .clock = nullptr,
                            .log = nullptr,
                            .fs = new_disk()}},
                   options_of(kafka), [](StreamingContext&, const DStream<KafkaRecord>& words, const KafkaPartition&) {
                     words.count().foreach_batch([](const auto&) {});
                   }};
  group.start();
  try {
    group.await_termination();
    FAIL() << "nothing was refused";
  } catch (const PlanError& error) {
    EXPECT_EQ(error.code(), "needs_whole_input");
    EXPECT_THAT(error.what(), AllOf(HasSubstr("\"count\""), HasSubstr("\"words-0\"")));
  }
}

TEST(KafkaGroup, ABatchThatFailsEndsTheGroupAndAnotherCopyRunsItAgain) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  produce(kafka, "words", 1, 3);
  const auto disk = new_disk();
  Results results;
  Copy bad{"bad", options_of(kafka), disk, results, [](const KafkaPartition&) { throw std::runtime_error{"no ink"}; }};
  bad.group.start();
  try {
    bad.group.await_termination();
    FAIL() << "nothing failed";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("no ink"));
  }
  ASSERT_TRUE(await([&] { return bad.events->has("gives up words[0]"); }));
  Copy good{"good", options_of(kafka), disk, results};
  good.group.start();
  ASSERT_TRUE(await([&] { return results.size() == 3; }));
  EXPECT_TRUE(results.each_counted_to(3, 1));
}

TEST(KafkaGroup, CommitsOffsetsAsAMemberOfItsGroup) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  auto options = options_of(kafka);
  options.source.commit_offsets = true;
  Results results;
  Copy copy{"copy", options, new_disk(), results};
  copy.group.start();
  ASSERT_TRUE(copy.has(1));
  produce(kafka, "words", 1, 5);
  ASSERT_TRUE(await([&] { return committed(kafka, "counters", {"words", 0}) == 5; })) << copy.events->text();
}

TEST(KafkaGroup, RefusesOptionsThatCannotBe) {
  const auto refusal = [](const auto& change) -> std::string {
    KafkaGroupOptions options;
    options.source = {.brokers = "localhost:1", .topics = {"words"}, .group_id = "g"};
    options.checkpoint = "shared";
    change(options);
    try {
      KafkaGroup group{Context{}, options,
                       [](StreamingContext&, const DStream<KafkaRecord>&, const KafkaPartition&) {}};
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "nothing was refused";
  };
  EXPECT_EQ(refusal([](KafkaGroupOptions&) {}), "nothing was refused");
  EXPECT_THAT(refusal([](auto& o) { o.source.group_id.clear(); }), HasSubstr("group_id is empty"));
  EXPECT_THAT(refusal([](auto& o) { o.source.topics.clear(); }), HasSubstr("reads KafkaSource::topics"));
  EXPECT_THAT(refusal([](auto& o) { o.source.topic_pattern = "w.*"; }), HasSubstr("neither a topic_pattern"));
  EXPECT_THAT(refusal([](auto& o) { o.checkpoint.clear(); }), HasSubstr("checkpoint is empty"));
  EXPECT_THAT(refusal([](auto& o) { o.batch_interval = -1s; }), HasSubstr("batch interval must be positive"));
  EXPECT_THAT(refusal([](auto& o) { o.source.max_buffered_bytes = 1; }), HasSubstr("max_buffered_bytes"));
  EXPECT_THAT(refusal([](auto& o) {
                o.source.settings = {{"group.instance.id", "a"}};
              }),
              HasSubstr("KafkaGroupOptions::membership"));
  EXPECT_THAT(refusal([](auto& o) {
                o.membership = {{"enable.auto.commit", "true"}};
              }),
              HasSubstr("the checkpoints keep the offsets"));
  EXPECT_THAT(refusal([](auto& o) { o.membership = {{"session.timeout.ms", "soon"}}; }), HasSubstr("\"soon\""));
}

TEST(KafkaGroup, LivesOnce) {
  MockKafka kafka;
  kafka.create_topic("words", 1);
  Results results;
  Copy copy{"copy", options_of(kafka), new_disk(), results};
  copy.group.start();
  EXPECT_THROW(copy.group.start(), PlanError);
  EXPECT_FALSE(copy.group.await_termination_or_timeout(0s));
  copy.group.stop();
  EXPECT_TRUE(copy.group.await_termination_or_timeout(0s));
  EXPECT_THROW(copy.group.start(), PlanError);
  Copy never{"never", options_of(kafka), new_disk(), results};
  never.group.stop();
  EXPECT_THROW(never.group.start(), PlanError);
}

}  // namespace
}  // namespace tidemill::group_test
