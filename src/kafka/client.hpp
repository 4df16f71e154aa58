// librdkafka's client, owned: made of settings that were checked, and talking to whoever is attached at the moment.
#pragma once

#include <cstdint>
#include <librdkafka/rdkafka.h>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

#include "tidemill/core/error.hpp"
#include "tidemill/core/log.hpp"
#include "tidemill/kafka/settings.hpp"

namespace tidemill::detail {

/// "Broker: Not leader for partition (NOT_LEADER_FOR_PARTITION)".
[[nodiscard]] std::string describe(rd_kafka_resp_err_t error);

/// A setting that a user may not give, and why.
struct RefusedSetting {
  std::string_view name;
  std::string_view reason;  ///< ends a sentence: "the checkpoint keeps the offsets"
};

/// librdkafka's configuration while it is put together.
/// Errors: ConfigError naming setting and value.
class KafkaConf {
 public:
  /// `owner`, as "the Kafka source of topic orders", begins the messages.
  explicit KafkaConf(std::string owner);
  void set(const std::string& name, const std::string& value);
  /// What the user gave. Some settings are refused whoever asks.
  void set_all(const KafkaSettings& settings, std::span<const RefusedSetting> refused);
  /// The settings are those that a token source is for; otherwise nobody would ever call it.
  void expect_oauth() const;
  [[nodiscard]] rd_kafka_conf_t* get() const noexcept { return conf_.get(); }
  [[nodiscard]] rd_kafka_conf_t* release() noexcept { return conf_.release(); }
  [[nodiscard]] const std::string& owner() const noexcept { return owner_; }

 private:
  struct Destroy {
    void operator()(rd_kafka_conf_t* conf) const noexcept { rd_kafka_conf_destroy(conf); }
  };
  std::string owner_;
  std::unique_ptr<rd_kafka_conf_t, Destroy> conf_;
};

/// Hears what a client has to say.
/// Threads: any of the client's, one call at a time.
class KafkaObserver {
 public:
  virtual ~KafkaObserver();
  /// Something is wrong, and the client does what it can about it.
  virtual void on_error(const std::string& message) noexcept = 0;
  virtual void on_log(LogLevel level, const std::string& line) noexcept = 0;
  /// Offsets that were to be committed to a group have not been.
  virtual void on_commit_failed(const std::string& message) noexcept { on_error(message); }
  /// A consumer group gives partitions to the client, or takes them: RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS or another. Comes from
  /// the thread that polls a client which has subscribed. The client waits for its rd_kafka_[incremental_](un)assign, here or
  /// later.
  virtual void on_rebalance([[maybe_unused]] rd_kafka_resp_err_t what,
                            [[maybe_unused]] const rd_kafka_topic_partition_list_t& partitions) noexcept {}

 protected:
  KafkaObserver() = default;
  KafkaObserver(const KafkaObserver&) = delete;
  KafkaObserver& operator=(const KafkaObserver&) = delete;
};

/// A consumer or a producer. Its threads end with it. Tokens are fetched by a thread of librdkafka's, since a call that waits for
/// the first connection cannot serve callbacks.
/// Threads: all members any.
class KafkaClient {
 public:
  /// `observer` may be null, and is heard from here to `detach`. Errors: ConfigError.
  KafkaClient(rd_kafka_type_t type, KafkaConf conf, KafkaTokenSource token_source, KafkaObserver* observer);
  ~KafkaClient();
  KafkaClient(const KafkaClient&) = delete;
  KafkaClient& operator=(const KafkaClient&) = delete;

  [[nodiscard]] rd_kafka_t* get() const noexcept { return client_; }
  /// When it has returned the observer is left alone.
  void detach() noexcept;

 private:
  template <class Call>
  void tell(const Call& call) noexcept {
    try {
      const std::scoped_lock lock{mutex_};
      if (observer_ != nullptr) call(*observer_);
    } catch (...) {  // no memory for the words; the client goes on
      return;
    }
  }
  void refresh_token(const char* config) noexcept;
  static KafkaClient& of(const rd_kafka_t* client) noexcept;

  static void on_error(rd_kafka_t* client, int error, const char* reason, void* opaque);
  static void on_log(const rd_kafka_t* client, int level, const char* facility, const char* line);
  static void on_throttle(rd_kafka_t* client, const char* broker, std::int32_t id, int ms, void* opaque);
  static int on_statistics(rd_kafka_t* client, char* json, std::size_t size, void* opaque);
  static void on_commit(rd_kafka_t* client, rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t* offsets,
                        void* opaque);
  static void on_rebalance(rd_kafka_t* client, rd_kafka_resp_err_t what, rd_kafka_topic_partition_list_t* partitions,
                           void* opaque);
  static void on_token(rd_kafka_t* client, const char* config, void* opaque);

  const KafkaTokenSource token_source_;
  std::recursive_mutex mutex_;  // an observer may make the client say something
  KafkaObserver* observer_;     // guarded by mutex_; null: nobody listens
  rd_kafka_t* client_ = nullptr;
};

struct DestroyKafkaList {
  void operator()(rd_kafka_topic_partition_list_t* list) const noexcept { rd_kafka_topic_partition_list_destroy(list); }
};
using KafkaList = std::unique_ptr<rd_kafka_topic_partition_list_t, DestroyKafkaList>;
[[nodiscard]] inline KafkaList make_kafka_list(std::size_t size) {
  return KafkaList{rd_kafka_topic_partition_list_new(static_cast<int>(size))};
}

}  // namespace tidemill::detail
