// A source with a thread of its own, which survives a broken connection: see docs/howto/write-a-source.md.
#include <chrono>
#include <cstddef>
#include <iostream>
#include <memory>
#include <set>
#include <string>

#include "howto_broker.hpp"
#include <tidemill/tidemill.hpp>

using namespace std::chrono_literals;

// [listener]
// Says what goes wrong, and ends the context when its source has ended.
class EndsWithSource final : public tidemill::StreamingListener {
 public:
  explicit EndsWithSource(tidemill::StreamingContext& ssc) : ssc_{ssc} {}
  void on_receiver_error(const tidemill::ReceiverInfo& receiver) override {
    std::cout << receiver.name << ": " << receiver.message << '\n';
  }
  void on_receiver_stopped(const tidemill::ReceiverInfo&) override {
    ssc_.request_stop(tidemill::StopMode::graceful);  // not stop(), which would wait for the caller
  }

 private:
  tidemill::StreamingContext& ssc_;
};
// [/listener]

int main() {
  Broker broker;
  for (int i = 0; i < 1000; ++i) broker.publish("message " + std::to_string(i));
  broker.close();
  broker.break_at(500);

  // [use]
  tidemill::Context context{{.app_name = "broker", .parallelism = 2}};
  tidemill::StreamingContext ssc{context, 20ms};
  auto messages =
      ssc.receiver_stream(std::make_shared<BrokerSource>(broker),
                          {.name = "broker", .restart_delay = 50ms, .inbox = {.max_buffered_bytes = 1 << 20}});
  // [/use]
  std::size_t came = 0;
  std::set<std::string> different;
  messages.foreach_batch([&](const tidemill::Batch<std::string>& batch) {
    for (std::string& message : batch.collect()) {
      ++came;
      different.insert(std::move(message));
    }
  });
  ssc.add_listener(std::make_shared<EndsWithSource>(ssc));
  ssc.start();
  ssc.await_termination();

  std::cout << came << " messages came, " << different.size() << " of them different; acknowledged up to "
            << broker.acknowledged() << '\n';
}
