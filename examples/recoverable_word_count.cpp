// Counts the words of files over all time, and goes on where it was killed:
//     recoverable_word_count IN CHECKPOINT OUT
// Every second the files that have been moved into the directory IN are counted, and OUT-<time> has the words that came,
// with their totals. Kill it with `kill -9`, start it again with the same arguments, and the totals continue: no file is
// counted twice, and none is missed.
#include <csignal>
#include <exception>
#include <iostream>
#include <string>

#include <tidemill/tidemill.hpp>

int main(int argc, char** argv) {
  using namespace std::chrono_literals;
  if (argc != 4) {
    std::cerr << "usage: recoverable_word_count IN CHECKPOINT OUT\n";
    return 2;
  }
  try {
    sigset_t signals;  // Ctrl-C ends it properly, kill -9 does no harm either; blocked before threads start
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    const std::string in = argv[1];
    const std::string out = argv[3];
    // [recoverable]
    const tidemill::Context context{{.app_name = "recoverable-word-count", .parallelism = 2}};
    const auto ssc = tidemill::StreamingContext::get_or_create(argv[2], [&] {
      auto fresh = std::make_unique<tidemill::StreamingContext>(context, 1s);
      fresh->text_file_stream(in)
          .flat_map(tidemill::words(' '))
          .map([](std::string_view word) {
            return std::pair{word, 1L};
          })
          .reduce_by_key(std::plus<>{})
          .map_with_state(tidemill::state_spec<long>(
              [](std::string_view word, std::optional<long> count, tidemill::State<long>& total) {
                total.update(total.get_option().value_or(0) + count.value_or(0));
                return std::pair{word, total.get()};
              }))
          .save_as_text_files(out);
      return fresh;
    });
    ssc->start();
    // [/recoverable]
    std::cerr << "Counting the files that are moved into " << in << "; Ctrl-C ends.\n";

    int signal = 0;
    sigwait(&signals, &signal);
    ssc->stop(tidemill::StopMode::graceful);
  } catch (const std::exception& error) {
    std::cerr << "recoverable_word_count: " << error.what() << '\n';
    return 1;
  }
}
