// expect: reduce_by_key_and_window needs a stream of std::pair; call key_by first
#include <chrono>
#include <functional>
#include <memory>

#include "tidemill/dstream/streaming_context.hpp"

int main() {
  tidemill::StreamingContext ssc{tidemill::Context{}, std::chrono::seconds{1}};
  const auto numbers = ssc.queue_stream(std::make_shared<tidemill::BatchQueue<int>>());
#ifdef LEGAL_TWIN
  (void)numbers.key_by([](int i) { return i % 2; }).reduce_by_key_and_window(std::plus<>{}, std::chrono::seconds{2});
#else
  (void)numbers.reduce_by_key_and_window(std::plus<>{}, std::chrono::seconds{2});
#endif
}
