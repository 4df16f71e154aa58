// The side of IoService that knows Asio, for connectors.
#pragma once

#include <boost/asio/any_io_executor.hpp>

#include "tidemill/io/io_service.hpp"

namespace tidemill::detail {

/// The executor to make sockets and timers with. Starts the thread when there is none yet. What runs there must not throw.
/// Errors: SourceError "no_thread" when the system gives no thread.
[[nodiscard]] boost::asio::any_io_executor executor_of(IoService& service);

}  // namespace tidemill::detail
