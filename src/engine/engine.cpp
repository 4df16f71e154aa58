#include "tidemill/engine/engine.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <iostream>
#include <limits>
#include <list>
#include <map>
#include <set>
#include <sys/prctl.h>
#include <thread>
#include <utility>

#include "engine/durability.hpp"
#include "engine/job_threads.hpp"
#include "engine/life_lock.hpp"
#include "engine/watchdog.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/core/function_ref.hpp"
#include "tidemill/io/io_service.hpp"

// Invariants, quoted by the tests:
//   EN1  Batch times are unique and increasing.
//   EN2  Output operations of a batch begin in the order of their registration, batches in the order of their times; unless
//        there are concurrent jobs, each ends before the next begins. Streams are cut, generated and settled in order of time.
//   EN3  Every tick of an interval gate has its batch, however late it runs, as long as no more than max_pending_batches wait.
//        Past that the oldest are merged into a later one, which takes what they would have had, and which is not later than
//        the next tick of any stream with a longer slide. Nothing is skipped, and every merge is logged and counted; but for
//        that of the ticks that passed before a run with CatchUp::merged, which was asked for.
//   EN4  After `Input::stop` no scheduled task runs.
//   EN5  No exception leaves the driving thread; the first one is kept for await_termination.
//   EN6  Listeners are called by the driving thread only, one at a time.

namespace tidemill::detail {

GraphNode::GraphNode(std::shared_ptr<StreamingEngine> engine, std::string op, Duration slide)
    : engine_{std::move(engine)}, op_{std::move(op)}, slide_{slide}, place_{op_} {}
GraphNode::~GraphNode() = default;

void GraphNode::give_name(std::string name) {
  engine_->check_can_change("name");
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.' || c == '#';
  };
  if (name.empty() || !std::all_of(name.begin(), name.end(), allowed))
    throw ConfigError("\"" + name + "\" cannot name a stream; use letters, digits, '_', '-', '.' and '#'");
  name_ = std::move(name);
}

void GraphNode::grow_from(const GraphNode& parent) {
  // What only holds a stream together, or keeps its batches, may come and go without changing the place of what follows.
  place_ = op_ == "chain" || op_ == "cache" || op_ == "keyed_by_partition" ? parent.name() : parent.name() + '.' + op_;
  is_windowed_ = parent.is_windowed_;
}
void GraphNode::grow_from(const GraphNode& parent, const GraphNode& other) {
  is_windowed_ = parent.is_windowed_ || other.is_windowed_;
  place_ = '(' + parent.name() + '+' + other.name() + ")." + op_;
}

void GraphNode::use_keys(KeyUse use, bool whole_before) {
  keys_are_whole_ = whole_before && use != KeyUse::changes;
  const std::string& part = engine_->part();
  if (part.empty() || use == KeyUse::keeps || use == KeyUse::changes || (use == KeyUse::by_key && whole_before)) return;
  const std::string here = "\"" + op_ + "\" (" + place_ + ") has to see all records" +
                           (use == KeyUse::by_key ? " of a key" : "") + ", and this program sees those of the part \"" +
                           part + "\" of its input only: ";
  throw PlanError(
      "needs_whole_input",
      here + (use == KeyUse::by_key
                  ? "where all records of a key have come from one part, say so by keyed_by_partition() "
                    "before it; else run one program that reads everything"
                  : "work by key behind keyed_by_partition() instead, or run one program that reads "
                    "everything"),
      {.application = engine_->runtime()->app_name, .op = op_, .batch_time = {}, .partition = {}, .offset = {}});
}

bool GraphNode::has_batch_at(Time t) const noexcept {
  const Time zero = engine_->zero_time();
  return t > zero && (!is_windowed_ || is_multiple_of(t, slide_, zero));
}

OutputOperation::~OutputOperation() = default;

class StreamingEngine::Impl final : public InputHost {
 public:
  Impl(std::shared_ptr<Runtime> context_runtime, EngineOptions options)
      : runtime_{std::move(context_runtime)}, options_{options} {
    if (options_.interval && *options_.interval <= Duration::zero())
      throw ConfigError("the batch interval must be positive, and it is " + to_string(*options_.interval));
    if (options_.interval && *options_.interval > longest_interval)
      throw ConfigError("the batch interval must be at most 1000 years, and it is " + to_string(*options_.interval));
    if (options_.on_arrival.max_batch_records == 0)
      throw ConfigError("max_batch_records is 0, so no batch could take anything; give at least 1");
    if (options_.on_arrival.min_interval < Duration::zero())
      throw ConfigError("min_interval must not be negative, and it is " + to_string(options_.on_arrival.min_interval));
    if (options_.graceful_stop_timeout && *options_.graceful_stop_timeout <= Duration::zero())
      throw ConfigError("graceful_stop_timeout must be positive, and it is " +
                        to_string(*options_.graceful_stop_timeout));
    if (options_.max_pending_batches == 0)
      throw ConfigError("max_pending_batches is 0, so no batch could ever be due; give at least 1");
    if (options_.concurrent_jobs < 1 || options_.concurrent_jobs > 1024)
      throw ConfigError("concurrent_jobs must lie between 1 and 1024, and it is " +
                        std::to_string(options_.concurrent_jobs));
    if (options_.watchdog && *options_.watchdog < Duration::zero())
      throw ConfigError("watchdog must not be negative, and it is " + to_string(*options_.watchdog) +
                        "; zero is for none");
    if (!options_.backpressure) return;
    check(*options_.backpressure);
    if (!options_.interval)
      throw ConfigError(
          "backpressure compares batches with their interval, and the gate is on_arrival, which has none; give the "
          "context a batch interval, or the inputs a max_rate");
  }

  ~Impl() override {
    if (thread_.joinable())
      thread_.detach();  // only when the context was destroyed by this very thread, which ends here
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  // ---- the graph ------------------------------------------------------------------------------------------------------

  void check_can_change(const char* what) const {
    if (const StreamingState now = state(); now != StreamingState::initialized)
      throw PlanError("illegal_state",
                      std::string{what} + " was called on a context that is " + std::string{to_string(now)} +
                          "; inputs, transformations and output operations are added before start(), "
                          "and a stopped context cannot be used again",
                      {.application = runtime_->app_name, .op = what, .batch_time = {}, .partition = {}, .offset = {}});
  }

  std::size_t add_input(std::shared_ptr<Input> input) {
    check_can_change("an input");
    if (gate_is_on_arrival()) {
      if (const char* reason = input->refuses_on_arrival())
        throw PlanError("needs_interval", "the input \"" + input->name() +
                                              "\" cannot feed a context whose gate is on_arrival: " + reason +
                                              "; give the context a batch interval");
    }
    inputs_.push_back(std::move(input));
    input_nodes_.emplace_back();
    return inputs_.size() - 1;
  }
  void add_sink(std::shared_ptr<SinkTransactions> sink) {
    check_can_change("a sink");
    for (const auto& other : sinks_) {
      if (other->name() == sink->name())
        throw PlanError("ambiguous_name", "two sinks are called \"" + sink->name() +
                                              "\", and by its name a sink finds what it has committed; give one of "
                                              "them another, as in stream.save_to(sink, \"orders\")");
    }
    sinks_.push_back(std::move(sink));
  }
  void name_input(std::size_t id, std::shared_ptr<const GraphNode> node) { input_nodes_.at(id) = std::move(node); }

  void checkpoint(std::string directory, RecoveryOptions options, Existing existing) {
    check_can_change("checkpoint");
    if (durability_)
      throw PlanError("illegal_state", "checkpoint(\"" + directory +
                                           "\") was called on a context whose checkpoint is \"" +
                                           durability_->directory() + "\" already");
    if (!options.store.fs) options.store.fs = runtime_->fs;
    durability_ = std::make_unique<Durability>(std::move(directory), std::move(options), existing);
  }

  // ---- InputHost --------------------------------------------------------------------------------------------------------

  [[nodiscard]] const std::shared_ptr<Runtime>& runtime() const noexcept override { return runtime_; }
  [[nodiscard]] WakeUp* arrival_bell() noexcept override { return gate_is_on_arrival() ? &bell_ : nullptr; }
  [[nodiscard]] Duration batch_interval() const noexcept override {
    return options_.interval.value_or(Duration::zero());
  }
  [[nodiscard]] Time first_start(std::size_t id) const override {
    return durability_ ? durability_->first_start(id) : began_;
  }
  [[nodiscard]] IoService& io() override {
    const std::scoped_lock lock{mutex_};
    if (!io_) io_ = std::make_unique<IoService>(runtime_);
    return *io_;
  }

  void receiver_started(std::size_t id, const std::string& name) noexcept override {
    tell(&StreamingListener::on_receiver_started, id, name, {});
  }
  void receiver_error(std::size_t id, const std::string& name, const std::string& message) noexcept override {
    log(LogLevel::warning, [&] { return name + ": " + message; });
    receiver_errors_.fetch_add(1, std::memory_order_relaxed);
    tell(&StreamingListener::on_receiver_error, id, name, message);
  }
  void receiver_stopped(std::size_t id, const std::string& name, const std::string& message) noexcept override {
    log(LogLevel::info, [&] { return name + " stopped" + (message.empty() ? "" : ": " + message); });
    tell(&StreamingListener::on_receiver_stopped, id, name, message);
  }

  [[nodiscard]] bool is_stopping() const noexcept override {
    const std::scoped_lock lock{mutex_};
    return stop_requested_ == StopMode::immediate;
  }
  void schedule(Time when, std::function<void()> task) override {
    {
      const std::scoped_lock lock{mutex_};
      if (inputs_stopped_) return;
      tasks_.push_back({when, std::move(task)});
    }
    bell_.ring();
  }

  // ---- facts --------------------------------------------------------------------------------------------------------------

  [[nodiscard]] bool gate_is_on_arrival() const noexcept { return !options_.interval; }
  [[nodiscard]] std::ostream& output() const noexcept {
    return options_.output != nullptr ? *options_.output : std::cout;  // print() is a sink that the user asked for
  }
  [[nodiscard]] StreamingState state() const noexcept { return state_.load(std::memory_order_acquire); }

  [[nodiscard]] std::shared_ptr<const Scope> scope_of(Time t) {
    if (!scope_ || scope_->batch_time != t) scope_ = std::make_shared<const Scope>(Scope{runtime_, t});
    return scope_;
  }

  [[nodiscard]] Time cut_until() const noexcept { return cut_until_; }

  [[nodiscard]] StreamingMetrics metrics() const {
    StreamingMetrics snapshot;
    {
      const std::scoped_lock lock{metrics_mutex_};
      snapshot = metrics_;
    }
    if (snapshot.last_received_batch && snapshot.last_completed_batch &&
        snapshot.last_received_batch->batch_time == snapshot.last_completed_batch->batch_time)
      snapshot.last_received_batch = snapshot.last_completed_batch;
    snapshot.receivers = static_cast<std::size_t>(
        std::count_if(inputs_.begin(), inputs_.end(), [](const auto& input) { return input->is_receiver(); }));
    snapshot.receiver_errors = receiver_errors_.load(std::memory_order_relaxed);
    snapshot.running_batches = running_.load(std::memory_order_acquire);
    snapshot.running_stages = stages_.list();
    if (durability_) snapshot.checkpoint = durability_->metrics();
    if (state() == StreamingState::active) {
      const Time now = runtime_->clock->now();
      if (options_.interval) {
        const Time tick = next_tick();
        if (now >= tick) snapshot.waiting_batches = static_cast<std::uint64_t>((now - tick) / *options_.interval) + 1;
      } else if (anything_pending()) {
        snapshot.waiting_batches = 1;
      }
    }
    snapshot.unprocessed_batches = snapshot.waiting_batches + snapshot.running_batches;
    return snapshot;
  }

  // ---- life ---------------------------------------------------------------------------------------------------------------

  // `self` keeps the engine alive as long as its thread runs, should the context be destroyed by that very thread.
  void start(Drive drive, std::shared_ptr<StreamingEngine> self) {
    const std::scoped_lock life{life_mutex_};
    switch (state()) {
      case StreamingState::active:
        runtime_->log(LogLevel::warning, "start() was called on a context that is active already; nothing was done");
        return;
      case StreamingState::stopped:
        throw PlanError("illegal_state",
                        "start() was called on a context that is stopped; make a new StreamingContext");
      case StreamingState::initialized: break;
    }
    if (outputs_.empty()) {
      end(StreamingState::stopped);
      throw PlanError("no_output_operations",
                      "start() was called on a context without output operations, so nothing would ever be computed; "
                      "register one, such as print(), foreach_batch() or save_as_text_files()");
    }
    drive_ = drive;
    const Time now = runtime_->clock->now();
    try {
      begin_jobs();
      begin_at(now);
      begin_rates();
    } catch (...) {
      job_threads_.close();
      close_sinks();
      close_checkpoint();
      end(StreamingState::stopped);
      throw;
    }
    last_end_ = Time::min();
    for (const auto& input : inputs_) input_names_.push_back(input->name());
    state_.store(StreamingState::active, std::memory_order_release);
    if (runtime_->own_workers != nullptr) runtime_->own_workers->retain();
    try {
      for (; inputs_started_ < inputs_.size(); ++inputs_started_)
        inputs_[inputs_started_]->start(*this, inputs_started_);
      {
        const std::scoped_lock lock{mutex_};
        events_.insert(events_.begin(), [now](StreamingListener& listener) { listener.on_streaming_started(now); });
      }
      watch();
      if (drive_ == Drive::own_thread) thread_ = std::thread{[this, self = std::move(self)] { run(); }};
    } catch (...) {
      const DrivingThread driving{*this};
      finish();
      throw;
    }
  }

  void watch() {
    constexpr Duration usual = std::chrono::seconds{30};
    const Duration limit = options_.watchdog.value_or(drive_ == Drive::own_thread ? usual : Duration::zero());
    if (limit != Duration::zero()) watchdog_.start(runtime_, stages_, limit);
  }

  void begin_jobs() {
    if (!jobs_are_concurrent()) return;
    const std::string seen = "concurrent_jobs is " + std::to_string(options_.concurrent_jobs) + ", and ";
    if (!sinks_.empty())
      throw PlanError("concurrent_jobs",
                      seen + "the transactions of the sink \"" + sinks_.front()->name() +
                          "\" follow one another in the order of the batches; leave "
                          "concurrent_jobs at 1, or move the other outputs to a context of their own");
    if (durability_)
      throw PlanError("concurrent_jobs",
                      seen + "the context has a checkpoint (\"" + durability_->directory() +
                          "\"): there a batch is tried again from the states that it found, and committed before the "
                          "next one begins; leave concurrent_jobs at 1, and move the streams whose outputs are slow "
                          "and that need no checkpoint to a context of their own");
    if (drive_ == Drive::by_host)
      throw PlanError("concurrent_jobs",
                      seen +
                          "with start(Drive::by_host) a batch runs on the thread that calls step(); leave "
                          "concurrent_jobs at 1, or let the context have its own thread by start()");
    job_threads_.start(options_.concurrent_jobs, runtime_->app_name.substr(0, 9) + "-job");
  }

  // Where the run begins: at the tick before now, or where the run before it ended.
  void begin_at(Time now) {
    Durability::Resumed resumed;
    if (durability_)
      resumed = durability_->open(graph_states(), graph_inputs(), drive_ == Drive::own_thread, thread_name());
    for (const std::string& warning : resumed.warnings)
      log(LogLevel::warning, [&] { return "checkpoint: " + warning; });
    const Duration interval = options_.interval.value_or(Duration::zero());
    Time zero = options_.interval ? floor_to(now, interval) : now;
    Time last = zero;
    if (resumed.run) {
      // Times go on where they ended. The zero time stays [B3], so that windows end where they would have ended; only when the
      // interval was changed and no state depends on it, it moves to the ticks of the new one. What is run again keeps its time.
      const Time before = resumed.last_planned().value_or(resumed.run->zero_time);
      zero = resumed.run->zero_time;
      if (interval != resumed.run->batch_interval && !resumed.has_windows) {
        zero = resumed.last_committed.value_or(zero);
        if (options_.interval) zero = floor_to(zero, interval);
      }
      last = options_.interval ? floor_to(before, interval, zero) : before;
      if (before > now)
        log(LogLevel::warning, [&] {
          return "the clock says " + to_string(now) + ", and the last batch of the run before was that of " +
                 to_string(before) + "; batches begin again after it";
        });
      log(LogLevel::info, [&] {
        return "continuing after the batch of " + to_string(resumed.last_committed.value_or(resumed.run->zero_time)) +
               "; " + std::to_string(resumed.unfinished.size()) + " unfinished batches are run again";
      });
    }
    began_ = now;
    zero_.store(zero.time_since_epoch().count());
    const Time resumed_from = resumed.last_committed.value_or(resumed.run ? resumed.run->zero_time : zero);
    resumed_from_.store(resumed_from.time_since_epoch().count());
    remembered_from_ = resumed_from;
    for (const BatchPlan& plan : resumed.unfinished) {
      if (options_.interval && !is_multiple_of(plan.time, interval, zero)) remembered_from_ = plan.time;
    }
    open_sinks(resumed.run ? resumed.last_planned().value_or(resumed.run->zero_time) : last);
    last_batch_ = last;
    cut_until_ = zero;
    unfinished_ = {std::make_move_iterator(resumed.unfinished.begin()),
                   std::make_move_iterator(resumed.unfinished.end())};
    if (options_.interval) {
      const Time tick = last + interval;
      if (resumed.run && durability_->options().catch_up == CatchUp::merged)
        merged_until_ = floor_to(now, interval, zero);
      catching_up_slowly_ = resumed.run && durability_->options().catch_up == CatchUp::throttled;
      next_tick_.store(tick.time_since_epoch().count());
    }
    if (durability_) durability_->begin_run(runtime_->app_name, now, zero, interval);
  }

  // Also asks them what they have committed. `last`: the last batch that has been planned.
  void open_sinks(Time last) {
    for (const auto& sink : sinks_) {
      const std::string id = durability_ ? durability_->id() : fresh_id(*runtime_->fs);
      sink->open({.name = sink->name(),
                  .id = id + '-' + sink->name(),
                  .part = part_,
                  .has_checkpoint = durability_ != nullptr,
                  .runtime = runtime_},
                 last);
    }
  }

  // What is known of the rates before the first batch, and which slides no merged tick may pass over.
  void begin_rates() {
    const std::scoped_lock lock{graph_mutex_, metrics_mutex_};
    for (std::size_t id = 0; id < inputs_.size(); ++id) {
      const std::optional<double> max_rate = inputs_[id]->max_rate();
      if (!max_rate) continue;
      InputRate rate{.stream_id = id, .name = inputs_[id]->name(), .estimate = std::nullopt, .limit = *max_rate};
      if (options_.backpressure) {
        estimators_.emplace(id, PidRateEstimator{*options_.interval, *options_.backpressure});
        if (options_.backpressure->initial_rate) {
          inputs_[id]->limit_rate(*options_.backpressure->initial_rate);
          rate.limit = std::min(*max_rate, *options_.backpressure->initial_rate);
        }
      }
      metrics_.input_rates.push_back(std::move(rate));
    }
    for (const auto& node : nodes_) {
      if (options_.interval && node->slide() > *options_.interval) longer_slides_.insert(node->slide());
    }
  }

  [[nodiscard]] std::vector<GraphInput> graph_inputs() const {
    std::vector<GraphInput> all;
    all.reserve(inputs_.size());
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const auto& node = input_nodes_[i];
      all.push_back({node ? node->name() : inputs_[i]->name(), node && node->is_pinned(), node ? node->op() : "input",
                     inputs_[i]});
    }
    return all;
  }
  [[nodiscard]] std::vector<GraphState> graph_states() const {
    std::vector<GraphState> all;
    all.reserve(states_.size());
    for (const State& state : states_) {
      const GraphNode& node = *state.node;
      all.push_back({node.name() + (state.part.empty() ? "" : ":" + state.part), node.is_pinned(), node.is_windowed(),
                     state.state, state.why_not});
    }
    for (const auto& sink : sinks_) all.push_back({"sink:" + sink->name(), true, false, sink, {}});
    return all;
  }

  [[nodiscard]] std::string thread_name() const { return runtime_->app_name.substr(0, 10) + "-ckpt"; }

  bool step() {
    if (drive_ != Drive::by_host && state() == StreamingState::active)
      throw PlanError("illegal_state",
                      "step() was called on a context that runs its own thread; start it with "
                      "start(Drive::by_host) to run its batches yourself");
    if (state() == StreamingState::initialized)
      throw PlanError("illegal_state", "step() was called before start(Drive::by_host)");
    if (called_from_within())
      throw PlanError("illegal_state", "step() was called from within a batch; it runs one batch and cannot be nested");
    const std::scoped_lock life{life_mutex_};
    if (state() == StreamingState::stopped) return false;
    const DrivingThread driving{*this};
    const Turn turn = take_turn_or_report(false);
    if (turn == Turn::ended || dispose_at_end_) finish();
    return turn == Turn::ran_batch;
  }

  [[nodiscard]] std::optional<Time> next_batch_time() const {
    if (state() != StreamingState::active) return std::nullopt;
    std::optional<Time> next;
    if (options_.interval) {
      next = next_tick();
    } else if (anything_pending()) {
      next = std::max(runtime_->clock->now(), Time{Duration{pause_ends_.load(std::memory_order_acquire)}});
    }
    const std::scoped_lock lock{mutex_};
    for (const Task& task : tasks_) next = next ? std::min(*next, task.when) : task.when;
    return next;
  }

  void request_stop(StopMode mode) {
    {
      const std::scoped_lock lock{mutex_};
      if (!stop_requested_ || mode == StopMode::immediate) stop_requested_ = mode;
    }
    bell_.ring();
  }

  bool stop(StopMode mode) {
    refuse_to_wait_within("stop()");
    const std::scoped_lock life{life_mutex_};
    switch (state()) {
      case StreamingState::initialized:
        runtime_->log(LogLevel::warning, "stop() was called before start(); the context is stopped now");
        end(StreamingState::stopped);
        return true;
      case StreamingState::stopped:
        if (thread_.joinable()) {
          thread_.join();  // it ended by request_stop
        } else {
          runtime_->log(LogLevel::warning, "stop() was called on a context that is stopped already; nothing was done");
        }
        return drained_;
      case StreamingState::active: break;
    }
    request_stop(mode);
    if (drive_ == Drive::own_thread) {
      thread_.join();
    } else {
      static_cast<void>(drain([] { return true; }));
    }
    return drained_;
  }

  // Runs what a stop leaves to be run, on the calling thread; false when `goes_on` said no before the end.
  template <class GoesOn>
  bool drain(const GoesOn& goes_on) {
    const DrivingThread driving{*this};
    Turn turn = take_turn_or_report(true);
    while (turn == Turn::ran_batch || turn == Turn::idle) {
      if (!goes_on()) return false;
      turn = take_turn_or_report(true);
    }
    if (turn == Turn::failed) drained_ = false;
    finish();
    return true;
  }

  StopReport stop_or_timeout(std::chrono::nanoseconds timeout, StopMode mode) {
    refuse_to_wait_within("stop_or_timeout()");
    const auto deadline = deadline_after(timeout);
    request_stop(mode);  // whoever is in a batch just now, and keeps the lock, hears of it
    std::unique_lock life{life_mutex_, std::defer_lock};
    bool has_ended = false;
    if (life_mutex_.try_lock_until(deadline)) {
      life = std::unique_lock{life_mutex_, std::adopt_lock};
      if (state() != StreamingState::active) {
        has_ended = true;
      } else if (drive_ == Drive::own_thread) {
        std::unique_lock lock{mutex_};
        has_ended = changed_.wait_until(lock, deadline, [this] { return ended_; });
      } else {
        has_ended = drain([&] { return std::chrono::steady_clock::now() < deadline; });
      }
    }
    if (!has_ended) return {.is_stopped = false, .is_drained = false, .running = stages_.list()};
    if (state() == StreamingState::initialized) end(StreamingState::stopped);
    if (thread_.joinable()) thread_.join();
    return {.is_stopped = true, .is_drained = drained_, .running = {}};
  }

  // A timeout beyond what the clock can tell is none.
  [[nodiscard]] static std::chrono::steady_clock::time_point deadline_after(std::chrono::nanoseconds timeout) {
    const auto now = std::chrono::steady_clock::now();
    const auto left = std::chrono::steady_clock::time_point::max() - now;
    return timeout < left ? now + timeout : std::chrono::steady_clock::time_point::max();
  }

  void refuse_to_wait_within(const std::string& what) const {
    if (!called_from_within()) return;
    throw PlanError("illegal_state", what +
                                         " was called from a listener or an output operation, whose batch it would "
                                         "have to wait for; call request_stop() there");
  }

  // The end of the context object: stops what runs, and lets go of the graph.
  void shut_down() noexcept {
    if (called_from_within()) {  // destroyed by one of its own output operations or listeners
      dispose_at_end_ = true;
      request_stop(StopMode::immediate);
      return;
    }
    try {
      if (state() == StreamingState::active) {
        stop(StopMode::immediate);
      } else {
        const std::scoped_lock life{life_mutex_};
        if (thread_.joinable()) thread_.join();
        // Streams that live on must not build on a graph that is gone.
        if (state() == StreamingState::initialized) end(StreamingState::stopped);
      }
    } catch (...) {
      log(LogLevel::error, [] { return "stopping a context failed: " + describe(std::current_exception()); });
    }
    dispose();
  }

  bool await_termination(std::optional<std::chrono::nanoseconds> timeout) {
    if (!timeout && called_from_within())
      throw PlanError("illegal_state",
                      "await_termination() was called from a listener or an output operation, which would "
                      "wait for itself; call it from another thread");
    std::unique_lock lock{mutex_};
    const auto over = [this] { return ended_ || first_error_; };
    if (timeout) {
      if (!changed_.wait_until(lock, deadline_after(*timeout), over)) return false;
    } else {
      changed_.wait(lock, over);
    }
    if (first_error_) std::rethrow_exception(first_error_);
    return true;
  }

  std::exception_ptr take_last_error() noexcept {
    const std::scoped_lock lock{mutex_};
    return std::exchange(last_error_, nullptr);
  }

  void when_terminated(std::function<void(std::exception_ptr)> done) {
    std::exception_ptr error;
    {
      const std::scoped_lock lock{mutex_};
      if (!ended_ && !first_error_) {
        waiters_.push_back(std::move(done));
        return;
      }
      error = first_error_;
    }
    done(error);
  }

  // Lets go of the graph, so that no cycle keeps it alive.
  void dispose() noexcept {
    const std::scoped_lock lock{graph_mutex_};
    nodes_.clear();
    outputs_.clear();
    inputs_.clear();
    input_nodes_.clear();
    sinks_.clear();
    durability_.reset();
    states_.clear();
    host_states_.clear();
    scope_ = nullptr;
  }

  void add_listener(std::shared_ptr<StreamingListener> listener) {
    if (!listener) throw ConfigError("add_listener was given a null pointer");
    change_listeners([&](Listeners& listeners) { listeners.push_back(std::move(listener)); });
  }
  void remove_listener(const std::shared_ptr<StreamingListener>& listener) {
    change_listeners([&](Listeners& listeners) { std::erase(listeners, listener); });
  }

  [[nodiscard]] Time zero_time() const noexcept { return Time{Duration{zero_.load(std::memory_order_acquire)}}; }

  [[nodiscard]] Time resumed_from() const noexcept {
    return Time{Duration{resumed_from_.load(std::memory_order_acquire)}};
  }

  [[nodiscard]] Time remembered_from() const noexcept { return remembered_from_; }

  std::recursive_mutex
      graph_mutex_;  // guards nodes_, scope_ and what streams remember. Lock order: graph_mutex_ before mutex_
  std::mutex print_mutex_;
  std::vector<std::shared_ptr<GraphNode>> nodes_;
  std::string part_;                                       // of the input, which we see; empty: all of it
  std::vector<std::shared_ptr<OutputOperation>> outputs_;  // fixed at start
  Duration remember_{0};

  // Fixed at start.
  struct State {
    std::shared_ptr<const GraphNode> node;  // shared with the graph
    std::string part;
    std::shared_ptr<DurableState> state;  // shared with the node; null: it cannot be kept
    std::string why_not;
  };
  std::vector<State> states_;
  std::vector<std::shared_ptr<HostState>> host_states_;  // shared with the streams, and with whoever looks at them

 private:
  enum class Turn { ran_batch, idle, ended, failed };

  // Says which thread drives, for as long as it does.
  class DrivingThread {
   public:
    explicit DrivingThread(Impl& impl) : impl_{impl} { impl_.driving_.store(std::this_thread::get_id()); }
    DrivingThread(const DrivingThread&) = delete;
    DrivingThread& operator=(const DrivingThread&) = delete;
    ~DrivingThread() { impl_.driving_.store(std::thread::id{}); }

   private:
    Impl& impl_;
  };

  // Says that a batch runs, for as long as it does, and when it ended.
  class Running {
   public:
    explicit Running(Impl& impl) : impl_{impl} { impl_.running_.store(1, std::memory_order_release); }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;
    ~Running() {
      impl_.last_end_ = impl_.runtime_->clock->now();
      impl_.running_.store(0, std::memory_order_release);
    }

   private:
    Impl& impl_;
  };

  using Listeners = std::vector<std::shared_ptr<StreamingListener>>;

  using Kind = RunningStage::Kind;
  // Says what is being done, for as long as it is.
  class Stage : public RunningStages::Stage {
   public:
    Stage(Impl& impl, Kind kind, std::string_view name, std::optional<Time> t)
        : RunningStages::Stage{impl.stages_, kind, name, t, impl.runtime_->clock->now()} {}
    Stage(Impl& impl, Kind kind, std::string_view name, std::optional<Time> t, Time since)
        : RunningStages::Stage{impl.stages_, kind, name, t, since} {}
  };

  struct Task {
    Time when;
    std::function<void()> run;
  };

  struct Job {
    std::size_t id;  // of the output operation, in order of registration
    OutputOperation* output;
    std::function<void()> run;
  };

  // A job among concurrent ones. Its thread writes what is guarded by jobs_mutex_, and touches nothing once `ended` is there.
  struct RunningJob {
    Job job;
    Time batch_time;
    bool start_is_told = false;
    bool end_is_told = false;
    std::optional<Time> started = std::nullopt;  // this and what follows is guarded by jobs_mutex_
    std::optional<Time> ended = std::nullopt;
    std::exception_ptr error = nullptr;
  };
  // A batch whose jobs run, or wait for a thread.
  struct Flight {
    BatchInfo info;
    std::vector<RunningJob> jobs;  // stay where they are
  };

  // On the driving thread, in an output operation, or in the log hook that the watchdog calls.
  [[nodiscard]] bool called_from_within() const {
    return driving_.load() == std::this_thread::get_id() || job_threads_.have_this_thread() ||
           watchdog_.has_this_thread();
  }
  [[nodiscard]] bool jobs_are_concurrent() const noexcept { return options_.concurrent_jobs > 1; }
  [[nodiscard]] Time next_tick() const noexcept { return Time{Duration{next_tick_.load(std::memory_order_acquire)}}; }
  [[nodiscard]] bool anything_pending() const noexcept {
    return std::any_of(inputs_.begin(), inputs_.end(), [](const auto& input) { return input->has_pending(); });
  }

  // ---- the driving thread -------------------------------------------------------------------------------------------------

  void run() noexcept {
    name_this_thread(runtime_->app_name);
    // The kernel may delay a timer by the thread's slack, 50 us by default, to save wake-ups. A tick should not be late.
    prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
    const DrivingThread driving{*this};
    try {
      for (Turn turn = take_turn_or_report(false); turn != Turn::ended; turn = take_turn_or_report(false)) {
        if (turn != Turn::ran_batch) runtime_->clock->wait_until(wake_time(), bell_);
      }
    } catch (...) {
      report(std::current_exception());
    }
    finish();
  }

  // A turn that fails, which takes that memory ran out between user functions, costs what it was about and nothing else.
  Turn take_turn_or_report(bool hurry) noexcept {
    try {
      return take_turn(hurry);
    } catch (...) {
      report(std::current_exception());
      if (!flights_.empty()) bell_.ring();  // jobs that have ended are not waited for
      return Turn::failed;
    }
  }

  // One round of the loop: what has to be told, tasks that are due, the stop if it was asked for, then at most one batch.
  // With `hurry` a draining context does not wait for its tick.
  Turn take_turn(bool hurry) {
    deliver_events();
    run_due_tasks();
    collect_jobs();
    waits_for_jobs_ = false;
    std::optional<StopMode> stop;
    {
      const std::scoped_lock lock{mutex_};
      stop = stop_requested_;
    }
    if (stop == StopMode::immediate) {
      stop_inputs();
      draining_ = false;
      if (!flights_.empty()) return wait_for_jobs();
      drained_ = !anything_pending() && !failed_;
      return Turn::ended;
    }
    if (stop == StopMode::graceful && !draining_) {
      draining_ = true;
      drain_began_ = runtime_->clock->now();
      drain_deadline_ = later(drain_began_, graceful_stop_timeout());
      stop_inputs();
    }
    const Time now = runtime_->clock->now();
    if (draining_) {
      // Ticks that had passed have their batches; later ones only as long as there is something for them.
      const bool ticks_are_due = options_.interval && next_tick() <= drain_began_;
      const bool nothing_is_left = !ticks_are_due && !anything_pending() && unfinished_.empty();
      drained_ = nothing_is_left && flights_.empty();
      if (drained_) return Turn::ended;
      if (now >= drain_deadline_) {
        log(LogLevel::error, [this] {
          return "the graceful stop took longer than " + to_string(graceful_stop_timeout()) +
                 "; what had not been batched is dropped";
        });
        if (flights_.empty()) return Turn::ended;
        request_stop(StopMode::immediate);
        return Turn::idle;
      }
      if (nothing_is_left) return wait_for_jobs();
    }
    if (jobs_are_concurrent() && jobs_left_ >= options_.concurrent_jobs) return wait_for_jobs();
    const std::optional<Time> due = unfinished_.empty() ? due_batch(now, hurry && draining_) : unfinished_.front().time;
    if (!due) return Turn::idle;
    run_batch(*due, now);
    return Turn::ran_batch;
  }

  // Ticks that pass meanwhile wait.
  Turn wait_for_jobs() noexcept {
    waits_for_jobs_ = true;
    return Turn::idle;
  }

  [[nodiscard]] Duration graceful_stop_timeout() const noexcept {
    constexpr Duration floor = std::chrono::seconds{10};
    return options_.graceful_stop_timeout.value_or(std::max(floor, 10 * options_.interval.value_or(Duration::zero())));
  }

  // Whether the run still makes up for ticks that passed before it began, and takes its time.
  [[nodiscard]] bool is_throttled(Time now) const noexcept {
    return catching_up_slowly_ && now >= next_tick() + *options_.interval;
  }

  // The time of the batch that is due now, if one is.
  [[nodiscard]] std::optional<Time> due_batch(Time now, bool hurry) const noexcept {
    if (options_.interval) {
      const Time tick = next_tick();
      const Time start = is_throttled(now) ? last_start_ + *options_.interval / 2 : tick;
      if (now < start && !(hurry && anything_pending())) return std::nullopt;
      return merged_into(tick, now);
    }
    if (!anything_pending()) return std::nullopt;
    const Duration pause = options_.on_arrival.min_interval;
    if (!hurry && pause != Duration::zero() && now < later(last_batch_, pause)) return std::nullopt;
    return std::max(now, last_batch_ + Duration{1});
  }

  // The tick whose batch runs when `tick` is the oldest that waits: that one, unless too many wait, or passed before the run
  // began and are to be merged. [EN3]
  [[nodiscard]] Time merged_into(Time tick, Time now) const noexcept {
    const Duration interval = *options_.interval;
    const auto waiting = (now - tick) / interval + 1;
    Time last = std::max(tick, merged_until_);
    if (tick > began_ && std::cmp_greater(waiting, options_.max_pending_batches))
      last = tick + (waiting - static_cast<Duration::rep>(options_.max_pending_batches)) * interval;
    if (last == tick) return tick;
    for (const Duration slide : longer_slides_)
      last = std::min(last, floor_to(tick - Duration{1}, slide, zero_time()) + slide);
    return last;
  }

  void count_merged(Time t, std::uint64_t ticks) {
    log(LogLevel::warning, [&] {
      return "batches are too slow: more than " + std::to_string(options_.max_pending_batches) +
             " (max_pending_batches) were waiting, and that of " + to_string(t) + " takes what the " +
             std::to_string(ticks) + " before it would have had";
    });
    const std::scoped_lock lock{metrics_mutex_};
    metrics_.merged_ticks += ticks;
  }

  [[nodiscard]] std::optional<Time> wake_time() {
    std::optional<Time> wake;
    const auto consider = [&wake](Time t) { wake = wake ? std::min(*wake, t) : t; };
    if (waits_for_jobs_) {
      // Their end rings the bell.
    } else if (options_.interval) {
      const Time tick = next_tick();
      consider(is_throttled(runtime_->clock->now()) ? last_start_ + *options_.interval / 2 : tick);
    } else if (anything_pending()) {
      consider(later(last_batch_, options_.on_arrival.min_interval));
    }
    if (draining_) consider(drain_deadline_);
    const std::scoped_lock lock{mutex_};
    for (const Task& task : tasks_) consider(task.when);
    return wake;
  }

  void run_batch(Time t, Time now) {
    BatchInfo info;
    info.batch_time = t;
    // A batch that an earlier one held up was due at its tick.
    info.submission_time = options_.interval && last_end_ > t ? t : now;
    last_batch_ = t;
    pause_ends_.store((t + options_.on_arrival.min_interval).time_since_epoch().count(), std::memory_order_release);
    if (options_.interval && unfinished_.empty()) {  // after those the ticks go on where begin_at said
      if (t > merged_until_) info.merged_ticks = static_cast<std::uint64_t>((t - next_tick()) / *options_.interval);
      if (info.merged_ticks != 0) count_merged(t, info.merged_ticks);
      next_tick_.store((t + *options_.interval).time_since_epoch().count(), std::memory_order_release);
    }

    last_start_ = now;
    if (options_.interval && now < t + *options_.interval) catching_up_slowly_ = false;

    if (jobs_are_concurrent()) {
      launch(t, std::move(info));
      return forget(t);
    }
    const Running running{*this};
    try {
      work_on(t, info);
    } catch (...) {
      // Whatever it was, memory perhaps: a batch that is planned and not committed must not be passed over by later ones.
      if (!durability_) throw;
      report(std::current_exception());
      return stop_for_failure();
    }
    forget(t);
  }

  // What no later batch, no job, and nothing that failed, will ask for.
  void forget(Time t) {
    const std::scoped_lock lock{graph_mutex_};
    Time needed = flights_.empty() ? Time::max() : flights_.front().info.batch_time;
    for (const auto& node : nodes_) needed = std::min(needed, node->needs_from().value_or(Time::max()));
    for (const auto& node : nodes_)
      node->forget(std::min(t - std::max(remember_, node->slide()), needed - Duration{1}));
  }

  // Offsets before data, commit after output: what a batch takes is durable before anything is made of it, and what its states
  // have become when everything has. With a checkpoint a batch that fails is tried a second time, and then the context stops,
  // so that the next run does it; without one later batches run. [L14, L15]
  void work_on(Time t, BatchInfo& info) {
    const bool taken = take_inputs(t, info);
    count_submitted(info);
    if (!taken && durability_) return stop_for_failure();
    std::vector<bool> done(outputs_.size(), !taken);
    bool good = false;
    if (!sinks_.empty()) {
      for (const auto& state : host_states_) state->hold();
    }
    if (durability_) {
      good = attempt(t, info, done, LogLevel::warning) || (!fenced() && attempt(t, info, done, LogLevel::error));
    } else {
      good = attempt(t, info, done, LogLevel::error);
    }
    if (good && taken) {
      for (const auto& state : host_states_) state->show();
    }
    if (info.processing_start_time) complete(info);
    if (fenced()) return stop_for_failure();
    if (!durability_) return;
    if (!good && durability_->options().failed_batch == FailedBatch::stop) return stop_for_failure();
    const Stage stage{*this, Kind::commit, {}, t};
    try {
      durability_->take_changes();
      persist("the commit", [&] { durability_->commit(t); });
    } catch (...) {
      report(std::current_exception());
      return stop_for_failure();
    }
    tidy_up();
  }

  // What follows from batches that have become durable. The last ones become so when nothing else may happen for long, as with a
  // gate that opens on arrivals: so it is looked at again.
  void tidy_up() {
    try {
      durability_->maintain();
      warn_of_snapshots();
    } catch (const WorldError& error) {
      log(LogLevel::warning,
          [&] { return "the checkpoint could not be tidied up, which is tried again: " + std::string{error.what()}; });
    }
    try {
      if (is_tidying_ || drive_ != Drive::own_thread || durability_->is_durable(last_batch_)) return;
      constexpr Duration soon = std::chrono::milliseconds{10};
      schedule(runtime_->clock->now() + soon, [this] {
        is_tidying_ = false;
        tidy_up();
      });
      is_tidying_ = true;
    } catch (const std::bad_alloc&) {  // the next batch does it
    }
  }

  void warn_of_snapshots() noexcept {
    try {
      if (const std::optional<std::string> warning = durability_->take_snapshot_warning())
        runtime_->log(LogLevel::warning, "checkpoint: " + *warning);
    } catch (const std::bad_alloc&) {
    }
  }

  // Cuts the inputs, or takes again what an earlier run had taken; false when that fails.
  bool take_inputs(Time t, BatchInfo& info) {
    const std::scoped_lock lock{graph_mutex_};
    const bool again = !unfinished_.empty();
    try {
      std::optional<Stage> stage{std::in_place, *this, Kind::cut, std::string_view{}, t};
      info.inputs.reserve(inputs_.size());
      if (again) {
        const BatchPlan plan = std::move(unfinished_.front());
        unfinished_.pop_front();
        durability_->replay(plan, info.inputs);
        for (const InputInfo& input : info.inputs) {
          if (input.lost == 0) continue;
          log(LogLevel::warning, [&] {
            return "the batch of " + to_string(t) + " is run again without " + std::to_string(input.lost) +
                   " records of " + input.name + ", which went with the run before";
          });
        }
      } else {
        const std::size_t max_records =
            options_.interval ? std::numeric_limits<std::size_t>::max() : options_.on_arrival.max_batch_records;
        for (std::size_t i = 0; i < inputs_.size(); ++i) {
          stage->go_on(input_names_[i]);
          info.inputs.push_back(inputs_[i]->cut(t, max_records));
        }
      }
      if (!sinks_.empty()) {
        positions_.clear();
        for (const auto& input : inputs_) input->add_positions(positions_);
      }
      if (durability_ && !again) {
        stage.emplace(*this, Kind::plan, std::string_view{}, t);
        persist("the plan", [&] { durability_->plan(t); });
        stage.emplace(*this, Kind::cut, std::string_view{}, t);
      }
      cut_until_ = t;
      for (const auto& node : nodes_) {
        stage->go_on(node->op());
        node->on_cut(t);
      }
    } catch (...) {
      report(in_batch(t));
      return false;
    }
    return true;
  }

  // A disk that is full, or slow to answer, may get over it.
  template <class Write>
  void persist(const char* what, const Write& write) {
    constexpr int attempts = 3;
    for (int attempt = 1;; ++attempt) {
      try {
        return write();
      } catch (const WorldError& error) {
        if (error.retry() == Retry::is_useless || attempt == attempts) throw;
        log(LogLevel::warning, [&] {
          return std::string{what} + " of a batch could not be written, and is tried again: " + error.what();
        });
      }
      if (drive_ == Drive::own_thread)
        runtime_->clock->wait_until(runtime_->clock->now() + attempt * std::chrono::milliseconds{50}, bell_);
    }
  }

  // Runs the output operations that are not done, and lets the states catch up. Errors are logged at `level`, and reported if
  // that is `error`.
  bool attempt(Time t, BatchInfo& info, std::vector<bool>& done, LogLevel level) {
    for (const auto& sink : sinks_) sink->begin_attempt(t, positions_);
    std::vector<Job> jobs;
    bool good = generate(t, done, jobs, level);
    if (good && !jobs.empty()) good = run_jobs(jobs, info, done, level);
    return settle(t, level) && good;
  }

  // Another program writes in our place: whatever we did would be undone, or come twice.
  [[nodiscard]] bool fenced() const noexcept {
    return std::any_of(sinks_.begin(), sinks_.end(), [](const auto& sink) { return sink->is_fenced(); });
  }

  // Asks every output operation that is not done for its job. When one fails the batch has no jobs. [L15]
  bool generate(Time t, const std::vector<bool>& done, std::vector<Job>& jobs, LogLevel level) {
    const std::scoped_lock lock{graph_mutex_};
    Stage stage{*this, Kind::generate, {}, t};
    try {
      jobs.reserve(outputs_.size());
      for (std::size_t id = 0; id < outputs_.size(); ++id) {
        if (done[id]) continue;
        stage.go_on(outputs_[id]->name());
        if (auto job = outputs_[id]->generate(t)) jobs.push_back({id, outputs_[id].get(), std::move(job)});
      }
      return true;
    } catch (...) {
      note(in_batch(t), level);
      jobs.clear();
      return false;
    }
  }

  bool run_jobs(std::vector<Job>& jobs, BatchInfo& info, std::vector<bool>& done, LogLevel level) {
    const bool is_first_attempt = !info.processing_start_time;
    if (is_first_attempt) {
      list_outputs(info, jobs);
      tell_listeners([&](StreamingListener& listener) { listener.on_batch_submitted(info); });
      info.processing_start_time = runtime_->clock->now();
      tell_listeners([&](StreamingListener& listener) { listener.on_batch_started(info); });
    }
    bool good = true;
    for (Job& job : jobs) {
      OutputOperationInfo& output = output_info(info, job);
      const bool begins_batch = is_first_attempt && &job == &jobs.front();
      output.start_time = begins_batch ? info.processing_start_time : runtime_->clock->now();
      output.failure_reason.reset();
      tell_listeners([&](StreamingListener& listener) { listener.on_output_operation_started(output); });
      try {
        const Stage stage{*this, Kind::output, job.output->name(), info.batch_time, *output.start_time};
        job.run();
        done[job.id] = true;
      } catch (...) {
        const std::exception_ptr error = in_batch(info.batch_time, output.name);
        good = false;
        output.failure_reason = describe(error);
        note(error, fenced() ? LogLevel::error : level);
      }
      job.run = nullptr;  // its batch goes now
      info.processing_end_time = output.end_time = runtime_->clock->now();
      tell_listeners([&](StreamingListener& listener) { listener.on_output_operation_completed(output); });
    }
    return good;
  }

  static void list_outputs(BatchInfo& info, const std::vector<Job>& jobs) {
    info.outputs.reserve(jobs.size());
    for (const Job& job : jobs) {
      OutputOperationInfo& output = info.outputs.emplace_back();
      output.id = job.id;
      output.batch_time = info.batch_time;
      output.name = job.output->name();
    }
  }
  // That of the job, which list_outputs has made: a batch that is tried again has the same output operations, or fewer.
  [[nodiscard]] static OutputOperationInfo& output_info(BatchInfo& info, const Job& job) {
    return *std::find_if(info.outputs.begin(), info.outputs.end(),
                         [&](const OutputOperationInfo& output) { return output.id == job.id; });
  }

  // Makes a batch whose jobs run while the driving thread goes on. States and windows are brought to its time now, so that they
  // move in order of time; what is left to the jobs is what follows from them, and streams without memory.
  void launch(Time t, BatchInfo&& info) {
    const bool taken = take_inputs(t, info);
    count_submitted(info);
    if (!taken) return;
    std::vector<Job> jobs;
    static_cast<void>(generate(t, std::vector<bool>(outputs_.size(), false), jobs, LogLevel::error));
    static_cast<void>(settle(t, LogLevel::error));
    if (jobs.empty()) return;
    list_outputs(info, jobs);
    tell_listeners([&](StreamingListener& listener) { listener.on_batch_submitted(info); });

    std::list<Flight> flight;
    flight.push_back({std::move(info), {}});
    flight.back().jobs.reserve(jobs.size());
    for (Job& job : jobs) flight.back().jobs.push_back({std::move(job), t});
    jobs_left_ += jobs.size();
    flights_.splice(flights_.end(), flight);
    running_.store(flights_.size(), std::memory_order_release);
    for (RunningJob& job : flights_.back().jobs) {
      try {
        job_threads_.submit([this, &job] { run_job(job); });
      } catch (...) {
        const std::scoped_lock lock{jobs_mutex_};
        job.started = job.ended = runtime_->clock->now();
        job.error = in_batch(t, job.job.output->name());
        bell_.ring();
      }
    }
  }

  // On a thread of its own.
  void run_job(RunningJob& job) noexcept {
    const auto now = [this] { return runtime_->clock->now(); };
    {
      const std::scoped_lock lock{jobs_mutex_};
      job.started = now();
    }
    bell_.ring();
    std::exception_ptr error;
    try {
      const Stage stage{*this, Kind::output, job.job.output->name(), job.batch_time};
      job.job.run();
    } catch (...) {
      error = in_batch(job.batch_time, job.job.output->name());
    }
    job.job.run = nullptr;
    {
      const std::scoped_lock lock{jobs_mutex_};
      job.error = std::move(error);
      job.ended = now();
    }
    bell_.ring();
  }

  // Tells what has become of the jobs since the last turn, and completes the batches that have none left. [EN6]
  void collect_jobs() {
    if (flights_.empty()) return;
    const bool was_full = jobs_left_ >= options_.concurrent_jobs;
    for (auto flight = flights_.begin(); flight != flights_.end();) {
      for (RunningJob& job : flight->jobs) {
        if (!collect(job, flight->info)) break;  // the threads take them in order, and so it is told
      }
      if (!std::all_of(flight->jobs.begin(), flight->jobs.end(),
                       [](const RunningJob& job) { return job.end_is_told; })) {
        ++flight;
        continue;
      }
      const Flight done = std::move(*flight);
      flight = flights_.erase(flight);
      running_.store(flights_.size(), std::memory_order_release);
      complete(done.info);
    }
    if (was_full && jobs_left_ < options_.concurrent_jobs) last_end_ = runtime_->clock->now();
  }
  // Whether it has begun.
  bool collect(RunningJob& job, BatchInfo& info) {
    if (job.end_is_told) return true;
    std::optional<Time> started;
    std::optional<Time> ended;
    std::exception_ptr error;
    {
      const std::scoped_lock lock{jobs_mutex_};
      started = job.started;
      ended = job.ended;
      error = job.error;
    }
    if (started && !job.start_is_told) {
      job.start_is_told = true;
      if (!info.processing_start_time) {
        info.processing_start_time = started;
        tell_listeners([&](StreamingListener& listener) { listener.on_batch_started(info); });
      }
      OutputOperationInfo& output = output_info(info, job.job);
      output.start_time = started;
      tell_listeners([&](StreamingListener& listener) { listener.on_output_operation_started(output); });
    }
    if (!ended) return started.has_value();
    job.end_is_told = true;
    --jobs_left_;
    info.processing_end_time = std::max(info.processing_end_time.value_or(*ended), *ended);
    OutputOperationInfo& output = output_info(info, job.job);
    output.end_time = ended;
    if (error) {
      output.failure_reason = describe(error);
      report(error);
    }
    tell_listeners([&](StreamingListener& listener) { listener.on_output_operation_completed(output); });
    return true;
  }

  bool settle(Time t, LogLevel level) {
    const std::scoped_lock lock{graph_mutex_};
    Stage stage{*this, Kind::settle, {}, t};
    bool good = true;
    for (const auto& node : nodes_) {
      stage.go_on(node->op());
      try {
        node->settle(t);
      } catch (...) {
        note(in_batch(t, node->op()), level);
        good = false;
      }
    }
    return good;
  }

  void complete(const BatchInfo& info) {
    const bool failed = std::any_of(info.outputs.begin(), info.outputs.end(), [](const OutputOperationInfo& output) {
      return output.failure_reason.has_value();
    });
    {
      const std::scoped_lock lock{metrics_mutex_};
      ++metrics_.total_completed_batches;
      if (failed) ++metrics_.total_failed_batches;
      metrics_.total_processed_records += info.num_records();
      metrics_.last_completed_batch = info;
    }
    adapt_rates(info);
    tell_listeners([&](StreamingListener& listener) { listener.on_batch_completed(info); });
  }

  // What the batch says about how much its inputs should take in. [BP3]
  void adapt_rates(const BatchInfo& info) {
    for (const InputInfo& input : info.inputs) {
      const auto estimator = estimators_.find(input.stream_id);
      if (estimator == estimators_.end()) continue;
      const std::optional<double> estimate = estimator->second.update(
          *info.processing_end_time, input.records, *info.processing_delay(), *info.scheduling_delay());
      if (!estimate) continue;
      inputs_[input.stream_id]->limit_rate(*estimate);
      const std::scoped_lock lock{metrics_mutex_};
      for (InputRate& rate : metrics_.input_rates) {
        if (rate.stream_id != input.stream_id) continue;
        rate.estimate = *estimate;
        rate.limit = std::min(*estimate, inputs_[input.stream_id]->max_rate().value_or(unlimited_rate));
      }
    }
  }

  // The exception in flight, with what is known here.
  [[nodiscard]] std::exception_ptr in_batch(Time t, const std::string& op = {}) const noexcept {
    std::exception_ptr plain = std::current_exception();
    try {
      return with_context(
          {.application = runtime_->app_name, .op = op, .batch_time = t, .partition = {}, .offset = {}});
    } catch (...) {
      return plain;  // no memory to say more
    }
  }

  // An error of an attempt that is not the last is only worth a line.
  void note(const std::exception_ptr& error, LogLevel level) noexcept {
    if (level == LogLevel::error) return report(error);
    log(level, [&] { return describe(error) + "; the batch is tried again"; });
  }

  void stop_for_failure() noexcept {
    failed_ = true;
    request_stop(StopMode::immediate);
  }

  void count_submitted(const BatchInfo& info) {
    const std::scoped_lock lock{metrics_mutex_};
    metrics_.total_received_records += info.num_records();
    metrics_.last_received_batch = info;
  }

  void run_due_tasks() {
    const Time now = runtime_->clock->now();
    std::vector<Task> due;
    {
      const std::scoped_lock lock{mutex_};
      if (tasks_.empty()) return;
      const auto later =
          std::stable_partition(tasks_.begin(), tasks_.end(), [now](const Task& t) { return t.when <= now; });
      due.assign(std::make_move_iterator(tasks_.begin()), std::make_move_iterator(later));
      tasks_.erase(tasks_.begin(), later);
    }
    const Stage stage{*this, Kind::input_task, {}, {}, now};
    for (const Task& task : due) {
      try {
        task.run();
      } catch (...) {
        report(std::current_exception());
      }
    }
  }

  // ---- the end ----------------------------------------------------------------------------------------------------------

  void stop_inputs() noexcept {
    {
      const std::scoped_lock lock{mutex_};
      if (std::exchange(inputs_stopped_, true)) return;
      tasks_.clear();
    }
    Stage stage{*this, Kind::stop_input, {}, {}};
    for (std::size_t i = 0; i < inputs_started_; ++i) {
      stage.go_on(input_names_[i]);
      inputs_[i]->stop();
    }
  }

  void finish() noexcept {
    stop_inputs();
    std::unique_ptr<IoService> io;
    {
      const std::scoped_lock lock{mutex_};
      io = std::move(io_);
    }
    io.reset();
    finish_jobs();
    {
      const Stage stage{*this, Kind::close, {}, {}};
      close_sinks();
      close_checkpoint();
    }
    deliver_events();
    watchdog_.close();
    if (runtime_->own_workers != nullptr) runtime_->own_workers->release();
    end(StreamingState::stopped);
    if (dispose_at_end_) dispose();
  }

  void finish_jobs() noexcept {
    job_threads_.close();
    try {
      collect_jobs();
    } catch (...) {
      report(std::current_exception());
    }
  }

  void close_sinks() noexcept {
    for (const auto& sink : sinks_) sink->close();
  }

  void close_checkpoint() noexcept {
    if (!durability_) return;
    try {
      warn_of_snapshots();
      durability_->close();
    } catch (...) {
      drained_ = false;
      report(std::current_exception());
    }
  }

  void end(StreamingState last) noexcept {
    std::vector<std::function<void(std::exception_ptr)>> waiters;
    {
      const std::scoped_lock lock{mutex_};
      state_.store(last, std::memory_order_release);
      ended_ = true;
      waiters.swap(waiters_);
    }
    changed_.notify_all();
    call_waiters(waiters, nullptr);
  }

  // Every error is logged; the first is kept for those who wait for the end.
  void report(const std::exception_ptr& error) noexcept {
    log(LogLevel::error, [&] { return describe(error); });
    std::vector<std::function<void(std::exception_ptr)>> waiters;
    {
      const std::scoped_lock lock{mutex_};
      last_error_ = error;
      if (first_error_) return;
      first_error_ = error;
      waiters.swap(waiters_);
    }
    changed_.notify_all();
    call_waiters(waiters, error);
  }

  // Logs what `text()` returns; without memory for it the line is lost, and nothing else.
  template <class Text>
  void log(LogLevel level, const Text& text) const noexcept {
    try {
      runtime_->log(level, text());
    } catch (...) {
    }
  }

  void call_waiters(const std::vector<std::function<void(std::exception_ptr)>>& waiters,
                    const std::exception_ptr& error) noexcept {
    for (const auto& waiter : waiters) {
      try {
        waiter(error);
      } catch (...) {
        runtime_->log(LogLevel::error, "a completion handler of await_termination threw");
      }
    }
  }

  // ---- listeners ----------------------------------------------------------------------------------------------------------

  // Receivers speak on their own threads; what they say is kept for the driving thread. [EN6]
  void tell(void (StreamingListener::*event)(const ReceiverInfo&), std::size_t id, const std::string& name,
            const std::string& message) noexcept {
    if (!has_listeners_.load(std::memory_order_acquire)) return;
    try {
      const std::scoped_lock lock{mutex_};
      events_.push_back(
          [event, info = ReceiverInfo{id, name, message}](StreamingListener& listener) { (listener.*event)(info); });
    } catch (...) {
      return;  // no memory: the event is lost, the stream is not
    }
    bell_.ring();
  }

  void deliver_events() noexcept {
    std::vector<std::function<void(StreamingListener&)>> events;
    {
      const std::scoped_lock lock{mutex_};
      if (events_.empty()) return;
      events.swap(events_);
    }
    for (const auto& event : events) tell_listeners(event);
  }

  // One function for every kind of event: a batch after a long pause pays for each line of code it touches.
  void tell_listeners(FunctionRef<void(StreamingListener&)> event) noexcept {
    if (!has_listeners_.load(std::memory_order_acquire)) return;
    std::shared_ptr<const Listeners> listeners;
    {
      const std::scoped_lock lock{mutex_};
      listeners = listeners_;
    }
    const Stage stage{*this, Kind::listener, {}, {}};
    for (const auto& listener : *listeners) {
      try {
        event(*listener);
      } catch (...) {
        log(LogLevel::error, [] { return "a StreamingListener threw: " + describe(std::current_exception()); });
      }
    }
  }

  template <class Change>
  void change_listeners(const Change& change) {
    const std::scoped_lock lock{mutex_};
    auto listeners = std::make_shared<Listeners>(*listeners_);
    change(*listeners);
    has_listeners_.store(!listeners->empty(), std::memory_order_release);
    listeners_ = std::move(listeners);
  }

  // Fixed after construction.
  const std::shared_ptr<Runtime> runtime_;  // shared with contexts and batches
  const EngineOptions options_;

  // Self-synchronised.
  WakeUp bell_;
  std::atomic<StreamingState> state_ = StreamingState::initialized;
  std::atomic<std::thread::id> driving_ = {};
  std::atomic<Duration::rep> zero_ = 0;
  std::atomic<Duration::rep> next_tick_ = 0;
  std::atomic<Duration::rep> resumed_from_ = 0;
  std::atomic<Duration::rep> pause_ends_ = std::numeric_limits<Duration::rep>::min();  // on_arrival: no batch before
  std::atomic<std::uint64_t> running_ = 0;                                             // batches
  std::atomic<bool> has_listeners_ = false;
  JobThreads job_threads_;  // none unless there are concurrent jobs
  std::mutex jobs_mutex_;   // what threads of jobs say
  std::atomic<std::uint64_t> receiver_errors_ = 0;
  RunningStages stages_;
  Watchdog watchdog_;

  // Fixed at start, under life_mutex_ before.
  LifeLock life_mutex_;  // one start, step or stop at a time. Lock order: before all others
  Drive drive_ = Drive::own_thread;
  std::thread thread_;
  std::vector<std::shared_ptr<Input>> inputs_;                 // shared with the streams that take their blocks
  std::vector<std::string> input_names_;                       // of the same index
  std::vector<std::shared_ptr<const GraphNode>> input_nodes_;  // likewise; null: not named
  std::vector<std::shared_ptr<SinkTransactions>> sinks_;       // shared with the outputs that write to them
  std::size_t inputs_started_ = 0;                             // the first so many
  std::unique_ptr<Durability> durability_;                     // null: no checkpoint

  Time began_;  // this run, by the clock
  Time remembered_from_;
  std::set<Duration> longer_slides_;  // than the interval, of streams

  // The driving thread's own.
  std::map<std::size_t, PidRateEstimator> estimators_;  // by stream id, with backpressure only
  Time last_batch_;
  Time last_end_;
  Time drain_began_;
  Time drain_deadline_;
  Time last_start_;                       // of a batch, by the clock
  Time merged_until_ = Time::min();       // ticks that passed before the start have as few batches as can be
  bool catching_up_slowly_ = false;       // ticks that passed before the start are run two an interval
  std::deque<BatchPlan> unfinished_;      // of the run before, to be run again first
  std::vector<InputPosition> positions_;  // after the last cut; with sinks only
  bool is_tidying_ = false;               // tidy_up is going to be called
  bool draining_ = false;
  bool failed_ = false;                       // a batch did, and the context stops for it
  bool drained_ = true;                       // read by stop() after the thread has ended
  std::list<Flight> flights_;                 // in order of time
  std::size_t jobs_left_ = 0;                 // in them
  bool waits_for_jobs_ = false;               // and begins no batch before one ends
  std::atomic<bool> dispose_at_end_ = false;  // set by whichever output operation destroyed the context

  std::shared_ptr<const Scope> scope_;  // guarded by graph_mutex_
  Time cut_until_;                      // likewise

  mutable std::mutex metrics_mutex_;
  StreamingMetrics metrics_;  // guarded by metrics_mutex_

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::optional<StopMode> stop_requested_;
  bool inputs_stopped_ = false;  // and none is scheduled for any more
  bool ended_ = false;
  std::exception_ptr first_error_;
  std::exception_ptr last_error_;
  std::vector<std::function<void(std::exception_ptr)>> waiters_;
  std::vector<Task> tasks_;
  std::vector<std::function<void(StreamingListener&)>> events_;
  std::shared_ptr<const Listeners> listeners_ =
      std::make_shared<Listeners>();  // shared with those who tell them just now
  std::unique_ptr<IoService> io_;
};

StreamingEngine::StreamingEngine(std::shared_ptr<Runtime> runtime, EngineOptions options)
    : impl_{std::make_unique<Impl>(std::move(runtime), options)} {}
StreamingEngine::~StreamingEngine() = default;

void StreamingEngine::add(const std::shared_ptr<GraphNode>& node) {
  check_can_change(node->op().c_str());
  impl_->nodes_.push_back(node);
}
std::size_t StreamingEngine::add_input(std::shared_ptr<Input> input) { return impl_->add_input(std::move(input)); }
void StreamingEngine::add_output(std::shared_ptr<OutputOperation> output) {
  check_can_change(output->name().c_str());
  impl_->outputs_.push_back(std::move(output));
}
void StreamingEngine::add_sink(std::shared_ptr<SinkTransactions> sink) { impl_->add_sink(std::move(sink)); }
void StreamingEngine::add_state(std::shared_ptr<const GraphNode> node, std::shared_ptr<DurableState> state,
                                std::string part) {
  check_can_change(node->op().c_str());
  impl_->states_.push_back({std::move(node), std::move(part), std::move(state), {}});
}
void StreamingEngine::add_host_state(std::shared_ptr<HostState> state) {
  check_can_change("a state");
  impl_->host_states_.push_back(std::move(state));
}
void StreamingEngine::add_unsaved_state(std::shared_ptr<const GraphNode> node, std::string why) {
  check_can_change(node->op().c_str());
  impl_->states_.push_back({std::move(node), {}, nullptr, std::move(why)});
}
void StreamingEngine::name_input(std::size_t id, std::shared_ptr<const GraphNode> node) {
  impl_->name_input(id, std::move(node));
}
void StreamingEngine::checkpoint(std::string directory, RecoveryOptions options, Existing existing) {
  impl_->checkpoint(std::move(directory), std::move(options), existing);
}
void StreamingEngine::see_part(std::string name) {
  TIDEMILL_ASSERT(impl_->nodes_.empty(), "what has been added did not know that the program sees a part");
  impl_->part_ = std::move(name);
}
const std::string& StreamingEngine::part() const noexcept { return impl_->part_; }
void StreamingEngine::check_can_change(const char* what) const { impl_->check_can_change(what); }
void StreamingEngine::remember(Duration d) {
  check_can_change("remember");
  if (d <= Duration::zero()) throw ConfigError("remember() needs a positive duration, and was given " + to_string(d));
  if (impl_->remember_ != Duration::zero())
    throw PlanError("illegal_state", "remember() was called twice; the duration is " + to_string(impl_->remember_));
  impl_->remember_ = d;
}

const std::shared_ptr<Runtime>& StreamingEngine::runtime() const noexcept { return impl_->runtime(); }
Duration StreamingEngine::batch_interval() const noexcept { return impl_->batch_interval(); }
std::ostream& StreamingEngine::output() const noexcept { return impl_->output(); }
bool StreamingEngine::gate_is_on_arrival() const noexcept { return impl_->gate_is_on_arrival(); }
StreamingState StreamingEngine::state() const noexcept { return impl_->state(); }
Time StreamingEngine::zero_time() const noexcept { return impl_->zero_time(); }
Time StreamingEngine::resumed_from() const noexcept { return impl_->resumed_from(); }
Time StreamingEngine::remembered_from() const noexcept { return impl_->remembered_from(); }
std::shared_ptr<const Scope> StreamingEngine::scope_of(Time t) { return impl_->scope_of(t); }
Time StreamingEngine::cut_until() const noexcept { return impl_->cut_until(); }
std::recursive_mutex& StreamingEngine::graph_mutex() noexcept { return impl_->graph_mutex_; }
std::mutex& StreamingEngine::print_mutex() noexcept { return impl_->print_mutex_; }

void StreamingEngine::start(Drive drive) { impl_->start(drive, shared_from_this()); }
bool StreamingEngine::step() {
  const auto self = shared_from_this();  // the batch may destroy the context
  return impl_->step();
}
std::optional<Time> StreamingEngine::next_batch_time() const { return impl_->next_batch_time(); }
bool StreamingEngine::stop(StopMode mode) {
  const auto self = shared_from_this();  // as in step
  return impl_->stop(mode);
}
void StreamingEngine::request_stop(StopMode mode) { impl_->request_stop(mode); }
StopReport StreamingEngine::stop_or_timeout(std::chrono::nanoseconds timeout, StopMode mode) {
  const auto self = shared_from_this();  // as in step
  return impl_->stop_or_timeout(timeout, mode);
}
bool StreamingEngine::await_termination(std::optional<std::chrono::nanoseconds> timeout) {
  return impl_->await_termination(timeout);
}
std::exception_ptr StreamingEngine::take_last_error() noexcept { return impl_->take_last_error(); }
void StreamingEngine::when_terminated(std::function<void(std::exception_ptr)> done) {
  impl_->when_terminated(std::move(done));
}
void StreamingEngine::shut_down() noexcept { impl_->shut_down(); }
void StreamingEngine::receiver_error(std::size_t stream_id, const std::string& name,
                                     const std::string& message) noexcept {
  impl_->receiver_error(stream_id, name, message);
}
void StreamingEngine::add_listener(std::shared_ptr<StreamingListener> listener) {
  impl_->add_listener(std::move(listener));
}
void StreamingEngine::remove_listener(const std::shared_ptr<StreamingListener>& listener) {
  impl_->remove_listener(listener);
}
StreamingMetrics StreamingEngine::metrics() const { return impl_->metrics(); }

}  // namespace tidemill::detail
