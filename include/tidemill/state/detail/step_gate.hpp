// Who may look at a state, and when: batches go first.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>

#include "tidemill/core/config.hpp"

namespace tidemill::detail {

/// Lets in either the one batch that changes a state, or one reader at a time. A reader stays for as long as a few thousand
/// entries take, then steps aside when a batch waits; so a batch never waits longer than that, however many read.
class StepGate {
 public:
  /// Held while a batch changes the state.
  class Step {
   public:
    explicit Step(StepGate& gate) : gate_{gate} {
      gate_.wanted_.fetch_add(1);
      gate_.mutex_.lock();
    }
    ~Step() {
      gate_.wanted_.fetch_sub(1);  // under the mutex, so that no reader misses it
      gate_.mutex_.unlock();
      gate_.passed_.notify_all();
    }
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;

   private:
    StepGate& gate_;
  };

  [[nodiscard]] std::unique_lock<std::mutex> read() {
    std::unique_lock lock{mutex_};
    passed_.wait(lock, [this] { return wanted_.load() == 0; });
    return lock;
  }

 private:
  std::mutex mutex_;
  std::condition_variable passed_;
  std::atomic<int> wanted_ = 0;  // batches that wait or are in
};

}  // namespace tidemill::detail
