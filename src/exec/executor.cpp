#include "tidemill/exec/executor.hpp"

#include <algorithm>
#include <exception>
#include <pthread.h>
#include <utility>

#include "tidemill/core/error.hpp"

namespace tidemill {
namespace {

constexpr std::size_t thread_name_bytes = 15;  // what the kernel keeps

// One spread of tasks over threads. It outlives the call that made it only in the hands of helpers that came too late
// to find work, so it is shared, and the task it refers to is touched only while some index is unfinished.
class Crew {
 public:
  Crew(std::size_t count, FunctionRef<void(std::size_t)> task) : count_{count}, task_{task}, errors_(count) {}

  // Takes indexes until none is left.
  void help() noexcept {
    std::size_t finished = 0;
    for (std::size_t i = next_.fetch_add(1); i < count_; i = next_.fetch_add(1)) {
      try {
        task_(i);
      } catch (...) {
        errors_[i] = std::current_exception();
      }
      ++finished;
    }
    if (finished == 0) return;
    if (done_.fetch_add(finished, std::memory_order_acq_rel) + finished == count_) done_.notify_all();
  }

  void wait() noexcept {
    for (std::size_t done = done_.load(std::memory_order_acquire); done != count_;
         done = done_.load(std::memory_order_acquire)) {
      done_.wait(done, std::memory_order_acquire);
    }
  }

  // Takes the errors along, so that a helper that lets go of the crew late does not destroy them behind the caller's back.
  void rethrow_first() {
    const std::vector<std::exception_ptr> errors = std::exchange(errors_, {});
    for (const std::exception_ptr& error : errors) {
      if (error) std::rethrow_exception(error);
    }
  }

 private:
  const std::size_t count_;
  const FunctionRef<void(std::size_t)> task_;
  std::atomic<std::size_t> next_ = 0;
  std::atomic<std::size_t> done_ = 0;
  std::vector<std::exception_ptr> errors_;  // each index written by the thread that ran it, read after done_ == count_
};

void run_inline(std::size_t count, FunctionRef<void(std::size_t)> task) {
  std::exception_ptr first;
  for (std::size_t i = 0; i < count; ++i) {
    try {
      task(i);
    } catch (...) {
      if (!first) first = std::current_exception();
    }
  }
  if (first) std::rethrow_exception(first);
}

}  // namespace

WorkerPool::WorkerPool(std::string name, std::size_t parallelism) : name_{std::move(name)}, parallelism_{parallelism} {
  if (parallelism < 1 || parallelism > 1024)
    throw ConfigError("parallelism must lie between 1 and 1024, and it is " + std::to_string(parallelism));
}

WorkerPool::~WorkerPool() { join_all(); }

void WorkerPool::offer(std::function<void()> task) {
  {
    const std::scoped_lock lock{mutex_};
    if (stopping_) return;
    tasks_.push_back(std::move(task));
    if (threads_.size() < parallelism_ - 1) {
      try {
        threads_.reserve(parallelism_ - 1);
        while (threads_.size() < parallelism_ - 1) {
          const std::string number = '-' + std::to_string(threads_.size() + 1);
          const std::string label = name_.substr(0, thread_name_bytes - number.size()) + number;
          threads_.emplace_back([this, label] {
            name_this_thread(label);
            work();
          });
        }
      } catch (...) {
        // No thread to be had: the thread that offers does the work itself.
        if (threads_.empty()) tasks_.clear();
      }
    }
  }
  wake_.notify_one();
}

void WorkerPool::work() {
  std::unique_lock lock{mutex_};
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
    if (stopping_) return;
    {
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
    }
    lock.lock();
  }
}

void WorkerPool::retain() noexcept { users_.fetch_add(1); }

void WorkerPool::release() noexcept {
  if (users_.fetch_sub(1) == 1) join_all();
}

void WorkerPool::join_all() noexcept {
  std::vector<std::thread> threads;
  {
    const std::scoped_lock lock{mutex_};
    stopping_ = true;
    threads.swap(threads_);
    tasks_.clear();
  }
  wake_.notify_all();
  for (std::thread& thread : threads) thread.join();
  const std::scoped_lock lock{mutex_};
  stopping_ = false;
}

void for_each_partition(Executor& executor, std::size_t count, Spread spread, FunctionRef<void(std::size_t)> task) {
  const std::size_t threads = std::min(count, executor.parallelism());
  if (threads <= 1 || spread == Spread::inline_only) return run_inline(count, task);
  const auto crew = std::make_shared<Crew>(count, task);  // shared with helpers that may come late, see Crew
  try {
    for (std::size_t i = 1; i < threads; ++i) executor.offer([crew] { crew->help(); });
  } catch (...) {
    // No memory for another helper. Those that came may be at work already, so leaving now would pull the task from
    // under them; the calling thread does what they do not.
  }
  crew->help();
  crew->wait();
  crew->rethrow_first();
}

void name_this_thread(const std::string& name) noexcept {
  char text[thread_name_bytes + 1] = {};
  name.copy(text, thread_name_bytes);
  pthread_setname_np(pthread_self(), text);
}

}  // namespace tidemill
