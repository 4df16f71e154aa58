#include "tidemill/core/clock.hpp"

#include <cerrno>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tidemill/core/error.hpp"

namespace tidemill {

void WakeUp::ring() noexcept {
  if (state_.load(std::memory_order_acquire) == rung) return;
  if (state_.exchange(rung, std::memory_order_acq_rel) != waiting) return;
  syscall(SYS_futex, &state_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

bool WakeUp::wait(std::optional<std::chrono::steady_clock::time_point> deadline) noexcept {
  static_assert(std::atomic<std::uint32_t>::is_always_lock_free && sizeof(state_) == sizeof(std::uint32_t));
  timespec until{};
  if (deadline) {
    const auto since_epoch = deadline->time_since_epoch();
    const auto seconds = std::chrono::floor<std::chrono::seconds>(since_epoch);
    until.tv_sec = static_cast<time_t>(seconds.count());
    until.tv_nsec = static_cast<long>(std::chrono::nanoseconds{since_epoch - seconds}.count());
  }
  std::uint32_t found = quiet;
  if (state_.compare_exchange_strong(found, waiting, std::memory_order_acq_rel)) {
    // Absolute, on CLOCK_MONOTONIC, which std::chrono::steady_clock is. Returns at a ring, at the deadline or for no reason.
    while (state_.load(std::memory_order_acquire) == waiting) {
      const long result = syscall(SYS_futex, &state_, FUTEX_WAIT_BITSET_PRIVATE, waiting, deadline ? &until : nullptr,
                                  nullptr, FUTEX_BITSET_MATCH_ANY);
      if (result != 0 && errno != EAGAIN && errno != EINTR) break;  // the deadline, or one before the machine's start
    }
  }
  return state_.exchange(quiet, std::memory_order_acq_rel) == rung;
}

SystemClock::SystemClock() noexcept
    : steady_origin_{std::chrono::steady_clock::now()}, system_origin_{std::chrono::system_clock::now()} {}

Time SystemClock::now() const noexcept {
  return std::chrono::floor<Duration>(system_origin_ + (std::chrono::steady_clock::now() - steady_origin_));
}

void SystemClock::wait_until(std::optional<Time> deadline, WakeUp& bell) {
  std::optional<std::chrono::steady_clock::time_point> steady;
  // What is farther off than the nanoseconds of the steady clock can tell does not come.
  if (deadline && *deadline <= detail::later(now(), std::chrono::years{100}))
    steady = steady_origin_ + (*deadline - system_origin_);
  // A processor that has slept for long needs some 50 us to wake, and its caches are cold. So before a deadline that is far off
  // the thread wakes shortly ahead of it, and sleeps the short rest: the tick then finds an awake processor.
  using namespace std::chrono_literals;
  constexpr auto ahead = 300us;
  if (steady && *steady - std::chrono::steady_clock::now() > 2ms && bell.wait(*steady - ahead)) return;
  bell.wait(steady);
}

void ManualClock::wait_until(std::optional<Time> deadline, WakeUp& bell) {
  {
    const std::scoped_lock lock{mutex_};
    if (deadline && now() >= *deadline) return;
    waiting_.insert(&bell);
  }
  bell.wait(std::nullopt);
  const std::scoped_lock lock{mutex_};
  waiting_.erase(waiting_.find(&bell));
}

void ManualClock::advance(Duration d) {
  if (d < Duration::zero()) throw ConfigError("a ManualClock cannot go back, and advance() was given " + to_string(d));
  const std::scoped_lock lock{mutex_};
  now_.fetch_add(d.count(), std::memory_order_acq_rel);
  for (WakeUp* bell : waiting_) bell->ring();
}

void ManualClock::set(Time t) {
  const std::scoped_lock lock{mutex_};
  if (t < now())
    throw ConfigError("a ManualClock cannot go back, and set() was given " + to_string(t) + " at " + to_string(now()));
  now_.store(t.time_since_epoch().count(), std::memory_order_release);
  for (WakeUp* bell : waiting_) bell->ring();
}

}  // namespace tidemill
