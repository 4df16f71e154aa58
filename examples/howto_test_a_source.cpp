// A test of a source: the clock stands still, the test runs the batches, and nothing sleeps. See
// docs/howto/write-a-source.md.
#include <chrono>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "howto_broker.hpp"
#include <tidemill/tidemill.hpp>

using namespace std::chrono_literals;

namespace {

// [test]
bool what_arrived_in_an_interval_is_its_batch() {
  const auto clock = std::make_shared<tidemill::ManualClock>();
  tidemill::Context context{{.app_name = "test", .parallelism = 1, .clock = clock}};
  tidemill::StreamingContext ssc{context, 1s};
  Broker broker;
  std::vector<std::vector<std::string>> batches;
  ssc.receiver_stream(std::make_shared<BrokerSource>(broker))
      .foreach_batch([&](const tidemill::Batch<std::string>& batch) { batches.push_back(batch.collect()); });
  ssc.start(tidemill::Drive::by_host);

  broker.publish("a");
  broker.publish("b");
  broker.wait_until_acknowledged(2);  // a condition, never a sleep: both are in the buffer, stamped with the clock
  clock->advance(1s);
  ssc.step();

  broker.publish("c");
  broker.wait_until_acknowledged(3);
  clock->advance(1s);
  ssc.step();

  ssc.stop();
  return batches == std::vector<std::vector<std::string>>{{"a", "b"}, {"c"}};
}
// [/test]

// [restart-test]
bool what_was_not_acknowledged_comes_again_after_a_restart() {
  const auto clock = std::make_shared<tidemill::ManualClock>();
  tidemill::Context context{{.app_name = "test", .parallelism = 1, .clock = clock}};
  tidemill::StreamingContext ssc{context, 1s};
  Broker broker;
  std::vector<std::string> came;
  ssc.receiver_stream(std::make_shared<BrokerSource>(broker), {.restart_delay = 5s})
      .foreach_batch([&](const tidemill::Batch<std::string>& batch) {
        for (const std::string& message : batch.collect()) came.push_back(message);
      });
  ssc.start(tidemill::Drive::by_host);

  broker.break_at(1);
  broker.publish("a");
  while (ssc.metrics().receiver_errors == 0) std::this_thread::yield();
  while (broker.acknowledged() == 0) {  // five seconds of restart delay, in no time
    clock->advance(1s);
    ssc.step();
  }
  clock->advance(1s);
  ssc.step();

  ssc.stop();
  return came == std::vector<std::string>{"a", "a"};
}
// [/restart-test]

}  // namespace

int main() {
  const bool first = what_arrived_in_an_interval_is_its_batch();
  const bool second = what_was_not_acknowledged_comes_again_after_a_restart();
  std::cout << "what arrived in an interval is its batch: " << (first ? "ok" : "FAILED") << '\n'
            << "what was not acknowledged comes again after a restart: " << (second ? "ok" : "FAILED") << '\n';
  return first && second ? 0 : 1;
}
