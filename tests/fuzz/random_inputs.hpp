// What runs a fuzz target without libFuzzer: random inputs from a fixed seed, half of them small changes of a good one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <string_view>

#include "tidemill/core/config.hpp"

namespace tidemill_fuzz {

/// Calls `target` as often as the first argument says (20000 times without one, 5000 under a sanitizer); `good` may be empty.
inline int run_random_inputs(int count, char** arguments, std::string_view good,
                             int (*target)(const std::uint8_t*, std::size_t)) {
  const long runs = count > 1 ? std::strtol(arguments[1], nullptr, 10) : TIDEMILL_SANITIZED ? 5'000 : 20'000;
  std::mt19937_64 random{1729};
  for (long run = 0; run < runs; ++run) {
    std::string bytes;
    if (!good.empty() && random() % 2 == 0) {
      bytes = good;
      for (auto changes = random() % 4; changes > 0 && !bytes.empty(); --changes) {
        const std::size_t at = random() % bytes.size();
        switch (random() % 4) {
          case 0: bytes[at] = static_cast<char>(random() % 256); break;
          case 1: bytes.insert(at, 1, static_cast<char>(random() % 256)); break;
          case 2: bytes.erase(at, 1 + random() % 8); break;
          default: bytes.resize(at); break;
        }
      }
    } else {
      bytes.resize(random() % 96);
      const unsigned range = random() % 2 == 0 ? 4 : 256;  // small bytes look like counts, flags and indices
      for (char& byte : bytes) byte = static_cast<char>(random() % range);
    }
    target(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  }
  return 0;
}

}  // namespace tidemill_fuzz
