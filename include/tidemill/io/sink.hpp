// The contract of a transactional sink: an output whose records become visible batch by batch, whole or not at all, and which
// remembers, in the same step, which batch that was. With a checkpoint that is exactly once.
//
// One batch, in this order; a crash anywhere between is repaired by the next run:
//
//     the plan of batch t is durable
//     sink.begin(t), the records of all partitions, sink.commit(t): records, batch time and positions become durable together
//     the states' changes of batch t go to the checkpoint
//
// A transaction begins and ends within its batch, so whatever a crash leaves open may be aborted: the batch runs again from its
// plan. The next run asks for `last_committed` before anything else: batches up to there are computed again, for the states, and
// their output is left out. So is that of a batch which is tried again because another output of it failed.
//
//     class Ledger final : public tidemill::TransactionalSink { … void write(std::span<const Entry> records) { … } };
//     entries.save_to(std::make_shared<Ledger>(…));
//
// The page docs/howto/write-a-sink.md walks through it.
#pragma once

#include <concepts>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "tidemill/batch/context.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/core/function_ref.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/io/input.hpp"
#include "tidemill/state/durable_state.hpp"

namespace tidemill {

/// What a sink is told before the first batch.
struct SinkSession {
  std::string name;  ///< of the output, unique in its context
  /// With a checkpoint the same in every run that continues it, and in no other: the sink commits under this name, and finds what
  /// it has committed. Without one it is another in every run. Letters, digits, '-', and what the output's name has.
  std::string id;
  /// Of the input, which the program sees, as "orders-3"; empty: all of it. What is not named by `id` needs it in its name, since
  /// the same program works on the other parts beside it.
  std::string part = {};
  bool has_checkpoint = false;
  std::shared_ptr<detail::Runtime> runtime;  ///< the clock, the log; shared: it may outlive the context
};

/// A batch, as it is committed.
struct SinkCommit {
  Time batch_time;
  /// Up to where the inputs have been read when this batch is done; only those that have such positions.
  std::span<const InputPosition> positions;
};

/// The part of a sink that does not depend on the type of its records. Derive from it, and add `void write(std::span<const T>)`,
/// which is called between begin and commit, once for each partition of the batch, by several threads at a time.
/// Errors:  SinkError, which says whether another attempt may help. The code "fenced" means that another writer has taken over
///          under the same id: the context stops at once, whatever its options are, and nothing is tried again.
/// Threads: the others by one thread at a time, that which starts, drives or stops the context.
class TIDEMILL_API TransactionalSink {
 public:
  TransactionalSink() = default;
  TransactionalSink(const TransactionalSink&) = delete;
  TransactionalSink& operator=(const TransactionalSink&) = delete;
  virtual ~TransactionalSink();

  /// For errors, and the name of the output unless it is given another: "kafka orders".
  [[nodiscard]] virtual std::string name() const = 0;
  /// Once, at the start of the context: shuts out older writers of the same id, and aborts what they left open.
  virtual void open(const SinkSession& session) = 0;
  /// The last batch that has been committed under this id, in any run; absent: none. When the outcome of a commit is not known
  /// it is found out here, or this throws.
  [[nodiscard]] virtual std::optional<Time> last_committed() = 0;

  virtual void begin(Time batch_time) = 0;
  /// When it returns, everything written since `begin` is durable, together with the batch time. When it throws, it is not, or
  /// the outcome is not known: last_committed is asked before the batch is tried again. A sink may leave out a commit without
  /// records; then last_committed stays what it was.
  virtual void commit(const SinkCommit& commit) = 0;
  /// The batch failed between begin and commit, or commit threw: nothing of it may become visible, unless it has been committed.
  virtual void roll_back() noexcept = 0;
  /// The context has ended, or did not start after open.
  virtual void close() noexcept = 0;
};

/// A transactional sink that takes records of type T.
template <class S, class T>
concept SinkOf =
    std::derived_from<S, TransactionalSink> && requires(S& sink, std::span<const T> records) { sink.write(records); };

namespace detail {

/// A sink in its context: takes care of the order of calls, and of what has been committed already. What a checkpoint keeps of it
/// is the last batch that it committed, so that a sink which has forgotten it, or knows more, is found out.
/// Threads: as those of TransactionalSink; `run` and `is_fenced` by an output operation.
class TIDEMILL_API SinkTransactions final : public DurableState {
 public:
  SinkTransactions(std::shared_ptr<TransactionalSink> sink, std::string name);

  [[nodiscard]] const std::string& name() const noexcept { return name_; }

  /// `last`: the last batch that a run which this one continues has planned, or the time before the first batch. Errors: of the
  /// sink; SinkError "sink_ahead", "sink_behind" when the sink and the checkpoint are not of one history.
  void open(const SinkSession& session, Time last);
  void close() noexcept;

  /// An attempt at the batch of t begins.
  void begin_attempt(Time t, std::span<const InputPosition> positions) noexcept;
  /// Calls `write` in a transaction for the batch of t, unless that has been committed. Errors: what `write` or the sink throws;
  /// PlanError "sink_misused" when t is not the batch that runs, or this attempt had its transaction.
  void run(Time t, FunctionRef<void()> write);

  /// Another writer has taken over.
  [[nodiscard]] bool is_fenced() const noexcept { return is_fenced_; }

  [[nodiscard]] StateSchema schema() const override;
  void track_changes() override {}
  void restore(KeyGroup group, std::string_view key, std::string_view value) override;
  void restored(Time) override {}
  void take_changes(StateChanges& to) override;

 private:
  const std::shared_ptr<TransactionalSink> sink_;  // shared with the user
  const std::string name_;
  std::shared_ptr<Runtime> runtime_;  // shared; null before open
  bool is_open_ = false;
  bool is_fenced_ = false;
  std::optional<Time> kept_;       // the last commit that the checkpoint knows
  std::optional<Time> committed_;  // the last that the sink has told
  std::optional<Time> batch_;      // that runs
  bool had_transaction_ = false;   // this attempt
  std::span<const InputPosition> positions_;
};

}  // namespace detail

/// A sink that belongs to a context, for use from foreach_batch; StreamingContext::add_sink makes it. A batch has one
/// transaction a sink.
///
///     auto orders = ssc.add_sink(std::make_shared<Ledger>(…));
///     stream.foreach_batch([orders](const auto& batch, Time t) {
///       orders.transaction(t, [&](Ledger& ledger) {
///         batch.foreach_partition([&](auto records) { ledger.write(records); });
///       });
///     });
/// Threads: as output operations. Copies are the same sink.
template <std::derived_from<TransactionalSink> S>
class SinkHandle {
 public:
  SinkHandle(std::shared_ptr<S> sink, std::shared_ptr<detail::SinkTransactions> transactions)
      : sink_{std::move(sink)}, transactions_{std::move(transactions)} {}

  /// Calls `f(sink)` between begin and commit, unless the batch of `t` has been committed already; then it does nothing.
  /// Pre: t is the time of the batch that runs. Errors: what `f` or the sink throws, then nothing is committed; PlanError
  /// "sink_misused" for a second transaction of one batch, and for another time.
  template <std::invocable<S&> F>
  void transaction(Time t, F&& f) const {
    transactions_->run(t, [&] { f(*sink_); });
  }

  /// A transaction with the records of `batch`.
  template <class B>
    requires SinkOf<S, typename B::value_type>
  void write(const B& batch, Time t) const {
    using T = typename B::value_type;
    transaction(
        t, [&](S& sink) { batch.foreach_partition([&sink](std::span<const T> records) { sink.write(records); }); });
  }

 private:
  std::shared_ptr<S> sink_;                                 // shared with the context
  std::shared_ptr<detail::SinkTransactions> transactions_;  // likewise
};

}  // namespace tidemill
