// What the engine does with states that the host reads: a batch shows when its transactions have committed.
#pragma once

#include "tidemill/core/config.hpp"

namespace tidemill {

/// A state of a stream, as the host sees it.
/// Threads: the driving one, between batches.
class TIDEMILL_API HostState {
 public:
  virtual ~HostState();
  /// From now on the host sees what there is now, whatever batches do. When that is so already, nothing changes.
  virtual void hold() noexcept = 0;
  /// From now on it sees every batch.
  virtual void show() noexcept = 0;
};

}  // namespace tidemill
