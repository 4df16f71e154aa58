// expect: the function of a window must return what it takes
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tidemill/dstream/streaming_context.hpp"

int main() {
  tidemill::StreamingContext ssc{tidemill::Context{}, std::chrono::seconds{1}};
  const auto pairs = ssc.queue_stream(std::make_shared<tidemill::BatchQueue<std::pair<int, int>>>());
#ifdef LEGAL_TWIN
  (void)pairs.reduce_by_key_and_window([](int a, int b) { return a + b; }, std::chrono::seconds{2});
#else
  (void)pairs.reduce_by_key_and_window([](int, int) { return std::string{}; }, std::chrono::seconds{2});
#endif
}
