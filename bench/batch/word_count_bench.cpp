// Word count over text in memory: what the typed chain and the staged table cost beside loops written by hand.
//   bench_word_count                       256 MB; TIDEMILL_BENCH_TEXT_MB=N for another size
//   views/<workers>                        split(' '), keys are views into the text
//   strings/<workers>                      user functions that make a std::string of every word
// Targets: views vs_idiomatic >= 1.5 and vs_tuned >= 0.35 with any number of workers, vs_one_worker >= 1.7 with two;
// strings vs_hand >= 0.8.
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include <benchmark/benchmark.h>

#include "batch/word_count_limit.hpp"
#include "common/race.hpp"
#include "common/settings.hpp"
#include "common/text.hpp"
#include "tidemill/tidemill.hpp"

namespace tidemill::bench {
namespace {

const std::string& text() {
  static const std::string text =
      benchmark_text(static_cast<std::size_t>(setting("TEXT_MB", 256, 1)) * std::size_t{1024 * 1024});
  return text;
}

Work work() {
  static const Work work = [] {
    std::int64_t words = 0;
    for (const char byte : text()) {
      words += byte == ' ' || byte == '\n' ? 1 : 0;
    }
    return Work{words, static_cast<std::int64_t>(text().size()), "word"};
  }();
  return work;
}

Batch<std::string_view> lines_for(std::size_t workers) {
  return Context{{.app_name = "word-count", .parallelism = workers}}.text_batch(text());
}

constexpr auto to_answer = [](const auto& counts) { return answer_of(counts); };

void views(benchmark::State& state) {
  const auto workers = static_cast<std::size_t>(state.range(0));
  const auto count = [](const Batch<std::string_view>& lines) {
    return lines.flat_map(tidemill::split(' '))
        .map([](std::string_view word) {
          return std::pair{word, 1L};
        })
        .reduce_by_key(std::plus<>{})
        .collect_as_map();
  };
  const Batch<std::string_view> lines = lines_for(workers);
  const Batch<std::string_view> one_workers_lines = lines_for(1);

  Race<Answer> race(state, work());
  race.ours([&] { return count(lines); }, to_answer);
  race.limit(
      "idiomatic", [&] { return count_in_parallel(text(), workers, count_idiomatic); }, to_answer);
  race.limit(
      "tuned", [&] { return count_in_parallel(text(), workers, count_tuned); }, to_answer);
  if (workers > 1) {
    race.limit(
        "one_worker", [&] { return count(one_workers_lines); }, to_answer);
  }
  race.go();
}
BENCHMARK(views)->Arg(1)->Arg(2)->Apply(as_race);

// The user's functions, the same for the library and for the loop by hand.
constexpr auto words_of = [](std::string_view line, auto&& emit) {
  for (;;) {
    const std::size_t space = line.find(' ');
    emit(std::string(line.substr(0, space)));
    if (space == std::string_view::npos) {
      return;
    }
    line.remove_prefix(space + 1);
  }
};
constexpr auto with_one = [](std::string word) { return std::pair{std::move(word), 1L}; };

void strings(benchmark::State& state) {
  const auto workers = static_cast<std::size_t>(state.range(0));
  const Batch<std::string_view> lines = lines_for(workers);

  Race<Answer> race(state, work());
  race.ours(
      [&] { return lines.flat_map<std::string>(words_of).map(with_one).reduce_by_key(std::plus<>{}).collect_as_map(); },
      to_answer);
  race.limit(
      "hand",
      [&] {
        return count_in_parallel(text(), workers, [](std::string_view piece) {
          return count_strings(piece, words_of, with_one, std::plus<>{});
        });
      },
      to_answer);
  race.go();
}
BENCHMARK(strings)->Arg(1)->Arg(2)->Apply(as_race);

}  // namespace
}  // namespace tidemill::bench
