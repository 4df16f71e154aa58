// The limit programs of the streaming benchmarks: what is left when there is no library. A thread sleeps, wakes, takes what
// has arrived and runs the loop; nothing is named, logged, measured or caught.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <sys/prctl.h>
#include <thread>
#include <time.h>
#include <utility>
#include <vector>

#include <boost/unordered/unordered_flat_map.hpp>

namespace tidemill::bench {

using Nanoseconds = std::int64_t;  // of the steady clock
using Key = std::uint32_t;
using KeyCounts = boost::unordered_flat_map<Key, long>;

inline Nanoseconds steady_now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

inline void sleep_until(Nanoseconds deadline) {
  const timespec until{.tv_sec = deadline / 1'000'000'000, .tv_nsec = deadline % 1'000'000'000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) != 0) {
  }
}

/// The loop that map and reduce_by_key stand for.
inline void count_keys(std::span<const Key> keys, KeyCounts& counts) {
  counts.clear();
  for (const Key key : keys) {
    ++counts[key];
  }
}

/// Where records wait for their batch.
class BareInbox {
 public:
  void push(std::span<const Key> records) {
    {
      const std::lock_guard lock(mutex_);
      waiting_.insert(waiting_.end(), records.begin(), records.end());
    }
    arrived_.notify_one();
  }

  /// Swaps what has arrived into `records`.
  void take(std::vector<Key>& records) {
    records.clear();
    const std::lock_guard lock(mutex_);
    records.swap(waiting_);
  }

  /// The same, but waits until there is something, or until close().
  void wait_and_take(std::vector<Key>& records) {
    records.clear();
    std::unique_lock lock(mutex_);
    arrived_.wait(lock, [this] { return closed_ || !waiting_.empty(); });
    records.swap(waiting_);
  }

  void close() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    arrived_.notify_one();
  }

 private:
  std::mutex mutex_;  // guards what follows
  std::condition_variable arrived_;
  std::vector<Key> waiting_;
  bool closed_ = false;
};

/// Called on the bare thread behind each batch: the tick it belongs to, when the thread woke, and the result.
using OnBareBatch = std::function<void(Nanoseconds tick, Nanoseconds woken, const KeyCounts& counts)>;

/// Wakes at absolute deadlines, every `interval` since the epoch of the steady clock, from construction to destruction.
/// Asks for punctual timers, without which the kernel lets every wake-up be 50 us late: the library's thread does so too.
class BareTicker {
 public:
  BareTicker(Nanoseconds interval, OnBareBatch on_batch)
      : thread_([this, interval, on_batch = std::move(on_batch)](const std::stop_token& stop) {
          prctl(PR_SET_TIMERSLACK, 1UL);
          std::vector<Key> records;
          KeyCounts counts;
          Nanoseconds tick = (steady_now() / interval + 1) * interval;
          for (; !stop.stop_requested(); tick += interval) {
            sleep_until(tick);
            const Nanoseconds woken = steady_now();
            inbox_.take(records);
            count_keys(records, counts);
            on_batch(tick, woken, counts);
          }
        }) {}

  void push(std::span<const Key> records) { inbox_.push(records); }

  /// Where its ticks lie on the steady clock: tick % interval.
  [[nodiscard]] static Nanoseconds phase() { return 0; }

 private:
  BareInbox inbox_;
  std::jthread thread_;  // last: it uses the inbox
};

/// Wakes when something has arrived: the bare thread hand-off through a mutex and a condition variable.
class BareHandOff {
 public:
  explicit BareHandOff(OnBareBatch on_batch)
      : thread_([this, on_batch = std::move(on_batch)](const std::stop_token& stop) {
          std::vector<Key> records;
          KeyCounts counts;
          for (;;) {
            inbox_.wait_and_take(records);
            if (records.empty() && stop.stop_requested()) {
              return;
            }
            const Nanoseconds woken = steady_now();
            count_keys(records, counts);
            on_batch(woken, woken, counts);
          }
        }) {}

  ~BareHandOff() {
    thread_.request_stop();
    inbox_.close();
  }

  void push(std::span<const Key> records) { inbox_.push(records); }

 private:
  BareInbox inbox_;
  std::jthread thread_;  // last: it uses the inbox
};

}  // namespace tidemill::bench
