#include "tidemill/kafka/mock_kafka.hpp"

#include <librdkafka/rdkafka_mock.h>

#include "kafka/client.hpp"

namespace tidemill::testing {
namespace {

constexpr int patience_ms = 30'000;

void expect_good(rd_kafka_resp_err_t error, const std::string& what) {
  if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
    throw SourceError("mock_kafka", "the mock cluster could not " + what + ": " + detail::describe(error),
                      Retry::is_useless);
}

// What is still to be acknowledged, and the first record that was refused.
struct Deliveries {
  std::size_t left = 0;
  rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR_NO_ERROR;
};
void on_delivery(rd_kafka_t*, const rd_kafka_message_t* message, void*) {
  auto& deliveries = *static_cast<Deliveries*>(message->_private);
  --deliveries.left;
  if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR) deliveries.error = message->err;
}

detail::KafkaConf producer_conf() {
  detail::KafkaConf conf{"the producer of the mock cluster"};
  conf.set("linger.ms", "0");
  rd_kafka_conf_set_dr_msg_cb(conf.get(), &on_delivery);
  return conf;
}

// Has the client ask who leads the topic; it would find out by itself, by a timer of a second.
void learn_leaders(rd_kafka_t* client, const std::string& topic) {
  rd_kafka_topic_t* const handle = rd_kafka_topic_new(client, topic.c_str(), nullptr);
  const struct rd_kafka_metadata* known = nullptr;
  if (rd_kafka_metadata(client, 0, handle, &known, 5000) == RD_KAFKA_RESP_ERR_NO_ERROR)
    rd_kafka_metadata_destroy(known);
  rd_kafka_topic_destroy(handle);
}

std::optional<std::string> bytes_of(const void* data, std::size_t size) {
  if (data == nullptr) return std::nullopt;
  return std::string(static_cast<const char*>(data), size);
}

}  // namespace

class MockKafka::Impl {
 public:
  explicit Impl(int brokers)
      : owner_{RD_KAFKA_PRODUCER, detail::KafkaConf{"the mock cluster"}, nullptr, nullptr},
        cluster_{rd_kafka_mock_cluster_new(owner_.get(), brokers), &rd_kafka_mock_cluster_destroy} {
    if (!cluster_) throw SourceError("mock_kafka", "the mock cluster could not be made", Retry::is_useless);
  }

  [[nodiscard]] rd_kafka_mock_cluster_t* cluster() const noexcept { return cluster_.get(); }

  [[nodiscard]] rd_kafka_t* producer(const std::string& brokers) {
    if (!producer_) {
      detail::KafkaConf conf = producer_conf();
      conf.set("bootstrap.servers", brokers);
      producer_.emplace(RD_KAFKA_PRODUCER, std::move(conf), nullptr, nullptr);
    }
    return producer_->get();
  }

 private:
  detail::KafkaClient owner_;
  std::unique_ptr<rd_kafka_mock_cluster_t, decltype(&rd_kafka_mock_cluster_destroy)> cluster_;
  std::optional<detail::KafkaClient> producer_;
};

MockKafka::MockKafka(int brokers)
    : impl_{std::make_unique<Impl>(brokers)}, brokers_{rd_kafka_mock_cluster_bootstraps(impl_->cluster())} {}
MockKafka::~MockKafka() = default;

void MockKafka::create_topic(const std::string& name, int partitions) {
  expect_good(rd_kafka_mock_topic_create(impl_->cluster(), name.c_str(), partitions, 1), "create the topic " + name);
}

void MockKafka::produce(const std::string& topic, std::int32_t partition, const std::vector<MockRecord>& records) {
  rd_kafka_t* const producer = impl_->producer(brokers_);
  learn_leaders(producer, topic);
  Deliveries deliveries;
  for (const MockRecord& record : records) {
    rd_kafka_headers_t* headers = nullptr;
    if (!record.headers.empty()) headers = rd_kafka_headers_new(record.headers.size());
    for (const auto& [name, bytes] : record.headers)
      rd_kafka_header_add(headers, name.c_str(), -1, bytes ? bytes->data() : nullptr,
                          bytes ? static_cast<ssize_t>(bytes->size()) : 0);
    char* const value = record.value ? const_cast<char*>(record.value->data()) : nullptr;  // it is copied
    const std::size_t value_size = record.value ? record.value->size() : 0;
    char* const key = record.key ? const_cast<char*>(record.key->data()) : nullptr;
    const std::size_t key_size = record.key ? record.key->size() : 0;
    rd_kafka_resp_err_t error = RD_KAFKA_RESP_ERR__QUEUE_FULL;
    while (error == RD_KAFKA_RESP_ERR__QUEUE_FULL) {
      error =
          rd_kafka_producev(producer, RD_KAFKA_V_TOPIC(topic.c_str()), RD_KAFKA_V_PARTITION(partition),
                            RD_KAFKA_V_VALUE(value, value_size), RD_KAFKA_V_KEY(key, key_size),
                            RD_KAFKA_V_TIMESTAMP(record.timestamp_ms), RD_KAFKA_V_HEADERS(headers),
                            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_OPAQUE(&deliveries), RD_KAFKA_V_END);
      if (error == RD_KAFKA_RESP_ERR__QUEUE_FULL) rd_kafka_poll(producer, 10);
    }
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
      if (headers != nullptr) rd_kafka_headers_destroy(headers);
      rd_kafka_flush(producer, patience_ms);
      expect_good(error, "take a record for " + topic);
    }
    ++deliveries.left;
    rd_kafka_poll(producer, 0);
  }
  const rd_kafka_resp_err_t flushed = rd_kafka_flush(producer, patience_ms);
  if (flushed != RD_KAFKA_RESP_ERR_NO_ERROR) {  // nothing may point at `deliveries` when we are gone
    rd_kafka_purge(producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    while (deliveries.left != 0) rd_kafka_poll(producer, 100);
  }
  expect_good(flushed, "take the records for " + topic);
  expect_good(deliveries.error, "keep the records for " + topic);
}

std::pair<std::int64_t, std::int64_t> MockKafka::offsets(const std::string& topic, std::int32_t partition) {
  learn_leaders(impl_->producer(brokers_), topic);
  std::pair<std::int64_t, std::int64_t> range;
  expect_good(rd_kafka_query_watermark_offsets(impl_->producer(brokers_), topic.c_str(), partition, &range.first,
                                               &range.second, patience_ms),
              "tell the offsets of " + topic);
  return range;
}

std::vector<MockRecord> MockKafka::read(const std::string& topic, std::int32_t partition) {
  detail::KafkaConf conf{"the reader of the mock cluster"};
  conf.set("bootstrap.servers", brokers_);
  conf.set("group.id", "mock-reader");
  conf.set("enable.partition.eof", "true");
  conf.set("enable.auto.commit", "false");
  conf.set("fetch.wait.max.ms", "5");
  const detail::KafkaClient reader{RD_KAFKA_CONSUMER, std::move(conf), nullptr, nullptr};
  rd_kafka_poll_set_consumer(reader.get());
  learn_leaders(reader.get(), topic);
  const detail::KafkaList list = detail::make_kafka_list(1);
  rd_kafka_topic_partition_list_add(list.get(), topic.c_str(), partition)->offset = offsets(topic, partition).first;
  expect_good(rd_kafka_assign(reader.get(), list.get()), "assign " + topic);
  std::vector<MockRecord> records;
  for (bool at_end = false; !at_end;) {
    const std::unique_ptr<rd_kafka_message_t, decltype(&rd_kafka_message_destroy)> message{
        rd_kafka_consumer_poll(reader.get(), patience_ms), &rd_kafka_message_destroy};
    if (!message) expect_good(RD_KAFKA_RESP_ERR__TIMED_OUT, "read " + topic);
    at_end = message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF;
    if (at_end) break;
    expect_good(message->err, "read " + topic);
    MockRecord& record = records.emplace_back();
    record.key = bytes_of(message->key, message->key_len);
    record.value = bytes_of(message->payload, message->len);
    record.timestamp_ms = rd_kafka_message_timestamp(message.get(), nullptr);
    record.offset = message->offset;
    rd_kafka_headers_t* headers = nullptr;
    if (rd_kafka_message_headers(message.get(), &headers) != RD_KAFKA_RESP_ERR_NO_ERROR) continue;
    const char* name = nullptr;
    const void* value = nullptr;
    std::size_t size = 0;
    for (std::size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR;
         ++i)
      record.headers.emplace_back(name, bytes_of(value, size));
  }
  rd_kafka_consumer_close(reader.get());
  return records;
}

std::optional<std::int64_t> MockKafka::committed(const std::string& group, const std::string& topic,
                                                 std::int32_t partition) {
  detail::KafkaConf conf{"the reader of the mock cluster"};
  conf.set("bootstrap.servers", brokers_);
  conf.set("group.id", group);
  const detail::KafkaClient reader{RD_KAFKA_CONSUMER, std::move(conf), nullptr, nullptr};
  const detail::KafkaList list = detail::make_kafka_list(1);
  rd_kafka_topic_partition_list_add(list.get(), topic.c_str(), partition);
  const rd_kafka_resp_err_t error = rd_kafka_committed(reader.get(), list.get(), patience_ms);
  expect_good(error != RD_KAFKA_RESP_ERR_NO_ERROR ? error : list->elems[0].err,
              "tell what " + group + " has committed");
  const std::int64_t next = list->elems[0].offset;
  return next < 0 ? std::nullopt : std::optional{next};
}

void MockKafka::set_down(std::optional<int> broker) {
  expect_good(rd_kafka_mock_broker_set_down(impl_->cluster(), broker.value_or(-1)), "set a broker down");
}
void MockKafka::set_up(std::optional<int> broker) {
  expect_good(rd_kafka_mock_broker_set_up(impl_->cluster(), broker.value_or(-1)), "set a broker up");
}
void MockKafka::set_round_trip(std::chrono::milliseconds time) {
  expect_good(rd_kafka_mock_broker_set_rtt(impl_->cluster(), -1, static_cast<int>(time.count())), "set the round trip");
}
void MockKafka::set_leader(const std::string& topic, std::int32_t partition, int broker) {
  expect_good(rd_kafka_mock_partition_set_leader(impl_->cluster(), topic.c_str(), partition, broker), "move a leader");
}
void MockKafka::fail_requests(std::int16_t api_key, std::span<const int> errors, int broker) {
  for (const int error : errors)  // pairs of an error and a round trip, each of one size
    expect_good(rd_kafka_mock_broker_push_request_error_rtts(impl_->cluster(), broker, api_key, 1,
                                                             static_cast<rd_kafka_resp_err_t>(error), 0),
                "fail requests");
}
void MockKafka::fail_topic(const std::string& topic, int error) {
  rd_kafka_mock_topic_set_error(impl_->cluster(), topic.c_str(), static_cast<rd_kafka_resp_err_t>(error));
}
std::size_t MockKafka::failures_left(std::int16_t api_key, int broker) const {
  std::size_t left = 0;
  expect_good(rd_kafka_mock_broker_error_stack_cnt(impl_->cluster(), broker, api_key, &left), "count what is to fail");
  return left;
}

}  // namespace tidemill::testing
