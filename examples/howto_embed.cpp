// A service that owns its io_context: the library works on the service's thread pool, the service waits as Asio does,
// and SIGTERM ends everything in order. See docs/howto/embed-in-a-service.md.
#include <csignal>
#include <cstddef>
#include <exception>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <boost/asio.hpp>

#include <tidemill/asio.hpp>
#include <tidemill/tidemill.hpp>

namespace asio = boost::asio;

namespace {

// [serve]
// Runs until the pipeline has ended: after a signal, or because of an error.
asio::awaitable<void> serve(tidemill::StreamingContext& ssc) {
  asio::signal_set signals{co_await asio::this_coro::executor, SIGINT, SIGTERM};
  signals.async_wait([&ssc](const boost::system::error_code& error, int) {
    if (!error) ssc.request_stop(tidemill::StopMode::graceful);  // returns at once
  });
  ssc.start();
  try {
    co_await ssc.async_await_termination(asio::use_awaitable);
    std::cout << "stopped\n";
  } catch (const std::exception& error) {  // the first batch that failed
    std::cout << "a batch failed: " << error.what() << '\n';
    ssc.request_stop();
  }
}
// [/serve]

}  // namespace

int main() {
  // [context]
  asio::thread_pool pool{2};  // the service's own threads, which also serve its clients
  tidemill::Context context{{.app_name = "service", .executor = tidemill::asio_executor(pool, 2)}};
  tidemill::StreamingContext ssc{context, tidemill::on_arrival};
  // [/context]

  // [pipeline]
  const auto events = std::make_shared<tidemill::BatchQueue<std::string>>();
  std::size_t handled = 0;
  ssc.queue_stream(events, tidemill::QueueMode::all_at_once)
      .foreach_batch([&handled](const tidemill::Batch<std::string>& batch) { handled += batch.count(); });
  // [/pipeline]
  auto served = asio::co_spawn(pool, serve(ssc), asio::use_future);

  // [feed]
  for (int client = 0; client < 10; ++client) {  // any thread may push
    asio::post(pool, [&] { events->push(std::vector<std::string>{"connected", "asked", "left"}); });
  }
  // [/feed]
  while (ssc.metrics().total_processed_records < 30) std::this_thread::yield();
  std::raise(SIGTERM);

  served.get();
  pool.join();
  std::cout << handled << " events handled\n";
}
