// The input behind kafka_direct_stream. One thread of ours talks to the brokers: it finds partitions, settles where they begin,
// and puts what arrives into a queue a partition. The driving thread takes ranges out of the queues, and waits for nobody; except
// in `replay`, where what is asked for has to come.
//
// Invariants, quoted by the tests:
//   KF1  The queue of a partition holds the records of [position, fetched), and all of them.
//   KF2  A batch takes [position, until), and the next one begins there.
//   KF3  librdkafka neither commits nor chooses offsets by itself.
//   KF4  What waits in the queues exceeds the budget by one read at most; but for a batch that is run again, and needs more.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <regex>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "kafka/client.hpp"
#include "tidemill/core/function_ref.hpp"
#include "tidemill/io/input.hpp"
#include "tidemill/kafka/source.hpp"

namespace tidemill::detail {

/// A partition's KafkaOrigin, and what that looks at.
struct KafkaOriginOwner {
  explicit KafkaOriginOwner(const KafkaPartition& partition) : topic{partition.topic} {
    origin = {topic, partition.partition, &headers_mutex};
  }
  const std::string topic;
  mutable std::mutex headers_mutex;
  KafkaOrigin origin;
};

/// Messages that belong to us, in order.
class KafkaMessages {
 public:
  KafkaMessages() = default;
  KafkaMessages(KafkaMessages&& other) noexcept
      : all_{std::move(other.all_)}, head_{std::exchange(other.head_, 0)}, bytes_{std::exchange(other.bytes_, 0)} {
    other.all_.clear();
  }
  KafkaMessages& operator=(KafkaMessages&& other) noexcept {
    KafkaMessages mine{std::move(other)};
    std::swap(all_, mine.all_);
    std::swap(head_, mine.head_);
    std::swap(bytes_, mine.bytes_);
    return *this;
  }
  ~KafkaMessages() { clear(); }

  /// Takes it over, unless it throws.
  void add(rd_kafka_message_t* message);
  /// The first so many.
  [[nodiscard]] KafkaMessages take(std::size_t count);
  void clear() noexcept;

  [[nodiscard]] std::size_t size() const noexcept { return all_.size() - head_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] const rd_kafka_message_t& operator[](std::size_t i) const noexcept { return *all_[head_ + i]; }

 private:
  std::vector<rd_kafka_message_t*> all_;
  std::size_t head_ = 0;  // those before it have been taken
  std::size_t bytes_ = 0;
};

/// What one batch takes of one partition.
struct KafkaSlice {
  KafkaOffsetRange range;
  std::shared_ptr<const KafkaOriginOwner> origin;  // shared with the partition and with other batches
  KafkaMessages messages;
};

/// The offset of the next record of each partition: what a checkpoint keeps.
class KafkaPositions final : public DurableState {
 public:
  void set(const KafkaPartition& partition, std::int64_t next);
  [[nodiscard]] const std::map<KafkaPartition, std::int64_t>& all() const noexcept { return all_; }
  /// There is a checkpoint, which says when batches are done.
  [[nodiscard]] bool is_durable() const noexcept { return tracking_; }

  [[nodiscard]] StateSchema schema() const override;
  void track_changes() override { tracking_ = true; }
  void restore(KeyGroup group, std::string_view key, std::string_view value) override;
  void restored(Time) override {}
  void take_changes(StateChanges& to) override;

 private:
  std::map<KafkaPartition, std::int64_t> all_;
  bool tracking_ = false;
  StateChanges changes_;
};

/// The records of the slices; a partition each. `client` lives until their messages have gone.
[[nodiscard]] Batch<KafkaRecord> make_kafka_batch(std::shared_ptr<const Scope> scope,
                                                  std::shared_ptr<KafkaClient> client, std::vector<KafkaSlice> slices);

/// What the settings of a source may not be.
[[nodiscard]] std::span<const RefusedSetting> refused_source_settings() noexcept;

/// "orders[3]".
[[nodiscard]] std::string to_text(const KafkaPartition& partition);

/// Calls `look` for what the brokers know of the topic, or, when that is null, of each topic there is. Errors: SourceError.
void ask_for_topics(rd_kafka_t* client, rd_kafka_topic_t* topic,
                    FunctionRef<void(const rd_kafka_metadata_topic&)> look);
/// Where a stream that begins as `start` says has the first record of a partition. Errors: SourceError.
[[nodiscard]] std::int64_t ask_for_first_offset(rd_kafka_t* client, const KafkaPartition& partition,
                                                const KafkaStart& start);

class TIDEMILL_API KafkaInput final : public Input, private KafkaObserver {
 public:
  /// Errors: ConfigError.
  KafkaInput(const std::string& app_name, KafkaSource source);
  /// Offsets are committed by this member of their group, since a group that has members takes them from nobody else. Before the
  /// start.
  void commit_by(std::shared_ptr<KafkaClient> member) noexcept { member_ = std::move(member); }

  /// Whether it can be read with such an interval; 0: on arrival. Errors: ConfigError.
  void check_gate(Duration batch_interval) const;

  [[nodiscard]] std::string name() const override { return name_; }
  void start(InputHost& host, std::size_t stream_id) override;
  void stop() noexcept override;
  [[nodiscard]] bool has_pending() const noexcept override;
  InputInfo cut(Time t, std::size_t max_records) override;
  [[nodiscard]] std::optional<double> max_rate() const noexcept override;
  void limit_rate(double records_per_second) noexcept override;
  void add_positions(std::vector<InputPosition>& to) const override;
  [[nodiscard]] std::string plan() const override;
  InputInfo replay(Time t, std::string_view plan) override;
  [[nodiscard]] std::shared_ptr<DurableState> durable_state() override { return positions_; }
  void forget_until(Time t) override;

  /// What the last cut took; it can be taken once.
  [[nodiscard]] Batch<KafkaRecord> take_cut(std::shared_ptr<const Scope> scope);

  [[nodiscard]] std::size_t buffered_bytes() const noexcept;
  [[nodiscard]] std::size_t buffered_records() const noexcept;
  /// Partitions whose position is known.
  [[nodiscard]] std::size_t positioned_partitions() const noexcept;

 private:
  using Steady = std::chrono::steady_clock;

  struct Partition {
    explicit Partition(const KafkaPartition& partition)
        : name{partition}, origin{std::make_shared<KafkaOriginOwner>(partition)} {}
    const KafkaPartition name;
    const std::shared_ptr<const KafkaOriginOwner> origin;  // shared with batches
    bool begins_at_start = false;                          // as KafkaSource::start says; else at its first record
    std::optional<std::int64_t> position;                  // what the next batch takes first; absent: not known yet
    std::int64_t fetched = 0;                              // [KF1]
    KafkaMessages queue;
    enum class State : std::uint8_t { unassigned, assigned, to_move } state = State::unassigned;
    bool is_paused = false;
    bool is_at_end = false;               // a broker has nothing behind `fetched`
    bool is_awaited = false;              // by replay
    std::optional<std::int64_t> back_to;  // once the queue is empty: the partition ends before `fetched`
    std::string loss;                     // why it cannot go on: data that is not there any more
    std::uint64_t lost = 0;               // records left out since the last cut
    std::size_t batch_limit = no_limit;   // of the last cut
    double tokens = 0;                    // without an interval: records that may be taken now
  };
  static constexpr std::size_t no_limit = std::numeric_limits<std::size_t>::max();

  // Heard from any thread.
  void on_error(const std::string& message) noexcept override;
  void on_log(LogLevel level, const std::string& line) noexcept override;
  void complain(const std::string& message) noexcept;
  void complain_once(const std::string& message);

  // The thread's own; without the lock.
  void run() noexcept;
  void discover();
  void add_topic(const rd_kafka_metadata_topic& topic, bool is_new);
  void add_partition(const KafkaPartition& partition, bool begins_at_start);
  bool settle_positions();
  void assign();
  bool fetch();
  void take_in(rd_kafka_message_t* message);
  void hear(const rd_kafka_message_t& message);
  void on_lost_position(const KafkaPartition& partition);
  void pause_and_resume();

  // With the lock.
  [[nodiscard]] Partition* find(const char* topic, std::int32_t partition);
  [[nodiscard]] bool has_rate() const noexcept;
  [[nodiscard]] bool may_fetch() const noexcept { return buffered_ < source_.max_buffered_bytes || replaying_; }
  void fill_tokens(Time now);
  void limit_batch(std::size_t max_records, std::vector<std::size_t>& takes);
  void take(Partition& partition, std::size_t records, std::int64_t until);
  [[nodiscard]] InputInfo describe_cut();
  [[nodiscard]] std::optional<std::uint64_t> lag_of(const Partition& partition) const;
  void throw_losses() const;
  void note_commit(Time t);
  void commit_last() noexcept;

  KafkaSource source_;
  const std::string name_;
  std::optional<std::regex> pattern_;
  std::optional<KafkaConf> conf_;        // until the start
  std::shared_ptr<KafkaClient> client_;  // shared with batches: their messages need it
  std::shared_ptr<KafkaClient> member_;  // shared with a KafkaGroup; null: none
  std::shared_ptr<KafkaPositions> positions_ = std::make_shared<KafkaPositions>();  // shared with the engine
  InputHost* host_ = nullptr;                                                       // null when not started
  std::size_t stream_id_ = 0;
  std::thread thread_;
  rd_kafka_queue_t* queue_ = nullptr;
  WakeUp bell_;  // of the thread: something lies in librdkafka's queue, or has changed here

  // The thread's own.
  std::map<std::string, rd_kafka_topic_t*> topics_;
  std::set<std::string> known_topics_;  // whose partitions were once looked at, or that were not there
  bool looked_ = false;
  bool is_fresh_ = false;  // no checkpoint knows any partition; fixed at the start
  std::string last_complaint_;

  // The driving thread's own.
  std::vector<KafkaSlice> cut_;
  std::vector<KafkaOffsetRange> cut_ranges_;
  std::deque<std::pair<Time, std::map<KafkaPartition, std::int64_t>>> ends_;  // of batches that are not done
  std::map<KafkaPartition, std::int64_t> done_;                               // up to where the group has been told
  std::size_t first_to_take_ = 0;                                             // whose turn it is when a cut is small

  mutable std::mutex mutex_;         // guards what follows; no callback of librdkafka's takes it
  std::condition_variable changed_;  // something has come, for replay
  bool stopping_ = false;
  bool replaying_ = false;  // what is awaited comes in whatever the budget says
  std::map<KafkaPartition, std::unique_ptr<Partition>> partitions_;
  std::size_t buffered_ = 0;    // bytes in the queues
  std::optional<Time> filled_;  // the tokens
  double rate_ = unlimited_rate;
  std::atomic<std::size_t> partition_count_ = 0;
  std::atomic<std::size_t> waiting_records_ = 0;
};

/// The stream of an input that nobody else has.
[[nodiscard]] TIDEMILL_API DStream<KafkaRecord> make_kafka_stream(StreamingContext& ssc,
                                                                  const std::shared_ptr<KafkaInput>& input);

}  // namespace tidemill::detail
