#include "io/io_service.hpp"

#include <exception>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>

#include "io/asio_executor.hpp"
#include "tidemill/batch/context.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/exec/executor.hpp"

namespace tidemill::detail {
namespace {

using WorkGuard = boost::asio::executor_work_guard<boost::asio::io_context::executor_type>;

// Runs handlers until the context is stopped. Handlers of ours do not throw; should one, the others go on.
void run(boost::asio::io_context& context, const Runtime& runtime) noexcept {
  while (!context.stopped()) {
    try {
      context.run();
    } catch (...) {
      try {
        runtime.log(LogLevel::error, "an I/O handler failed: " + describe(std::current_exception()));
      } catch (...) {  // no memory to say so
      }
    }
  }
}

}  // namespace

struct IoService::Impl {
  explicit Impl(std::shared_ptr<Runtime> for_runtime) : runtime{std::move(for_runtime)} {
    if (const auto* host = dynamic_cast<const AsioExecutor*>(runtime->executor.get())) host_executor = host->executor();
  }

  const std::shared_ptr<Runtime> runtime;      // shared: the thread logs there
  boost::asio::any_io_executor host_executor;  // empty when the host gave none

  std::mutex mutex;                                  // guards what follows
  std::shared_ptr<boost::asio::io_context> context;  // shared with its thread
  std::thread thread;
};

IoService::IoService(std::shared_ptr<Runtime> runtime) : impl_{std::make_unique<Impl>(std::move(runtime))} {}
IoService::~IoService() { stop(); }

void IoService::stop() noexcept {
  std::shared_ptr<boost::asio::io_context> context;
  std::thread thread;
  {
    const std::scoped_lock lock{impl_->mutex};
    context.swap(impl_->context);
    thread.swap(impl_->thread);
  }
  if (!context) return;
  context->stop();
  if (thread.get_id() == std::this_thread::get_id()) {
    thread.detach();  // a handler gave up the last hold on the engine; its thread ends as soon as it returns
  } else {
    thread.join();
  }
}

boost::asio::any_io_executor executor_of(IoService& service) {
  IoService::Impl& impl = service.impl();
  if (impl.host_executor) return impl.host_executor;
  const std::scoped_lock lock{impl.mutex};
  if (!impl.context) {
    auto context = std::make_shared<boost::asio::io_context>(1);
    try {
      impl.thread = std::thread{[context, runtime = impl.runtime, guard = WorkGuard{context->get_executor()}] {
        name_this_thread(runtime->app_name.substr(0, 12) + "-io");
        run(*context, *runtime);
      }};
    } catch (const std::system_error& error) {
      throw SourceError(
          "no_thread", std::string{"the system gives no thread for I/O: "} + error.what(), Retry::may_help,
          {.application = impl.runtime->app_name, .op = {}, .batch_time = {}, .partition = {}, .offset = {}});
    }
    impl.context = std::move(context);
  }
  return impl.context->get_executor();
}

}  // namespace tidemill::detail
