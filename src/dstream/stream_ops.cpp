#include "tidemill/core/error.hpp"
#include "tidemill/engine/engine.hpp"

namespace tidemill::detail {

// Declared in dstream/detail/stream_ops.ipp.
TIDEMILL_API void check_context(const char* op, const StreamingEngine& engine, const GraphNode& stream) {
  if (stream.engine().get() != &engine)
    throw PlanError("different_contexts", std::string{op} +
                                              " was given a stream of another StreamingContext; call it on the "
                                              "context that the streams come from");
}

void check_same_context(const char* op, const GraphNode& a, const GraphNode& b);
TIDEMILL_API void check_context(const char* op, const StreamingEngine& engine, const GraphNode& stream);
TIDEMILL_API void check_can_slice(const StreamingEngine& engine);
TIDEMILL_API void warn_unless_on_slide(const StreamingEngine& engine, Time from, Time to, Duration slide);

void check_same_context(const char* op, const GraphNode& a, const GraphNode& b) {
  if (a.engine() != b.engine())
    throw PlanError("different_contexts", std::string{op} +
                                              " was given streams of two different StreamingContexts; make "
                                              "both from the same one");
  if (a.slide() != b.slide())
    throw PlanError("different_slides", std::string{op} + " needs streams with the same slide, and they have " +
                                            to_string(a.slide()) + " and " + to_string(b.slide()));
}

void check_can_slice(const StreamingEngine& engine) {
  if (engine.gate_is_on_arrival())
    throw PlanError(
        "needs_interval",
        "slice() selects batches by their interval, and the gate of this context is on_arrival, where batches "
        "come when data does; give the context a batch interval");
  if (engine.state() == StreamingState::initialized)
    throw PlanError("illegal_state", "slice() was called before start(), when there are no batches yet");
}

void warn_unless_on_slide(const StreamingEngine& engine, Time from, Time to, Duration slide) {
  const Time zero = engine.zero_time();
  for (const Time end : {from, to}) {
    // Times outside of all batches say "from the first" and "to the last", on the slide or not.
    if (end < zero || end > engine.cut_until() || floor_to(end, slide, zero) == end) continue;
    engine.runtime()->log(LogLevel::warning, "slice: " + to_string(end) + " is not on the slide of the stream, " +
                                                 to_string(slide) + "; rounded down to " +
                                                 to_string(floor_to(end, slide, zero)));
  }
}

}  // namespace tidemill::detail
