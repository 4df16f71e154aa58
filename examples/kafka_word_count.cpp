// Counts the words of a topic of Kafka, and prints those of each second:
//     kafka_word_count BROKERS TOPIC        such as localhost:9092 lines; Ctrl-C ends it
//     kafka_word_count --mock               without a broker: a few lines from a cluster inside this program
// To feed a topic by hand: kafka-console-producer.sh --bootstrap-server localhost:9092 --topic lines
#include <exception>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "kafka_demo.hpp"
#include <tidemill/kafka/source.hpp>
#include <tidemill/tidemill.hpp>

int main(int argc, char** argv) {
  using namespace std::chrono_literals;
  const bool is_mock = argc == 2 && std::string_view{argv[1]} == "--mock";
  if (!is_mock && argc != 3) {
    std::cerr << "usage: kafka_word_count BROKERS TOPIC | --mock\n";
    return 2;
  }
  try {
    std::optional<tidemill::testing::MockKafka> mock;
    if (is_mock) kafka_demo::fill(mock.emplace());
    const std::string brokers = is_mock ? mock->brokers() : argv[1];
    const std::string topic = is_mock ? "lines" : argv[2];

    tidemill::Context context{{.app_name = "kafka-word-count", .parallelism = 2}};
    tidemill::StreamingContext ssc{context, 1s};
    auto lines = tidemill::kafka_direct_stream(
        ssc, {.brokers = brokers, .topics = {topic}, .start = tidemill::KafkaStart::earliest()});
    auto counts = lines
                      .map([](const tidemill::KafkaRecord& line) {
                        return line.value();  // a view into what was fetched
                      })
                      .flat_map(tidemill::words(' '))
                      .map([](std::string_view word) {
                        return std::pair{word, 1L};
                      })
                      .reduce_by_key(std::plus<>{});
    counts.print(1000);

    if (is_mock) ssc.add_listener(std::make_shared<kafka_demo::EndOfLines>(ssc));
    ssc.start();
    ssc.await_termination();
  } catch (const std::exception& error) {
    std::cerr << "kafka_word_count: " << error.what() << '\n';
    return 1;
  }
}
