// For hosts that run Boost.Asio: the host's threads do the work of batches and sockets, and Tidemill starts none of its own
// for them. This is the one public header that includes Asio.
//
//     boost::asio::io_context io;
//     tidemill::Context context{{.executor = tidemill::asio_executor(io, 4)}};   // 4 threads call io.run()
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <concepts>
#include <cstddef>
#include <memory>

#include "tidemill/core/config.hpp"
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

}  // namespace tidemill
