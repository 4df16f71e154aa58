#include "tidemill/kafka/group.hpp"

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "kafka/input.hpp"
#include "tidemill/core/codec.hpp"
#include "tidemill/core/crc32c.hpp"
#include "tidemill/core/fs.hpp"

// One thread belongs to the group: it polls the client, which has subscribed and fetches nothing, so a member is never late,
// whatever the batches do. Each partition that comes has a thread of its own, which opens its context, watches it and stops it.
//
// Invariants, quoted by the tests:
//   KG1  A partition is given back to the group only when its context has ended here; or when the group took it, because this
//        copy was not heard of for too long. The lock of its checkpoint keeps the next copy from running it before that, in
//        any case.
//   KG2  Where partitions begin is settled once and durable, before the first of them is read.

namespace tidemill {

KafkaGroupListener::~KafkaGroupListener() = default;

namespace detail {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view origin_magic = "tidemlKG";
constexpr std::uint16_t origin_version = 1;
constexpr std::size_t origin_header =
    16;  // magic, version, two bytes that are 0, checksum of what is before and after it

std::uint32_t checksum(std::string_view bytes) {
  const auto all = std::as_bytes(std::span{bytes});
  return crc32c(all.subspan(origin_header), crc32c(all.first(origin_header - 4)));
}

}  // namespace

std::string encode_kafka_group_origin(const KafkaGroupOrigin& origin) {
  std::string bytes{origin_magic};
  for (const unsigned shift : {0U, 8U}) bytes.push_back(static_cast<char>(origin_version >> shift & 0xFF));
  bytes.resize(origin_header);
  bytes += encode(origin);
  const std::uint32_t crc = checksum(bytes);
  for (const unsigned i : {0U, 1U, 2U, 3U}) bytes[12 + i] = static_cast<char>(crc >> 8 * i & 0xFF);
  return bytes;
}

KafkaGroupOrigin decode_kafka_group_origin(std::string_view bytes) {
  const auto damaged = [](const std::string& what) {
    throw StateError(
        "checkpoint_damaged",
        "the file that says where the partitions of a group began is damaged: " + what + "; restore it from a copy",
        Retry::is_useless);
  };
  const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[i])); };
  if (bytes.size() < origin_header || !bytes.starts_with(origin_magic)) damaged("it does not begin as it should");
  if (const std::uint32_t version = byte(8) | byte(9) << 8U; version > origin_version)
    throw StateError("newer_format",
                     "the file that says where the partitions of a group began has version " + std::to_string(version) +
                         ", and this library reads versions up to " + std::to_string(origin_version) +
                         ": use a later Tidemill",
                     Retry::is_useless);
  const std::uint32_t crc = byte(12) | byte(13) << 8U | byte(14) << 16U | byte(15) << 24U;
  if (checksum(bytes) != crc) damaged("its checksum does not match");
  auto origin = decode<KafkaGroupOrigin>(bytes.substr(origin_header));
  for (const auto& [partition, first] : origin.first) {
    if (partition.topic.empty() || partition.partition < 0 || first < 0)
      damaged("it says that " + to_text(partition) + " began at " + std::to_string(first));
  }
  return origin;
}

}  // namespace detail

namespace {

using namespace std::chrono_literals;
using detail::KafkaClient;
using detail::KafkaConf;
using detail::KafkaGroupOrigin;
using detail::KafkaInput;
using detail::RefusedSetting;

// How long a poll of the client waits, and so how long a partition that could be given back is kept.
constexpr int poll_ms = 50;
// Between attempts at something that did not succeed.
constexpr auto retry_pause = 500ms;

constexpr std::array refused_membership = {
    RefusedSetting{"bootstrap.servers", "it is KafkaSource::brokers"},
    RefusedSetting{"metadata.broker.list", "it is KafkaSource::brokers"},
    RefusedSetting{"group.id", "it is KafkaSource::group_id"},
    RefusedSetting{"enable.auto.commit", "the checkpoints keep the offsets"},
    RefusedSetting{"auto.commit.enable", "the checkpoints keep the offsets"},
    RefusedSetting{"enable.auto.offset.store", "the checkpoints keep the offsets"},
    RefusedSetting{"auto.offset.reset", "the member of the group reads nothing"},
};

void check(const KafkaGroupOptions& options) {
  const KafkaSource& source = options.source;
  if (source.topics.empty() || !source.topic_pattern.empty() || !source.partitions.empty())
    throw ConfigError(
        "a KafkaGroup reads KafkaSource::topics, and neither a topic_pattern nor partitions of your choice");
  if (source.group_id.empty())
    throw ConfigError("KafkaSource::group_id is empty; all copies name the same, by which they find each other");
  if (options.checkpoint.empty()) throw ConfigError("KafkaGroupOptions::checkpoint is empty; name a directory");
  for (const auto& [name, _] : source.settings) {
    if (name == "group.instance.id" || name == "partition.assignment.strategy" || name == "group.protocol.type")
      throw ConfigError("the setting \"" + name +
                        "\" is one of the member of the group; give it in "
                        "KafkaGroupOptions::membership");
  }
}

KafkaConf conf_of(const std::string& app_name, const KafkaGroupOptions& options) {
  const KafkaSource& source = options.source;
  KafkaConf conf{"the group \"" + source.group_id + '"'};
  conf.set("client.id", "tidemill-" + app_name);
  conf.set("partition.assignment.strategy", "cooperative-sticky");
  const auto look = std::chrono::duration_cast<std::chrono::milliseconds>(source.discovery_interval).count();
  conf.set("topic.metadata.refresh.interval.ms", std::to_string(std::clamp<std::int64_t>(look, 10, 3600000)));
  conf.set_all(source.settings, detail::refused_source_settings());
  conf.set_all(options.membership, refused_membership);
  if (source.token_source) conf.expect_oauth();
  conf.set("bootstrap.servers", source.brokers);
  conf.set("group.id", source.group_id);
  conf.set("enable.auto.commit", "false");
  conf.set("enable.auto.offset.store", "false");
  return conf;
}

std::string directory_of(const KafkaPartition& partition) {
  return partition.topic + '-' + std::to_string(partition.partition);
}

}  // namespace

// A partition that is worked on here, and its context.
class KafkaGroup::Share {
 public:
  Share(Impl& group, KafkaPartition partition)
      : group_{group}, partition_{std::move(partition)}, thread_{[this] { keep(); }} {}
  ~Share() {
    request_stop(StopMode::immediate);
    thread_.join();
  }
  Share(const Share&) = delete;
  Share& operator=(const Share&) = delete;

  void request_stop(StopMode mode) {
    const std::scoped_lock lock{mutex_};
    if (stop_ != StopMode::immediate) stop_ = mode;
    if (ssc_) ssc_->request_stop(*stop_);
    changed_.notify_all();
  }
  /// Its context has ended, and its checkpoint is free.
  [[nodiscard]] bool is_done() const {
    const std::scoped_lock lock{mutex_};
    return is_done_;
  }
  /// Nobody asked for it.
  [[nodiscard]] bool ended_by_itself() const {
    const std::scoped_lock lock{mutex_};
    return is_done_ && !stop_;
  }
  /// Absent: its batches do not run.
  [[nodiscard]] std::optional<StreamingMetrics> metrics() const {
    const std::scoped_lock lock{mutex_};
    return ssc_ ? std::optional{ssc_->metrics()} : std::nullopt;
  }

 private:
  void keep() noexcept;
  [[nodiscard]] bool open();
  void watch();
  void close();

  Impl& group_;
  const KafkaPartition partition_;
  mutable std::mutex mutex_;  // guards what follows. Lock order: before the group's
  std::condition_variable changed_;
  std::optional<StopMode> stop_;
  std::unique_ptr<StreamingContext> ssc_;  // null: not started yet, or ended
  std::exception_ptr error_;               // the context's first, until it is told
  bool is_done_ = false;
  std::thread thread_;  // the last to begin
};

class KafkaGroup::Impl final : private detail::KafkaObserver {
 public:
  Impl(const Context& context, KafkaGroupOptions options, Setup setup)
      : context_{context},
        options_{((void)check(options), std::move(options))},
        setup_{std::move(setup)},
        conf_{conf_of(context_.app_name(), options_)},
        fs_{options_.recovery.store.fs ? options_.recovery.store.fs : context_.runtime()->fs} {
    if (!setup_) throw ConfigError("a KafkaGroup was given no function that builds the streams of a partition");
    // What would be refused when a partition comes is refused here.
    const auto ssc = new_context();
    const auto input = [&](KafkaSource source) {
      return std::make_shared<KafkaInput>(context_.app_name(), std::move(source));
    };
    static_cast<void>(input(options_.source));  // with its start, which partitions do not have
    static_cast<void>(detail::make_kafka_stream(*ssc, input(source_of({options_.source.topics.front(), 0}))));
  }
  ~Impl() override { stop(StopMode::immediate); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  // ---- for the host -----------------------------------------------------------------------------------------------------

  void start() {
    const std::scoped_lock life{life_mutex_};
    if (has_started_)
      throw PlanError("illegal_state", "start() was called on a group that was started before; make a new KafkaGroup");
    has_started_ = true;
    try {
      read_origin();
      client_ = std::make_shared<KafkaClient>(RD_KAFKA_CONSUMER, *std::exchange(conf_, std::nullopt),
                                              options_.source.token_source, static_cast<KafkaObserver*>(this));
      rd_kafka_poll_set_consumer(client_->get());
      thread_ = std::thread{[this] { run(); }};
    } catch (...) {
      end();
      throw;
    }
  }

  void request_stop(StopMode mode) {
    const std::scoped_lock lock{mutex_};
    if (stop_ != StopMode::immediate) stop_ = mode;
    changed_.notify_all();
  }

  void stop(StopMode mode) {
    request_stop(mode);
    if (std::this_thread::get_id() == thread_.get_id())
      throw PlanError("illegal_state",
                      "stop() was called by a listener of the group, for which it would wait; "
                      "call request_stop()");
    const std::scoped_lock life{life_mutex_};
    has_started_ = true;
    if (thread_.joinable()) thread_.join();
    end();
  }

  [[nodiscard]] bool await_termination(std::optional<std::chrono::nanoseconds> timeout) {
    std::unique_lock lock{mutex_};
    const auto is_over = [&] { return ended_ || first_error_; };
    if (!timeout) {
      changed_.wait(lock, is_over);
    } else if (!changed_.wait_for(lock, *timeout, is_over)) {
      return false;
    }
    if (first_error_) std::rethrow_exception(first_error_);
    return true;
  }

  [[nodiscard]] std::map<KafkaPartition, StreamingMetrics> metrics() const {
    std::map<KafkaPartition, std::shared_ptr<Share>> shares;
    {
      const std::scoped_lock lock{mutex_};
      shares = shares_;
    }
    std::map<KafkaPartition, StreamingMetrics> all;
    for (const auto& [partition, share] : shares) {
      if (auto metrics = share->metrics()) all.emplace(partition, *std::move(metrics));
    }
    return all;
  }

  void add_listener(std::shared_ptr<KafkaGroupListener> listener) {
    if (!listener) throw ConfigError("add_listener was given a null listener");
    const std::scoped_lock lock{listeners_mutex_};
    listeners_.push_back(std::move(listener));
  }

  // ---- for a share ------------------------------------------------------------------------------------------------------

  /// A context with the streams of the partition, not started.
  [[nodiscard]] std::unique_ptr<StreamingContext> build(const KafkaPartition& partition) {
    const std::scoped_lock lock{setup_mutex_};
    return StreamingContext::get_or_create(
        options_.checkpoint / directory_of(partition),
        [&] {
          auto ssc = new_context();
          ssc->engine()->see_part(directory_of(partition));
          const auto input = std::make_shared<KafkaInput>(context_.app_name(), source_of(partition));
          input->commit_by(client_);
          setup_(*ssc, detail::make_kafka_stream(*ssc, input), partition);
          return ssc;
        },
        options_.recovery);
  }

  template <class... Args, class... Given>
  void tell(void (KafkaGroupListener::*event)(Args...), const Given&... what) noexcept {
    const std::scoped_lock lock{listeners_mutex_};
    for (const auto& listener : listeners_) {
      try {
        ((*listener).*event)(what...);
      } catch (...) {
        log_error("a listener threw: ", std::current_exception());
      }
    }
  }
  void complain(const std::string& message) noexcept {
    log(LogLevel::warning, message);
    tell(&KafkaGroupListener::on_error, message);
  }
  void fail(std::exception_ptr error) noexcept {
    log_error("", error);
    const std::scoped_lock lock{mutex_};
    if (!first_error_) first_error_ = std::move(error);
    changed_.notify_all();
  }
  [[nodiscard]] const std::string& app_name() const noexcept { return context_.app_name(); }

 private:
  void log(LogLevel level, const std::string& line) const noexcept {
    try {
      context_.runtime()->log(level, "Kafka group " + options_.source.group_id + ": " + line);
    } catch (const std::bad_alloc&) {  // a line less
    }
  }
  void log_error(const char* what, const std::exception_ptr& error) const noexcept {
    try {
      log(LogLevel::error, what + describe(error));
    } catch (const std::bad_alloc&) {  // likewise
    }
  }

  [[nodiscard]] std::unique_ptr<StreamingContext> new_context() const {
    return options_.batch_interval
               ? std::make_unique<StreamingContext>(context_, *options_.batch_interval, options_.streaming)
               : std::make_unique<StreamingContext>(context_, on_arrival, options_.streaming);
  }

  [[nodiscard]] KafkaSource source_of(const KafkaPartition& partition) const {
    KafkaSource source = options_.source;
    source.topics.clear();
    source.partitions = {partition};
    // With a start for none of the others it begins at its first record. [KG2]
    source.start = KafkaStart::from(std::map<KafkaPartition, std::int64_t>{});
    std::size_t partitions = 1;
    if (origin_) {
      const auto first = origin_->first.find(partition);
      if (first != origin_->first.end()) source.start.offsets.insert(*first);
      partitions = std::max(partitions, origin_->first.size());
    }
    constexpr std::size_t least = std::size_t{1} << 20;
    if (source.max_buffered_bytes >= least)  // or it is refused as it is
      source.max_buffered_bytes = std::max(least, source.max_buffered_bytes / partitions);
    return source;
  }

  // ---- where partitions begin; KG2 --------------------------------------------------------------------------------------

  [[nodiscard]] std::string origin_path() const { return detail::join_path(options_.checkpoint.string(), "GROUP"); }

  // Takes the origin that is there, if there is one.
  void read_origin() {
    const std::string directory = options_.checkpoint.string();
    if (fs_->make_directory(directory)) fs_->sync_directory(detail::parent_path(directory));
    if (!fs_->exists(origin_path())) return;
    KafkaGroupOrigin found = detail::decode_kafka_group_origin(fs_->read_all(origin_path()));
    if (found.group_id != options_.source.group_id)
      throw StateError("incompatible_checkpoint",
                       "the directory " + directory + " belongs to the group \"" + found.group_id +
                           "\", and this one is \"" + options_.source.group_id + "\"; give each group its own",
                       Retry::is_useless);
    origin_ = std::move(found);
  }

  // Asks the brokers, and writes the answer down, unless another copy has done so. Errors: SourceError, FsError, StateError.
  void settle_origin() {
    KafkaGroupOrigin origin{.group_id = options_.source.group_id, .first = {}};
    for (const std::string& name : options_.source.topics) {
      const std::unique_ptr<rd_kafka_topic_t, decltype(&rd_kafka_topic_destroy)> topic{
          rd_kafka_topic_new(client_->get(), name.c_str(), nullptr), &rd_kafka_topic_destroy};
      if (!topic)
        throw SourceError("kafka_topic", "the topic " + name + " cannot be: " + detail::describe(rd_kafka_last_error()),
                          Retry::may_help);
      detail::ask_for_topics(client_->get(), topic.get(), [&](const rd_kafka_metadata_topic& found) {
        // A topic that is not there yet is read from its first record on when it is.
        if (found.err != RD_KAFKA_RESP_ERR_NO_ERROR && found.err != RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
          throw SourceError("kafka_topic", "the topic " + name + ": " + detail::describe(found.err), Retry::may_help);
        for (int i = 0; i < found.partition_cnt; ++i) {
          const KafkaPartition partition{name, found.partitions[i].id};
          origin.first[partition] = detail::ask_for_first_offset(client_->get(), partition, options_.source.start);
        }
      });
    }
    const std::string path = origin_path();
    std::string mine = path + '.';
    for (const std::byte b : fs_->random_id()) mine += static_cast<char>('a' + std::to_integer<int>(b) % 26);
    const std::string bytes = detail::encode_kafka_group_origin(origin);
    const auto file = fs_->create(mine);
    file->append(std::as_bytes(std::span{bytes}));
    file->sync();
    try {
      fs_->link(mine, path);
    } catch (const FsError& error) {
      if (error.code() != "exists") throw;
    }
    fs_->remove(mine);
    fs_->sync_directory(options_.checkpoint.string());
    read_origin();
  }

  // ---- the thread -------------------------------------------------------------------------------------------------------

  void run() noexcept {
    try {
      name_this_thread(context_.app_name().substr(0, 9) + "-group");
      if (begin()) {
        while (!stop_asked()) {
          poll();
          tend();
        }
      }
    } catch (...) {
      fail(std::current_exception());
      request_stop(StopMode::immediate);
    }
    give_up();
    client_->detach();
    client_.reset();
    end();
  }

  [[nodiscard]] std::optional<StopMode> stop_asked() const {
    const std::scoped_lock lock{mutex_};
    return stop_;
  }

  // Subscribes, once it is settled where partitions begin. False: a stop came first.
  [[nodiscard]] bool begin() {
    std::string said;
    while (!origin_) {
      try {
        settle_origin();
      } catch (const SourceError& error) {
        if (said != error.what()) complain(error.what());
        said = error.what();
      }
      std::unique_lock lock{mutex_};
      if (changed_.wait_for(lock, origin_ ? 0ms : retry_pause, [&] { return stop_.has_value(); })) return false;
    }
    const detail::KafkaList topics = detail::make_kafka_list(options_.source.topics.size());
    for (const std::string& topic : options_.source.topics)
      rd_kafka_topic_partition_list_add(topics.get(), topic.c_str(), RD_KAFKA_PARTITION_UA);
    if (const auto error = rd_kafka_subscribe(client_->get(), topics.get()); error != RD_KAFKA_RESP_ERR_NO_ERROR)
      throw SourceError("kafka_group", "the topics could not be subscribed to: " + detail::describe(error),
                        Retry::may_help);
    return true;
  }

  // Lets the client do what it has to; on_rebalance is called from here.
  void poll() {
    rd_kafka_message_t* const message = rd_kafka_consumer_poll(client_->get(), poll_ms);
    if (message == nullptr) return;
    if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR && message->err != RD_KAFKA_RESP_ERR__PARTITION_EOF)
      complain(rd_kafka_message_errstr(message) + (" (" + detail::describe(message->err) + ')'));
    rd_kafka_message_destroy(message);
  }

  // Lets go of shares that have ended, gives back what can be, takes on what has come.
  void tend() {
    std::vector<std::shared_ptr<Share>> ended;  // they go without the lock, since their threads are joined
    for (const auto& [_, share] : shares_) {
      if (!share->is_done()) continue;
      ended.push_back(share);
      if (share->ended_by_itself()) request_stop(StopMode::immediate);
    }
    if (!ended.empty()) {
      const std::scoped_lock lock{mutex_};
      std::erase_if(shares_, [&](const auto& entry) {
        return std::find(ended.begin(), ended.end(), entry.second) != ended.end();
      });
    }
    ended.clear();
    if (leaving_) {
      const bool is_worked_on = std::any_of(shares_.begin(), shares_.end(), [&](const auto& entry) {
        return rd_kafka_topic_partition_list_find(leaving_.get(), entry.first.topic.c_str(), entry.first.partition) !=
               nullptr;
      });
      if (!is_worked_on) give_back(*std::exchange(leaving_, nullptr));  // [KG1]
    }
    if (stop_asked()) return;
    for (const KafkaPartition& partition : mine_) {
      if (shares_.contains(partition)) continue;
      auto share = std::make_shared<Share>(*this, partition);
      const std::scoped_lock lock{mutex_};
      shares_.emplace(partition, std::move(share));
    }
  }

  void give_up() noexcept {
    for (bool is_done = false; !is_done;) {
      try {
        const StopMode mode = stop_asked().value_or(StopMode::immediate);
        for (const auto& [_, share] : shares_) share->request_stop(mode);
        tend();
        is_done = shares_.empty();
        if (!is_done) poll();
      } catch (...) {
        log_error("", std::current_exception());
      }
    }
    closing_ = true;
    try {
      if (leaving_) give_back(*std::exchange(leaving_, nullptr));
      if (const auto error = rd_kafka_consumer_close(client_->get()); error != RD_KAFKA_RESP_ERR_NO_ERROR)
        complain("the group could not be left: " + detail::describe(error));
    } catch (...) {
      log_error("", std::current_exception());
    }
  }

  void end() noexcept {
    const std::scoped_lock lock{mutex_};
    ended_ = true;
    changed_.notify_all();
  }

  // ---- the client -------------------------------------------------------------------------------------------------------

  void on_error(const std::string& message) noexcept override { complain(message); }
  void on_log(LogLevel level, const std::string& line) noexcept override { log(level, "librdkafka: " + line); }

  void on_rebalance(rd_kafka_resp_err_t what, const rd_kafka_topic_partition_list_t& partitions) noexcept override {
    try {
      rebalance(what, partitions);
    } catch (...) {
      fail(std::current_exception());
      request_stop(StopMode::immediate);
    }
  }
  void rebalance(rd_kafka_resp_err_t what, const rd_kafka_topic_partition_list_t& partitions) {
    if (what == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
      const detail::KafkaList list{rd_kafka_topic_partition_list_copy(&partitions)};
      for (int i = 0; i < list->cnt; ++i) {
        list->elems[i].offset =
            RD_KAFKA_OFFSET_END;  // nothing is fetched by this client, so it need not look for a start
        mine_.insert({list->elems[i].topic, list->elems[i].partition});
      }
      if (is_cooperative()) {
        report(rd_kafka_incremental_assign(client_->get(), list.get()));
      } else {
        rd_kafka_assign(client_->get(), list.get());
      }
      rd_kafka_pause_partitions(client_->get(), list.get());
      return;
    }
    if (what != RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS) complain("the group failed: " + detail::describe(what));
    for (int i = 0; i < partitions.cnt; ++i) {
      const KafkaPartition partition{partitions.elems[i].topic, partitions.elems[i].partition};
      mine_.erase(partition);
      const auto share = shares_.find(partition);
      if (share != shares_.end()) share->second->request_stop(StopMode::immediate);
    }
    leaving_.reset(rd_kafka_topic_partition_list_copy(&partitions));
    const bool is_lost = rd_kafka_assignment_lost(client_->get()) != 0;
    if (is_lost)
      complain(
          "this copy was not heard of for longer than session.timeout.ms, and its partitions were given to others");
    if (is_lost || closing_) give_back(*std::exchange(leaving_, nullptr));
  }

  [[nodiscard]] bool is_cooperative() const {
    return std::strcmp(rd_kafka_rebalance_protocol(client_->get()), "COOPERATIVE") == 0;
  }
  void report(rd_kafka_error_t* error) {
    if (error == nullptr) return;
    complain(std::string{"partitions could not be taken or given back: "} + rd_kafka_error_string(error));
    rd_kafka_error_destroy(error);
  }
  void give_back(const rd_kafka_topic_partition_list_t& partitions) {
    if (is_cooperative()) {
      report(rd_kafka_incremental_unassign(client_->get(), &partitions));
    } else {
      rd_kafka_assign(client_->get(), nullptr);
    }
  }

  const Context context_;
  const KafkaGroupOptions options_;
  const Setup setup_;
  std::optional<KafkaConf> conf_;  // until the start
  const std::shared_ptr<Fs> fs_;
  std::mutex setup_mutex_;      // held while setup_ is called
  std::mutex listeners_mutex_;  // held while listeners are
  std::vector<std::shared_ptr<KafkaGroupListener>> listeners_;

  std::mutex life_mutex_;  // one start or stop at a time
  bool has_started_ = false;
  std::thread thread_;

  // The thread's own; before it runs, the starting one's.
  std::optional<KafkaGroupOrigin> origin_;
  std::shared_ptr<KafkaClient> client_;  // shared with the inputs of the shares, which commit offsets by it
  std::set<KafkaPartition> mine_;        // as the group has it
  detail::KafkaList leaving_;            // is given back when none of it is worked on any more; null: nothing
  bool closing_ = false;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::map<KafkaPartition, std::shared_ptr<Share>>
      shares_;  // shared with those who look at metrics; changed by the thread
  std::optional<StopMode> stop_;
  std::exception_ptr first_error_;
  bool ended_ = false;
};

// ---- a share ----------------------------------------------------------------------------------------------------------

void KafkaGroup::Share::keep() noexcept {
  try {
    name_this_thread(group_.app_name().substr(0, 9) + "-part");
    if (open()) {
      group_.tell(&KafkaGroupListener::on_partition_taken, partition_);
      watch();
      group_.tell(&KafkaGroupListener::on_partition_leaving, partition_);
      close();
      group_.tell(&KafkaGroupListener::on_partition_given_up, partition_);
    }
  } catch (...) {
    group_.fail(std::current_exception());
  }
  const std::scoped_lock lock{mutex_};
  is_done_ = true;
}

// False: it is not wanted any more.
bool KafkaGroup::Share::open() {
  bool told = false;
  for (;;) {
    auto ssc = group_.build(partition_);
    try {
      ssc->start();
      const std::scoped_lock lock{mutex_};
      ssc_ = std::move(ssc);
      return true;
    } catch (const StateError& error) {
      if (error.code() != "checkpoint_in_use") throw;
      if (!std::exchange(told, true))
        group_.complain(detail::to_text(partition_) + " waits until the copy before has let go of it: " + error.what());
    }
    ssc.reset();
    std::unique_lock lock{mutex_};
    if (changed_.wait_for(lock, retry_pause, [&] { return stop_.has_value(); })) return false;
  }
}

void KafkaGroup::Share::watch() {
  ssc_->engine()->when_terminated([this](std::exception_ptr error) {
    const std::scoped_lock lock{mutex_};
    error_ = std::move(error);
    changed_.notify_all();
  });
  std::unique_lock lock{mutex_};
  for (;;) {
    changed_.wait_for(lock, retry_pause, [this] { return stop_ || error_; });
    if (error_) group_.fail(std::exchange(error_, nullptr));
    if (stop_ || ssc_->state() == StreamingState::stopped) return;
  }
}

void KafkaGroup::Share::close() {
  std::unique_lock lock{mutex_};
  StreamingContext& ssc = *ssc_;  // only this thread lets it go
  const StopMode mode = stop_.value_or(StopMode::immediate);
  lock.unlock();
  ssc.stop(mode);
  lock.lock();
  const auto ended = std::move(ssc_);
  if (error_) group_.fail(std::exchange(error_, nullptr));
  lock.unlock();
}

// ---- the group --------------------------------------------------------------------------------------------------------

KafkaGroup::KafkaGroup(const Context& context, KafkaGroupOptions options, Setup setup)
    : impl_{std::make_unique<Impl>(context, std::move(options), std::move(setup))} {}
KafkaGroup::~KafkaGroup() = default;

void KafkaGroup::start() { impl_->start(); }
void KafkaGroup::stop(StopMode mode) { impl_->stop(mode); }
void KafkaGroup::request_stop(StopMode mode) { impl_->request_stop(mode); }
void KafkaGroup::await_termination() { static_cast<void>(impl_->await_termination(std::nullopt)); }
bool KafkaGroup::await_termination_or_timeout(std::chrono::nanoseconds timeout) {
  return impl_->await_termination(timeout);
}
std::vector<KafkaPartition> KafkaGroup::partitions() const {
  std::vector<KafkaPartition> all;
  for (const auto& [partition, _] : impl_->metrics()) all.push_back(partition);
  return all;
}
std::map<KafkaPartition, StreamingMetrics> KafkaGroup::metrics() const { return impl_->metrics(); }
void KafkaGroup::add_listener(std::shared_ptr<KafkaGroupListener> listener) {
  impl_->add_listener(std::move(listener));
}

}  // namespace tidemill
