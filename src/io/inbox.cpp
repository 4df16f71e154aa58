#include "tidemill/io/inbox.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "tidemill/core/error.hpp"

namespace tidemill::detail {
namespace {

// A producer that cannot even post its work must not take the records of a batch with it, or the others' turn.
void call_all(const std::vector<std::function<void()>>& calls) noexcept {
  for (const auto& call : calls) {
    try {
      call();
    } catch (...) {
    }
  }
}

}  // namespace

InboxBase::InboxBase(std::shared_ptr<Clock> clock, InboxLimits limits) : clock_{std::move(clock)}, limits_{limits} {
  if (limits.max_buffered_bytes == 0)
    throw ConfigError("max_buffered_bytes is 0, so nothing could ever be received; give at least 1");
}

InboxBase::~InboxBase() = default;

std::size_t InboxBase::buffered_bytes() const noexcept {
  const std::scoped_lock lock{mutex_};
  return bytes_;
}

void InboxBase::ring_on_arrival(WakeUp* bell) noexcept { bell_.store(bell, std::memory_order_release); }

void InboxBase::open() noexcept {
  const std::scoped_lock lock{mutex_};
  closed_ = false;
}

void InboxBase::close() noexcept {
  std::vector<std::function<void()>> calls;
  {
    const std::scoped_lock lock{mutex_};
    closed_ = true;
    calls.swap(room_calls_);
    for (WakeUp* bell : waiting_) bell->ring();
  }
  call_all(calls);
}

void InboxBase::when_there_is_room(std::function<void()> call) {
  std::optional<Time> later;
  {
    const std::scoped_lock lock{mutex_};
    if (!closed_ && is_full()) {
      room_calls_.push_back(std::exchange(call, nullptr));
      later = room_time();
    }
  }
  if (call) return call();
  if (later) call_later(*later);
}

void InboxBase::call_later(Time when) {
  Later later;
  {
    const std::scoped_lock lock{mutex_};
    if (!later_ || (call_at_ && *call_at_ <= when)) return;  // the run is over; or that call will see to the rest
    call_at_ = when;
    later = later_;
  }
  try {
    later(when, [this, when] {
      {
        const std::scoped_lock lock{mutex_};
        if (call_at_ == when) call_at_.reset();
      }
      announce_room();
    });
  } catch (...) {
    const std::scoped_lock lock{mutex_};
    call_at_.reset();
    throw;
  }
}

void InboxBase::added(std::size_t records, std::size_t bytes) noexcept {
  bytes_ += bytes;
  waiting_records_.fetch_add(records, std::memory_order_acq_rel);
}

void InboxBase::removed(std::size_t records, std::size_t bytes) noexcept {
  bytes_ -= bytes;
  waiting_records_.fetch_sub(records, std::memory_order_acq_rel);
}

bool InboxBase::wait_for_room(std::unique_lock<std::mutex>& lock) {
  if (closed_ || !is_full()) return !closed_;
  WakeUp bell;
  waiting_.push_back(&bell);
  try {
    while (!closed_ && is_full()) {
      const std::optional<Time> deadline = room_time();
      lock.unlock();
      clock_->wait_until(deadline, bell);
      lock.lock();
    }
  } catch (...) {
    if (!lock.owns_lock()) lock.lock();
    std::erase(waiting_, &bell);
    throw;
  }
  std::erase(waiting_, &bell);
  return !closed_;
}

void InboxBase::announce_room() noexcept {
  std::vector<std::function<void()>> calls;
  std::optional<Time> later;
  {
    const std::scoped_lock lock{mutex_};
    if (out_of_memory()) return;
    for (WakeUp* bell : waiting_) bell->ring();
    if (room_calls_.empty()) return;
    if (out_of_budget()) {
      later = room_time();
    } else {
      calls.swap(room_calls_);
    }
  }
  if (!later) return call_all(calls);
  try {
    call_later(*later);
  } catch (...) {  // no memory for the wake-up: rather too much at once than a producer that waits for ever
    {
      const std::scoped_lock lock{mutex_};
      calls.swap(room_calls_);
    }
    call_all(calls);
  }
}

void InboxBase::announce_arrival() noexcept {
  if (WakeUp* const bell = bell_.load(std::memory_order_acquire)) bell->ring();
}

// ---- the rate -------------------------------------------------------------------------------------------------------------

namespace {

double seconds(Duration d) noexcept { return std::chrono::duration<double>{d}.count(); }

// A record is let in a little too early rather than a whole one too late, because of rounding.
constexpr double rounding = 1e-6;

// Without batches at fixed times, so much of a rate can be saved up while nothing comes.
constexpr Duration burst = std::chrono::milliseconds{100};

// Those who wait do so at least this long, and find a few records' worth: a wake-up costs more than a record.
constexpr Duration pause = std::chrono::milliseconds{1};

constexpr Duration longest_wait = std::chrono::hours{1};

}  // namespace

void InboxBase::set_max_rate(double records_per_second) {
  if (!(records_per_second > 0))
    throw ConfigError("max_rate must be above 0 records a second, and it is " + std::to_string(records_per_second));
  const std::scoped_lock lock{mutex_};
  max_rate_ = records_per_second;
  rate_ = std::min(max_rate_, granted_rate_);
}

void InboxBase::limit_rate(double records_per_second) noexcept {
  {
    const std::scoped_lock lock{mutex_};
    granted_rate_ = records_per_second;
    rate_ = std::min(max_rate_, granted_rate_);
  }
  announce_room();
}

double InboxBase::max_rate() const noexcept {
  const std::scoped_lock lock{mutex_};
  return max_rate_;
}

void InboxBase::begin_rate(Later later) {
  const std::scoped_lock lock{mutex_};
  const Time now = clock_->now();
  later_ = std::move(later);
  rate_ended_ = false;
  call_at_.reset();
  carry_ = 0;
  counted_from_ = grain_ == Duration::zero() ? now : floor_to(now, grain_);
}

void InboxBase::end_rate() noexcept {
  const std::scoped_lock lock{mutex_};
  rate_ended_ = true;
  later_ = nullptr;
}

void InboxBase::set_grain(Duration grain) noexcept {
  const std::scoped_lock lock{mutex_};
  grain_ = grain;
}

// What the rate allows from the last cut to t.
double InboxBase::earned_until(Time t) const noexcept {
  const double earned = carry_ + rate_ * seconds(t - counted_from_);
  return grain_ == Duration::zero() ? std::min(earned, std::max(1.0, rate_ * seconds(burst))) : earned;
}

double InboxBase::allowance_at(Time now) const noexcept {
  return earned_until(std::max(now, counted_from_)) - static_cast<double>(waiting_records_.load());
}

bool InboxBase::out_of_budget() const noexcept { return has_rate() && allowance_at(clock_->now()) < 1 - rounding; }

std::size_t InboxBase::allowance() const noexcept {
  const std::scoped_lock lock{mutex_};
  if (closed_ || is_full()) return 0;
  if (!has_rate()) return std::numeric_limits<std::size_t>::max();
  return static_cast<std::size_t>(std::min(allowance_at(clock_->now()) + rounding, 1e18));
}

std::optional<Time> InboxBase::room_time() const noexcept {
  if (out_of_memory() || !has_rate()) return std::nullopt;
  const Time now = clock_->now();
  const double lacking = std::max(1.0, rate_ * seconds(pause)) - allowance_at(now);
  const double wait = std::ceil(std::max(1.0, lacking / rate_ * 1e6));  // microseconds
  return now +
         (wait < static_cast<double>(longest_wait.count()) ? Duration{static_cast<Duration::rep>(wait)} : longest_wait);
}

std::size_t InboxBase::budget_of(Time t) const noexcept {
  // Without a grain the batch comes because something is there, and must not find nothing.
  if (!has_rate() || grain_ == Duration::zero()) return std::numeric_limits<std::size_t>::max();
  // A tick from before the start, which is made up for, is worth as much as any other.
  const double earned = earned_until(t > counted_from_ ? t : counted_from_ + grain_);
  return static_cast<std::size_t>(std::clamp(earned + rounding, 0.0, 1e18));
}

void InboxBase::spent(Time t, std::size_t records) noexcept {
  if (has_rate()) {
    carry_ = earned_until(t > counted_from_ ? t : counted_from_ + grain_) - static_cast<double>(records);
    // Batches at fixed times do not use what the ones before have left; but without the part of a record that no batch could
    // use, a low rate would never be reached.
    if (grain_ != Duration::zero() && carry_ > 0) carry_ = std::max(0.0, carry_ - std::floor(carry_ + rounding));
  }
  counted_from_ = std::max(t, counted_from_);
}

}  // namespace tidemill::detail
