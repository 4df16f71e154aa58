// N copies of a program that share the partitions of Kafka topics, by a consumer group: start another copy, and it takes over
// some partitions; kill one, and the others take over its own. Each partition is a stream of its own, with its own states, so
// that both move with it.
//
//     KafkaGroup group{context,
//                      {.source = {.brokers = "localhost:9092", .topics = {"orders"}, .group_id = "totals"},
//                       .checkpoint = "/var/lib/totals"},
//                      [](StreamingContext&, const DStream<KafkaRecord>& orders, const KafkaPartition&) {
//                        const auto amounts = orders.map(amount_by_customer).keyed_by_partition();
//                        save_to_kafka(amounts.map_with_state(totals).map(to_text), {…});
//                      }};
//     group.start();
//     group.await_termination();
//
// Every partition that comes to this copy has a StreamingContext, whose checkpoint lies in the directory that all copies
// share. So whatever holds for a context with a checkpoint holds for it: who takes a partition over finds its states, runs the
// batch again that was not finished, and goes on behind it; a sink that writes exactly once does so across the change. What
// works on records of several partitions at once is refused (PlanError "needs_whole_input"). The page
// docs/howto/run-n-copies.md has the rest.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/dstream/streaming_context.hpp"
#include "tidemill/kafka/settings.hpp"
#include "tidemill/kafka/source.hpp"

namespace tidemill {

struct KafkaGroupOptions {
  /// What is read, and the group: topics and group_id must be given, and no partitions or pattern. `start` is settled once, by
  /// the first copy that ever starts; partitions that are added later are read from their first record on. max_buffered_bytes
  /// is for all partitions together that this copy may come to have.
  KafkaSource source;
  /// A directory that all copies see, and that belongs to this group; its parent exists. It needs locks and syncs that hold
  /// between the machines on which the copies run.
  std::filesystem::path checkpoint;
  /// Absent: a batch of a partition as soon as anything has arrived.
  std::optional<Duration> batch_interval = std::nullopt;
  /// Of the context of each partition; and so is `recovery`.
  StreamingOptions streaming = {};
  RecoveryOptions recovery = {};
  /// Settings of librdkafka for the member of the group only, such as session.timeout.ms (45 s unless given: how long a copy that
  /// was killed keeps its partitions), group.instance.id and partition.assignment.strategy (cooperative-sticky unless given).
  KafkaSettings membership = {};
};

/// Derive from it and override what you want to hear.
/// Threads: threads of the group, one call at a time; so be quick. What a listener throws is logged and forgotten.
class TIDEMILL_API KafkaGroupListener {
 public:
  virtual ~KafkaGroupListener();
  /// The partition has its states, and its batches run here from now on.
  virtual void on_partition_taken([[maybe_unused]] const KafkaPartition& partition) {}
  /// The group wants it elsewhere, or the copy is to stop: its batches end with the one that runs.
  virtual void on_partition_leaving([[maybe_unused]] const KafkaPartition& partition) {}
  /// Its batches have ended here, and its checkpoint is free for another copy.
  virtual void on_partition_given_up([[maybe_unused]] const KafkaPartition& partition) {}
  /// What the group's client complains about, and why a partition cannot be taken yet.
  virtual void on_error([[maybe_unused]] const std::string& message) {}
};

/// One copy.
/// Threads: any thread may call any member.
class TIDEMILL_API KafkaGroup {
 public:
  /// Builds the streams of a partition, in a context that is started when this returns. It is called whenever a partition
  /// comes to this copy, and again when it could not be started because another copy had not given it up yet; one call at a time.
  using Setup =
      std::function<void(StreamingContext& ssc, const DStream<KafkaRecord>& records, const KafkaPartition& partition)>;

  /// Errors: ConfigError naming the value.
  KafkaGroup(const Context& context, KafkaGroupOptions options, Setup setup);
  /// Stops at once when it is still active.
  ~KafkaGroup();
  KafkaGroup(const KafkaGroup&) = delete;
  KafkaGroup& operator=(const KafkaGroup&) = delete;

  /// Joins the group, and returns without waiting for it. Once. Errors: PlanError "illegal_state" the second time; StateError
  /// "checkpoint_damaged", "newer_format", and "incompatible_checkpoint" when the directory is another group's; FsError.
  void start();
  /// Gives up all partitions, leaves the group, and returns when that is done. The running batches are finished; `graceful` first
  /// runs batches until nothing that was fetched is left. Not from functions that the group calls.
  void stop(StopMode mode = StopMode::immediate);
  /// Asks for that without waiting.
  void request_stop(StopMode mode = StopMode::immediate);
  /// Waits until the group has stopped, or throws its first error: that of a partition's context, from then on as
  /// RecoveryOptions::failed_batch says. When a context ends, so does the group, and other copies take its partitions over.
  void await_termination();
  /// The same for at most `timeout`; false when that has passed.
  [[nodiscard]] bool await_termination_or_timeout(std::chrono::nanoseconds timeout);

  /// Those whose batches run here now, in order.
  [[nodiscard]] std::vector<KafkaPartition> partitions() const;
  [[nodiscard]] std::map<KafkaPartition, StreamingMetrics> metrics() const;

  void add_listener(std::shared_ptr<KafkaGroupListener> listener);

 private:
  class Impl;
  class Share;
  std::unique_ptr<Impl> impl_;
};

namespace detail {

/// Where the partitions of a group began that were there when its first copy started: the file GROUP of its directory.
struct KafkaGroupOrigin {
  std::string group_id;
  std::map<KafkaPartition, std::int64_t> first;  ///< the offset of the first record of each
};
[[nodiscard]] TIDEMILL_API std::string encode_kafka_group_origin(const KafkaGroupOrigin& origin);
/// Errors: StateError "checkpoint_damaged", "newer_format".
[[nodiscard]] TIDEMILL_API KafkaGroupOrigin decode_kafka_group_origin(std::string_view bytes);

}  // namespace detail
}  // namespace tidemill
