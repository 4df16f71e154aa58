#include "engine/job_threads.hpp"

#include <algorithm>
#include <utility>

#include "tidemill/exec/executor.hpp"

namespace tidemill::detail {

void JobThreads::start(std::size_t count, const std::string& name) {
  const std::scoped_lock lock{mutex_};
  threads_.reserve(count);
  while (threads_.size() < count) {
    threads_.emplace_back([this, label = name + '-' + std::to_string(threads_.size() + 1)] {
      name_this_thread(label);
      run();
    });
  }
}

void JobThreads::submit(std::function<void()> work) {
  {
    const std::scoped_lock lock{mutex_};
    work_.push_back(std::move(work));
  }
  wake_.notify_one();
}

void JobThreads::close() noexcept {
  std::vector<std::thread> threads;
  {
    const std::scoped_lock lock{mutex_};
    closing_ = true;
    threads.swap(threads_);
  }
  wake_.notify_all();
  for (std::thread& thread : threads) thread.join();
}

bool JobThreads::have_this_thread() const {
  const std::scoped_lock lock{mutex_};
  return std::any_of(threads_.begin(), threads_.end(),
                     [](const std::thread& thread) { return thread.get_id() == std::this_thread::get_id(); });
}

void JobThreads::run() {
  std::unique_lock lock{mutex_};
  while (true) {
    wake_.wait(lock, [this] { return closing_ || !work_.empty(); });
    if (work_.empty()) return;
    const std::function<void()> work = std::move(work_.front());
    work_.pop_front();
    lock.unlock();
    work();
    lock.lock();
  }
}

}  // namespace tidemill::detail
