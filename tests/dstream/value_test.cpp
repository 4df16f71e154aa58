// DStream<T> as a value, and the records it can carry.
#include "dstream/streams.hpp"
#include "tidemill/batch/split.hpp"

namespace tidemill {
namespace {

using namespace testing_streams;

struct Pipeline {
  DStream<std::string_view> words;
  DStream<std::pair<std::string, long>> counts;
};

Pipeline word_count(const DStream<std::string>& lines) {
  const DStream<std::string_view> words = lines.flat_map(split(' '));
  return {words, words.map([](std::string_view w) {
                        return std::pair{std::string{w}, 1L};
                      })
                     .reduce_by_key(std::plus<>{})};
}

TEST(DStreamValue, IsStoredInStructsPassedAndReturned) {
  for_each_parallelism([](StreamTest<std::string>& test) {
    Pipeline pipeline = word_count(test.input());
    Pipeline copy = pipeline;
    pipeline = std::move(copy);
    const auto words = test.collect(pipeline.words);
    test.run(pipeline.counts, {{"a b", "a"}, {}, {"c"}}).expect_batches({{{"a", 2}, {"b", 1}}, {}, {{"c", 1}}});
    EXPECT_EQ((*words)[0].size(), 3u);
  });
}

TEST(DStreamValue, CopiesAreTheSameStream) {
  StreamTest<int> test;
  int calls = 0;
  const DStream<int> stream = test.input().transform([&](const Batch<int>& batch) {
    ++calls;
    return batch;
  });
  const DStream<int> copy = stream;  // NOLINT(performance-unnecessary-copy-initialization)
  const auto a = test.collect(stream);
  const auto b = test.collect(copy);
  test.step({1});
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(*a, *b);
}

TEST(DStreamValue, IsReassignedInALoop) {
  StreamTest<int> test;
  DStream<int> stream = test.input();
  for (int i = 0; i < 10; ++i) stream = stream.map([](int x) { return x + 1; });
  test.run(stream, {{0}, {}, {5}}).expect_batches({{10}, {}, {15}});
}

TEST(DStreamValue, KnowsItsSlideAndItsContext) {  // M23
  StreamTest<int> test{250ms};
  EXPECT_EQ(test.input().slide_duration(), 250ms);
  EXPECT_EQ(test.input().map([](int i) { return i; }).slide_duration(), 250ms);
  EXPECT_EQ(test.input().context().app_name(), "test");
}

TEST(DStreamValue, OfViewsOfTemporariesKeepsThemWhereRecordsWait) {
  for_each_parallelism([](StreamTest<int>& test) {
    const DStream<std::string_view> views =
        test.input()
            .map([](int i) { return "a text that does not fit inline: " + std::to_string(i % 3); })
            .map([](const std::string& s) { return std::string_view{s}; });
    const DStream<std::string_view> stored = views.filter([](std::string_view s) { return !s.ends_with('2'); });
    const auto counts = test.collect(stored.count_by_value());
    const auto moved = test.collect(stored.repartition(2));
    const auto longest =
        test.collect(stored.reduce([](std::string_view a, std::string_view b) { return std::max(a, b); }));
    const auto doubled = test.collect(stored.union_with(views).count());
    test.step({0, 1, 2, 3, 4, 5});
    EXPECT_THAT((*counts)[0],
                ::testing::UnorderedElementsAre(::testing::Pair("a text that does not fit inline: 0", 2u),
                                                ::testing::Pair("a text that does not fit inline: 1", 2u)));
    EXPECT_EQ((*moved)[0].size(), 4u);
    EXPECT_THAT((*longest)[0], ElementsAre("a text that does not fit inline: 1"));
    EXPECT_THAT((*doubled)[0], ElementsAre(10u));
  });
}

struct Ticket {
  explicit Ticket(int n) : number{std::make_unique<int>(n)} {}
  std::unique_ptr<int> number;
};

TEST(DStreamValue, CarriesRecordsThatCanOnlyBeMoved) {
  StreamTest<Ticket> test;
  const auto numbers =
      test.collect(test.input().filter([](const Ticket& t) { return *t.number > 1; }).map([](const Ticket& t) {
        return *t.number;
      }));
  const auto sums = test.collect(test.input()
                                     .map([](const Ticket& t) { return Ticket{*t.number + 1}; })
                                     .map([](Ticket t) { return *t.number; })
                                     .reduce(std::plus<>{}));
  const auto counts = test.collect(test.input().count());
  std::vector<Ticket> tickets;
  for (int i = 1; i <= 3; ++i) tickets.emplace_back(i);
  test.step(std::move(tickets));
  EXPECT_EQ(*numbers, (std::vector<std::vector<int>>{{2, 3}}));
  EXPECT_EQ(*sums, (std::vector<std::vector<int>>{{9}}));
  EXPECT_THAT((*counts)[0], ElementsAre(3u));
}

}  // namespace
}  // namespace tidemill
