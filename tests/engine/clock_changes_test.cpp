// Somebody sets the system's clock while a context runs, or the process stands still for hours: what docs/adr/0004 promises.
// RELIABILITY F61, F62. The first tests turn the wall clock of this process: they take the place of clock_gettime.
#include <atomic>
#include <cerrno>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "engine/harness.hpp"

namespace {
std::atomic<long> wall_clock_is_off_by_seconds = 0;
}

extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
  const long result = syscall(SYS_clock_gettime, clock, time);
  if (result == 0 && clock == CLOCK_REALTIME) time->tv_sec += wall_clock_is_off_by_seconds.load();
  return static_cast<int>(result);
}

namespace tidemill {
namespace {

using namespace testing_engine;

class WallClock {
 public:
  static void set(std::chrono::seconds off) { wall_clock_is_off_by_seconds.store(off.count()); }
  WallClock() = default;
  WallClock(const WallClock&) = delete;
  WallClock& operator=(const WallClock&) = delete;
  ~WallClock() { set(0s); }
};

TEST(WallClockThatIsSet, IsSeenByThisTest) {
  const WallClock wall;
  const auto before = std::chrono::system_clock::now();
  WallClock::set(-3h);
  EXPECT_LT(std::chrono::system_clock::now(), before - 2h);
  WallClock::set(3h);
  EXPECT_GT(std::chrono::system_clock::now(), before + 2h);
}

TEST(WallClockThatIsSet, BackOrForwardByHoursNeitherStopsNorRepeatsNorSkipsTicks) {  // F61
  const WallClock wall;
  constexpr Duration interval = 1ms;
  const Context context{{.app_name = "clock-test", .parallelism = 1}};
  StreamingContext ssc{context, interval};
  auto seen = record(ssc.receiver_stream(std::make_shared<Feed<int>>()));
  ssc.start();
  std::size_t batches = 0;
  for (const std::chrono::seconds off : {0h, -3h, 6h, -1h}) {
    WallClock::set(off);
    ASSERT_TRUE(seen->wait_for(batches += 5)) << "the ticks have stopped";
  }
  EXPECT_TRUE(ssc.stop());
  EXPECT_EQ(ssc.metrics().merged_ticks, 0u);
  const std::vector<Seen<int>> all = seen->all();
  for (std::size_t i = 1; i < all.size(); ++i) ASSERT_EQ(all[i].time - all[i - 1].time, interval);
}

TEST(WallClockThatIsSet, LeavesTheTimesOfOnArrivalIncreasing) {  // F61
  const WallClock wall;
  const Context context{{.app_name = "clock-test", .parallelism = 1}};
  StreamingContext ssc{context, on_arrival};
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(ssc.receiver_stream(feed));
  ssc.start();
  ASSERT_TRUE(feed->life.wait_for(1));
  const Time began = context.clock().now();
  for (const std::chrono::seconds off : {0h, -3h, 6h, -1h}) {
    WallClock::set(off);
    const std::size_t before = seen->size();
    ASSERT_TRUE(feed->put(1));
    ASSERT_TRUE(seen->wait_for(before + 1));
  }
  ssc.stop();
  const std::vector<Seen<int>> all = seen->all();
  for (std::size_t i = 1; i < all.size(); ++i) ASSERT_GT(all[i].time, all[i - 1].time);
  EXPECT_LT(all.back().time, began + 2h) << "nothing has jumped";
}

// SIGSTOP, a debugger, a machine that is overloaded: the monotonic clock has gone on. (That of a machine that was suspended has
// stood still, and nothing is to be made up for.)
TEST(ProcessThatStoodStill, MakesUpForHoursByOneMergedBatchAndThoseThatMayWait) {  // F62
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start(Drive::by_host);
  EXPECT_EQ(rig.pass(1s), 1u);
  feed->put(1);
  EXPECT_EQ(rig.pass(3h), 1000u) << "max_pending_batches";
  const std::vector<Seen<int>> all = seen->all();
  EXPECT_EQ(all[1].time, at(1001 + 3 * 3600 - 999)) << "of the ticks that passed all but the last thousand are merged";
  EXPECT_THAT(all[1].records, ElementsAre(1)) << "and what had arrived is in it";
  EXPECT_EQ(all.back().time, at(1001 + 3 * 3600));
  for (std::size_t i = 1; i < all.size(); ++i) ASSERT_GT(all[i].time, all[i - 1].time);
  EXPECT_EQ(rig.ssc.metrics().merged_ticks, 3u * 3600 - 1000);
  EXPECT_TRUE(rig.log.says("warning: batches are too slow"));
  EXPECT_EQ(rig.pass(1s), 1u) << "and then the usual pace";
}

TEST(ProcessThatStoodStill, MakesUpForHoursByASingleBatchWhenNoTickMayWait) {  // F62
  Rig rig{1s, {.max_pending_batches = 1}};
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start(Drive::by_host);
  feed->put(1);
  EXPECT_EQ(rig.pass(3h), 1u);
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1000 + 3 * 3600), {1}}));
}

TEST(ProcessThatStoodStill, OnArrivalHasOneBatchOfWhatHadArrived) {  // F62
  Rig rig{on_arrival};
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start(Drive::by_host);
  feed->put(1);
  feed->put(2);
  EXPECT_EQ(rig.pass(3h), 1u);
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1000 + 3 * 3600), {1, 2}}));
}

}  // namespace
}  // namespace tidemill
