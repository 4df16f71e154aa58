// Lines of text in memory: blocks of bytes that somebody received or read, and the batch of views into them.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tidemill/batch/batch.hpp"
#include "tidemill/core/config.hpp"

namespace tidemill {

/// Whole lines, side by side. A line ends with LF or CRLF, which is not part of the record; the last line of a block needs
/// no end. Bytes are passed on as they are: text is UTF-8, and nothing checks it.
struct TextBlock {
  std::string_view text;
  std::shared_ptr<const void> owner;  ///< keeps `text` alive; shared by all blocks cut from one buffer
  std::size_t lines = 0;              ///< how many lines begin in `text`, when that was counted; else 0

  /// A block that owns a copy of `text`.
  [[nodiscard]] TIDEMILL_API static TextBlock of(std::string text);
};

namespace detail {

/// How many lines begin in `text`.
[[nodiscard]] TIDEMILL_API std::size_t count_lines(std::string_view text) noexcept;

/// Of SocketOptions and DirectoryOptions alike: a line that a socket takes, a file may have.
inline constexpr std::size_t default_max_line_bytes = std::size_t{1} << 20;

/// Where the first line of more than `max_line_bytes` bytes begins, its end (LF, CRLF) not counted. `text` begins with a line.
/// Cost: a look at each `max_line_bytes`-th byte and its surroundings, not at every byte.
[[nodiscard]] TIDEMILL_API std::optional<std::size_t> first_long_line(std::string_view text,
                                                                      std::size_t max_line_bytes) noexcept;

/// Cuts `text` after its first `lines` lines. Pre: it has more.
[[nodiscard]] TIDEMILL_API std::size_t size_of_lines(std::string_view text, std::size_t lines) noexcept;

/// The lines of `blocks` in order, cut into at most `partitions` partitions at line ends; fewer when the text is short.
[[nodiscard]] TIDEMILL_API Batch<std::string_view> text_blocks_batch(std::shared_ptr<const Scope> scope,
                                                                     std::vector<TextBlock> blocks,
                                                                     std::size_t partitions);

}  // namespace detail
}  // namespace tidemill
