#include "tidemill/batch/text.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

namespace tidemill {

TextBlock TextBlock::of(std::string text) {
  const auto owner = std::make_shared<const std::string>(std::move(text));
  return {*owner, owner};
}

namespace detail {
namespace {

// Partitions smaller than this are not worth a task of their own.
constexpr std::size_t smallest_partition_bytes = std::size_t{64} << 10;
// A guess, for size hints only.
constexpr std::size_t bytes_per_line = 64;

// Yields the lines of `text` in chunks; false when the sink wants no more.
bool yield_lines(std::string_view text, std::array<std::string_view, chunk_records>& chunk,
                 ChunkSink<std::string_view> sink) {
  std::size_t filled = 0;
  const char* next = text.data();
  const char* const end = next + text.size();
  while (next != end) {
    const auto* newline = static_cast<const char*>(std::memchr(next, '\n', static_cast<std::size_t>(end - next)));
    const char* line_end = newline != nullptr ? newline : end;
    const char* const following = newline != nullptr ? newline + 1 : end;
    if (line_end != next && line_end[-1] == '\r') --line_end;
    chunk[filled++] = {next, static_cast<std::size_t>(line_end - next)};
    next = following;
    if (filled == chunk.size()) {
      if (!sink(std::span{chunk.data(), filled})) return false;
      filled = 0;
    }
  }
  return filled == 0 || sink(std::span{chunk.data(), filled});
}

// In strides whose sums fit a byte for each lane, which compilers turn into vector instructions at any level that vectorises.
std::size_t count_newlines(std::string_view text) noexcept {
  constexpr std::size_t lanes = 64;
  constexpr std::size_t rounds = 255;
  std::size_t count = 0;
  const char* next = text.data();
  std::size_t strides = text.size() / lanes;
  while (strides != 0) {
    std::array<std::uint8_t, lanes> sums{};
    const std::size_t now = std::min(strides, rounds);
    for (std::size_t i = 0; i < now; ++i, next += lanes) {
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        sums[lane] = static_cast<std::uint8_t>(sums[lane] + static_cast<std::uint8_t>(next[lane] == '\n'));
      }
    }
    for (const std::uint8_t sum : sums) count += sum;
    strides -= now;
  }
  const char* const end = text.data() + text.size();
  return count + static_cast<std::size_t>(std::count(next, end, '\n'));
}

class TextNode final : public BatchNode<std::string_view> {
 public:
  TextNode(std::shared_ptr<const Scope> scope, std::vector<TextBlock> blocks, std::size_t partitions)
      : BatchNode{std::move(scope)} {
    for (TextBlock& block : blocks) {
      if (block.text.empty()) continue;
      bytes_ += block.text.size();
      blocks_.push_back(std::move(block));
    }
    const std::size_t wanted = std::clamp<std::size_t>(bytes_ / smallest_partition_bytes, 1, partitions);
    cut(wanted);
  }

  [[nodiscard]] std::size_t partitions() const override { return parts_.size(); }
  void prepare() const override {}
  [[nodiscard]] std::size_t size_hint() const override { return bytes_ / bytes_per_line; }

  void run(std::size_t partition, ChunkSink<std::string_view> sink) const override {
    std::array<std::string_view, chunk_records> chunk;
    for (const std::string_view piece : parts_[partition]) {
      if (!yield_lines(piece, chunk, sink)) return;
    }
  }

 private:
  // Each partition takes its share of the bytes, rounded up to the end of a line.
  void cut(std::size_t wanted) {
    parts_.emplace_back();
    std::size_t placed = 0;
    for (const TextBlock& block : blocks_) {
      std::string_view rest = block.text;
      while (!rest.empty()) {
        const std::size_t part_end = slice_begin(bytes_, wanted, parts_.size());
        std::size_t size = rest.size();
        if (placed + size > part_end && parts_.size() < wanted) {
          const std::size_t target = part_end > placed ? part_end - placed : 0;
          const std::size_t newline = rest.find('\n', target);
          if (newline != std::string_view::npos) size = newline + 1;
        }
        parts_.back().push_back(rest.substr(0, size));
        rest.remove_prefix(size);
        placed += size;
        if (placed >= part_end && parts_.size() < wanted && placed < bytes_) parts_.emplace_back();
      }
    }
  }

  std::vector<TextBlock> blocks_;
  std::size_t bytes_ = 0;
  std::vector<std::vector<std::string_view>> parts_;  // pieces of blocks, in order
};

}  // namespace

std::size_t count_lines(std::string_view text) noexcept {
  if (text.empty()) return 0;
  return count_newlines(text) + (text.back() != '\n' ? 1 : 0);
}

std::optional<std::size_t> first_long_line(std::string_view text, std::size_t max_line_bytes) noexcept {
  std::size_t line = 0;
  while (text.size() - line > max_line_bytes) {
    // Of the newlines within reach the last one matters: the lines before it are shorter still.
    const std::string_view reach = text.substr(line, max_line_bytes + 1);
    const std::size_t newline = reach.rfind('\n');
    if (newline != std::string_view::npos) {
      line += newline + 1;
      continue;
    }
    // A CR may end a line that has its full length.
    if (reach.back() != '\r') return line;
    const std::size_t next = line + reach.size();
    if (next == text.size()) return std::nullopt;
    if (text[next] != '\n') return line;
    line = next + 1;
  }
  return std::nullopt;
}

std::size_t size_of_lines(std::string_view text, std::size_t lines) noexcept {
  std::size_t size = 0;
  for (std::size_t i = 0; i < lines; ++i) {
    const std::size_t newline = text.find('\n', size);
    if (newline == std::string_view::npos) return text.size();
    size = newline + 1;
  }
  return size;
}

Batch<std::string_view> text_blocks_batch(std::shared_ptr<const Scope> scope, std::vector<TextBlock> blocks,
                                          std::size_t partitions) {
  return Batch<std::string_view>{std::make_shared<const TextNode>(std::move(scope), std::move(blocks), partitions)};
}

}  // namespace detail

Batch<std::string_view> Context::text_batch(std::string text, std::size_t partitions) const {
  std::vector<TextBlock> blocks;
  blocks.push_back(TextBlock::of(std::move(text)));
  return detail::text_blocks_batch(std::make_shared<const detail::Scope>(detail::Scope{runtime_, std::nullopt}),
                                   std::move(blocks), partitions == 0 ? parallelism() : partitions);
}

}  // namespace tidemill
