#include "tidemill/dstream/streaming_context.hpp"

#include <atomic>

#include "tidemill/batch/files.hpp"
#include "tidemill/batch/text.hpp"

namespace tidemill {

namespace {

detail::EngineOptions engine_options(std::optional<Duration> interval, OnArrival gate,
                                     const StreamingOptions& options) {
  return {.interval = interval,
          .on_arrival = gate,
          .graceful_stop_timeout = options.graceful_stop_timeout,
          .output = options.output,
          .backpressure = options.backpressure,
          .max_pending_batches = options.max_pending_batches,
          .concurrent_jobs = options.concurrent_jobs,
          .watchdog = options.watchdog};
}

}  // namespace

StreamingContext::StreamingContext(const Context& context, Duration batch_interval, Options options)
    : context_{context},
      engine_{
          std::make_shared<detail::StreamingEngine>(context.runtime(), engine_options(batch_interval, {}, options))} {}

StreamingContext::StreamingContext(const Context& context, OnArrival gate, Options options)
    : context_{context},
      engine_{
          std::make_shared<detail::StreamingEngine>(context.runtime(), engine_options(std::nullopt, gate, options))} {}

StreamingContext::~StreamingContext() { engine_->shut_down(); }

DStream<std::string_view> StreamingContext::socket_text_stream(std::string host, std::uint16_t port,
                                                               SocketOptions options) {
  auto input = make_socket_text_input(context_.runtime(), std::move(host), port, options);
  return source<std::string_view>("socket_text", input, [engine = engine_.get(), input](Time t) {
    return detail::text_blocks_batch(engine->scope_of(t), input->take_cut(),
                                     engine->runtime()->executor->parallelism());
  });
}

DStream<std::string_view> StreamingContext::text_file_stream(std::filesystem::path directory,
                                                             DirectoryOptions options) {
  const std::size_t max_line_bytes = options.max_line_bytes;
  auto input = make_directory_input(context_.runtime(), std::move(directory), std::move(options));
  // Batches may outlive the engine, and know it only to complain.
  const auto total = std::make_shared<std::atomic<std::uint64_t>>(0);  // lines left out; shared with the batches
  const detail::LinesLeftOut left_out = [engine = engine_->weak_from_this(), input, total](const std::string& complaint,
                                                                                           std::size_t lines) {
    const std::uint64_t so_far = total->fetch_add(lines) + lines;
    if (const auto alive = engine.lock())
      alive->receiver_error(input->stream_id(), input->name(),
                            complaint + "; left out so far: " + std::to_string(so_far));
  };
  return source<std::string_view>(
      "text_file", input, [engine = engine_.get(), input, max_line_bytes, left_out](Time t) {
        return detail::text_files_batch(engine->scope_of(t), input->take_cut(),
                                        engine->runtime()->executor->parallelism(), max_line_bytes, left_out);
      });
}

DStream<std::span<const std::byte>> StreamingContext::binary_records_stream(std::filesystem::path directory,
                                                                            std::size_t record_length,
                                                                            DirectoryOptions options) {
  if (record_length == 0)
    throw ConfigError("binary_records_stream was given a record length of 0; give at least 1 byte");
  auto input = make_directory_input(context_.runtime(), std::move(directory), std::move(options));
  return source<std::span<const std::byte>>(
      "binary_records", input, [engine = engine_.get(), input, record_length](Time t) {
        return detail::binary_records_batch(engine->scope_of(t), input->take_cut(), record_length);
      });
}

}  // namespace tidemill
