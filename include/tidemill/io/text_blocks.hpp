// How blocks of lines wait in an inbox. Include it wherever an Inbox<TextBlock> is made.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <utility>
#include <vector>

#include "tidemill/batch/text.hpp"
#include "tidemill/io/inbox.hpp"

namespace tidemill::detail {

/// Lines are counted once, by whoever makes the block. A block is charged with its own size too, so that the limit also
/// holds for many small ones.
template <>
struct BlockTraits<TextBlock> {
  static std::size_t records(const TextBlock& block) noexcept {
    return block.lines != 0 ? block.lines : count_lines(block.text);
  }
  static std::size_t bytes(const TextBlock& block) noexcept { return block.text.size() + sizeof(TextBlock); }

  static std::vector<TextBlock> pieces(TextBlock block, std::size_t first, std::size_t each) {
    std::vector<TextBlock> cut;
    std::size_t left = records(block);
    std::string_view rest = block.text;
    for (std::size_t wanted = first; left != 0; wanted = each) {
      const std::size_t lines = std::min(wanted, left);
      const std::size_t size = lines == left ? rest.size() : size_of_lines(rest, lines);
      cut.push_back({rest.substr(0, size), block.owner, lines});
      rest.remove_prefix(size);
      left -= lines;
    }
    return cut;
  }

  static constexpr bool can_be_logged = true;
  static void encode(const TextBlock& block, std::string& out) { out += block.text; }
  static TextBlock decode(std::string bytes) { return TextBlock::of(std::move(bytes)); }
  [[nodiscard]] static std::string layout() { return "line"; }
};

}  // namespace tidemill::detail
