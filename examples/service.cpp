// A TCP service that keeps accounts, with a stream in its midst. It owns its io_context, and one thread runs it: for
// signals, connections and queries. The stream borrows that executor, is fed by the connections, and hands its results
// back to it.
//
//     put KEY AMOUNT   adds to an account                -> ok
//     get KEY          what it held after the last batch -> KEY AMOUNT
//     top              the five largest accounts         -> KEY AMOUNT, KEY AMOUNT, …
//
// Its promise: what was answered with "ok" is counted, also when the service is told to end (SIGTERM, Ctrl-C) under
// load. It then accepts nothing new, answers what it has read, waits for the stream to work that off, prints all
// accounts as key<TAB>amount, and exits with status 0.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <exception>
#include <functional>
#include <iostream>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include <tidemill/asio.hpp>
#include <tidemill/tidemill.hpp>

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using namespace std::chrono_literals;

using Booking = std::pair<std::string, std::int64_t>;

// The door between the connections and the stream.
class BookingDesk final : public tidemill::Receiver<Booking> {
 public:
  static constexpr std::size_t max_buffered_bytes = std::size_t{16} << 20;

  // True: they are kept, and will be counted. False: the stream takes nothing any more.
  bool book(std::vector<Booking> bookings) {
    const std::scoped_lock lock{mutex_};
    return is_open_ && store(std::move(bookings));
  }

  // `store` would wait for room, and with it the thread that serves everybody. So we ask before we read on.
  bool is_crowded() {
    const std::scoped_lock lock{mutex_};
    return is_open_ && buffered_bytes() > max_buffered_bytes / 2;
  }

 private:
  // The stream's thread calls these. Once on_stop has returned nothing may be stored: that is what the mutex is for.
  void on_start() override { set_open(true); }
  void on_stop() override { set_open(false); }
  void set_open(bool open) {
    const std::scoped_lock lock{mutex_};
    is_open_ = open;
  }

  std::mutex mutex_;
  bool is_open_ = false;
};

// Threads: all of it belongs to the one thread that runs the io_context; only the function given to foreach_batch runs
// on the stream's.
class Service {
 public:
  Service(asio::io_context& io, std::uint16_t port)
      : io_{io},
        acceptor_{io, {tcp::v4(), port}},
        // Two threads work on a large batch: the stream's own, and ours when it has nothing better to do.
        ssc_{tidemill::Context{{.app_name = "service", .executor = tidemill::asio_executor(io, 2)}},
             100ms,
             {.graceful_stop_timeout = 1min}} {
    ssc_.receiver_stream(desk_,
                         {.name = "booking desk", .inbox = {.max_buffered_bytes = BookingDesk::max_buffered_bytes}})
        .reduce_by_key(std::plus<>{})
        .foreach_batch([this](const tidemill::Batch<Booking>& batch) {
          // Posted, not written under a lock: so the accounts need none, and a query sees whole batches.
          asio::post(io_, [this, changes = batch.collect()] {
            for (const auto& [key, amount] : changes) accounts_[key] += amount;
          });
        });
  }

  [[nodiscard]] std::uint16_t port() const { return acceptor_.local_endpoint().port(); }

  // Serves until a signal comes. When io.run() returns, everything has ended.
  void start() {
    ssc_.start();
    // Bound to the io_context, so that it comes after the results of the last batch, which were posted before.
    ssc_.async_await_termination(asio::bind_executor(io_, [this](const std::exception_ptr& error) {
      error_ = error;
      if (!error && !ssc_.stop())  // it has stopped: this only asks how
        error_ = std::make_exception_ptr(std::runtime_error{"not all bookings could be counted before the end."});
      end();
      io_.stop();
    }));
    asio::co_spawn(io_, wait_for_signal(), asio::detached);
    asio::co_spawn(io_, accept(), asio::detached);
  }

  [[nodiscard]] const std::map<std::string, std::int64_t>& accounts() const noexcept { return accounts_; }
  [[nodiscard]] const std::exception_ptr& error() const noexcept { return error_; }

 private:
  struct Connection {
    tcp::socket socket;
    bool is_reading = false;
  };

  asio::awaitable<void> wait_for_signal() {
    asio::signal_set signals{io_, SIGINT, SIGTERM};
    co_await signals.async_wait(asio::use_awaitable);
    end();
  }

  // First no more bookings: connections answer what they have read and say good-bye. Then the stream.
  void end() {
    if (std::exchange(is_ending_, true)) return;
    acceptor_.close();
    for (Connection& connection : connections_) {
      if (connection.is_reading) connection.socket.cancel();  // but answers that are being written go out
    }
    patience_.expires_after(1s);
    patience_.async_wait([this](error_code cancelled) {
      if (cancelled) return;
      for (Connection& connection : connections_) connection.socket.close();
    });
    stop_stream_after_last_connection();
  }

  void stop_stream_after_last_connection() {
    if (!is_ending_ || !connections_.empty()) return;
    patience_.cancel();
    ssc_.request_stop(tidemill::StopMode::graceful);  // returns at once; async_await_termination says when it is done
  }

  asio::awaitable<void> accept() {
    asio::steady_timer pause{io_};
    while (!is_ending_) {
      error_code failure;
      tcp::socket socket = co_await acceptor_.async_accept(asio::redirect_error(asio::use_awaitable, failure));
      if (failure) {  // we are ending, or a client has gone again, or there are too many of them
        pause.expires_after(10ms);
        co_await pause.async_wait(asio::use_awaitable);
        continue;
      }
      const auto place = connections_.insert(connections_.end(), Connection{std::move(socket)});
      asio::co_spawn(io_, serve(*place), [this, place](const std::exception_ptr&) {  // a lost client harms nobody else
        connections_.erase(place);
        stop_stream_after_last_connection();
      });
    }
  }

  asio::awaitable<void> serve(Connection& connection) {
    tcp::socket& client = connection.socket;
    std::string unread;  // begins with the first line that has not been worked on
    asio::steady_timer pause{io_};
    while (!is_ending_) {
      while (desk_->is_crowded() && !is_ending_) {  // meanwhile nobody reads, so TCP makes the client wait
        pause.expires_after(1ms);
        co_await pause.async_wait(asio::use_awaitable);
      }
      const std::size_t before = unread.size();
      unread.resize(before + chunk_bytes);
      error_code failure;
      connection.is_reading = true;
      const std::size_t bytes = co_await client.async_read_some(asio::buffer(unread.data() + before, chunk_bytes),
                                                                asio::redirect_error(asio::use_awaitable, failure));
      connection.is_reading = false;
      unread.resize(before + bytes);
      if (failure) break;  // it has hung up, or we are ending
      const std::optional<std::string> answers = answer(unread);
      if (!answers) break;
      co_await asio::async_write(client, asio::buffer(*answers), asio::use_awaitable);
      if (unread.size() > max_line_bytes) break;
    }
    // A socket that is closed with unread data resets the connection, and answers on their way are lost. So say that
    // nothing follows, and read until the client has hung up too.
    client.shutdown(tcp::socket::shutdown_send);
    while (true) {
      unread.resize(chunk_bytes);
      co_await client.async_read_some(asio::buffer(unread), asio::use_awaitable);  // its end is an error: we are done
    }
  }

  // Works on all whole lines and removes them. Nothing when the bookings were refused: they are not acknowledged.
  std::optional<std::string> answer(std::string& unread) {
    std::string answers;
    std::vector<Booking> bookings;
    std::size_t begin = 0;
    for (std::size_t end = 0; (end = unread.find('\n', begin)) != std::string::npos; begin = end + 1) {
      std::string_view line{unread.data() + begin, end - begin};
      if (line.ends_with('\r')) line.remove_suffix(1);
      answers += answer_line(line, bookings);
      answers += '\n';
    }
    unread.erase(0, begin);
    if (!bookings.empty() && !desk_->book(std::move(bookings))) return std::nullopt;
    return answers;
  }

  std::string answer_line(std::string_view line, std::vector<Booking>& bookings) const {
    const auto next_word = [&line] {
      const std::string_view word = line.substr(0, line.find(' '));
      line.remove_prefix(std::min(line.size(), word.size() + 1));
      return word;
    };
    const std::string_view command = next_word();
    if (command == "top" && line.empty()) return top();
    const std::string key{next_word()};
    if (command == "get" && !key.empty() && line.empty()) {
      const auto account = accounts_.find(key);
      return key + ' ' + std::to_string(account == accounts_.end() ? 0 : account->second);
    }
    if (command == "put" && !key.empty()) {
      std::int32_t amount = 0;  // so that no sum can overflow
      const auto [stopped_at, error] = std::from_chars(line.data(), line.data() + line.size(), amount);
      if (error != std::errc{} || stopped_at != line.data() + line.size())
        return "error: the amount must be a whole number of 32 bits";
      bookings.emplace_back(key, amount);
      return "ok";
    }
    return "error: say put KEY AMOUNT, get KEY or top";
  }

  std::string top() const {
    std::vector<std::pair<std::string_view, std::int64_t>> largest(std::min<std::size_t>(5, accounts_.size()));
    std::partial_sort_copy(accounts_.begin(), accounts_.end(), largest.begin(), largest.end(),
                           [](const auto& a, const auto& b) { return a.second > b.second; });
    std::string text;
    for (const auto& [key, amount] : largest) {
      if (!text.empty()) text += ", ";
      text.append(key).append(" ").append(std::to_string(amount));
    }
    return text;
  }

  static constexpr std::size_t chunk_bytes = 16 << 10;
  static constexpr std::size_t max_line_bytes = 4 << 10;

  asio::io_context& io_;
  tcp::acceptor acceptor_;
  asio::steady_timer patience_{io_};   // with clients that do not hang up
  std::list<Connection> connections_;  // a list, because each coroutine holds on to its connection
  bool is_ending_ = false;
  std::map<std::string, std::int64_t> accounts_;
  std::exception_ptr error_;
  std::shared_ptr<BookingDesk> desk_ = std::make_shared<BookingDesk>();
  tidemill::StreamingContext ssc_;  // last, so that it ends before all that its functions use
};

}  // namespace

int main(int argc, char** argv) {
  std::uint16_t port = 0;  // any that is free
  if (argc == 2) {
    const std::string_view text = argv[1];
    const auto [stopped_at, error] = std::from_chars(text.data(), text.data() + text.size(), port);
    if (error != std::errc{} || stopped_at != text.data() + text.size()) argc = 0;
  }
  if (argc != 1 && argc != 2) {
    std::cerr << "service: give the port to listen on, 0 to 65535, or nothing for any that is free: service [PORT]\n";
    return 2;
  }
  try {
    asio::io_context io{1};
    Service service{io, port};
    service.start();
    std::cout << "listening on port " << service.port() << std::endl;
    io.run();
    if (service.error()) std::rethrow_exception(service.error());
    for (const auto& [key, amount] : service.accounts()) std::cout << key << '\t' << amount << '\n';
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "service: " << error.what() << '\n';
    return 1;
  }
}
