// The threads of output operations, when several may run at once (StreamingOptions::concurrent_jobs).
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace tidemill::detail {

/// Threads: start and close by one thread, all else by any.
class JobThreads {
 public:
  JobThreads() = default;
  JobThreads(const JobThreads&) = delete;
  JobThreads& operator=(const JobThreads&) = delete;
  ~JobThreads() { close(); }

  /// Errors: std::system_error, when there are no more threads to be had.
  void start(std::size_t count, const std::string& name);
  /// Work is begun in the order in which it came. Pre: started; `work` does not throw. Errors: std::bad_alloc, and it is not run.
  void submit(std::function<void()> work);
  /// Waits for all that was submitted, and joins the threads.
  void close() noexcept;

  /// Whether the caller is one of them.
  [[nodiscard]] bool have_this_thread() const;

 private:
  void run();

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::deque<std::function<void()>> work_;
  std::vector<std::thread> threads_;
  bool closing_ = false;
};

}  // namespace tidemill::detail
