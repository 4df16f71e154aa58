// Where asynchronous input and output runs: on the host's Boost.Asio executor when the context was given one, else on one
// thread of ours. What it is made of (Asio) stays in src/io.
#pragma once

#include <memory>

#include "tidemill/core/config.hpp"

namespace tidemill::detail {

class Runtime;

/// The home of sockets and timers. One for each engine.
/// Threads: use by any thread, also while it stops; the destructor after all uses.
class TIDEMILL_API IoService {
 public:
  /// The host's executor when `runtime.executor` came from `asio_executor`; else a thread of its own, named
  /// "<application>-io", that starts when something is first to be done.
  explicit IoService(std::shared_ptr<Runtime> runtime);
  /// Does stop().
  ~IoService();

  /// Ends the thread, if there is one, and drops what it had still to do. A later use starts a new one. The host's executor
  /// is left alone. Pre: every input that uses it has been stopped.
  /// May wait: a name that is being looked up (getaddrinfo) cannot be interrupted.
  void stop() noexcept;

  struct Impl;
  [[nodiscard]] Impl& impl() noexcept { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidemill::detail
