// expect: the function of update_state_by_key<S> must take (const std::vector<V>&, std::optional<S>)
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
  (void)pairs.update_state_by_key<long>([](const std::vector<int>&, std::optional<long> s) { return s; });
#else
  (void)pairs.update_state_by_key<long>([](int v, long s) { return s + v; });
#endif
}
