// Memory into which a connection is read. What has been received is handed out where it lies, in parts that keep the memory
// alive; only the unfinished end is ever moved.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "tidemill/core/config.hpp"

namespace tidemill::detail {

/// A buffer that is filled at its end and taken from its front.
///
///     |  taken, maybe shared  |  unfinished()  |  space()  |
///
/// Memory: as much as the largest unfinished part, rounded up to the next doubling of `size`, and what is still shared.
/// Threads: one at a time; what was handed out may be read by others meanwhile.
class TIDEMILL_API ReceiveBuffer {
 public:
  /// Pre: size >= 4.
  explicit ReceiveBuffer(std::size_t size) noexcept : size_{size} {}

  /// Where the next bytes go: at least a quarter of `size`. Moves the unfinished bytes when they stand in the way.
  [[nodiscard]] std::span<char> space();

  /// The first `bytes` of space() have been filled.
  void received(std::size_t bytes) noexcept { end_ += bytes; }

  /// What was received and not taken. Valid until the next space() or clear(), longer with owner().
  [[nodiscard]] std::string_view unfinished() const noexcept { return {memory_.get() + begin_, end_ - begin_}; }

  /// Keeps what is in the buffer now where it is.
  [[nodiscard]] std::shared_ptr<const void> owner() noexcept {
    shared_ = true;
    return memory_;
  }

  /// The first `bytes` of unfinished() are done with.
  void take(std::size_t bytes) noexcept { begin_ += bytes; }

  /// Forgets what is unfinished.
  void clear() noexcept { begin_ = end_; }

 private:
  const std::size_t size_;
  std::shared_ptr<char[]> memory_;  // shared with whoever reads what was handed out
  std::size_t capacity_ = 0;
  std::size_t begin_ = 0;  // <= end_ <= capacity_
  std::size_t end_ = 0;
  bool shared_ = false;  // whether somebody else may be reading `memory_`; only then it cannot be written over
};

}  // namespace tidemill::detail
