#include "tidemill/io/detail/socket_reader.hpp"

#include <algorithm>
#include <exception>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/system/error_code.hpp>

#include "io/io_service.hpp"
#include "tidemill/core/error.hpp"

namespace tidemill::detail {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

void check_range(std::string_view name, std::uint64_t value, std::uint64_t least, std::uint64_t most,
                 std::string_view unit) {
  if (value >= least && value <= most) return;
  throw ConfigError(std::string{name} + " must lie between " + std::to_string(least) + " and " + std::to_string(most) +
                    std::string{unit} + ", and it is " + std::to_string(value));
}

}  // namespace

std::string SocketAddress::name() const {
  const bool v6 = host.find(':') != std::string::npos;
  return "socket " + (v6 ? '[' + host + ']' : host) + ':' + std::to_string(port);
}

void check(const SocketAddress& address, const SocketOptions& options) {
  if (address.host.empty()) throw ConfigError("the host of a socket input is empty; give a name or an IP address");
  if (address.port == 0) throw ConfigError("the port of a socket input is 0; give one between 1 and 65535");
  constexpr std::uint64_t gibi = std::uint64_t{1} << 30;
  check_range("max_line_bytes", options.max_line_bytes, 1, gibi, " bytes");
  check_range("max_block_bytes", options.max_block_bytes, 1, gibi, " bytes");
  check_range("read_buffer_bytes", options.read_buffer_bytes, 4 << 10, 64 << 20, " bytes");
  const auto min = options.reconnect_delay_min;
  const auto max = options.reconnect_delay_max;
  if (min < std::chrono::milliseconds{1} || max > std::chrono::hours{1} || min > max)
    throw ConfigError(
        "reconnect_delay_min and reconnect_delay_max must lie between 1 ms and 1 h in this order, and they are " +
        to_string(min) + " and " + to_string(max));
}

StreamSink::~StreamSink() = default;

// One operation is pending at a time, and each handler starts the next: a chain that ends when `stopped_` is found set.
// Everything happens under `mutex_`, so that stop() may come from any thread at any moment, and needs no handler to run.
// The mutex is recursive because an inbox with room calls back from within when_there_is_room().
class SocketReader::Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(asio::any_io_executor executor, const SocketAddress& address, const SocketOptions& options,
             InputHost& host, std::size_t stream_id, std::shared_ptr<StreamSink> sink)
      : executor_{std::move(executor)},
        address_{address},
        name_{address.name()},
        delay_min_{options.reconnect_delay_min},
        delay_max_{options.reconnect_delay_max},
        stream_id_{stream_id},
        sink_{std::move(sink)},
        host_{&host},
        resolver_{executor_},
        socket_{executor_},
        timer_{executor_},
        delay_{delay_min_} {}

  void start() {
    asio::post(executor_, [self = shared_from_this()] { self->guarded([&] { self->resolve(); }); });
  }

  void stop() noexcept {
    const std::scoped_lock lock{mutex_};
    if (stopped_) return;
    stopped_ = true;
    try {
      if (connected_) tell_stopped("the stream was stopped");
      resolver_.cancel();
      timer_.cancel();
    } catch (...) {  // then they end by themselves, and find the connection stopped
    }
    host_ = nullptr;
    close();
  }

 private:
  // Runs a step, unless the connection has been stopped. What goes wrong is told, and tried again later.
  template <class Step>
  void guarded(const Step& step) noexcept {
    const std::scoped_lock lock{mutex_};
    if (stopped_) return;
    try {
      step();
    } catch (...) {
      try {
        give_up(describe(std::current_exception()));
      } catch (...) {
        try {  // not even the timer could be set: this input is at its end
          close();
          host_->receiver_stopped(stream_id_, name_, "out of memory");
        } catch (...) {
        }
      }
    }
  }

  void resolve() {
    endpoints_.clear();
    next_endpoint_ = 0;
    error_code no_number;
    if (const auto number = asio::ip::make_address(address_.host, no_number); !no_number) {
      endpoints_.emplace_back(number, address_.port);
      connect(error_code{});
      return;
    }
    resolver_.async_resolve(
        address_.host, std::to_string(address_.port), tcp::resolver::numeric_service,
        [self = shared_from_this()](const error_code& failure, const tcp::resolver::results_type& found) {
          self->guarded([&] {
            if (failure) return self->give_up("the name cannot be resolved: " + failure.message());
            for (const auto& entry : found) self->endpoints_.push_back(entry.endpoint());
            self->connect(error_code{});
          });
        });
  }

  void connect(const error_code& last_failure) {
    close();
    if (next_endpoint_ == endpoints_.size())
      return give_up("no connection: " +
                     (last_failure ? last_failure.message() : std::string{"the name has no address"}));
    socket_.async_connect(endpoints_[next_endpoint_++], [self = shared_from_this()](const error_code& failure) {
      self->guarded([&] {
        if (failure) return self->connect(failure);
        self->connected_ = true;
        self->sink_->begin();
        self->host_->receiver_started(self->stream_id_, self->name_);
        self->wait_for_room();  // the connection before this one may have filled the inbox
      });
    });
  }

  void read() {
    const std::span<char> space = sink_->space();
    socket_.async_read_some(asio::buffer(space.data(), space.size()),
                            [self = shared_from_this()](const error_code& failure, std::size_t bytes) {
                              self->guarded([&] { self->was_read(failure, bytes); });
                            });
  }

  void was_read(const error_code& failure, std::size_t bytes) {
    if (failure == asio::error::eof) return was_closed_by_peer();
    if (failure) {
      const std::size_t lost = sink_->unfinished_bytes();
      return give_up("the connection broke after " + std::to_string(sink_->position()) +
                     " bytes: " + failure.message() +
                     (lost == 0 ? "" : "; an unfinished record of " + std::to_string(lost) + " bytes is lost"));
    }
    delay_ = delay_min_;
    std::string complaint;
    const StreamSink::Next next = sink_->received(bytes, complaint);
    complain(complaint);
    switch (next) {
      case StreamSink::Next::read: return read();
      case StreamSink::Next::wait_for_room: return wait_for_room();
      case StreamSink::Next::nothing: return;
    }
  }

  void was_closed_by_peer() {
    std::string complaint;
    const StreamSink::Next next = sink_->end(complaint);
    complain(complaint);
    close();
    const Duration delay = next_delay();
    tell_stopped("the peer closed the connection after " + std::to_string(sink_->position()) +
                 " bytes; connecting again in " + to_string(delay));
    if (next != StreamSink::Next::nothing) retry_after(delay);
  }

  // Until a batch takes something out of the inbox, nothing is read, so the peer is held back.
  void wait_for_room() {
    waiting_for_room_ = true;
    timer_.expires_at(asio::steady_timer::time_point::max());
    timer_.async_wait([self = shared_from_this()](const error_code&) {
      self->guarded([&] {
        if (!std::exchange(self->waiting_for_room_, false)) return;
        self->read();
      });
    });
    // Cancelling a timer allocates nothing, so the news of room cannot get lost.
    sink_->inbox().when_there_is_room([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->there_is_room();
    });
  }

  void there_is_room() noexcept {
    const std::scoped_lock lock{mutex_};
    if (stopped_ || !waiting_for_room_) return;
    try {
      timer_.cancel();
    } catch (...) {  // does not happen with timers of this kind
    }
  }

  void give_up(const std::string& reason) {
    waiting_for_room_ = false;
    close();
    const Duration delay = next_delay();
    const std::string message = reason + "; connecting again in " + to_string(delay);
    host_->receiver_error(stream_id_, name_, message);
    if (connected_) tell_stopped(message);
    retry_after(delay);
  }

  void retry_after(Duration delay) {
    timer_.expires_after(delay);
    timer_.async_wait([self = shared_from_this()](const error_code& cancelled) {
      self->guarded([&] {
        if (!cancelled) self->resolve();
      });
    });
  }

  [[nodiscard]] Duration next_delay() noexcept { return std::exchange(delay_, std::min(delay_ * 2, delay_max_)); }

  void complain(const std::string& complaint) noexcept {
    if (!complaint.empty()) host_->receiver_error(stream_id_, name_, complaint);
  }

  void tell_stopped(const std::string& message) noexcept {
    connected_ = false;
    host_->receiver_stopped(stream_id_, name_, message);
  }

  void close() noexcept {
    error_code ignored;
    socket_.close(ignored);
  }

  const asio::any_io_executor executor_;
  const SocketAddress address_;
  const std::string name_;
  const Duration delay_min_;
  const Duration delay_max_;
  const std::size_t stream_id_;
  const std::shared_ptr<StreamSink>
      sink_;  // shared so that memory that is being read into stays until the read has ended

  std::recursive_mutex mutex_;  // guards what follows, and the calls of sink and host
  bool stopped_ = false;        // set once; then sink and host are not used any more
  InputHost* host_;
  tcp::resolver resolver_;
  tcp::socket socket_;
  asio::steady_timer timer_;
  std::vector<tcp::endpoint> endpoints_;
  std::size_t next_endpoint_ = 0;
  Duration delay_;
  bool connected_ = false;         // receiver_started was told, receiver_stopped not yet
  bool waiting_for_room_ = false;  // the timer waits for the inbox, not for time
};

SocketReader::SocketReader(SocketAddress address, const SocketOptions& options)
    : address_{std::move(address)}, options_{options} {
  check(address_, options_);
}

SocketReader::~SocketReader() { stop(); }

void SocketReader::start(InputHost& host, std::size_t stream_id, std::shared_ptr<StreamSink> sink) {
  stop();
  auto connection =
      std::make_shared<Connection>(executor_of(host.io()), address_, options_, host, stream_id, std::move(sink));
  connection->start();
  connection_ = std::move(connection);
}

void SocketReader::stop() noexcept {
  if (const auto connection = std::exchange(connection_, nullptr)) connection->stop();
}

}  // namespace tidemill::detail
