// The contract between the engine and an input stream: what the gate asks of whatever feeds it. The engine never knows what
// the records are; the typed side takes the blocks that were cut.
#pragma once

#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tidemill/batch/context.hpp"
#include "tidemill/core/clock.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/io/inbox.hpp"
#include "tidemill/state/durable_state.hpp"

namespace tidemill {

/// What one input stream gave to one batch.
struct InputInfo {
  std::size_t stream_id = 0;
  std::string name;         ///< "socket localhost:9999", "directory in/"
  std::size_t records = 0;  ///< 0 for inputs that do not count before they read (files)
  std::string metadata;     ///< what the batch was cut from, for people: file names, offsets
  std::size_t lost = 0;  ///< of a batch that is run again after a restart: records that could not be had a second time
};

namespace detail {

class IoService;

/// What an input may ask of the engine that runs it. All members stay valid until `Input::stop` has returned.
class TIDEMILL_API InputHost {
 public:
  virtual ~InputHost();
  [[nodiscard]] virtual const std::shared_ptr<Runtime>& runtime() const noexcept = 0;
  /// The gate's bell, when the gate opens on arrivals; else null.
  [[nodiscard]] virtual WakeUp* arrival_bell() noexcept = 0;
  /// The batch interval; zero when the gate opens on arrivals.
  [[nodiscard]] virtual Duration batch_interval() const noexcept = 0;
  /// Where asynchronous I/O runs: the host's executor or a thread of the engine's, which starts when it is first asked for.
  [[nodiscard]] virtual IoService& io() = 0;

  // For the listener and the log. Threads: any.
  virtual void receiver_started(std::size_t stream_id, const std::string& name) noexcept = 0;
  virtual void receiver_error(std::size_t stream_id, const std::string& name, const std::string& message) noexcept = 0;
  virtual void receiver_stopped(std::size_t stream_id, const std::string& name,
                                const std::string& message) noexcept = 0;

  /// Calls `task` on the thread that drives the engine once `when` is reached; never after `Input::stop` has been called.
  virtual void schedule(Time when, std::function<void()> task) = 0;
};

/// An input stream as the engine sees it.
/// Threads: all members are called by the thread that drives the engine or that starts and stops it, one at a time; except
///          has_pending, which any thread may call.
class TIDEMILL_API Input {
 public:
  virtual ~Input();
  [[nodiscard]] virtual std::string name() const = 0;

  /// Begins to receive. Must not block. Errors: what makes it pointless to try at all (ConfigError, SourceError); a peer
  /// that is not there yet is no error, it is tried again.
  virtual void start(InputHost& host, std::size_t stream_id) = 0;
  /// Ends receiving; called only after a start that succeeded. When it returns nothing more arrives; what has arrived stays
  /// for the batches to come.
  virtual void stop() noexcept = 0;

  /// Whether something has arrived that no batch has taken.
  [[nodiscard]] virtual bool has_pending() const noexcept = 0;

  /// Fixes what belongs to the batch of time t: everything that arrived by then and was not taken before, up to
  /// `max_records`. The typed side reads it until the next cut.
  virtual InputInfo cut(Time t, std::size_t max_records) = 0;

  // ---- restarts: only with a checkpoint ---------------------------------------------------------------------------------

  /// What the last cut took, in bytes from which `replay` in a later run takes the same again. They are durable before the batch
  /// runs. By default the number of records, for inputs that cannot be read twice.
  [[nodiscard]] virtual std::string plan() const = 0;
  /// Instead of `cut`, for a batch that an earlier run planned and did not finish. An input that cannot read again what `plan`
  /// says gives what it can and counts the rest as lost, or throws SourceError.
  virtual InputInfo replay(Time t, std::string_view plan) = 0;
  /// What has to be known after a restart beyond the plans of unfinished batches; null: nothing. Asked once, before the start.
  [[nodiscard]] virtual std::shared_ptr<DurableState> durable_state() { return nullptr; }

  /// Whether data is pushed to it, so that it counts as a receiver.
  [[nodiscard]] virtual bool is_receiver() const noexcept { return false; }
  /// Whether the input can feed a gate without an interval; when not, why.
  [[nodiscard]] virtual const char* refuses_on_arrival() const noexcept { return nullptr; }
};

/// The plan of an input that can only say how many records there were. Errors: StateError for other bytes.
[[nodiscard]] TIDEMILL_API std::string plan_of_records(std::size_t records);
[[nodiscard]] TIDEMILL_API std::size_t records_of_plan(std::string_view plan);

/// An input that receives blocks into an inbox.
template <class Block>
class BlockInput : public Input {
 public:
  BlockInput(std::shared_ptr<Clock> clock, InboxLimits limits) : inbox_{std::move(clock), limits} {}

  [[nodiscard]] bool has_pending() const noexcept final { return inbox_.has_data(); }
  [[nodiscard]] bool is_receiver() const noexcept final { return true; }

  InputInfo cut(Time t, std::size_t max_records) final {
    cut_ = inbox_.take_until(t, max_records);
    cut_records_ = 0;
    for (const Block& block : cut_) cut_records_ += BlockTraits<Block>::records(block);
    return {.stream_id = stream_id_, .name = name(), .records = cut_records_, .metadata = {}, .lost = 0};
  }

  [[nodiscard]] std::string plan() const final { return plan_of_records(cut_records_); }
  InputInfo replay(Time, std::string_view plan) final {
    cut_.clear();
    return {.stream_id = stream_id_, .name = name(), .records = 0, .metadata = {}, .lost = records_of_plan(plan)};
  }

  /// The blocks of the last cut; they can be taken once.
  [[nodiscard]] std::vector<Block> take_cut() noexcept { return std::exchange(cut_, {}); }

  [[nodiscard]] Inbox<Block>& inbox() noexcept { return inbox_; }

  void start(InputHost& host, std::size_t stream_id) final {
    stream_id_ = stream_id;
    inbox_.set_grain(host.batch_interval());
    inbox_.ring_on_arrival(host.arrival_bell());
    inbox_.open();
    try {
      start_receiving(host, stream_id);
    } catch (...) {
      inbox_.close();
      inbox_.ring_on_arrival(nullptr);
      throw;
    }
  }
  void stop() noexcept final {
    inbox_.close();
    stop_receiving();
    inbox_.ring_on_arrival(nullptr);
  }

 protected:
  virtual void start_receiving(InputHost& host, std::size_t stream_id) = 0;
  virtual void stop_receiving() noexcept = 0;

 private:
  Inbox<Block> inbox_;
  std::vector<Block> cut_;
  std::size_t cut_records_ = 0;
  std::size_t stream_id_ = 0;
};

}  // namespace detail
}  // namespace tidemill
