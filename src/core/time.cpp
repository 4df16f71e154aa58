#include "tidemill/core/time.hpp"

#include <array>
#include <cstdint>
#include <utility>

#include "tidemill/core/error.hpp"

namespace tidemill {
namespace {

void check_step(Duration step) {
  if (step <= Duration::zero())
    throw ConfigError("the step between two times must be positive, and it is " + to_string(step));
}

}  // namespace

std::vector<Time> until(Time first, Time end, Duration step) {
  check_step(step);
  std::vector<Time> times;
  for (Time t = first; t < end; t += step) times.push_back(t);
  return times;
}

std::vector<Time> to(Time first, Time last, Duration step) {
  check_step(step);
  std::vector<Time> times;
  for (Time t = first; t <= last; t += step) times.push_back(t);
  return times;
}

std::string to_string(Time t) {
  const auto whole = std::chrono::floor<std::chrono::milliseconds>(t);
  std::string text = std::to_string(whole.time_since_epoch().count());
  if (const auto rest = (t - whole).count(); rest != 0) {
    const std::string digits = std::to_string(rest);
    text += '.' + std::string(3 - digits.size(), '0') + digits;
  }
  return text + " ms";
}

std::string to_string(Duration d) {
  struct Unit {
    Duration length;
    const char* name;
  };
  static constexpr std::array units{Unit{std::chrono::hours{1}, " h"}, Unit{std::chrono::minutes{1}, " min"},
                                    Unit{std::chrono::seconds{1}, " s"}, Unit{std::chrono::milliseconds{1}, " ms"}};
  const bool is_negative = d < Duration::zero();
  // Without a sign, so that Duration::min() has one too.
  const auto magnitude =
      is_negative ? 0 - static_cast<std::uint64_t>(d.count()) : static_cast<std::uint64_t>(d.count());
  const std::string sign = is_negative ? "-" : "";
  for (const Unit& unit : units) {
    // One decimal at most: 1.5 s reads better than 1500 ms, 1.234567 s does not read better than 1234.567 ms.
    const auto length = static_cast<std::uint64_t>(unit.length.count());
    const auto [whole, rest] = std::pair{magnitude / length, magnitude % length};
    if (whole == 0 || rest * 10 % length != 0) continue;
    const auto tenths = rest * 10 / length;
    return sign + std::to_string(whole) + (tenths == 0 ? "" : '.' + std::to_string(tenths)) + unit.name;
  }
  if (magnitude < 1000) return sign + std::to_string(magnitude) + " us";
  std::string digits = std::to_string(1000 + magnitude % 1000).substr(1);
  digits.erase(digits.find_last_not_of('0') + 1);
  return sign + std::to_string(magnitude / 1000) + '.' + digits + " ms";
}

}  // namespace tidemill
