#include "tidemill/io/sink.hpp"

#include <utility>

#include "tidemill/core/codec.hpp"
#include "tidemill/core/error.hpp"

namespace tidemill {
namespace {

// Also when it was thrown in a partition, within what says where.
[[nodiscard]] bool says_fenced(const std::exception_ptr& error) noexcept {
  try {
    std::rethrow_exception(error);
  } catch (const UserCodeError& outer) {
    return outer.nested_ptr() && says_fenced(outer.nested_ptr());
  } catch (const Error& one) {
    return one.code() == "fenced";
  } catch (const detail::UserFailure& failure) {
    return failure.cause && says_fenced(failure.cause);
  } catch (...) {
    return false;
  }
}

[[nodiscard]] std::string text_of(const std::optional<Time>& t) { return t ? "that of " + to_string(*t) : "none"; }

}  // namespace

TransactionalSink::~TransactionalSink() = default;

namespace detail {

SinkTransactions::SinkTransactions(std::shared_ptr<TransactionalSink> sink, std::string name)
    : sink_{std::move(sink)}, name_{std::move(name)} {}

void SinkTransactions::open(const SinkSession& session, Time last) {
  runtime_ = session.runtime;
  sink_->open(session);
  is_open_ = true;
  committed_ = sink_->last_committed();
  const ErrorContext context{
      .application = runtime_->app_name, .op = name_, .batch_time = committed_, .partition = {}, .offset = {}};
  if (committed_ && *committed_ > last)
    throw SinkError("sink_ahead",
                    "the last batch that the sink has committed is that of " + to_string(*committed_) +
                        ", and the last that the checkpoint knows of is that of " + to_string(last) +
                        ": the output of the batches between would be lost. An older copy of the checkpoint was put "
                        "back, or the clock was set back; put the newest one back, or give the output another name, "
                        "under which it begins anew",
                    Retry::is_useless, context);
  if (kept_ && (!committed_ || *committed_ < *kept_))
    throw SinkError("sink_behind",
                    "the checkpoint knows that the batch of " + to_string(*kept_) +
                        " has been committed to the sink, whose last one is " + text_of(committed_) +
                        ": the sink has forgotten it, or is another. To go on, at the price that the output of batches "
                        "which were not finished may come twice, give the output another name",
                    Retry::is_useless, context);
}

void SinkTransactions::close() noexcept {
  if (!std::exchange(is_open_, false)) return;
  sink_->close();
}

void SinkTransactions::begin_attempt(Time t, std::span<const InputPosition> positions) noexcept {
  batch_ = t;
  positions_ = positions;
  had_transaction_ = false;
}

void SinkTransactions::run(Time t, FunctionRef<void()> write) {
  const auto misused = [&](const std::string& what) {
    return PlanError("sink_misused", what,
                     {.application = {}, .op = name_, .batch_time = t, .partition = {}, .offset = {}});
  };
  if (!is_open_ || batch_ != t)
    throw misused(
        "the sink \"" + name_ + "\" was given a transaction for the batch of " + to_string(t) +
        ", which is not the one that runs; give it the time that the function of foreach_batch was called with");
  if (std::exchange(had_transaction_, true))
    throw misused("the sink \"" + name_ + "\" was given a second transaction for the batch of " + to_string(t) +
                  ", and a batch is committed whole; write everything within one transaction, or add another sink");
  bool has_begun = false;
  try {
    committed_ = sink_->last_committed();
    if (committed_ && *committed_ >= t) {
      runtime_->log(LogLevel::info,
                    name_ + ": the batch of " + to_string(t) + " has been committed already; its output is left out");
      return;
    }
    has_begun = true;
    sink_->begin(t);
    write();
    sink_->commit({.batch_time = t, .positions = positions_});
    committed_ = sink_->last_committed();
  } catch (...) {
    is_fenced_ = is_fenced_ || says_fenced(std::current_exception());
    if (has_begun) sink_->roll_back();
    throw;
  }
}

StateSchema SinkTransactions::schema() const { return {.kind = "sink", .key = "u8", .value = "i64", .parameters = {}}; }

void SinkTransactions::restore(KeyGroup, std::string_view, std::string_view value) {
  kept_ = Time{Duration{decode<std::int64_t>(value)}};
}

void SinkTransactions::take_changes(StateChanges& to) {
  if (!committed_ || committed_ == kept_) return;
  to.put(0, std::uint8_t{0}, std::int64_t{committed_->time_since_epoch().count()});
  kept_ = committed_;
}

}  // namespace detail
}  // namespace tidemill
