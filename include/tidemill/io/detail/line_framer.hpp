// Finds whole lines in bytes that come in pieces cut anywhere. How the pieces are cut changes nothing about the lines.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tidemill/batch/text.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/io/detail/receive_buffer.hpp"

namespace tidemill::detail {

/// Turns a stream of bytes into blocks of whole lines, in order. A line of more than `max_line_bytes`, its end (LF, CRLF)
/// not counted, is left out up to its end, and memory does not grow with it.
/// Cost:    one pass over the bytes, which counts the lines; the bytes stay where they were received, but for the
///          unfinished line at the end of a buffer.
/// Threads: one at a time.
class TIDEMILL_API LineFramer {
 public:
  /// Pre: buffer_bytes >= 4, max_line_bytes >= 1.
  LineFramer(std::size_t buffer_bytes, std::size_t max_line_bytes) noexcept
      : max_line_bytes_{max_line_bytes}, buffer_{buffer_bytes} {}

  /// What was found in the bytes of one call.
  struct Found {
    std::vector<TextBlock> blocks;
    std::size_t long_lines = 0;         ///< how many lines were too long, each told once, as soon as that is certain
    std::uint64_t first_long_line = 0;  ///< where the first of them begins, in bytes from the beginning of the stream
  };

  /// Begins a new stream.
  void begin() noexcept;
  /// Where the next bytes go, never empty.
  [[nodiscard]] std::span<char> space() { return buffer_.space(); }
  /// The first `bytes` of space() have been filled.
  [[nodiscard]] Found received(std::size_t bytes);
  /// The stream has ended; what follows the last newline is a line, too.
  [[nodiscard]] Found end();

  /// Bytes of the stream so far.
  [[nodiscard]] std::uint64_t position() const noexcept { return position_ + buffer_.unfinished().size(); }
  /// Bytes of the line that has not ended yet, as far as they are kept.
  [[nodiscard]] std::size_t unfinished_bytes() const noexcept { return buffer_.unfinished().size(); }

 private:
  void take_lines(std::size_t bytes, Found& found);
  void take(std::size_t bytes) noexcept;
  void note_long_line(Found& found) const noexcept;

  const std::size_t max_line_bytes_;
  ReceiveBuffer buffer_;
  std::uint64_t position_ = 0;  // of the first unfinished byte in the stream
  bool skipping_ = false;       // inside a line that is too long, and has been told
};

}  // namespace tidemill::detail
