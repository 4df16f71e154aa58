// The limit programs of the word count: what a C++ developer would write by hand.
//   idiomatic  memchr lines, split on space, boost::unordered_flat_map<std::string_view, long>
//   tuned      SIMD split, words of up to sixteen bytes inline in the table, staged prefetch
//   strings    user functions over std::string, boost::unordered_flat_map<std::string, long>
// They are as good as their description allows; making one slower makes every ratio of this benchmark worthless.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <immintrin.h>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <boost/unordered/unordered_flat_map.hpp>

#include "common/text.hpp"

namespace tidemill::bench {

// ---------------------------------------------------------------------------------------------- idiomatic

using ViewCounts = boost::unordered_flat_map<std::string_view, long>;

inline ViewCounts count_idiomatic(std::string_view text) {
  ViewCounts counts;
  const char* line = text.data();
  const char* const end = line + text.size();
  while (line != end) {
    const void* newline = std::memchr(line, '\n', static_cast<std::size_t>(end - line));
    const char* const line_end = newline == nullptr ? end : static_cast<const char*>(newline);
    std::string_view rest(line, static_cast<std::size_t>(line_end - line));
    for (;;) {
      const std::size_t space = rest.find(' ');
      ++counts[rest.substr(0, space)];
      if (space == std::string_view::npos) {
        break;
      }
      rest.remove_prefix(space + 1);
    }
    line = newline == nullptr ? end : line_end + 1;
  }
  return counts;
}

// -------------------------------------------------------------------------------------------------- tuned

namespace tuned {

/// Writes the offset of every space and newline of text[0, size) to `out` and returns their number. Writes in groups
/// of eight, so `out` has room for size + 64 entries. `size` is a multiple of 64.
using FindSeparators = std::size_t (*)(const char* text, std::size_t size, std::uint32_t* out);

/// Appends base + the place of every bit of the mask. Eight at a time, whether or not so many are set, because a loop
/// that ends exactly behind the last bit mispredicts in every block.
[[gnu::always_inline]] inline std::uint32_t* write_positions(std::uint64_t mask, std::size_t base, std::uint32_t* out) {
  const int found = __builtin_popcountll(mask);
  for (int done = 0; done < found; done += 8) {
    for (int i = 0; i < 8; ++i) {
      const int place = __builtin_ctzll(mask | (1ULL << 63U));  // never of 0, which has no answer
      out[done + i] = static_cast<std::uint32_t>(base) + static_cast<std::uint32_t>(place);
      mask &= mask - 1;
    }
  }
  return out + found;
}

inline std::size_t find_separators_sse2(const char* text, std::size_t size, std::uint32_t* out) {
  const __m128i space = _mm_set1_epi8(' ');
  const __m128i newline = _mm_set1_epi8('\n');
  std::uint32_t* next = out;
  for (std::size_t at = 0; at < size; at += 64) {
    std::uint64_t mask = 0;
    for (unsigned part = 0; part < 4; ++part) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(text + at + std::size_t{16} * part));
      const __m128i hit = _mm_or_si128(_mm_cmpeq_epi8(bytes, space), _mm_cmpeq_epi8(bytes, newline));
      mask |= static_cast<std::uint64_t>(static_cast<unsigned>(_mm_movemask_epi8(hit))) << (16 * part);
    }
    next = write_positions(mask, at, next);
  }
  return static_cast<std::size_t>(next - out);
}

__attribute__((target("avx2,bmi,popcnt"))) inline std::size_t find_separators_avx2(const char* text, std::size_t size,
                                                                                   std::uint32_t* out) {
  const __m256i space = _mm256_set1_epi8(' ');
  const __m256i newline = _mm256_set1_epi8('\n');
  std::uint32_t* next = out;
  for (std::size_t at = 0; at < size; at += 64) {
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(text + at));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(text + at + 32));
    const __m256i low_hit = _mm256_or_si256(_mm256_cmpeq_epi8(low, space), _mm256_cmpeq_epi8(low, newline));
    const __m256i high_hit = _mm256_or_si256(_mm256_cmpeq_epi8(high, space), _mm256_cmpeq_epi8(high, newline));
    std::uint64_t mask = static_cast<std::uint64_t>(static_cast<unsigned>(_mm256_movemask_epi8(low_hit))) |
                         static_cast<std::uint64_t>(static_cast<unsigned>(_mm256_movemask_epi8(high_hit))) << 32U;
    next = write_positions(mask, at, next);
  }
  return static_cast<std::size_t>(next - out);
}

inline FindSeparators find_separators() {
  return __builtin_cpu_supports("avx2") ? find_separators_avx2 : find_separators_sse2;
}

/// A word of one to sixteen bytes, padded with zeros. Words hold no zero byte (a promise of the generated text), so
/// the padding is no ambiguity and the length need not be kept.
struct Key {
  std::uint64_t low;
  std::uint64_t high;
  friend bool operator==(const Key&, const Key&) = default;
};

inline std::uint64_t hash_of(Key key) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(key.low ^ 0xa0761d6478bd642fU) * (key.high ^ 0xe7037ed1a0b428dbU);
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

/// A word on its way into the table, its slot being prefetched.
struct Staged {
  Key key;
  std::uint64_t hash;
};

/// Open addressing with linear probing, at most half full; an empty slot has the count 0.
class Table {
 public:
  struct Slot {
    Key key;
    std::uint64_t hash;
    long count;
  };

  Table() : slots_(std::size_t{1} << bits_) {}

  /// Makes room for `words` new words, so that neither slots() nor shift() changes before they are all added.
  void reserve(std::size_t words) {
    while ((size_ + words) * 2 > slots_.size()) {
      grow();
    }
  }

  [[nodiscard]] const std::vector<Slot>& slots() const { return slots_; }
  [[nodiscard]] unsigned shift() const { return 64U - bits_; }

  /// Counts a block of words for which there is room.
  void add(const Staged* words, std::size_t count) {
    add(words, count, [](const Staged&) { return 1L; });
  }

  /// Adds what another worker counted.
  void merge(const Table& other) {
    for (const Slot& slot : other.slots_) {
      if (slot.count == 0) {
        continue;
      }
      reserve(1);
      add(&slot, 1, [](const Slot& from) { return from.count; });
    }
  }

 private:
  template <class From, class CountOf>
  void add(const From* words, std::size_t count, CountOf count_of) {
    Slot* const slots = slots_.data();  // copied, because the stores below might alias the members
    const unsigned shift_by = shift();
    const std::size_t mask = slots_.size() - 1;
    std::size_t fresh = 0;
    for (const From* word = words; word != words + count; ++word) {
      for (std::size_t at = word->hash >> shift_by;; at = (at + 1) & mask) {
        Slot& slot = slots[at];
        if (((slot.key.low ^ word->key.low) | (slot.key.high ^ word->key.high)) == 0) [[likely]] {
          slot.count += count_of(*word);
          break;
        }
        if (slot.count == 0) {
          slot = Slot{word->key, word->hash, count_of(*word)};
          ++fresh;
          break;
        }
      }
    }
    size_ += fresh;
  }

  void grow() {
    std::vector<Slot> old(std::size_t{1} << ++bits_);
    old.swap(slots_);
    const std::size_t mask = slots_.size() - 1;
    for (const Slot& slot : old) {
      if (slot.count == 0) {
        continue;
      }
      std::size_t at = slot.hash >> shift();
      while (slots_[at].count != 0) {
        at = (at + 1) & mask;
      }
      slots_[at] = slot;
    }
  }

  unsigned bits_ = 12;
  std::size_t size_ = 0;
  std::vector<Slot> slots_;
};

}  // namespace tuned

struct TunedCounts {
  tuned::Table words;     // of at most sixteen bytes
  ViewCounts long_words;  // of more
};

/// `text` ends with a newline, as the generated text does, and holds no zero byte.
inline TunedCounts count_tuned(std::string_view text) {
  using tuned::Key;
  using tuned::Staged;
  constexpr std::size_t chunk = 2048;  // bytes scanned at a time: about 350 words, staged in the first-level cache
  static constexpr auto prefix_masks = [] {
    std::array<std::uint8_t, 32> bytes{};
    for (std::size_t i = 0; i < 16; ++i) {
      bytes[i] = 0xff;
    }
    return bytes;
  }();

  TunedCounts counts;
  const tuned::FindSeparators find_separators = tuned::find_separators();
  std::vector<std::uint32_t> separators(chunk + 64);
  std::vector<Staged> staged(chunk);
  std::vector<char> tail;  // the last chunks are copied, so that nothing reads past the end of the text
  const char* word = text.data();

  // `origin` is where the bytes at `base` stand in the text: keys that are views point there.
  const auto count_chunk = [&](const char* base, const char* origin) {
    counts.words.reserve(chunk / 2);
    const tuned::Table::Slot* const slots = counts.words.slots().data();
    const unsigned shift = counts.words.shift();
    const std::size_t found = find_separators(base, chunk, separators.data());
    Staged* next = staged.data();
    for (std::size_t i = 0; i < found; ++i) {
      const char* const word_end = base + separators[i];
      const auto size = static_cast<std::size_t>(word_end - word);
      if (size - 1 < 16) [[likely]] {
        const __m128i mask = _mm_loadu_si128(reinterpret_cast<const __m128i*>(prefix_masks.data() + 16 - size));
        const __m128i bytes = _mm_and_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(word)), mask);
        const auto key = std::bit_cast<Key>(bytes);
        const std::uint64_t hash = tuned::hash_of(key);
        __builtin_prefetch(slots + (hash >> shift), 1);
        *next++ = Staged{key, hash};
      } else if (size != 0) {
        ++counts.long_words[std::string_view(origin + (word - base), size)];
      }
      word = word_end + 1;
    }
    counts.words.add(staged.data(), static_cast<std::size_t>(next - staged.data()));
  };

  // A word may begin in the chunk before, and sixteen bytes are read from where it begins: whole chunks are scanned in
  // place while one more follows; the rest, from the first word not yet counted, is copied and padded.
  std::size_t at = 0;
  for (; at + 2 * chunk <= text.size(); at += chunk) {
    count_chunk(text.data() + at, text.data() + at);
  }
  const auto begin = static_cast<std::size_t>(word - text.data());
  tail.assign((text.size() - begin + chunk - 1) / chunk * chunk + 16, 'x');
  std::memcpy(tail.data(), text.data() + begin, text.size() - begin);
  word = tail.data();
  for (at = 0; at + 16 < tail.size(); at += chunk) {
    count_chunk(tail.data() + at, text.data() + begin + at);
  }
  return counts;
}

// ------------------------------------------------------------------------------------------------ strings

using StringCounts = boost::unordered_flat_map<std::string, long>;

/// The word count with a user's functions over std::string. The functions are handed in, because "equal" means that
/// the library runs the very same ones: `words_of(line, emit)`, `with_one(word)` and `add(count, count)`.
template <class WordsOf, class WithOne, class Add>
StringCounts count_strings(std::string_view text, WordsOf words_of, WithOne with_one, Add add) {
  StringCounts counts;
  const char* line = text.data();
  const char* const end = line + text.size();
  while (line != end) {
    const void* newline = std::memchr(line, '\n', static_cast<std::size_t>(end - line));
    const char* const line_end = newline == nullptr ? end : static_cast<const char*>(newline);
    words_of(std::string_view(line, static_cast<std::size_t>(line_end - line)), [&](std::string word) {
      auto [key, value] = with_one(std::move(word));
      const auto [at, fresh] = counts.try_emplace(std::move(key), value);
      if (!fresh) {
        at->second = add(at->second, value);
      }
    });
    line = newline == nullptr ? end : line_end + 1;
  }
  return counts;
}

// ------------------------------------------------------------------------------------------ several workers

inline void merge(ViewCounts& into, const ViewCounts& from) {
  for (const auto& [word, count] : from) {
    into[word] += count;
  }
}
inline void merge(StringCounts& into, const StringCounts& from) {
  for (const auto& [word, count] : from) {
    into[word] += count;
  }
}
inline void merge(TunedCounts& into, const TunedCounts& from) {
  into.words.merge(from.words);
  merge(into.long_words, from.long_words);
}

/// Cuts the text at newlines into one piece a worker, counts each on its own thread and merges.
template <class Count>
auto count_in_parallel(std::string_view text, std::size_t workers, Count count) {
  const std::vector<std::string_view> pieces = split_by_newline(text, workers);
  std::vector<decltype(count(text))> counts(workers);
  std::vector<std::jthread> threads;
  for (std::size_t i = 1; i < workers; ++i) {
    threads.emplace_back([&, i] { counts[i] = count(pieces[i]); });
  }
  counts[0] = count(pieces[0]);
  for (std::size_t i = 1; i < workers; ++i) {
    threads[i - 1].join();
    merge(counts[0], counts[i]);
  }
  return std::move(counts[0]);
}

// ----------------------------------------------------------------------------------------------- comparing

/// Word and count sorted by word: the form in which the results of all contenders are compared.
using Answer = std::map<std::string, long>;

template <class Map>
Answer answer_of(const Map& counts) {
  return Answer(counts.begin(), counts.end());
}

inline Answer answer_of(const TunedCounts& counts) {
  Answer answer = answer_of(counts.long_words);
  for (const tuned::Table::Slot& slot : counts.words.slots()) {
    if (slot.count == 0) {
      continue;
    }
    const auto bytes = std::bit_cast<std::array<char, 16>>(slot.key);
    answer.emplace(std::string(bytes.data(), strnlen(bytes.data(), bytes.size())), slot.count);
  }
  return answer;
}

}  // namespace tidemill::bench
