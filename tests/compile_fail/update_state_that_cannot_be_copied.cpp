// expect: update_state_by_key shows all states in each batch, so they must be copyable; use map_with_state
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "tidemill/dstream/streaming_context.hpp"

#ifdef LEGAL_TWIN
using Value = std::shared_ptr<int>;
#else
using Value = std::unique_ptr<int>;
#endif

int main() {
  tidemill::StreamingContext ssc{tidemill::Context{}, std::chrono::seconds{1}};
  const auto pairs = ssc.queue_stream(std::make_shared<tidemill::BatchQueue<std::pair<int, int>>>());
  (void)pairs.update_state_by_key<Value>(
      [](const std::vector<int>&, const Value*) -> std::optional<Value> { return std::nullopt; });
}
