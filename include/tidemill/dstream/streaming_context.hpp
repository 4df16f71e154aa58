// StreamingContext: where streams come from, and the life of the whole: inputs, gate, start, stop.
//
//     tidemill::Context context{{.app_name = "word-count", .parallelism = 2}};
//     tidemill::StreamingContext ssc{context, 1s};          // a batch a second
//     …                                                     // inputs, transformations, output operations
//     ssc.start();
//     ssc.await_termination();
//
// Two gates:  an interval closes a batch at every multiple of it since the epoch; `on_arrival` closes one as soon as anything
//             has arrived and the batch before is done.
// Two drives: `start()` runs the batches on a thread of the context's own; `start(Drive::by_host)` starts no thread, and the
//             host calls `step()`, which runs one batch on the calling thread.
// Any number of contexts may run in one process. None installs a signal handler; stop it from your own.
// Source: Spark `StreamingContext`.
#pragma once

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <iosfwd>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tidemill/batch/blocks.hpp"
#include "tidemill/batch/context.hpp"
#include "tidemill/core/codec_layout.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/dstream/dstream.hpp"
#include "tidemill/engine/engine.hpp"
#include "tidemill/engine/gate.hpp"
#include "tidemill/engine/listener.hpp"
#include "tidemill/engine/rate.hpp"
#include "tidemill/engine/recovery.hpp"
#include "tidemill/io/directory.hpp"
#include "tidemill/io/queue.hpp"
#include "tidemill/io/receiver.hpp"
#include "tidemill/io/socket.hpp"

namespace tidemill {

/// What a context is told besides its gate.
struct StreamingOptions {
  /// A graceful stop gives up after this long. Default: ten batch intervals, and at least 10 s.
  std::optional<Duration> graceful_stop_timeout = std::nullopt;
  /// Where print() writes; must outlive the context. Null: the standard output.
  std::ostream* output = nullptr;
  /// Has receivers and sockets take in what the batches have time for: `.backpressure = Backpressure{}`. It needs a batch
  /// interval. Absent: only max_rate and memory limit them. [BP2]
  std::optional<Backpressure> backpressure = std::nullopt;
  /// When more ticks than this wait for their batches, because earlier batches are slow, the oldest are merged: one batch, at the
  /// last of them, takes what all of them would have had, and no record is lost. It is logged as a warning and counted
  /// (`merged_ticks`). A tick at which a stream with a longer slide has its batch is never passed over, so windows have all
  /// their results; nor is one that had passed before the start (`CatchUp` decides about those). At least 1.
  std::size_t max_pending_batches = 1000;
  /// How many output operations may run at once, each on a thread of its own: those of one batch, and those of batches that
  /// follow each other, so that a slow one does not hold up the next batch. They begin in order of batch time and, in a batch,
  /// of registration, and may end in any order. So one output operation may run for two batches at a time, and with more than
  /// 1 a function given to foreach_batch must be safe to call from several threads. States and windows still see the batches in
  /// order. The next batch begins when fewer than so many output operations are running or waiting, so at most so many batches
  /// are in memory. More than 1 is for a context that has its own thread and no checkpoint. 1 to 1024. [J2]
  std::size_t concurrent_jobs = 1;
  /// When an output operation, or anything else that a batch waits for, has been running for so long, the log gets a warning that
  /// names it; nothing is ended. `metrics().running_stages` tells at any time. It takes a thread, `<application>-watch`, which
  /// looks once in so long. Absent: 30 s, but no thread, and no warning, with Drive::by_host. Zero: none. [F59]
  std::optional<Duration> watchdog = std::nullopt;
};

/// Threads: streams are built by one thread before the start; after it, any thread may call any member.
class TIDEMILL_API StreamingContext {
 public:
  using Options = StreamingOptions;  ///< the same, in fewer words

  /// A batch at every multiple of `batch_interval` since the epoch. Errors: ConfigError naming the value.
  StreamingContext(const Context& context, Duration batch_interval, Options options = {});
  /// A batch as soon as anything has arrived. Errors: ConfigError naming the value.
  StreamingContext(const Context& context, OnArrival gate, Options options = {});
  /// Stops at once when it is still active.
  ~StreamingContext();
  StreamingContext(const StreamingContext&) = delete;
  StreamingContext& operator=(const StreamingContext&) = delete;

  /// Its threads, clock and log. [C3]
  [[nodiscard]] const Context& context() const noexcept { return context_; }
  /// Zero when the gate is on_arrival.
  [[nodiscard]] Duration batch_interval() const noexcept { return engine_->batch_interval(); }

  // ---- inputs: before start ---------------------------------------------------------------------------------------------

  /// Lines of text from a TCP server, to which the context connects, again and again if need be. [C7, I1]
  [[nodiscard]] DStream<std::string_view> socket_text_stream(std::string host, std::uint16_t port,
                                                             SocketOptions options = {});
  /// Records that `decoder` makes of the bytes from a TCP server. [C8]
  template <class T>
  [[nodiscard]] DStream<T> socket_stream(std::string host, std::uint16_t port, StreamDecoder<T> decoder,
                                         SocketOptions options = {});
  /// Blocks of serialised records (`encode_raw_block`) from a TCP server; decoded when the batch runs. [C9, I2]
  template <class T>
  [[nodiscard]] DStream<T> raw_socket_stream(std::string host, std::uint16_t port, SocketOptions options = {});

  /// The lines of files that appear in a directory. [C11, I3–I5]
  [[nodiscard]] DStream<std::string_view> text_file_stream(std::filesystem::path directory,
                                                           DirectoryOptions options = {});
  /// Records of `record_length` bytes from files that appear in a directory. [C12]
  [[nodiscard]] DStream<std::span<const std::byte>> binary_records_stream(std::filesystem::path directory,
                                                                          std::size_t record_length,
                                                                          DirectoryOptions options = {});
  /// Whatever `read(paths)` makes of the files that appear in a directory: a Batch, once an interval, also of none. [C10]
  template <class Read>
  [[nodiscard]] auto file_stream(std::filesystem::path directory, Read read, DirectoryOptions options = {});

  /// The batches of a queue, one an interval or all that wait. When the queue is empty: `otherwise`, or nothing. [C13, I7]
  template <class T>
  [[nodiscard]] DStream<T> queue_stream(std::shared_ptr<BatchQueue<T>> queue, QueueMode mode = QueueMode::one_at_a_time,
                                        std::optional<Batch<T>> otherwise = std::nullopt);
  /// The same batch every interval. [I8]
  template <class T>
  [[nodiscard]] DStream<T> constant_stream(Batch<T> batch);

  /// What a receiver of yours stores (io/receiver.hpp). [C6]
  template <class R>
  [[nodiscard]] DStream<typename R::record_type> receiver_stream(std::shared_ptr<R> receiver,
                                                                 ReceiverOptions options = {});

  /// All streams in one. Errors: PlanError when there is none, or they do not fit together. [C14]
  template <class T>
  [[nodiscard]] DStream<T> union_streams(const std::vector<DStream<T>>& streams);

  /// `f(batches, time)`, with the batches of all streams at one time, returns the new batch. [C15]
  template <class T, class F>
  [[nodiscard]] auto transform(const std::vector<DStream<T>>& streams, F f);
  /// The same for streams of different types: `f(batch, batch, …, time)` or `f(batch, batch, …)`.
  template <class F, class First, class... Rest>
  [[nodiscard]] auto transform_streams(F f, const First& first, const Rest&... rest);

  // ---- sinks: before start ----------------------------------------------------------------------------------------------

  /// A transactional sink (io/sink.hpp) for use from foreach_batch. DStream::save_to does both. `name` as there.
  template <std::derived_from<TransactionalSink> S>
  [[nodiscard]] SinkHandle<S> add_sink(std::shared_ptr<S> sink, std::string name = {}) {
    if (!sink) throw ConfigError("add_sink was given a null sink");
    if (name.empty()) name = sink->name();
    return detail::add_sink(*engine_, std::move(sink), std::move(name));
  }

  // ---- checkpoints: before start ----------------------------------------------------------------------------------------

  /// Keeps in `directory` what is needed to go on after a crash: what each batch takes is written down before it runs, and what
  /// its states have become when it is done. One context at a time uses a directory; its parent exists. start() refuses one
  /// that holds a checkpoint already: see get_or_create. [C5]
  /// Errors: PlanError when a directory was named before, ConfigError when it is empty. And at start():
  ///   ConfigError for options that cannot be, naming option and value;
  ///   PlanError "checkpoint_exists"; "not_encodable" naming a state whose types have no codec; "ambiguous_name" naming two
  ///             states or inputs that need a .name("...") to be told apart;
  ///             "incompatible_checkpoint" naming every difference between the program and the run that it would continue;
  ///   StateError "checkpoint_in_use" naming the process, "checkpoint_damaged", "newer_format",
  ///              "unsafe_filesystem", "disk_full", …
  void checkpoint(std::filesystem::path directory, RecoveryOptions options = {}) {
    engine_->checkpoint(directory.string(), std::move(options), Existing::refuse);
  }

  /// The way to write a program that goes on where it was killed: `setup()` returns a std::unique_ptr<StreamingContext> with
  /// inputs, operators and outputs, and no checkpoint. When the directory holds the checkpoint of an earlier run, start() gives
  /// its states back, runs again the batches that were not finished, with exactly what they had taken, and then those whose ticks
  /// have passed. A checkpoint holds data and no code: setup is called in any case, and may be newer than the run before, as long
  /// as its states are of the same names and types. The batch interval, the parallelism and stateless operators may change.
  ///
  ///     auto ssc = StreamingContext::get_or_create("/var/lib/app/checkpoint", [&] {
  ///       auto fresh = std::make_unique<StreamingContext>(context, 1s);
  ///       …                                                   // streams and outputs
  ///       return fresh;
  ///     });
  ///     ssc->start();
  /// Errors: those of checkpoint(). [C21]
  template <class Setup>
  [[nodiscard]] static std::unique_ptr<StreamingContext> get_or_create(std::filesystem::path directory, Setup&& setup,
                                                                       RecoveryOptions options = {}) {
    std::unique_ptr<StreamingContext> context = std::forward<Setup>(setup)();
    if (!context) throw ConfigError("the setup function of get_or_create returned no context");
    context->engine_->checkpoint(directory.string(), std::move(options), Existing::resume);
    return context;
  }

  /// Batches are remembered at least this long, for `slice`. May be said once. [C4]
  void remember(Duration d) { engine_->remember(d); }

  // ---- life -------------------------------------------------------------------------------------------------------------

  /// Errors: PlanError without an output operation, when the context is stopped, or for concurrent jobs with a checkpoint or with
  /// Drive::by_host; what an input cannot even try. When it throws, the context is stopped. Starting an active context does
  /// nothing but log a warning. [L2, L3, L5]
  void start(Drive drive = Drive::own_thread) { engine_->start(drive); }

  /// With Drive::by_host: runs the oldest batch that is due, on the calling thread. False when none is due.
  bool step() { return engine_->step(); }
  /// When step() has something to do next: a batch, or a producer that waits to go on; absent while the on_arrival gate waits.
  [[nodiscard]] std::optional<Time> next_batch_time() const { return engine_->next_batch_time(); }

  /// Ends the context, joins its threads, and returns whether everything received was worked on. The running batch is
  /// finished. `graceful` first runs batches until nothing is left, up to the timeout. With Drive::by_host it runs them
  /// itself, at once. Errors: PlanError when called from a listener or an output operation. [L7–L9, L11, L12]
  bool stop(StopMode mode = StopMode::immediate) { return engine_->stop(mode); }
  /// The same, but it returns when `timeout` (real time) has passed, and says what is still running: a function that hangs holds
  /// up its thread, which is never ended by force, and not the caller. The stop stays asked for, and happens when the function
  /// returns; stop, await_termination and this may be called again. The destructor waits without a limit. With Drive::by_host the
  /// batches that a graceful stop runs are run here, and the timeout is looked at between them. Errors: as stop. [F59]
  StopReport stop_or_timeout(std::chrono::nanoseconds timeout, StopMode mode = StopMode::immediate) {
    return engine_->stop_or_timeout(timeout, mode);
  }
  /// Asks for a stop without waiting; may be called from anywhere but a signal handler.
  void request_stop(StopMode mode = StopMode::immediate) { engine_->request_stop(mode); }

  /// Waits until the context has stopped, or throws the first error of a batch; the context runs on then. [C18, L14]
  void await_termination() { engine_->await_termination(std::nullopt); }
  /// The same for at most `timeout`; false when that has passed.
  [[nodiscard]] bool await_termination_or_timeout(std::chrono::nanoseconds timeout) {
    return engine_->await_termination(timeout);
  }
  /// Asio style, with callbacks, futures and co_await: `void(std::exception_ptr)`. Include tidemill/asio.hpp.
  template <class CompletionToken>
  auto async_await_termination(CompletionToken&& token);

  /// initialized, active or stopped. [C20]
  [[nodiscard]] StreamingState state() const noexcept { return engine_->state(); }

  // ---- watching ---------------------------------------------------------------------------------------------------------

  /// It hears what happens from now on. [C16]
  void add_listener(std::shared_ptr<StreamingListener> listener) { engine_->add_listener(std::move(listener)); }
  /// It hears no more, but what is being told just now. [C16]
  void remove_listener(const std::shared_ptr<StreamingListener>& listener) { engine_->remove_listener(listener); }
  /// Counters and gauges, all of one moment.
  [[nodiscard]] StreamingMetrics metrics() const { return engine_->metrics(); }

  /// For those who write inputs.
  [[nodiscard]] const std::shared_ptr<detail::StreamingEngine>& engine() const noexcept { return engine_; }

 private:
  template <class T, class Make>
  [[nodiscard]] DStream<T> source(const char* op, std::shared_ptr<detail::Input> input, Make make) {
    const std::size_t id = engine_->add_input(std::move(input));
    using Node = detail::SourceNode<T, Make>;
    auto node = detail::add_node<Node>(engine_, op, engine_->batch_interval(), std::move(make));
    engine_->name_input(id, node);
    return DStream<T>{std::move(node)};
  }

  Context context_;
  std::shared_ptr<detail::StreamingEngine> engine_;  // shared with the streams, whose handles may outlive us
};

// ---- bodies -------------------------------------------------------------------------------------------------------------

template <class T>
DStream<T> StreamingContext::queue_stream(std::shared_ptr<BatchQueue<T>> queue, QueueMode mode,
                                          std::optional<Batch<T>> otherwise) {
  if (!queue) throw ConfigError("queue_stream was given a null queue");
  auto input = std::make_shared<detail::QueueInput<T>>(std::move(queue), mode);
  return source<T>("queue", input, [engine = engine_.get(), input, otherwise = std::move(otherwise)](Time t) {
    const auto scope = engine->scope_of(t);
    if (auto batch = input->take_cut(scope)) return *std::move(batch);
    if (otherwise) return *otherwise;
    return Batch<T>{std::make_shared<const detail::VectorNode<T>>(scope, std::vector<T>{}, 1)};
  });
}

template <class T>
DStream<T> StreamingContext::constant_stream(Batch<T> batch) {
  return source<T>("constant", std::make_shared<detail::ConstantInput>(),
                   [batch = std::move(batch)](Time) { return batch; });
}

template <class R>
DStream<typename R::record_type> StreamingContext::receiver_stream(std::shared_ptr<R> receiver,
                                                                   ReceiverOptions options) {
  using T = typename R::record_type;
  if (!receiver) throw ConfigError("receiver_stream was given a null receiver");
  auto input =
      std::make_shared<detail::ReceiverInput<T>>(context_.runtime()->clock, std::move(receiver), std::move(options));
  return source<T>("receiver", input, [engine = engine_.get(), input](Time t) {
    return Batch<T>{std::make_shared<const detail::BlocksNode<T>>(engine->scope_of(t), input->take_cut())};
  });
}

template <class T>
DStream<T> StreamingContext::socket_stream(std::string host, std::uint16_t port, StreamDecoder<T> decoder,
                                           SocketOptions options) {
  auto input = make_socket_input<T>(context_.runtime(), std::move(host), port, std::move(decoder), std::move(options));
  return source<T>("socket", input, [engine = engine_.get(), input](Time t) {
    return Batch<T>{std::make_shared<const detail::BlocksNode<T>>(engine->scope_of(t), input->take_cut())};
  });
}

template <class T>
DStream<T> StreamingContext::raw_socket_stream(std::string host, std::uint16_t port, SocketOptions options) {
  auto input = make_raw_socket_input(context_.runtime(), std::move(host), port, std::move(options));
  if constexpr (Encodable<T>) input->records_are(codec_layout<T>());
  return source<T>("raw_socket", input, [engine = engine_.get(), input](Time t) {
    return detail::raw_blocks_batch<T>(engine->scope_of(t), input->take_cut());
  });
}

template <class Read>
auto StreamingContext::file_stream(std::filesystem::path directory, Read read, DirectoryOptions options) {
  using Result = std::invoke_result_t<const Read&, const std::vector<std::filesystem::path>&>;
  using T = typename std::remove_cvref_t<Result>::value_type;
  auto input = make_directory_input(context_.runtime(), std::move(directory), std::move(options));
  return source<T>("file_stream", input, [input, read = std::move(read)](Time) {
    return Batch<T>{detail::call_user("file_stream", read, input->take_cut())};
  });
}

template <class T>
DStream<T> StreamingContext::union_streams(const std::vector<DStream<T>>& streams) {
  if (streams.empty()) throw PlanError("no_streams", "union_streams was given no stream; give at least one");
  detail::check_context("union_streams", *engine_, streams.front().node());
  if (streams.size() == 1) return streams.front();
  return transform(streams, [](const std::vector<Batch<T>>& batches, Time) {
    Batch<T> all = batches.front();
    for (std::size_t i = 1; i < batches.size(); ++i) all = all.union_with(batches[i]);
    return all;
  });
}

namespace detail {

template <class F, class First, class... Rest>
[[nodiscard]] auto transform_all(const std::shared_ptr<StreamingEngine>& engine, F f, const DStream<First>& first,
                                 const DStream<Rest>&... rest) {
  check_context("transform_streams", *engine, first.node());
  (check_same_context("transform_streams", first.node(), rest.node()), ...);
  auto call = [f = share(std::move(f))](const Batch<First>& a, const Batch<Rest>&... others, Time t) {
    return call_with_time("transform_streams", f, t, a, others...);
  };
  using Out = typename std::invoke_result_t<decltype(call)&, Batch<First>, Batch<Rest>..., Time>::value_type;
  using Node = JoinedNode<Out, decltype(call), DStream<First>, DStream<Rest>...>;
  return DStream<Out>{
      add_node<Node>(engine, "transform_streams", KeyUse::changes, first.slide(), std::move(call), first, rest...)};
}

}  // namespace detail

template <class T, class F>
auto StreamingContext::transform(const std::vector<DStream<T>>& streams, F f) {
  if (streams.empty()) throw PlanError("no_streams", "transform was given no stream; give at least one");
  detail::check_context("transform", *engine_, streams.front().node());
  for (const DStream<T>& stream : streams)
    detail::check_same_context("transform", streams.front().node(), stream.node());
  return streams.front().lift("transform", [streams, f = detail::share(std::move(f))](const auto&, Time t) {
    std::vector<Batch<T>> batches;
    batches.reserve(streams.size());
    for (const DStream<T>& stream : streams) batches.push_back(stream.at(t));
    return detail::call_with_time("transform", f, t, batches);
  });
}

template <class F, class First, class... Rest>
auto StreamingContext::transform_streams(F f, const First& first, const Rest&... rest) {
  return detail::transform_all(engine_, std::move(f), detail::as_stream(first), detail::as_stream(rest)...);
}

}  // namespace tidemill
