// Kafka, read and written, beside bare loops over librdkafka with the same settings. The brokers are
// TIDEMILL_BENCH_KAFKA_BROKERS; bench/run.sh starts one when that is not set.
// TIDEMILL_BENCH_KAFKA_RECORDS=N records of 100 bytes, 5 000 000.
//   consume                  4 partitions: filter, count by a byte of the value; offsets and counts in a checkpoint
//   produce/at_least_once    batches of 100 000 records
//   produce/exactly_once     the same, a transaction a batch
// Targets: vs_bare >= 0.8. The answers are counts, and for what is written what a reader of committed records finds.
#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <librdkafka/rdkafka.h>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unistd.h>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "common/race.hpp"
#include "common/settings.hpp"
#include "tidemill/kafka/mock_kafka.hpp"
#include "tidemill/kafka/sink.hpp"
#include "tidemill/kafka/source.hpp"
#include "tidemill/tidemill.hpp"

namespace tidemill::bench {
namespace {

namespace filesystem = std::filesystem;
using namespace std::chrono_literals;

constexpr std::size_t value_bytes = 100;
constexpr int partitions = 4;
constexpr std::int64_t batch_records = 100'000;
constexpr std::size_t buckets = 64;

std::int64_t record_count() { return setting("KAFKA_RECORDS", 5'000'000, 4'000); }

/// For tiny sizes: a cluster in this process.
testing::MockKafka& mock() {
  static testing::MockKafka cluster;
  return cluster;
}

const std::string& brokers() {
  static const std::string given = [] {
    const char* const named = std::getenv("TIDEMILL_BENCH_KAFKA_BROKERS");
    if (named != nullptr && *named != '\0') return std::string{named};
    if (!smoke())
      throw std::runtime_error(
          "bench_kafka needs brokers: set TIDEMILL_BENCH_KAFKA_BROKERS=host:port, or run it by bench/run.sh, which "
          "starts one");
    return mock().brokers();
  }();
  return given;
}

/// The values, each of 100 bytes: a number, and padding.
class Values {
 public:
  explicit Values(std::int64_t count) : text_(static_cast<std::size_t>(count) * value_bytes, '.') {
    for (std::int64_t i = 0; i < count; ++i) {
      const std::uint64_t mixed = static_cast<std::uint64_t>(i) * 0x9E3779B97F4A7C15U;
      char* const value = text_.data() + static_cast<std::size_t>(i) * value_bytes;
      value[0] = static_cast<char>('0' + mixed % 2);
      value[1] = static_cast<char>('0' + (mixed >> 32) % buckets);
    }
  }
  [[nodiscard]] std::string_view operator[](std::int64_t i) const {
    return {text_.data() + static_cast<std::size_t>(i) * value_bytes, value_bytes};
  }

 private:
  std::string text_;
};
const Values& values() {
  static const Values all{record_count()};
  return all;
}

bool passes(std::string_view value) { return value[0] == '1'; }
std::uint32_t bucket_of(std::string_view value) { return static_cast<std::uint32_t>(value[1] - '0'); }

using Counts = std::vector<std::int64_t>;  // by bucket

/// A folder of its own, removed at the end.
class Folder {
 public:
  Folder() : path_{filesystem::absolute("tidemill-bench-" + std::to_string(getpid()))} {
    filesystem::remove_all(path_);
    filesystem::create_directory(path_);
  }
  ~Folder() {
    std::error_code ignored;
    filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] filesystem::path operator/(const char* name) const { return path_ / name; }

 private:
  filesystem::path path_;
};

// ---- librdkafka, bare -------------------------------------------------------------------------------------------------

using Settings = std::vector<std::pair<std::string, std::string>>;

struct Destroy {
  void operator()(rd_kafka_t* client) const { rd_kafka_destroy(client); }
  void operator()(rd_kafka_topic_t* topic) const { rd_kafka_topic_destroy(topic); }
  void operator()(rd_kafka_queue_t* queue) const { rd_kafka_queue_destroy(queue); }
  void operator()(rd_kafka_topic_partition_list_t* list) const { rd_kafka_topic_partition_list_destroy(list); }
};
template <class T>
using Owned = std::unique_ptr<T, Destroy>;

Owned<rd_kafka_t> client(rd_kafka_type_t type, const Settings& settings) {
  rd_kafka_conf_t* const conf = rd_kafka_conf_new();
  std::array<char, 512> why{};
  rd_kafka_conf_set(conf, "bootstrap.servers", brokers().c_str(), why.data(), why.size());
  rd_kafka_conf_set(conf, "log_level", "3", why.data(), why.size());
  for (const auto& [name, value] : settings) {
    if (rd_kafka_conf_set(conf, name.c_str(), value.c_str(), why.data(), why.size()) != RD_KAFKA_CONF_OK)
      throw std::runtime_error(why.data());
  }
  Owned<rd_kafka_t> made{rd_kafka_new(type, conf, why.data(), why.size())};
  if (!made) throw std::runtime_error(why.data());
  return made;
}

/// A topic of its own, which goes with this.
class Topic {
 public:
  explicit Topic(const std::string& name)
      : name_{name + '-' + std::to_string(getpid()) + '-' + std::to_string(++made_)},
        admin_{client(RD_KAFKA_PRODUCER, {})} {
    std::array<char, 512> why{};
    rd_kafka_NewTopic_t* fresh = rd_kafka_NewTopic_new(name_.c_str(), partitions, 1, why.data(), why.size());
    const Owned<rd_kafka_queue_t> queue{rd_kafka_queue_new(admin_.get())};
    if (smoke()) {
      mock().create_topic(name_, partitions);
    } else {
      rd_kafka_CreateTopics(admin_.get(), &fresh, 1, nullptr, queue.get());
      rd_kafka_event_t* const event = rd_kafka_queue_poll(queue.get(), 30'000);
      if (event == nullptr || rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR)
        throw std::runtime_error("the topic " + name_ + " could not be made");
      rd_kafka_event_destroy(event);
    }
    rd_kafka_NewTopic_destroy(fresh);
  }
  ~Topic() {
    if (smoke()) return;
    rd_kafka_DeleteTopic_t* old = rd_kafka_DeleteTopic_new(name_.c_str());
    const Owned<rd_kafka_queue_t> queue{rd_kafka_queue_new(admin_.get())};
    rd_kafka_DeleteTopics(admin_.get(), &old, 1, nullptr, queue.get());
    if (rd_kafka_event_t* const event = rd_kafka_queue_poll(queue.get(), 30'000)) rd_kafka_event_destroy(event);
    rd_kafka_DeleteTopic_destroy(old);
  }
  Topic(const Topic&) = delete;
  Topic& operator=(const Topic&) = delete;
  [[nodiscard]] const std::string& name() const { return name_; }

 private:
  static inline int made_ = 0;
  std::string name_;
  Owned<rd_kafka_t> admin_;
};

const Settings producing{{"enable.idempotence", "true"}, {"queue.buffering.max.messages", "200000"}};

void produce_bare(const std::string& topic) {
  const auto producer = client(RD_KAFKA_PRODUCER, producing);
  const Owned<rd_kafka_topic_t> to{rd_kafka_topic_new(producer.get(), topic.c_str(), nullptr)};
  for (std::int64_t i = 0; i < record_count(); ++i) {
    const std::string_view value = values()[i];
    while (rd_kafka_produce(to.get(), RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, const_cast<char*>(value.data()),
                            value.size(), nullptr, 0, nullptr) != 0)
      rd_kafka_poll(producer.get(), 10);
    if (i % 1024 == 0) rd_kafka_poll(producer.get(), 0);
  }
  if (rd_kafka_flush(producer.get(), 120'000) != RD_KAFKA_RESP_ERR_NO_ERROR)
    throw std::runtime_error("not all records were taken");
}

Counts consume_bare(const std::string& topic) {
  const auto consumer = client(RD_KAFKA_CONSUMER, {{"group.id", "bench"},
                                                   {"enable.auto.commit", "false"},
                                                   {"isolation.level", "read_committed"},
                                                   {"fetch.wait.max.ms", "100"}});
  rd_kafka_poll_set_consumer(consumer.get());
  const Owned<rd_kafka_topic_partition_list_t> all{rd_kafka_topic_partition_list_new(partitions)};
  for (int p = 0; p < partitions; ++p) rd_kafka_topic_partition_list_add(all.get(), topic.c_str(), p)->offset = 0;
  rd_kafka_assign(consumer.get(), all.get());
  const Owned<rd_kafka_queue_t> queue{rd_kafka_queue_get_consumer(consumer.get())};
  Counts counts(buckets);
  std::array<rd_kafka_message_t*, 1024> messages{};
  for (std::int64_t left = record_count(); left > 0;) {
    const ssize_t read = rd_kafka_consume_batch_queue(queue.get(), 5, messages.data(), messages.size());
    for (ssize_t i = 0; i < read; ++i) {
      rd_kafka_message_t* const message = messages[static_cast<std::size_t>(i)];
      if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        --left;
        const std::string_view value{static_cast<const char*>(message->payload), message->len};
        if (passes(value)) ++counts[bucket_of(value)];
      }
      rd_kafka_message_destroy(message);
    }
  }
  return counts;
}

// ---- consume ------------------------------------------------------------------------------------------------------------

/// Ends when so many records have been worked on.
class Finish final : public StreamingListener {
 public:
  explicit Finish(std::int64_t records) : left_{records} {}
  void on_batch_completed(const BatchInfo& batch) override {
    for (const OutputOperationInfo& output : batch.outputs) {
      if (output.failure_reason) failed_ = *output.failure_reason;
    }
    const std::scoped_lock lock{mutex_};
    left_ -= static_cast<std::int64_t>(batch.num_records());
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock{mutex_};
    if (!changed_.wait_for(lock, 5min, [&] { return left_ <= 0 || failed_; }) || failed_)
      throw std::runtime_error("the batches did not come to their end: " + failed_.value_or("no more records"));
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::int64_t left_;
  std::optional<std::string> failed_;
};

Counts consume(const std::string& topic, const filesystem::path& checkpoint) {
  const Context context{{.app_name = "bench", .parallelism = 1}};
  std::optional<KeyedStateView<std::uint32_t, std::int64_t>> state;
  const auto ssc = StreamingContext::get_or_create(checkpoint, [&] {
    auto fresh = std::make_unique<StreamingContext>(context, on_arrival);
    const auto counts =
        kafka_direct_stream(*fresh, {.brokers = brokers(), .topics = {topic}, .start = KafkaStart::earliest()})
            .map([](const KafkaRecord& record) { return record.value(); })
            .filter(passes)
            .map([](std::string_view value) {
              return std::pair{bucket_of(value), std::int64_t{1}};
            })
            .reduce_by_key(std::plus<>{})
            .map_with_state(state_spec<std::int64_t>(
                [](std::uint32_t, std::optional<std::int64_t> more, State<std::int64_t>& total) {
                  total.update(total.get_option().value_or(0) + more.value_or(0));
                  return total.get();
                }));
    state = counts.state();
    counts.foreach_batch([](const auto& batch) { benchmark::DoNotOptimize(batch.count()); });
    return fresh;
  });
  const auto finish = std::make_shared<Finish>(record_count());
  ssc->add_listener(finish);
  ssc->start();
  finish->wait();
  Counts counts(buckets);
  for (std::uint32_t bucket = 0; bucket < buckets; ++bucket) counts[bucket] = state->get(bucket).value_or(0);
  ssc->stop();
  return counts;
}

void consume(benchmark::State& state) {
  const Topic topic{"consume"};
  produce_bare(topic.name());
  const Folder folder;
  int round = 0;
  Race<Counts> race(state,
                    {.records = record_count(), .bytes = record_count() * static_cast<std::int64_t>(value_bytes)});
  race.ours([&] { return consume(topic.name(), folder / std::to_string(++round).c_str()); });
  race.limit("bare", [&] { return consume_bare(topic.name()); });
  race.go();
}
BENCHMARK(consume)->Apply(as_race)->Iterations(rounds(5));

// ---- produce ------------------------------------------------------------------------------------------------------------

void produce(const std::string& topic, const filesystem::path& checkpoint, KafkaDelivery delivery) {
  const Context context{{.app_name = "bench", .parallelism = 1}};
  const auto queue = std::make_shared<BatchQueue<std::int64_t>>();
  const auto ssc = StreamingContext::get_or_create(checkpoint, [&] {
    auto fresh = std::make_unique<StreamingContext>(context, on_arrival);
    save_to_kafka(fresh->queue_stream<std::int64_t>(queue).map([&all = values()](std::int64_t i) { return all[i]; }),
                  {.brokers = brokers(),
                   .topic = topic,
                   .delivery = delivery,
                   .settings = {{"queue.buffering.max.messages", "200000"}}});
    return fresh;
  });
  const auto finish = std::make_shared<Finish>(record_count());
  ssc->add_listener(finish);
  ssc->start();
  for (std::int64_t first = 0; first < record_count(); first += batch_records)
    queue->push(context.range(first, std::min(first + batch_records, record_count())));
  finish->wait();
  ssc->stop();
}

/// Our delivery against the bare loop; exactly once also against at least once.
void produce(benchmark::State& state, KafkaDelivery delivery) {
  const Folder folder;
  int round = 0;
  const auto ours = [&](KafkaDelivery how) {
    auto topic = std::make_unique<Topic>("produce");
    produce(topic->name(), folder / std::to_string(++round).c_str(), how);
    return topic;
  };
  const auto read = [](const std::unique_ptr<Topic>& topic) { return consume_bare(topic->name()); };
  Race<Counts> race(state,
                    {.records = record_count(), .bytes = record_count() * static_cast<std::int64_t>(value_bytes)});
  race.ours([&] { return ours(delivery); }, read);
  race.limit(
      "bare",
      [] {
        auto topic = std::make_unique<Topic>("produce");
        produce_bare(topic->name());
        return topic;
      },
      read);
  if (delivery == KafkaDelivery::exactly_once)
    race.limit(
        "at_least_once", [&] { return ours(KafkaDelivery::at_least_once); }, read);
  race.go();
}
void produce_at_least_once(benchmark::State& state) { produce(state, KafkaDelivery::at_least_once); }
void produce_exactly_once(benchmark::State& state) { produce(state, KafkaDelivery::exactly_once); }
BENCHMARK(produce_at_least_once)->Name("produce/at_least_once")->Apply(as_race)->Iterations(rounds(5));
BENCHMARK(produce_exactly_once)->Name("produce/exactly_once")->Apply(as_race)->Iterations(rounds(5));

}  // namespace
}  // namespace tidemill::bench
