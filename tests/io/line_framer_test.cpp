#include "tidemill/io/detail/line_framer.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tidemill/io/text_blocks.hpp"

namespace tidemill::detail {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> lines_of(std::string_view text) {
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
  std::vector<std::uint64_t> long_positions;
};

void add(Framed& framed, const LineFramer::Found& found) {
  for (const TextBlock& block : found.blocks) {
    for (std::string& line : lines_of(block.text)) framed.lines.push_back(std::move(line));
    framed.counted += block.lines;
  }
  framed.long_lines += found.long_lines;
  if (found.long_lines != 0) framed.long_positions.push_back(found.first_long_line);
}

// Feeds `text` in pieces of the given sizes, then the rest.
Framed frame(std::string_view text, const std::vector<std::size_t>& pieces, std::size_t max_line_bytes,
             std::size_t buffer_bytes = 16) {
  LineFramer framer{buffer_bytes, max_line_bytes};
  framer.begin();
  Framed framed;
  const auto feed = [&](std::string_view piece) {
    while (!piece.empty()) {
      const auto space = framer.space();
      const std::size_t size = std::min(space.size(), piece.size());
      std::memcpy(space.data(), piece.data(), size);
      piece.remove_prefix(size);
      add(framed, framer.received(size));
    }
  };
  for (const std::size_t size : pieces) {
    feed(text.substr(0, size));
    text.remove_prefix(std::min(size, text.size()));
  }
  feed(text);
  add(framed, framer.end());
  return framed;
}

TEST(LineFramer, FindsTheSameLinesWhereverTheStreamIsCutInTwo) {
  const std::string text = "one\r\n\r\n\ntwo\nthree and a half\r\n\xC3\xA4\xE2\x82\xAC\r\rx\n\n last";
  const std::vector<std::string> expected = lines_of(text);
  for (std::size_t first = 0; first <= text.size(); ++first) {
    for (std::size_t second = 0; first + second <= text.size(); ++second) {
      const Framed framed = frame(text, {first, second}, 100);
      ASSERT_EQ(framed.lines, expected) << "cut at " << first << " and " << first + second;
      ASSERT_EQ(framed.counted, expected.size());
      ASSERT_EQ(framed.long_lines, 0U);
    }
  }
}

TEST(LineFramer, TakesWhatFollowsTheLastNewlineAsALineAndNothingAsNone) {
  EXPECT_THAT(frame("", {}, 10).lines, IsEmpty());
  EXPECT_THAT(frame("\n", {}, 10).lines, ElementsAre(""));
  EXPECT_THAT(frame("a\n", {}, 10).lines, ElementsAre("a"));
  EXPECT_THAT(frame("a\nb", {}, 10).lines, ElementsAre("a", "b"));
  EXPECT_THAT(frame("a\nb\r", {}, 10).lines, ElementsAre("a", "b"));
  EXPECT_THAT(frame("\r", {}, 10).lines, ElementsAre(""));
}

TEST(LineFramer, LeavesOutALineThatIsTooLongAndTellsItsPositionOnce) {
  const std::string text = "ab\n12345678\ncd\n1234567\r\n12345678\r\nef\n123456789";
  for (std::size_t first = 0; first <= text.size(); ++first) {
    for (std::size_t second = 0; first + second <= text.size(); ++second) {
      const Framed framed = frame(text, {first, second}, 7);
      ASSERT_THAT(framed.lines, ElementsAre("ab", "cd", "1234567", "ef"))
          << "cut at " << first << ", " << first + second;
      ASSERT_EQ(framed.long_lines, 3U);
      ASSERT_EQ(framed.long_positions.front(), 3U);
    }
  }
}

TEST(LineFramer, CountsAnEndlessLineOnceAndKeepsNothingOfIt) {
  LineFramer framer{4096, 1000};
  framer.begin();
  std::size_t long_lines = 0;
  for (int i = 0; i < 10'000; ++i) {
    const auto space = framer.space();
    ASSERT_LE(space.size(), 8192U);
    std::memset(space.data(), 'x', space.size());
    const LineFramer::Found found = framer.received(space.size());
    EXPECT_THAT(found.blocks, IsEmpty());
    long_lines += found.long_lines;
    ASSERT_LE(framer.unfinished_bytes(), 1001U);
  }
  EXPECT_EQ(long_lines, 1U);
  EXPECT_GE(framer.position(), 10'000'000U);
}

TEST(LineFramer, GrowsForALongLineThatIsAllowed) {
  std::string text(100'000, 'x');
  text += '\n';
  text.append(50'000, 'y');
  const Framed framed = frame(text, {}, 100'000);
  ASSERT_EQ(framed.lines.size(), 2U);
  EXPECT_EQ(framed.lines[0].size(), 100'000U);
  EXPECT_EQ(framed.lines[1].size(), 50'000U);
}

TEST(LineFramer, BlocksStayValidAsLongAsTheirOwner) {
  std::vector<TextBlock> kept;
  {
    LineFramer framer{16, 100};
    framer.begin();
    for (int i = 0; i < 1000; ++i) {
      const std::string line = "line " + std::to_string(i) + '\n';
      std::string_view rest = line;
      while (!rest.empty()) {
        const auto space = framer.space();
        const std::size_t size = std::min(space.size(), rest.size());
        std::memcpy(space.data(), rest.data(), size);
        rest.remove_prefix(size);
        for (TextBlock& block : framer.received(size).blocks) kept.push_back(std::move(block));
      }
    }
  }
  std::size_t i = 0;
  for (const TextBlock& block : kept) {
    for (const std::string& line : lines_of(block.text)) EXPECT_EQ(line, "line " + std::to_string(i++));
  }
  EXPECT_EQ(i, 1000U);
}

TEST(LineFramer, BeginsAnewWithAnotherConnection) {
  LineFramer framer{16, 5};
  framer.begin();
  std::memcpy(framer.space().data(), "1234567", 7);
  EXPECT_EQ(framer.received(7).long_lines, 1U);
  framer.begin();
  EXPECT_EQ(framer.position(), 0U);
  std::memcpy(framer.space().data(), "a\n", 2);
  const LineFramer::Found found = framer.received(2);
  ASSERT_EQ(found.blocks.size(), 1U);
  EXPECT_EQ(found.blocks[0].text, "a\n");
}

TEST(LineFramer, AgreesWithSplittingTheWholeOnRandomText) {
  std::mt19937 random{7};
  for (int round = 0; round < 2000; ++round) {
    std::string text(random() % 200, ' ');
    for (char& c : text) c = "abc\r\n\n"[random() % 6];
    const std::size_t max_line_bytes = 1 + random() % 12;
    std::vector<std::size_t> pieces;
    for (int i = 0; i < 30; ++i) pieces.push_back(random() % 12);
    std::vector<std::string> expected = lines_of(text);
    const std::size_t all = expected.size();
    std::erase_if(expected, [&](const std::string& line) { return line.size() > max_line_bytes; });
    const Framed framed = frame(text, pieces, max_line_bytes);
    ASSERT_EQ(framed.lines, expected) << "round " << round;
    ASSERT_EQ(framed.counted, expected.size());
    ASSERT_EQ(framed.long_lines, all - expected.size());
  }
}

TEST(TextBlocks, AreCutAtLineEndsIntoPiecesOfSoManyLines) {
  TextBlock block = TextBlock::of("a\nbb\r\n\nd\ne");
  block.lines = 5;
  const auto pieces = BlockTraits<TextBlock>::pieces(block, 1, 2);
  ASSERT_EQ(pieces.size(), 3U);
  EXPECT_EQ(pieces[0].text, "a\n");
  EXPECT_EQ(pieces[1].text, "bb\r\n\n");
  EXPECT_EQ(pieces[2].text, "d\ne");
  for (const TextBlock& piece : pieces) EXPECT_EQ(BlockTraits<TextBlock>::records(piece), count_lines(piece.text));
}

TEST(CountLines, AgreesWithALoopOnTextsOfAllLengths) {
  std::mt19937 random{11};
  for (std::size_t size = 0; size < 70'000; size += 1 + size / 3) {
    std::string text(size, ' ');
    for (char& c : text) c = "ab\n"[random() % 3];
    EXPECT_EQ(count_lines(text), lines_of(text).size()) << size;
  }
  EXPECT_EQ(count_lines(std::string(100'000, '\n')), 100'000U);
}

}  // namespace
}  // namespace tidemill::detail
