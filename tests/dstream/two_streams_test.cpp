// Operators that look at several streams. SEMANTICS M8, M10, P3, P9, C14, C15.
#include "dstream/streams.hpp"

namespace tidemill::two_streams_test {
namespace {

using namespace testing_streams;
using Pair = std::pair<int, std::string>;

// Two inputs; `other` gets its batch by push before the step.
struct TwoInputs {
  explicit TwoInputs(std::size_t parallelism = 1) : test{1s, parallelism}, both{test.add_input<Pair>()} {}
  StreamTest<Pair> test;
  std::pair<DStream<Pair>, std::shared_ptr<BatchQueue<Pair>>> both;
  [[nodiscard]] DStream<Pair> left() const { return test.input(); }
  [[nodiscard]] DStream<Pair> right() const { return both.first; }
  void step(std::vector<Pair> l, std::vector<Pair> r) {
    both.second->push(std::move(r));
    test.step(std::move(l));
  }
};

template <class F>
void with_threads(F f) {
  for (const std::size_t parallelism : {1u, 4u}) {
    SCOPED_TRACE(parallelism);
    TwoInputs two{parallelism};
    f(two);
  }
}

TEST(Union, HasTheRecordsOfBothBatchByBatch) {  // M8
  with_threads([](TwoInputs& two) {
    const auto all = two.test.collect(two.left().union_with(two.right()));
    const auto of_chain = two.test.collect(
        two.left().filter([](const Pair& p) { return p.first > 1; }).union_with(two.right().map([](const Pair& p) {
          return Pair{-p.first, p.second};
        })));
    two.step({{1, "a"}, {2, "b"}}, {{3, "c"}});
    two.step({}, {});
    EXPECT_EQ(*all, (std::vector<std::vector<Pair>>{{{1, "a"}, {2, "b"}, {3, "c"}}, {}}));
    EXPECT_EQ(*of_chain, (std::vector<std::vector<Pair>>{{{2, "b"}, {-3, "c"}}, {}}));
  });
}

TEST(UnionStreams, HasTheRecordsOfAll) {  // C14
  TwoInputs two;
  auto& ssc = two.test.streaming();
  const auto all = two.test.collect(ssc.union_streams<Pair>({two.left(), two.right(), two.left()}));
  const auto one = two.test.collect(ssc.union_streams<Pair>({two.right()}));
  two.step({{1, "a"}}, {{2, "b"}});
  EXPECT_EQ(*all, (std::vector<std::vector<Pair>>{{{1, "a"}, {2, "b"}, {1, "a"}}}));
  EXPECT_EQ(*one, (std::vector<std::vector<Pair>>{{{2, "b"}}}));
  EXPECT_THROW((void)StreamTest<Pair>{}.streaming().union_streams<Pair>({}), PlanError);
}

TEST(Joins, MatchTheTwoBatchesOfTheSameTime) {  // P3
  with_threads([](TwoInputs& two) {
    const auto inner = two.test.collect(two.left().join(two.right()));
    const auto left = two.test.collect(two.left().left_outer_join(two.right()));
    const auto right = two.test.collect(two.left().right_outer_join(two.right()));
    const auto full = two.test.collect(two.left().full_outer_join(two.right()));
    const auto groups = two.test.collect(two.left().cogroup(two.right()));
    two.step({{1, "a"}, {1, "b"}, {2, "c"}}, {{1, "x"}, {3, "y"}});
    two.step({{3, "late"}}, {});
    two.step({}, {});

    using ::testing::IsEmpty;
    using ::testing::Pair;
    using ::testing::UnorderedElementsAre;
    const std::optional<std::string> none;
    EXPECT_THAT(*inner, ElementsAre(UnorderedElementsAre(Pair(1, Pair("a", "x")), Pair(1, Pair("b", "x"))), IsEmpty(),
                                    IsEmpty()))
        << "3 was on both sides, but not at the same time";
    EXPECT_THAT(*left, ElementsAre(UnorderedElementsAre(Pair(1, Pair("a", "x")), Pair(1, Pair("b", "x")),
                                                        Pair(2, Pair("c", none))),
                                   UnorderedElementsAre(Pair(3, Pair("late", none))), IsEmpty()));
    EXPECT_THAT(*right, ElementsAre(UnorderedElementsAre(Pair(1, Pair("a", "x")), Pair(1, Pair("b", "x")),
                                                         Pair(3, Pair(none, "y"))),
                                    IsEmpty(), IsEmpty()));
    EXPECT_THAT(*full, ElementsAre(UnorderedElementsAre(Pair(1, Pair("a", "x")), Pair(1, Pair("b", "x")),
                                                        Pair(2, Pair("c", none)), Pair(3, Pair(none, "y"))),
                                   UnorderedElementsAre(Pair(3, Pair("late", none))), IsEmpty()));
    EXPECT_EQ((*groups)[0].size(), 3u);
    EXPECT_THAT((*groups)[1], ElementsAre(Pair(3, ::testing::FieldsAre(ElementsAre("late"), IsEmpty()))));
    EXPECT_THAT((*groups)[2], IsEmpty());
  });
}

TEST(Joins, TakeAChainAsIs) {  // P3, M10, C15
  TwoInputs two;
  const auto left = two.left().filter([](const Pair& p) { return p.first != 9; });
  const auto right = two.right().map([](const Pair& p) { return Pair{p.first, p.second + "!"}; });
  const auto inner = two.test.collect(left.join(right));
  const auto outer = two.test.collect(left.left_outer_join(right));
  const auto from_right = two.test.collect(left.right_outer_join(right));
  const auto full = two.test.collect(left.full_outer_join(right));
  const auto groups = two.test.collect(left.cogroup(right));
  const auto with = two.test.collect(
      left.transform_with(right, [](const Batch<Pair>& a, const Batch<Pair>& b) { return a.union_with(b); }));
  const auto all = two.test.collect(two.test.streaming().transform_streams(
      [](const Batch<Pair>& a, const Batch<Pair>& b) { return b.union_with(a); }, left, right));
  two.step({{1, "a"}, {9, "b"}}, {{1, "x"}, {2, "y"}});

  using ::testing::Pair;
  using ::testing::UnorderedElementsAre;
  const std::optional<std::string> none;
  EXPECT_THAT((*inner)[0], ElementsAre(Pair(1, Pair("a", "x!"))));
  EXPECT_THAT((*outer)[0], ElementsAre(Pair(1, Pair("a", "x!"))));
  EXPECT_THAT((*from_right)[0], UnorderedElementsAre(Pair(1, Pair("a", "x!")), Pair(2, Pair(none, "y!"))));
  EXPECT_THAT((*full)[0], UnorderedElementsAre(Pair(1, Pair("a", "x!")), Pair(2, Pair(none, "y!"))));
  EXPECT_EQ((*groups)[0].size(), 2u);
  EXPECT_THAT((*with)[0], ElementsAre(Pair(1, "a"), Pair(1, "x!"), Pair(2, "y!")));
  EXPECT_THAT((*all)[0], ElementsAre(Pair(1, "x!"), Pair(2, "y!"), Pair(1, "a")));
}

TEST(Joins, TakeANumberOfPartitionsOrAPartitioner) {  // P3
  TwoInputs two;
  std::vector<std::size_t> partitions;
  const auto look = [&](const auto& batch) { partitions.push_back(batch.num_partitions()); };
  two.left().join(two.right(), 5).foreach_batch(look);
  two.left().cogroup(two.right(), partition_by_function<int>(2, [](int key) { return key % 2; })).foreach_batch(look);
  two.step({{1, "a"}}, {{1, "b"}});
  EXPECT_EQ(partitions, (std::vector<std::size_t>{5, 2}));
}

TEST(Joins, WithAStaticBatchGoThroughTransform) {  // P9
  StreamTest<Pair> test;
  const auto shops = test.context().parallelize(std::vector<Pair>{{1, "bakery"}, {2, "butcher"}}).cache();
  const auto joined = test.input().transform([shops](const Batch<Pair>& batch) { return batch.join(shops); });
  using Joined = std::pair<int, std::pair<std::string, std::string>>;
  test.run(joined, {{{1, "bread"}, {9, "?"}}, {}}).expect_batches({{Joined{1, {"bread", "bakery"}}}, {}});
}

TEST(TransformWith, SeesBothBatchesAndTheTime) {  // M10
  TwoInputs two;
  std::vector<Time> times;
  const auto subtracted =
      two.test.collect(two.left().transform_with(two.right(), [&](const Batch<Pair>& a, const Batch<Pair>& b, Time t) {
        times.push_back(t);
        return a.subtract(b);
      }));
  const auto without_time = two.test.collect(two.left().transform_with(
      two.right(), [](const Batch<Pair>& a, const Batch<Pair>& b) { return b.union_with(a); }));
  two.step({{1, "a"}, {2, "b"}}, {{2, "b"}});
  EXPECT_EQ(*subtracted, (std::vector<std::vector<Pair>>{{{1, "a"}}}));
  EXPECT_EQ((*without_time)[0].size(), 3u);
  EXPECT_THAT(times, ElementsAre(batch_time(0)));
}

TEST(Transform, OfManyStreamsSeesTheBatchesOfOneTime) {  // C15
  TwoInputs two;
  auto& ssc = two.test.streaming();
  std::vector<Time> times;
  const auto sizes = two.test.collect(
      ssc.transform(std::vector{two.left(), two.right()}, [&](const std::vector<Batch<Pair>>& batches, Time t) {
        times.push_back(t);
        return batches[1].union_with(batches[0]);
      }));
  const auto of_types = two.test.collect(ssc.transform_streams(
      [](const Batch<std::size_t>& count, const Batch<Pair>& pairs) { return count.cartesian(pairs); },
      two.left().count(), two.right()));
  two.step({{1, "a"}, {2, "b"}}, {{3, "c"}});
  EXPECT_EQ((*sizes)[0], (std::vector<Pair>{{3, "c"}, {1, "a"}, {2, "b"}}));
  EXPECT_THAT((*of_types)[0], ElementsAre(::testing::Pair(2u, Pair{3, "c"})));
  EXPECT_THAT(times, ElementsAre(batch_time(0)));
  EXPECT_THROW((void)StreamTest<Pair>{}.streaming().transform(std::vector<DStream<Pair>>{},
                                                              [](const auto& batches, Time) { return batches[0]; }),
               PlanError);
}

TEST(SeveralContexts, DoNotMix) {  // M8, M10, P3, C14, C15
  StreamTest<Pair> here;
  StreamTest<Pair> there;
  const auto refused = [](const std::function<void()>& action) {
    try {
      action();
      ADD_FAILURE() << "nothing was thrown";
    } catch (const PlanError& error) {
      EXPECT_EQ(error.code(), "different_contexts");
    }
  };
  const auto a = here.input();
  const auto b = there.input();
  auto& ssc = here.streaming();
  refused([&] { (void)a.union_with(b); });
  refused([&] { (void)a.join(b); });
  refused([&] { (void)a.left_outer_join(b); });
  refused([&] { (void)a.right_outer_join(b); });
  refused([&] { (void)a.full_outer_join(b); });
  refused([&] { (void)a.cogroup(b); });
  refused([&] { (void)a.transform_with(b, [](const Batch<Pair>& x, const Batch<Pair>&) { return x; }); });
  refused([&] { (void)ssc.union_streams<Pair>({a, b}); });
  refused([&] { (void)ssc.union_streams<Pair>({b}); });
  refused([&] { (void)ssc.transform(std::vector{b}, [](const auto& batches, Time) { return batches[0]; }); });
  refused([&] { (void)ssc.transform_streams([](const Batch<Pair>& x, const Batch<Pair>&) { return x; }, a, b); });
  refused([&] { (void)ssc.transform_streams([](const Batch<Pair>& x) { return x; }, b); });
}

TEST(SeveralSlides, DoNotMix) {  // M8, M10, P3, C14, C15
  TwoInputs two;
  const auto a = two.left();
  const auto slow = two.right().window(2s, 2s);
  auto& ssc = two.test.streaming();
  const auto refused = [](const std::function<void()>& action) {
    try {
      action();
      ADD_FAILURE() << "nothing was thrown";
    } catch (const PlanError& error) {
      EXPECT_EQ(error.code(), "different_slides");
      EXPECT_THAT(error.what(), HasSubstr("1 s and 2 s"));
    }
  };
  refused([&] { (void)a.union_with(slow); });
  refused([&] { (void)a.join(slow); });
  refused([&] { (void)a.left_outer_join(slow); });
  refused([&] { (void)a.right_outer_join(slow); });
  refused([&] { (void)a.full_outer_join(slow); });
  refused([&] { (void)a.cogroup(slow); });
  refused([&] { (void)a.transform_with(slow, [](const Batch<Pair>& x, const Batch<Pair>&) { return x; }); });
  refused([&] { (void)ssc.union_streams<Pair>({a, slow}); });
  refused([&] { (void)ssc.transform(std::vector{a, slow}, [](const auto& batches, Time) { return batches[0]; }); });
  refused([&] { (void)ssc.transform_streams([](const Batch<Pair>& x, const Batch<Pair>&) { return x; }, a, slow); });
}

TEST(SeveralSlides, GiveTheSlowStreamAJobEveryOtherBatch) {  // B2
  StreamTest<int> test;
  const auto batches = test.collect(test.input().window(2s, 2s));
  for (int i = 0; i < 4; ++i) test.step({i});
  EXPECT_EQ(*batches, (std::vector<std::vector<int>>{{0, 1}, {2, 3}}));
}

}  // namespace
}  // namespace tidemill::two_streams_test
