#include "tidemill/core/clock.hpp"

#include "tidemill/core/error.hpp"

namespace tidemill {

void WakeUp::ring() noexcept {
  if (rung_.load(std::memory_order_acquire)) return;
  {
    const std::scoped_lock lock{mutex_};
    rung_.store(true, std::memory_order_release);
  }
  changed_.notify_one();
}

bool WakeUp::wait(std::optional<std::chrono::steady_clock::time_point> deadline) noexcept {
  std::unique_lock lock{mutex_};
  const auto rung = [this] { return rung_.load(std::memory_order_relaxed); };
  if (deadline) {
    changed_.wait_until(lock, *deadline, rung);
  } else {
    changed_.wait(lock, rung);
  }
  return rung_.exchange(false, std::memory_order_acq_rel);
}

SystemClock::SystemClock() noexcept
    : steady_origin_{std::chrono::steady_clock::now()}, system_origin_{std::chrono::system_clock::now()} {}

Time SystemClock::now() const noexcept {
  return std::chrono::floor<Duration>(system_origin_ + (std::chrono::steady_clock::now() - steady_origin_));
}

void SystemClock::wait_until(std::optional<Time> deadline, WakeUp& bell) {
  std::optional<std::chrono::steady_clock::time_point> steady;
  if (deadline) steady = steady_origin_ + (*deadline - system_origin_);
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
