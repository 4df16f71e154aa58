// The program that kafka_exactly_once kills: counts words with states, and writes each new total to a Kafka topic.
#include <chrono>
#include <filesystem>
#include <iostream>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <tidemill/kafka/sink.hpp>
#include <tidemill/tidemill.hpp>

using namespace std::chrono_literals;

int main(int argc, char** argv) {
  if (argc != 6) {
    std::cerr << "usage: kafka_job <brokers> <directory of the input> <topic> <checkpoint> <milliseconds of a batch>\n";
    return 2;
  }
  const std::string brokers = argv[1];
  const std::filesystem::path input = argv[2];
  const std::string topic = argv[3];
  std::mutex mutex;
  const auto log = [&mutex](tidemill::LogLevel level, std::string_view line) {
    if (level < tidemill::LogLevel::info) return;
    const std::scoped_lock lock{mutex};
    std::cerr << line << std::endl;
  };
  try {
    const tidemill::Context context{{.app_name = "kafka-job", .parallelism = 2, .log = log}};
    const auto ssc = tidemill::StreamingContext::get_or_create(argv[4], [&] {
      auto fresh = std::make_unique<tidemill::StreamingContext>(context, std::chrono::milliseconds{std::stol(argv[5])});
      const auto totals = fresh->text_file_stream(input, {.new_files_only = false})
                              .map([](std::string_view word) {
                                return std::pair{std::string{word}, 1L};
                              })
                              .map_with_state(tidemill::state_spec<long>(
                                  [](const std::string& word, std::optional<long> one, tidemill::State<long>& state) {
                                    state.update(state.get_option().value_or(0) + one.value_or(0));
                                    return std::pair{word, word + ' ' + std::to_string(state.get())};
                                  }));
      tidemill::save_to_kafka(totals,
                              {.brokers = brokers,
                               .topic = topic,
                               .transaction_timeout = 10s,
                               .settings = {{"socket.timeout.ms", "4000"}, {"reconnect.backoff.max.ms", "500"}}});
      return fresh;
    });
    ssc->start();
    ssc->await_termination();
  } catch (const std::exception& error) {
    std::cerr << "ended: " << error.what() << std::endl;
    return 1;
  }
}
