#include "kafka/client.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <utility>
#include <vector>

namespace tidemill::detail {

namespace {

constexpr RefusedSetting refused_anywhere[] = {
    {"log.queue", "the log goes to that of the context in any case"},
    {"enable.random.seed", "it would seed the host's random numbers"},
    {"enabled_events", "errors and reports of deliveries would go where nobody hears them"},
    {"enable_sasl_queue", "token_source decides that"},
    {"internal.termination.signal", "it would put a signal handler into the host"},
    {"test.mock.num.brokers",
     "a cluster of its own would take the place of the brokers; a test has testing::MockKafka"},
};

}  // namespace

std::string describe(rd_kafka_resp_err_t error) {
  return std::string{rd_kafka_err2str(error)} + " (" + rd_kafka_err2name(error) + ')';
}

KafkaObserver::~KafkaObserver() = default;

KafkaConf::KafkaConf(std::string owner) : owner_{std::move(owner)}, conf_{rd_kafka_conf_new()} {}

void KafkaConf::set(const std::string& name, const std::string& value) {
  std::array<char, 512> why{};
  if (rd_kafka_conf_set(conf_.get(), name.c_str(), value.c_str(), why.data(), why.size()) == RD_KAFKA_CONF_OK) return;
  const bool is_secret = name.find("password") != std::string::npos || name.find("secret") != std::string::npos;
  throw ConfigError(owner_ + ": the setting \"" + name + "\" cannot be \"" + (is_secret ? "..." : value) +
                    "\": " + why.data());
}

void KafkaConf::set_all(const KafkaSettings& settings, std::span<const RefusedSetting> refused) {
  for (const auto& [name, value] : settings) {
    for (const auto some : {refused, std::span<const RefusedSetting>{refused_anywhere}}) {
      const auto found = std::find_if(some.begin(), some.end(),
                                      [&name = name](const RefusedSetting& one) { return one.name == name; });
      if (found != some.end())
        throw ConfigError(owner_ + ": the setting \"" + name + "\" may not be given: " + std::string{found->reason});
    }
    set(name, value);
  }
}

void KafkaConf::expect_oauth() const {
  const auto expect = [this](const char* name, std::string_view words, const char* wanted) {
    std::array<char, 512> value{};
    std::size_t size = value.size();
    rd_kafka_conf_get(conf_.get(), name, value.data(), &size);
    const std::string_view given = value.data();
    const bool is_there = std::search(given.begin(), given.end(), words.begin(), words.end(), [](char a, char b) {
                            return std::tolower(static_cast<unsigned char>(a)) == b;
                          }) != given.end();
    if (!is_there)
      throw ConfigError(owner_ + ": token_source would never be called, since the setting \"" + name + "\" is \"" +
                        value.data() + "\"; set it to \"" + wanted + "\", or leave token_source out");
  };
  expect("sasl.mechanisms", "oauthbearer", "OAUTHBEARER");
  expect("security.protocol", "sasl", "sasl_ssl");
}

KafkaClient::KafkaClient(rd_kafka_type_t type, KafkaConf conf, KafkaTokenSource token_source, KafkaObserver* observer)
    : token_source_{std::move(token_source)}, observer_{observer} {
  rd_kafka_conf_set_opaque(conf.get(), this);
  rd_kafka_conf_set_error_cb(conf.get(), &on_error);
  rd_kafka_conf_set_log_cb(conf.get(), &on_log);
  rd_kafka_conf_set_throttle_cb(conf.get(), &on_throttle);
  rd_kafka_conf_set_stats_cb(conf.get(), &on_statistics);
  if (type == RD_KAFKA_CONSUMER) {
    rd_kafka_conf_set_offset_commit_cb(conf.get(), &on_commit);
    rd_kafka_conf_set_rebalance_cb(conf.get(), &on_rebalance);
  }
  if (token_source_) {
    rd_kafka_conf_set_oauthbearer_token_refresh_cb(conf.get(), &on_token);
    rd_kafka_conf_enable_sasl_queue(conf.get(), 1);
  }
  std::array<char, 512> why{};
  client_ = rd_kafka_new(type, conf.get(), why.data(), why.size());
  if (client_ == nullptr) throw ConfigError(conf.owner() + ": " + why.data());
  static_cast<void>(conf.release());  // it belongs to the client now
  if (!token_source_) return;
  if (rd_kafka_error_t* const error = rd_kafka_sasl_background_callbacks_enable(client_)) {
    const std::string reason = rd_kafka_error_string(error);
    rd_kafka_error_destroy(error);
    rd_kafka_destroy(client_);
    throw ConfigError(conf.owner() + ": no thread for token_source: " + reason);
  }
}

KafkaClient::~KafkaClient() {
  // Without a consumer that was closed before, this would wait for callbacks that nobody serves.
  rd_kafka_destroy_flags(client_, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}

void KafkaClient::detach() noexcept {
  const std::scoped_lock lock{mutex_};
  observer_ = nullptr;
}

KafkaClient& KafkaClient::of(const rd_kafka_t* client) noexcept {
  return *static_cast<KafkaClient*>(rd_kafka_opaque(client));
}

void KafkaClient::on_error(rd_kafka_t* client, int error, const char* reason, void*) {
  of(client).tell([&](KafkaObserver& observer) {
    auto code = static_cast<rd_kafka_resp_err_t>(error);
    std::string text = reason;
    if (code == RD_KAFKA_RESP_ERR__FATAL) {
      std::array<char, 512> fatal{};
      code = rd_kafka_fatal_error(client, fatal.data(), fatal.size());
      text = std::string{"fatal: "} + fatal.data();
    }
    observer.on_error(describe(code) + ": " + text);
  });
}

void KafkaClient::on_log(const rd_kafka_t* client, int level, const char* facility, const char* line) {
  of(client).tell([&](KafkaObserver& observer) {
    constexpr int error = 3;  // of syslog, as the next ones
    constexpr int warning = 4;
    constexpr int info = 6;
    observer.on_log(level <= error     ? LogLevel::error
                    : level <= warning ? LogLevel::warning
                    : level <= info    ? LogLevel::info
                                       : LogLevel::debug,
                    std::string{facility} + ": " + line);
  });
}

void KafkaClient::on_throttle(rd_kafka_t* client, const char* broker, std::int32_t id, int ms, void*) {
  if (ms == 0) return;
  of(client).tell([&](KafkaObserver& observer) {
    observer.on_error("broker " + std::string{broker} + " (" + std::to_string(id) + ") holds us back for " +
                      std::to_string(ms) + " ms: a quota is used up");
  });
}

int KafkaClient::on_statistics(rd_kafka_t* client, char* json, std::size_t size, void*) {
  of(client).tell(
      [&](KafkaObserver& observer) { observer.on_log(LogLevel::info, "statistics: " + std::string(json, size)); });
  return 0;  // librdkafka frees the text
}

void KafkaClient::on_commit(rd_kafka_t* client, rd_kafka_resp_err_t error, rd_kafka_topic_partition_list_t* offsets,
                            void*) {
  if (error == RD_KAFKA_RESP_ERR__NO_OFFSET) return;
  std::string failed;
  if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
    failed = describe(error);
  } else {
    for (int i = 0; offsets != nullptr && i < offsets->cnt; ++i) {
      const rd_kafka_topic_partition_t& one = offsets->elems[i];
      if (one.err == RD_KAFKA_RESP_ERR_NO_ERROR) continue;
      if (!failed.empty()) failed += "; ";
      failed += std::string{one.topic} + '[' + std::to_string(one.partition) + "]: " + describe(one.err);
    }
  }
  if (failed.empty()) return;
  of(client).tell([&](KafkaObserver& observer) {
    observer.on_commit_failed("offsets could not be committed to the consumer group: " + failed);
  });
}

void KafkaClient::on_rebalance(rd_kafka_t* client, rd_kafka_resp_err_t what,
                               rd_kafka_topic_partition_list_t* partitions, void*) {
  of(client).tell([&](KafkaObserver& observer) { observer.on_rebalance(what, *partitions); });
}

void KafkaClient::on_token(rd_kafka_t* client, const char* config, void*) { of(client).refresh_token(config); }

void KafkaClient::refresh_token(const char* config) noexcept {
  std::string failure;
  try {
    const KafkaToken token = token_source_(config != nullptr ? std::string_view{config} : std::string_view{});
    std::vector<const char*> extensions;
    for (const auto& [name, value] : token.extensions) {
      extensions.push_back(name.c_str());
      extensions.push_back(value.c_str());
    }
    const auto expires =
        std::chrono::duration_cast<std::chrono::milliseconds>(token.expires.time_since_epoch()).count();
    std::array<char, 512> why{};
    if (rd_kafka_oauthbearer_set_token(client_, token.value.c_str(), expires, token.principal.c_str(),
                                       extensions.data(), extensions.size(), why.data(),
                                       why.size()) != RD_KAFKA_RESP_ERR_NO_ERROR)
      failure = why.data();
  } catch (const std::exception& error) {
    failure = error.what();
  } catch (...) {
    failure = "the token source threw something that is no std::exception";
  }
  if (!failure.empty()) rd_kafka_oauthbearer_set_token_failure(client_, failure.c_str());  // which is an error in turn
}

}  // namespace tidemill::detail
