// The inbox: bounded, stamped, cut by time and by number. SEMANTICS R2–R4, R6.
#include "tidemill/io/inbox.hpp"

#include <deque>
#include <random>

#include <gtest/gtest.h>

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
