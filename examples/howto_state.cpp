// State in a stream, in small steps. See docs/howto/keep-state.md.
#include <chrono>
#include <functional>
#include <iostream>
#include <numeric>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tidemill/testing/stream_test.hpp>
#include <tidemill/tidemill.hpp>

using namespace std::chrono_literals;
using tidemill::State;
using tidemill::state_spec;
using tidemill::testing::StreamTest;
using Reading = std::pair<std::string, double>;

namespace {

void require(bool holds, const char* what) {
  if (!holds) throw std::runtime_error{what};
}

// [first]
// How much each reading differs from the one before of the same sensor.
template <class Readings>
auto changes(const Readings& readings) {
  return readings.map_with_state(
      state_spec<double>([](std::string_view sensor, std::optional<double> reading, State<double>& last) {
        const double change = last.exists() ? *reading - last.get() : 0.0;
        last.update(*reading);
        return std::pair{sensor, change};
      }));
}
// [/first]

// [test]
void changes_go_on_from_batch_to_batch() {
  StreamTest<Reading> test;
  test.run(changes(test.input()), {{{"a", 1.0}, {"a", 4.0}, {"b", 5.0}}, {}, {{"a", 2.0}}})
      .expect_batches({{{"a", 0.0}, {"a", 3.0}, {"b", 0.0}}, {}, {{"a", -2.0}}});
}
// [/test]

// [edit]
// The last three readings of each sensor: a state that is changed where it is.
template <class Readings>
auto last_three(const Readings& readings) {
  return readings.map_with_state(state_spec<std::vector<double>>(
      [](std::string_view sensor, std::optional<double> reading, State<std::vector<double>>& last) {
        if (!last.exists()) last.update({});
        std::vector<double>& three = last.edit();
        three.push_back(*reading);
        if (three.size() > 3) three.erase(three.begin());
        return std::pair{std::string{sensor}, three};
      }));
}
// [/edit]

// [timeout]
// Sensors that have been silent for longer than a minute, each once.
template <class Readings>
auto silent(const Readings& readings) {
  return readings.map_with_state(
      state_spec<double>([](tidemill::Time now, std::string_view sensor, std::optional<double> reading,
                            State<double>& last) -> std::optional<std::string> {
        if (last.is_timing_out()) return std::string{sensor} + " is silent at " + tidemill::to_string(now);
        last.update(*reading);
        return std::nullopt;
      }).timeout(1min));
}
// [/timeout]

void silence_is_noticed() {
  StreamTest<Reading> test{30s};
  test.run(silent(test.input()), {{{"a", 1.0}}, {}, {}, {}, {}})
      .expect_batches({{}, {}, {}, {"a is silent at 1110000 ms"}, {}});
}

// [update]
// The average of all readings of each sensor, for all sensors, in every batch.
template <class Readings>
auto averages(const Readings& readings) {
  struct Sum {
    double sum = 0;
    long count = 0;
    bool operator==(const Sum&) const = default;
  };
  return readings
      .template update_state_by_key<Sum>(
          [](const std::vector<double>& values, std::optional<Sum> old) -> std::optional<Sum> {
            Sum sum = old.value_or(Sum{});
            sum.sum += std::accumulate(values.begin(), values.end(), 0.0);
            sum.count += static_cast<long>(values.size());
            return sum;
          })
      .map_values([](const Sum& sum) { return sum.sum / static_cast<double>(sum.count); });
}
// [/update]

void averages_are_shown_in_every_batch() {
  StreamTest<Reading> test;
  test.run(averages(test.input()), {{{"a", 1.0}, {"a", 3.0}}, {}, {{"b", 7.0}}})
      .expect_batches({{{"a", 2.0}}, {{"a", 2.0}}, {{"a", 2.0}, {"b", 7.0}}});
}

// [read]
void the_host_reads_a_state_while_the_stream_runs() {
  StreamTest<Reading> test;
  const auto stream = last_three(test.input());
  const tidemill::KeyedStateView<std::string, std::vector<double>> readings = stream.state();  // before the start
  stream.foreach_batch([](const auto&) {});

  test.step({{"a", 1.0}, {"a", 2.0}, {"b", 5.0}});

  require(readings.get("a") == std::vector{1.0, 2.0}, "one key");
  require(!readings.get("c"), "a key that has no state");
  const auto snapshot = readings.snapshot();
  require(snapshot.entries.size() == 2 && snapshot.time == readings.last_batch(), "all keys, after one batch");
}
// [/read]

void three_readings_stay() {
  StreamTest<Reading> test;
  using Last = std::pair<std::string, std::vector<double>>;
  test.run(last_three(test.input()), {{{"a", 1.0}, {"a", 2.0}, {"a", 3.0}}, {{"a", 4.0}}})
      .expect_batches_in_order({{Last{"a", {1}}, Last{"a", {1, 2}}, Last{"a", {1, 2, 3}}}, {Last{"a", {2, 3, 4}}}});
}

}  // namespace

int main() {
  try {
    changes_go_on_from_batch_to_batch();
    three_readings_stay();
    silence_is_noticed();
    averages_are_shown_in_every_batch();
    the_host_reads_a_state_while_the_stream_runs();
    std::cout << "states that go on, as expected\n";
  } catch (const std::exception& error) {
    std::cout << "FAILED: " << error.what() << '\n';
    return 1;
  }
}
