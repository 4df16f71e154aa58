#include "kafka/input.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "tidemill/core/codec.hpp"
#include "tidemill/core/codec_layout.hpp"

namespace tidemill::detail {
namespace {

using namespace std::chrono_literals;

// What librdkafka spends on a message beside key and value: its operation, and a share of the fetch.
constexpr std::size_t message_overhead = 512;
constexpr std::size_t read_records = 1024;
// How long the thread waits for one answer of a broker, and so at most how long a stop waits for the thread.
constexpr int answer_ms = 1000;
constexpr const char* cut_off_words = " were there and are not: the topic was made anew, or cut off at its end";
// After an attempt that failed.
constexpr auto retry_pause = 500ms;

KafkaList list_of(const std::map<KafkaPartition, std::int64_t>& offsets) {
  KafkaList list = make_kafka_list(offsets.size());
  for (const auto& [name, offset] : offsets)
    rd_kafka_topic_partition_list_add(list.get(), name.topic.c_str(), name.partition)->offset = offset;
  return list;
}

double seconds(Duration d) noexcept { return std::chrono::duration<double>{d}.count(); }

std::size_t size_of(const rd_kafka_message_t& message) noexcept {
  return message.len + message.key_len + message_overhead;
}

// Spelt with the counts of offsets, since a lost range is told so.
std::string range_text(const KafkaPartition& partition, std::int64_t from, std::int64_t until) {
  return to_text(partition) + " offsets " + std::to_string(from) + " to " + std::to_string(until - 1);
}

constexpr std::string_view keeps_offsets =
    "the stream itself decides what is read, and the checkpoint keeps the offsets";
constexpr std::string_view by_group = "no consumer group assigns the partitions, so it would do nothing";
constexpr std::array refused_settings = {
    RefusedSetting{"bootstrap.servers", "it is KafkaSource::brokers"},
    RefusedSetting{"metadata.broker.list", "it is KafkaSource::brokers"},
    RefusedSetting{"group.id", "it is KafkaSource::group_id"},
    RefusedSetting{"isolation.level", "it is KafkaSource::isolation"},
    RefusedSetting{"queued.max.messages.kbytes", "it follows from KafkaSource::max_buffered_bytes"},
    RefusedSetting{"enable.auto.commit", keeps_offsets},
    RefusedSetting{"auto.commit.enable", keeps_offsets},
    RefusedSetting{"auto.commit.interval.ms", keeps_offsets},
    RefusedSetting{"enable.auto.offset.store", keeps_offsets},
    RefusedSetting{"offset.store.method", keeps_offsets},
    RefusedSetting{"offset.store.path", keeps_offsets},
    RefusedSetting{"offset.store.sync.interval.ms", keeps_offsets},
    RefusedSetting{
        "auto.offset.reset",
        "offsets that are not there are lost data, and KafkaSource::fail_on_data_loss says what becomes of that"},
    RefusedSetting{"enable.partition.eof", "the source needs it for the lag, and always has it"},
    RefusedSetting{"group.instance.id", by_group},
    RefusedSetting{"partition.assignment.strategy", by_group},
    RefusedSetting{"group.protocol.type", by_group},
};

// Topics of the brokers' own, which only their names lead to.
bool is_internal(std::string_view topic) { return topic == "__consumer_offsets" || topic == "__transaction_state"; }

std::string name_of(const KafkaSource& source) {
  if (!source.topic_pattern.empty()) return "Kafka topics like " + source.topic_pattern;
  std::string name = source.topics.size() + source.partitions.size() > 1 ? "Kafka topics" : "Kafka topic";
  char separator = ' ';
  for (const std::string& topic : source.topics) {
    name += separator + topic;
    separator = ',';
  }
  for (const KafkaPartition& partition : source.partitions) {
    name += separator + to_text(partition);
    separator = ',';
  }
  return name;
}

// What of it would have no effect is a mistake, which else shows when records are missing.
void check_start(const KafkaSource& source) {
  using At = KafkaStart::At;
  const KafkaStart& start = source.start;
  if (start.at == At::time && start.time < Time{})
    throw ConfigError("KafkaStart::time is " + to_string(start.time) +
                      ", and Kafka knows no times before 1970; begin with KafkaStart::earliest()");
  if (start.at != At::time && start.time != Time{})
    throw ConfigError("KafkaStart::time is given and not used; make the start by KafkaStart::from(time)");
  if (start.at != At::offsets && !start.offsets.empty())
    throw ConfigError("KafkaStart::offsets are given and not used; make the start by KafkaStart::from(offsets)");
  for (const auto& [partition, offset] : start.offsets) {
    if (offset < 0)
      throw ConfigError("the offset at which " + to_text(partition) + " is to begin is " + std::to_string(offset) +
                        "; it must be 0 or more");
    const auto& topics = source.topics;
    const auto& partitions = source.partitions;
    if ((!topics.empty() && std::find(topics.begin(), topics.end(), partition.topic) == topics.end()) ||
        (!partitions.empty() && std::find(partitions.begin(), partitions.end(), partition) == partitions.end()))
      throw ConfigError("KafkaStart::offsets says where " + to_text(partition) + " begins, and \"" + name_of(source) +
                        "\" does not read it; leave it out, or correct its name");
  }
}

void check(const KafkaSource& source) {
  if (source.brokers.empty())
    throw ConfigError("KafkaSource::brokers is empty; name at least one, as in \"host:9092\"");
  const int ways =
      (source.topics.empty() ? 0 : 1) + (source.topic_pattern.empty() ? 0 : 1) + (source.partitions.empty() ? 0 : 1);
  if (ways != 1)
    throw ConfigError("a Kafka source reads topics, a topic_pattern or partitions, and " + std::to_string(ways) +
                      " of them are given; give one");
  for (const std::string& topic : source.topics) {
    if (topic.empty()) throw ConfigError("one of KafkaSource::topics is empty; name a topic");
  }
  for (const KafkaPartition& partition : source.partitions) {
    if (partition.topic.empty() || partition.partition < 0)
      throw ConfigError("\"" + to_text(partition) + "\" is no partition; it needs a topic and a number of 0 or more");
  }
  check_start(source);
  if (!(source.max_rate_per_partition > 0))
    throw ConfigError("max_rate_per_partition must be above 0, and it is " +
                      std::to_string(source.max_rate_per_partition));
  if (source.min_records_per_partition == 0)
    throw ConfigError("min_records_per_partition is 0, so that a slow partition might never be read; give at least 1");
  if (source.max_buffered_bytes < (std::size_t{1} << 20))
    throw ConfigError("max_buffered_bytes must be at least 1 MiB, and it is " +
                      std::to_string(source.max_buffered_bytes));
  const auto check_time = [](const char* what, Duration d) {
    if (d <= Duration::zero() || d > std::chrono::hours{24})
      throw ConfigError("KafkaSource::" + std::string{what} + " must be above 0 and at most 1 day, and it is " +
                        to_string(d));
  };
  check_time("discovery_interval", source.discovery_interval);
  check_time("stall_timeout", source.stall_timeout);
  if (source.commit_offsets && source.group_id.empty())
    throw ConfigError("commit_offsets needs a group_id: the consumer group whose lag is watched");
}

KafkaConf conf_of(const std::string& app_name, const KafkaSource& source) {
  KafkaConf conf{"the source \"" + name_of(source) + '"'};
  conf.set("fetch.wait.max.ms", "100");  // a partition that is resumed waits for the fetch under way
  conf.set("client.id", "tidemill-" + app_name);
  conf.set_all(source.settings, refused_settings);
  if (source.token_source) conf.expect_oauth();
  conf.set("bootstrap.servers", source.brokers);
  conf.set("group.id", source.group_id.empty() ? "tidemill-" + app_name : source.group_id);
  conf.set("enable.auto.commit", "false");
  conf.set("enable.auto.offset.store", "false");
  conf.set("auto.offset.reset", "error");
  conf.set("enable.partition.eof", "true");
  conf.set("isolation.level",
           source.isolation == KafkaIsolation::read_committed ? "read_committed" : "read_uncommitted");
  constexpr std::size_t largest_queue_kib = 2097151;
  conf.set("queued.max.messages.kbytes", std::to_string(std::min(source.max_buffered_bytes / 4096, largest_queue_kib)));
  return conf;
}

}  // namespace

std::vector<KafkaOffsetRange> kafka_ranges_of_plan(std::string_view plan) {
  auto ranges = decode<std::vector<KafkaOffsetRange>>(plan);
  const auto fail = [](const KafkaOffsetRange& range, const char* what) {
    throw StateError("malformed_data",
                     "a plan says " + range.topic + '[' + std::to_string(range.partition) + "] from " +
                         std::to_string(range.from) + " until " + std::to_string(range.until) + ", and " + what,
                     Retry::is_useless);
  };
  std::set<KafkaPartition> seen;
  for (const KafkaOffsetRange& range : ranges) {
    if (range.topic.empty() || range.partition < 0) fail(range, "that is no partition");
    if (range.from < 0 || range.until < range.from) fail(range, "that is no range");
    if (!seen.insert({range.topic, range.partition}).second) fail(range, "names that partition twice");
  }
  return ranges;
}

std::span<const RefusedSetting> refused_source_settings() noexcept { return refused_settings; }

std::string to_text(const KafkaPartition& partition) {
  return partition.topic + '[' + std::to_string(partition.partition) + ']';
}

void ask_for_topics(rd_kafka_t* client, rd_kafka_topic_t* topic,
                    FunctionRef<void(const rd_kafka_metadata_topic&)> look) {
  const rd_kafka_metadata_t* metadata = nullptr;
  const rd_kafka_resp_err_t error = rd_kafka_metadata(client, topic == nullptr ? 1 : 0, topic, &metadata, answer_ms);
  if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
    throw SourceError("kafka_metadata", "the partitions of the topics could not be asked for: " + describe(error),
                      Retry::may_help);
  const std::unique_ptr<const rd_kafka_metadata_t, decltype(&rd_kafka_metadata_destroy)> owner{
      metadata, &rd_kafka_metadata_destroy};
  for (int i = 0; i < metadata->topic_cnt; ++i) look(metadata->topics[i]);
}

namespace {

// The offset of the first record of a time, in ms, or of that which the two constants stand for: they are the protocol's
// numbers. The answers to rd_kafka_query_watermark_offsets, two requests at once, are mixed up when one of them fails.
// Errors: SourceError.
std::int64_t ask_offset(rd_kafka_t* client, const KafkaPartition& partition, std::int64_t time) {
  const KafkaList list = make_kafka_list(1);
  rd_kafka_topic_partition_t& one =
      *rd_kafka_topic_partition_list_add(list.get(), partition.topic.c_str(), partition.partition);
  one.offset = time;
  rd_kafka_resp_err_t error = rd_kafka_offsets_for_times(client, list.get(), answer_ms);
  if (error == RD_KAFKA_RESP_ERR_NO_ERROR) error = one.err;
  if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
    throw SourceError("kafka_offsets",
                      "the offsets of " + to_text(partition) + " could not be asked for: " + describe(error),
                      Retry::may_help);
  return one.offset;
}

}  // namespace

std::int64_t ask_for_first_offset(rd_kafka_t* client, const KafkaPartition& partition, const KafkaStart& start) {
  using At = KafkaStart::At;
  if (start.at == At::offsets) {
    const auto given = start.offsets.find(partition);
    if (given != start.offsets.end()) return given->second;
  }
  if (start.at == At::time) {
    const std::int64_t first =
        ask_offset(client, partition,
                   std::chrono::duration_cast<std::chrono::milliseconds>(start.time.time_since_epoch()).count());
    if (first >= 0) return first;
  }
  const bool at_first = start.at == At::earliest || start.at == At::offsets;
  return ask_offset(client, partition, at_first ? RD_KAFKA_OFFSET_BEGINNING : RD_KAFKA_OFFSET_END);
}

// ---- messages -------------------------------------------------------------------------------------------------------

void KafkaMessages::add(rd_kafka_message_t* message) {
  all_.push_back(message);
  bytes_ += size_of(*message);
}

KafkaMessages KafkaMessages::take(std::size_t count) {
  if (count >= size()) return std::move(*this);
  KafkaMessages taken;
  const auto first = all_.begin() + static_cast<std::ptrdiff_t>(head_);
  taken.all_.assign(first, first + static_cast<std::ptrdiff_t>(count));
  for (const rd_kafka_message_t* message : taken.all_) taken.bytes_ += size_of(*message);
  head_ += count;
  bytes_ -= taken.bytes_;
  if (head_ > all_.size() / 2) {  // so that each is moved once for every time that it is passed
    all_.erase(all_.begin(), all_.begin() + static_cast<std::ptrdiff_t>(head_));
    head_ = 0;
  }
  return taken;
}

void KafkaMessages::clear() noexcept {
  for (std::size_t i = head_; i < all_.size(); ++i) rd_kafka_message_destroy(all_[i]);
  all_.clear();
  head_ = 0;
  bytes_ = 0;
}

// ---- positions ------------------------------------------------------------------------------------------------------

void KafkaPositions::set(const KafkaPartition& partition, std::int64_t next) {
  const auto [entry, is_new] = all_.try_emplace(partition, next);
  if (!is_new && entry->second == next) return;
  entry->second = next;
  if (tracking_) changes_.put(0, partition, next);
}

StateSchema KafkaPositions::schema() const {
  return {.kind = "kafka_offsets",
          .key = codec_layout<KafkaPartition>(),
          .value = codec_layout<std::int64_t>(),
          .parameters = {}};
}

void KafkaPositions::restore(KeyGroup, std::string_view key, std::string_view value) {
  auto partition = decode<KafkaPartition>(key);
  const auto next = decode<std::int64_t>(value);
  if (partition.topic.empty() || partition.partition < 0 || next < 0)
    throw StateError("malformed_data",
                     "the checkpoint says that " + to_text(partition) + " goes on at offset " + std::to_string(next),
                     Retry::is_useless);
  all_[std::move(partition)] = next;
}

void KafkaPositions::take_changes(StateChanges& to) {
  to.append(changes_);
  changes_.clear();
}

// ---- life -----------------------------------------------------------------------------------------------------------

KafkaInput::KafkaInput(const std::string& app_name, KafkaSource source)
    : source_{((void)check(source), std::move(source))}, name_{name_of(source_)}, conf_{conf_of(app_name, source_)} {
  if (source_.topic_pattern.empty()) return;
  try {
    pattern_.emplace(source_.topic_pattern, std::regex::ECMAScript | std::regex::optimize);
  } catch (const std::regex_error& error) {
    throw ConfigError("topic_pattern \"" + source_.topic_pattern + "\" is no regular expression: " + error.what());
  }
}

void KafkaInput::check_gate(Duration batch_interval) const {
  if (batch_interval == Duration::zero() && source_.min_records_per_partition != 1)
    throw ConfigError(name_ + ": min_records_per_partition is " + std::to_string(source_.min_records_per_partition) +
                      ", and the gate is on_arrival, where batches come as fast as they can and a minimum of each "
                      "would be no rate at all; leave it at 1, or give the context a batch interval");
}

void KafkaInput::start(InputHost& host, std::size_t stream_id) {
  host_ = &host;
  stream_id_ = stream_id;
  client_ = std::make_shared<KafkaClient>(RD_KAFKA_CONSUMER, *std::exchange(conf_, std::nullopt), source_.token_source,
                                          static_cast<KafkaObserver*>(this));
  rd_kafka_poll_set_consumer(client_->get());
  queue_ = rd_kafka_queue_get_consumer(client_->get());
  rd_kafka_queue_cb_event_enable(
      queue_, [](rd_kafka_t*, void* bell) { static_cast<WakeUp*>(bell)->ring(); }, &bell_);  // takes no lock

  is_fresh_ = positions_->all().empty();
  for (const auto& [partition, next] : positions_->all()) {
    const std::scoped_lock lock{mutex_};
    auto& added = partitions_[partition];
    added = std::make_unique<Partition>(partition);
    added->position = added->fetched = next;
  }
  partition_count_.store(partitions_.size());
  thread_ = std::thread{[this] { run(); }};
}

// What has been fetched stays for the batches to come; when nothing has, the client ends here.
void KafkaInput::stop() noexcept {
  {
    const std::scoped_lock lock{mutex_};
    stopping_ = true;
  }
  bell_.ring();
  thread_.join();
  commit_last();
  rd_kafka_queue_cb_event_enable(queue_, nullptr, nullptr);
  client_->detach();
  rd_kafka_assign(client_->get(), nullptr);
  rd_kafka_queue_destroy(queue_);
  for (const auto& [_, topic] : topics_) rd_kafka_topic_destroy(topic);
  topics_.clear();
  host_->receiver_stopped(stream_id_, name_, {});
  host_ = nullptr;
  const std::scoped_lock lock{mutex_};
  if (waiting_records_.load() == 0) client_.reset();
}

void KafkaInput::on_error(const std::string& message) noexcept { complain(message); }

void KafkaInput::on_log(LogLevel level, const std::string& line) noexcept {
  try {
    host_->runtime()->log(level, name_ + ": librdkafka: " + line);
  } catch (const std::bad_alloc&) {
  }
}

void KafkaInput::complain(const std::string& message) noexcept { host_->receiver_error(stream_id_, name_, message); }

void KafkaInput::complain_once(const std::string& message) {
  if (message != last_complaint_) complain(message);
  last_complaint_ = message;
}

// ---- the thread -----------------------------------------------------------------------------------------------------

void KafkaInput::run() noexcept {
  name_this_thread(host_->runtime()->app_name.substr(0, 9) + "-kafka");
  const Steady::duration interval = std::chrono::duration_cast<Steady::duration>(source_.discovery_interval);
  Steady::time_point next_look = Steady::now();
  bool told = false;
  // What cannot be found must not keep what is known from being read.
  const auto attempt = [this](const auto& task) {
    try {
      task();
      return true;
    } catch (const SourceError& error) {
      complain_once(error.what());
    } catch (const std::exception& error) {
      complain(error.what());
    }
    return false;
  };
  for (;;) {
    if (Steady::now() >= next_look) {
      const bool found = attempt([this] { discover(); });
      next_look = Steady::now() + (found ? interval : retry_pause);
    }
    bool is_settled = false;
    attempt([&] {
      is_settled = settle_positions();
      assign();
      pause_and_resume();
      while (fetch()) {
      }
      if (told || positioned_partitions() == 0) return;
      told = true;
      host_->receiver_started(stream_id_, name_);
    });
    const Steady::time_point wake = is_settled ? next_look : std::min(next_look, Steady::now() + retry_pause);
    bell_.wait(wake);
    const std::scoped_lock lock{mutex_};
    if (stopping_) return;
  }
}

// Asks for the partitions there are, and adds those that are new. Errors: SourceError.
void KafkaInput::discover() {
  rd_kafka_t* const client = client_->get();
  if (!source_.partitions.empty()) {
    if (!looked_) {
      for (const KafkaPartition& partition : source_.partitions) add_partition(partition, is_fresh_);
    }
    looked_ = true;
    return;
  }
  if (pattern_) {
    const bool is_first = !looked_ && is_fresh_;
    bool is_any = false;
    ask_for_topics(client, nullptr, [&](const rd_kafka_metadata_topic& topic) {
      if (is_internal(topic.topic) || !std::regex_match(topic.topic, *pattern_)) return;
      is_any = true;
      add_topic(topic, !is_first);
    });
    looked_ = true;
    if (!is_any)
      complain_once("no topic has a name like KafkaSource::topic_pattern, \"" + source_.topic_pattern +
                    "\", which is for whole names; it is looked for again every " +
                    to_string(source_.discovery_interval));
    return;
  }
  std::optional<SourceError> failure;  // the first; the other topics are there all the same
  for (const std::string& name : source_.topics) {
    try {
      rd_kafka_topic_t*& topic = topics_[name];
      if (topic == nullptr) topic = rd_kafka_topic_new(client, name.c_str(), nullptr);
      if (topic == nullptr)
        throw SourceError("kafka_topic", "the topic " + name + " cannot be: " + describe(rd_kafka_last_error()),
                          Retry::may_help);
      ask_for_topics(client, topic, [&](const rd_kafka_metadata_topic& found) {
        const bool is_new = known_topics_.contains(name) || !is_fresh_;
        known_topics_.insert(name);
        add_topic(found, is_new);
      });
    } catch (const SourceError& error) {
      if (!failure) failure = error;
    }
  }
  if (failure) throw SourceError{*failure};
}

void KafkaInput::add_topic(const rd_kafka_metadata_topic& topic, bool is_new) {
  if (topic.err != RD_KAFKA_RESP_ERR_NO_ERROR && topic.partition_cnt == 0)
    throw SourceError("kafka_topic", "the topic " + std::string{topic.topic} + ": " + describe(topic.err),
                      Retry::may_help);
  for (int i = 0; i < topic.partition_cnt; ++i) add_partition({topic.topic, topic.partitions[i].id}, !is_new);
}

void KafkaInput::add_partition(const KafkaPartition& partition, bool begins_at_start) {
  const std::scoped_lock lock{mutex_};
  auto& added = partitions_[partition];
  if (added) return;
  added = std::make_unique<Partition>(partition);
  added->begins_at_start = begins_at_start;
  partition_count_.store(partitions_.size());
}

// Whether all are known.
bool KafkaInput::settle_positions() {
  std::vector<std::pair<KafkaPartition, bool>> unknown;
  {
    const std::scoped_lock lock{mutex_};
    for (const auto& [name, partition] : partitions_) {
      if (!partition->position) unknown.emplace_back(name, partition->begins_at_start);
    }
  }
  bool all = true;
  for (const auto& [name, begins_at_start] : unknown) {
    std::int64_t first = 0;
    try {
      first = ask_for_first_offset(client_->get(), name, begins_at_start ? source_.start : KafkaStart::earliest());
    } catch (const SourceError& error) {
      complain_once(error.what());
      all = false;
      continue;
    }
    const std::scoped_lock lock{mutex_};
    if (stopping_) return false;
    Partition& partition = *partitions_.at(name);
    if (!partition.position) partition.position = partition.fetched = first;  // unless a plan has said so meanwhile
  }
  return all;
}

// Has librdkafka fetch those partitions whose positions are known, from there. [KF3]
void KafkaInput::assign() {
  const KafkaList off = make_kafka_list(1);
  const KafkaList on = make_kafka_list(1);
  {
    const std::scoped_lock lock{mutex_};
    for (const auto& [name, partition] : partitions_) {
      if (!partition->position || !partition->loss.empty()) continue;
      if (partition->back_to && *partition->position == partition->fetched) {
        partition->position = partition->fetched = *std::exchange(partition->back_to, std::nullopt);
        partition->state = Partition::State::to_move;
      }
      if (partition->state == Partition::State::assigned) continue;
      if (partition->state == Partition::State::to_move)
        rd_kafka_topic_partition_list_add(off.get(), name.topic.c_str(), name.partition);
      rd_kafka_topic_partition_list_add(on.get(), name.topic.c_str(), name.partition)->offset = partition->fetched;
      partition->state = Partition::State::assigned;
      partition->is_paused = partition->is_at_end = false;
    }
  }
  const auto expect_good = [](rd_kafka_error_t* error) {
    if (error == nullptr) return;
    const std::string why = rd_kafka_error_string(error);
    rd_kafka_error_destroy(error);
    throw SourceError("kafka_assign", "partitions could not be assigned: " + why, Retry::may_help);
  };
  if (off->cnt != 0) expect_good(rd_kafka_incremental_unassign(client_->get(), off.get()));
  if (on->cnt != 0) expect_good(rd_kafka_incremental_assign(client_->get(), on.get()));
}

// Whether there may be more.
bool KafkaInput::fetch() {
  {
    const std::scoped_lock lock{mutex_};
    if (stopping_ || !may_fetch()) return false;
  }
  std::array<rd_kafka_message_t*, read_records> messages;
  const ssize_t read = rd_kafka_consume_batch_queue(queue_, 0, messages.data(), messages.size());
  if (read <= 0) return false;
  std::vector<rd_kafka_message_t*> said;
  bool has_arrived = false;
  {
    const std::scoped_lock lock{mutex_};
    for (ssize_t i = 0; i < read; ++i) {
      rd_kafka_message_t* const message = messages[static_cast<std::size_t>(i)];
      if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        take_in(message);
        has_arrived = true;
      } else if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        // Behind the last record there may be marks of transactions.
        if (Partition* const partition = find(rd_kafka_topic_name(message->rkt), message->partition);
            partition != nullptr && partition->state == Partition::State::assigned) {
          partition->fetched = std::max(partition->fetched, message->offset);
          partition->is_at_end = true;
        }
        rd_kafka_message_destroy(message);
      } else {
        said.push_back(message);
      }
    }
  }
  changed_.notify_all();
  if (has_arrived) {
    if (WakeUp* const bell = host_->arrival_bell()) bell->ring();
  }
  for (rd_kafka_message_t* const message : said) {
    const std::unique_ptr<rd_kafka_message_t, decltype(&rd_kafka_message_destroy)> owner{message,
                                                                                         &rd_kafka_message_destroy};
    hear(*message);
  }
  pause_and_resume();
  return true;
}

void KafkaInput::take_in(rd_kafka_message_t* message) {
  Partition* const partition = find(rd_kafka_topic_name(message->rkt), message->partition);
  // What was fetched before the partition was set elsewhere is left out, and comes again if it is wanted.
  if (partition == nullptr || partition->state != Partition::State::assigned || message->offset < partition->fetched) {
    rd_kafka_message_destroy(message);
    return;
  }
  partition->queue.add(message);
  partition->fetched = message->offset + 1;
  partition->is_at_end = false;
  buffered_ += size_of(*message);
  waiting_records_.fetch_add(1);
}

void KafkaInput::hear(const rd_kafka_message_t& message) {
  if (message.rkt == nullptr) {
    complain(describe(message.err) + ": " + rd_kafka_message_errstr(&message));
    return;
  }
  const KafkaPartition partition{rd_kafka_topic_name(message.rkt), message.partition};
  if (message.err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET || message.err == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE) {
    on_lost_position(partition);
    return;
  }
  complain(to_text(partition) + ": " + describe(message.err) + ": " + rd_kafka_message_errstr(&message));
}

// The broker does not have the offset that is to be fetched next.
void KafkaInput::on_lost_position(const KafkaPartition& partition) {
  std::int64_t low = 0;
  std::int64_t high = 0;
  std::string complaint;
  try {
    low = ask_offset(client_->get(), partition, RD_KAFKA_OFFSET_BEGINNING);
    high = ask_offset(client_->get(), partition, RD_KAFKA_OFFSET_END);
  } catch (const SourceError& error) {
    complaint = error.what();
  }
  {
    const std::scoped_lock lock{mutex_};
    const auto entry = partitions_.find(partition);
    if (entry == partitions_.end()) return;
    Partition& lost = *entry->second;
    lost.state = Partition::State::to_move;  // librdkafka fetches it no more
    bell_.ring();
    if (!complaint.empty()) {
      // It is assigned again, fails again, and is asked again.
    } else if (lost.fetched > high) {
      complaint = range_text(partition, high, lost.fetched) + cut_off_words;
      if (source_.fail_on_data_loss) {
        lost.loss = complaint;
      } else {
        complaint += "; it goes on at offset " + std::to_string(high);
        lost.lost += static_cast<std::uint64_t>(lost.fetched - high);
        lost.back_to = high;
      }
    } else if (lost.fetched < low) {
      complaint = range_text(partition, lost.fetched, low) + " are not there any more";
      if (source_.fail_on_data_loss) {
        lost.loss = complaint;
      } else {
        complaint += "; left out";
        lost.lost += static_cast<std::uint64_t>(low - lost.fetched);
        if (lost.queue.size() == 0) lost.position = low;
        lost.fetched = low;
      }
    } else {
      complaint = to_text(partition) + ": a broker did not know offset " + std::to_string(lost.fetched) +
                  ", which is there; it is asked again";
    }
  }
  complain(complaint);
  changed_.notify_all();
}

// A partition that the rate holds back must not fill the budget, or nobody else could come in: it gets some batches ahead, or its
// share of half the budget, but one batch in any case.
void KafkaInput::pause_and_resume() {
  constexpr std::size_t batches_ahead = 4;
  const KafkaList pause = make_kafka_list(1);
  const KafkaList resume = make_kafka_list(1);
  {
    const std::scoped_lock lock{mutex_};
    const std::size_t share = source_.max_buffered_bytes / 2 / std::max<std::size_t>(partitions_.size(), 1);
    for (const auto& [name, partition] : partitions_) {
      if (partition->state != Partition::State::assigned) continue;
      const std::size_t limit = partition->batch_limit;
      const std::size_t most =
          limit > no_limit / batches_ahead ? no_limit : std::max(read_records, limit * batches_ahead);
      const std::size_t waiting = partition->queue.size();
      const std::size_t part = partition->is_paused ? 2 : 1;  // it goes on when half of that is left
      bool is_full = waiting >= most / part || (waiting > limit && partition->queue.bytes() >= share / part);
      if (replaying_) is_full = !partition->is_awaited && buffered_ >= source_.max_buffered_bytes;
      if (is_full == partition->is_paused) continue;
      partition->is_paused = is_full;
      rd_kafka_topic_partition_list_add(is_full ? pause.get() : resume.get(), name.topic.c_str(), name.partition);
    }
  }
  if (pause->cnt != 0) rd_kafka_pause_partitions(client_->get(), pause.get());
  if (resume->cnt != 0) rd_kafka_resume_partitions(client_->get(), resume.get());
}

KafkaInput::Partition* KafkaInput::find(const char* topic, std::int32_t partition) {
  const auto entry = partitions_.find({topic, partition});
  return entry == partitions_.end() ? nullptr : entry->second.get();
}

// ---- the driving thread ---------------------------------------------------------------------------------------------

bool KafkaInput::has_rate() const noexcept {
  return rate_ != unlimited_rate || source_.max_rate_per_partition != unlimited_rate;
}

bool KafkaInput::has_pending() const noexcept {
  if (waiting_records_.load(std::memory_order_acquire) == 0) return false;
  const std::scoped_lock lock{mutex_};
  if (host_ == nullptr || !has_rate() || host_->batch_interval() != Duration::zero()) return true;
  return std::any_of(partitions_.begin(), partitions_.end(), [this](const auto& entry) {
    const Partition& partition = *entry.second;
    const double elapsed = filled_ ? seconds(host_->runtime()->clock->now() - *filled_) : 1;
    return partition.queue.size() != 0 && partition.tokens + elapsed * source_.max_rate_per_partition >= 1;
  });
}

InputInfo KafkaInput::cut(Time t, std::size_t max_records) {
  std::unique_lock lock{mutex_};
  throw_losses();
  std::vector<std::size_t> takes;
  limit_batch(max_records, takes);
  cut_.clear();
  cut_ranges_.clear();
  std::size_t i = 0;
  for (const auto& [_, partition] : partitions_) {
    const std::size_t records = takes[i++];
    if (!partition->position) continue;
    const bool all = records == partition->queue.size();
    take(*partition, records,
         all            ? partition->fetched
         : records == 0 ? *partition->position
                        : partition->queue[records - 1].offset + 1);
  }
  InputInfo info = describe_cut();
  note_commit(t);
  const bool waits_for_rate = host_ != nullptr && has_rate() && host_->batch_interval() == Duration::zero();
  lock.unlock();
  bell_.ring();          // there is room
  if (waits_for_rate) {  // what the rate holds back is looked at again, by a turn of the engine
    const auto one = std::chrono::duration_cast<Duration>(
        std::chrono::duration<double>{std::min(1.0, 1 / source_.max_rate_per_partition)});
    host_->schedule(host_->runtime()->clock->now() + one + Duration{1}, [] {});
  }
  return info;
}

// How many records the batch may take of each partition. [BP1, BP8]
void KafkaInput::limit_batch(std::size_t max_records, std::vector<std::size_t>& takes) {
  const bool is_limited = has_rate() && host_ != nullptr;  // a stop holds nothing back
  const Duration interval = host_ == nullptr ? Duration::zero() : host_->batch_interval();
  if (is_limited && interval == Duration::zero()) fill_tokens(host_->runtime()->clock->now());
  std::vector<double> lags;
  double total_lag = 0;
  if (is_limited && rate_ != unlimited_rate) {
    for (const auto& [_, partition] : partitions_) {
      lags.push_back(static_cast<double>(lag_of(*partition).value_or(partition->queue.size())));
      total_lag += lags.back();
    }
  }
  std::size_t all = 0;
  for (const auto& [_, partition] : partitions_) {
    partition->batch_limit = no_limit;
    std::size_t limit = no_limit;
    if (is_limited) {
      double rate = source_.max_rate_per_partition;
      if (!lags.empty())
        rate = std::min(rate, total_lag > 0 ? rate_ * lags[takes.size()] / total_lag
                                            : rate_ / static_cast<double>(partitions_.size()));
      const double records = std::floor(rate * (interval == Duration::zero() ? 1 : seconds(interval)));
      if (records < static_cast<double>(no_limit) / 2)
        partition->batch_limit = std::max(source_.min_records_per_partition, static_cast<std::size_t>(records));
      limit = interval == Duration::zero() ? static_cast<std::size_t>(partition->tokens) : partition->batch_limit;
    }
    takes.push_back(std::min(limit, partition->queue.size()));
    all += takes.back();
  }
  // A batch that is too small for all begins with another partition each time.
  if (all <= max_records) return;
  std::vector<std::size_t> wanted = std::move(takes);
  takes.assign(wanted.size(), 0);
  std::size_t left = max_records;
  while (left != 0) {
    const auto hungry = static_cast<std::size_t>(
        std::count_if(wanted.begin(), wanted.end(), [](std::size_t records) { return records != 0; }));
    const std::size_t each = std::max<std::size_t>(1, left / hungry);
    for (std::size_t i = 0; i < wanted.size() && left != 0; ++i) {
      const std::size_t at = (first_to_take_ + i) % wanted.size();
      const std::size_t some = std::min({each, wanted[at], left});
      takes[at] += some;
      wanted[at] -= some;
      left -= some;
    }
  }
  ++first_to_take_;
}

// Without an interval a partition may take what its rate has let in since the last batch, of at most a second.
void KafkaInput::fill_tokens(Time now) {
  const double rate = source_.max_rate_per_partition;
  const double most = std::max(1.0, rate);
  const double earned = filled_ ? seconds(now - *filled_) * rate : most;
  filled_ = now;
  for (const auto& [_, partition] : partitions_) partition->tokens = std::min(most, partition->tokens + earned);
}

// [KF2]
void KafkaInput::take(Partition& partition, std::size_t records, std::int64_t until) {
  KafkaSlice& slice = cut_.emplace_back();
  slice.range = {.topic = partition.name.topic,
                 .partition = partition.name.partition,
                 .from = *partition.position,
                 .until = until};
  slice.origin = partition.origin;
  cut_ranges_.push_back(slice.range);
  slice.messages = partition.queue.take(records);
  buffered_ -= slice.messages.bytes();
  waiting_records_.fetch_sub(slice.messages.size());
  partition.tokens -= static_cast<double>(slice.messages.size());
  partition.position = until;
  positions_->set(partition.name, until);
}

InputInfo KafkaInput::describe_cut() {
  InputInfo info{.stream_id = stream_id_, .name = name_, .records = 0, .metadata = {}, .lost = 0};
  for (const KafkaSlice& slice : cut_) {
    info.records += slice.messages.size();
    if (slice.range.from == slice.range.until) continue;
    if (!info.metadata.empty()) info.metadata += '\n';
    info.metadata += slice.range.topic + '[' + std::to_string(slice.range.partition) + "] " +
                     std::to_string(slice.range.from) + ".." + std::to_string(slice.range.until);
  }
  std::optional<std::uint64_t> lag = 0;
  for (const auto& [_, partition] : partitions_) {
    info.lost += static_cast<std::size_t>(std::exchange(partition->lost, 0));
    const auto one = lag_of(*partition);
    lag = lag && one ? std::optional{*lag + *one} : std::nullopt;
  }
  info.lag = partitions_.empty() ? std::nullopt : lag;
  return info;
}

// By what brokers have said last; they are not asked. Absent: they have said nothing yet.
std::optional<std::uint64_t> KafkaInput::lag_of(const Partition& partition) const {
  std::int64_t low = 0;
  std::int64_t high = 0;
  if (!partition.position || !client_ ||
      rd_kafka_get_watermark_offsets(client_->get(), partition.name.topic.c_str(), partition.name.partition, &low,
                                     &high) != RD_KAFKA_RESP_ERR_NO_ERROR ||
      high < 0)
    return std::nullopt;
  return static_cast<std::uint64_t>(std::max<std::int64_t>(0, std::max(high, partition.fetched) - *partition.position));
}

// What was fetched before the loss is still given out.
void KafkaInput::throw_losses() const {
  std::string losses;
  for (const auto& [_, partition] : partitions_) {
    if (partition->loss.empty() || partition->queue.size() != 0) continue;
    losses += (losses.empty() ? "" : "; ") + partition->loss;
  }
  if (!losses.empty())
    throw SourceError(
        "kafka_data_loss",
        name_ + ": " + losses +
            "; begin anew without the checkpoint, or set KafkaSource::fail_on_data_loss to false to go on "
            "without those records",
        Retry::is_useless);
}

void KafkaInput::note_commit(Time t) {
  if (!source_.commit_offsets) return;
  // Without a checkpoint nobody says that a batch is done; that the next one is cut says so.
  if (!positions_->is_durable()) forget_until(t);
  std::map<KafkaPartition, std::int64_t> ends;
  for (const auto& [name, partition] : partitions_) {
    if (partition->position) ends.emplace(name, *partition->position);
  }
  ends_.emplace_back(t, std::move(ends));
}

void KafkaInput::forget_until(Time t) {
  const bool is_any_done = !ends_.empty() && ends_.front().first <= t;
  for (; !ends_.empty() && ends_.front().first <= t; ends_.pop_front()) done_ = std::move(ends_.front().second);
  if (!is_any_done || !client_ || done_.empty()) return;
  // Without waiting; what fails is heard by on_commit_failed.
  const rd_kafka_resp_err_t error = rd_kafka_commit((member_ ? member_ : client_)->get(), list_of(done_).get(), 1);
  if (error != RD_KAFKA_RESP_ERR_NO_ERROR) on_commit_failed("offsets could not be committed: " + describe(error));
}

// Waits for an answer, since what the client has not sent yet goes with it.
void KafkaInput::commit_last() noexcept {
  try {
    if (!positions_->is_durable() && !ends_.empty()) {
      done_ = std::move(ends_.back().second);
    } else if (member_) {
      return;  // it outlives us, and sends what it was given
    }
    ends_.clear();
    if (done_.empty()) return;
    const auto& client = member_ ? member_ : client_;
    const std::unique_ptr<rd_kafka_queue_t, decltype(&rd_kafka_queue_destroy)> answers{
        rd_kafka_queue_new(client->get()), &rd_kafka_queue_destroy};
    rd_kafka_resp_err_t error =
        rd_kafka_commit_queue(client->get(), list_of(done_).get(), answers.get(), nullptr, nullptr);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR) {
      const std::unique_ptr<rd_kafka_event_t, decltype(&rd_kafka_event_destroy)> answer{
          rd_kafka_queue_poll(answers.get(), answer_ms), &rd_kafka_event_destroy};
      error = answer ? rd_kafka_event_error(answer.get()) : RD_KAFKA_RESP_ERR__TIMED_OUT;
    }
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
      on_commit_failed("the last offsets could not be committed to the consumer group: " + describe(error));
  } catch (const std::bad_alloc&) {  // nobody depends on it
  }
}

std::optional<double> KafkaInput::max_rate() const noexcept {
  const double rate = source_.max_rate_per_partition;
  const std::size_t partitions = partition_count_.load();
  return partitions == 0 ? unlimited_rate : rate * static_cast<double>(partitions);
}

void KafkaInput::limit_rate(double records_per_second) noexcept {
  const std::scoped_lock lock{mutex_};
  rate_ = records_per_second;
}

void KafkaInput::add_positions(std::vector<InputPosition>& to) const {
  for (const KafkaOffsetRange& range : cut_ranges_)
    to.push_back({.source = range.topic,
                  .partition = static_cast<std::uint32_t>(range.partition),
                  .next = static_cast<std::uint64_t>(range.until)});
}

std::string KafkaInput::plan() const { return encode(cut_ranges_); }

// Waits until what the plan names is there, at most the stall time-out; then takes exactly that. [KF2, F45]
InputInfo KafkaInput::replay(Time t, std::string_view plan) {
  const std::vector<KafkaOffsetRange> ranges = kafka_ranges_of_plan(plan);
  const auto deadline = Steady::now() + std::chrono::duration_cast<Steady::duration>(source_.stall_timeout);
  std::unique_lock lock{mutex_};
  if (stopping_)
    throw SourceError("kafka_stopped", name_ + ": the context is being stopped; the next run reads the batch again",
                      Retry::may_help);
  std::vector<Partition*> awaited;
  for (const KafkaOffsetRange& range : ranges) {
    auto& partition = partitions_[{range.topic, range.partition}];
    if (!partition) partition = std::make_unique<Partition>(KafkaPartition{range.topic, range.partition});
    awaited.push_back(partition.get());
    if (partition->position == range.from) continue;
    buffered_ -= partition->queue.bytes();
    waiting_records_.fetch_sub(partition->queue.size());
    partition->queue.clear();
    partition->position = partition->fetched = range.from;
    if (partition->state == Partition::State::assigned) partition->state = Partition::State::to_move;
  }
  partition_count_.store(partitions_.size());
  std::vector<std::optional<std::int64_t>> cut_off(ranges.size());  // where a topic ends that had more
  const auto is_missing = [&](std::size_t i) { return !cut_off[i] && awaited[i]->fetched < ranges[i].until; };
  const auto expect = [&](bool awaits) {
    replaying_ = awaits;
    for (std::size_t i = 0; i < ranges.size(); ++i) awaited[i]->is_awaited = awaits && is_missing(i);
    bell_.ring();
  };
  std::string left_out;
  for (;;) {
    bool is_complete = true;
    const bool is_over = Steady::now() >= deadline;
    std::string lost;
    std::string missing;
    for (std::size_t i = 0; i < ranges.size(); ++i) {
      Partition& partition = *awaited[i];
      if (!is_missing(i)) continue;
      const std::string what = range_text(partition.name, partition.fetched, ranges[i].until);
      if (partition.back_to || partition.fetched < ranges[i].from) {  // it ends before the range, as has been told
        cut_off[i] = std::exchange(partition.back_to, std::nullopt).value_or(partition.fetched);
        partition.lost += static_cast<std::uint64_t>(ranges[i].until - ranges[i].from);
        continue;
      }
      // An end that comes too soon may be that of a broker which has not caught up, so it has time.
      if (is_over && partition.is_at_end) {
        const std::string loss = what + cut_off_words;
        if (source_.fail_on_data_loss) {
          partition.loss = loss;
        } else {
          left_out += (left_out.empty() ? "" : "; ") + loss + "; left out";
          cut_off[i] = partition.fetched;
          partition.lost += static_cast<std::uint64_t>(ranges[i].until - partition.fetched);
          continue;
        }
      }
      is_complete = false;
      if (!partition.loss.empty()) lost += (lost.empty() ? "" : "; ") + partition.loss;
      missing += (missing.empty() ? "" : ", ") + what;
    }
    expect(!is_complete);
    if (is_complete) break;
    const auto fail = [&](const char* code, const std::string& why, Retry retry) {
      expect(false);
      throw SourceError(code, name_ + ": the batch of " + to_string(t) + " is to be run again, and " + why, retry);
    };
    if (!lost.empty())
      fail("kafka_data_loss",
           lost +
               "; begin anew without the checkpoint, or set KafkaSource::fail_on_data_loss to false to go on without "
               "those records",
           Retry::is_useless);
    if (host_->is_stopping()) fail("kafka_stopped", "the context is being stopped", Retry::may_help);
    if (is_over)
      fail("kafka_stalled",
           missing + " could not be read within " + to_string(source_.stall_timeout) +
               " (stall_timeout); it is tried again when the program is started again",
           Retry::may_help);
    changed_.wait_for(lock, 50ms);
  }
  cut_.clear();
  cut_ranges_.clear();
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    Partition& partition = *awaited[i];
    std::size_t records = 0;
    while (records < partition.queue.size() && partition.queue[records].offset < ranges[i].until) ++records;
    partition.position = ranges[i].from;
    take(partition, records, ranges[i].until);
    if (cut_off[i]) {
      partition.position = partition.fetched = *cut_off[i];
      if (partition.state == Partition::State::assigned) partition.state = Partition::State::to_move;
    } else if (partition.queue.size() == 0 && partition.fetched > ranges[i].until && partition.lost != 0) {
      partition.position = partition.fetched;  // what was lost reaches beyond this batch
    }
    positions_->set(partition.name, *partition.position);
  }
  InputInfo info = describe_cut();
  note_commit(t);
  lock.unlock();
  bell_.ring();
  if (!left_out.empty()) complain(left_out);
  return info;
}

Batch<KafkaRecord> KafkaInput::take_cut(std::shared_ptr<const Scope> scope) {
  auto batch = make_kafka_batch(std::move(scope), client_, std::move(cut_));
  cut_.clear();
  const std::scoped_lock lock{mutex_};
  if (stopping_ && host_ == nullptr && waiting_records_.load() == 0) client_.reset();
  return batch;
}

std::size_t KafkaInput::buffered_bytes() const noexcept {
  const std::scoped_lock lock{mutex_};
  return buffered_;
}
std::size_t KafkaInput::buffered_records() const noexcept { return waiting_records_.load(); }
std::size_t KafkaInput::positioned_partitions() const noexcept {
  const std::scoped_lock lock{mutex_};
  return static_cast<std::size_t>(std::count_if(partitions_.begin(), partitions_.end(),
                                                [](const auto& entry) { return entry.second->position.has_value(); }));
}

}  // namespace tidemill::detail
