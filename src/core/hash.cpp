#include "tidemill/core/hash.hpp"

namespace tidemill::detail {
namespace {

std::uint64_t load8(const char* p) noexcept {
  std::uint64_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}

}  // namespace

std::uint64_t hash_bytes(const char* data, std::size_t size) noexcept {
  std::uint64_t state = hash_seed_b ^ size;
  std::size_t left = size;
  for (; left > 16; left -= 16, data += 16) state = mix(load8(data) ^ hash_seed_a, load8(data + 8) ^ state);
  std::uint64_t tail[2] = {0, 0};
  if (left != 0) std::memcpy(tail, data, left);
  return mix(tail[0] ^ hash_seed_a ^ state, tail[1] ^ hash_seed_b ^ mix(size, hash_seed_a));
}

}  // namespace tidemill::detail
