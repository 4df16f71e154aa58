// What the tests of inputs share: a host that remembers what it was told, and a server to connect to. Nothing here sleeps:
// everything waits for a condition, with a deadline that only a broken test reaches.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

#include "tidemill/core/clock.hpp"
#include "tidemill/io/input.hpp"
#include "tidemill/io/io_service.hpp"

namespace tidemill::testing_io {

using namespace std::chrono_literals;

inline constexpr std::chrono::seconds deadline{60};

class FakeHost final : public detail::InputHost {
 public:
  explicit FakeHost(ContextOptions options = {}, Duration interval = 1s)
      : runtime_{std::make_shared<detail::Runtime>(with_clock(std::move(options)))},
        interval_{interval},
        io_{runtime_} {}

  [[nodiscard]] const std::shared_ptr<detail::Runtime>& runtime() const noexcept override { return runtime_; }
  [[nodiscard]] WakeUp* arrival_bell() noexcept override { return &bell_; }
  [[nodiscard]] Duration batch_interval() const noexcept override { return interval_; }
  [[nodiscard]] Time first_start(std::size_t) const override { return first_start_.value_or(runtime_->clock->now()); }
  void set_first_start(Time start) { first_start_ = start; }
  [[nodiscard]] detail::IoService& io() override { return io_; }
  void receiver_started(std::size_t, const std::string& name) noexcept override { note("started " + name); }
  void receiver_error(std::size_t, const std::string&, const std::string& message) noexcept override {
    note("error " + message);
  }
  void receiver_stopped(std::size_t, const std::string&, const std::string& message) noexcept override {
    note("stopped " + message);
  }
  [[nodiscard]] bool is_stopping() const noexcept override { return false; }
  void schedule(Time, std::function<void()>) override {}

  [[nodiscard]] std::vector<std::string> events() const {
    const std::scoped_lock lock{mutex_};
    return events_;
  }
  [[nodiscard]] std::size_t count(std::string_view beginning) const {
    const std::scoped_lock lock{mutex_};
    return count_locked(beginning);
  }
  /// Waits until so many events begin like this.
  [[nodiscard]] bool wait_for(std::string_view beginning, std::size_t times = 1) {
    std::unique_lock lock{mutex_};
    return changed_.wait_for(lock, deadline, [&] { return count_locked(beginning) >= times; });
  }
  /// Waits until something has arrived since the last call; false at the deadline.
  [[nodiscard]] bool wait_for_arrival() { return bell_.wait(std::chrono::steady_clock::now() + deadline); }
  [[nodiscard]] std::string all() const {
    std::string text;
    for (const std::string& event : events()) text += event + '\n';
    return text;
  }

 private:
  static ContextOptions with_clock(ContextOptions options) {
    if (!options.clock) options.clock = std::make_shared<ManualClock>();
    if (!options.executor) options.parallelism = 2;
    return options;
  }
  void note(std::string event) {
    {
      const std::scoped_lock lock{mutex_};
      events_.push_back(std::move(event));
    }
    changed_.notify_all();
  }
  [[nodiscard]] std::size_t count_locked(std::string_view beginning) const {
    std::size_t found = 0;
    for (const std::string& event : events_) found += event.starts_with(beginning) ? 1 : 0;
    return found;
  }

  const std::shared_ptr<detail::Runtime> runtime_;
  std::optional<Time> first_start_;
  const Duration interval_;
  WakeUp bell_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> events_;
  detail::IoService io_;
};

/// A server on the loopback that runs one session after the other, each on a connection of its own, on a thread of its own.
class Server {
 public:
  using Socket = boost::asio::ip::tcp::socket;
  using Session = std::function<void(Socket&)>;

  /// `port` 0: any that is free.
  explicit Server(std::vector<Session> sessions, std::uint16_t port = 0)
      : acceptor_{io_, boost::asio::ip::tcp::endpoint{boost::asio::ip::address_v4::loopback(), port}},
        port_{acceptor_.local_endpoint().port()},
        thread_{[this, sessions = std::move(sessions)] {
          for (const Session& session : sessions) {
            boost::system::error_code failure;
            Socket socket{io_};
            acceptor_.accept(socket, failure);
            if (failure) return;
            session(socket);
          }
        }} {}
  /// Waits until all sessions have ended.
  ~Server() { join(); }
  void join() {
    if (thread_.joinable()) thread_.join();
  }
  [[nodiscard]] std::uint16_t port() const noexcept { return port_; }

  /// Sends `text`; false when the peer is gone.
  static bool send(Socket& socket, std::string_view text) {
    boost::system::error_code failure;
    boost::asio::write(socket, boost::asio::buffer(text.data(), text.size()), failure);
    return !failure;
  }
  /// Returns when the peer has closed the connection.
  static void wait_until_peer_closes(Socket& socket) {
    boost::system::error_code failure;
    char byte = 0;
    while (!failure) boost::asio::read(socket, boost::asio::buffer(&byte, 1), failure);
  }
  /// A session that sends `text` and closes.
  static Session sends(std::string text) {
    return [text = std::move(text)](Socket& socket) { send(socket, text); };
  }
  /// A session that sends `text` and waits for the peer to go.
  static Session sends_and_stays(std::string text) {
    return [text = std::move(text)](Socket& socket) {
      send(socket, text);
      wait_until_peer_closes(socket);
    };
  }

 private:
  boost::asio::io_context io_;
  boost::asio::ip::tcp::acceptor acceptor_;
  const std::uint16_t port_;
  std::thread thread_;
};

/// A port on which nobody listens.
inline std::uint16_t free_port() {
  boost::asio::io_context io;
  boost::asio::ip::tcp::acceptor acceptor{io, {boost::asio::ip::address_v4::loopback(), 0}};
  return acceptor.local_endpoint().port();
}

}  // namespace tidemill::testing_io
