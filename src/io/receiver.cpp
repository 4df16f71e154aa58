#include "tidemill/io/receiver.hpp"

#include <utility>

#include "tidemill/core/error.hpp"

namespace tidemill::detail {
namespace {

std::string with_cause(const std::string& message, const std::exception_ptr& error) {
  return error ? message + ": " + describe(error) : message;
}

}  // namespace

void check_block_interval(Duration interval) {
  if (interval <= Duration::zero())
    throw ConfigError("block_interval must be positive, and it is " + to_string(interval) +
                      "; leave it out for blocks that end with their batch");
}

ReceiverBase::~ReceiverBase() = default;

std::size_t ReceiverBase::stream_id() const noexcept {
  const std::scoped_lock lock{mutex_};
  return stream_id_;
}

bool ReceiverBase::is_started() const noexcept {
  const std::scoped_lock lock{mutex_};
  return started_;
}

void ReceiverBase::claim(InputHost& host, std::size_t stream_id, const ReceiverOptions& options) {
  const std::scoped_lock lock{mutex_};
  if (host_ != nullptr)
    throw PlanError("receiver_in_use", "the receiver \"" + options.name +
                                           "\" already feeds a running stream; give each "
                                           "stream a receiver of its own");
  options_ = options;
  host_ = &host;
  stream_id_ = stream_id;
  restarting_ = false;
  over_ = false;
}

void ReceiverBase::detach() noexcept {
  InputHost* host = nullptr;
  bool was_started = false;
  {
    const std::scoped_lock lock{mutex_};
    host = host_;
    was_started = started_;
  }
  if (host == nullptr) return;
  try_stop();
  if (was_started) host->receiver_stopped(stream_id_, options_.name, {});
  const std::scoped_lock lock{mutex_};
  host_ = nullptr;
}

void ReceiverBase::report_error(const std::string& message, const std::exception_ptr& error) noexcept {
  try {
    InputHost* host = nullptr;
    std::size_t id = 0;
    std::string name;
    {
      const std::scoped_lock lock{mutex_};
      host = host_;
      id = stream_id_;
      name = options_.name;
    }
    if (host != nullptr) host->receiver_error(id, name, with_cause(message, error));
  } catch (...) {  // no memory for the text
  }
}

void ReceiverBase::restart(const std::string& message, const std::exception_ptr& error, std::optional<Duration> delay) {
  report_error("restarting: " + message, error);
  {
    const std::scoped_lock lock{mutex_};
    if (restarting_ || over_) return;
    restarting_ = true;
    next_delay_ = delay.value_or(options_.restart_delay);
  }
  schedule(Duration::zero(), &ReceiverBase::stop_and_restart);
}

void ReceiverBase::stop(const std::string& message, const std::exception_ptr& error) {
  {
    const std::scoped_lock lock{mutex_};
    last_message_ = with_cause(message, error);
  }
  schedule(Duration::zero(), &ReceiverBase::stop_for_good);
}

void ReceiverBase::schedule(Duration delay, void (ReceiverBase::*step)()) {
  InputHost* host = nullptr;
  {
    const std::scoped_lock lock{mutex_};
    host = host_;
  }
  // Tasks end with the input, and so before this object does.
  if (host != nullptr) host->schedule(host->runtime()->clock->now() + delay, [this, step] { (this->*step)(); });
}

void ReceiverBase::try_start() {
  {
    const std::scoped_lock lock{mutex_};
    if (over_) return;
    started_ = true;
    restarting_ = false;
  }
  open_store();
  try {
    on_start();
  } catch (...) {
    const std::exception_ptr error = std::current_exception();
    bool will_start = false;  // it asked for a restart before it threw
    {
      const std::scoped_lock lock{mutex_};
      started_ = false;
      will_start = std::exchange(restarting_, true);
    }
    report_error("on_start() threw; it is tried again in " + to_string(options_.restart_delay), error);
    if (!will_start) schedule(options_.restart_delay, &ReceiverBase::try_start);
    return;
  }
  host_->receiver_started(stream_id_, options_.name);
}

void ReceiverBase::try_stop() noexcept {
  {
    const std::scoped_lock lock{mutex_};
    if (!started_) return;
    started_ = false;
  }
  close_store();  // a thread that waits for room in `store` could not be joined
  try {
    on_stop();
  } catch (...) {
    report_error("on_stop() threw", std::current_exception());
  }
}

void ReceiverBase::stop_and_restart() {
  try_stop();
  Duration delay{0};
  {
    const std::scoped_lock lock{mutex_};
    delay = next_delay_;
  }
  schedule(delay, &ReceiverBase::try_start);
}

void ReceiverBase::stop_for_good() {
  std::string message;
  {
    const std::scoped_lock lock{mutex_};
    if (std::exchange(over_, true)) return;
    message = last_message_;
  }
  try_stop();
  host_->receiver_stopped(stream_id_, options_.name, message);
}

}  // namespace tidemill::detail
