// For hosts that run Boost.Asio: the host's threads do the work of batches and sockets, and Tidemill starts none of its own
// for them. And for hosts that wait as Asio does: with callbacks, futures and co_await. This is the one public header that
// includes Asio.
//
//     boost::asio::io_context io;
//     tidemill::Context context{{.executor = tidemill::asio_executor(io, 4)}};   // 4 threads call io.run()
//     …
//     co_await ssc.async_await_termination(boost::asio::use_awaitable);          // throws the first error of a batch
#pragma once

#include <concepts>
#include <cstddef>
#include <exception>
#include <memory>
#include <utility>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/system_executor.hpp>

#include "tidemill/core/config.hpp"
#include "tidemill/dstream/streaming_context.hpp"
#include "tidemill/exec/executor.hpp"

namespace tidemill {

/// The host's executor as one of ours, for ContextOptions::executor. Sockets are then read there too.
/// `parallelism`: how many threads may work on one batch, the one that runs it included; mostly the number that run the
/// executor. Work is only offered: a busy or stopped executor slows batches down and never stalls them, but sockets are read
/// only while somebody runs it.
/// Lifetime: the execution context outlives every StreamingContext that uses it.
/// Errors: ConfigError unless 1 <= parallelism <= 1024.
[[nodiscard]] TIDEMILL_API std::shared_ptr<Executor> asio_executor(boost::asio::any_io_executor executor,
                                                                   std::size_t parallelism);

/// The same for an execution context: an io_context or a thread_pool.
template <class ExecutionContext>
  requires std::convertible_to<typename ExecutionContext::executor_type, boost::asio::any_io_executor>
[[nodiscard]] std::shared_ptr<Executor> asio_executor(ExecutionContext& context, std::size_t parallelism) {
  return tidemill::asio_executor(boost::asio::any_io_executor{context.get_executor()}, parallelism);
}

/// Completes with the first error of a batch, or with null once the context has stopped: `void(std::exception_ptr)`.
/// The handler runs on its associated executor; without one, on Asio's system executor. Its executor is kept busy meanwhile.
/// The operation cannot be cancelled; stop the context.
template <class CompletionToken>
auto StreamingContext::async_await_termination(CompletionToken&& token) {
  return boost::asio::async_initiate<CompletionToken, void(std::exception_ptr)>(
      [engine = engine_](auto handler) {
        using Handler = decltype(handler);
        const auto executor = boost::asio::get_associated_executor(handler, boost::asio::system_executor{});
        // std::function wants a copyable callable, and handlers can only be moved.
        struct Waiting {
          Handler handler;
          boost::asio::executor_work_guard<std::remove_const_t<decltype(executor)>> work;
        };
        auto waiting = std::make_shared<Waiting>(Waiting{std::move(handler), boost::asio::make_work_guard(executor)});
        engine->when_terminated([waiting](std::exception_ptr error) {
          const auto target = waiting->work.get_executor();
          boost::asio::post(target, [waiting, error = std::move(error)]() mutable {
            Handler done = std::move(waiting->handler);
            waiting->work.reset();
            std::move(done)(std::move(error));
          });
        });
      },
      token);
}

}  // namespace tidemill
