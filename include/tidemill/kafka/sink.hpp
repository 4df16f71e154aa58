// Streams into Kafka, exactly once. A batch is one transaction: its records, its time and, if you like, the offsets up to which
// the sources have been read become visible together, to readers with isolation.level=read_committed.
//
//     counts.map([](const Count& c) { return std::pair{c.first, std::to_string(c.second)}; })  // key, value
//         …
//     tidemill::save_to_kafka(pairs, {.brokers = "localhost:9092", .topic = "counts"});
//
// A record is a value (anything that converts to std::string_view), a pair of key and value, or a KafkaMessage.
// The page docs/howto/use-kafka.md has every option.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/io/sink.hpp"
#include "tidemill/kafka/settings.hpp"

namespace tidemill {

enum class KafkaDelivery : std::uint8_t {
  /// A transaction a batch. Needs a checkpoint. What a crash, an outage or an attempt that failed leaves behind is aborted.
  exactly_once,
  /// By an idempotent producer: everything is acknowledged when a batch is done, and a batch that is run again comes again.
  at_least_once,
};

/// Where the records go.
struct KafkaSink {
  std::string brokers;  ///< "host:9092,host2:9092"
  std::string topic;    ///< of records that name none; with exactly_once the batch time is kept by its name too
  /// exactly_once with a checkpoint, at_least_once without one.
  std::optional<KafkaDelivery> delivery = std::nullopt;
  /// Names the writer to the brokers; empty: from the checkpoint and the name of the output, so that it is the same after a
  /// restart. A consumer group of the same name holds the time of the last batch.
  std::string transactional_id = {};
  /// How long a batch may take from its first record to its commit, with what it computes in between. The brokers abort what
  /// takes longer, and allow up to their transaction.max.timeout.ms, 15 minutes by default.
  Duration transaction_timeout = std::chrono::minutes{1};
  /// How long brokers that do not answer are waited for, before a batch fails.
  Duration stall_timeout = std::chrono::minutes{5};
  /// A consumer group that gets the offsets of the sources within the transaction, for monitors of lag. The inputs must be topics
  /// of the same brokers. Empty: none.
  std::string offsets_group = {};
  KafkaSettings settings = {};
  KafkaTokenSource token_source = nullptr;
};

/// A record with everything that Kafka knows of one.
struct KafkaMessage {
  std::optional<std::string> key = std::nullopt;
  std::optional<std::string> value = std::nullopt;  ///< absent: a tombstone
  std::vector<std::pair<std::string, std::optional<std::string>>> headers = {};
  std::string topic = {};       ///< empty: that of the sink
  std::int32_t partition = -1;  ///< -1: by the key, or any
};

namespace detail {

struct KafkaView {
  std::optional<std::string_view> key;
  std::optional<std::string_view> value;
  std::span<const std::pair<std::string, std::optional<std::string>>> headers = {};
  std::string_view topic = {};
  std::int32_t partition = -1;
};

inline KafkaView kafka_view(const KafkaMessage& message) {
  return {message.key, message.value, message.headers, message.topic, message.partition};
}
template <std::convertible_to<std::string_view> V>
KafkaView kafka_view(const V& value) {
  return {.key = std::nullopt, .value = std::string_view{value}};
}
template <std::convertible_to<std::string_view> K, std::convertible_to<std::string_view> V>
KafkaView kafka_view(const std::pair<K, V>& record) {
  return {.key = std::string_view{record.first}, .value = std::string_view{record.second}};
}

}  // namespace detail

/// What can be written to Kafka as it is; map other records to one of these.
template <class T>
concept KafkaWritable = requires(const T& record) {
  { detail::kafka_view(record) } -> std::same_as<detail::KafkaView>;
};

/// The transactional sink behind save_to_kafka, for DStream::save_to and StreamingContext::add_sink.
/// Errors:  of the constructor: ConfigError naming a setting that cannot be, or that would break the promise, and why. Later
///          SinkError: "kafka" and "transaction_timeout", after which the batch is tried again, "fenced".
/// Threads: see TransactionalSink.
class TIDEMILL_API KafkaWriter final : public TransactionalSink {
 public:
  explicit KafkaWriter(KafkaSink options);
  ~KafkaWriter() override;

  [[nodiscard]] std::string name() const override;
  void open(const SinkSession& session) override;
  [[nodiscard]] std::optional<Time> last_committed() override;
  void begin(Time batch_time) override;
  /// Waits while the producer's queue (queue.buffering.max.messages, .kbytes) is full.
  template <KafkaWritable T>
  void write(std::span<const T> records) {
    for (const T& record : records) produce(detail::kafka_view(record));
  }
  void commit(const SinkCommit& commit) override;
  void roll_back() noexcept override;
  void close() noexcept override;

 private:
  void produce(const detail::KafkaView& record);

  class Impl;
  std::unique_ptr<Impl> impl_;
};

/// Writes every batch of the stream to Kafka. `name`: as that of DStream::save_to; "kafka:<topic>" when it is empty.
template <class Stream>
  requires KafkaWritable<typename Stream::value_type>
void save_to_kafka(const Stream& stream, KafkaSink sink, std::string name = {}) {
  stream.save_to(std::make_shared<KafkaWriter>(std::move(sink)), std::move(name));
}

}  // namespace tidemill
