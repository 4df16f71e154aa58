// The connection of a socket input: resolve, connect, read, and again after a while when the peer is gone or was never
// there. What the bytes mean is decided by a StreamSink.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "tidemill/core/config.hpp"
#include "tidemill/io/inbox.hpp"
#include "tidemill/io/input.hpp"
#include "tidemill/io/socket_options.hpp"

namespace tidemill::detail {

/// Takes the bytes of one connection after the other and puts blocks into an inbox.
/// Errors:  what `received` and `end` throw becomes a receiver error, and the connection is made anew.
/// Threads: one at a time; never again once SocketReader::stop has returned.
class TIDEMILL_API StreamSink {
 public:
  virtual ~StreamSink();
  /// What may follow: `wait_for_room` when the inbox is full or its rate used up, `nothing` when it is closed.
  enum class Next { read, wait_for_room, nothing };

  /// A new connection.
  virtual void begin() = 0;
  /// Where the next bytes go, never empty. It stays where it is until one of the other functions is called, or the sink goes.
  [[nodiscard]] virtual std::span<char> space() = 0;
  /// The first `bytes` of space() have been filled. `complaint`: what is wrong and yet no reason to give up.
  [[nodiscard]] virtual Next received(std::size_t bytes, std::string& complaint) = 0;
  /// The peer has closed the connection in good order.
  [[nodiscard]] virtual Next end(std::string& complaint) = 0;

  /// Bytes of the connection so far, and those of them that are no whole record yet.
  [[nodiscard]] virtual std::uint64_t position() const noexcept = 0;
  [[nodiscard]] virtual std::size_t unfinished_bytes() const noexcept = 0;

  [[nodiscard]] virtual InboxBase& inbox() noexcept = 0;

 protected:
  StreamSink() = default;
  StreamSink(const StreamSink&) = delete;
  StreamSink& operator=(const StreamSink&) = delete;
};

/// Offers a block to an inbox.
template <class Block>
[[nodiscard]] StreamSink::Next offer_block(Inbox<Block>& inbox, Block block) {
  switch (inbox.offer(std::move(block))) {
    case Inbox<Block>::Offer::accepted: return StreamSink::Next::read;
    case Inbox<Block>::Offer::accepted_and_full: return StreamSink::Next::wait_for_room;
    case Inbox<Block>::Offer::closed: break;
  }
  return StreamSink::Next::nothing;
}

/// Reads a socket into a sink, on `host.io()`.
///
/// What the host hears: receiver_started when a connection stands; receiver_error for an attempt that failed, a connection
/// that broke, a sink that threw, and each complaint; receiver_stopped when a connection has ended, whatever the reason, so
/// exactly once for each receiver_started. It hears so while a lock is held that stop() takes, so it must not wait for a stop.
/// Threads: start and stop by one thread at a time.
class TIDEMILL_API SocketReader {
 public:
  SocketReader(SocketAddress address, const SocketOptions& options);
  ~SocketReader();

  /// Begins to connect. Does not block.
  void start(InputHost& host, std::size_t stream_id, std::shared_ptr<StreamSink> sink);
  /// Closes the socket. Once it has returned, sink and host are left alone, even when the host's executor has been stopped
  /// with work undone. Waits for a handler that is just running, and for nothing else. Does nothing when not started.
  void stop() noexcept;

 private:
  class Connection;
  const SocketAddress address_;
  const SocketOptions options_;
  std::shared_ptr<Connection> connection_;  // shared with the handlers of its pending operations; null when stopped
};

}  // namespace tidemill::detail
