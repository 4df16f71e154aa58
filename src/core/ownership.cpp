#include "tidemill/core/ownership.hpp"

#include <algorithm>

namespace tidemill {

std::byte* Arena::allocate_slab(std::size_t size) {
  // Small arenas stay small (a batch of three words should not cost 64 KiB); large ones grow by doubling.
  constexpr std::size_t smallest = 512;
  constexpr std::size_t largest = std::size_t{64} << 10;
  const std::size_t usual = std::clamp(allocated_, smallest, largest);
  const std::size_t slab = std::max(size, usual);
  slabs_.push_back(std::make_unique_for_overwrite<std::byte[]>(slab));
  allocated_ += slab;
  std::byte* const start = slabs_.back().get();
  if (slab - size >= left_) {  // keep filling whichever slab has more room
    next_ = start + size;
    left_ = slab - size;
  }
  return start;
}

}  // namespace tidemill
