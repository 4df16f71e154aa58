// Counts the words that come from a server over all time, and prints the new total of each word as it is said:
//     stateful_word_count [HOST PORT]         localhost 9999 unless given
// To feed it by hand: nc -lk 9999
#include <cstdint>
#include <exception>
#include <iostream>
#include <string>

#include <tidemill/tidemill.hpp>

int main(int argc, char** argv) {
  using namespace std::chrono_literals;
  try {
    const std::string host = argc > 2 ? argv[1] : "localhost";
    const auto port = static_cast<std::uint16_t>(argc > 2 ? std::stoi(argv[2]) : 9999);
    tidemill::Context context{{.app_name = "stateful-word-count", .parallelism = 2}};
    tidemill::StreamingContext ssc{context, 1s};

    // [count]
    // The totals to begin with: these words have been said before.
    const std::vector<std::pair<std::string, long>> before{{"hello", 1}, {"world", 1}};

    auto totals = ssc.socket_text_stream(host, port)
                      .flat_map(tidemill::words(' '))
                      .map([](std::string_view word) {
                        return std::pair{word, 1L};
                      })
                      .reduce_by_key(std::plus<>{})
                      .map_with_state(tidemill::state_spec<long>([](std::string_view word, std::optional<long> count,
                                                                    tidemill::State<long>& total) {
                                        total.update(total.get_option().value_or(0) + count.value_or(0));
                                        return std::pair{word, total.get()};
                                      }).initial_state(before));
    totals.print(1000);
    // [/count]

    ssc.start();
    ssc.await_termination();
  } catch (const std::exception& error) {
    std::cerr << "stateful_word_count: " << error.what() << '\n';
    return 1;
  }
}
