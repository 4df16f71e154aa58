// A user's program: it counts words on two workers, and catches an exception that the library throws. It is compiled as
// the outside project says, with none of the library's own flags.
#include <chrono>
#include <functional>
#include <iostream>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include <tidemill/testing/stream_test.hpp>
#include <tidemill/tidemill.hpp>

using namespace std::chrono_literals;

// Would not compile under -Wconversion -Wshadow -Werror, which are no business of the library's in a user's build.
int sloppy(int value) {
  int half = value / 2.0;
  {
    int value = half;
    return value;
  }
}

int main() {
  tidemill::testing::StreamTest<std::string> test{1s, 2};
  auto counts = test.input()
                    .flat_map(tidemill::split(' '))
                    .map([](std::string_view word) {
                      return std::pair{word, 1L};
                    })
                    .reduce_by_key(std::plus<>{});
  const auto batches = test.run(counts, {{"a b", "a"}}).get();
  for (const auto& [word, count] : std::map<std::string, long>(batches.at(0).begin(), batches.at(0).end())) {
    std::cout << word << ' ' << count << '\n';
  }

  try {
    tidemill::StreamingContext refused{test.context(), tidemill::Duration{sloppy(0)}};
  } catch (const tidemill::ConfigError&) {
    return 0;
  }
  return 1;
}
