#include "io/asio_executor.hpp"

#include <string>
#include <utility>

#include <boost/asio/post.hpp>

#include "tidemill/core/error.hpp"

namespace tidemill {
namespace detail {

AsioExecutor::AsioExecutor(boost::asio::any_io_executor executor, std::size_t parallelism)
    : executor_{std::move(executor)}, parallelism_{parallelism} {
  if (!executor_) throw ConfigError("the executor given to asio_executor is empty; give io_context.get_executor()");
  if (parallelism < 1 || parallelism > 1024)
    throw ConfigError("parallelism must lie between 1 and 1024, and it is " + std::to_string(parallelism) +
                      "; give the number of threads that run the executor");
}

void AsioExecutor::offer(std::function<void()> task) { boost::asio::post(executor_, std::move(task)); }

}  // namespace detail

std::shared_ptr<Executor> asio_executor(boost::asio::any_io_executor executor, std::size_t parallelism) {
  return std::make_shared<detail::AsioExecutor>(std::move(executor), parallelism);
}

}  // namespace tidemill
