// expect: the function of a window must take two values, each as a copy or a constant reference, and return one
#include <chrono>
#include <memory>
#include <utility>

#include "tidemill/dstream/streaming_context.hpp"

int main() {
  tidemill::StreamingContext ssc{tidemill::Context{}, std::chrono::seconds{1}};
  const auto pairs = ssc.queue_stream(std::make_shared<tidemill::BatchQueue<std::pair<int, int>>>());
#ifdef LEGAL_TWIN
  (void)pairs.reduce_by_key_and_window([](int a, const int& b) { return a + b; }, std::chrono::seconds{2});
#else
  (void)pairs.reduce_by_key_and_window([](const int& a, int& b) { return a + b; }, std::chrono::seconds{2});
#endif
}
