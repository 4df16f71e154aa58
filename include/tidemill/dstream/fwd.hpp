// The names of the dstream module, for headers that only mention them.
#pragma once

#include "tidemill/batch/detail/chain.hpp"

namespace tidemill {

template <class T>
class DStream;
template <class In, class Stages, class Ref, detail::ChainFacts Facts>
class DStreamChain;
class StreamingContext;

}  // namespace tidemill
