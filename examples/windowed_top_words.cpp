// What people talk about: the ten most frequent words of the last 30 seconds, every 10 seconds.
//     windowed_top_words < MESSAGES
// Each line of the input is a message, with the second at which it was sent before it: "17 high tide at noon". The messages are
// replayed under a clock that is moved by hand, so that an hour takes a moment; from a socket, in real time, the pipeline would
// be the same.
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tidemill/tidemill.hpp>

namespace {

using namespace std::chrono_literals;

using Count = std::pair<std::string, long>;

// [top]
// The words of the last 30 s and how often each occurred, every 10 s. What leaves the window is subtracted, so that a slide
// costs what comes and goes; the filter forgets words that have gone.
template <class Lines>
auto count_last_words(const Lines& lines) {
  return lines.flat_map(tidemill::words(' '))
      .map([](std::string_view word) {
        return std::pair{word, 1L};
      })
      .reduce_by_key_and_window(std::plus<>{}, std::minus<>{}, 30s, 10s, 2,
                                [](const std::string&, long count) { return count > 0; });
}

std::vector<Count> top_ten(const tidemill::Batch<Count>& counts) {
  return counts.top(10, [](const Count& a, const Count& b) {
    return a.second != b.second ? a.second < b.second : a.first > b.first;
  });
}
// [/top]

// Seconds and the messages of each.
std::map<long, std::vector<std::string>> read_messages(std::istream& in) {
  std::map<long, std::vector<std::string>> messages;
  for (std::string line; std::getline(in, line);) {
    std::istringstream fields{line};
    long second = 0;
    std::string text;
    if (fields >> second && second >= 0 && std::getline(fields >> std::ws, text)) messages[second].push_back(text);
  }
  return messages;
}

}  // namespace

int main() {
  try {
    auto messages = read_messages(std::cin);
    const auto clock = std::make_shared<tidemill::ManualClock>();
    tidemill::Context context{{.app_name = "top-words", .parallelism = 2, .clock = clock}};
    tidemill::StreamingContext ssc{context, 1s};
    const auto lines = std::make_shared<tidemill::BatchQueue<std::string>>();

    const tidemill::Time begin = clock->now();
    count_last_words(ssc.queue_stream(lines))
        .foreach_batch([begin](const tidemill::Batch<Count>& counts, tidemill::Time time) {
          std::cout << tidemill::to_string(time - begin) << ':';
          for (const auto& [word, count] : top_ten(counts)) std::cout << ' ' << word << ' ' << count;
          std::cout << '\n';
        });

    ssc.start(tidemill::Drive::by_host);
    // The batch of a second holds what was sent within it. Half a minute after the last message its window is empty.
    const long end = messages.empty() ? 0 : messages.rbegin()->first + 1;
    for (long second = 0; second < end + 40; ++second) {
      lines->push(std::move(messages[second]));
      clock->advance(1s);
      ssc.step();
    }
    ssc.stop();
    ssc.await_termination();
  } catch (const std::exception& error) {
    std::cerr << "windowed_top_words: " << error.what() << '\n';
    return 1;
  }
}
