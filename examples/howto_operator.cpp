// Operators of one's own, from a function object to a stage that is written once for batches and streams. See
// docs/howto/add-an-operator.md.
#include <charconv>
#include <cstddef>
#include <functional>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <tidemill/testing/stream_test.hpp>
#include <tidemill/tidemill.hpp>

using tidemill::testing::StreamTest;

// [function-object]
// The whole numbers in a line, for lines.flat_map(Numbers{}). A function object with a member type `emits` is handed
// `emit` and allocates nothing.
struct Numbers {
  using emits = long;

  template <class Emit>
  void operator()(std::string_view line, Emit&& emit) const {
    const char* at = line.data();
    const char* const end = at + line.size();
    while (at != end) {
      long number = 0;
      const auto [after, error] = std::from_chars(at, end, number);
      if (error == std::errc{}) emit(number);
      at = after == at ? at + 1 : after;
    }
  }
};
// [/function-object]

// [composite]
// The mean of the values of each key, batch by batch. `Stream` is a DStream or a chain; it could be a Batch too.
template <class Stream>
auto mean_by_key(const Stream& stream) {
  struct SumAndCount {
    double sum = 0;
    std::size_t count = 0;
  };
  return stream
      .combine_by_key(
          [](double value) {
            return SumAndCount{value, 1};
          },
          [](SumAndCount& sum, double value) {
            sum.sum += value;
            ++sum.count;
          },
          [](SumAndCount& sum, const SumAndCount& other) {
            sum.sum += other.sum;
            sum.count += other.count;
          })
      .map_values([](const SumAndCount& sum) { return sum.sum / static_cast<double>(sum.count); });
}
// [/composite]

// [transform]
// The greatest records of each batch, in descending order: whatever a Batch can do, a stream can do batch by batch.
template <class Stream>
auto top_of_each_batch(const Stream& stream, std::size_t n) {
  using T = typename Stream::value_type;
  return stream.transform([n, context = stream.context()](const tidemill::Batch<T>& batch) {
    return context.parallelize(batch.top(n), 1);  // top() is an action: it runs now, when the batch is generated
  });
}
// [/transform]

// [lift]
// The same without running anything until an output asks, and with a name that shows in errors: the batch of the new
// stream at t is what the function makes of the batch at t.
template <class Stream>
auto sorted(const Stream& stream) {
  return stream.lift("sorted",
                     [](const auto& batch) { return batch.sort_by([](const auto& record) { return record; }); });
}
// [/lift]

int main() {
  using namespace std::string_literals;
  {
    StreamTest<std::string> test;
    test.run(test.input().flat_map(Numbers{}), {{"3 ebbs, 4 floods", "none"}, {"-1"}})
        .expect_batches_in_order({{3, 4}, {-1}});
  }
  {
    StreamTest<std::pair<std::string, double>> test;
    test.run(mean_by_key(test.input()), {{{"a", 1.0}, {"b", 5.0}, {"a", 3.0}}, {}, {{"b", 2.0}}})
        .expect_batches({{{"a"s, 2.0}, {"b"s, 5.0}}, {}, {{"b"s, 2.0}}});
  }
  {
    StreamTest<long> test;
    test.run(top_of_each_batch(test.input(), 2), {{1, 9, 4}, {7}}).expect_batches_in_order({{9, 4}, {7}});
  }
  {
    StreamTest<long> test;
    test.run(sorted(test.input()), {{3, 1, 2}}).expect_batches_in_order({{1, 2, 3}});
  }
  std::cout << "four operators, all as expected\n";
}
