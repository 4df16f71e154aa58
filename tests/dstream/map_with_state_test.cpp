// map_with_state: every record meets the state of its key. SEMANTICS X1–X11.
#include <map>
#include <memory>
#include <random>
#include <set>

#include "dstream/streams.hpp"
#include "tidemill/batch/split.hpp"
#include "tidemill/dstream/dstream.hpp"

namespace tidemill::map_with_state_test {
namespace {

using namespace testing_streams;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAreArray;
using Pair = std::pair<std::string, int>;
using Total = std::pair<std::string, long>;

// The running total of a key, after each of its records.
constexpr auto running_total = [](std::string_view key, std::optional<int> value, State<long>& total) -> Total {
  total.update(total.get_option().value_or(0) + value.value_or(0));
  return {std::string{key}, total.get()};
};
// Says the key when it times out, and counts otherwise.
constexpr auto count_until_idle = [](std::string_view key, std::optional<int> value,
                                     State<long>& count) -> std::optional<Total> {
  if (count.is_timing_out()) return Total{std::string{key}, -count.get()};
  count.update(count.get_option().value_or(0) + *value);
  return std::nullopt;
};

TEST(MapWithState, RunsOncePerRecordSoThatTheNextSeesTheUpdateOfTheLast) {  // X1, X3
  for_each_parallelism([](StreamTest<Pair>& test) {
    test.run(test.input().map_with_state(state_spec<long>(running_total)),
             {{{"a", 1}, {"b", 5}, {"a", 2}}, {}, {{"a", 10}, {"a", 20}}})
        .expect_batches({{{"a", 1}, {"b", 5}, {"a", 3}}, {}, {{"a", 13}, {"a", 33}}});
  });
}

TEST(MapWithState, TellsTheTimeOfTheBatchToThoseWhoAsk) {  // X1
  StreamTest<Pair> test;
  const auto times =
      test.input().map_with_state(state_spec<long>([](Time t, std::string_view, std::optional<int>, State<long>& last) {
        const long before = last.get_option().value_or(0);
        last.update(static_cast<long>(millis(t)));
        return before;
      }));
  test.run(times, {{{"a", 1}}, {{"a", 1}, {"b", 1}}}).expect_batches({{0}, {1001000, 0}});
}

TEST(MapWithState, MayReturnOneRecordOrNoneOrNothingAtAll) {  // X1
  StreamTest<Pair> test;
  const auto odd = test.input().map_with_state(state_spec<int>(
      [](std::string_view, std::optional<int> v, State<int>&) { return *v % 2 != 0 ? v : std::nullopt; }));
  const auto nothing = test.input().map_with_state(
      state_spec<int>([](std::string_view, std::optional<int> v, State<int>& s) { s.update(*v); }));
  static_assert(std::is_same_v<decltype(odd)::value_type, int>);
  const auto none = test.collect(nothing);
  test.run(odd, {{{"a", 1}, {"a", 2}, {"b", 3}}}).expect_batches({{1, 3}});
  EXPECT_THAT(none->front(), IsEmpty());
  EXPECT_EQ(nothing.state().get("a"), 2);
}

TEST(MapWithState, TakesTheKeyAsItIsToldAndTheValueByPointer) {
  StreamTest<std::pair<std::string, std::vector<int>>> test;
  const auto sizes = test.input().map_with_state(
      state_spec<std::size_t>([](const std::string& key, const std::vector<int>* values, State<std::size_t>& most) {
        most.update(std::max(most.get_option().value_or(0), values->size()));
        return std::string_view{key};  // a view of something that lives as long as the call
      }));
  const std::string far = "a key that is too long to be held inline";
  test.run(sizes, {{{far, {1, 2}}, {"b", {}}, {far, {3}}}}).expect_batches_in_order({{far, "b", far}});
  EXPECT_EQ(sizes.state().get(far), 2u);
}

TEST(MapWithState, OwnsKeysThatAreViews) {
  for_each_parallelism([](StreamTest<std::string>& test) {
    const auto totals = test.input()
                            .flat_map(words(' '))
                            .map([](std::string_view word) {
                              return std::pair{word, 1};
                            })
                            .map_with_state(state_spec<long>(running_total));
    static_assert(std::is_same_v<decltype(totals.state().snapshot().entries), std::vector<Total>>);
    test.run(totals,
             {{"ebb flow", "ebb and a word-that-is-longer-than-others"}, {"word-that-is-longer-than-others ebb"}})
        .expect_batches(
            {{{"ebb", 1}, {"flow", 1}, {"ebb", 2}, {"and", 1}, {"a", 1}, {"word-that-is-longer-than-others", 1}},
             {{"word-that-is-longer-than-others", 2}, {"ebb", 3}}});
  });
}

TEST(State, ShowsItsChangesWithinTheCall) {  // X2
  StreamTest<Pair> test;
  std::vector<std::string> seen;
  const auto stream = test.input().map_with_state(
      state_spec<std::string>([&seen](std::string_view, std::optional<int>, State<std::string>& s) {
        std::string now = s.exists() ? s.get() : "none";
        s.update(now + '.');
        s.edit() += '!';
        now = s.get();
        if (now.size() > 8) s.remove();
        seen.push_back(now + (s.exists() ? "" : " removed") + (s.get_option() ? "" : " gone"));
      }));
  const auto batches = test.collect(stream);
  test.step({{"a", 1}, {"a", 1}});
  test.step({{"a", 1}, {"a", 1}});
  EXPECT_THAT(seen, ElementsAre("none.!", "none.!.!", "none.!.!.! removed gone", "none.!"));
}

template <class F>
void expect_misuse(const char* code, const char* sentence, F f) {
  SCOPED_TRACE(code);
  StreamTest<Pair> test;
  const auto seen = test.collect(
      test.input().map_with_state(state_spec<int>([f](std::string_view, std::optional<int>, State<int>& s) { f(s); })));
  try {
    test.step({{"the key", 1}});
    ADD_FAILURE() << "nothing was thrown";
  } catch (const UserCodeError& error) {
    EXPECT_EQ(error.context().op, "map_with_state");
    try {
      error.rethrow_nested();
    } catch (const PlanError& cause) {
      EXPECT_EQ(cause.code(), code);
      EXPECT_THAT(cause.what(), HasSubstr("the key"));
      EXPECT_THAT(cause.what(), HasSubstr(sentence));
    }
  }
}

TEST(State, RefusesWhatMakesNoSenseAndNamesTheKey) {  // X2
  expect_misuse("state_absent", "there is none", [](State<int>& s) { static_cast<void>(s.get()); });
  expect_misuse("state_absent", "there is none", [](State<int>& s) { s.edit() = 1; });
  expect_misuse("state_removed", "updated after it was removed", [](State<int>& s) {
    s.update(1);
    s.remove();
    s.update(2);
  });
  expect_misuse("state_removed", "removed twice", [](State<int>& s) {
    s.remove();
    s.remove();
  });
}

TEST(State, CannotBeChangedWhileItTimesOut) {  // X2
  for (const bool remove : {true, false}) {
    StreamTest<Pair> test;
    const auto seen = test.collect(
        test.input().map_with_state(state_spec<int>([remove](std::string_view, std::optional<int>, State<int>& s) {
                                      if (!s.is_timing_out()) return s.update(1);
                                      remove ? s.remove() : s.update(2);
                                    }).timeout(1s)));
    test.step({{"a", 1}});
    test.step();
    try {
      test.step();
      ADD_FAILURE() << "nothing was thrown";
    } catch (const UserCodeError& error) {
      EXPECT_THAT(error.what(), HasSubstr("times out"));
    }
  }
}

TEST(MapWithState, StateSnapshotsShowAllKeysInEveryBatch) {  // X4
  for_each_parallelism([](StreamTest<Pair>& test) {
    const auto totals = test.input().map_with_state(state_spec<long>(running_total));
    test.run(totals.state_snapshots(), {{{"a", 1}, {"b", 2}}, {}, {{"a", 4}, {"c", 1}}})
        .expect_batches({{{"a", 1}, {"b", 2}}, {{"a", 1}, {"b", 2}}, {{"a", 5}, {"b", 2}, {"c", 1}}});
  });
}

TEST(MapWithState, SnapshotsOfEarlierBatchesCanBeReadLater) {
  StreamTest<Pair> test{1s, 3};
  test.streaming().remember(10s);
  const auto snapshots =
      test.input()
          .map_with_state(state_spec<long>([](std::string_view, std::optional<int> v, State<long>& s) {
            if (*v == 0) {
              s.remove();
            } else {
              s.update(*v);
            }
          }))
          .state_snapshots();
  test.input().foreach_batch([](const auto&) {});
  test.step({{"a", 1}, {"b", 2}});
  test.step({{"a", 0}, {"c", 3}});
  test.step({{"d", 4}, {"a", 5}});
  test.step({{"b", 0}, {"a", 0}});
  const std::vector<std::map<std::string, long>> expected{
      {{"a", 1}, {"b", 2}}, {{"b", 2}, {"c", 3}}, {{"a", 5}, {"b", 2}, {"c", 3}, {"d", 4}}, {{"c", 3}, {"d", 4}}};
  const auto batches = snapshots.slice(batch_time(0), batch_time(3));
  ASSERT_EQ(batches.size(), 4u);
  for (const std::size_t i : {2u, 0u, 3u, 1u}) {
    const auto pairs = batches[i].collect();
    EXPECT_EQ((std::map<std::string, long>(pairs.begin(), pairs.end())), expected[i]) << i;
    EXPECT_EQ(pairs.size(), expected[i].size()) << i;
  }
}

// idle 2 s; batches at 1, 2, 3, …
//   a touched at 1, 2               |  times out at 5: 2 < 5 - 2
//   b touched at 1                  |  times out at 4
TEST(MapWithState, TimesOutInTheFirstBatchAfterTheIdleTime) {  // X6; better than X7
  for_each_parallelism([](StreamTest<Pair>& test) {
    const auto stream = test.input().map_with_state(state_spec<long>(count_until_idle).timeout(2s));
    test.run(stream, {{{"a", 1}, {"b", 1}}, {{"a", 1}}, {}, {}, {}, {}, {{"b", 7}}, {}})
        .expect_batches({{}, {}, {}, {{"b", -1}}, {{"a", -2}}, {}, {}, {}});
    EXPECT_EQ(stream.state().size(), 1u);
    EXPECT_EQ(stream.state().get("b"), 7);
  });
}

TEST(MapWithState, ReadingAStateTouchesItWhenThereIsATimeout) {  // X5
  StreamTest<Pair> test;
  const auto stream = test.input().map_with_state(
      state_spec<long>([](std::string_view key, std::optional<int> v, State<long>& s) -> std::optional<std::string> {
        if (s.is_timing_out()) return std::string{key};
        if (!s.exists()) s.update(*v);
        return std::nullopt;
      }).timeout(2s));
  test.run(stream, {{{"a", 1}, {"b", 1}}, {}, {{"a", 1}}, {}, {}, {}}).expect_batches({{}, {}, {}, {"b"}, {}, {"a"}});
}

TEST(MapWithState, AKeyWithDataInTheBatchDoesNotTimeOutThere) {  // X8
  StreamTest<Pair> test;
  test.run(test.input().map_with_state(state_spec<long>(count_until_idle).timeout(1s)),
           {{{"a", 1}}, {}, {{"a", 1}, {"b", 1}}, {}, {}})
      .expect_batches({{}, {}, {}, {}, {{"a", -2}, {"b", -1}}});
}

TEST(MapWithState, TimeoutsComeAfterAllDataOfTheBatch) {  // X8
  StreamTest<Pair> test;
  const auto stream =
      test.input().map_with_state(state_spec<long>([](std::string_view key, std::optional<int> v, State<long>& s) {
                                    if (!s.is_timing_out()) s.update(*v);
                                    return std::string{key} + (v ? "" : " timed out");
                                  }).timeout(1s));
  test.run(stream, {{{"a", 1}}, {}, {{"b", 1}, {"c", 1}}})
      .expect_batches_in_order({{"a"}, {}, {"b", "c", "a timed out"}});
}

TEST(MapWithState, AKeyThatTimedOutOrWasRemovedBeginsAnew) {
  StreamTest<Pair> test;
  const auto stream = test.input().map_with_state(
      state_spec<long>([](std::string_view key, std::optional<int> v, State<long>& s) -> std::optional<Total> {
        if (s.is_timing_out()) return Total{std::string{key}, -s.get()};
        if (*v == 0) {
          s.remove();
        } else {
          s.update(s.get_option().value_or(0) + *v);
        }
        return std::nullopt;
      }).timeout(2s));
  test.run(stream, {{{"a", 1}}, {{"a", 0}}, {{"a", 5}}, {}, {}, {}, {{"a", 7}}, {}, {}, {}})
      .expect_batches({{}, {}, {}, {}, {}, {{"a", -5}}, {}, {}, {}, {{"a", -7}}});
}

TEST(MapWithState, LazyTimeoutsWaitForTheCheckpointIntervalAsInSpark) {  // X7
  StreamTest<Pair> test;                                                 // batches at 1001 s, 1002 s, …
  const auto stream = test.input().map_with_state(state_spec<long>(count_until_idle).timeout(2s).lazy_timeouts(5s));
  const auto by_default =
      test.collect(test.input().map_with_state(state_spec<long>(count_until_idle).timeout(2s).lazy_timeouts()));
  test.run(stream, {{{"a", 1}, {"b", 1}}, {}, {{"b", 1}}, {}, {}, {}, {}, {}, {}, {}})
      .expect_batches({{}, {}, {}, {}, {{"a", -1}}, {}, {}, {}, {}, {{"b", -2}}});
  EXPECT_THAT((*by_default)[4], IsEmpty());
  EXPECT_THAT((*by_default)[9], UnorderedElementsAreArray({Total{"a", -1}, Total{"b", -2}}));
}

TEST(MapWithState, BeginsWithTheInitialState) {  // X10
  for_each_parallelism([](StreamTest<Pair>& test) {
    const std::vector<Total> initial{{"a", 100}, {"idle", 7}, {"a", 200}};
    const auto totals =
        test.input().map_with_state(state_spec<long>(running_total).initial_state(initial).num_partitions(3));
    const auto snapshots = test.collect(totals.state_snapshots());
    const auto from_batch = test.collect(test.input().map_with_state(
        state_spec<long>(running_total).initial_state(test.context().parallelize(initial, 2))));
    test.run(totals, {{{"a", 1}}, {{"a", 1}}}).expect_batches({{{"a", 201}}, {{"a", 202}}});
    EXPECT_THAT(snapshots->front(), UnorderedElementsAreArray({Total{"a", 201}, Total{"idle", 7}}));
    EXPECT_EQ((*from_batch)[0], (std::vector<Total>{{"a", 201}}));
  });
}

TEST(MapWithState, InitialStatesAreTouchedAtTheFirstBatch) {  // X10
  StreamTest<Pair> test;
  test.run(test.input().map_with_state(
               state_spec<long>(count_until_idle).initial_state(std::vector<Total>{{"a", 3}}).timeout(2s)),
           {{}, {}, {}, {}})
      .expect_batches({{}, {}, {}, {{"a", -3}}});
}

TEST(MapWithState, KeepsStatesThatCanOnlyBeMoved) {
  StreamTest<Pair> test;
  const auto stream = test.input().map_with_state(
      state_spec<std::unique_ptr<int>>([](std::string_view, std::optional<int> v, State<std::unique_ptr<int>>& s) {
        s.update(std::make_unique<int>((s.exists() ? *s.get() : 0) + *v));
        return *s.get();
      }));
  test.run(stream, {{{"a", 1}, {"a", 2}}, {{"a", 3}}}).expect_batches_in_order({{1, 3}, {6}});
}

TEST(MapWithState, EditCopiesAStateOncePerKeyAndBatch) {
  static int copies = 0;
  struct Counted {
    Counted() = default;
    Counted(const Counted& other) : items{other.items} { ++copies; }
    Counted(Counted&&) noexcept = default;
    Counted& operator=(const Counted&) = delete;
    Counted& operator=(Counted&&) noexcept = default;
    std::vector<int> items;
  };
  StreamTest<Pair> test;
  const auto stream =
      test.input().map_with_state(state_spec<Counted>([](std::string_view, std::optional<int> v, State<Counted>& s) {
        if (!s.exists()) s.update({});
        s.edit().items.push_back(*v);
        return s.get().items.size();
      }));
  const auto sizes = test.collect(stream);
  test.step({{"a", 1}});
  copies = 0;
  test.step({{"a", 1}, {"a", 2}, {"a", 3}, {"a", 4}});
  EXPECT_EQ(copies, 1);
  EXPECT_EQ((*sizes)[1], (std::vector<std::size_t>{2, 3, 4, 5}));
}

TEST(MapWithState, IsTheSameForAnyNumberOfPartitionsAndOfPartitionsOfTheInput) {
  std::vector<std::vector<Pair>> batches(4);
  std::mt19937 random{5};
  for (auto& batch : batches) {
    for (int i = 0; i < 6000; ++i)
      batch.emplace_back("k" + std::to_string(random() % 500), static_cast<int>(random() % 9));
  }
  std::vector<std::vector<std::vector<Total>>> answers;
  for (const auto& [parallelism, partitions] : {std::pair{1u, 1u}, {1u, 7u}, {4u, 1u}, {4u, 4u}, {4u, 300u}}) {
    StreamTest<Pair> test{1s, parallelism};
    auto got =
        test.run(test.input().map_with_state(state_spec<long>(running_total).num_partitions(partitions)), batches)
            .get();
    for (auto& batch : got)
      std::stable_sort(batch.begin(), batch.end(), [](auto& a, auto& b) { return a.first < b.first; });
    answers.push_back(std::move(got));
  }
  for (const auto& answer : answers) EXPECT_EQ(answer, answers.front()) << "the records of a key stay in order";
}

TEST(MapWithState, WorksInPlaceOnPairsThatLieByKeyAlready) {
  StreamTest<Pair> test{1s, 3};
  const auto reduced = test.input().reduce_by_key(std::plus<>{}, 3);
  test.run(reduced.map_with_state(state_spec<long>(running_total).num_partitions(3)),
           {{{"a", 1}, {"b", 5}, {"a", 2}}, {{"b", 1}, {"c", 1}}})
      .expect_batches({{{"a", 3}, {"b", 5}}, {{"b", 6}, {"c", 1}}});
}

TEST(MapWithState, IsComputedInEveryBatchWhetherItIsLookedAtOrNot) {  // settle
  StreamTest<Pair> test;
  const auto totals = test.input().map_with_state(state_spec<long>(running_total));
  test.input().foreach_batch([](const auto&) {});
  test.step({{"a", 1}});
  EXPECT_EQ(totals.state().get("a"), 1);
  test.step({{"a", 1}});
  EXPECT_EQ(totals.state().get("a"), 2);
  EXPECT_EQ(totals.state().last_batch(), batch_time(1));
}

TEST(MapWithState, IsComputedOnceForAnyNumberOfOutputs) {
  StreamTest<Pair> test;
  const auto totals = test.input().map_with_state(state_spec<long>(running_total));
  const auto once = test.collect(totals);
  const auto twice = test.collect(totals.map([](const Total& total) { return total.second; }));
  test.step({{"a", 1}, {"a", 1}});
  EXPECT_EQ(once->front().back().second, 2);
  EXPECT_THAT(twice->front(), ElementsAre(1, 2));
}

// A function that throws when it is told to.
struct Throwing {
  bool* throws;
  std::optional<Total> operator()(std::string_view key, std::optional<int> v, State<long>& s) const {
    if (*throws && (s.is_timing_out() || *v == 13)) throw std::runtime_error{"boom"};
    if (s.is_timing_out()) return Total{std::string{key}, -s.get()};
    s.update(s.get_option().value_or(0) + *v);
    return Total{std::string{key}, s.get()};
  }
};

TEST(MapWithState, AFailedBatchLeavesTheStateAsItWasAndIsTriedAgainBeforeTheNext) {
  for_each_parallelism([](StreamTest<Pair>& test) {
    bool throws = true;
    const auto totals = test.input().map_with_state(state_spec<long>(Throwing{&throws}));
    const auto seen = test.collect(totals);
    test.step({{"a", 1}, {"b", 1}});
    expect_boom(test, {{"a", 1}, {"c", 5}, {"b", 13}}, "map_with_state");
    EXPECT_EQ(totals.state().get("a"), 1);
    EXPECT_EQ(totals.state().get("b"), 1);
    EXPECT_EQ(totals.state().get("c"), std::nullopt);
    EXPECT_EQ(totals.state().last_batch(), batch_time(0));
    throws = false;
    test.step({{"a", 100}});
    EXPECT_EQ(totals.state().get("a"), 102);
    EXPECT_EQ(totals.state().get("b"), 14);
    EXPECT_EQ(totals.state().get("c"), 5);
    EXPECT_EQ(seen->back(), (std::vector<Total>{{"a", 102}})) << "each batch shows its own results";
  });
}

// A state too large to be copied before every call, as small ones are.
struct Large {
  long value = 0;
  std::array<long, 8> more{};
  Large(long v = 0) : value{v} {}  // NOLINT(google-explicit-constructor): stands for the number
  operator long() const { return value; }
};
static_assert(KeyedTable<std::string, long>::copies_ahead && !KeyedTable<std::string, Large>::copies_ahead);

template <class S>
class MapWithStateOf : public ::testing::Test {};
using SmallAndLarge = ::testing::Types<long, Large>;
TYPED_TEST_SUITE(MapWithStateOf, SmallAndLarge);

TYPED_TEST(MapWithStateOf, ACallThatThrowsLeavesNothingOfWhatItAndOthersHaveDone) {
  using S = TypeParam;
  StreamTest<Pair> test;
  bool throws = true;
  const auto totals =
      test.input().map_with_state(state_spec<S>([&](std::string_view, std::optional<int> v, State<S>& s) {
        if (*v == 0) return;
        s.update(S{(s.exists() ? long{s.get()} : 0) + *v});
        if (*v == 7) s.remove();
        if (*v == 13 && throws) throw std::runtime_error{"boom"};
      }));
  totals.foreach_batch([](const auto& batch) { static_cast<void>(batch.count()); });
  test.step({{"a", 1}, {"b", 2}, {"c", 3}, {"d", 4}});
  expect_boom(test, {{"a", 5}, {"a", 7}, {"a", 6}, {"b", 7}, {"c", 0}, {"d", 10}, {"e", 1}, {"d", 13}},
              "map_with_state");
  EXPECT_EQ(totals.state().get("a"), 1);
  EXPECT_EQ(totals.state().get("b"), 2);
  EXPECT_EQ(totals.state().get("c"), 3);
  EXPECT_EQ(totals.state().get("d"), 4);
  EXPECT_EQ(totals.state().get("e"), std::nullopt);
  throws = false;
  test.step({});
  EXPECT_EQ(totals.state().get("a"), 6);
  EXPECT_EQ(totals.state().get("b"), std::nullopt);
  EXPECT_EQ(totals.state().get("c"), 3);
  EXPECT_EQ(totals.state().get("d"), 27);
  EXPECT_EQ(totals.state().get("e"), 1);
}

TEST(MapWithState, AFailedBatchHoldsUpTheNextOnesWhileItGoesOnFailing) {
  StreamTest<Pair> test;
  bool throws = true;
  const auto totals = test.input().map_with_state(state_spec<long>(Throwing{&throws}));
  test.input().foreach_batch([](const auto&) {});
  EXPECT_THROW(test.step({{"a", 13}}), UserCodeError);
  for (int i = 0; i < 3; ++i) {
    try {
      test.step({{"a", 1}});
      ADD_FAILURE();
    } catch (const UserCodeError& error) {
      EXPECT_EQ(error.context().batch_time, batch_time(0)) << "it is the first batch that fails";
    }
  }
  EXPECT_EQ(totals.state().size(), 0u);
  throws = false;
  test.step({{"a", 1}});
  EXPECT_EQ(totals.state().get("a"), 17);
}

TEST(MapWithState, ATimeoutThatFailsIsTriedAgain) {
  for_each_parallelism([](StreamTest<Pair>& test) {
    bool throws = true;
    const auto totals = test.input().map_with_state(state_spec<long>(Throwing{&throws}).timeout(1s));
    const auto seen = test.collect(totals);
    test.step({{"a", 1}, {"b", 2}});
    test.step({{"b", 3}});
    EXPECT_THROW(test.step({{"c", 4}}), UserCodeError);
    EXPECT_EQ(totals.state().size(), 2u);
    throws = false;
    test.step({});
    EXPECT_THAT(seen->back(), ElementsAre(Total{"b", -5}))
        << "a timed out in the batch before, which is not shown again";
    EXPECT_EQ(totals.state().get("a"), std::nullopt);
    EXPECT_EQ(totals.state().get("c"), 4);
    test.step({});
    EXPECT_THAT(seen->back(), ElementsAre(Total{"c", -4}));
  });
}

TEST(MapWithState, RunsOnArrivalToo) {
  const auto clock = std::make_shared<ManualClock>();
  Context context{{.app_name = "test", .parallelism = 1, .clock = clock}};
  StreamingContext ssc{context, on_arrival};
  const auto queue = std::make_shared<BatchQueue<Pair>>();
  std::vector<std::vector<Total>> batches;
  const auto counts = ssc.queue_stream(queue).map_with_state(state_spec<long>(count_until_idle).timeout(2s));
  counts.foreach_batch([&](const auto& batch) { batches.push_back(batch.collect()); });
  EXPECT_THROW(static_cast<void>(ssc.queue_stream(queue).map_with_state(
                   state_spec<long>(count_until_idle).timeout(2s).lazy_timeouts())),
               ConfigError);
  ssc.start(Drive::by_host);
  for (const Pair& pair : {Pair{"a", 1}, Pair{"b", 2}, Pair{"c", 3}}) {
    queue->push(std::vector{pair});
    EXPECT_TRUE(ssc.step());
    clock->advance(1500ms);
  }
  EXPECT_EQ(batches, (std::vector<std::vector<Total>>{{}, {}, {{"a", -1}}}));
}

TEST(StateSpec, RefusesWhatCannotBe) {
  EXPECT_THROW(static_cast<void>(state_spec<long>(running_total).timeout(0s)), ConfigError);
  EXPECT_THROW(static_cast<void>(state_spec<long>(running_total).lazy_timeouts(-1s)), ConfigError);
  StreamTest<Pair> test;
  const auto refusal = [&](auto spec) -> std::string {
    try {
      static_cast<void>(test.input().map_with_state(std::move(spec)));
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "nothing was thrown";
  };
  EXPECT_THAT(refusal(state_spec<long>(running_total).lazy_timeouts(5s)), HasSubstr("add timeout(idle)"));
  EXPECT_THAT(refusal(state_spec<long>(running_total).num_partitions(static_cast<std::size_t>(-1))),
              HasSubstr("1000000 partitions at most"));
}

TEST(StateSpec, TakesTheLongestTimesThereAre) {
  StreamTest<Pair> test;
  const auto never = state_spec<long>(count_until_idle).timeout(Duration::max()).lazy_timeouts(Duration::max());
  test.run(test.input().map_with_state(never), {{{"a", 1}}, {}, {{"a", 1}}}).expect_batches({{}, {}, {}});
}

// Random batches against an oracle that looks at every key in every batch.
TYPED_TEST(MapWithStateOf, AgreesWithAnOracleOnRandomBatchesWithTimeoutsAndRemovals) {
  using S = TypeParam;
  for (const std::size_t partitions : {1u, 3u}) {
    for (unsigned seed = 1; seed <= 10; ++seed) {
      StreamTest<Pair> test{1s, partitions};
      const auto stream = test.input().map_with_state(
          state_spec<S>([](std::string_view key, std::optional<int> v, State<S>& s) -> std::optional<Total> {
            if (s.is_timing_out()) return Total{std::string{key}, -s.get()};
            if (*v == 0 && s.exists()) s.remove();
            if (*v == 2 && s.exists()) {
              s.edit() = S{s.get() + 2};
            } else if (*v > 1) {
              s.update(S{(s.exists() ? long{s.get()} : 0) + *v});
            }
            return std::nullopt;
          }).timeout(3s));
      const auto seen = test.collect(stream);
      const auto snapshots = test.collect(stream.state_snapshots());
      std::map<std::string, std::pair<long, int>> oracle;  // state, batch of the last touch
      std::mt19937 random{seed};
      for (int i = 0; i < 60; ++i) {
        std::vector<Pair> records(random() % 3 == 0 ? 0 : random() % 12);
        std::vector<Total> expected;
        for (auto& [key, value] : records) {
          key = "key " + std::to_string(random() % 20);
          value = static_cast<int>(random() % 5);
          if (oracle.contains(key)) oracle[key].second = i;
          if (value == 0) oracle.erase(key);
          if (value > 1) {
            oracle[key].first += value;
            oracle[key].second = i;
          }
        }
        for (auto at = oracle.begin(); at != oracle.end();) {
          if (at->second.second < i - 3) {
            expected.emplace_back(at->first, -at->second.first);
            at = oracle.erase(at);
          } else {
            ++at;
          }
        }
        test.step(std::move(records));
        ASSERT_THAT(seen->back(), UnorderedElementsAreArray(expected)) << "seed " << seed << " batch " << i;
        std::vector<Total> states;
        for (const auto& [key, state] : oracle) states.emplace_back(key, state.first);
        ASSERT_THAT(snapshots->back(), UnorderedElementsAreArray(states)) << "seed " << seed << " batch " << i;
      }
    }
  }
}

}  // namespace
}  // namespace tidemill::map_with_state_test
