// The allocation functions of this program, which fail when they are told to.
#include "state/failing_allocations.hpp"

#include <cstdlib>
#include <limits>
#include <memory>
#include <new>

#include <gtest/gtest.h>

#include "tidemill/core/config.hpp"

namespace {

constexpr int never = std::numeric_limits<int>::max();
thread_local int left = never;
thread_local int left_when_resumed = never;
thread_local bool once = false;
thread_local bool failed = false;

bool fails() noexcept {
  if (left == never) return false;
  if (left == 0) {
    failed = true;
    if (once) left = never;
    return true;
  }
  --left;
  return false;
}
void* allocate(std::size_t size, std::size_t alignment) {
  if (fails()) throw std::bad_alloc{};
  void* const memory = alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__
                           ? std::malloc(size == 0 ? 1 : size)
                           : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (memory == nullptr) throw std::bad_alloc{};
  return memory;
}

}  // namespace

// The array forms, and all of delete, come down to these. Not inlined, so that the compiler does not see half of a pair.
TIDEMILL_NOINLINE void* operator new(std::size_t size) { return allocate(size, 1); }
TIDEMILL_NOINLINE void* operator new(std::size_t size, std::align_val_t alignment) {
  return allocate(size, static_cast<std::size_t>(alignment));
}
TIDEMILL_NOINLINE void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return fails() ? nullptr : std::malloc(size == 0 ? 1 : size);
}
TIDEMILL_NOINLINE void operator delete(void* memory) noexcept { std::free(memory); }
TIDEMILL_NOINLINE void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
TIDEMILL_NOINLINE void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
TIDEMILL_NOINLINE void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace tidemill::testing_state {

FailingAllocations::FailingAllocations(int n, bool for_ever) noexcept {
  failed = false;
  once = !for_ever;
  left = n;
}
FailingAllocations::~FailingAllocations() { left = never; }
bool FailingAllocations::happened() const noexcept { return failed; }

void pause_failing_allocations() noexcept {
  left_when_resumed = left;
  left = never;
}
void resume_failing_allocations() noexcept { left = left_when_resumed; }

namespace {

TEST(FailingAllocations, FailAfterSoManyAndAsLongAsTheyAreTold) {
  std::unique_ptr<int> first, second;
  bool failed = false;
  {
    const FailingAllocations failing{1};
    first.reset(new int{1});
    try {
      second.reset(new int{2});
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  }
  EXPECT_TRUE(first && failed && !second);
  second.reset(new int{3});
}

TEST(FailingAllocations, FailOnceOrNotAtAllWhilePaused) {
  const FailingAllocations failing{0, false};
  pause_failing_allocations();
  std::unique_ptr<int> first{new int{1}};
  resume_failing_allocations();
  bool failed = false;
  try {
    first.reset(new int{2});
  } catch (const std::bad_alloc&) {
    failed = true;
  }
  std::unique_ptr<int> second{new int{3}};
  EXPECT_TRUE(failed && failing.happened());
  EXPECT_EQ(*first + *second, 4);
}

}  // namespace
}  // namespace tidemill::testing_state
