// The inbox: bounded, stamped, cut by time, by number and by rate. SEMANTICS R2–R4, R6, BP1, BP8.
#include "tidemill/io/inbox.hpp"

#include <atomic>
#include <cmath>
#include <deque>
#include <functional>
#include <map>
#include <random>
#include <thread>

#include <gtest/gtest.h>

#include "tidemill/core/error.hpp"

namespace tidemill {
namespace {

using namespace std::chrono_literals;
using Records = std::vector<int>;
using detail::Inbox;

Records flat(const std::vector<Records>& blocks) {
  Records all;
  for (const Records& block : blocks) all.insert(all.end(), block.begin(), block.end());
  return all;
}

struct Box {
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  Inbox<Records> inbox;
  explicit Box(std::size_t max_bytes = 1 << 20) : inbox{clock, {.max_buffered_bytes = max_bytes}} { inbox.open(); }
  [[nodiscard]] Time now() const { return clock->now(); }
};

TEST(Inbox, GivesWhatHadArrivedByTheTimeOfTheCut) {  // R6
  Box box;
  box.inbox.set_grain(10ms);
  box.inbox.push({1, 2});
  box.clock->advance(10ms);
  const Time cut = box.now();
  box.inbox.push({3});
  box.clock->advance(1us);
  box.inbox.push({4});
  EXPECT_EQ(flat(box.inbox.take_until(cut)), (Records{1, 2, 3}));
  EXPECT_TRUE(box.inbox.has_data());
  EXPECT_EQ(flat(box.inbox.take_until(cut + 10ms)), (Records{4}));
  EXPECT_FALSE(box.inbox.has_data());
  EXPECT_EQ(box.inbox.buffered_bytes(), 0u);
}

TEST(Inbox, GivesWhateverIsThereWhenItHasNoGrain) {  // the on_arrival gate: a block that is filling is not passed over
  Box box;
  box.inbox.push_record(1);
  const Time cut = box.now();
  box.clock->advance(1ms);
  box.inbox.push_record(2);
  EXPECT_EQ(flat(box.inbox.take_until(cut)), (Records{1, 2}));
}

TEST(Inbox, CollectsSingleRecordsInOneBlockButNeverAcrossACut) {  // R2
  Box box;
  box.inbox.set_grain(1s);
  box.clock->advance(999ms);
  box.inbox.push_record(1);
  box.clock->advance(1ms);
  box.inbox.push_record(2);  // on the tick: still of its interval
  box.clock->advance(1us);
  box.inbox.push_record(3);
  const auto first = box.inbox.take_until(Time{1001s});
  EXPECT_EQ(first, (std::vector<Records>{{1, 2}})) << "one block";
  EXPECT_EQ(flat(box.inbox.take_until(Time{1002s})), (Records{3}));
}

TEST(Inbox, KeepsTheOrderOfSingleRecordsAndBlocks) {  // R2, R3
  Box box;
  box.inbox.push_record(1);
  box.inbox.push_record(2);
  box.inbox.push({3, 4});
  box.inbox.push_record(5);
  EXPECT_EQ(flat(box.inbox.take_until(box.now())), (Records{1, 2, 3, 4, 5}));
}

TEST(Inbox, CutsABlockThatIsTooLargeIntoPiecesOfTheBatchesToCome) {
  Box box;
  box.inbox.push({0, 1, 2, 3, 4, 5, 6});
  EXPECT_EQ(flat(box.inbox.take_until(box.now(), 3)), (Records{0, 1, 2}));
  EXPECT_EQ(box.inbox.take_until(box.now(), 3), (std::vector<Records>{{3, 4, 5}}));
  EXPECT_EQ(flat(box.inbox.take_until(box.now(), 3)), (Records{6}));
  EXPECT_EQ(box.inbox.buffered_bytes(), 0u);
}

TEST(Inbox, IsClosedUntilItIsOpenedAndKeepsWhatItHasWhenItCloses) {  // R5
  Inbox<Records> inbox{std::make_shared<ManualClock>(), {}};
  EXPECT_FALSE(inbox.push({1}));
  inbox.open();
  EXPECT_TRUE(inbox.push({1}));
  inbox.close();
  EXPECT_FALSE(inbox.push({2}));
  EXPECT_FALSE(inbox.push_record(2));
  EXPECT_EQ(inbox.offer({2}), Inbox<Records>::Offer::closed);
  EXPECT_EQ(flat(inbox.take_until(Time{1000s})), (Records{1}));
}

TEST(Inbox, TellsOffersThatItIsFullAndCallsWhenThereIsRoom) {  // R4
  Box box{2 * sizeof(int)};
  using Offer = Inbox<Records>::Offer;
  int called = 0;
  box.inbox.when_there_is_room([&] { ++called; });
  EXPECT_EQ(called, 1) << "there is room now";
  EXPECT_EQ(box.inbox.offer({1}), Offer::accepted);
  EXPECT_EQ(box.inbox.offer({2}), Offer::accepted_and_full);
  EXPECT_EQ(box.inbox.offer({3}), Offer::accepted_and_full) << "what was read already is not refused";
  box.inbox.when_there_is_room([&] { ++called; });
  box.inbox.when_there_is_room([] { throw std::runtime_error{"a caller without memory"}; });
  box.inbox.when_there_is_room([&] { ++called; });
  (void)box.inbox.take_until(box.now(), 1);
  EXPECT_EQ(called, 1) << "still full";
  EXPECT_EQ(flat(box.inbox.take_until(box.now())), (Records{2, 3}));
  EXPECT_EQ(called, 3) << "once each, whatever another of them throws";
  box.inbox.offer({1, 2});
  box.inbox.when_there_is_room([&] { ++called; });
  box.inbox.close();
  EXPECT_EQ(called, 4) << "who waits is told of the end";
}

TEST(Inbox, RingsWhenSomethingArrives) {
  Box box;
  WakeUp bell;
  box.inbox.ring_on_arrival(&bell);
  const auto rang = [&] { return bell.wait(std::chrono::steady_clock::now()); };
  EXPECT_FALSE(rang());
  box.inbox.push_record(1);
  EXPECT_TRUE(rang());
  box.inbox.push({2});
  EXPECT_TRUE(rang());
  (void)box.inbox.take_until(box.now());
  box.inbox.push_record(3);
  EXPECT_TRUE(rang());
  box.inbox.ring_on_arrival(nullptr);
  box.inbox.push({4});
  EXPECT_FALSE(rang());
}

TEST(Inbox, ClosesBlocksOfSingleRecordsEveryBlockInterval) {  // R2
  Box box;
  box.inbox.set_grain(1s);
  box.inbox.set_block_interval(200ms);
  for (int i = 1; i <= 5; ++i) {
    box.clock->advance(100ms);
    box.inbox.push_record(i);
  }
  EXPECT_EQ(box.inbox.take_until(Time{1001s}), (std::vector<Records>{{1, 2}, {3, 4}, {5}}));
}

// ---- the rate -------------------------------------------------------------------------------------------------------------

// An inbox with a grain of 1 s and a rate, whose calls of `later` the test makes.
struct RatedBox : Box {
  std::multimap<Time, std::function<void()>> calls;
  explicit RatedBox(double rate, Duration grain = 1s) {
    inbox.set_max_rate(rate);
    inbox.set_grain(grain);
    inbox.begin_rate([this](Time when, std::function<void()> call) { calls.emplace(when, std::move(call)); });
  }
  // Time passes, and what was to be called then is called.
  void pass(Duration d) {
    clock->advance(d);
    while (!calls.empty() && calls.begin()->first <= now()) calls.extract(calls.begin()).mapped()();
  }
  std::size_t put_as_many_as_may_go_in(std::size_t most) {
    std::size_t records = 0;
    for (; records < most && inbox.allowance() != 0; ++records) EXPECT_TRUE(inbox.push_record(0));
    return records;
  }
  std::size_t cut(Time t) { return flat(inbox.take_until(t)).size(); }
};

TEST(InboxRate, LetsInWhatHasBeenEarnedSinceTheLastCut) {  // BP1
  RatedBox box{10};
  EXPECT_EQ(box.inbox.allowance(), 0u);
  box.clock->advance(1s);
  EXPECT_EQ(box.inbox.allowance(), 10u);
  EXPECT_EQ(box.cut(Time{1001s}), 0u);
  EXPECT_EQ(box.inbox.allowance(), 0u) << "what was not used is gone";
  box.clock->advance(99ms);
  EXPECT_EQ(box.inbox.allowance(), 0u);
  box.clock->advance(1ms);
  EXPECT_EQ(box.put_as_many_as_may_go_in(100), 1u);
  box.clock->advance(500ms);
  EXPECT_EQ(box.put_as_many_as_may_go_in(3), 3u);
  box.clock->advance(400ms);
  EXPECT_EQ(box.put_as_many_as_may_go_in(100), 6u) << "ten in all";
  EXPECT_EQ(box.cut(Time{1002s}), 10u);
}

TEST(InboxRate, ABatchTakesWhatTheRateAllowsAndTheNextTheRest) {  // BP1
  RatedBox box{10};
  box.cut(Time{1000s});
  box.clock->advance(1s);
  EXPECT_TRUE(box.inbox.push(Records(25))) << "a block goes in whole";
  EXPECT_EQ(box.cut(Time{1001s}), 10u);
  box.clock->advance(1s);
  EXPECT_EQ(box.inbox.allowance(), 0u) << "what waits is more than this interval's";
  EXPECT_EQ(box.cut(Time{1002s}), 10u);
  box.clock->advance(1s);
  EXPECT_EQ(box.put_as_many_as_may_go_in(100), 5u);
  EXPECT_EQ(box.cut(Time{1003s}), 10u);
  EXPECT_FALSE(box.inbox.has_data());
}

TEST(InboxRate, PartsOfARecordAreKeptForTheNextBatch) {
  RatedBox box{0.3};
  box.cut(Time{1000s});
  std::vector<std::size_t> batches;
  for (int i = 1; i <= 10; ++i) {
    box.clock->advance(1s);
    box.put_as_many_as_may_go_in(100);
    batches.push_back(box.cut(Time{1000s} + i * 1s));
  }
  EXPECT_EQ(batches, (std::vector<std::size_t>{0, 0, 1, 0, 0, 1, 0, 0, 1, 0})) << "three in ten seconds";
}

TEST(InboxRate, OneBatchForSeveralTicksTakesWhatTheyWouldHaveHad) {  // EN3
  RatedBox box{10};
  box.cut(Time{1000s});
  for (int i = 0; i < 30; ++i) {
    box.clock->advance(100ms);
    box.put_as_many_as_may_go_in(100);
  }
  EXPECT_EQ(box.cut(Time{1003s}), 30u);
}

TEST(InboxRate, ALateCutFallsWhereItShouldHave) {
  RatedBox box{10};
  box.cut(Time{1000s});
  for (int i = 0; i < 30; ++i) {
    box.clock->advance(100ms);
    box.put_as_many_as_may_go_in(100);
  }
  for (const Duration t : {1001s, 1002s, 1003s}) EXPECT_EQ(box.cut(Time{t}), 10u);
}

TEST(InboxRate, TheLowerOfTheTwoLimitsHolds) {  // BP8
  RatedBox box{10};
  box.clock->advance(1s);
  box.inbox.limit_rate(4);
  EXPECT_EQ(box.inbox.allowance(), 4u);
  box.inbox.limit_rate(1e9);
  EXPECT_EQ(box.inbox.allowance(), 10u);
  for (const double rate : {0.0, -1.0, std::nan("")}) EXPECT_THROW(box.inbox.set_max_rate(rate), ConfigError);
}

TEST(InboxRate, WhatHadComeInBeforeTheRateFellIsTakenAtTheNewRateAndProducersWaitUntilItIsGone) {
  RatedBox box{unlimited_rate};
  box.inbox.push(Records(50));
  box.inbox.limit_rate(20);
  std::vector<std::size_t> batches;
  std::size_t put = 0;
  for (int i = 0; i < 5; ++i) {
    put += box.put_as_many_as_may_go_in(1000);
    batches.push_back(box.cut(Time{1000s} + i * 1s));
    box.clock->advance(1s);
  }
  EXPECT_EQ(batches, (std::vector<std::size_t>{20, 20, 20, 20, 20}));
  EXPECT_EQ(put, 50u);
}

TEST(InboxRate, CallsThoseWhoDoNotBlockWhenTheClockSaysSo) {
  RatedBox box{10};
  using Offer = Inbox<Records>::Offer;
  box.cut(Time{1000s});
  box.clock->advance(100ms);
  int called = 0;
  EXPECT_EQ(box.inbox.offer({1, 2, 3}), Offer::accepted_and_full) << "three, where one was allowed";
  box.inbox.when_there_is_room([&] { ++called; });
  box.pass(299ms);
  EXPECT_EQ(called, 0) << "the fourth may come at 400 ms";
  box.pass(1ms);
  EXPECT_EQ(called, 1);
  EXPECT_EQ(box.inbox.offer({4}), Offer::accepted_and_full);
  box.inbox.when_there_is_room([&] { ++called; });
  box.inbox.limit_rate(5);
  box.pass(100ms);
  EXPECT_EQ(called, 1) << "at the new rate there may be four by 800 ms";
  box.pass(500ms);
  EXPECT_EQ(called, 2);
  EXPECT_EQ(box.inbox.offer({5}), Offer::accepted_and_full);
  box.inbox.when_there_is_room([&] { ++called; });
  box.inbox.limit_rate(1000);
  EXPECT_EQ(called, 3) << "a higher rate is told at once";
}

TEST(InboxRate, AProducerWaitsForTheClockAndIsLetGoWhenTheInboxCloses) {  // R4
  RatedBox box{1000};
  box.cut(Time{1000s});
  std::atomic<int> stored = 0;
  std::thread producer{[&] {
    while (box.inbox.push_record(1)) ++stored;
  }};
  const auto eventually = [&](int records) {
    while (stored < records) std::this_thread::yield();
  };
  box.clock->advance(2ms);
  eventually(2);
  box.clock->advance(3ms);
  eventually(5);
  EXPECT_EQ(box.inbox.allowance(), 0u);
  box.inbox.close();
  producer.join();
  EXPECT_EQ(stored, 5);
}

TEST(InboxRate, AtItsEndNothingIsHeldBack) {  // L12
  RatedBox box{10};
  box.clock->advance(1s);
  box.inbox.push(Records(1000));
  box.inbox.close();
  box.inbox.end_rate();
  EXPECT_EQ(box.cut(Time{1001s}), 1000u);
}

TEST(InboxRate, WithoutAGrainATenthOfASecondIsSavedUpAndABatchTakesAll) {  // the on_arrival gate
  RatedBox box{100, 0s};
  EXPECT_EQ(box.inbox.allowance(), 0u);
  box.clock->advance(1h);
  EXPECT_EQ(box.inbox.allowance(), 10u);
  box.inbox.push(Records(30));
  EXPECT_EQ(box.cut(box.now()), 30u) << "a batch that comes because something is there must not find nothing";
  box.clock->advance(200ms);
  EXPECT_EQ(box.inbox.allowance(), 0u) << "20 are still owed";
  box.clock->advance(10ms);
  EXPECT_EQ(box.inbox.allowance(), 1u);
}

// The model: a queue of (stamp, record), from which a cut at t takes what is stamped t or earlier, at most so many.
TEST(Inbox, AgreesWithASimpleModelWhateverComesInWhateverOrder) {
  for (std::uint32_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random{seed};
    const auto below = [&random](int n) { return std::uniform_int_distribution<int>{0, n - 1}(random); };
    Box box;
    const Duration grain = below(2) == 0 ? Duration{0} : Duration{1 + below(50)};
    const bool limited = below(2) == 0;
    box.inbox.set_grain(grain);
    std::deque<std::pair<Time, int>> model;
    int next = 0;
    Time last_cut = box.now();
    const auto cut = [&](Time t, std::size_t most) {
      Records expected;
      while (!model.empty() && (grain == Duration{0} || model.front().first <= t) && expected.size() < most) {
        expected.push_back(model.front().second);
        model.pop_front();
      }
      ASSERT_EQ(flat(box.inbox.take_until(t, most)), expected);
      last_cut = t;
    };
    for (int step = 0; step < 300; ++step) {
      switch (below(6)) {
        case 0:
        case 1: {
          model.emplace_back(box.now(), next);
          ASSERT_TRUE(box.inbox.push_record(next++));
          break;
        }
        case 2: {
          Records block;
          for (int i = 0, n = 1 + below(5); i < n; ++i) {
            model.emplace_back(box.now(), next);
            block.push_back(next++);
          }
          ASSERT_TRUE(box.inbox.push(std::move(block)));
          break;
        }
        case 3:
        case 4: box.clock->advance(Duration{below(20)}); break;
        case 5: {
          // A gate cuts at multiples of its grain, each once, maybe late; without a grain, at the moment.
          const Time t = grain == Duration{0} ? box.now() : floor_to(last_cut, grain) + grain;
          if (t <= box.now()) cut(t, limited ? 1 + static_cast<std::size_t>(below(4)) : 1000);
          break;
        }
      }
      ASSERT_EQ(box.inbox.has_data(), !model.empty());
      ASSERT_EQ(box.inbox.buffered_bytes(), model.size() * sizeof(int));
    }
    // The end: batch after batch until nothing is left.
    while (!model.empty()) cut(grain == Duration{0} ? box.now() : floor_to(last_cut, grain) + grain, 1000);
    EXPECT_FALSE(box.inbox.has_data());
  }
}

}  // namespace
}  // namespace tidemill
