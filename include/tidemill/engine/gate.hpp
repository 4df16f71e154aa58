// When a batch is closed, and the stations of a context's life. Small types that the engine and both front ends share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>

#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"

namespace tidemill {

/// The gate that closes a batch as soon as something has arrived and the previous batch is done: a lone record is worked on at
/// once, and a burst that comes meanwhile becomes the next batch. Batch times are the clock's, unique and increasing.
struct OnArrival {
  /// A batch takes at most this many records of each input; the rest follows at once in the next.
  std::size_t max_batch_records = std::numeric_limits<std::size_t>::max();
  /// Batch times are at least this far apart; zero means no pause.
  Duration min_interval{0};
};

/// `StreamingContext{context, on_arrival}`.
inline constexpr OnArrival on_arrival{};

/// Source: Spark `StreamingContextState`.
enum class StreamingState : std::uint8_t { initialized, active, stopped };

[[nodiscard]] constexpr std::string_view to_string(StreamingState state) noexcept {
  switch (state) {
    case StreamingState::initialized: return "initialized";
    case StreamingState::active: return "active";
    case StreamingState::stopped: return "stopped";
  }
  return "unknown";
}

/// How to stop: `immediate` finishes the running batch and drops what has not been batched; `graceful` stops the inputs,
/// then runs batches until everything that was received has been worked on.
enum class StopMode : std::uint8_t { immediate, graceful };

/// Whose thread runs the batches.
enum class Drive : std::uint8_t { own_thread, by_host };

}  // namespace tidemill
