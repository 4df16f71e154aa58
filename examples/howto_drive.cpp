// A service that gives the library no thread at all: it runs each batch itself, on its only thread, when a batch is due.
// See docs/howto/embed-in-a-service.md.
#include <chrono>
#include <cstddef>
#include <iostream>
#include <memory>
#include <optional>
#include <vector>

#include <boost/asio.hpp>

#include <tidemill/tidemill.hpp>

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

// [drive]
// Runs the batches of an interval context on the io_context's thread, each when it is due.
asio::awaitable<void> drive(tidemill::StreamingContext& ssc) {
  asio::steady_timer timer{co_await asio::this_coro::executor};
  ssc.start(tidemill::Drive::by_host);
  while (ssc.state() == tidemill::StreamingState::active) {
    if (ssc.step()) continue;  // a batch was due and has run; there may be another
    if (const std::optional<tidemill::Time> next = ssc.next_batch_time()) {
      timer.expires_after(*next - ssc.context().clock().now());
      co_await timer.async_wait(asio::use_awaitable);
    }
  }
}
// [/drive]

}  // namespace

int main() {
  asio::io_context io{1};
  // [context]
  tidemill::Context context{
      {.app_name = "reactor", .parallelism = 1}};  // 1: the thread that calls step(), and no other
  tidemill::StreamingContext ssc{context, 10ms};
  // [/context]
  const auto numbers = std::make_shared<tidemill::BatchQueue<int>>();
  int batches = 0;
  std::size_t records = 0;
  ssc.queue_stream(numbers).foreach_batch([&](const tidemill::Batch<int>& batch) {
    records += batch.count();
    if (++batches == 5) ssc.request_stop();  // stop() would have to wait for this very batch
  });
  for (int i = 0; i < 5; ++i) numbers->push(std::vector<int>(100, i));

  asio::co_spawn(io, drive(ssc), asio::detached);
  io.run();
  std::cout << batches << " batches, " << records << " records, one thread\n";
}
