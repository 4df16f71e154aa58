#include "engine/watchdog.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "tidemill/exec/executor.hpp"

namespace tidemill::detail {

RunningStages::Stage::Stage(RunningStages& all, RunningStage::Kind kind, std::string_view name,
                            std::optional<Time> batch_time, Time since) noexcept
    : all_{all}, kind_{kind}, batch_time_{batch_time}, since_{since}, name_{name} {
  const std::scoped_lock lock{all_.mutex_};
  older_ = all_.newest_;
  (older_ != nullptr ? older_->newer_ : all_.oldest_) = this;
  all_.newest_ = this;
}

RunningStages::Stage::~Stage() {
  const std::scoped_lock lock{all_.mutex_};
  (older_ != nullptr ? older_->newer_ : all_.oldest_) = newer_;
  (newer_ != nullptr ? newer_->older_ : all_.newest_) = older_;
}

void RunningStages::Stage::go_on(std::string_view name) noexcept {
  const std::scoped_lock lock{all_.mutex_};
  name_ = name;
}

std::vector<RunningStage> RunningStages::list() const {
  std::vector<RunningStage> all;
  const std::scoped_lock lock{mutex_};
  for (const Stage* stage = oldest_; stage != nullptr; stage = stage->newer_)
    all.push_back({stage->kind_, std::string{stage->name_}, stage->batch_time_, stage->since_});
  return all;
}

std::vector<RunningStage> RunningStages::overdue(Time now, Duration limit, Time& next) {
  std::vector<RunningStage> all;
  next = later(now, limit);
  const std::scoped_lock lock{mutex_};
  for (Stage* stage = oldest_; stage != nullptr; stage = stage->newer_) {
    if (stage->is_told_) continue;
    if (now < later(stage->since_, limit)) {
      next = std::min(next, later(stage->since_, limit));
      continue;
    }
    all.push_back({stage->kind_, std::string{stage->name_}, stage->batch_time_, stage->since_});
    stage->is_told_ = true;
  }
  return all;
}

void Watchdog::start(std::shared_ptr<Runtime> runtime, RunningStages& stages, Duration limit) {
  // The limit runs from now, however long the thread takes to come.
  const Time next = later(runtime->clock->now(), limit);
  thread_ =
      std::thread{[this, runtime = std::move(runtime), &stages, limit, next] { run(*runtime, stages, limit, next); }};
}

void Watchdog::close() noexcept {
  if (!thread_.joinable()) return;
  is_closing_.store(true);
  bell_.ring();
  thread_.join();
}

void Watchdog::run(const Runtime& runtime, RunningStages& stages, Duration limit, Time next) noexcept {
  id_.store(std::this_thread::get_id());
  name_this_thread(runtime.app_name.substr(0, 9) + "-watch");
  while (!is_closing_.load()) {
    try {
      runtime.clock->wait_until(next, bell_);
      if (is_closing_.load()) break;
      const Time now = runtime.clock->now();
      for (const RunningStage& stage : stages.overdue(now, limit, next))
        runtime.log(LogLevel::warning, to_string(stage) + " has been running for " + to_string(now - stage.since) +
                                           "; it is waited for, and what comes after it waits, too");
    } catch (const std::bad_alloc&) {  // the line is lost; what is the matter stands in the metrics
    }
  }
  id_.store({});
}

}  // namespace tidemill::detail
