// Counts the words of a stream of text, from a TCP server, a directory or a file that is replayed; `--help` lists the
// options. The stream itself is the dozen lines in the middle of run(); around it stands what a program adds that
// people use: options, progress, totals, and an end that loses nothing.
//
// A word is what stands between spaces, as `tr -s ' ' '\n'` would have it: spaces in a row make no empty words. The end
// of a line, LF or CRLF, belongs to no word.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <exception>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <unistd.h>
#include <unordered_map>
#include <utility>
#include <vector>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "word_count/options.hpp"
#include "word_count/progress.hpp"
#include "word_count/replay.hpp"
#include <tidemill/tidemill.hpp>

namespace word_count {
namespace {

using tidemill::StopMode;

// The library installs no signal handler; that is up to the program.
asio::awaitable<void> stop_on_signal(tidemill::StreamingContext& ssc, std::atomic<bool>& interrupted) {
  asio::signal_set signals{co_await asio::this_coro::executor, SIGINT, SIGTERM};
  co_await signals.async_wait(asio::use_awaitable);
  interrupted = true;
  ssc.request_stop(StopMode::graceful);
  co_await signals.async_wait(asio::use_awaitable);
  ssc.request_stop(StopMode::immediate);
}

// Ends the run once the replayed file has been received. The socket input says that the server has closed the
// connection when all that came before lies in the inbox, and a graceful stop leaves nothing there.
class EndOfReplay final : public tidemill::StreamingListener {
 public:
  EndOfReplay(const Replay& replay, tidemill::StreamingContext& ssc) : replay_{replay}, ssc_{ssc} {}
  void on_receiver_stopped(const tidemill::ReceiverInfo&) override {
    if (replay_.has_sent_all()) ssc_.request_stop(StopMode::graceful);
  }

 private:
  const Replay& replay_;
  tidemill::StreamingContext& ssc_;
};

std::string name_of_source(const Options& options) {
  if (options.socket) return options.socket->host + ':' + std::to_string(options.socket->port);
  if (options.directory) return "the files that are moved into " + options.directory->string();
  return options.replay->string() + ", " +
         (options.rate == 0 ? "as fast as they come" : std::to_string(options.rate) + " lines a second");
}

using Totals = std::unordered_map<std::string, std::int64_t>;

void print_totals(const Totals& totals) {
  std::vector<std::pair<std::string_view, std::int64_t>> sorted{totals.begin(), totals.end()};
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  for (const auto& [word, count] : sorted) std::cout << word << '\t' << count << '\n';
  if (!std::cout.flush()) throw std::runtime_error{"the totals could not be written; is the disk full?"};
}

int run(const Options& options) {
  asio::io_context io;  // for signals and the server of --replay; the stream has threads of its own

  // What the stream and its listeners use is declared before it, and so outlives it.
  Totals totals;
  const auto progress = options.totals ? std::make_shared<Progress>(std::cerr, STDERR_FILENO, options.interval)
                                       : std::make_shared<Progress>(std::cout, STDOUT_FILENO, options.interval);
  std::optional<Replay> replay;
  std::exception_ptr replay_failure;

  tidemill::Context context{{.app_name = "word_count", .parallelism = options.parallelism}};
  // A machine that cannot keep up may have many intervals to make up for when the end comes. Whoever does not want to
  // wait for that presses Ctrl-C once more.
  tidemill::StreamingContext ssc{context, options.interval, {.graceful_stop_timeout = std::chrono::hours{1}}};

  const tidemill::SocketOptions socket_options{.inbox = {.max_buffered_bytes = options.max_buffered_bytes}};
  const auto text = [&]() -> tidemill::DStream<std::string_view> {
    if (options.directory) return ssc.text_file_stream(*options.directory);
    if (options.socket) return ssc.socket_text_stream(options.socket->host, options.socket->port, socket_options);
    replay.emplace(io, *options.replay, options.rate);
    return ssc.socket_text_stream("127.0.0.1", replay->port(), socket_options);
  };

  // On their way the words are views into what was received: nothing is copied but what leaves the batch.
  const auto counts = text()
                          .flat_map(tidemill::words(' '))
                          .map([](std::string_view word) {
                            return std::pair{word, std::int64_t{1}};
                          })
                          .reduce_by_key(std::plus<>{});

  counts.foreach_batch([&](const auto& batch) {
    const auto is_rarer = [](const auto& a, const auto& b) {
      return a.second != b.second ? a.second < b.second : a.first > b.first;
    };
    std::string top;
    for (const auto& [word, count] : batch.top(5, is_rarer)) {
      if (!top.empty()) top += ", ";
      top += word + ' ' + std::to_string(count);
    }
    progress->found(batch.values().fold(std::int64_t{0}, std::plus<>{}), std::move(top));
    if (options.totals) {
      for (const auto& [word, count] : batch.collect()) totals[word] += count;
    }
  });

  progress->greet_with("Counting the words of " + name_of_source(options) + ", a result every " +
                       tidemill::to_string(options.interval) + ". Ctrl-C stops.");
  ssc.add_listener(progress);
  if (replay) {
    ssc.add_listener(std::make_shared<EndOfReplay>(*replay, ssc));
    replay->start([&](const std::exception_ptr& error) {
      replay_failure = error;
      ssc.request_stop(StopMode::graceful);
    });
  }
  std::atomic<bool> interrupted = false;
  asio::co_spawn(io, stop_on_signal(ssc, interrupted), asio::detached);

  ssc.start();
  {
    const std::jthread background{[&io](std::stop_token stop) {
      const std::stop_callback end{stop, [&io] { io.stop(); }};
      io.run();
    }};
    ssc.await_termination();
  }

  const bool everything_counted = ssc.stop();  // it has stopped: this only asks how
  progress->say(std::to_string(progress->words()) + " words" + (interrupted ? " until it was stopped" : ""));
  if (options.totals) print_totals(totals);
  if (!everything_counted) throw std::runtime_error{"not all that was received could be counted before the end."};
  if (interrupted) return 0;  // the server of --replay may have lost its client, which is no failure then
  if (replay_failure) std::rethrow_exception(replay_failure);
  if (replay && progress->lines() != replay->lines_sent())
    throw std::runtime_error{"of " + std::to_string(replay->lines_sent()) + " lines only " +
                             std::to_string(progress->lines()) + " were received; the messages above say why."};
  return 0;
}

}  // namespace
}  // namespace word_count

int main(int argc, char** argv) {
  try {
    const auto options = word_count::parse({argv + 1, argv + argc});
    if (!options) {
      std::cout << word_count::help;
      return 0;
    }
    return word_count::run(*options);
  } catch (const word_count::UsageError& error) {
    std::cerr << "word_count: " << error.what() << " See word_count --help.\n";
    return 2;
  } catch (const tidemill::ConfigError& error) {  // the library looks at values more closely than we do
    std::cerr << "word_count: " << error.what() << '\n';
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "word_count: " << error.what() << '\n';
    return 1;
  }
}
