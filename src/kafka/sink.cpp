#include "tidemill/kafka/sink.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <librdkafka/rdkafka.h>
#include <map>
#include <mutex>

#include "kafka/client.hpp"
#include "tidemill/core/error.hpp"

// A restart learns from the brokers which batch was committed last. The batch time is the metadata of an offset, which is
// committed for partition 0 of the sink's topic in a consumer group of the transactional id, within the transaction: so it is
// there exactly when the records are, no reader of the topic sees it, and it is read by one request after init_transactions has
// settled whatever was open.

namespace tidemill {
namespace {

using SteadyClock = std::chrono::steady_clock;
using Millis = std::chrono::milliseconds;

constexpr detail::RefusedSetting refused[] = {
    {"bootstrap.servers", "KafkaSink::brokers says it"},
    {"metadata.broker.list", "KafkaSink::brokers says it"},
    {"transactional.id", "KafkaSink::transactional_id says it"},
    {"transaction.timeout.ms", "KafkaSink::transaction_timeout says it"},
    {"message.timeout.ms", "it follows from transaction_timeout and stall_timeout"},
    {"delivery.timeout.ms", "it follows from transaction_timeout and stall_timeout"},
    {"enable.idempotence", "without it records come twice, or in another order, when a broker does not answer"},
    {"acks", "a record is there when all replicas in sync have it"},
    {"request.required.acks", "a record is there when all replicas in sync have it"},
    {"delivery.report.only.error", "a flush ends by the reports of those that were delivered"},
};

template <auto Destroy>
struct Deleter {
  template <class T>
  void operator()(T* object) const noexcept {
    Destroy(object);
  }
};
using KafkaError = std::unique_ptr<rd_kafka_error_t, Deleter<rd_kafka_error_destroy>>;
using GroupMetadata =
    std::unique_ptr<rd_kafka_consumer_group_metadata_t, Deleter<rd_kafka_consumer_group_metadata_destroy>>;

using Topic = std::unique_ptr<rd_kafka_topic_t, Deleter<rd_kafka_topic_destroy>>;

[[nodiscard]] bool is_fencing(rd_kafka_resp_err_t code) noexcept {
  return code == RD_KAFKA_RESP_ERR__FENCED || code == RD_KAFKA_RESP_ERR_PRODUCER_FENCED ||
         code == RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH;
}

[[nodiscard]] int millis_left(SteadyClock::time_point deadline) noexcept {
  const auto left = std::chrono::duration_cast<Millis>(deadline - SteadyClock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 1 << 30));
}

// The brokers' last word, which asking again does not change.
[[nodiscard]] bool is_refusal(rd_kafka_resp_err_t code) noexcept {
  return code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED || code == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED ||
         code == RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION;
}

constexpr int patience_ms = 1000;  // with one answer; then the client is asked what is wrong
constexpr int pause_ms = 100;      // after an answer that may be another one soon
constexpr std::string_view mark_prefix = "tidemill batch ";

}  // namespace

class KafkaWriter::Impl final : public detail::KafkaObserver {
 public:
  explicit Impl(KafkaSink options) : options_{std::move(options)} {
    if (options_.brokers.empty()) throw ConfigError("KafkaSink::brokers is empty; name one, as in \"localhost:9092\"");
    if (options_.topic.empty()) throw ConfigError("KafkaSink::topic is empty; name the topic to write to");
    const auto check_time = [](const char* what, Duration d) {
      if (d < std::chrono::seconds{1} || d > std::chrono::hours{24})
        throw ConfigError("KafkaSink::" + std::string{what} + " must lie between 1 s and 1 day, and it is " +
                          to_string(d));
    };
    check_time("transaction_timeout", options_.transaction_timeout);
    check_time("stall_timeout", options_.stall_timeout);
    static_cast<void>(conf());  // a setting that cannot be is refused here and now
  }

  ~Impl() override { let_go(); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  [[nodiscard]] std::string name() const { return "kafka:" + options_.topic; }

  void open(const SinkSession& session) {
    runtime_ = session.runtime;
    op_ = session.name;
    delivery_ =
        options_.delivery.value_or(session.has_checkpoint ? KafkaDelivery::exactly_once : KafkaDelivery::at_least_once);
    if (is_transactional() && !session.has_checkpoint)
      throw ConfigError("the sink \"" + op_ +
                        "\" is to deliver exactly_once, and the context has no checkpoint, without which nobody knows "
                        "after a restart what was written; use StreamingContext::get_or_create, or at_least_once");
    if (!is_transactional()) refuse_what_transactions_need(session.has_checkpoint);
    id_ = options_.transactional_id.empty() ? "tidemill-" + session.id
          : session.part.empty()            ? options_.transactional_id
                                            : options_.transactional_id + '-' + session.part;
    if (is_transactional() && options_.offsets_group == id_)
      throw ConfigError("the sink \"" + op_ + "\": KafkaSink::offsets_group is \"" + id_ +
                        "\", the transactional id, whose group keeps the time of the last batch; give it another name");
    connect();
  }

  std::optional<Time> last_committed() {
    if (!client_) connect();
    return committed_;
  }

  void begin(Time t) {
    batch_ = t;
    wrote_ = false;
    began_ = SteadyClock::now();
    {
      const std::scoped_lock lock{mutex_};
      failures_ = 0;
      first_failure_.clear();
    }
    if (!is_transactional()) return;
    if (KafkaError error{rd_kafka_begin_transaction(producer())}) {
      const bool fenced = is_fencing(rd_kafka_error_code(error.get()));
      const std::string text = rd_kafka_error_string(error.get());
      let_go();
      fail("no transaction could be begun: " + text, fenced);
    }
  }

  void produce(const detail::KafkaView& record) {
    if (!wrote_.load(std::memory_order_relaxed)) wrote_.store(true, std::memory_order_relaxed);
    const auto bytes = [](const std::optional<std::string_view>& text) {
      static char nothing;  // an empty value is not an absent one
      return text ? (text->empty() ? &nothing : const_cast<char*>(text->data())) : nullptr;
    };
    const auto size = [](const std::optional<std::string_view>& text) { return text ? text->size() : 0; };
    rd_kafka_topic_t* const topic =
        record.topic.empty() || record.topic == options_.topic ? topic_.get() : topic_of(record.topic);
    for (;;) {
      rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;
      if (record.headers.empty()) {
        if (rd_kafka_produce(topic, record.partition, RD_KAFKA_MSG_F_COPY, bytes(record.value), size(record.value),
                             bytes(record.key), size(record.key), this) != 0)
          code = rd_kafka_last_error();
      } else {
        rd_kafka_headers_t* headers = rd_kafka_headers_new(record.headers.size());
        for (const auto& [name, value] : record.headers)
          rd_kafka_header_add(headers, name.data(), static_cast<ssize_t>(name.size()), value ? value->data() : nullptr,
                              value ? static_cast<ssize_t>(value->size()) : 0);
        code = rd_kafka_producev(producer(), RD_KAFKA_V_RKT(topic), RD_KAFKA_V_PARTITION(record.partition),
                                 RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                                 RD_KAFKA_V_VALUE(bytes(record.value), size(record.value)),
                                 RD_KAFKA_V_KEY(bytes(record.key), size(record.key)), RD_KAFKA_V_HEADERS(headers),
                                 RD_KAFKA_V_OPAQUE(this), RD_KAFKA_V_END);
        if (code != RD_KAFKA_RESP_ERR_NO_ERROR) rd_kafka_headers_destroy(headers);
      }
      if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
        if (reports_due_.fetch_add(1, std::memory_order_relaxed) % 1024 == 0) rd_kafka_poll(producer(), 0);
        return;
      }
      if (code != RD_KAFKA_RESP_ERR__QUEUE_FULL)
        throw_batch_error(
            refusal_of(rd_kafka_topic_name(topic), record.partition, size(record.key) + size(record.value), code),
            code);
      check_in_time();
      rd_kafka_poll(producer(), 10);  // room comes when brokers acknowledge
    }
  }

  void commit(const SinkCommit& commit) {
    if (!is_transactional()) return flush();
    const bool has_offsets = !options_.offsets_group.empty() &&
                             !std::equal(commit.positions.begin(), commit.positions.end(), told_.begin(), told_.end());
    if (!wrote_ && !has_offsets) {
      // Nothing has been sent for this transaction, so no broker knows of it.
      return roll_back();
    }
    check_in_time();
    const detail::KafkaList mark = detail::make_kafka_list(1);
    rd_kafka_topic_partition_t* one = rd_kafka_topic_partition_list_add(mark.get(), options_.topic.c_str(), 0);
    one->offset = std::max<std::int64_t>(commit.batch_time.time_since_epoch().count(), 0);
    const std::string text = std::string{mark_prefix} + std::to_string(commit.batch_time.time_since_epoch().count());
    set_metadata(*one, text);
    send(mark.get(), id_);
    if (has_offsets) {
      const detail::KafkaList offsets = detail::make_kafka_list(commit.positions.size());
      for (const InputPosition& position : commit.positions)
        rd_kafka_topic_partition_list_add(offsets.get(), position.source.c_str(),
                                          static_cast<std::int32_t>(position.partition))
            ->offset = static_cast<std::int64_t>(position.next);
      send(offsets.get(), options_.offsets_group);
    }
    // What is not answered while the transaction may last is known after a new start of the producer.
    for (;;) {
      KafkaError error{rd_kafka_commit_transaction(producer(), millis_of_transaction())};
      if (!error) break;
      if (rd_kafka_error_txn_requires_abort(error.get()) || is_fencing(rd_kafka_error_code(error.get())))
        throw_batch_error(rd_kafka_error_string(error.get()), rd_kafka_error_code(error.get()));
      if (rd_kafka_error_is_retriable(error.get()) && SteadyClock::now() < began_ + options_.transaction_timeout)
        continue;
      const std::string why = rd_kafka_error_string(error.get());
      log(LogLevel::warning, "whether the batch of " + to_string(commit.batch_time) +
                                 " has been committed is not known, and is asked: " + why);
      let_go();
      connect();
      if (committed_ == commit.batch_time) return;
      fail("the transaction was not committed: " + why, false);
    }
    committed_ = commit.batch_time;
    if (has_offsets) told_.assign(commit.positions.begin(), commit.positions.end());
  }

  void roll_back() noexcept {
    if (!client_ || !is_transactional()) return;
    constexpr int millis = 5000;  // -1 would wait for brokers for ever
    const KafkaError error{rd_kafka_abort_transaction(producer(), is_late() ? 1 : millis)};
    // What was refused for good has left a gap in the numbers of this producer, by which its next batch would fail too.
    if (error || has_failures()) let_go();
  }

  void close() noexcept { let_go(); }

 private:
  void refuse_what_transactions_need(bool has_checkpoint) const {
    for (const auto& [name, value] : {std::pair{"transactional_id", &options_.transactional_id},
                                      std::pair{"offsets_group", &options_.offsets_group}}) {
      if (!value->empty())
        throw ConfigError(
            "the sink \"" + op_ + "\": KafkaSink::" + name + " is \"" + *value +
            "\", and delivery is at_least_once, which has no transactions; leave it out, or " +
            (has_checkpoint ? "let delivery be exactly_once" : "have a checkpoint: StreamingContext::get_or_create"));
    }
  }
  [[nodiscard]] bool has_failures() noexcept {
    const std::scoped_lock lock{mutex_};
    return failures_ != 0;
  }
  [[nodiscard]] bool is_transactional() const noexcept { return delivery_ == KafkaDelivery::exactly_once; }

  [[nodiscard]] detail::KafkaConf conf() const {
    detail::KafkaConf conf{"the Kafka sink of topic " + options_.topic};
    conf.set("bootstrap.servers", options_.brokers);
    conf.set_all(options_.settings, refused);
    if (options_.token_source) conf.expect_oauth();
    return conf;
  }
  void on_error(const std::string& message) noexcept override {
    on_log(LogLevel::warning, message);
    try {
      const std::scoped_lock lock{mutex_};
      last_said_ = message;
    } catch (...) {  // no memory for it; it is in the log
    }
  }
  void on_log(LogLevel level, const std::string& line) noexcept override {
    try {
      log(std::min(level, LogLevel::warning), line);  // what matters fails a batch
    } catch (...) {                                   // no memory for a line of the log
    }
  }

  // Of the producer: to be made anew, since the outcome of a transaction is not known, or after an error for good.
  void let_go() noexcept {
    topics_.clear();
    topic_.reset();
    if (!client_) return;
    rd_kafka_purge(producer(), RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);  // nobody waits for it any more
    client_.reset();
  }
  [[nodiscard]] rd_kafka_t* producer() const noexcept { return client_->get(); }

  // A producer that shuts out older ones, and what they have committed.
  void connect() {
    const auto deadline = SteadyClock::now() + options_.stall_timeout;
    if (is_transactional() && batch_) {  // another writer that has gone on in our place is not to be shut out
      committed_ = read_mark("read_uncommitted", deadline);
      check_mark();
    }
    let_go();
    forget_what_was_said();
    detail::KafkaConf conf = this->conf();
    conf.set("enable.idempotence", "true");
    rd_kafka_conf_set_dr_msg_cb(conf.get(), [](rd_kafka_t*, const rd_kafka_message_t* message, void*) {
      static_cast<Impl*>(message->_private)->delivered(*message);
    });
    const auto millis = [](Duration d) { return std::to_string(std::chrono::duration_cast<Millis>(d).count()); };
    if (is_transactional()) {
      conf.set("transactional.id", id_);
      conf.set("transaction.timeout.ms", millis(options_.transaction_timeout));
      conf.set("message.timeout.ms", millis(options_.transaction_timeout));
    } else {
      conf.set("message.timeout.ms", millis(options_.stall_timeout));
    }
    auto client =
        std::make_unique<detail::KafkaClient>(RD_KAFKA_PRODUCER, std::move(conf), options_.token_source, this);
    if (is_transactional()) {
      for (;;) {
        KafkaError error{rd_kafka_init_transactions(client->get(), std::min(millis_left(deadline), patience_ms))};
        if (!error) break;
        rd_kafka_poll(client->get(), 0);  // which hears why
        if (rd_kafka_error_is_retriable(error.get()) && millis_left(deadline) > 0) continue;
        const bool fenced = is_fencing(rd_kafka_error_code(error.get()));
        fail("the transactions of \"" + id_ + "\" could not be settled: " + rd_kafka_error_string(error.get()) +
                 what_was_said(),
             fenced);
      }
    }
    Topic topic{rd_kafka_topic_new(client->get(), options_.topic.c_str(), nullptr)};
    if (!topic) fail("the topic \"" + options_.topic + "\" cannot be written to: " + last_error(), false);
    look_at_topic(client->get(), topic.get(), deadline);
    if (is_transactional()) {
      committed_ = read_mark("read_committed", deadline);
      check_mark();
    }
    topic_ = std::move(topic);
    client_ = std::move(client);
  }

  // Who leads its partitions; else the first records wait for a timer of the client's. A topic that is not there would let every
  // batch wait for half a minute, before it fails. One that brokers make when it is asked for takes them a moment.
  void look_at_topic(rd_kafka_t* client, rd_kafka_topic_t* topic, SteadyClock::time_point deadline) {
    const auto end = std::min(deadline, SteadyClock::now() + std::chrono::milliseconds{5 * patience_ms});
    rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;
    do {
      const struct rd_kafka_metadata* known = nullptr;
      const bool is_known = rd_kafka_metadata(client, 0, topic, &known, std::min(millis_left(end), patience_ms)) ==
                            RD_KAFKA_RESP_ERR_NO_ERROR;
      code = is_known && known->topic_cnt == 1 ? known->topics[0].err : RD_KAFKA_RESP_ERR__TIMED_OUT;
      if (is_known) rd_kafka_metadata_destroy(known);
      if (code == RD_KAFKA_RESP_ERR_NO_ERROR) return;
      if (is_refusal(code)) break;
      rd_kafka_poll(client, pause_ms);
    } while (millis_left(end) > 0);
    // Brokers that do not answer are waited for elsewhere.
    if (code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) fail_without_topic();
    if (is_refusal(code))
      fail("the topic \"" + options_.topic + "\" cannot be written to: " + detail::describe(code), false);
  }
  [[noreturn]] void fail_without_topic() const {
    fail("the topic \"" + options_.topic +
             "\" is not there, and the brokers do not make it; create it, or correct KafkaSink::topic",
         false);
  }

  void check_mark() const {
    if (batch_ && committed_ && *committed_ > *batch_)
      fail("another writer has committed the batch of " + to_string(*committed_) + " under \"" + id_ +
               "\", after ours of " + to_string(*batch_),
           true);
  }

  // `level`: whether to wait for the end of a transaction that is open. Our own, before a new producer has aborted it, would be.
  [[nodiscard]] std::optional<Time> read_mark(const char* level, SteadyClock::time_point deadline) {
    detail::KafkaConf conf = this->conf();
    conf.set("group.id", id_);
    conf.set("isolation.level", level);
    conf.set("enable.auto.commit", "false");
    const detail::KafkaClient reader{RD_KAFKA_CONSUMER, std::move(conf), options_.token_source, this};
    const detail::KafkaList mark = detail::make_kafka_list(1);
    rd_kafka_topic_partition_list_add(mark.get(), options_.topic.c_str(), 0);
    std::string why;
    do {
      rd_kafka_resp_err_t code =
          rd_kafka_committed(reader.get(), mark.get(), std::min(millis_left(deadline), 10 * patience_ms));
      if (code == RD_KAFKA_RESP_ERR_NO_ERROR) code = mark->elems[0].err;
      if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
        const rd_kafka_topic_partition_t& one = mark->elems[0];
        if (one.offset < 0) return std::nullopt;
        return parse_mark({static_cast<const char*>(one.metadata), one.metadata_size});
      }
      if (code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) fail_without_topic();
      why = detail::describe(code);
      rd_kafka_poll(reader.get(), pause_ms);
      if (is_refusal(code)) break;
    } while (millis_left(deadline) > 0);
    fail("the last batch that \"" + id_ + "\" has committed could not be read: " + why + what_was_said(), false);
  }

  [[nodiscard]] Time parse_mark(std::string_view text) const {
    std::int64_t micros = 0;
    if (text.starts_with(mark_prefix)) {
      const std::string_view number = text.substr(mark_prefix.size());
      const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), micros);
      if (error == std::errc{} && end == number.data() + number.size()) return Time{Duration{micros}};
    }
    throw SinkError("kafka",
                    "the consumer group \"" + id_ + "\" is not that of a sink: its offset of \"" + options_.topic +
                        "\" has the metadata \"" + std::string{text} +
                        "\"; give the sink a transactional_id that nothing else uses",
                    Retry::is_useless, context());
  }

  void forget_what_was_said() {
    const std::scoped_lock lock{mutex_};
    last_said_.clear();
  }
  [[nodiscard]] std::string what_was_said() const {
    const std::scoped_lock lock{mutex_};
    return last_said_.empty() ? "" : "; the client says: " + last_said_;
  }

  static void set_metadata(rd_kafka_topic_partition_t& to, const std::string& text) {
    to.metadata = rd_kafka_mem_malloc(nullptr, text.size());  // freed with the list
    std::copy(text.begin(), text.end(), static_cast<char*>(to.metadata));
    to.metadata_size = text.size();
  }

  void send(const rd_kafka_topic_partition_list_t* offsets, const std::string& group) {
    const GroupMetadata metadata{rd_kafka_consumer_group_metadata_new(group.c_str())};
    for (;;) {
      KafkaError error{
          rd_kafka_send_offsets_to_transaction(producer(), offsets, metadata.get(), millis_of_transaction())};
      if (!error) return;
      if (rd_kafka_error_is_retriable(error.get()) && !rd_kafka_error_txn_requires_abort(error.get()) &&
          SteadyClock::now() < began_ + options_.transaction_timeout)
        continue;
      throw_batch_error("the offsets for \"" + group + "\": " + rd_kafka_error_string(error.get()),
                        rd_kafka_error_code(error.get()));
    }
  }

  // at_least_once: everything is acknowledged.
  void flush() {
    const auto deadline = SteadyClock::now() + options_.stall_timeout + std::chrono::seconds{1};
    while (rd_kafka_flush(producer(), std::min(millis_left(deadline), 1000)) != RD_KAFKA_RESP_ERR_NO_ERROR &&
           millis_left(deadline) > 0) {
    }
    if (const int left = rd_kafka_outq_len(producer()); left > 0) {
      let_go();
      fail(std::to_string(left) + " records were not acknowledged within stall_timeout, " +
               to_string(options_.stall_timeout),
           false);
    }
    const std::scoped_lock lock{mutex_};
    if (failures_ != 0) fail(std::to_string(failures_) + " records were not delivered: " + first_failure_, false);
  }

  void delivered(const rd_kafka_message_t& message) noexcept {
    const rd_kafka_resp_err_t code = message.err;
    if (code == RD_KAFKA_RESP_ERR_NO_ERROR) return;
    if (code == RD_KAFKA_RESP_ERR__PURGE_QUEUE || code == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT) return;  // by an abort
    try {
      const std::scoped_lock lock{mutex_};
      if (++failures_ == 1)
        first_failure_ =
            refusal_of(rd_kafka_topic_name(message.rkt), message.partition, message.key_len + message.len, code);
    } catch (...) {  // the number is there
    }
  }

  [[nodiscard]] rd_kafka_topic_t* topic_of(std::string_view name) {
    const std::scoped_lock lock{mutex_};
    auto found = topics_.find(name);
    if (found == topics_.end()) {
      Topic topic{rd_kafka_topic_new(producer(), std::string{name}.c_str(), nullptr)};
      if (!topic) fail("the topic \"" + std::string{name} + "\" cannot be written to: " + last_error(), false);
      found = topics_.emplace(std::string{name}, std::move(topic)).first;
    }
    return found->second.get();
  }

  // That are left, but enough to hear an answer that is there.
  [[nodiscard]] int millis_of_transaction() const noexcept {
    return std::max(millis_left(began_ + options_.transaction_timeout), 100);
  }
  [[nodiscard]] bool is_late() const noexcept { return SteadyClock::now() >= began_ + options_.transaction_timeout; }

  void check_in_time() {
    if (is_transactional() && is_late()) throw_late();
    if (!is_transactional() && SteadyClock::now() >= began_ + options_.stall_timeout)
      fail("the producer's queue has been full for stall_timeout, " + to_string(options_.stall_timeout), false);
  }
  [[noreturn]] void throw_late() const {
    throw SinkError(
        "transaction_timeout",
        op_ + ": the batch takes longer than a transaction may, which is " + to_string(options_.transaction_timeout) +
            "; raise KafkaSink::transaction_timeout (and transaction.max.timeout.ms of the brokers, if it is "
            "above that), or have smaller batches",
        Retry::may_help, context());
  }

  // The transaction cannot be committed. After its time is over, brokers answer as if another writer had shut us out.
  [[noreturn]] void throw_batch_error(const std::string& what, rd_kafka_resp_err_t code) {
    std::string text = what;
    {
      const std::scoped_lock lock{mutex_};
      if (failures_ != 0)
        text += " (" + std::to_string(failures_) + " records were not delivered: " + first_failure_ + ")";
    }
    std::array<char, 512> why{};
    const rd_kafka_resp_err_t fatal = rd_kafka_fatal_error(producer(), why.data(), why.size());
    if (fatal != RD_KAFKA_RESP_ERR_NO_ERROR) text += std::string{" ("} + why.data() + ")";
    if (is_late() && is_transactional()) throw_late();
    fail(text, is_fencing(code) || is_fencing(fatal));
  }

  [[noreturn]] void fail(const std::string& what, bool fenced) const {
    if (fenced)
      throw SinkError("fenced",
                      op_ + ": another writer has taken over \"" + id_ + "\" (" + what +
                          "); a checkpoint has one program at a time, and a transactional_id one sink",
                      Retry::is_useless, context());
    throw SinkError("kafka", op_ + ": " + what, Retry::may_help, context());
  }
  [[nodiscard]] ErrorContext context() const {
    return {.application = runtime_ ? runtime_->app_name : "",
            .op = op_,
            .batch_time = batch_,
            .partition = {},
            .offset = {}};
  }
  // `partition`: below 0 when none was chosen.
  [[nodiscard]] static std::string refusal_of(const char* topic, std::int32_t partition, std::size_t bytes,
                                              rd_kafka_resp_err_t code) {
    std::string text = "to the topic \"" + std::string{topic} + '"';
    if (partition >= 0) text += ", partition " + std::to_string(partition);
    text += ": " + detail::describe(code);
    if (code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)
      text += ": key and value have " + std::to_string(bytes) +
              " bytes; raise message.max.bytes in KafkaSink::settings, and max.message.bytes of the topic";
    return text;
  }
  [[nodiscard]] static std::string last_error() { return detail::describe(rd_kafka_last_error()); }
  void log(LogLevel level, const std::string& line) const {
    if (runtime_) runtime_->log(level, op_ + ": " + line);
  }

  const KafkaSink options_;
  std::shared_ptr<detail::Runtime> runtime_;  // shared with the context; null before open
  std::string op_;
  std::string id_;
  KafkaDelivery delivery_ = KafkaDelivery::at_least_once;
  std::unique_ptr<detail::KafkaClient> client_;  // null: see let_go
  Topic topic_;                                  // of the producer, and goes before it
  std::optional<Time> committed_;
  std::vector<InputPosition> told_;  // by the last transaction, to offsets_group
  std::optional<Time> batch_;        // the last that was begun
  SteadyClock::time_point began_;
  std::atomic<bool> wrote_ = false;
  std::atomic<std::uint32_t> reports_due_ = 0;  // records since deliveries were last asked for, and before

  mutable std::mutex mutex_;  // guards what follows
  std::map<std::string, Topic, std::less<>> topics_;
  std::size_t failures_ = 0;
  std::string first_failure_;
  std::string last_said_;  // by the client, since it was made
};

KafkaWriter::KafkaWriter(KafkaSink options) : impl_{std::make_unique<Impl>(std::move(options))} {}
KafkaWriter::~KafkaWriter() = default;
std::string KafkaWriter::name() const { return impl_->name(); }
void KafkaWriter::open(const SinkSession& session) { impl_->open(session); }
std::optional<Time> KafkaWriter::last_committed() { return impl_->last_committed(); }
void KafkaWriter::begin(Time batch_time) { impl_->begin(batch_time); }
void KafkaWriter::commit(const SinkCommit& commit) { impl_->commit(commit); }
void KafkaWriter::roll_back() noexcept { impl_->roll_back(); }
void KafkaWriter::close() noexcept { impl_->close(); }
void KafkaWriter::produce(const detail::KafkaView& record) { impl_->produce(record); }

}  // namespace tidemill
