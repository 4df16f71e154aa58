// Threads that lend a hand: the pool of named workers, and the one way in which work on partitions is spread over them.
// Nothing here knows what a batch is.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tidemill/core/config.hpp"
#include "tidemill/core/function_ref.hpp"

namespace tidemill {

/// A place where functions run. The host's own executor can be one (tidemill/asio.hpp has the bridge for Boost.Asio).
/// Threads: every member may be called by any thread.
class TIDEMILL_API Executor {
 public:
  virtual ~Executor() = default;

  /// How many threads may work on one batch at a time, the calling one included. At least 1.
  [[nodiscard]] virtual std::size_t parallelism() const noexcept = 0;

  /// Runs `task` at some time on some thread, or never: work is only ever *offered*, and the thread that offers it does
  /// whatever nobody else has started. So a busy or stopped executor slows a batch down and never stalls it.
  /// `task` does not throw. Errors: std::bad_alloc; then the task is not run.
  virtual void offer(std::function<void()> task) = 0;

 protected:
  Executor() = default;
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;
};

/// Own worker threads, `parallelism - 1` of them, since the thread that runs a batch works too. They start at the first
/// offer and are joined by `release` (or the destructor); between offers they sleep.
/// Threads: every member may be called by any thread; the destructor by one, after all others are done.
class TIDEMILL_API WorkerPool final : public Executor {
 public:
  /// Workers are named "<name>-1", "<name>-2", …, cut to the 15 characters that the kernel keeps.
  /// Errors: ConfigError unless 1 <= parallelism <= 1024.
  WorkerPool(std::string name, std::size_t parallelism);
  ~WorkerPool() override;

  [[nodiscard]] std::size_t parallelism() const noexcept override { return parallelism_; }
  void offer(std::function<void()> task) override;

  /// A stream that runs holds the threads; when the last one lets go, they are joined. Later offers start them again.
  void retain() noexcept;
  void release() noexcept;

 private:
  void work();
  void join_all() noexcept;

  const std::string name_;
  const std::size_t parallelism_;
  std::atomic<int> users_ = 0;

  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  std::vector<std::thread> threads_;
  bool stopping_ = false;
};

/// Calls `task(0)` … `task(count - 1)`, each once, on the calling thread and whatever help the executor gives, and returns
/// when all are done. With `Spread::inline_only`, or when there is nobody to help, the calling thread does all, in order.
/// Errors: rethrows what the lowest failing index threw, after the others have ended.
enum class Spread { inline_only, over_workers };
TIDEMILL_API void for_each_partition(Executor& executor, std::size_t count, Spread spread,
                                     FunctionRef<void(std::size_t)> task);

/// Names the calling thread for debuggers and `top`; at most 15 characters are kept.
TIDEMILL_API void name_this_thread(const std::string& name) noexcept;

}  // namespace tidemill
