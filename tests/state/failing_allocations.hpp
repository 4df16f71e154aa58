// Lets one allocation of this thread fail. The operators are in failing_allocations_test.cpp, once for the program.
#pragma once

namespace tidemill::testing_state {

/// While it lives, the allocation after `n` others of this thread throws std::bad_alloc, and so do all after it.
class FailingAllocations {
 public:
  explicit FailingAllocations(int n) noexcept;
  ~FailingAllocations();
  FailingAllocations(const FailingAllocations&) = delete;
  FailingAllocations& operator=(const FailingAllocations&) = delete;
};

}  // namespace tidemill::testing_state
