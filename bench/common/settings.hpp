// What the environment says about this run: how large, how many rounds.
//   TIDEMILL_BENCH_SMOKE=1        tiny inputs, one round: proves that the benchmark runs and that both sides agree
//   TIDEMILL_BENCH_ROUNDS=N       rounds of every race (default: 9, more where one is short; smoke: 1)
//   TIDEMILL_BENCH_<NAME>=N       a size that one benchmark names, such as TIDEMILL_BENCH_TEXT_MB
#pragma once

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace tidemill::bench {

inline bool smoke() {
  const char* value = std::getenv("TIDEMILL_BENCH_SMOKE");
  return value != nullptr && *value != '\0' && std::string(value) != "0";
}

/// The environment variable TIDEMILL_BENCH_<name> if set, else the full or the smoke value.
inline std::int64_t setting(const std::string& name, std::int64_t full, std::int64_t tiny) {
  const std::string variable = "TIDEMILL_BENCH_" + name;
  const char* value = std::getenv(variable.c_str());
  if (value == nullptr || *value == '\0') {
    return smoke() ? tiny : full;
  }
  char* end = nullptr;
  const std::int64_t number = std::strtoll(value, &end, 10);
  if (*end != '\0' || number < 1) {
    throw std::invalid_argument(variable + "=" + value + ": a whole number above 0 is needed");
  }
  return number;
}

/// Rounds of a race whose sides take about a second each, or as many as a benchmark with shorter ones asks for.
inline std::int64_t rounds(std::int64_t unless_set = 9) { return setting("ROUNDS", unless_set, 1); }

}  // namespace tidemill::bench
