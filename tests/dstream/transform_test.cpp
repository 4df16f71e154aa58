// transform, foreach_batch and cache: when functions are called, and how often. SEMANTICS M9, M11, M20, L1.
#include "dstream/streams.hpp"

namespace tidemill {
namespace {

using namespace testing_streams;

TEST(Transform, IsCalledOnceABatchWhenTheBatchIsGenerated) {  // M9
  StreamTest<int> test;
  std::vector<std::string> calls;
  const auto stream = test.input().transform([&](const Batch<int>& batch, Time t) {
    calls.push_back("transform " + std::to_string(millis(t) / 1000));
    return batch.map([](int i) { return -i; });
  });
  for (const char* name : {"a", "b"}) {
    stream.foreach_batch([&calls, name](const auto& batch) {
      calls.push_back(name);
      EXPECT_EQ(batch.collect(), batch.collect());
    });
  }
  test.step({1});
  test.step({});
  EXPECT_THAT(calls, ElementsAre("transform 1001", "a", "b", "transform 1002", "a", "b"));
}

TEST(Transform, MayReadDataThatChanges) {  // M9
  StreamTest<std::string> test;
  std::string banned = "spam";
  const auto clean = test.collect(test.input().transform([&](const Batch<std::string>& batch) {
    return batch.filter([banned](const std::string& s) { return s != banned; });
  }));
  test.step({"spam", "ham"});
  banned = "ham";
  test.step({"spam", "ham"});
  EXPECT_EQ(*clean, (std::vector<std::vector<std::string>>{{"ham"}, {"spam"}}));
}

TEST(Transform, TakesTheWholeOfAChainAndMayChangeTheType) {  // M9
  for_each_parallelism([](StreamTest<int>& test) {
    const auto sorted =
        test.input().map([](int i) { return std::to_string(i); }).transform([](const Batch<std::string>& b) {
          return b.sort_by([](const std::string& s) { return s; }, Order::descending).map([](const std::string& s) {
            return s.size();
          });
        });
    test.run(sorted, {{1, 100, 20}, {}}).expect_batches_in_order({{2, 3, 1}, {}});
  });
}

TEST(ForeachBatch, RunsForEmptyBatchesTooWithTheTime) {  // M11
  StreamTest<int> test;
  std::vector<std::pair<std::size_t, Time>> seen;
  test.input().foreach_batch([&](const Batch<int>& batch, Time t) { seen.emplace_back(batch.count(), t); });
  test.step({1, 2});
  test.step();
  EXPECT_THAT(seen, ElementsAre(std::pair{2u, batch_time(0)}, std::pair{0u, batch_time(1)}));
}

TEST(ForeachBatch, MayChangeWhatItCapturedAndNeedNotBeCopyable) {
  StreamTest<int> test;
  auto total = std::make_unique<int>(0);
  int* const view = total.get();
  test.input().foreach_batch([total = std::move(total), calls = 0](const auto& batch) mutable {
    ++calls;
    *total += batch.fold(0, std::plus<>{}) + 100 * calls;
  });
  test.step({1, 2});
  test.step({3});
  EXPECT_EQ(*view, 6 + 300);
}

TEST(Cache, ComputesEachBatchOnce) {  // M20
  for (const bool cached : {false, true}) {
    StreamTest<int> test;
    int computed = 0;
    DStream<int> stream = test.input().map([&](int i) {
      ++computed;
      return i;
    });
    if (cached) stream = stream.cache();
    const auto a = test.collect(stream);
    const auto b = test.collect(stream.map([](int i) { return 2 * i; }));
    test.step({1, 2, 3});
    EXPECT_EQ(computed, cached ? 3 : 6);
    EXPECT_EQ(*b, (std::vector<std::vector<int>>{{2, 4, 6}}));
    test.step({4});
    EXPECT_EQ(computed, cached ? 4 : 8);
  }
}

TEST(Cache, OfViewsKeepsTheirText) {  // M20
  StreamTest<std::string> test;
  const auto views = test.input()
                         .map([](const std::string& s) { return s + ": a text that does not fit inline"; })
                         .map([](const std::string& s) { return std::string_view{s}; });
  const DStream<std::string_view> kept = views.persist();
  const auto a = test.collect(kept);
  const auto b = test.collect(kept);
  test.step({"x"});
  EXPECT_EQ(*a, *b);
  EXPECT_EQ((*a)[0], (std::vector<std::string>{"x: a text that does not fit inline"}));
}

TEST(Cache, IsRefusedAfterTheStart) {  // M20
  StreamTest<int> test;
  const auto stream = test.input();
  const auto seen = test.collect(stream);
  test.step();
  EXPECT_THROW((void)stream.cache(), PlanError);
  EXPECT_THROW((void)stream.persist(), PlanError);
}

}  // namespace
}  // namespace tidemill
