// expect: the keys of the initial state must be those of the stream
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
  const auto nothing = [](int, std::optional<int>, tidemill::State<long>&) {};
#ifdef LEGAL_TWIN
  (void)pairs.map_with_state(tidemill::state_spec<long>(nothing).initial_state(std::vector<std::pair<int, long>>{}));
#else
  (void)pairs.map_with_state(
      tidemill::state_spec<long>(nothing).initial_state(std::vector<std::pair<std::string, long>>{}));
#endif
}
