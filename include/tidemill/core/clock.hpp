// Where "now" comes from and how a thread waits for it. The engine reads time and waits through this one seam, so that the
// wall clock and a clock turned by hand drive exactly the same code.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>

#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"

namespace tidemill {

/// A door bell: one thread waits at it (through a Clock), any thread rings it. Rings are not counted; a ring before the
/// wait is not lost.
/// Threads: `ring` from anywhere; one waiter at a time.
class TIDEMILL_API WakeUp {
 public:
  void ring() noexcept;

  /// Waits for a ring or for `deadline` on the steady clock, whichever comes first, and consumes the ring.
  /// Returns whether it rang.
  bool wait(std::optional<std::chrono::steady_clock::time_point> deadline) noexcept;

 private:
  // A futex. The word alone says whether the waiter sleeps: a wake-up takes no mutex, and touches little memory that has
  // gone cold while the thread slept.
  enum State : std::uint32_t { quiet, rung, waiting };
  std::atomic<std::uint32_t> state_ = quiet;
};

/// Tells the time and waits for it.
/// Threads: every member may be called by any thread.
class TIDEMILL_API Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual Time now() const noexcept = 0;

  /// Blocks until `deadline` is reached (never, when absent) or `bell` rings. Spurious returns are allowed.
  virtual void wait_until(std::optional<Time> deadline, WakeUp& bell) = 0;

 protected:
  Clock() = default;
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;
};

/// The wall clock, read once at construction and carried forward by the monotonic clock: setting the system's clock back
/// or forward neither stops the ticks nor piles them up, and time never runs backwards.
class TIDEMILL_API SystemClock final : public Clock {
 public:
  SystemClock() noexcept;
  [[nodiscard]] Time now() const noexcept override;
  void wait_until(std::optional<Time> deadline, WakeUp& bell) override;

 private:
  std::chrono::steady_clock::time_point steady_origin_;
  std::chrono::time_point<std::chrono::system_clock, std::chrono::nanoseconds> system_origin_;
};

/// A clock that stands still until it is told to move: for tests and simulations.
/// Source: Spark Streaming `ManualClock`.
class TIDEMILL_API ManualClock final : public Clock {
 public:
  /// Starts at `start`; the default is a round number, 1 000 s after the epoch, that reads well in test output.
  explicit ManualClock(Time start = Time{std::chrono::seconds{1000}}) noexcept
      : now_{start.time_since_epoch().count()} {}

  [[nodiscard]] Time now() const noexcept override { return Time{Duration{now_.load(std::memory_order_acquire)}}; }
  void wait_until(std::optional<Time> deadline, WakeUp& bell) override;

  /// Moves time forward and wakes whoever waited for it. Errors: ConfigError when `d` is negative.
  void advance(Duration d);
  /// Sets the time. Errors: ConfigError when `t` lies in the past.
  void set(Time t);

 private:
  std::atomic<Duration::rep> now_;
  std::mutex mutex_;  // guards waiting_
  std::multiset<WakeUp*> waiting_;
};

}  // namespace tidemill
