// A file served over loopback TCP to one client, at a given pace: input for a stream, without a second program.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

namespace word_count {

namespace asio = boost::asio;

/// Threads: it works on the io_context. Any thread may call `has_sent_all`; the rest, when the io_context rests.
class Replay {
 public:
  /// `lines_per_second`: 0 means as fast as the client takes them. Errors: std::runtime_error naming the file.
  Replay(asio::io_context& io, const std::filesystem::path& file, std::uint64_t lines_per_second)
      : io_{io}, path_{file}, file_{file, std::ios::binary}, rate_{lines_per_second} {
    if (!file_) fail("cannot be opened", errno);
    if (std::filesystem::is_directory(file)) fail("cannot be read", EISDIR);
  }

  [[nodiscard]] std::uint16_t port() const { return acceptor_.local_endpoint().port(); }

  /// `on_failure` is told why not all was sent; it is called on the io_context.
  void start(std::function<void(std::exception_ptr)> on_failure) {
    asio::co_spawn(io_, serve(), [on_failure = std::move(on_failure)](const std::exception_ptr& error) {
      if (error) on_failure(error);
    });
  }

  /// True from just before the client is told that nothing follows.
  [[nodiscard]] bool has_sent_all() const noexcept { return has_sent_all_; }
  [[nodiscard]] std::uint64_t lines_sent() const noexcept { return lines_; }

 private:
  asio::awaitable<void> serve() {
    using Clock = std::chrono::steady_clock;
    asio::ip::tcp::socket client = co_await acceptor_.async_accept(asio::use_awaitable);
    asio::steady_timer timer{io_};
    const Clock::time_point begin = Clock::now();
    while (true) {
      std::uint64_t due = most_at_once;
      if (rate_ != 0) {
        // Each line has its own deadline from the beginning, so delays do not add up.
        timer.expires_at(begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>{
                                     static_cast<double>(lines_) / static_cast<double>(rate_)}));
        co_await timer.async_wait(asio::use_awaitable);
        const std::chrono::duration<double> passed = Clock::now() - begin;
        const double due_by_now = passed.count() * static_cast<double>(rate_) + 1 - static_cast<double>(lines_);
        due = static_cast<std::uint64_t>(std::clamp(due_by_now, 1.0, static_cast<double>(most_at_once)));
      }
      const std::string text = read_lines(due);
      if (text.empty()) break;
      co_await asio::async_write(client, asio::buffer(text), asio::use_awaitable);
    }
    has_sent_all_ = true;
    client.shutdown(asio::ip::tcp::socket::shutdown_send);  // only now does a last line without a newline end
    // The client connects again, as it would to a server that comes back. Nobody accepts that, and nobody refuses it.
  }

  // The next lines as they are in the file, at most so many; nothing at its end.
  std::string read_lines(std::uint64_t most) {
    std::string text;
    std::string line;
    for (; most != 0 && std::getline(file_, line); --most) {
      text += line;
      if (!file_.eof()) text += '\n';
      ++lines_;
    }
    if (file_.bad()) fail("cannot be read", errno);
    return text;
  }

  [[noreturn]] void fail(const char* what, int error) const {
    throw std::runtime_error{"the file " + path_.string() + " " + what + ": " + std::generic_category().message(error)};
  }

  static constexpr std::uint64_t most_at_once = 1024;  // lines in one write: a few dozen KiB of usual text

  asio::io_context& io_;
  std::filesystem::path path_;
  std::ifstream file_;
  std::uint64_t rate_;
  asio::ip::tcp::acceptor acceptor_{io_, {asio::ip::address_v4::loopback(), 0}};  // port 0: the system picks a free one
  std::uint64_t lines_ = 0;
  std::atomic<bool> has_sent_all_ = false;
};

}  // namespace word_count
