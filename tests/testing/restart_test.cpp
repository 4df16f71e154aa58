// Programs with a checkpoint that are killed in every batch and started again, as they were or changed: what they show is what a
// run without a break shows, or what follows from the input itself. A kill is a copy of the disk, taken at that instant.
#include <map>

#include "engine/harness.hpp"
#include "tidemill/testing/sim_fs.hpp"
#include "tidemill/testing/tape.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;
using testing::SimFault;
using testing::SimFs;
using testing::Tape;
using Word = std::pair<std::string, long>;
using Disk = std::shared_ptr<SimFs>;

/// What an output saw, by batch time; records in ascending order.
using Shown = std::map<Time, std::vector<std::string>>;

template <class S>
void show(const S& stream, Shown& shown) {
  stream.foreach_batch([&shown](const auto& batch, Time t) {
    std::vector<std::string> records;
    for (const auto& record : batch.collect()) records.push_back(::testing::PrintToString(record));
    std::sort(records.begin(), records.end());
    shown[t] = std::move(records);
  });
}

[[nodiscard]] Disk new_disk() {
  auto disk = std::make_shared<SimFs>(1);
  disk->sync_directory(".");
  return disk;
}

/// One life of a program: words come from a tape, `build` makes of them what is shown. The disk is copied in the middle of each
/// batch.
class Life {
 public:
  using Build = std::function<void(const DStream<Word>&, Shown&)>;

  template <class Gate>
  Life(Disk disk, Tape<Word>& tape, Time now, Gate gate, const Build& build, RecoveryOptions options = {},
       std::size_t parallelism = 2)
      : clock{std::make_shared<ManualClock>(now)} {
    const Context context{{.app_name = "restarted",
                           .parallelism = parallelism,
                           .executor = nullptr,
                           .clock = clock,
                           .log = log.logger(),
                           .fs = disk}};
    options.store.snapshot_min_log_bytes = 2000;
    options.store.plan_segment_bytes = 4096;  // a disk of small files is soon copied
    options.store.commit_segment_bytes = 4096;
    options.received.segment_bytes = 4096;
    ssc = StreamingContext::get_or_create(
        "checkpoint",
        [&] {
          auto fresh = std::make_unique<StreamingContext>(context, gate);
          const auto words = tape.stream(*fresh);
          words.foreach_batch([this, disk](const Batch<Word>& batch, Time t) {
            taken[t] = batch.collect();
            killed = disk->copy(7);
            on_batch(t);
          });
          build(words, shown);
          return fresh;
        },
        std::move(options));
  }

  /// Batches that were run.
  std::size_t run_what_is_due() const {
    std::size_t batches = 0;
    while (ssc->step()) ++batches;
    return batches;
  }
  std::size_t pass(Duration d) const {
    clock->advance(d);
    return run_what_is_due();
  }
  void start() const { ssc->start(Drive::by_host); }

  std::shared_ptr<ManualClock> clock;
  Log log;
  Shown shown;
  std::map<Time, std::vector<Word>> taken;  // by batch time
  Disk killed;                              // in the middle of the batch that was last
  std::function<void(Time)> on_batch = [](Time) {};
  std::unique_ptr<StreamingContext> ssc;
};

// ---- another interval ---------------------------------------------------------------------------------------------------------

constexpr auto on_arrival_gate = Duration::zero();  // the gate of a life, when it is no interval

/// A program that is killed in the middle of a batch again and again, and started with another interval each time.
struct Tuned {
  Time begin;
  std::vector<Duration> intervals;
  std::map<Time, std::vector<Word>> taken;
  Shown shown;
  Time now{};
};

[[nodiscard]] Tuned run_with_changing_intervals(Time begin, std::vector<Duration> intervals, const Life::Build& build) {
  Tuned result{.begin = begin, .intervals = std::move(intervals), .taken = {}, .shown = {}, .now = begin};
  Tape<Word> tape;
  Disk disk = new_disk();
  long number = 0;
  for (const Duration interval : result.intervals) {
    std::unique_ptr<Life> life;
    if (interval == on_arrival_gate) {
      life = std::make_unique<Life>(disk, tape, result.now, on_arrival, build);
    } else {
      life = std::make_unique<Life>(disk, tape, result.now, interval, build);
    }
    life->start();
    std::size_t batches = life->run_what_is_due();
    for (int i = 0; i < 45; ++i) {
      if (i % 3 != 2) {
        ++number;
        tape.write({{"word" + std::to_string(number % 3), number}});
      }
      batches += life->pass(250ms);
    }
    EXPECT_GT(batches, 4u);
    for (const auto& [t, words] : life->taken) {
      if (const auto before = result.taken.find(t); before != result.taken.end()) {
        EXPECT_EQ(before->second, words) << "the batch of " << to_string(t) << " was another when it was run again";
      }
      result.taken[t] = words;
    }
    for (const auto& [t, records] : life->shown) {
      if (const auto before = result.shown.find(t); before != result.shown.end()) {
        EXPECT_EQ(before->second, records) << "at " << to_string(t);
      }
      result.shown[t] = records;
    }
    disk = life->killed;
    result.now = life->clock->now();
    life.reset();
  }
  std::vector<long> numbers;
  for (const auto& [_, words] : result.taken) {
    for (const Word& word : words) numbers.push_back(word.second);
  }
  EXPECT_TRUE(std::is_sorted(numbers.begin(), numbers.end()));
  EXPECT_EQ(std::adjacent_find(numbers.begin(), numbers.end()), numbers.end()) << "something came twice";
  EXPECT_EQ(numbers.size(), numbers.empty() ? 0 : static_cast<std::size_t>(numbers.back())) << "something is lost";
  return result;
}

[[nodiscard]] std::vector<std::string> lines_of(const std::map<std::string, long>& numbers) {
  std::vector<std::string> lines;
  for (const auto& [word, number] : numbers) lines.push_back(::testing::PrintToString(Word{word, number}));
  return lines;
}

TEST(ChangedInterval, TotalsGoOnAndWhatWasNotFinishedIsRunAgainAtItsOldTime) {
  const Life::Build totals = [](const DStream<Word>& words, Shown& shown) {
    show(words.update_state_by_key<long>([](const std::vector<long>& values, std::optional<long> total) {
      return std::optional<long>{std::accumulate(values.begin(), values.end(), total.value_or(0))};
    }),
         shown);
  };
  const std::vector<std::vector<Duration>> changes{{1s, 250ms, 1s},
                                                   {1s, 2s, 300ms, 300ms, 1s},
                                                   {250ms, 1s, 700ms},
                                                   {1s, on_arrival_gate, 2s, on_arrival_gate, on_arrival_gate},
                                                   {on_arrival_gate, 300ms, 300ms}};
  for (const auto& intervals : changes) {
    SCOPED_TRACE(::testing::PrintToString(intervals));
    const Tuned run = run_with_changing_intervals(at(1003), intervals, totals);
    std::map<std::string, long> expected;
    for (const auto& [t, words] : run.taken) {
      for (const auto& [word, number] : words) expected[word] += number;
      ASSERT_EQ(run.shown.at(t), lines_of(expected)) << "at " << to_string(t);
    }
    EXPECT_EQ(run.shown.size(), run.taken.size());
  }
}

struct WindowForm {
  const char* name;
  std::function<DStream<Word>(const DStream<Word>&, Duration length, Duration slide)> make;
};
const WindowForm window_forms[] = {
    {"without an inverse",
     [](const DStream<Word>& words, Duration length, Duration slide) -> DStream<Word> {
       return words.reduce_by_key_and_window(std::plus<>{}, length, slide);
     }},
    {"with an inverse",
     [](const DStream<Word>& words, Duration length, Duration slide) -> DStream<Word> {
       return words.reduce_by_key_and_window(std::plus<>{}, std::minus<>{}, length, slide, 0,
                                             [](const std::string&, long sum) { return sum != 0; });
     }},
    {"of records",
     [](const DStream<Word>& words, Duration length, Duration slide) -> DStream<Word> {
       return words.window(length, slide).reduce_by_key(std::plus<>{});
     }},
};

TEST(ChangedInterval, WindowsEndWhereTheyWouldHaveEndedAndHoldWhatTheyWouldHaveHeld) {
  struct Case {
    std::vector<Duration> intervals;
    Duration length;
    Duration slide;
  };
  const Case cases[] = {{{1s, 250ms, 1s}, 4s, 4s},    {{1s, 250ms, 500ms}, 4s, 2s}, {{1s, 2s, 1s, 250ms}, 4s, 4s},
                        {{250ms, 1s, 250ms}, 2s, 1s}, {{1s, 300ms, 1s}, 3s, 3s},    {{1s, 300ms, 300ms, 1s}, 6s, 3s},
                        {{1s, 500ms, 2s}, 2s, 6s},    {{500ms, 1s, 250ms}, 5s, 2s}};
  for (const Case& one : cases) {
    for (const WindowForm& form : window_forms) {
      SCOPED_TRACE(::testing::PrintToString(one.intervals) + ": " + to_string(one.length) + " every " +
                   to_string(one.slide) + ' ' + form.name);
      const Tuned run = run_with_changing_intervals(at(1003), one.intervals, [&](const auto& words, Shown& shown) {
        show(form.make(words, one.length, one.slide), shown);
      });
      std::size_t windows = 0;
      for (Time end = run.begin + one.slide; end <= run.now; end += one.slide, ++windows) {
        std::map<std::string, long> sums;
        for (const auto& [t, words] : run.taken) {
          if (t <= end - one.length || t > end) continue;
          for (const auto& [word, number] : words) sums[word] += number;
        }
        ASSERT_TRUE(run.shown.contains(end)) << to_string(end);
        ASSERT_EQ(run.shown.at(end), lines_of(sums)) << "at " << to_string(end);
      }
      ASSERT_EQ(run.shown.size(), windows) << "and there are no others";
    }
  }
}

TEST(ChangedInterval, AWindowThatMovedWithEachBatchIsAnotherAtAnotherInterval) {
  Tape<Word> tape;
  Disk disk = new_disk();
  const Life::Build build = [](const DStream<Word>& words, Shown& shown) { show(words.window(4s), shown); };
  {
    Life life{disk, tape, at(1000), 1s, build};
    life.start();
    life.pass(1s);
  }
  Life life{disk, tape, at(1001), 500ms, build};
  std::string message;
  EXPECT_EQ(code_of<PlanError>([&] { life.start(); }, &message), "incompatible_checkpoint");
  EXPECT_THAT(message, HasSubstr(R"(its setting is "length 4 s, slide 500 ms" and was "length 4 s, slide 1 s")"));
  Life same{disk, tape, at(1001), 500ms,
            [](const DStream<Word>& words, Shown& shown) { show(words.window(4s, 1s), shown); }};
  EXPECT_NO_THROW(same.start()) << "with the slide that it had";
}

// ---- the time without a program ----------------------------------------------------------------------------------------------

TEST(MergedCatchUp, DoesNotPassOverTheEndsOfWindows) {
  for (const WindowForm& form : window_forms) {
    for (const bool killed_in_a_batch : {false, true}) {
      SCOPED_TRACE(form.name);
      Tape<Word> tape;
      Disk disk = new_disk();
      const Life::Build build = [&](const DStream<Word>& words, Shown& shown) {
        show(form.make(words, 4s, 4s), shown);
      };
      const RecoveryOptions merged{.catch_up = CatchUp::merged};
      Disk left;
      {
        Life life{disk, tape, at(1000), 1s, build, merged};
        life.start();
        for (long i = 1; i <= 5; ++i) {
          tape.write({{"a", i}});
          EXPECT_EQ(life.pass(1s), 1u);
        }
        left = killed_in_a_batch ? life.killed : disk->copy(3);
      }
      tape.write({{"a", 100}});
      Life life{left, tape, at(1012.5), 1s, build, merged};
      life.start();
      EXPECT_EQ(life.run_what_is_due(), killed_in_a_batch ? 3u : 2u);
      EXPECT_EQ(life.shown, (Shown{{at(1008), {"(\"a\", 105)"}}, {at(1012), {}}}));
      EXPECT_FALSE(life.log.says("warning", "too slow"));
      tape.write({{"a", 7}});
      EXPECT_EQ(life.pass(4s), 4u);
      EXPECT_EQ(life.shown.at(at(1016)), std::vector<std::string>{"(\"a\", 7)"});
    }
  }
}

// ---- another program --------------------------------------------

[[nodiscard]] auto totals_of(const DStream<Word>& words, std::vector<Word> initial = {}) {
  return words.update_state_by_key<long>(
      [](const std::vector<long>& values, std::optional<long> total) {
        return std::optional<long>{std::accumulate(values.begin(), values.end(), total.value_or(0))};
      },
      0, std::move(initial));
}

TEST(ChangedProgram, AStateThatIsNewBeginsWithItsInitialStates) {  // U5, X10
  Tape<Word> tape;
  Disk disk = new_disk();
  const Life::Build before = [](const DStream<Word>& words, Shown& shown) {
    show(totals_of(words, {{"a", 10}}).name("old"), shown);
  };
  const auto with_new_ones = [](const DStream<Word>& words, Shown& shown) {
    const auto old = totals_of(words, {{"a", 1000}, {"d", 1000}}).name("old");
    const auto fresh = totals_of(words, {{"a", 20}, {"b", 20}}).name("fresh");
    const auto mapped = words
                            .map_with_state(state_spec<long>([](const std::string& word, std::optional<long> number,
                                                                State<long>& total) {
                                              total.update(total.get_option().value_or(0) + number.value_or(0));
                                              return Word{word, total.get()};
                                            }).initial_state(std::vector<Word>{{"a", 30}}))
                            .name("mapped");
    show(old.cogroup(fresh).cogroup(mapped), shown);
  };
  {
    Life life{disk, tape, at(1000), 1s, before};
    life.start();
    tape.write({{"a", 1}});
    life.pass(1s);
    tape.write({{"a", 1}});
    life.pass(1s);
    EXPECT_EQ(life.shown.at(at(1002)), std::vector<std::string>{"(\"a\", 12)"});
    disk = life.killed;  // in the middle of the second
  }
  {
    Life life{disk, tape, at(1002), 1s, with_new_ones};
    life.start();
    EXPECT_EQ(life.run_what_is_due(), 1u);
    EXPECT_EQ(life.shown.at(at(1002)),
              (std::vector<std::string>{"(\"a\", ({ ({ 12 }, { 21 }) }, { 31 }))", "(\"b\", ({ ({}, { 20 }) }, {}))"}));
    tape.write({{"a", 1}});
    life.pass(1s);
    disk = life.killed;
  }
  Life life{disk, tape, at(1003), 1s, with_new_ones};
  life.start();
  EXPECT_EQ(life.run_what_is_due(), 1u);
  EXPECT_EQ(life.shown.at(at(1003)),
            (std::vector<std::string>{"(\"a\", ({ ({ 13 }, { 22 }) }, { 32 }))", "(\"b\", ({ ({}, { 20 }) }, {}))"}))
      << "and only once";
}

TEST(ChangedProgram, WhatOnlyItsPlaceInTheProgramTellsApartNeedsAName) {
  Tape<Word> tape;
  const auto start = [&](const Life::Build& build) {
    std::string message;
    Life life{new_disk(), tape, at(1000), 1s, build};
    const std::string code = code_of<PlanError>([&] { life.start(); }, &message);
    return code + ": " + message;
  };
  EXPECT_THAT(start([](const DStream<Word>& words, Shown& shown) {
                show(totals_of(words), shown);
                show(totals_of(words), shown);
              }),
              ::testing::AllOf(HasSubstr("ambiguous_name"), HasSubstr("two states (update_state_by_key)"),
                               HasSubstr("\"tape.update_state_by_key\""), HasSubstr(".name(\"orders\")")));
  EXPECT_THAT(start([](const DStream<Word>& words, Shown& shown) {
                show(totals_of(words).name("totals"), shown);
                show(words.window(4s).name("totals"), shown);
              }),
              HasSubstr("ambiguous_name"))
      << "a name that is given twice is a slip";
  EXPECT_THAT(start([](const DStream<Word>& words, Shown& shown) {
                show(totals_of(words).name("first"), shown);
                show(totals_of(words), shown);
              }),
              HasSubstr("nothing"))
      << "one of two is enough";
  EXPECT_THAT(start([](const DStream<Word>& words, Shown& shown) {
                show(words.window(4s), shown);
                show(words.window(5s), shown);
              }),
              HasSubstr("nothing"))
      << "when these are exchanged it is noticed";
}

TEST(ChangedProgram, InputsThatOnlyTheirPlaceTellsApartNeedANameAndThenTheirOrderIsFree) {
  const Disk disk = new_disk();
  disk->make_directory("left");
  disk->make_directory("right");
  const auto clock = std::make_shared<ManualClock>(at(1000));
  const auto program = [&](const std::vector<std::pair<std::string, std::string>>& directories) {
    const Context context{
        {.app_name = "two", .parallelism = 1, .executor = nullptr, .clock = clock, .log = {}, .fs = disk}};
    return StreamingContext::get_or_create("checkpoint", [&] {
      auto ssc = std::make_unique<StreamingContext>(context, 1s);
      for (const auto& [directory, name] : directories) {
        auto lines = ssc->text_file_stream(directory);
        if (!name.empty()) lines = lines.name(name);
        lines.foreach_batch([](const auto&) {});
      }
      return ssc;
    });
  };
  std::string message;
  EXPECT_EQ(code_of<PlanError>(
                [&] {
                  program({{"left", ""}, {"right", ""}})->start(Drive::by_host);
                },
                &message),
            "ambiguous_name");
  EXPECT_THAT(message, HasSubstr("the inputs directory left and directory right are both called \"text_file\""));
  EXPECT_NO_THROW(program({{"left", "l"}, {"right", "r"}})->start(Drive::by_host));
  EXPECT_NO_THROW(program({{"right", "r"}, {"left", "l"}})->start(Drive::by_host));
}

// ---- the same program --------------------------------------------

using Words = DStream<Word>;
constexpr auto number_of = [](const Word& word) { return word.second; };
constexpr auto plus = std::plus<>{};
constexpr auto minus = std::minus<>{};
constexpr auto not_zero = [](const std::string&, long sum) { return sum != 0; };
constexpr auto add_up = [](const std::string& word, std::optional<long> number, State<long>& total) {
  if (total.is_timing_out()) return Word{word + " timed out", total.get()};
  total.update(total.get_option().value_or(0) + number.value_or(0));
  return Word{word, total.get()};
};
constexpr auto edit_path = [](const std::string& word, std::optional<long> number, State<std::vector<long>>& path) {
  if (!path.exists()) path.update({});
  path.edit().push_back(*number);
  const std::vector<long> so_far = path.get();
  if (so_far.size() == 3) path.remove();
  return std::pair{word, so_far};
};
constexpr auto whole_partitions = [](std::span<const StateUpdate<std::string, long, long>> updates) {
  std::vector<Word> next;
  for (const auto& update : updates)
    next.emplace_back(update.key, std::accumulate(update.values.begin(), update.values.end(),
                                                  update.state == nullptr ? 0L : *update.state));
  return next;
};

struct Program {
  const char* name;
  Life::Build build;
  FailedBatch failed_batch = FailedBatch::stop;
};
void PrintTo(const Program& program, std::ostream* out) { *out << program.name; }
const Program programs[] = {
    {"Window", [](const Words& words, Shown& shown) { show(words.window(3s), shown); }},
    {"WindowEverySecondBatch", [](const Words& words, Shown& shown) { show(words.window(4s, 2s), shown); }},
    {"WindowOfALengthThatIsNoMultipleOfItsSlide",
     [](const Words& words, Shown& shown) { show(words.window(5s, 2s), shown); }},
    {"WindowWithASlideLongerThanItself", [](const Words& words, Shown& shown) { show(words.window(2s, 5s), shown); }},
    {"GroupByKeyAndWindow",
     [](const Words& words, Shown& shown) { show(words.group_by_key_and_window(5s, 2s), shown); }},
    {"ReduceByWindow",
     [](const Words& words, Shown& shown) { show(words.map(number_of).reduce_by_window(plus, 5s, 2s), shown); }},
    {"ReduceByWindowWithInverse",
     [](const Words& words, Shown& shown) { show(words.map(number_of).reduce_by_window(plus, minus, 5s, 2s), shown); }},
    {"CountByWindow", [](const Words& words, Shown& shown) { show(words.count_by_window(2s), shown); }},
    {"CountByValueAndWindow",
     [](const Words& words, Shown& shown) {
       show(words.map([](const Word& word) { return word.first; }).count_by_value_and_window(3s), shown);
     }},
    {"ReduceByKeyAndWindow",
     [](const Words& words, Shown& shown) { show(words.reduce_by_key_and_window(plus, 5s, 2s), shown); }},
    {"ReduceByKeyAndWindowWithASlideLongerThanItself",
     [](const Words& words, Shown& shown) { show(words.reduce_by_key_and_window(plus, 2s, 5s), shown); }},
    {"ReduceByKeyAndWindowWithInverse",
     [](const Words& words, Shown& shown) {
       show(words.reduce_by_key_and_window(plus, minus, 5s, 2s, 0, not_zero), shown);
     }},
    {"ReduceByKeyAndWindowWithInverseAndASlideLongerThanItself",
     [](const Words& words, Shown& shown) { show(words.reduce_by_key_and_window(plus, minus, 2s, 3s), shown); }},
    {"WindowOfAWindow",
     [](const Words& words, Shown& shown) {
       show(words.reduce_by_key_and_window(plus, 2s, 2s).window(6s, 4s).reduce_by_key_and_window(plus, minus, 8s, 4s),
            shown);
     }},
    {"StateOfAWindow", [](const Words& words, Shown& shown) { show(totals_of(words.window(3s, 2s)), shown); }},
    {"StateSnapshots",
     [](const Words& words, Shown& shown) {
       const auto mapped = words.map_with_state(state_spec<long>(add_up));
       mapped.foreach_batch([](const auto&) {});
       show(mapped.state_snapshots(), shown);
     }},
    {"Timeouts",
     [](const Words& words, Shown& shown) { show(words.map_with_state(state_spec<long>(add_up).timeout(2s)), shown); }},
    {"LazyTimeouts",
     [](const Words& words, Shown& shown) {
       show(words.map_with_state(state_spec<long>(add_up).timeout(2s).lazy_timeouts(4s)), shown);
     }},
    {"Edit", [](const Words& words,
                Shown& shown) { show(words.map_with_state(state_spec<std::vector<long>>(edit_path)), shown); }},
    {"InitialStates",
     [](const Words& words, Shown& shown) {
       show(words.map_with_state(state_spec<long>(add_up).initial_state(std::vector<Word>{{"a", 100}, {"z", 100}}))
                .state_snapshots(),
            shown);
     }},
    {"UpdateStateOfPartitions",
     [](const Words& words, Shown& shown) { show(words.update_state_by_key<long>(whole_partitions), shown); }},
    {"AnOutputThatFailsAndIsPassedOver",
     [](const Words& words, Shown& shown) {
       show(totals_of(words), shown);
       words.foreach_batch([](const auto&, Time t) {
         if (t == at(1004)) throw std::runtime_error{"no luck"};
       });
     },
     FailedBatch::carry_on},
};

/// What comes in before each batch. Words are missing long enough to leave windows and time out, all of them for a while.
const std::vector<std::vector<Word>> script{{{"a", 1}, {"b", 2}, {"a", 3}},
                                            {{"c", 4}},
                                            {{"b", 5}, {"a", 6}},
                                            {},
                                            {{"c", 7}},
                                            {{"c", 8}, {"d", 9}},
                                            {},
                                            {},
                                            {},
                                            {},
                                            {{"a", 10}},
                                            {{"b", 11}},
                                            {{"a", 12}}};

class KilledAnywhere : public ::testing::TestWithParam<Program> {};

TEST_P(KilledAnywhere, GoesOnAsIfThereHadBeenNoBreak) {
  const Program& program = GetParam();
  const RecoveryOptions options{.failed_batch = program.failed_batch};
  Shown whole;
  std::vector<Disk> in_a_batch;
  std::vector<Disk> between_batches;
  {
    Tape<Word> tape;
    const Disk disk = new_disk();
    Life life{disk, tape, at(1000), 1s, program.build, options};
    life.start();
    for (const auto& words : script) {
      tape.write(words);
      ASSERT_EQ(life.pass(1s), 1u);
      in_a_batch.push_back(life.killed);
      between_batches.push_back(disk->copy(11));
    }
    whole = life.shown;
  }
  ASSERT_GE(whole.size(), 2u);
  for (const bool between : {false, true}) {
    for (const std::size_t parallelism : {2u, 3u}) {
      for (std::size_t killed = 0; killed < script.size(); ++killed) {
        SCOPED_TRACE((between ? "killed after batch " : "killed in batch ") + std::to_string(killed) + ", " +
                     std::to_string(parallelism) + " threads");
        Tape<Word> tape;
        for (std::size_t i = 0; i <= killed; ++i) tape.write(script[i]);
        Life life{(between ? between_batches : in_a_batch)[killed]->copy(3),
                  tape,
                  at(1001) + killed * 1s,
                  1s,
                  program.build,
                  options,
                  parallelism};
        life.start();
        ASSERT_EQ(life.run_what_is_due(), between ? 0u : 1u);
        for (std::size_t i = killed + 1; i < script.size(); ++i) {
          tape.write(script[i]);
          ASSERT_EQ(life.pass(1s), 1u);
        }
        const Shown rest{whole.lower_bound(at(1001) + (killed + between) * 1s), whole.end()};
        ASSERT_EQ(life.shown, rest);
      }
    }
  }
}

std::string program_name(const ::testing::TestParamInfo<Program>& test) { return test.param.name; }
INSTANTIATE_TEST_SUITE_P(, KilledAnywhere, ::testing::ValuesIn(programs), program_name);

TEST(CarriedOn, WhatAStateCouldNotTakeItTakesLaterButNotInAnotherProcess) {
  Tape<Word> tape;
  const Disk disk = new_disk();
  bool is_broken = false;
  const Life::Build build = [&](const Words& words, Shown& shown) {
    show(words.update_state_by_key<long>([&](const std::vector<long>& values, std::optional<long> total) {
      if (is_broken) throw std::runtime_error{"no luck"};
      return std::optional<long>{std::accumulate(values.begin(), values.end(), total.value_or(0))};
    }),
         shown);
  };
  const RecoveryOptions carry_on{.failed_batch = FailedBatch::carry_on};
  Disk killed;
  {
    Life life{disk, tape, at(1000), 1s, build, carry_on};
    life.start();
    for (const long number : {1, 2, 4, 8}) {
      is_broken = number == 2 || number == 4;
      tape.write({{"a", number}});
      EXPECT_EQ(life.pass(1s), 1u);
      if (number == 4) killed = life.killed;
    }
    EXPECT_EQ(life.shown, (Shown{{at(1001), {"(\"a\", 1)"}}, {at(1004), {"(\"a\", 15)"}}}));
  }
  Life life{killed, tape, at(1003), 1s, build, carry_on};
  life.start();
  EXPECT_EQ(life.run_what_is_due(), 1u);
  EXPECT_EQ(life.shown, (Shown{{at(1003), {"(\"a\", 5)"}}})) << "the batch of 1002 s counts as done";
}

TEST(RestartedSlice, GivesWhatThisRunHasAndSaysWhatWentWithTheOneBefore) {
  Tape<Word> tape;
  const Disk disk = new_disk();
  std::optional<Words> words;
  std::optional<Words> sums;
  const Life::Build build = [&](const Words& stream, Shown& shown) {
    words.emplace(stream);
    sums.emplace(stream.reduce_by_key_and_window(plus, 3s, 1s));
    show(*sums, shown);
  };
  Disk killed;
  {
    Life life{disk, tape, at(1000), 1s, build};
    life.start();
    for (long i = 1; i <= 5; ++i) {
      tape.write({{"a", i}});
      life.pass(1s);
    }
    killed = life.killed;
  }
  Life life{killed, tape, at(1005), 1s, build};
  life.ssc->remember(3s);
  life.start();
  ASSERT_EQ(life.run_what_is_due(), 1u);
  for (long i = 6; i <= 9; ++i) {
    tape.write({{"a", i}});
    life.pass(1s);
  }
  EXPECT_EQ(words->slice(at(1000), at(1020)).size(), 5u) << "1005 s is the first of this run";
  EXPECT_EQ(sums->slice(at(1007), at(1009)).size(), 3u);
  EXPECT_EQ(sums->slice(at(1008), at(1008)).front().collect(), (std::vector<Word>{{"a", 6 + 7 + 8}}));
  EXPECT_EQ(code_of<PlanError>([&] { static_cast<void>(sums->slice(at(1005), at(1005)).front().collect()); }),
            "window_passed");
}

// ---- a disk that fails once ---------------------------------------------------------------------------------------------------

TEST(OneErrorOfTheDisk, StopsNothingAndChangesNoResult) {
  const Life::Build build = [](const DStream<Word>& words, Shown& shown) {
    show(totals_of(words).cogroup(words.reduce_by_key_and_window(std::plus<>{}, std::minus<>{}, 3s, 1s)), shown);
  };
  struct Run {
    Shown shown;
    bool happened;
    bool stopped;
    std::vector<std::string> said;
  };
  const auto run = [&](SimFault what, std::uint64_t call) {
    Tape<Word> tape;
    const Disk disk = new_disk();
    Life life{disk, tape, at(1000), 1s, build};
    life.start();
    if (what != SimFault::none) disk->fail_at(call, what);
    for (long i = 0; i < 25; ++i) {
      tape.write({{"word" + std::to_string(i % 3), i}});
      life.pass(1s);
    }
    const bool stopped = life.ssc->state() != StreamingState::active;
    life.ssc->stop();
    const bool happened = disk->fault_happened();
    disk->clear_faults();
    Life again{disk, tape, at(1025), 1s, build};
    again.start();
    again.pass(1s);
    life.shown.insert(again.shown.begin(), again.shown.end());
    return Run{life.shown, happened, stopped, life.log.lines()};
  };
  const Run whole = run(SimFault::none, 0);
  ASSERT_EQ(whole.shown.size(), 26u);
  for (const SimFault what : {SimFault::io_error, SimFault::disk_full, SimFault::sync_lost}) {
    for (std::uint64_t call = 1;; ++call) {
      SCOPED_TRACE("fault " + std::to_string(static_cast<int>(what)) + " at call " + std::to_string(call));
      const Run one = run(what, call);
      if (!one.happened) {
        EXPECT_GT(call, 50u);
        break;
      }
      ASSERT_FALSE(one.stopped) << ::testing::PrintToString(one.said);
      ASSERT_EQ(one.shown, whole.shown);
    }
  }
}

}  // namespace
}  // namespace tidemill
