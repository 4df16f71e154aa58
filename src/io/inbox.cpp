#include "tidemill/io/inbox.hpp"

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
  }
  room_.notify_all();
  call_all(calls);
}

void InboxBase::when_there_is_room(std::function<void()> call) {
  {
    const std::scoped_lock lock{mutex_};
    if (!closed_ && is_full()) {
      room_calls_.push_back(std::move(call));
      return;
    }
  }
  call();
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
  room_.wait(lock, [this] { return closed_ || !is_full(); });
  return !closed_;
}

void InboxBase::announce_room() noexcept {
  std::vector<std::function<void()>> calls;
  {
    const std::scoped_lock lock{mutex_};
    if (is_full()) return;
    calls.swap(room_calls_);
  }
  room_.notify_all();
  call_all(calls);
}

void InboxBase::announce_arrival() noexcept {
  if (WakeUp* const bell = bell_.load(std::memory_order_acquire)) bell->ring();
}

}  // namespace tidemill::detail
