// Bodies of Context: ranges, shared values, accumulators. Included by batch.hpp.
#pragma once

#include "tidemill/batch/accumulator.hpp"
#include "tidemill/batch/broadcast.hpp"

namespace tidemill {

template <class T>
Broadcast<T> Context::broadcast(T value) const {
  return Broadcast<T>{std::move(value)};
}

template <class T>
CollectionAccumulator<T> Context::collection_accumulator() const {
  return {};
}

template <class State>
Accumulator<State> Context::accumulator(State zero) const {
  return Accumulator<State>{std::move(zero)};
}

}  // namespace tidemill
