// What a context is doing just now, and a thread that says when something takes too long: a function of the user that hangs is
// named, and never ended.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "tidemill/batch/context.hpp"
#include "tidemill/core/clock.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/engine/listener.hpp"

namespace tidemill::detail {

/// The stages that run. Nothing is allocated for one: each stands on the stack of the thread that runs it.
/// Threads: any.
/// Cost:    a short lock at the beginning and at the end of a stage.
class RunningStages {
 public:
  class Stage {
   public:
    /// `name` is looked at as long as the stage runs.
    Stage(RunningStages& all, RunningStage::Kind kind, std::string_view name, std::optional<Time> batch_time,
          Time since) noexcept;
    ~Stage();
    Stage(const Stage&) = delete;
    Stage& operator=(const Stage&) = delete;

    /// The stage goes on with the next of the same kind; it runs since its beginning.
    void go_on(std::string_view name) noexcept;

   private:
    friend class RunningStages;
    RunningStages& all_;
    const RunningStage::Kind kind_;
    const std::optional<Time> batch_time_;
    const Time since_;
    std::string_view name_;  // this and what follows is guarded by all_.mutex_
    bool is_told_ = false;
    Stage* older_ = nullptr;
    Stage* newer_ = nullptr;
  };

  RunningStages() = default;
  RunningStages(const RunningStages&) = delete;
  RunningStages& operator=(const RunningStages&) = delete;

  /// The oldest first.
  [[nodiscard]] std::vector<RunningStage> list() const;

  /// Those that have been running for `limit` at `now`, each once; `next` becomes the time at which to look again.
  [[nodiscard]] std::vector<RunningStage> overdue(Time now, Duration limit, Time& next);

 private:
  mutable std::mutex mutex_;  // guards what follows
  Stage* oldest_ = nullptr;
  Stage* newest_ = nullptr;
};

/// Threads: start and close by one thread, the rest by any.
class Watchdog {
 public:
  Watchdog() = default;
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  ~Watchdog() { close(); }

  /// Logs a warning when a stage has been running for `limit`, by a thread of its own, which wakes once in `limit` when nothing
  /// is the matter. `stages` outlives it. Errors: std::system_error, when there are no more threads to be had.
  void start(std::shared_ptr<Runtime> runtime, RunningStages& stages, Duration limit);
  /// Joins the thread.
  void close() noexcept;

  /// Whether the caller is the thread, as it is in the log hook.
  [[nodiscard]] bool has_this_thread() const noexcept { return id_.load() == std::this_thread::get_id(); }

 private:
  void run(const Runtime& runtime, RunningStages& stages, Duration limit, Time next) noexcept;

  WakeUp bell_;
  std::atomic<bool> is_closing_ = false;
  std::atomic<std::thread::id> id_ = {};
  std::thread thread_;
};

}  // namespace tidemill::detail
