// The lock that start, step and stop of a context hold, each to its end: a batch may take long, so one can wait for it for a
// limited time. (std::timed_mutex would do, but ThreadSanitizer does not see it being locked.)
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

namespace tidemill::detail {

/// Threads: any; unlock by that which locked.
class LifeLock {
 public:
  LifeLock() = default;
  LifeLock(const LifeLock&) = delete;
  LifeLock& operator=(const LifeLock&) = delete;

  void lock() {
    std::unique_lock lock{mutex_};
    freed_.wait(lock, [this] { return !is_held_; });
    is_held_ = true;
  }
  bool try_lock_until(std::chrono::steady_clock::time_point deadline) {
    std::unique_lock lock{mutex_};
    if (!freed_.wait_until(lock, deadline, [this] { return !is_held_; })) return false;
    is_held_ = true;
    return true;
  }
  void unlock() {
    {
      const std::scoped_lock lock{mutex_};
      is_held_ = false;
    }
    freed_.notify_one();
  }

 private:
  std::mutex mutex_;
  std::condition_variable freed_;
  bool is_held_ = false;  // guarded by mutex_
};

}  // namespace tidemill::detail
