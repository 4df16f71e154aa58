// Receiver<T>: the way to bring your own data into a stream. Derive from it, start whatever produces records in `on_start`,
// end it in `on_stop`, and hand records over with `store`.
//
//     class Ticker final : public tidemill::Receiver<Quote> {
//       void on_start() override {
//         thread_ = std::jthread{[this](std::stop_token stop) {
//           while (!stop.stop_requested()) {
//             if (!store(next_quote())) return;         // false: the receiver has been stopped
//           }
//         }};
//       }
//       void on_stop() override { thread_ = {}; }        // asks the thread to stop, and joins it
//       std::jthread thread_;
//     };
//     auto quotes = ssc.receiver_stream(std::make_shared<Ticker>());
//
// The page docs/howto/write-a-source.md walks through it.
// Source: Spark `Receiver`.
#pragma once

#include <atomic>
#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <ranges>
#include <string>
#include <utility>
#include <vector>

#include "tidemill/core/config.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/io/input.hpp"

namespace tidemill {

struct ReceiverOptions {
  std::string name = "receiver";  ///< in errors, logs and listener events
  Duration restart_delay = std::chrono::seconds{2};
  /// Records a second that `store` takes, and that a batch has. Above 0. [BP1]
  double max_rate = unlimited_rate;
  /// Single records that are stored share a block until the batch interval is over or 4096 are in it; with a block interval
  /// also no longer than that. What is one block is one entry of the log (RecoveryOptions::log_received). It says nothing of
  /// partitions: a batch is divided by its number of records, whatever blocks they came in. Above 0. [R2]
  std::optional<Duration> block_interval = std::nullopt;
  InboxLimits inbox = {};
};

namespace detail {

/// Errors: ConfigError unless it is positive.
TIDEMILL_API void check_block_interval(Duration interval);

/// What a receiver does whatever its records are: its life, and its reports.
/// Invariant RC1: on_start and on_stop are called in turn, by the thread that drives the context or that starts or stops it.
class TIDEMILL_API ReceiverBase {
 public:
  virtual ~ReceiverBase();
  ReceiverBase(const ReceiverBase&) = delete;
  ReceiverBase& operator=(const ReceiverBase&) = delete;

  /// The number of its input stream, once started.
  [[nodiscard]] std::size_t stream_id() const noexcept;
  /// Between on_start and on_stop.
  [[nodiscard]] bool is_started() const noexcept;
  [[nodiscard]] bool is_stopped() const noexcept { return !is_started(); }

  // For the context.
  /// Takes the receiver for one stream. Errors: PlanError when it has another already.
  void claim(InputHost& host, std::size_t stream_id, const ReceiverOptions& options);
  void begin() { try_start(); }
  void detach() noexcept;

 protected:
  ReceiverBase() = default;

  // Whether `store` takes anything. Closing lets go those that wait in it.
  virtual void open_store() noexcept = 0;
  virtual void close_store() noexcept = 0;

  /// Begins to produce. Must not block: start a thread, or asynchronous work. What it throws is reported, and the start is
  /// tried again after the restart delay.
  virtual void on_start() = 0;
  /// Ends producing. After it has returned nothing may call `store`. `store` calls that wait are let go before it is called.
  virtual void on_stop() = 0;

  /// Tells the listeners and the log. Threads: any.
  void report_error(const std::string& message, const std::exception_ptr& error = nullptr) noexcept;
  /// Has the receiver stopped and, after `delay` (default: the restart delay), started again. Returns at once. Threads: any.
  void restart(const std::string& message, const std::exception_ptr& error = nullptr,
               std::optional<Duration> delay = std::nullopt);
  /// Has the receiver stopped for good, also when a restart was pending. Returns at once. Threads: any.
  void stop(const std::string& message, const std::exception_ptr& error = nullptr);

 private:
  void try_start();
  void try_stop() noexcept;
  void schedule(Duration delay, void (ReceiverBase::*step)());
  void stop_and_restart();
  void stop_for_good();

  mutable std::mutex mutex_;  // guards what follows; never held while on_start or on_stop run
  InputHost* host_ = nullptr;
  std::size_t stream_id_ = 0;
  ReceiverOptions options_;
  bool started_ = false;
  bool restarting_ = false;
  bool over_ = false;  // stopped for good
  Duration next_delay_{0};
  std::string last_message_;
};

}  // namespace detail

/// Threads: `store` from any thread, between on_start and on_stop; before and after, while the context lives, it refuses.
template <class T>
class Receiver : public detail::ReceiverBase {
 public:
  using record_type = T;
  using Block = std::vector<T>;

  // For the context.
  void connect(detail::Inbox<Block>* inbox) noexcept { inbox_.store(inbox, std::memory_order_release); }
  void disconnect(detail::Inbox<Block>* inbox) noexcept { inbox_.compare_exchange_strong(inbox, nullptr); }

 protected:
  /// Hands over one record. Waits while the buffer is full (ReceiverOptions::inbox) or the rate is used up. False: it was
  /// refused, because the receiver is being stopped. [R2, R4]
  bool store(T record) {
    detail::Inbox<Block>* const inbox = this->inbox();
    return inbox != nullptr && inbox->push_record(std::move(record));
  }

  /// Hands over many records as one block. When it returns true they are kept, and may be acknowledged upstream. A block goes in
  /// whole as soon as the rate has something left; a batch takes no more of it than the rate allows, and the next the rest. [R3]
  bool store(std::vector<T> records) {
    detail::Inbox<Block>* const inbox = this->inbox();
    return inbox != nullptr && (records.empty() || inbox->push(std::move(records)));
  }
  template <std::ranges::input_range Range>
    requires(!std::convertible_to<Range, T> && !std::same_as<std::remove_cvref_t<Range>, std::vector<T>>)
  bool store(Range&& range) {
    std::vector<T> records;
    for (auto&& record : range) records.emplace_back(std::forward<decltype(record)>(record));
    return store(std::move(records));
  }

  /// Records that `store` takes now without waiting, for receivers that fetch as many as may go in.
  [[nodiscard]] std::size_t allowance() const noexcept {
    const detail::Inbox<Block>* const inbox = this->inbox();
    return inbox == nullptr ? 0 : inbox->allowance();
  }
  /// Bytes that wait for a batch, for receivers that would rather slow down than wait.
  [[nodiscard]] std::size_t buffered_bytes() const noexcept {
    const detail::Inbox<Block>* const inbox = this->inbox();
    return inbox == nullptr ? 0 : inbox->buffered_bytes();
  }

 private:
  void open_store() noexcept final {
    if (auto* const inbox = this->inbox()) inbox->open();
  }
  void close_store() noexcept final {
    if (auto* const inbox = this->inbox()) inbox->close();
  }
  [[nodiscard]] detail::Inbox<Block>* inbox() const noexcept { return inbox_.load(std::memory_order_acquire); }

  std::atomic<detail::Inbox<Block>*> inbox_ = nullptr;  // of the input stream that has this receiver; null: none
};

namespace detail {

/// The input stream of a receiver.
template <class T>
class ReceiverInput final : public BlockInput<std::vector<T>> {
 public:
  ReceiverInput(std::shared_ptr<Clock> clock, std::shared_ptr<Receiver<T>> receiver, ReceiverOptions options)
      : BlockInput<std::vector<T>>{std::move(clock), options.inbox, options.max_rate},
        receiver_{std::move(receiver)},
        options_{std::move(options)} {
    if (!options_.block_interval) return;
    check_block_interval(*options_.block_interval);
    this->inbox().set_block_interval(*options_.block_interval);
  }
  ~ReceiverInput() override { receiver_->disconnect(&this->inbox()); }
  [[nodiscard]] std::string name() const override { return options_.name; }

 protected:
  void start_receiving(InputHost& host, std::size_t stream_id) override {
    receiver_->claim(host, stream_id, options_);
    receiver_->connect(&this->inbox());
    receiver_->begin();
  }
  void stop_receiving() noexcept override { receiver_->detach(); }

 private:
  std::shared_ptr<Receiver<T>> receiver_;  // shared with the user, who may ask it things
  ReceiverOptions options_;
};

}  // namespace detail
}  // namespace tidemill
