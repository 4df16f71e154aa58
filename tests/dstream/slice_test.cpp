// slice and remember: batches of the past. SEMANTICS M22, C4, T6.
#include "dstream/streams.hpp"

namespace tidemill {
namespace {

using namespace testing_streams;

template <class T>
std::vector<std::vector<owned_t<T>>> records(const std::vector<Batch<T>>& batches) {
  std::vector<std::vector<owned_t<T>>> all;
  for (const auto& batch : batches) all.push_back(batch.collect());
  return all;
}

// Five batches {1} … {5}, at 1001 … 1005 s, remembered.
struct Sliced {
  Sliced() {
    test.streaming().remember(1h);
    stream = test.input().map([](int i) { return 10 * i; });
    seen = test.collect(*stream);
    for (int i = 1; i <= 5; ++i) test.step({i});
  }
  StreamTest<int> test;
  std::optional<DStream<int>> stream;
  std::shared_ptr<std::vector<std::vector<int>>> seen;
};

TEST(Slice, IncludesBothEnds) {  // M22, T6
  Sliced s;
  EXPECT_EQ(records(s.stream->slice(batch_time(1), batch_time(3))), (std::vector<std::vector<int>>{{20}, {30}, {40}}));
  EXPECT_EQ(records(s.stream->slice(Interval{batch_time(2), batch_time(2)})), (std::vector<std::vector<int>>{{30}}));
}

TEST(Slice, RoundsItsEndsDownToTheSlide) {  // M22
  Sliced s;
  EXPECT_EQ(records(s.stream->slice(batch_time(1) + 999ms, batch_time(2) + 1us)),
            (std::vector<std::vector<int>>{{20}, {30}}));
}

TEST(Slice, WarnsOfAnEndThatIsNotOnTheSlide) {  // M22
  std::vector<std::string> warnings;
  const auto clock = std::make_shared<ManualClock>();
  Context context{{.app_name = "test",
                   .parallelism = 1,
                   .executor = nullptr,
                   .clock = clock,
                   .log = [&](LogLevel level, std::string_view line) {
                     if (level == LogLevel::warning) warnings.emplace_back(line);
                   }}};
  StreamingContext ssc{context, 1s};
  const auto stream = ssc.constant_stream(context.parallelize(std::vector{1}));
  stream.foreach_batch([](const auto&) {});
  ssc.remember(1h);
  ssc.start(Drive::by_host);
  for (int i = 0; i < 3; ++i) {
    clock->advance(1s);
    ssc.step();
  }
  EXPECT_EQ(stream.slice(batch_time(0), batch_time(2)).size(), 3u);
  EXPECT_EQ(stream.slice(Time::min(), Time::max()).size(), 3u);
  EXPECT_THAT(warnings, ElementsAre());
  EXPECT_EQ(stream.slice(batch_time(0) + 400ms, batch_time(2)).size(), 3u);
  EXPECT_THAT(warnings, ElementsAre(HasSubstr("is not on the slide of the stream, 1 s; rounded down to " +
                                              to_string(batch_time(0)))));
}

TEST(Slice, LeavesOutTimesBeforeTheStartAndTimesThatHaveNotCome) {  // M22
  Sliced s;
  EXPECT_EQ(s.stream->slice(Time::min(), batch_time(0)).size(), 1u);
  EXPECT_EQ(s.stream->slice(Time{}, Time::max()).size(), 5u);
  EXPECT_TRUE(s.stream->slice(batch_time(5), batch_time(9)).empty());
  EXPECT_TRUE(s.stream->slice(batch_time(3), batch_time(1)).empty());
}

TEST(Slice, OfTheFutureDoesNotTakeTheRecordsOfTheNextBatch) {  // M22
  Sliced s;
  (void)s.stream->slice(batch_time(0), batch_time(20));
  s.test.step({6});
  EXPECT_EQ(s.seen->back(), std::vector{60});
}

TEST(Slice, ComputesStreamsThatNoOutputUses) {  // M22: computes missing ones
  StreamTest<int> test;
  test.streaming().remember(1h);
  const auto [other, queue] = test.add_input<int>();
  const DStream<int> unused = other.map([](int i) { return -i; });
  const auto seen = test.collect(test.input());
  for (int i = 1; i <= 3; ++i) {
    queue->push(std::vector{i});
    test.step();
  }
  EXPECT_EQ(records(unused.slice(batch_time(0), batch_time(2))), (std::vector<std::vector<int>>{{-1}, {-2}, {-3}}));
}

TEST(Slice, OfWhatIsForgottenIsEmptyAndTakesNothingFromOthers) {  // M22, V4
  StreamTest<int> test;
  const auto [other, queue] = test.add_input<int>();
  const DStream<int> unused = other;
  const auto seen = test.collect(test.input());
  for (int i = 1; i <= 5; ++i) {
    queue->push(std::vector{i});
    test.step();
  }
  EXPECT_EQ(records(unused.slice(batch_time(0), batch_time(0))), (std::vector<std::vector<int>>{{}}));
  EXPECT_EQ(records(unused.slice(batch_time(4), batch_time(4))), (std::vector<std::vector<int>>{{5}}))
      << "the last batch is always there";
}

TEST(Slice, MayBeTakenWithinATransform) {
  StreamTest<int> test;
  test.streaming().remember(10s);
  const DStream<int> input = test.input();
  const auto last_three = test.collect(input.transform([&](const Batch<int>& batch, Time t) {
    Batch<int> all = batch;
    for (const auto& earlier : input.slice(t - 2s, t - 1s)) all = all.union_with(earlier);
    return all;
  }));
  for (int i = 1; i <= 4; ++i) test.step({i});
  EXPECT_EQ(*last_three, (std::vector<std::vector<int>>{{1}, {2, 1}, {3, 1, 2}, {4, 2, 3}}));
}

TEST(Slice, IsRefusedBeforeTheStart) {  // M22
  StreamTest<int> test;
  try {
    (void)test.input().slice(batch_time(0), batch_time(1));
    ADD_FAILURE();
  } catch (const PlanError& error) {
    EXPECT_EQ(error.code(), "illegal_state");
  }
}

TEST(Remember, BoundsWhatIsKept) {  // C4, V4
  StreamTest<std::shared_ptr<int>> test;
  test.streaming().remember(3s);
  const auto counts = test.collect(test.input().count());
  std::vector<std::weak_ptr<int>> records;
  for (int i = 0; i < 6; ++i) {
    auto record = std::make_shared<int>(i);
    records.push_back(record);
    test.step({std::move(record)});
  }
  std::vector<bool> alive;
  for (const auto& record : records) alive.push_back(!record.expired());
  EXPECT_THAT(alive, ElementsAre(false, false, false, true, true, true));
}

}  // namespace
}  // namespace tidemill
