// Feeds arbitrary bytes to the decoder as many types. Every outcome is a value, which is then written and read again, or
// StateError. Anything else (another exception, a sanitizer report, unbounded memory) is a finding.
// With libFuzzer: clang++ -fsanitize=fuzzer,address,undefined -DTIDEMILL_LIBFUZZER …; without it, main() below runs a
// number of seeded random inputs (first argument, 20000 if there is none), so that the same file is a test.
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "tidemill/core/codec.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/core/time.hpp"

namespace {

struct Leaf {
  bool flag = false;
  std::optional<std::int16_t> number;
  std::string text;
};

struct Node {
  Leaf leaf;
  std::vector<Node> children;
  std::unique_ptr<Node> next;
};

// Written forms are compared, not values: NaN differs from itself. Unordered containers may write another order.
template <class T>
void check(std::span<const std::byte> bytes) {
  try {
    const T value = tidemill::decode<T>(bytes);
    const std::string once = tidemill::encode(value);
    const T again = tidemill::decode<T>(once);
    if (tidemill::encode(again).size() != once.size()) __builtin_trap();
  } catch (const tidemill::StateError&) {  // what malformed bytes are for
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span{data, size});
  check<std::string>(bytes);
  check<std::string_view>(bytes);
  check<std::vector<std::string>>(bytes);
  check<std::vector<std::uint32_t>>(bytes);
  check<std::vector<bool>>(bytes);
  check<std::vector<std::monostate>>(bytes);
  check<Node>(bytes);
  check<std::map<std::string, std::vector<Leaf>>>(bytes);
  check<std::unordered_map<std::string, std::optional<double>>>(bytes);
  check<std::set<std::pair<std::uint8_t, std::string>>>(bytes);
  check<std::vector<std::variant<std::monostate, bool, std::string, std::vector<std::int16_t>, Node>>>(bytes);
  check<std::tuple<tidemill::Time, tidemill::Duration, std::array<std::string, 3>, std::array<std::uint16_t, 4>>>(
      bytes);
  return 0;
}

#ifndef TIDEMILL_LIBFUZZER
#include "random_inputs.hpp"

int main(int count, char** arguments) {
  return tidemill_fuzz::run_random_inputs(count, arguments, {}, LLVMFuzzerTestOneInput);
}
#endif
