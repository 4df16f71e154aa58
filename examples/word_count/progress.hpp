// What a run shows of itself: the result of each batch, and how the batch went.
#pragma once

#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <ostream>
#include <sstream>
#include <string>
#include <unistd.h>
#include <utility>

#include <tidemill/engine/listener.hpp>

namespace word_count {

/// "14:03:27.250", local time.
inline std::string time_of_day(tidemill::Time time) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
  const auto since_epoch = static_cast<std::time_t>(seconds.time_since_epoch().count());
  std::tm parts{};
  localtime_r(&since_epoch, &parts);
  std::array<char, 32> text{};
  const std::size_t size = std::strftime(text.data(), text.size(), "%H:%M:%S", &parts);
  const auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(time - seconds).count();
  std::snprintf(text.data() + size, text.size() - size, ".%03d", static_cast<int>(millis));
  return text.data();
}

/// A line for each batch that had words. On a terminal the line below them is alive: it tells how the latest batch
/// went, empty batches included. Elsewhere that is part of the batch's line.
/// Threads: the output operation and the listener run on the same thread, one after the other.
class Progress final : public tidemill::StreamingListener {
 public:
  Progress(std::ostream& out, int descriptor, tidemill::Duration interval)
      : out_{out}, is_terminal_{isatty(descriptor) == 1}, interval_{interval} {}

  /// From the output operation: the words of the batch, and the most frequent ones as text.
  void found(std::int64_t words, std::string top) {
    batch_words_ = words;
    batch_top_ = std::move(top);
  }

  void greet_with(std::string greeting) { greeting_ = std::move(greeting); }
  void on_streaming_started(tidemill::Time) override { say(greeting_); }

  void on_batch_completed(const tidemill::BatchInfo& batch) override {
    lines_ += batch.num_records();
    words_ += batch_words_;
    if (is_terminal_) {
      erase_status();
      if (batch_words_ != 0) out_ << time_of_day(batch.batch_time) << "  " << batch_top_ << '\n';
      out_ << time_of_day(batch.batch_time) << "  " << how_it_went(batch) << std::flush;
      has_status_ = true;
    } else if (batch_words_ != 0) {
      out_ << time_of_day(batch.batch_time) << "  " << batch_top_ << "  (" << how_it_went(batch) << ")\n" << std::flush;
    }
    batch_words_ = 0;
  }

  void on_receiver_error(const tidemill::ReceiverInfo& receiver) override {
    say(receiver.name + ": " + receiver.message);
  }

  /// A sentence of its own. Threads: not while the context runs, unless by a listener.
  void say(const std::string& sentence) {
    erase_status();
    out_ << sentence << '\n' << std::flush;
  }

  [[nodiscard]] std::uint64_t lines() const noexcept { return lines_; }
  [[nodiscard]] std::int64_t words() const noexcept { return words_; }

 private:
  [[nodiscard]] std::string how_it_went(const tidemill::BatchInfo& batch) const {
    using tidemill::to_string;
    const double seconds = std::chrono::duration<double>{interval_}.count();
    std::ostringstream text;
    text << batch_words_ << " words, ";
    // A directory knows its files and not how many lines they have.
    if (batch.num_records() != 0)
      text << std::llround(static_cast<double>(batch.num_records()) / seconds) << " lines/s, ";
    text << "processing time " << to_string(batch.processing_delay().value_or(tidemill::Duration{0}))
         << ", total delay " << to_string(batch.total_delay().value_or(tidemill::Duration{0}));
    return text.str();
  }

  void erase_status() {
    if (std::exchange(has_status_, false)) out_ << "\r\033[K";  // back to the first column, and clear the line
  }

  std::ostream& out_;
  const bool is_terminal_;
  const tidemill::Duration interval_;
  std::string greeting_;
  bool has_status_ = false;
  std::int64_t batch_words_ = 0;
  std::string batch_top_;
  std::uint64_t lines_ = 0;
  std::int64_t words_ = 0;
};

}  // namespace word_count
