// What only a real broker can show of the source and the sink by themselves, within this process: transactions that were rolled
// back or are open, the start by a time, topics that nobody makes, and tokens.
#pragma once

#include <cstdint>

#include "harness.hpp"
#include <tidemill/kafka/sink.hpp>
#include <tidemill/kafka/source.hpp>
#include <tidemill/tidemill.hpp>

namespace tidemill_integration {

using tidemill::KafkaIsolation;
using tidemill::KafkaStart;
using Strings = std::vector<std::string>;

/// A transaction of a producer of its own, which can be left open.
class Transaction {
 public:
  Transaction(const std::string& brokers, std::string topic, const std::string& id)
      : topic_{std::move(topic)},
        client_{client(RD_KAFKA_PRODUCER, {{"bootstrap.servers", brokers}, {"transactional.id", id}})} {
    check(rd_kafka_init_transactions(client_, 30'000));
    check(rd_kafka_begin_transaction(client_));
  }
  ~Transaction() { rd_kafka_destroy(client_); }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  /// Of a time in ms. The broker has it when this returns.
  void write(const std::string& value, std::int64_t time) {
    if (rd_kafka_producev(client_, RD_KAFKA_V_TOPIC(topic_.c_str()), RD_KAFKA_V_PARTITION(0),
                          RD_KAFKA_V_VALUE(const_cast<char*>(value.data()), value.size()),
                          RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_TIMESTAMP(time),
                          RD_KAFKA_V_END) != RD_KAFKA_RESP_ERR_NO_ERROR ||
        rd_kafka_flush(client_, 30'000) != RD_KAFKA_RESP_ERR_NO_ERROR)
      fail("a record of a transaction could not be written");
  }
  void commit() { check(rd_kafka_commit_transaction(client_, 30'000)); }
  void roll_back() { check(rd_kafka_abort_transaction(client_, 30'000)); }

 private:
  static void check(rd_kafka_error_t* error) {
    if (error == nullptr) return;
    const std::string why = rd_kafka_error_string(error);
    rd_kafka_error_destroy(error);
    fail("a transaction: " + why);
  }
  const std::string topic_;
  rd_kafka_t* client_;
};

/// A program that reads partition 0 of a topic, from its construction on.
class Stream final : public tidemill::StreamingListener {
 public:
  explicit Stream(const tidemill::KafkaSource& source)
      : context_{{.app_name = "stream", .parallelism = 1, .log = [](tidemill::LogLevel, std::string_view) {}}},
        ssc_{context_, 20ms} {
    tidemill::kafka_direct_stream(ssc_, source)
        .foreach_batch([this](const tidemill::Batch<tidemill::KafkaRecord>& batch) {
          const auto records = batch.collect();
          const std::scoped_lock lock{mutex_};
          for (const auto& record : records) values_.push_back(record.value.value_or(""));
          for (const tidemill::KafkaOffsetRange& range : tidemill::offset_ranges(batch)) {
            if (!ranges_.empty() && ranges_.back().second != range.from) has_gap_ = true;
            ranges_.emplace_back(range.from, range.until);
          }
        });
    ssc_.add_listener(std::shared_ptr<StreamingListener>{std::shared_ptr<void>{}, this});
    ssc_.start();
  }
  ~Stream() override { static_cast<void>(ssc_.stop()); }

  void on_batch_completed(const tidemill::BatchInfo& batch) override {
    const std::scoped_lock lock{mutex_};
    lag_ = batch.inputs.at(0).lag;
  }
  /// Once its batches reach up to that offset: what they had.
  [[nodiscard]] Strings until(std::int64_t offset) {
    static_cast<void>(await([&] { return end() >= offset; }));
    const std::scoped_lock lock{mutex_};
    return values_;
  }
  [[nodiscard]] std::int64_t begin() {
    const std::scoped_lock lock{mutex_};
    return ranges_.empty() ? -1 : ranges_.front().first;
  }
  [[nodiscard]] std::int64_t end() {
    const std::scoped_lock lock{mutex_};
    return ranges_.empty() ? -1 : ranges_.back().second;
  }
  [[nodiscard]] bool has_gap() {
    const std::scoped_lock lock{mutex_};
    return has_gap_;
  }
  [[nodiscard]] bool comes_to_lag(std::uint64_t records) {
    return await([&] {
      const std::scoped_lock lock{mutex_};
      return lag_ == records;
    });
  }

 private:
  std::mutex mutex_;  // guards what follows
  Strings values_;
  std::vector<std::pair<std::int64_t, std::int64_t>> ranges_;
  bool has_gap_ = false;
  std::optional<std::uint64_t> lag_;
  const tidemill::Context context_;
  tidemill::StreamingContext ssc_;
};

// Offsets:  0  1  2  3       4  5  6            7  8       9        10
//           a0 a1 a2 commit  b0 b1 rolled back  c0 commit  d0 open  rolled back, later
inline bool isolation_and_time(const std::string& brokers) {
  constexpr const char* topic = "isolation";
  std::cout << "isolation and time" << std::endl;
  make_topic(brokers, topic, 1);
  const std::int64_t begin =  // young enough to be kept
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count() -
      3'600'000;
  const auto second = [&](int n) { return begin + n * 1000; };
  {
    Transaction a{brokers, topic, "a"};
    for (int i = 0; i < 3; ++i) a.write('a' + std::to_string(i), second(i));
    a.commit();
    Transaction b{brokers, topic, "b"};
    for (int i = 0; i < 2; ++i) b.write('b' + std::to_string(i), second(3 + i));
    b.roll_back();
    Transaction c{brokers, topic, "c"};
    c.write("c0", second(5));
    c.commit();
  }
  Transaction open{brokers, topic, "d"};
  open.write("d0", second(6));

  const auto reading = [&](KafkaStart start, KafkaIsolation isolation = KafkaIsolation::read_committed) {
    return tidemill::KafkaSource{
        .brokers = brokers, .topics = {topic}, .start = std::move(start), .isolation = isolation};
  };
  const auto from = [&](int n, int ms = 0) {
    return KafkaStart::from(tidemill::Time{std::chrono::milliseconds{second(n) + ms}});
  };
  Stream committed{reading(KafkaStart::earliest())};
  Stream all{reading(KafkaStart::earliest(), KafkaIsolation::read_uncommitted)};
  bool good =
      expect(all.until(10) == Strings{"a0", "a1", "a2", "b0", "b1", "c0", "d0"}, "read_uncommitted gives every record");
  good = expect(all.comes_to_lag(0), "its lag comes to 0 behind an open transaction") && good;
  good = expect(committed.until(9) == Strings{"a0", "a1", "a2", "c0"},
                "read_committed leaves out what was rolled back, and waits before what is open") &&
         good;
  good = expect(committed.comes_to_lag(1), "what is open is its lag") && good;
  good = expect(committed.end() == 9, "no range passes the open transaction") && good;
  {
    Stream third{reading(from(2))};
    good = expect(third.until(9) == Strings{"a2", "c0"} && third.begin() == 2, "the start by the time of a record") &&
           good;
    Stream between{reading(from(0, 1))};
    good = expect(between.until(9) == Strings{"a1", "a2", "c0"} && between.begin() == 1,
                  "the start by a time between two records") &&
           good;
    Stream rolled_back{reading(from(4))};  // the mark at 3 is as young as this run, and brokers look at it too
    good = expect(rolled_back.until(9) == Strings{"c0"} && rolled_back.begin() == 3,
                  "the start by the time of a record that was rolled back") &&
           good;
    Stream early{reading(KafkaStart::from(tidemill::Time{}))};
    good = expect(early.until(9) == Strings{"a0", "a1", "a2", "c0"} && early.begin() == 0,
                  "the start by a time before all records") &&
           good;
  }
  open.roll_back();
  good =
      expect(committed.until(11) == Strings{"a0", "a1", "a2", "c0"}, "what is rolled back later never comes") && good;
  good = expect(committed.comes_to_lag(0), "the lag comes to 0 where marks of transactions are the last") && good;
  good = expect(committed.end() == 11 && !committed.has_gap(), "the ranges join, and end behind the last mark") && good;
  Stream late{reading(from(7200))};
  good =
      expect(await([&] { return late.begin() == 11; }), "a time that no record has is what comes from now on") && good;
  {
    Transaction e{brokers, topic, "e"};
    e.write("e0", second(7));
    e.commit();
  }
  good = expect(late.until(13) == Strings{"e0"} && late.comes_to_lag(0), "what comes from now on") && good;
  return expect(committed.until(13) == Strings{"a0", "a1", "a2", "c0", "e0"} && committed.comes_to_lag(0) &&
                    !committed.has_gap(),
                "behind the marks it goes on") &&
         good;
}

/// A batch of at_least_once or exactly_once, beyond any context. Absent: it went well; else how it failed.
inline std::optional<std::string> failure_of_batch(const tidemill::KafkaSink& sink,
                                                   const tidemill::KafkaMessage& message) {
  try {
    tidemill::KafkaWriter writer{sink};
    writer.open({.name = "out", .id = "writer-of-" + sink.topic, .has_checkpoint = true, .runtime = nullptr});
    const tidemill::Time t{1s};
    writer.begin(t);
    writer.write(std::span{&message, 1});
    writer.commit({.batch_time = t, .positions = {}});
    return std::nullopt;
  } catch (const tidemill::Error& error) {
    return error.what();
  }
}

// The broker makes no topics.
inline bool topics_that_are_not_there(const std::string& brokers) {
  std::cout << "topics that are not there" << std::endl;
  make_topic(brokers, "there", 1);
  bool good = true;
  for (const auto delivery : {tidemill::KafkaDelivery::at_least_once, tidemill::KafkaDelivery::exactly_once}) {
    const auto began = std::chrono::steady_clock::now();
    const auto failure =
        failure_of_batch({.brokers = brokers, .topic = "nowhere", .delivery = delivery}, {.value = "x"});
    good = expect(failure && failure->find("the topic \"nowhere\" is not there") != std::string::npos,
                  "a sink names its topic: " + failure.value_or("no error")) &&
           good;
    good = expect(std::chrono::steady_clock::now() - began < 15s, "it does so soon") && good;
    const auto other = failure_of_batch({.brokers = brokers,
                                         .topic = "there",
                                         .delivery = delivery,
                                         .settings = {{"topic.metadata.propagation.max.ms", "1000"}}},
                                        {.value = "x", .topic = "elsewhere"});
    good = expect(other && other->find("\"elsewhere\"") != std::string::npos,
                  "the topic of a single record is named: " + other.value_or("no error")) &&
           good;
  }
  return good;
}

// A token that nobody has signed, as the broker takes them here.
inline std::string unsigned_token(std::chrono::system_clock::time_point expires) {
  const auto base64 = [](const std::string& text) {
    constexpr const char* digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    std::string out;
    unsigned bits = 0;
    int count = 0;
    for (const char c : text) {
      bits = bits << 8 | static_cast<unsigned char>(c);
      for (count += 8; count >= 6; count -= 6) out += digits[bits >> (count - 6) & 63];
    }
    if (count > 0) out += digits[bits << (6 - count) & 63];
    return out;
  };
  const auto seconds = [](auto time) {
    return std::to_string(std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count());
  };
  return base64(R"({"alg":"none"})") + '.' +
         base64(R"({"sub":"tests","iat":)" + seconds(std::chrono::system_clock::now()) + R"(,"exp":)" +
                seconds(expires) + '}') +
         '.';
}

// With tokens that last for some seconds, after which the broker ends a connection: who has no newer one is out.
inline bool tokens(const std::string& brokers, int port) {
  std::cout << "tokens" << std::endl;
  make_topic(brokers, "tokens", 1);
  const std::string guarded = "127.0.0.1:" + std::to_string(port);
  const tidemill::KafkaSettings settings{{"security.protocol", "sasl_plaintext"},
                                         {"sasl.mechanisms", "OAUTHBEARER"},
                                         {"sasl.oauthbearer.config", "good"},
                                         {"reconnect.backoff.max.ms", "200"}};
  std::atomic<int> calls = 0;
  const auto source_of_tokens = [&](std::string_view config) -> tidemill::KafkaToken {
    ++calls;
    const auto expires = std::chrono::time_point_cast<std::chrono::seconds>(std::chrono::system_clock::now()) + 4s;
    return {.value = config == "good" ? unsigned_token(expires) : "nonsense",
            .expires = tidemill::Time{std::chrono::duration_cast<tidemill::Duration>(expires.time_since_epoch())},
            .principal = "tests"};
  };
  const tidemill::KafkaSource source{.brokers = guarded,
                                     .topics = {"tokens"},
                                     .start = KafkaStart::earliest(),
                                     .settings = settings,
                                     .token_source = source_of_tokens};
  tidemill::KafkaSink sink{.brokers = guarded,
                           .topic = "tokens",
                           .stall_timeout = 20s,
                           .settings = settings,
                           .token_source = source_of_tokens};
  Stream stream{source};
  auto failure = failure_of_batch(sink, {.value = "first"});
  bool good = expect(!failure, "a sink is let in: " + failure.value_or(""));
  good = expect(stream.until(1) == Strings{"first"}, "a source is let in") && good;
  const int before = calls;
  good = expect(await([&] { return calls >= before + 4; }), "newer tokens are asked for") && good;  // some 12 s
  sink.delivery = tidemill::KafkaDelivery::at_least_once;
  failure = failure_of_batch(sink, {.value = "second"});
  good = expect(!failure, "a sink is let in again: " + failure.value_or("")) && good;
  good = expect(await([&] {
                  return stream.until(3) == Strings{"first", "second"};
                }),
                "a source goes on when its first tokens have expired") &&
         good;
  sink.settings.emplace_back("sasl.oauthbearer.config", "bad");
  sink.delivery = tidemill::KafkaDelivery::exactly_once;
  sink.stall_timeout = 5s;
  failure = failure_of_batch(sink, {.value = "third"});
  return expect(failure && failure->find("uthentication") != std::string::npos,
                "a token that the broker refuses is the reason: " + failure.value_or("no error")) &&
         good;
}

}  // namespace tidemill_integration
