// The host's Boost.Asio executor as a tidemill::Executor.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include <boost/asio/any_io_executor.hpp>

#include "tidemill/exec/executor.hpp"

namespace tidemill {
namespace detail {

class AsioExecutor final : public Executor {
 public:
  /// Errors: ConfigError.
  AsioExecutor(boost::asio::any_io_executor executor, std::size_t parallelism);

  [[nodiscard]] std::size_t parallelism() const noexcept override { return parallelism_; }
  void offer(std::function<void()> task) override;
  [[nodiscard]] const boost::asio::any_io_executor& executor() const noexcept { return executor_; }

 private:
  const boost::asio::any_io_executor executor_;
  const std::size_t parallelism_;
};

}  // namespace detail

// Declared for users in tidemill/asio.hpp.
[[nodiscard]] TIDEMILL_API std::shared_ptr<Executor> asio_executor(boost::asio::any_io_executor executor,
                                                                   std::size_t parallelism);

}  // namespace tidemill
