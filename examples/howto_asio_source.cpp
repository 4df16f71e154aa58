// An asynchronous source: it accepts TCP connections on the host's io_context and reads lines from all of them, without
// a thread of its own. See docs/howto/write-a-source.md.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <iostream>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/asio.hpp>

#include <tidemill/asio.hpp>
#include <tidemill/tidemill.hpp>

namespace asio = boost::asio;
using asio::ip::tcp;
using namespace std::chrono_literals;

// [receiver]
class LineServer final : public tidemill::Receiver<std::string> {
 public:
  LineServer(asio::io_context& io, std::size_t max_buffered_bytes) : io_{io}, max_buffered_bytes_{max_buffered_bytes} {}

  // Where it listens, from on_start to on_stop.
  [[nodiscard]] std::uint16_t port() const { return run_->acceptor.local_endpoint().port(); }

 private:
  // What the handlers share between one on_start and its on_stop. They keep it alive, so it may outlive the receiver.
  struct Run {
    Run(asio::io_context& io, LineServer* server)
        : strand{asio::make_strand(io)}, acceptor{strand, {asio::ip::address_v4::loopback(), 0}}, source{server} {}

    asio::strand<asio::io_context::executor_type> strand;
    tcp::acceptor acceptor;
    std::set<tcp::socket*> sockets;  // used on the strand only

    std::mutex mutex;
    LineServer* source;  // guarded by mutex; null once on_stop has begun
  };
  enum class HandOver { done, later, never };

  void on_start() override {  // what this throws (a port that is taken) is reported, and the start tried again
    run_ = std::make_shared<Run>(io_, this);
    asio::co_spawn(run_->strand, accept(run_), asio::detached);
  }

  void on_stop() override {
    {
      const std::scoped_lock lock{run_->mutex};  // waits for a handler that is storing
      run_->source = nullptr;                    // later ones find nobody to store for
    }
    asio::post(run_->strand, [run = run_] {
      run->acceptor.close();
      for (tcp::socket* socket : run->sockets) socket->close();
    });
  }

  static asio::awaitable<void> accept(std::shared_ptr<Run> run) {
    try {
      for (;;) {
        tcp::socket socket = co_await run->acceptor.async_accept(asio::use_awaitable);
        asio::co_spawn(run->strand, read(run, std::move(socket)), asio::detached);
      }
    } catch (const std::exception&) {
      const std::scoped_lock lock{run->mutex};
      if (run->source != nullptr) run->source->restart("accepting connections failed", std::current_exception());
    }
  }

  static asio::awaitable<void> read(std::shared_ptr<Run> run, tcp::socket socket) {
    run->sockets.insert(&socket);
    try {
      asio::steady_timer pause{run->strand};
      std::string received;
      for (;;) {
        co_await asio::async_read_until(socket, asio::dynamic_buffer(received, 1 << 20), '\n', asio::use_awaitable);
        std::vector<std::string> lines = take_lines(received);
        HandOver result = hand_over(*run, lines);
        while (result == HandOver::later) {  // we do not read meanwhile, so TCP holds the peer back
          pause.expires_after(5ms);
          co_await pause.async_wait(asio::use_awaitable);
          result = hand_over(*run, lines);
        }
        if (result == HandOver::never) break;
      }
    } catch (const std::exception&) {
      // The connection has ended, which concerns no other.
    }
    run->sockets.erase(&socket);
  }

  // Hands the lines over unless that would have to wait: a handler must not, since its thread has other work.
  static HandOver hand_over(Run& run, std::vector<std::string>& lines) {
    const std::scoped_lock lock{run.mutex};
    if (run.source == nullptr) return HandOver::never;
    if (run.source->buffered_bytes() >= run.source->max_buffered_bytes_) return HandOver::later;
    return run.source->store(std::move(lines)) ? HandOver::done : HandOver::never;
  }

  static std::vector<std::string> take_lines(std::string& received) {
    std::vector<std::string> lines;
    std::size_t begin = 0;
    for (std::size_t end = 0; (end = received.find('\n', begin)) != std::string::npos; begin = end + 1)
      lines.push_back(received.substr(begin, end - begin));
    received.erase(0, begin);
    return lines;
  }

  asio::io_context& io_;
  const std::size_t max_buffered_bytes_;
  std::shared_ptr<Run> run_;
};
// [/receiver]

namespace {

constexpr int clients = 3;
constexpr int lines_each = 1000;

asio::awaitable<void> send_numbers(std::uint16_t port) {
  tcp::socket socket{co_await asio::this_coro::executor};
  co_await socket.async_connect({asio::ip::address_v4::loopback(), port}, asio::use_awaitable);
  std::string lines;
  for (int i = 1; i <= lines_each; ++i) lines += std::to_string(i) + '\n';
  co_await asio::async_write(socket, asio::buffer(lines), asio::use_awaitable);
}

}  // namespace

int main() {
  // [use]
  asio::io_context io;
  tidemill::Context context{{.app_name = "lines", .executor = tidemill::asio_executor(io, 1)}};
  tidemill::StreamingContext ssc{context, tidemill::on_arrival};
  constexpr std::size_t max_buffered_bytes = 64 << 10;  // records count with sizeof, so this is some 2000 lines
  const auto server = std::make_shared<LineServer>(io, max_buffered_bytes);
  auto lines =
      ssc.receiver_stream(server, {.name = "line server", .inbox = {.max_buffered_bytes = max_buffered_bytes}});
  // [/use]

  long count = 0;
  long sum = 0;
  lines.map([](const std::string& line) { return std::stol(line); })
      .foreach_batch([&](const tidemill::Batch<long>& batch) {
        count += static_cast<long>(batch.count());
        sum += batch.fold(0, std::plus<>{});
        if (count == clients * lines_each) ssc.request_stop();
      });

  // [wait]
  ssc.start();
  ssc.async_await_termination([](const std::exception_ptr& error) {
    if (error) std::cout << tidemill::describe(error) << '\n';
  });
  // [/wait]
  for (int i = 0; i < clients; ++i) asio::co_spawn(io, send_numbers(server->port()), asio::detached);
  io.run();  // until nothing is left to do: the clients are done, and the server has been stopped

  std::cout << count << " lines came, whose sum is " << sum << '\n';
}
