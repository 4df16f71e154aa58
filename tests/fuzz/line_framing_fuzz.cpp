// Feeds text in arbitrary pieces to the line framer. The lines, their count and the lines left out for their length must be
// those of the whole text split at once. The first two bytes choose the limit and the pieces.
// With libFuzzer: clang++ -fsanitize=fuzzer,address,undefined -DTIDEMILL_LIBFUZZER …; without it, main() below runs a
// number of seeded random inputs (first argument, 20000 if there is none), so that the same file is a test.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "tidemill/batch/text.hpp"
#include "tidemill/io/detail/line_framer.hpp"

namespace {

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const std::size_t newline = text.find('\n');
    std::string_view line = text.substr(0, newline);
    text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.emplace_back(line);
  }
  return lines;
}

struct Framed {
  std::vector<std::string> lines;
  std::size_t counted = 0;
  std::size_t long_lines = 0;

  void add(const tidemill::detail::LineFramer::Found& found) {
    for (const tidemill::TextBlock& block : found.blocks) {
      if (block.lines != tidemill::detail::count_lines(block.text)) __builtin_trap();
      for (std::string& line : split(block.text)) lines.push_back(std::move(line));
      counted += block.lines;
    }
    long_lines += found.long_lines;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::size_t max_line_bytes = 1U + data[0] % 16U;
  std::uint32_t chance = data[1];
  std::string text{reinterpret_cast<const char*>(data) + 2, size - 2};
  for (char& c : text) {  // newlines and returns are what it is about
    if (static_cast<unsigned char>(c) % 4 == 0) c = '\n';
    if (static_cast<unsigned char>(c) % 4 == 1) c = '\r';
  }

  tidemill::detail::LineFramer framer{16, max_line_bytes};
  framer.begin();
  Framed framed;
  std::string_view rest = text;
  while (!rest.empty()) {
    const auto space = framer.space();
    chance = chance * 1'664'525U + 1'013'904'223U;
    const std::size_t piece = std::min({space.size(), rest.size(), std::size_t{chance >> 24U} % 7U + 1U});
    std::memcpy(space.data(), rest.data(), piece);
    rest.remove_prefix(piece);
    framed.add(framer.received(piece));
    if (framer.unfinished_bytes() > max_line_bytes + 1) __builtin_trap();
  }
  if (framer.position() != text.size()) __builtin_trap();
  framed.add(framer.end());

  std::vector<std::string> expected = split(text);
  const std::size_t all = expected.size();
  std::erase_if(expected, [&](const std::string& line) { return line.size() > max_line_bytes; });
  if (framed.lines != expected || framed.counted != expected.size()) __builtin_trap();
  if (framed.long_lines != all - expected.size()) __builtin_trap();
  return 0;
}

#ifndef TIDEMILL_LIBFUZZER
#include "random_inputs.hpp"

int main(int count, char** arguments) {
  const std::string good = std::string{'\x06', '\x2A'} + "one\ntwo\r\n\nthree and more\r\n\rfour";
  return tidemill_fuzz::run_random_inputs(count, arguments, good, LLVMFuzzerTestOneInput);
}
#endif
