// expect: the filter of a window must take a key and a value, or the pair of them, and return bool
#include <chrono>
#include <functional>
#include <memory>
#include <utility>

#include "tidemill/dstream/streaming_context.hpp"

int main() {
  using namespace std::chrono_literals;
  tidemill::StreamingContext ssc{tidemill::Context{}, 1s};
  const auto pairs = ssc.queue_stream(std::make_shared<tidemill::BatchQueue<std::pair<int, int>>>());
#ifdef LEGAL_TWIN
  const auto filter = [](int, int value) { return value != 0; };
#else
  const auto filter = [](int value) { return value != 0; };
#endif
  (void)pairs.reduce_by_key_and_window(std::plus<>{}, std::minus<>{}, 2s, 1s, 0, filter);
}
