// A chain of narrow operators over integers: fused, it is the loop that one would write by hand, and allocates nothing.
//   cheap/<records>   functions of an instruction or two on 32 bits: the compiler vectorises the loop by hand, and must the chain
//   mixing/<records>  functions on 64 bits that multiply and divide: nothing to vectorise
// Targets: vs_hand >= 0.9; allocations_per_record = 0, counted as the difference between a batch and one of half its size,
// so that what an action costs once does not hide among the records.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include <benchmark/benchmark.h>

#include "common/allocation_counter.hpp"
#include "common/race.hpp"
#include "common/text.hpp"
#include "tidemill/tidemill.hpp"

namespace tidemill::bench {
namespace {

struct Cheap {
  using Number = std::uint32_t;
  static Number first(Number x) { return x * 3 + 1; }
  static bool keep(Number x) { return (x & 4U) != 0; }
  static Number second(Number x) { return x >> 7U; }
};

struct Mixing {
  using Number = std::uint64_t;
  static Number first(Number x) { return (x ^ (x >> 31U)) * 0xbf58476d1ce4e5b9U; }
  static bool keep(Number x) { return x % 10 != 3; }
  static Number second(Number x) { return (x ^ (x >> 29U)) * 0x94d049bb133111ebU; }
};

template <class Number>
std::vector<Number> random_numbers(std::size_t count) {
  Random random(7);
  std::vector<Number> numbers(count);
  for (Number& number : numbers) {
    number = static_cast<Number>(random.next());
  }
  return numbers;
}

template <class Functions, class Number>
Number by_hand(const std::vector<Number>& numbers) {
  Number sum = 0;
  for (const Number number : numbers) {
    const Number mapped = Functions::first(number);
    if (Functions::keep(mapped)) {
      sum += Functions::second(mapped);
    }
  }
  return sum;
}

template <class Functions, class Number>
Number by_chain(const Batch<Number>& batch) {
  return batch.map([](Number x) { return Functions::first(x); })
      .filter([](Number x) { return Functions::keep(x); })
      .map([](Number x) { return Functions::second(x); })
      .reduce(std::plus<>{});
}

template <class Functions>
void chain(benchmark::State& state) {
  using Number = typename Functions::Number;
  const auto records = static_cast<std::size_t>(smoke() ? 10'000 : state.range(0));
  // Small batches are run so often that a round takes milliseconds.
  const std::size_t repeats = smoke() ? 1 : std::max<std::size_t>(1, (std::size_t{1} << 23U) / records);
  const auto input = random_numbers<Number>(records);
  const Context context{{.app_name = "fusion", .parallelism = 1}};
  const Batch<Number> batch = context.parallelize(input);
  const Batch<Number> half = context.parallelize(random_numbers<Number>(records / 2));

  const auto repeated = [repeats](auto once) {
    return [repeats, once] {
      Number sum = 0;
      for (std::size_t i = 0; i < repeats; ++i) {
        sum += once();
        benchmark::DoNotOptimize(sum);
      }
      return sum;
    };
  };
  Race<Number> race(state, {.records = static_cast<std::int64_t>(records * repeats)});
  race.ours(repeated([&] { return by_chain<Functions>(batch); }));
  race.limit("hand", repeated([&] { return by_hand<Functions>(input); }));
  race.go();

  const auto allocations = [](const Batch<Number>& counted) {
    return static_cast<double>(allocations_of([&] { benchmark::DoNotOptimize(by_chain<Functions>(counted)); }));
  };
  state.counters["allocations_per_record"] =
      (allocations(batch) - allocations(half)) / static_cast<double>(records - records / 2);
  state.counters["allocations_per_action"] = allocations(half);
}

void cheap(benchmark::State& state) { chain<Cheap>(state); }
void mixing(benchmark::State& state) { chain<Mixing>(state); }
BENCHMARK(cheap)->Arg(1 << 16)->Arg(1 << 24)->Apply(as_short_race);
BENCHMARK(mixing)->Arg(1 << 16)->Arg(1 << 24)->Apply(as_short_race);

}  // namespace
}  // namespace tidemill::bench
