// Tests of a pipeline: batches in, batches out, under a clock that stands still. See docs/howto/test-your-pipeline.md.
// Plain functions here; in a test framework each is the body of a test.
#include <chrono>
#include <cstddef>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tidemill/testing/stream_test.hpp>
#include <tidemill/tidemill.hpp>

using namespace std::chrono_literals;
using tidemill::testing::StreamTest;

// [pipeline]
// The pipeline takes and returns streams, and knows neither where lines come from nor where counts go. As a template it
// takes the std::string_view of a socket as well as the std::string of a test.
template <class Lines>
auto count_words(const Lines& lines) {
  return lines.flat_map(tidemill::words(' '))
      .map([](std::string_view word) {
        return std::pair{word, 1L};
      })
      .reduce_by_key(std::plus<>{});
}
// [/pipeline]

namespace {

// [first]
void words_are_counted_within_a_batch_and_never_across() {
  StreamTest<std::string> test;
  test.run(count_words(test.input()), {{"ebb flow ebb"}, {}, {"ebb"}})
      .expect_batches({{{"ebb", 2}, {"flow", 1}}, {}, {{"ebb", 1}}});
}
// [/first]

// [parallel]
void the_answer_does_not_depend_on_the_number_of_threads() {
  std::vector<std::string> lines;
  for (int i = 0; i < 20'000; ++i) lines.push_back("w" + std::to_string(i % 7));  // enough to be shared out
  std::vector<std::vector<std::pair<std::string, long>>> answers;
  for (const std::size_t workers : {1u, 4u}) {
    StreamTest<std::string> test{1s, workers};
    auto batches =
        test.run(count_words(test.input()).transform([](const auto& counts) { return counts.sort_by_key(); }), {lines});
    answers.push_back(batches.get().front());
  }
  if (answers[0] != answers[1]) throw std::runtime_error{"one worker and four gave different answers"};
}
// [/parallel]

// [inputs]
void orders_are_joined_with_the_prices_of_the_same_interval() {
  using Order = std::pair<std::string, int>;
  StreamTest<Order> test;
  auto [prices, price_queue] = test.add_input<std::pair<std::string, double>>();
  auto total = test.input().join(prices).map_values(
      [](const std::pair<int, double>& amount_and_price) { return amount_and_price.first * amount_and_price.second; });
  const auto totals = test.collect(total);  // before the first step

  price_queue->push({{"salt", 2.5}});
  test.step({{"salt", 4}, {"fish", 1}});
  test.step({{"salt", 1}});  // no price in this interval

  tidemill::testing::Batches{*totals}.expect_batches({{{"salt", 10.0}}, {}});
}
// [/inputs]

// [time]
void functions_are_told_the_time_of_the_batch() {
  StreamTest<int> test{250ms};
  std::vector<std::string> times;
  test.input().foreach_batch(
      [&](const tidemill::Batch<int>&, tidemill::Time time) { times.push_back(tidemill::to_string(time)); });
  test.step();
  test.step();
  if (times != std::vector<std::string>{"1000250 ms", "1000500 ms"}) throw std::runtime_error{"wrong batch times"};
}
// [/time]

// [printed]
void print_shows_the_first_records_under_the_time_of_the_batch() {
  StreamTest<int> test;
  test.input().print(2);
  test.step({7, 8, 9});
  const std::string expected =
      "-------------------------------------------\n"
      "Time: 1001000 ms\n"
      "-------------------------------------------\n"
      "7\n8\n...\n\n";
  if (test.printed() != expected) throw std::runtime_error{"printed: " + test.printed()};
}
// [/printed]

// [failure]
void a_failed_batch_does_not_stop_the_ones_after_it() {
  StreamTest<std::string> test;
  const auto lengths = test.collect(test.input().map([](const std::string& number) { return std::stol(number); }));
  test.step({"1"});
  bool failed = false;
  try {
    test.step({"two"});  // throws what this batch threw
  } catch (const tidemill::UserCodeError& error) {
    failed = error.context().op == "map";
  }
  if (!failed) throw std::runtime_error{"the second batch should have failed in map"};

  test.step({"3"});
  tidemill::testing::Batches{*lengths}.expect_batches({{1}, {3}});
}
// [/failure]

// [listener]
void a_listener_hears_how_many_records_each_batch_had() {
  class Records final : public tidemill::StreamingListener {
   public:
    void on_batch_completed(const tidemill::BatchInfo& batch) override { records.push_back(batch.num_records()); }
    std::vector<std::size_t> records;
  };
  StreamTest<int> test;
  const auto listener = std::make_shared<Records>();
  test.streaming().add_listener(listener);
  const auto batches = test.run(test.input(), {{1, 2, 3}, {}, {4}});
  batches.expect_batches({{1, 2, 3}, {}, {4}});
  if (listener->records != std::vector<std::size_t>{3, 0, 1}) throw std::runtime_error{"wrong numbers of records"};
}
// [/listener]

// [on-arrival]
void a_lone_record_is_a_batch_when_the_gate_opens_on_arrival() {
  const auto clock = std::make_shared<tidemill::ManualClock>();
  tidemill::Context context{{.app_name = "test", .parallelism = 1, .clock = clock}};
  tidemill::StreamingContext ssc{context, tidemill::on_arrival};
  const auto queue = std::make_shared<tidemill::BatchQueue<int>>();
  std::vector<std::vector<int>> batches;
  ssc.queue_stream(queue).foreach_batch([&](const tidemill::Batch<int>& batch) { batches.push_back(batch.collect()); });
  ssc.start(tidemill::Drive::by_host);

  const bool ran_without_data = ssc.step();
  queue->push(std::vector{1});
  const bool ran_with_data = ssc.step();

  if (ran_without_data || !ran_with_data || batches != std::vector<std::vector<int>>{{1}})
    throw std::runtime_error{"the gate should open when a record has arrived, and only then"};
}
// [/on-arrival]

}  // namespace

int main() {
  const std::vector<std::pair<const char*, void (*)()>> tests{
      {"words are counted within a batch and never across", words_are_counted_within_a_batch_and_never_across},
      {"the answer does not depend on the number of threads", the_answer_does_not_depend_on_the_number_of_threads},
      {"orders are joined with the prices of the same interval",
       orders_are_joined_with_the_prices_of_the_same_interval},
      {"functions are told the time of the batch", functions_are_told_the_time_of_the_batch},
      {"print shows the first records under the time of the batch",
       print_shows_the_first_records_under_the_time_of_the_batch},
      {"a failed batch does not stop the ones after it", a_failed_batch_does_not_stop_the_ones_after_it},
      {"a listener hears how many records each batch had", a_listener_hears_how_many_records_each_batch_had},
      {"a lone record is a batch when the gate opens on arrival",
       a_lone_record_is_a_batch_when_the_gate_opens_on_arrival}};
  int failed = 0;
  for (const auto& [name, test] : tests) {
    try {
      test();
      std::cout << name << ": ok\n";
    } catch (const std::exception& error) {
      std::cout << name << ": FAILED: " << error.what() << '\n';
      ++failed;
    }
  }
  return failed == 0 ? 0 : 1;
}
