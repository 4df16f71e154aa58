// Settings of socket inputs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "tidemill/batch/text.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/io/inbox.hpp"

namespace tidemill {

struct SocketOptions {
  /// A longer line is reported, counted and left out. Text only. 1 … 1 GiB.
  std::size_t max_line_bytes = detail::default_max_line_bytes;
  /// The longest raw block, and the most bytes that a decoder may leave for later. Past it the connection is given up and
  /// made anew. 1 … 1 GiB.
  std::size_t max_block_bytes = std::size_t{64} << 20;
  /// How much is read at a time. 4 KiB … 64 MiB.
  std::size_t read_buffer_bytes = std::size_t{256} << 10;
  /// How long to wait before connecting again: from the first to the second, twice as long after each attempt that brought
  /// no data. By the wall clock, also when the stream follows a ManualClock. 1 ms … 1 h.
  /// Source: Spark waits 2 s.
  Duration reconnect_delay_min = std::chrono::milliseconds{100};
  Duration reconnect_delay_max = std::chrono::seconds{2};
  /// Records a second that a batch has. Once they have come, nothing is read for a while: the peer is held back by TCP.
  /// Above 0. [BP1]
  double max_rate = unlimited_rate;
  /// Past it, nothing is read until a batch has made room: the peer is held back by TCP.
  InboxLimits inbox = {};
};

namespace detail {

/// Where to connect to, checked.
struct SocketAddress {
  std::string host;
  std::uint16_t port = 0;

  /// "socket localhost:9999"
  [[nodiscard]] TIDEMILL_API std::string name() const;
};

/// Errors: ConfigError naming the value and what is allowed.
TIDEMILL_API void check(const SocketAddress& address, const SocketOptions& options);

}  // namespace detail
}  // namespace tidemill
