// Counts the words that come from localhost:9999, second by second. To feed it by hand: nc -lk 9999
#include <tidemill/tidemill.hpp>

int main() {
  using namespace std::chrono_literals;
  tidemill::Context context{{.app_name = "network-word-count", .parallelism = 2}};
  tidemill::StreamingContext ssc{context, 1s};  // batch interval

  auto lines = ssc.socket_text_stream("localhost", 9999);
  auto counts = lines.flat_map(tidemill::split(' '))
                    .map([](std::string_view word) {
                      return std::pair{word, 1L};
                    })
                    .reduce_by_key(std::plus<>{});
  counts.print();

  ssc.start();
  ssc.await_termination();
}
