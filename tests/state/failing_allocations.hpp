// Lets allocations of this thread fail. The operators are in failing_allocations_test.cpp, once for the program.
#pragma once

namespace tidemill::testing_state {

/// While it lives, the allocation after `n` others of this thread throws std::bad_alloc, and so do all after it unless it is
/// the only one.
class FailingAllocations {
 public:
  explicit FailingAllocations(int n, bool for_ever = true) noexcept;
  ~FailingAllocations();
  FailingAllocations(const FailingAllocations&) = delete;
  FailingAllocations& operator=(const FailingAllocations&) = delete;
  /// Whether there were more than `n`.
  [[nodiscard]] bool happened() const noexcept;
};

/// Between these two no allocation of this thread fails, and none is counted.
void pause_failing_allocations() noexcept;
void resume_failing_allocations() noexcept;

}  // namespace tidemill::testing_state
