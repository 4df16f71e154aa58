#include "tidemill/io/detail/line_framer.hpp"

#include <optional>
#include <string_view>
#include <utility>

namespace tidemill::detail {

void LineFramer::begin() noexcept {
  buffer_.clear();
  position_ = 0;
  skipping_ = false;
}

LineFramer::Found LineFramer::received(std::size_t bytes) {
  buffer_.received(bytes);
  Found found;
  if (skipping_) {  // all that is unfinished is new
    const std::size_t newline = buffer_.unfinished().find('\n');
    if (newline == std::string_view::npos) {
      take(buffer_.unfinished().size());
      return found;
    }
    take(newline + 1);
    skipping_ = false;
    bytes = buffer_.unfinished().size();
  }
  // What was unfinished before holds no newline.
  const std::string_view text = buffer_.unfinished();
  const std::size_t last = text.substr(text.size() - bytes).rfind('\n');
  if (last != std::string_view::npos) take_lines(text.size() - bytes + last + 1, found);

  const std::string_view rest = buffer_.unfinished();
  // A line of the full length may still be followed by CR and LF.
  if (rest.size() > max_line_bytes_ + 1 || (rest.size() == max_line_bytes_ + 1 && rest.back() != '\r')) {
    note_long_line(found);
    take(rest.size());
    skipping_ = true;
  }
  return found;
}

LineFramer::Found LineFramer::end() {
  Found found;
  if (!skipping_) take_lines(buffer_.unfinished().size(), found);
  return found;
}

// Hands out the first `bytes`, which are whole lines, without those that are too long.
void LineFramer::take_lines(std::size_t bytes, Found& found) {
  while (bytes != 0) {
    const std::string_view lines = buffer_.unfinished().substr(0, bytes);
    const std::optional<std::size_t> long_line = first_long_line(lines, max_line_bytes_);
    const std::size_t good = long_line.value_or(bytes);
    if (good != 0) {
      const std::string_view text = lines.substr(0, good);
      found.blocks.push_back({text, buffer_.owner(), count_lines(text)});
      take(good);
      bytes -= good;
    }
    if (long_line) {
      note_long_line(found);
      const std::size_t newline = lines.find('\n', good);
      const std::size_t line = (newline == std::string_view::npos ? lines.size() : newline + 1) - good;
      take(line);
      bytes -= line;
    }
  }
}

void LineFramer::take(std::size_t bytes) noexcept {
  buffer_.take(bytes);
  position_ += bytes;
}

void LineFramer::note_long_line(Found& found) const noexcept {
  if (found.long_lines++ == 0) found.first_long_line = position_;
}

}  // namespace tidemill::detail
