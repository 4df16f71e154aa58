// The text that every word benchmark reads: made from a seed, the same bytes on every machine and in every run.
//
// Specification (integer arithmetic only, so no compiler, library or rounding mode can change a byte):
//   random     SplitMix64 from `seed`; below(n) is the high half of the 128-bit product next() * n.
//   vocabulary 50 000 distinct words of 'a'..'z'. Word r (the rank, 0 = most frequent) draws its length, then its
//              letters, and is drawn again while an earlier word has the same spelling:
//                r % 100 == 99      17 + below(8)    one word in a hundred does not fit into sixteen bytes
//                r <    100          2 + below(3)
//                r <  1 000          3 + below(5)
//                r < 10 000          4 + below(7)
//                otherwise           5 + below(10)
//   word       Zipf with exponent 1: rank r has the weight floor(2^32 / (r + 1)).
//   line       5 + below(11) words, one space between them, '\n' behind the last.
//   text       as many whole lines as fit into the number of bytes asked for.
// The mean word has about five letters, as in English prose; the most frequent is one in eleven.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace tidemill::bench {

/// SplitMix64 (Steele, Lea, Flood 2014): tiny, fast, and the same everywhere, which std distributions are not.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }

  /// Uniform in [0, n) up to a bias of n / 2^64.
  std::uint64_t below(std::uint64_t n) {
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>((static_cast<Wide>(next()) * n) >> 64);
  }

 private:
  std::uint64_t state_;
};

/// Vocabulary and generator in one; see the specification at the top of the file.
class TextGenerator {
 public:
  static constexpr std::size_t vocabulary_size = 50'000;
  static constexpr std::uint64_t default_seed = 42;

  explicit TextGenerator(std::uint64_t seed = default_seed) : random_(seed) {
    draw_vocabulary();
    weigh();
  }

  /// At most `bytes` bytes of whole lines. A second call goes on where the first one stopped.
  std::string generate(std::size_t bytes) {
    std::string text;
    text.reserve(bytes);
    std::string line;
    for (;;) {
      line.clear();
      for (std::uint64_t words = 5 + random_.below(11); words != 0; --words) {
        line += vocabulary_[draw_rank()];
        line += words == 1 ? '\n' : ' ';
      }
      if (text.size() + line.size() > bytes) {
        return text;
      }
      text += line;
    }
  }

  [[nodiscard]] const std::vector<std::string>& vocabulary() const { return vocabulary_; }

 private:
  static constexpr std::uint64_t guide_size = 1U << 16U;

  void draw_vocabulary() {
    std::unordered_set<std::string> taken;
    while (vocabulary_.size() < vocabulary_size) {
      std::string word(draw_length(vocabulary_.size()), ' ');
      for (char& letter : word) {
        letter = static_cast<char>('a' + random_.below(26));
      }
      if (taken.insert(word).second) {
        vocabulary_.push_back(std::move(word));
      }
    }
  }

  std::size_t draw_length(std::size_t rank) {
    if (rank % 100 == 99) {
      return 17 + random_.below(8);
    }
    if (rank < 100) {
      return 2 + random_.below(3);
    }
    if (rank < 1'000) {
      return 3 + random_.below(5);
    }
    if (rank < 10'000) {
      return 4 + random_.below(7);
    }
    return 5 + random_.below(10);
  }

  void weigh() {
    std::uint64_t total = 0;
    for (std::size_t rank = 0; rank < vocabulary_size; ++rank) {
      total += (std::uint64_t{1} << 32U) / (rank + 1);
      cumulated_.push_back(total);
    }
    // The guide answers "where to begin looking" in one step; the search behind it is then one or two steps long.
    std::size_t rank = 0;
    for (std::uint64_t slice = 0; slice < guide_size; ++slice) {
      while (cumulated_[rank] <= slice_begin(slice)) {
        ++rank;
      }
      guide_.push_back(static_cast<std::uint32_t>(rank));
    }
  }

  [[nodiscard]] std::uint64_t slice_width() const { return cumulated_.back() / guide_size + 1; }
  [[nodiscard]] std::uint64_t slice_begin(std::uint64_t slice) const {
    return std::min(slice * slice_width(), cumulated_.back() - 1);
  }

  std::size_t draw_rank() {
    const std::uint64_t point = random_.below(cumulated_.back());
    std::size_t rank = guide_[point / slice_width()];
    while (cumulated_[rank] <= point) {
      ++rank;
    }
    return rank;
  }

  Random random_;
  std::vector<std::string> vocabulary_;
  std::vector<std::uint64_t> cumulated_;  // cumulated_[r] = weight of the ranks 0..r
  std::vector<std::uint32_t> guide_;      // the first rank that can hold a point of each slice
};

/// FNV-1a, 64 bits: the fingerprint under which a benchmark's input is known.
inline std::uint64_t fingerprint(std::string_view bytes) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char byte : bytes) {
    hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3U;
  }
  return hash;
}

/// The text of all word benchmarks. Throws std::logic_error when the generator no longer makes the bytes that the
/// figures in bench/README.md were measured on.
inline std::string benchmark_text(std::size_t bytes) {
  constexpr std::uint64_t expected = 0x3b0cc341b662f0d9U;  // of the whole lines in the first 64 KiB
  const std::string probe = TextGenerator{}.generate(64 * 1024);
  if (fingerprint(probe) != expected) {
    throw std::logic_error("the text generator changed: its first 64 KiB have the fingerprint " +
                           std::to_string(fingerprint(probe)) + " instead of " + std::to_string(expected));
  }
  return TextGenerator{}.generate(bytes);
}

/// Cuts the text into `parts` pieces of about the same size, each ending behind a newline.
inline std::vector<std::string_view> split_by_newline(std::string_view text, std::size_t parts) {
  std::vector<std::string_view> pieces;
  for (std::size_t left = parts; left > 1; --left) {
    std::size_t end = text.find('\n', text.size() / left);
    end = end == std::string_view::npos ? text.size() : end + 1;
    pieces.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  pieces.push_back(text);
  return pieces;
}

}  // namespace tidemill::bench
