// Kafka as a source: each batch is a range of offsets of every partition. The ranges are fixed when the batch is cut, durable
// before it runs (with a checkpoint), and read again, exactly, by a run that continues one which did not finish it.
//
//     auto orders = kafka_direct_stream(ssc, {.brokers = "localhost:9092", .topics = {"orders"}});
//     orders.map([](const KafkaRecord& order) { return order.value(); })...
//     orders.foreach_batch([](const Batch<KafkaRecord>& batch) { store(offset_ranges(batch), batch); });
//
// A partition of Kafka is a partition of the batch, in order of topic and number. docs/howto/use-kafka.md has every option.
// Source: Spark `KafkaUtils.createDirectStream`. [I10]
#pragma once

#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/dstream/dstream.hpp"
#include "tidemill/dstream/streaming_context.hpp"
#include "tidemill/io/inbox.hpp"
#include "tidemill/kafka/record.hpp"
#include "tidemill/kafka/settings.hpp"

namespace tidemill {

struct KafkaPartition {
  std::string topic;
  std::int32_t partition = 0;
  friend auto operator<=>(const KafkaPartition&, const KafkaPartition&) = default;
};

/// The records [from, until) of a partition. Not every offset need have one: Kafka compacts, and marks ends of transactions.
struct KafkaOffsetRange {
  std::string topic;
  std::int32_t partition = 0;
  std::int64_t from = 0;
  std::int64_t until = 0;
  friend bool operator==(const KafkaOffsetRange&, const KafkaOffsetRange&) = default;
};

/// Where a stream begins that has no checkpoint to go on from.
struct KafkaStart {
  enum class At : std::uint8_t {
    latest,    ///< what comes from now on
    earliest,  ///< the first record that is there
    time,      ///< the first record, or mark of a transaction, of this timestamp or later; else what comes from now on
    offsets,   ///< these offsets; a partition that is not named begins at its first record
  };
  At at = At::latest;
  Time time{};
  std::map<KafkaPartition, std::int64_t> offsets = {};

  [[nodiscard]] static KafkaStart latest() { return {}; }
  [[nodiscard]] static KafkaStart earliest() { return {.at = At::earliest}; }
  [[nodiscard]] static KafkaStart from(Time time) { return {.at = At::time, .time = time}; }
  [[nodiscard]] static KafkaStart from(std::map<KafkaPartition, std::int64_t> offsets) {
    return {.at = At::offsets, .time = {}, .offsets = std::move(offsets)};
  }
};

struct KafkaSource {
  std::string brokers;  ///< "host:port,host:port"

  // One of these says what is read.
  std::vector<std::string> topics = {};
  std::string topic_pattern = {};  ///< a regular expression (ECMAScript) for whole names of topics
  std::vector<KafkaPartition> partitions = {};

  KafkaStart start = {};
  KafkaIsolation isolation = KafkaIsolation::read_committed;

  /// Records that should be read and are not there any more: deleted by retention, or with their topic. True: no batch is cut
  /// (SourceError "kafka_data_loss", which names the offsets). False: they are left out, reported and counted.
  bool fail_on_data_loss = true;
  /// How often it is looked for new partitions and topics, which are read from their first record on; above 0.
  Duration discovery_interval = std::chrono::seconds{60};
  /// How long a batch that is run again waits for brokers that cannot be reached, before it fails; above 0.
  Duration stall_timeout = std::chrono::minutes{5};

  /// Records a second of each partition at most; above 0. [BP1, BP8]
  double max_rate_per_partition = unlimited_rate;
  /// Records that a batch may take of each partition however low the rate; at least 1. An estimate of the backpressure is shared
  /// among the partitions by their lag.
  std::size_t min_records_per_partition = 1;
  /// Fetched records wait for a batch in at most so many bytes, all partitions together and what librdkafka spends on a record
  /// included; a quarter more may wait in librdkafka, and one fetch of each broker. At least 1 MiB.
  std::size_t max_buffered_bytes = std::size_t{128} << 20;

  /// The consumer group under which brokers know us; empty: "tidemill-" and the name of the application. Partitions are never
  /// assigned by the group.
  std::string group_id = {};
  /// Commits offsets to the group, for tools that watch its lag: with a checkpoint when batches are durable, without one when the
  /// next batch is cut. They are never read. Needs a group_id.
  bool commit_offsets = false;

  /// What else librdkafka shall be told. What is given by a member here, or would break what is promised, is refused.
  KafkaSettings settings = {};
  /// For the setting sasl.mechanisms=OAUTHBEARER.
  KafkaTokenSource token_source = nullptr;
};

/// The records of Kafka. Errors: ConfigError naming the setting; from the batches SourceError.
[[nodiscard]] TIDEMILL_API DStream<KafkaRecord> kafka_direct_stream(StreamingContext& ssc, KafkaSource source);

/// What a batch of such a stream holds, by partition: the i-th range is that of the batch's partition i.
/// Errors: PlanError "no_offset_ranges" for another batch; those made of it by operators have no ranges.
/// Source: Spark `HasOffsetRanges`.
[[nodiscard]] TIDEMILL_API const std::vector<KafkaOffsetRange>& offset_ranges(const Batch<KafkaRecord>& batch);

namespace detail {

/// What a batch takes, in the bytes of a checkpoint. Errors: StateError for bytes that are no such ranges.
[[nodiscard]] TIDEMILL_API std::vector<KafkaOffsetRange> kafka_ranges_of_plan(std::string_view plan);

}  // namespace detail
}  // namespace tidemill
