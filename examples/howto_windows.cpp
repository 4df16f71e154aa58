// The windows that docs/howto/use-windows.md shows, with their tests.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <tidemill/testing/stream_test.hpp>
#include <tidemill/tidemill.hpp>

namespace {

using namespace std::chrono_literals;
using tidemill::testing::StreamTest;

using Reading = std::pair<std::string, double>;  // a sensor and what it measured

// [window]
void a_window_holds_the_batches_of_its_length() {
  StreamTest<int> test;  // a batch every second
  test.run(test.input().window(3s), {{1}, {2}, {3}, {4}}).expect_batches_in_order({{1}, {1, 2}, {1, 2, 3}, {2, 3, 4}});
}

void and_moves_by_its_slide() {
  StreamTest<int> test;
  test.run(test.input().window(4s, 2s), {{1}, {2}, {3}, {4}, {5}, {6}})
      .expect_batches_in_order({{1, 2}, {1, 2, 3, 4}, {3, 4, 5, 6}});
}
// [/window]

// [highest]
// The highest reading of each sensor in the last minute, every ten seconds.
template <class Readings>
auto highest(const Readings& readings) {
  return readings.reduce_by_key_and_window([](double a, double b) { return std::max(a, b); }, 60s, 10s);
}
// [/highest]

// [mean]
// A value of any type, and how two of them become one.
struct Mean {
  double sum = 0;
  long count = 0;
  friend Mean operator+(const Mean& a, const Mean& b) { return {a.sum + b.sum, a.count + b.count}; }
};

template <class Readings>
auto means(const Readings& readings) {
  return readings.map_values([](double value) {
                   return Mean{value, 1};
                 })
      .reduce_by_key_and_window(std::plus<>{}, 60s, 10s)
      .map_values([](const Mean& mean) { return mean.sum / static_cast<double>(mean.count); });
}
// [/mean]

// [inverse]
// How many readings each sensor sent in the last minute. What leaves is subtracted; sensors that have fallen silent are
// forgotten, because the filter rejects them.
template <class Readings>
auto readings_a_minute(const Readings& readings) {
  return readings.map_values([](double) { return 1L; })
      .reduce_by_key_and_window(std::plus<>{}, std::minus<>{}, 60s, 10s, 0,
                                [](const std::string&, long count) { return count > 0; });
}
// [/inverse]

// [join]
// Sensors whose mean of the last minute is above their mean of the last hour: windows of one slide are joined by their time.
template <class Readings>
auto rising(const Readings& readings) {
  const auto as_mean = readings.map_values([](double value) { return Mean{value, 1}; });
  const auto minute = as_mean.reduce_by_key_and_window(std::plus<>{}, 1min, 10s);
  const auto hour = as_mean.reduce_by_key_and_window(std::plus<>{}, 1h, 10s);
  return minute.join(hour)
      .filter([](const std::pair<std::string, std::pair<Mean, Mean>>& sensor) {
        const auto& [now, before] = sensor.second;
        return now.sum / static_cast<double>(now.count) > before.sum / static_cast<double>(before.count);
      })
      .keys();
}
// [/join]

void a_window_that_cannot_be_is_refused_with_those_that_can() {
  StreamTest<int> test;  // a batch every second
  try {
    (void)test.input().window(2500ms, 1s);
  } catch (const tidemill::PlanError& error) {
    if (std::string{error.what()}.find("2 s or 3 s") != std::string::npos) return;
  }
  throw std::runtime_error{"2.5 s of batches of a second should have been refused, with the lengths that are possible"};
}

void require(bool condition, const char* what) {
  if (!condition) throw std::runtime_error{what};
}

// What a stream of readings gives in the tenth, twentieth, … second of these.
template <class Pipeline>
auto every_ten_seconds(Pipeline pipeline, const std::map<int, std::vector<Reading>>& by_second, int seconds) {
  StreamTest<Reading> test;
  const auto windows = test.collect(pipeline(test.input()));
  for (int second = 1; second <= seconds; ++second) {
    const auto readings = by_second.find(second);
    test.step(readings == by_second.end() ? std::vector<Reading>{} : readings->second);
  }
  return *windows;
}

void readings_of_the_last_minute() {
  const std::map<int, std::vector<Reading>> readings{
      {1, {{"a", 4.0}, {"b", 7.0}}}, {15, {{"a", 2.0}}}, {65, {{"a", 3.0}}}};
  const auto top = every_ten_seconds([](const auto& input) { return highest(input); }, readings, 130);
  require(top.size() == 13, "a window every ten seconds");
  require(top[0].size() == 2 && top[5].size() == 2, "the first minute");
  require(top[6] == std::vector<Reading>{{"a", 3.0}}, "what came in the first second has left");
  require(top[12].empty(), "everything has left");

  const auto mean = every_ten_seconds([](const auto& input) { return means(input); }, readings, 70);
  require(mean[6] == std::vector<Reading>{{"a", 2.5}}, "the mean of two readings");

  const auto counts = every_ten_seconds([](const auto& input) { return readings_a_minute(input); }, readings, 130);
  require(counts[6] == std::vector<std::pair<std::string, long>>{{"a", 2}}, "two readings, and a silent sensor");
  require(counts[12].empty(), "all sensors silent");

  const auto up = every_ten_seconds([](const auto& input) { return rising(input); },
                                    {{1, {{"a", 1.0}, {"b", 9.0}}}, {65, {{"a", 3.0}, {"b", 2.0}}}}, 70);
  require(up[6] == std::vector<std::string>{"a"}, "the sensor that rises");
}

}  // namespace

int main() {
  try {
    a_window_holds_the_batches_of_its_length();
    and_moves_by_its_slide();
    readings_of_the_last_minute();
    a_window_that_cannot_be_is_refused_with_those_that_can();
    std::cout << "windows that slide, as expected\n";
  } catch (const std::exception& error) {
    std::cout << "FAILED: " << error.what() << '\n';
    return 1;
  }
}
