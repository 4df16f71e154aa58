// Where records lie, and how long: repartition, coalesce, persist, named, and allocations of fused chains.
#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "batch/batches.hpp"

namespace tidemill {
namespace {

using namespace testing_batches;

TEST(Repartition, FillsExactlyThatManyPartitionsEvenly) {
  for (const std::size_t in : partition_counts) {
    for (const std::size_t out : partition_counts) {
      const auto batch = four_threads().parallelize(numbers(many), in).repartition(out);
      EXPECT_EQ(batch.num_partitions(), out);
      EXPECT_EQ(sorted(batch.collect()), numbers(many));
      for (const auto& part : batch.glom().collect())
        EXPECT_NEAR(static_cast<double>(part.size()), many / static_cast<double>(out), 8.0);
    }
  }
  EXPECT_EQ(four_threads().empty_batch<int>().repartition(3).num_partitions(), 3u);
  EXPECT_THROW((void)four_threads().empty_batch<int>().repartition(0), ConfigError);
}

TEST(Repartition, SpreadsManyShortPartitions) {
  const auto batch = four_threads().parallelize(numbers(8), 8).repartition(4);
  for (const auto& part : batch.glom().collect()) EXPECT_EQ(part.size(), 2u);
}

TEST(Repartition, CarriesViewsOfTemporariesAndRecordsThatOnlyMove) {
  const auto views = four_threads()
                         .parallelize(numbers(10), 2)
                         .map([](int i) { return "text that needs memory of its own " + std::to_string(i); })
                         .map([](const std::string& s) { return std::string_view{s}; });
  for (const auto& text : views.repartition(3).collect()) EXPECT_TRUE(text.starts_with("text that needs"));
  const auto boxes = four_threads().parallelize(numbers(10), 2).map([](int x) { return std::make_unique<int>(x); });
  EXPECT_EQ(sorted(boxes.repartition(3).map([](const auto& box) { return *box; }).collect()), numbers(10));
}

TEST(Coalesce, PutsNeighboursTogetherAndKeepsTheOrder) {
  const auto batch = four_threads().parallelize(numbers(many), 8);
  for (const std::size_t n : partition_counts) {
    EXPECT_EQ(batch.coalesce(n).num_partitions(), n);
    EXPECT_EQ(batch.coalesce(n).collect(), numbers(many));
  }
  EXPECT_EQ(batch.coalesce(20).num_partitions(), 8u);
  EXPECT_EQ(batch.coalesce(1).take(3), numbers(3));
  EXPECT_THROW((void)batch.coalesce(0), ConfigError);
  expect_user_error([&] { (void)batch.map(BoomAt{9999}).coalesce(2).count(); }, "map", 1);
}

TEST(Persist, ComputesOnceUntilUnpersist) {
  const auto calls = std::make_shared<std::atomic<int>>(0);
  const auto batch = four_threads().parallelize(numbers(100), 4).map([calls](int x) {
    ++*calls;
    return x;
  });
  (void)batch.count();
  (void)batch.count();
  EXPECT_EQ(*calls, 200) << "a lazy batch is computed each time";
  const auto kept = batch.persist();
  EXPECT_EQ(*calls, 200) << "persist alone computes nothing";
  EXPECT_EQ(kept.collect(), numbers(100));
  EXPECT_EQ(kept.collect(), numbers(100));
  EXPECT_EQ(*calls, 300);
  kept.unpersist();
  EXPECT_EQ(kept.collect(), numbers(100));
  EXPECT_EQ(kept.collect(), numbers(100));
  EXPECT_EQ(*calls, 500) << "computed each time again";
  kept.unpersist();
  batch.named("x").unpersist();
}

struct Counted {
  static inline std::atomic<int> alive = 0;
  Counted() { ++alive; }
  Counted(const Counted&) { ++alive; }
  Counted& operator=(const Counted&) = default;
  ~Counted() { --alive; }
};

TEST(Persist, FreesTheRecordsOnUnpersist) {
  const auto kept = four_threads().parallelize(numbers(100), 4).map([](int) { return Counted{}; }).persist();
  EXPECT_EQ(kept.count(), 100u);
  EXPECT_EQ(Counted::alive, 100);
  kept.unpersist();
  EXPECT_EQ(Counted::alive, 0);
}

TEST(Persist, KeepsWhatViewsLookAtForThoseWhoStillLook) {
  const auto kept = four_threads()
                        .parallelize(numbers(50), 2)
                        .map([](int i) { return "text that needs memory of its own " + std::to_string(i); })
                        .map([](const std::string& s) { return std::string_view{s}; })
                        .persist();
  const auto counts = kept.map([](std::string_view s) { return std::pair{s, s}; }).group_by_key();
  EXPECT_EQ(counts.count(), 50u);
  kept.unpersist();
  EXPECT_EQ(kept.collect().back(), "text that needs memory of its own 49");
  for (const auto& [key, group] : counts.collect()) EXPECT_EQ(group, std::vector{key});
}

TEST(Persist, MayBeUndoneWhileActionsRun) {
  const auto kept = four_threads().parallelize(numbers(many), 8).map([](int x) { return std::to_string(x); }).persist();
  std::atomic<bool> stop = false;
  std::thread undo{[&] {
    while (!stop) kept.unpersist();
  }};
  for (int i = 0; i < 20; ++i) EXPECT_EQ(kept.count(), many);
  stop = true;
  undo.join();
}

TEST(Persist, CanBeTriedAgainAfterAFailure) {
  bool fail = true;
  const auto kept =
      four_threads().parallelize(numbers(10), 2).map([&fail](int x) { return BoomAt{fail ? 3 : -1}(x); }).cache();
  expect_user_error([&] { (void)kept.count(); }, "map", 0);
  fail = false;
  EXPECT_EQ(kept.count(), 10u);
}

TEST(Named, CarriesANameAndChangesNothingElse) {
  const auto batch = four_threads().parallelize(random_pairs(10, 3, 1), 2).partition_by(3);
  const auto named = batch.named("orders");
  EXPECT_EQ(named.name(), "orders");
  EXPECT_EQ(batch.name(), "");
  EXPECT_EQ(named.collect(), batch.collect());
  EXPECT_EQ(named.partitioner(), batch.partitioner());
}

TEST(Batch, OutlivesTheContextAndTheBatchesItWasMadeFrom) {
  const auto batch = [] {
    return four_threads()
        .parallelize(numbers(many), 8)
        .map([](int i) { return "text that needs memory of its own " + std::to_string(i % 100); })
        .map([](const std::string& s) {
          return std::pair{std::string_view{s}, 1};
        })
        .reduce_by_key(std::plus<>{});
  }();
  EXPECT_EQ(batch.count(), 100u);
}

}  // namespace
}  // namespace tidemill
