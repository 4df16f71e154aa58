// Runs this library and its limit programs against each other.
//
// One iteration of the benchmark is one round, in which every side runs once, forwards and backwards in turn, so that a
// machine that gets slower or faster treats all sides alike. Every side's answer is compared in every round, outside the
// time taken; one difference, and the benchmark reports an error instead of figures.
//   Race<Answer> race(state, {.records = words, .bytes = text.size(), .record = "word"});
//   race.ours(count_with_tidemill, to_answer);
//   race.limit("idiomatic", count_by_hand, to_answer);
//   race.go();
// Counters: vs_<limit>, the median over the rounds of limit time / our time (above 1 we are faster), and the median time a
// record as ns_per_<record> and <limit>_ns_per_<record>. The benchmark's own time is ours.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "common/outcome.hpp"
#include "common/settings.hpp"
#include "common/statistics.hpp"

namespace tidemill::bench {

/// What one run of any side works through.
struct Work {
  std::int64_t records = 0;
  std::int64_t bytes = 0;
  std::string record = "record";
};

template <class Answer>
class Race {
 public:
  Race(benchmark::State& state, Work work) : state_(state), work_(std::move(work)), sides_(1) {}

  /// `run` is timed; `answer_of` makes an Answer of what it returned and is not.
  template <class Run, class AnswerOf = std::identity>
  void ours(Run run, AnswerOf answer_of = {}) {
    sides_.front() = side("", std::move(run), std::move(answer_of));
  }

  template <class Run, class AnswerOf = std::identity>
  void limit(const std::string& name, Run run, AnswerOf answer_of = {}) {
    sides_.push_back(side(name, std::move(run), std::move(answer_of)));
  }

  /// Runs all rounds and reports. One more round, not counted, goes before them: it touches all memory.
  void go() {
    if (!smoke() && !round(false)) {
      return;
    }
    bool forwards = true;
    for ([[maybe_unused]] auto iteration : state_) {
      if (!round(forwards)) {
        return;
      }
      state_.SetIterationTime(sides_.front().seconds.back());
      forwards = !forwards;
    }
    report();
  }

 private:
  struct Side {
    std::string name;  // empty for ours
    std::function<std::pair<double, Answer>()> run;
    std::vector<double> seconds;
    std::optional<Answer> answer;
  };

  template <class Run, class AnswerOf>
  static Side side(std::string name, Run run, AnswerOf answer_of) {
    return {std::move(name),
            [run = std::move(run), answer_of = std::move(answer_of)] {
              const auto begin = std::chrono::steady_clock::now();
              auto result = run();
              const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
              return std::pair<double, Answer>(taken.count(), answer_of(std::move(result)));
            },
            {},
            {}};
  }

  // False when two sides disagree.
  bool round(bool forwards) {
    for (std::size_t i = 0; i < sides_.size(); ++i) {
      Side& side = sides_[forwards ? i : sides_.size() - 1 - i];
      auto [seconds, answer] = side.run();
      side.seconds.push_back(seconds);
      side.answer = std::move(answer);
    }
    for (const Side& side : sides_) {
      if (side.answer != sides_.front().answer) {
        fail(state_, "the result of '" + side.name + "' differs from this library's");
        return false;
      }
    }
    return true;
  }

  void report() {
    const auto records = static_cast<double>(work_.records);
    for (Side& side : sides_) {
      // The first round warmed up, unless there is no other.
      if (side.seconds.size() > 1) {
        side.seconds.erase(side.seconds.begin());
      }
      const std::string prefix = side.name.empty() ? "" : side.name + "_";
      state_.counters[prefix + "ns_per_" + work_.record] = median(side.seconds) / records * 1e9;
      if (side.name.empty()) {
        continue;
      }
      std::vector<double> ratios;
      for (std::size_t i = 0; i < side.seconds.size(); ++i) {
        ratios.push_back(side.seconds[i] / sides_.front().seconds[i]);
      }
      state_.counters["vs_" + side.name] = median(ratios);
    }
    state_.SetItemsProcessed(work_.records * static_cast<std::int64_t>(state_.iterations()));
    if (work_.bytes != 0) {
      state_.SetBytesProcessed(work_.bytes * static_cast<std::int64_t>(state_.iterations()));
    }
  }

  benchmark::State& state_;
  Work work_;
  std::vector<Side> sides_;  // the first is ours
};

/// How every race is registered: as many iterations as rounds, timed by the race itself.
inline void as_race(benchmark::internal::Benchmark* benchmark) {
  benchmark->UseManualTime()->Iterations(rounds())->Unit(benchmark::kMillisecond);
}
/// The same for races of milliseconds, in which a single disturbance weighs more: many rounds.
inline void as_short_race(benchmark::internal::Benchmark* benchmark) {
  benchmark->UseManualTime()->Iterations(rounds(51))->Unit(benchmark::kMillisecond);
}

}  // namespace tidemill::bench
