// A cluster of Kafka brokers inside this process, for tests and demonstrations: librdkafka's mock cluster. It speaks the protocol
// on ports of the loopback, keeps 5 MiB a partition, and can be told to fail. It knows nothing of transactions: what belongs to
// one that was aborted is there for every reader.
//
//     testing::MockKafka kafka;
//     kafka.create_topic("words", 2);
//     kafka.produce("words", 0, {{.key = "a", .value = "1"}});
//     auto words = kafka_direct_stream(ssc, {.brokers = kafka.brokers(), .topics = {"words"}});
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tidemill/core/config.hpp"

namespace tidemill::testing {

/// A record as it is produced or read back.
struct MockRecord {
  std::optional<std::string> key = std::nullopt;
  std::optional<std::string> value = std::nullopt;
  std::vector<std::pair<std::string, std::optional<std::string>>> headers = {};
  std::int64_t timestamp_ms = 0;  ///< 0: now
  std::int64_t offset = -1;       ///< of one that was read
};

/// Errors: SourceError with librdkafka's words, when the cluster does not do what it is told.
/// Threads: one at a time.
class TIDEMILL_API MockKafka {
 public:
  explicit MockKafka(int brokers = 1);
  ~MockKafka();
  MockKafka(const MockKafka&) = delete;
  MockKafka& operator=(const MockKafka&) = delete;

  /// For `bootstrap.servers`.
  [[nodiscard]] const std::string& brokers() const noexcept { return brokers_; }

  void create_topic(const std::string& name, int partitions);
  /// Returns when the cluster has them, so not while it is down.
  void produce(const std::string& topic, std::int32_t partition, const std::vector<MockRecord>& records);
  /// What a partition holds now, from its first record on.
  [[nodiscard]] std::vector<MockRecord> read(const std::string& topic, std::int32_t partition);
  /// The offsets of the first record that is there, and of the next one to come.
  [[nodiscard]] std::pair<std::int64_t, std::int64_t> offsets(const std::string& topic, std::int32_t partition);
  /// What a consumer group has committed: the offset of the record that it would read next; absent: nothing.
  [[nodiscard]] std::optional<std::int64_t> committed(const std::string& group, const std::string& topic,
                                                      std::int32_t partition);

  /// Brokers are numbered from 1; absent: all.
  void set_down(std::optional<int> broker = std::nullopt);
  void set_up(std::optional<int> broker = std::nullopt);
  void set_round_trip(std::chrono::milliseconds time);
  void set_leader(const std::string& topic, std::int32_t partition, int broker);
  /// The next requests of a kind to a broker (Kafka's number: 0 produce, 1 fetch, 2 list offsets, 3 metadata, …) are answered by
  /// these errors (Kafka's or librdkafka's numbers), one each.
  void fail_requests(std::int16_t api_key, std::span<const int> errors, int broker = 1);
  /// From now on whoever asks for the topic is answered by this error, such as 3, that there is none; 0: as before.
  void fail_topic(const std::string& topic, int error);
  /// How many of the failures of `fail_requests` are left.
  [[nodiscard]] std::size_t failures_left(std::int16_t api_key, int broker = 1) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
  std::string brokers_;
};

}  // namespace tidemill::testing
