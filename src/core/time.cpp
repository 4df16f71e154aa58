#include "tidemill/core/time.hpp"

#include <array>
#include <charconv>

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
  const Duration magnitude = d < Duration::zero() ? -d : d;
  for (const Unit& unit : units) {
    // One decimal at most: 1.5 s reads better than 1500 ms, 1.234567 s does not read better than 1234.567 ms.
    if (magnitude < unit.length || (magnitude * 10) % unit.length != Duration::zero()) continue;
    const auto tenths = d.count() * 10 / unit.length.count();
    std::string text = std::to_string(tenths / 10);
    if (tenths / 10 == 0 && tenths < 0) text = '-' + text;
    if (tenths % 10 != 0) text += '.' + std::to_string(std::abs(tenths % 10));
    return text + unit.name;
  }
  if (magnitude < std::chrono::milliseconds{1}) return std::to_string(d.count()) + " us";
  std::string digits = std::to_string(1000 + magnitude.count() % 1000).substr(1);
  digits.erase(digits.find_last_not_of('0') + 1);
  return (d < Duration::zero() ? "-" : "") + std::to_string(magnitude.count() / 1000) + '.' + digits + " ms";
}

}  // namespace tidemill
