// The program that kafka_exactly_once kills: counts words with states, and writes each new total to a Kafka topic. With --group
// it is one of several copies.
#include <chrono>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <tidemill/kafka/group.hpp>
#include <tidemill/kafka/sink.hpp>
#include <tidemill/kafka/source.hpp>
#include <tidemill/tidemill.hpp>

using namespace std::chrono_literals;

namespace {

constexpr auto batch_interval = 50ms;

using Arguments = std::map<std::string, std::string>;  // without those that are not given

std::string given(const Arguments& arguments, const std::string& name) {
  const auto found = arguments.find(name);
  return found == arguments.end() ? std::string{} : found->second;
}

// Tells of partitions that come and go.
class Told final : public tidemill::KafkaGroupListener {
 public:
  explicit Told(tidemill::Logger log) : log_{std::move(log)} {}
  void on_partition_taken(const tidemill::KafkaPartition& partition) override { tell("taken", partition); }
  void on_partition_given_up(const tidemill::KafkaPartition& partition) override { tell("given up", partition); }

 private:
  void tell(const char* what, const tidemill::KafkaPartition& partition) {
    log_(tidemill::LogLevel::info, "partition " + std::to_string(partition.partition) + ' ' + what);
  }
  tidemill::Logger log_;
};

void count_words(const tidemill::DStream<tidemill::KafkaRecord>& words, const Arguments& arguments) {
  const auto totals =
      words.map([](const tidemill::KafkaRecord& word) {
             return std::pair{std::string{word.key().value_or("")}, 1L};
           })
          .keyed_by_partition()
          .map_with_state(tidemill::state_spec<long>(
              [](const std::string& word, std::optional<long> one, tidemill::State<long>& state) {
                state.update(state.get_option().value_or(0) + one.value_or(0));
                return std::pair{word, word + ' ' + std::to_string(state.get())};
              }));
  const std::string timeout = given(arguments, "--transaction-timeout");
  tidemill::KafkaSink sink{.brokers = given(arguments, "--brokers"),
                           .topic = given(arguments, "--output"),
                           .transactional_id = given(arguments, "--transactional-id"),
                           .transaction_timeout = std::chrono::seconds{std::stol(timeout.empty() ? "10" : timeout)},
                           .offsets_group = given(arguments, "--offsets-group"),
                           .settings = {{"socket.timeout.ms", "2000"}, {"reconnect.backoff.max.ms", "500"}}};
  if (given(arguments, "--delivery") == "at_least_once") sink.delivery = tidemill::KafkaDelivery::at_least_once;
  tidemill::save_to_kafka(totals, std::move(sink));
}

void run(const Arguments& arguments, const tidemill::Logger& log) {
  const tidemill::Context context{{.app_name = "kafka-job", .parallelism = 2, .log = log}};
  tidemill::KafkaSource source{.brokers = given(arguments, "--brokers"),
                               .topics = {given(arguments, "--input")},
                               .start = tidemill::KafkaStart::earliest(),
                               .discovery_interval = 500ms,
                               .settings = {{"socket.timeout.ms", "2000"}, {"reconnect.backoff.max.ms", "500"}}};
  const std::string checkpoint = given(arguments, "--checkpoint");
  if (const std::string group_id = given(arguments, "--group"); !group_id.empty()) {
    source.group_id = group_id;
    tidemill::KafkaGroup group{context,
                               {.source = std::move(source),
                                .checkpoint = checkpoint,
                                .batch_interval = batch_interval,
                                .membership = {{"session.timeout.ms", "6000"}, {"heartbeat.interval.ms", "500"}}},
                               [&](tidemill::StreamingContext&, const tidemill::DStream<tidemill::KafkaRecord>& words,
                                   const tidemill::KafkaPartition&) { count_words(words, arguments); }};
    group.add_listener(std::make_shared<Told>(log));
    group.start();
    group.await_termination();
    return;
  }
  const auto ssc = tidemill::StreamingContext::get_or_create(checkpoint, [&] {
    auto fresh = std::make_unique<tidemill::StreamingContext>(context, batch_interval);
    count_words(tidemill::kafka_direct_stream(*fresh, source), arguments);
    return fresh;
  });
  ssc->start();
  ssc->await_termination();
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i + 1 < argc; i += 2) arguments[argv[i]] = argv[i + 1];
  for (const char* needed : {"--brokers", "--input", "--output", "--checkpoint"}) {
    if (arguments.contains(needed)) continue;
    std::cerr << "usage: kafka_job --brokers <host:port> --input <topic> --output <topic> --checkpoint <directory>\n"
                 "  [--group <id>] [--delivery at_least_once] [--transactional-id <id>] [--offsets-group <id>]\n"
                 "  [--transaction-timeout <seconds>]\n";
    return 2;
  }
  std::mutex mutex;
  const auto log = [&mutex](tidemill::LogLevel level, std::string_view line) {
    if (level < tidemill::LogLevel::info) return;
    const std::scoped_lock lock{mutex};
    std::cerr << line << std::endl;
  };
  try {
    run(arguments, log);
  } catch (const std::exception& error) {
    log(tidemill::LogLevel::error, std::string{"ended: "} + error.what());
    return 1;
  }
}
