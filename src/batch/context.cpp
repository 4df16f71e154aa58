#include "tidemill/batch/context.hpp"

#include <algorithm>
#include <thread>
#include <utility>

#include "tidemill/batch/batch.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/core/fs.hpp"

namespace tidemill {
namespace detail {
namespace {

std::shared_ptr<Executor> choose_executor(const ContextOptions& options) {
  if (options.executor) return options.executor;
  const std::size_t cores = std::max(1U, std::thread::hardware_concurrency());
  return std::make_shared<WorkerPool>(options.app_name, options.parallelism == 0 ? cores : options.parallelism);
}

}  // namespace

Runtime::Runtime(ContextOptions options)
    : app_name{options.app_name},
      clock{options.clock ? options.clock : std::make_shared<SystemClock>()},
      executor{choose_executor(options)},
      own_workers{options.executor ? nullptr : static_cast<WorkerPool*>(executor.get())},
      fs{options.fs ? options.fs : Fs::real()},
      logger_{std::move(options.log)} {}

Runtime::~Runtime() = default;

void Runtime::log(LogLevel level, std::string_view line) const noexcept {
  if (!logger_) return;
  try {
    logger_(level, line);
  } catch (...) {  // a logger that fails must not take the stream with it
  }
}

}  // namespace detail

Context::Context(Options options) {
  if (options.app_name.empty())
    throw ConfigError("app_name is empty; give the application a name, for logs and threads");
  runtime_ = std::make_shared<detail::Runtime>(std::move(options));
}

const std::string& Context::app_name() const noexcept { return runtime_->app_name; }
std::size_t Context::parallelism() const noexcept { return runtime_->executor->parallelism(); }
LongAccumulator Context::long_accumulator() const { return {}; }
DoubleAccumulator Context::double_accumulator() const { return {}; }

Batch<std::int64_t> Context::range(std::int64_t begin, std::int64_t end, std::int64_t step,
                                   std::size_t partitions) const {
  if (step == 0) throw ConfigError("the step of a range must not be 0");
  // Unsigned, because `end - begin` may not fit.
  const bool ascends = step > 0;
  const bool empty = ascends ? begin >= end : begin <= end;
  const auto from = static_cast<std::uint64_t>(ascends ? begin : end);
  const auto until = static_cast<std::uint64_t>(ascends ? end : begin);
  const std::uint64_t width =
      ascends ? static_cast<std::uint64_t>(step) : std::uint64_t{0} - static_cast<std::uint64_t>(step);
  const std::uint64_t count = empty ? 0 : (until - from - 1) / width + 1;
  return Batch<std::int64_t>{std::make_shared<const detail::RangeNode>(
      std::make_shared<const detail::Scope>(detail::Scope{runtime_, std::nullopt}), begin, step,
      static_cast<std::size_t>(count), partitions == 0 ? parallelism() : partitions)};
}

Clock& Context::clock() const noexcept { return *runtime_->clock; }

}  // namespace tidemill
