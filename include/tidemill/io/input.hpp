// The contract between the engine and an input stream: what the gate asks of whatever feeds it. The engine never knows what
// the records are; the typed side takes the blocks that were cut.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tidemill/batch/context.hpp"
#include "tidemill/checkpoint/block_log.hpp"
#include "tidemill/core/clock.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/io/inbox.hpp"
#include "tidemill/io/received_log.hpp"
#include "tidemill/state/durable_state.hpp"

namespace tidemill {

/// What one input stream gave to one batch.
struct InputInfo {
  std::size_t stream_id = 0;
  std::string name;         ///< "socket localhost:9999", "directory in/"
  std::size_t records = 0;  ///< 0 for inputs that do not count before they read (files)
  std::string metadata;     ///< what the batch was cut from, for people: file names, offsets
  std::size_t lost = 0;     ///< records that are not there any more: a restart, or the source itself, has lost them
  /// Records that the source has beyond this batch, as far as is known; absent: it does not know, or keeps none.
  std::optional<std::uint64_t> lag = std::nullopt;
};

/// How far an input has been read in one of its partitions.
struct InputPosition {
  std::string source;           ///< what has the partitions: a topic
  std::uint32_t partition = 0;  ///< of it
  std::uint64_t next = 0;       ///< the record that is read next
  friend bool operator==(const InputPosition&, const InputPosition&) = default;
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
  /// When the stream was first started: now, or in an earlier run that this one continues.
  [[nodiscard]] virtual Time first_start(std::size_t stream_id) const = 0;
  /// Where asynchronous I/O runs: the host's executor or a thread of the engine's, which starts when it is first asked for.
  [[nodiscard]] virtual IoService& io() = 0;

  // For the listener and the log. Threads: any.
  virtual void receiver_started(std::size_t stream_id, const std::string& name) noexcept = 0;
  virtual void receiver_error(std::size_t stream_id, const std::string& name, const std::string& message) noexcept = 0;
  virtual void receiver_stopped(std::size_t stream_id, const std::string& name,
                                const std::string& message) noexcept = 0;

  /// The context is to stop at once, so nothing should be waited for. Threads: any.
  [[nodiscard]] virtual bool is_stopping() const noexcept = 0;

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

  // ---- the rate ---------------------------------------------------------------------------------------------------------

  /// Records a second that it takes in at most by its own settings; absent: an input that takes what it finds, and whose rate
  /// nobody can limit. [BP1]
  [[nodiscard]] virtual std::optional<double> max_rate() const noexcept { return std::nullopt; }
  /// From now on it takes in at most so many, and no more than max_rate. Also before the start. [BP8]
  virtual void limit_rate([[maybe_unused]] double records_per_second) noexcept {}

  /// Appends where it stands after the last cut, for sinks that commit positions together with records; nothing by default.
  virtual void add_positions([[maybe_unused]] std::vector<InputPosition>& to) const {}

  // ---- restarts: only with a checkpoint ---------------------------------------------------------------------------------

  /// What the last cut took, in bytes from which `replay` in a later run takes the same again. They are durable before the batch
  /// runs. By default the number of records, for inputs that cannot be read twice.
  [[nodiscard]] virtual std::string plan() const = 0;
  /// Instead of `cut`, for a batch that an earlier run planned and did not finish. An input that cannot read again what `plan`
  /// says gives what it can and counts the rest as lost, or throws SourceError.
  virtual InputInfo replay(Time t, std::string_view plan) = 0;
  /// What has to be known after a restart beyond the plans of unfinished batches; null: nothing. Asked once, before the start.
  [[nodiscard]] virtual std::shared_ptr<DurableState> durable_state() { return nullptr; }

  /// Whether what it receives can be logged (io/received_log.hpp), so that a later run can have it again.
  enum class Logging { none, possible, not_encodable };
  [[nodiscard]] virtual Logging logging() const noexcept { return Logging::none; }
  /// Before durable_state is asked for: there will be a log. Once the state is back, and before the start: everything received
  /// goes through `log` from now on; `last_plan` is that of the last unfinished batch, or empty.
  virtual void will_log() {}
  virtual void begin_log([[maybe_unused]] std::unique_ptr<BlockLog> log, [[maybe_unused]] std::string_view last_plan) {}
  /// The batch of `t` and all before it are committed, durably.
  virtual void forget_until([[maybe_unused]] Time t) {}
  /// Lets go of the log; the input has been stopped.
  virtual void end_log() noexcept {}

  /// Whether data is pushed to it, so that it counts as a receiver.
  [[nodiscard]] virtual bool is_receiver() const noexcept { return false; }
  /// Whether the input can feed a gate without an interval; when not, why.
  [[nodiscard]] virtual const char* refuses_on_arrival() const noexcept { return nullptr; }
};

/// The plan of an input that can only say how many records there were. Errors: StateError for other bytes.
[[nodiscard]] TIDEMILL_API std::string plan_of_records(std::size_t records);
[[nodiscard]] TIDEMILL_API std::size_t records_of_plan(std::string_view plan);

[[nodiscard]] TIDEMILL_API std::string plan_of_range(const ReceivedRange& range);
[[nodiscard]] TIDEMILL_API ReceivedRange range_of_plan(std::string_view plan);

/// A block of a log does not hold as many records as it says.
[[noreturn]] TIDEMILL_API void throw_wrong_count(const LoggedBlock& block, std::size_t found);

/// An input that receives blocks into an inbox.
template <class Block>
class BlockInput : public Input {
 public:
  /// Errors: ConfigError naming the value.
  BlockInput(std::shared_ptr<Clock> clock, InboxLimits limits, double max_rate = unlimited_rate)
      : inbox_{std::move(clock), limits} {
    inbox_.set_max_rate(max_rate);
  }

  [[nodiscard]] bool has_pending() const noexcept final { return inbox_.has_data(); }
  [[nodiscard]] bool is_receiver() const noexcept final { return true; }
  [[nodiscard]] std::optional<double> max_rate() const noexcept final { return inbox_.max_rate(); }
  void limit_rate(double records_per_second) noexcept final { inbox_.limit_rate(records_per_second); }

  InputInfo cut(Time t, std::size_t max_records) final {
    cut_ = inbox_.take_until(t, max_records);
    std::size_t records = 0;
    for (const Block& block : cut_) records += BlockTraits<Block>::records(block);
    const std::uint64_t first = std::max(range_.end, first_cut_);
    took(t, {.first = first, .end = first + records, .logged = log_ != nullptr});
    return {.stream_id = stream_id_, .name = name(), .records = records, .metadata = {}, .lost = 0};
  }

  [[nodiscard]] std::string plan() const final {
    if (log_) log_->sync();  // what the plan names is there
    return plan_of_range(range_);
  }
  InputInfo replay(Time t, std::string_view plan) final {
    cut_.clear();
    const ReceivedRange range = range_of_plan(plan);
    std::size_t records = 0;
    if constexpr (BlockTraits<Block>::can_be_logged) records = take_logged(range);
    took(t, range);
    return {.stream_id = stream_id_,
            .name = name(),
            .records = records,
            .metadata = {},
            .lost = static_cast<std::size_t>(range.end - range.first) - records};
  }

  [[nodiscard]] Logging logging() const noexcept final {
    return BlockTraits<Block>::can_be_logged ? Logging::possible : Logging::not_encodable;
  }
  void will_log() final {
    if constexpr (BlockTraits<Block>::can_be_logged)
      position_ = std::make_shared<ReceivedPosition>(layout_.empty() ? BlockTraits<Block>::layout() : layout_);
  }
  /// The layout of the records, where the blocks do not tell it. Before the start.
  void records_are(std::string layout) { layout_ = std::move(layout); }
  [[nodiscard]] std::shared_ptr<DurableState> durable_state() final { return position_; }
  void begin_log(std::unique_ptr<BlockLog> log, std::string_view last_plan) final {
    log_ = std::make_unique<ReceivedLog>(std::move(log));
    range_.end = position_->taken;
    logged_ = log_->read_from(position_->taken);
    inbox_.write_into(log_.get());
    // What no batch of the earlier run had planned to take waits for the first batch of this one. [K6]
    if constexpr (BlockTraits<Block>::can_be_logged) {
      const std::uint64_t planned = last_plan.empty() ? position_->taken : range_of_plan(last_plan).end;
      log_->continue_at(planned);
      // What is left out of a log, being damaged, takes along what stands before it, and the numbers go on behind it.
      std::size_t left = logged_.size();
      for (std::size_t i = 0; i < logged_.size(); ++i) {
        const bool is_first = left == logged_.size() || logged_[i].first != logged_[i - 1].end();
        if (logged_[i].end() > planned && is_first) left = i;
      }
      first_cut_ = left == logged_.size() ? planned : std::max(planned, logged_[left].first);
      if (first_cut_ > planned) log_->is_missing(name(), planned, first_cut_);
      for (; left < logged_.size(); ++left)
        inbox_.put_back(part_of(logged_[left], std::max(planned, logged_[left].first), logged_[left].end()));
      std::erase_if(logged_, [planned](const LoggedBlock& logged) { return logged.first >= planned; });
    }
  }
  void forget_until(Time t) final {
    if (!log_) return;
    std::uint64_t end = 0;
    for (; !ends_.empty() && ends_.front().first <= t; ends_.pop_front()) end = ends_.front().second;
    log_->forget_before(end);
  }
  void end_log() noexcept final {
    inbox_.write_into(nullptr);
    log_.reset();
  }

  /// The blocks of the last cut; they can be taken once.
  [[nodiscard]] std::vector<Block> take_cut() noexcept { return std::exchange(cut_, {}); }

  [[nodiscard]] Inbox<Block>& inbox() noexcept { return inbox_; }

  void start(InputHost& host, std::size_t stream_id) final {
    stream_id_ = stream_id;
    inbox_.set_grain(host.batch_interval());
    inbox_.begin_rate([&host](Time when, std::function<void()> call) { host.schedule(when, std::move(call)); });
    inbox_.ring_on_arrival(host.arrival_bell());
    inbox_.open();
    try {
      start_receiving(host, stream_id);
    } catch (...) {
      inbox_.close();
      inbox_.end_rate();
      inbox_.ring_on_arrival(nullptr);
      throw;
    }
  }
  void stop() noexcept final {
    inbox_.close();
    stop_receiving();
    inbox_.end_rate();
    inbox_.ring_on_arrival(nullptr);
  }

 protected:
  virtual void start_receiving(InputHost& host, std::size_t stream_id) = 0;
  virtual void stop_receiving() noexcept = 0;

 private:
  void took(Time t, const ReceivedRange& range) {
    range_ = range;
    if (!position_) return;
    position_->taken = range.end;
    ends_.emplace_back(t, range.end);
  }

  // The records of the range that an earlier run has logged; returns how many those are.
  std::size_t take_logged(const ReceivedRange& range) {
    std::size_t records = 0;
    if (!range.logged) return records;
    for (LoggedBlock& logged : logged_) {
      const std::uint64_t first = std::max(range.first, logged.first);
      const std::uint64_t end = std::min(range.end, logged.end());
      if (first >= end) continue;
      cut_.push_back(part_of(logged, first, end));
      records += static_cast<std::size_t>(end - first);
    }
    std::erase_if(logged_, [&](const LoggedBlock& logged) { return logged.end() <= range.end; });
    return records;
  }

  static Block part_of(const LoggedBlock& logged, std::uint64_t first, std::uint64_t end) {
    using Traits = BlockTraits<Block>;
    Block block = Traits::decode(logged.bytes);
    if (Traits::records(block) != logged.records) throw_wrong_count(logged, Traits::records(block));
    if (const auto skip = static_cast<std::size_t>(first - logged.first); skip != 0)
      block = std::move(Traits::pieces(std::move(block), skip, static_cast<std::size_t>(logged.records) - skip)[1]);
    if (const std::size_t all = Traits::records(block), size = static_cast<std::size_t>(end - first); size < all)
      block = std::move(Traits::pieces(std::move(block), size, all)[0]);
    return block;
  }

  Inbox<Block> inbox_;
  std::string layout_;  // of a record; empty: that which the blocks tell
  std::vector<Block> cut_;
  ReceivedRange range_;          // of the last cut
  std::uint64_t first_cut_ = 0;  // the first record that no plan of an earlier run has
  std::size_t stream_id_ = 0;
  std::unique_ptr<ReceivedLog> log_;                 // null: what is received is not logged
  std::shared_ptr<ReceivedPosition> position_;       // shared with the engine; null without a log
  std::vector<LoggedBlock> logged_;                  // by an earlier run, and not taken yet
  std::deque<std::pair<Time, std::uint64_t>> ends_;  // of batches that are not durably committed
};

}  // namespace detail
}  // namespace tidemill
