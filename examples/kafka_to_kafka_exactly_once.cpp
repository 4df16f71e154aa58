// Counts the words of a topic of Kafka over all time, and writes each new total of a word to another topic, exactly once:
//     kafka_to_kafka_exactly_once BROKERS FROM TO CHECKPOINT
//     kafka_to_kafka_exactly_once --mock     without a broker: a few lines from a cluster inside this program
// Kill it with `kill -9`, start it again with the same arguments, and the totals continue. Who reads the topic TO with
// isolation.level=read_committed sees every total of every word once: 1, 2, 3, …
#include <exception>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unistd.h>
#include <utility>

#include "kafka_demo.hpp"
#include <tidemill/kafka/sink.hpp>
#include <tidemill/kafka/source.hpp>
#include <tidemill/tidemill.hpp>

namespace {

using namespace std::chrono_literals;

struct Options {
  std::string brokers;
  std::string from;
  std::string to;
  std::filesystem::path checkpoint;
};

// [exactly-once]
std::unique_ptr<tidemill::StreamingContext> count_words(const tidemill::Context& context, const Options& options) {
  return tidemill::StreamingContext::get_or_create(options.checkpoint, [&] {
    auto ssc = std::make_unique<tidemill::StreamingContext>(context, 1s);
    auto totals =
        tidemill::kafka_direct_stream(
            *ssc, {.brokers = options.brokers, .topics = {options.from}, .start = tidemill::KafkaStart::earliest()})
            .map([](const tidemill::KafkaRecord& line) { return line.value(); })
            .flat_map(tidemill::words(' '))
            .map([](std::string_view word) {
              return std::pair{word, 1L};
            })
            .map_with_state(tidemill::state_spec<long>(
                [](std::string_view word, std::optional<long> one, tidemill::State<long>& total) {
                  total.update(total.get_option().value_or(0) + one.value_or(0));
                  return std::pair{std::string{word}, std::to_string(total.get())};
                }));
    // A batch is a transaction: its totals, and the fact that it is done.
    tidemill::save_to_kafka(totals, {.brokers = options.brokers, .topic = options.to});
    return ssc;
  });
}
// [/exactly-once]

/// A folder that goes when the demonstration is over.
class TemporaryFolder {
 public:
  TemporaryFolder() : path_{std::filesystem::temp_directory_path() / ("kafka_to_kafka-" + std::to_string(getpid()))} {
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

void demonstrate(const tidemill::Context& context) {
  tidemill::testing::MockKafka kafka;
  kafka_demo::fill(kafka);
  const TemporaryFolder folder;
  const auto ssc = count_words(context, {kafka.brokers(), "lines", "totals", folder.path() / "checkpoint"});
  ssc->add_listener(std::make_shared<kafka_demo::EndOfLines>(*ssc));
  ssc->start();
  ssc->await_termination();
  for (const auto& total : kafka.read("totals", 0)) {
    if (total.key) std::cout << *total.key << ' ' << total.value.value_or("") << '\n';  // else the end of a transaction
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool is_mock = argc == 2 && std::string_view{argv[1]} == "--mock";
  if (!is_mock && argc != 5) {
    std::cerr << "usage: kafka_to_kafka_exactly_once BROKERS FROM TO CHECKPOINT | --mock\n";
    return 2;
  }
  try {
    const tidemill::Context context{{.app_name = "kafka-to-kafka", .parallelism = 2}};
    if (is_mock) {
      demonstrate(context);
      return 0;
    }
    const auto ssc = count_words(context, {argv[1], argv[2], argv[3], argv[4]});
    ssc->start();
    ssc->await_termination();  // until it is killed, which does no harm
  } catch (const std::exception& error) {
    std::cerr << "kafka_to_kafka_exactly_once: " << error.what() << '\n';
    return 1;
  }
}
