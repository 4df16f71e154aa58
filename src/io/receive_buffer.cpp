#include "tidemill/io/detail/receive_buffer.hpp"

#include <cstring>

namespace tidemill::detail {

std::span<char> ReceiveBuffer::space() {
  const std::size_t least = size_ / 4;
  if (capacity_ - end_ < least || (!shared_ && begin_ == end_)) {
    const std::size_t kept = end_ - begin_;
    // Room for as much again as is unfinished, so that something of n bytes is moved O(n) bytes in all.
    std::size_t wanted = size_;
    while (wanted - least < kept || wanted < kept * 2) wanted *= 2;
    if (shared_ || wanted > capacity_ || (kept == 0 && capacity_ > size_)) {
      std::shared_ptr<char[]> fresh = std::make_shared_for_overwrite<char[]>(wanted);
      if (kept != 0) std::memcpy(fresh.get(), memory_.get() + begin_, kept);
      memory_ = std::move(fresh);
      capacity_ = wanted;
      shared_ = false;
    } else if (kept != 0) {
      std::memmove(memory_.get(), memory_.get() + begin_, kept);
    }
    begin_ = 0;
    end_ = kept;
  }
  return {memory_.get() + end_, capacity_ - end_};
}

}  // namespace tidemill::detail
