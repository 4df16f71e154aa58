// expect: the function of a StateSpec must take (key, std::optional<V>, State<S>&), or the same after the Time
#include <memory>
#include <optional>
#include <utility>

#include "tidemill/dstream/streaming_context.hpp"

int main() {
  tidemill::StreamingContext ssc{tidemill::Context{}, std::chrono::seconds{1}};
  const auto pairs = ssc.queue_stream(std::make_shared<tidemill::BatchQueue<std::pair<int, int>>>());
#ifdef LEGAL_TWIN
  (void)pairs.map_with_state(
      tidemill::state_spec<int>([](int, std::optional<int> x, tidemill::State<int>& s) { s.update(*x); }));
#else
  (void)pairs.map_with_state(tidemill::state_spec<int>([](int, int x, tidemill::State<int>& s) { s.update(x); }));
#endif
}
