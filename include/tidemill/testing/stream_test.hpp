// The test harness for pipelines: batches in, batches out, on the calling thread, under a clock that stands still.
//
//     StreamTest<std::string> test;
//     auto counts = test.input().map(with_one).reduce_by_key(std::plus<>{});
//     test.run(counts, {{"a", "a", "b"}, {}, {"b"}})
//         .expect_batches({{{"a", 2}, {"b", 1}}, {}, {{"b", 1}}});
//
// Nothing here depends on a test framework: an expectation that fails throws ExpectationFailed, whose message shows both
// sides, batch by batch; every framework reports that. The page docs/howto/test-your-pipeline.md has more.
#pragma once

#include <algorithm>
#include <cstddef>
#include <exception>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tidemill/core/clock.hpp"
#include "tidemill/core/text_form.hpp"
#include "tidemill/dstream/streaming_context.hpp"

namespace tidemill::testing {

/// What came out was not what was expected.
class TIDEMILL_API ExpectationFailed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  ~ExpectationFailed() override;
};

/// The batches that a stream gave, one vector an interval.
template <class T>
class Batches {
 public:
  using Expected = std::vector<std::vector<T>>;

  explicit Batches(Expected batches) : batches_{std::move(batches)} {}
  [[nodiscard]] const Expected& get() const noexcept { return batches_; }

  /// The same records in the same batches; the order within a batch does not count.
  const Batches& expect_batches(const Expected& expected) const { return compare(expected, Order::ignored); }
  /// The same records in the same batches in the same order.
  const Batches& expect_batches_in_order(const Expected& expected) const { return compare(expected, Order::matters); }

 private:
  enum class Order { ignored, matters };

  const Batches& compare(const Expected& expected, Order order) const {
    bool equal = expected.size() == batches_.size();
    for (std::size_t i = 0; equal && i < expected.size(); ++i) {
      equal = order == Order::matters
                  ? std::equal(batches_[i].begin(), batches_[i].end(), expected[i].begin(), expected[i].end())
                  : std::is_permutation(batches_[i].begin(), batches_[i].end(), expected[i].begin(), expected[i].end());
    }
    if (equal) return *this;
    std::string message = "the stream gave other batches than expected";
    for (std::size_t i = 0; i < std::max(expected.size(), batches_.size()); ++i) {
      message += "\n  batch " + std::to_string(i) + ":  expected " + side(expected, i) + "\n            came     " +
                 side(batches_, i);
    }
    throw ExpectationFailed{message};
  }

  static std::string side(const Expected& batches, std::size_t i) {
    if (i >= batches.size()) return "no batch";
    std::string text = "[";
    for (const T& record : batches[i]) {
      if (text.size() > 1) text += ", ";
      append_text(text, record);
    }
    return text + ']';
  }

  Expected batches_;
};

/// A streaming context on a manual clock, with one input of type T (more by `add_input`), driven batch by batch.
/// Threads: one.
template <class T>
class StreamTest {
 public:
  /// One worker by default, so that everything happens on the calling thread; more to see that the answer stays the same.
  explicit StreamTest(Duration interval = std::chrono::seconds{1}, std::size_t parallelism = 1)
      : clock_{std::make_shared<ManualClock>()},
        context_{
            {.app_name = "test", .parallelism = parallelism, .executor = nullptr, .clock = clock_, .log = nullptr}},
        streaming_{context_, interval, {.graceful_stop_timeout = {}, .output = &printed_}},
        queue_{std::make_shared<BatchQueue<T>>()},
        input_{streaming_.queue_stream(queue_)} {}

  [[nodiscard]] DStream<T> input() const { return input_; }
  /// Another input, whose batches are pushed into the queue that comes with it.
  template <class U>
  [[nodiscard]] std::pair<DStream<U>, std::shared_ptr<BatchQueue<U>>> add_input() {
    auto queue = std::make_shared<BatchQueue<U>>();
    auto stream = streaming_.queue_stream(queue);
    return {stream, queue};
  }

  [[nodiscard]] StreamingContext& streaming() noexcept { return streaming_; }
  [[nodiscard]] Context& context() noexcept { return context_; }
  [[nodiscard]] ManualClock& clock() noexcept { return *clock_; }
  /// What print() wrote.
  [[nodiscard]] std::string printed() const { return printed_.str(); }

  /// Has the batches of `stream` collected from now on. Call it before the first `step` or `run`.
  template <class S>
  [[nodiscard]] std::shared_ptr<std::vector<std::vector<owned_t<typename S::value_type>>>> collect(const S& stream) {
    using U = owned_t<typename S::value_type>;
    auto collected = std::make_shared<std::vector<std::vector<U>>>();  // shared with the output operation
    stream.foreach_batch([collected](const auto& batch) { collected->push_back(batch.collect()); });
    return collected;
  }

  /// One interval passes, with these records in the input. Throws what this batch threw; the next may be stepped through.
  void step(std::vector<T> records = {}) {
    if (streaming_.state() == StreamingState::initialized) streaming_.start(Drive::by_host);
    queue_->push(std::move(records));
    clock_->advance(streaming_.batch_interval());
    static_cast<void>(streaming_.engine()->take_last_error());  // of batches that somebody else stepped through
    streaming_.step();
    if (const std::exception_ptr error = streaming_.engine()->take_last_error()) std::rethrow_exception(error);
  }

  /// One interval for each of `batches`; what `stream` gave.
  template <class S>
  [[nodiscard]] Batches<owned_t<typename S::value_type>> run(const S& stream, std::vector<std::vector<T>> batches) {
    const auto collected = collect(stream);
    for (auto& records : batches) step(std::move(records));
    return Batches<owned_t<typename S::value_type>>{*collected};
  }

 private:
  std::ostringstream printed_;
  std::shared_ptr<ManualClock> clock_;
  Context context_;
  StreamingContext streaming_;
  std::shared_ptr<BatchQueue<T>> queue_;
  DStream<T> input_;
};

}  // namespace tidemill::testing
