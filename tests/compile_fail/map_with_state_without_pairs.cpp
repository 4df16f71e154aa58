// expect: map_with_state needs a stream of std::pair; call key_by first
#include <memory>
#include <optional>

#include "tidemill/dstream/streaming_context.hpp"

int main() {
  tidemill::StreamingContext ssc{tidemill::Context{}, std::chrono::seconds{1}};
  const auto numbers = ssc.queue_stream(std::make_shared<tidemill::BatchQueue<int>>());
  const auto spec = tidemill::state_spec<int>([](int, std::optional<int> x, tidemill::State<int>& s) { s.update(*x); });
#ifdef LEGAL_TWIN
  (void)numbers.key_by([](int x) { return x % 2; }).map_with_state(spec);
#else
  (void)numbers.map_with_state(spec);
#endif
}
