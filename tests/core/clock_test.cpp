// The two clocks and the bell that wakes whoever waits for them.
#include "tidemill/core/clock.hpp"

#include <atomic>
#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include "tidemill/core/error.hpp"

namespace tidemill {
namespace {

using namespace std::chrono_literals;

TEST(ManualClock, StandsStillUntilItIsMoved) {
  ManualClock clock;
  EXPECT_EQ(clock.now(), Time{1000s});
  clock.advance(250ms);
  EXPECT_EQ(clock.now(), Time{1000250ms});
  clock.set(Time{2000s});
  EXPECT_EQ(clock.now(), Time{2000s});
  EXPECT_THROW(clock.advance(-1us), ConfigError);
  EXPECT_THROW(clock.set(Time{1999s}), ConfigError);
  EXPECT_EQ(clock.now(), Time{2000s}) << "as it was";
}

TEST(ManualClock, WakesWhoWaitsForTheTimeThatHasCome) {
  ManualClock clock;
  WakeUp bell;
  std::atomic<bool> reached = false;
  std::thread waiter{[&] {
    while (clock.now() < Time{1001s}) clock.wait_until(Time{1001s}, bell);
    reached = true;
  }};
  clock.advance(1s);
  waiter.join();
  EXPECT_TRUE(reached);
}

TEST(ManualClock, DoesNotWaitForThePast) {
  ManualClock clock;
  WakeUp bell;
  clock.wait_until(Time{1000s}, bell);
  clock.wait_until(Time{1s}, bell);
}

TEST(WakeUp, KeepsARingForTheNextWait) {
  for (const bool manual : {true, false}) {
    const std::unique_ptr<Clock> clock =
        manual ? std::unique_ptr<Clock>{std::make_unique<ManualClock>()} : std::make_unique<SystemClock>();
    WakeUp bell;
    bell.ring();
    bell.ring();
    clock->wait_until(std::nullopt, bell);  // would last for ever if the ring were lost
    std::thread ringer{[&] { bell.ring(); }};
    bool rang = false;
    while (!rang) rang = bell.wait(std::nullopt);
    ringer.join();
  }
}

TEST(WakeUp, WaitsNoLongerThanTheDeadline) {
  WakeUp bell;
  EXPECT_FALSE(bell.wait(std::chrono::steady_clock::now()));
  bell.ring();
  EXPECT_TRUE(bell.wait(std::chrono::steady_clock::now()));
  EXPECT_FALSE(bell.wait(std::chrono::steady_clock::now())) << "a ring is consumed";
}

TEST(SystemClock, TellsTheTimeAndNeverRunsBackwards) {
  const SystemClock clock;
  const auto apart = clock.now() - std::chrono::time_point_cast<Duration>(std::chrono::system_clock::now());
  EXPECT_LT(std::chrono::abs(apart), 5s);
  Time before = clock.now();
  for (int i = 0; i < 10000; ++i) {
    const Time now = clock.now();
    EXPECT_GE(now, before);
    before = now;
  }
}

TEST(SystemClock, WaitsUntilTheDeadline) {
  SystemClock clock;
  WakeUp bell;
  const Time deadline = clock.now() + 2ms;
  while (clock.now() < deadline) clock.wait_until(deadline, bell);
  EXPECT_GE(clock.now(), deadline);
}

TEST(SystemClock, WaitsForTheBellWhenTheDeadlineNeverComes) {
  SystemClock clock;
  WakeUp bell;
  std::atomic<bool> is_rung = false;
  std::thread other{[&] {
    is_rung = true;
    bell.ring();
  }};
  clock.wait_until(Time::max(), bell);
  EXPECT_TRUE(is_rung);
  other.join();
}

}  // namespace
}  // namespace tidemill
