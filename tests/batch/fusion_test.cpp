// A fused chain over numbers allocates nothing for a record: the allocations of an action do not grow with the batch.
#include <atomic>
#include <cstdlib>
#include <new>

#include "batch/batches.hpp"

#if !TIDEMILL_SANITIZED  // sanitizers bring an allocator of their own

namespace {
std::atomic<std::size_t> allocations = 0;  // of this program; only these tests read it
}

// Not inlined, or GCC takes `delete` of what `new` gave for a mistake.
TIDEMILL_NOINLINE void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc{};
}
TIDEMILL_NOINLINE void* operator new(std::size_t size, std::align_val_t alignment) {
  ++allocations;
  const auto step = static_cast<std::size_t>(alignment);
  if (void* memory = std::aligned_alloc(step, (size + step - 1) / step * step)) return memory;
  throw std::bad_alloc{};
}
TIDEMILL_NOINLINE void operator delete(void* memory) noexcept { std::free(memory); }
TIDEMILL_NOINLINE void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
TIDEMILL_NOINLINE void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
TIDEMILL_NOINLINE void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace tidemill {
namespace {

using namespace testing_batches;

template <class Action>
std::size_t allocations_of(const Action& action) {
  const std::size_t before = allocations;
  action();
  return allocations - before;
}

TEST(Fusion, AllocatesNothingForARecord) {
  const Context context{{.app_name = "batch-test", .parallelism = 1}};
  const auto measure = [&](std::size_t records) {
    const auto batch = context.parallelize(numbers(records), 1);
    const auto chain = batch.map([](int x) { return x + 1; }).filter([](int x) { return x % 2 == 0; }).map([](int x) {
      return static_cast<long>(x) * 3;
    });
    const std::size_t reduce = allocations_of([&] { (void)chain.reduce(std::plus<>{}); });
    const std::size_t count = allocations_of([&] { (void)chain.count(); });
    const std::size_t stats = allocations_of([&] { (void)chain.stats(); });
    const std::size_t keyed = allocations_of([&] {
      (void)chain.map([](long x) { return std::pair{x % 8, x}; }).reduce_by_key(std::plus<>{}).count();
    });
    return std::vector{reduce, count, stats, keyed};
  };
  EXPECT_EQ(measure(1000), measure(200000));
}

TEST(Fusion, AllocatesNothingForARecordOfARange) {
  const Context context{{.app_name = "batch-test", .parallelism = 1}};
  const auto measure = [&](std::int64_t records) {
    const auto chain = context.range(0, records).map([](std::int64_t x) { return x * x; });
    return allocations_of([&] { (void)chain.reduce([](std::int64_t a, std::int64_t b) { return a ^ b; }); });
  };
  EXPECT_EQ(measure(1000), measure(200000));
}

}  // namespace
}  // namespace tidemill

#endif
