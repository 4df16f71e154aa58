// Small programs from their input to the files that they publish, with every fault at every durable call of theirs. Whatever
// happens, a reader finds the files of an uninterrupted run: all of a batch's or none of them while it runs, all of them at the
// end. The totals, windows and sessions of the last batch, which runs after a loss of power, show the states.
#include <map>
#include <set>

#include "checkpoint/sabotaged_fs.hpp"
#include "engine/harness.hpp"
#include "state/failing_allocations.hpp"
#include "tidemill/testing/sim_fs.hpp"
#include "tidemill/testing/tape.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;
using testing::SimCrash;
using testing::SimFault;
using testing::SimFs;
using testing::Tape;
using testing_state::FailingAllocations;
using tidemill_test::names_with;
using tidemill_test::Sabotage;
using tidemill_test::SabotagedFs;
using Count = std::pair<std::string, long>;

enum class Pipeline { lines, files, objects, totals, window, window_with_inverse, sessions, received, connected };
constexpr Pipeline pipelines[] = {Pipeline::lines,    Pipeline::files,    Pipeline::objects,
                                  Pipeline::totals,   Pipeline::window,   Pipeline::window_with_inverse,
                                  Pipeline::sessions, Pipeline::received, Pipeline::connected};

/// Whether every second life of the program is another: with another number of partitions, operators and outputs that come and
/// go, another way to catch up, and, for windows, another interval. Or whether only those after the first log what they receive.
enum class Lives { alike, tuned, logged_later };
std::string name_of(Pipeline pipeline) {
  static constexpr const char* names[] = {"Lines",    "Files",    "Objects",  "Totals", "Window", "WindowWithInverse",
                                          "Sessions", "Received", "Connected"};
  return names[static_cast<std::size_t>(pipeline)];
}

/// What comes in before each batch. The words of some are missing long enough to leave windows and time out.
const std::vector<std::vector<std::string>> script{{"a", "b", "a"}, {"c"}, {"b", "a"}, {},
                                                   {"c", "c", "d"}, {"a"}, {"b"}};

/// Directories that a reader sees, by path: their lines in ascending order.
using Published = std::map<std::string, std::multiset<std::string>>;

/// What does not go when the program does.
struct World {
  World(Pipeline what, std::uint64_t seed, const Sabotage* planted, Lives which)
      : pipeline{what}, kind_of_lives{which}, disk{std::make_shared<SimFs>(seed)}, sabotage{planted} {
    disk->make_directory("in");
    disk->sync_directory(".");
  }

  /// What comes in before the batch of a step.
  void write(std::size_t step) {
    std::string text;
    for (const std::string& word : script[step]) text += word + '\n';
    disk->set_time(clock->now() + 500ms);
    if (!text.empty()) disk->set_contents("in/" + std::to_string(step), text);
    tape.write(script[step]);
  }

  Pipeline pipeline;
  Lives kind_of_lives;
  int lives = 0;
  std::shared_ptr<SimFs> disk;
  const Sabotage* sabotage;  // null: none
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  Tape<std::string> tape;
  std::set<std::string> stored;  // received, and certain to be worked on
  std::set<std::string>
      read;  // by the socket, which is enough unless the power goes before a batch was planned with it
  std::set<std::string> uncertain;  // neither

  /// The file system of one life of the program.
  [[nodiscard]] std::shared_ptr<Fs> fs() const {
    if (sabotage == nullptr) return disk;
    return std::make_shared<SabotagedFs>(disk, *sabotage);
  }
};

/// What a socket reads, without a socket.
class Lines final : public detail::BlockInput<TextBlock> {
 public:
  explicit Lines(std::shared_ptr<Clock> clock) : BlockInput{std::move(clock), {}} {}
  [[nodiscard]] std::string name() const override { return "lines"; }
  [[nodiscard]] bool read(const std::string& line) {
    return detail::offer_block(inbox(), TextBlock::of(line + '\n')) != detail::StreamSink::Next::nothing;
  }
  [[nodiscard]] static DStream<std::string_view> stream(StreamingContext& context,
                                                        const std::shared_ptr<Lines>& input) {
    const auto& engine = context.engine();
    const std::size_t id = engine->add_input(input);
    auto make = [engine = engine.get(), input](Time t) {
      return detail::text_blocks_batch(engine->scope_of(t), input->take_cut(), 2);
    };
    auto node = detail::add_node<detail::SourceNode<std::string_view, decltype(make)>>(
        engine, "lines", engine->batch_interval(), std::move(make));
    engine->name_input(id, node);
    return DStream<std::string_view>{std::move(node)};
  }

 private:
  void start_receiving(detail::InputHost&, std::size_t) override {}
  void stop_receiving() noexcept override {}
};

/// One life of the program.
class Program {
 public:
  explicit Program(World& world)
      : world_{world},
        is_tuned_{++world.lives % 2 == 0 && world.kind_of_lives == Lives::tuned},
        is_logged_{world.lives > 1 || world.kind_of_lives != Lives::logged_later} {
    const Context context{{.app_name = "swept",
                           .parallelism = 2,
                           .executor = nullptr,
                           .clock = world.clock,
                           .log = log_.logger(),
                           .fs = world.fs()}};
    RecoveryOptions options{.log_received = is_logged_};
    if (is_tuned_) options.catch_up = CatchUp::merged;
    options.received.segment_bytes = 4096;
    options.received.max_unsynced_bytes = 50;  // of the smallest block 19
    options.store.snapshot_min_log_bytes = 200;
    options.store.snapshot_log_fraction = 0.1;
    options.store.plan_segment_bytes = 4096;
    options.store.commit_segment_bytes = 4096;
    ssc_ = StreamingContext::get_or_create(
        "checkpoint", [&] { return build(context); }, options);
    ssc_->start(Drive::by_host);
  }

  void store(const std::string& number) {
    if (world_.pipeline != Pipeline::received && world_.pipeline != Pipeline::connected) return;
    try {
      if (world_.pipeline == Pipeline::received && feed_->put_all({number})) {
        (is_logged_ ? world_.stored : world_.uncertain).insert(number);
        return;
      }
      if (world_.pipeline == Pipeline::connected && lines_->read(number)) {
        (is_logged_ ? world_.read : world_.uncertain).insert(number);
        return;
      }
    } catch (...) {
    }
    world_.uncertain.insert(number);
  }
  /// False when it has died.
  bool run_what_is_due() {
    while (ssc_->step()) {
    }
    return ssc_->state() == StreamingState::active;
  }
  bool stop() { return ssc_->stop(StopMode::graceful); }
  [[nodiscard]] std::string said() const {
    std::string all;
    for (const std::string& line : log_.lines()) all += "\n  " + line;
    return all;
  }

 private:
  std::unique_ptr<StreamingContext> build(const Context& context) {
    const bool is_windowed = world_.pipeline == Pipeline::window || world_.pipeline == Pipeline::window_with_inverse;
    auto ssc = std::make_unique<StreamingContext>(context, is_tuned_ && is_windowed ? 500ms : 1s);
    const std::size_t partitions = is_tuned_ ? 3 : 2;
    if (world_.pipeline == Pipeline::received) {
      feed_ = std::make_shared<Feed<std::string>>();
      ssc->receiver_stream(feed_).save_as_text_files("out/received");
      return ssc;
    }
    if (world_.pipeline == Pipeline::connected) {
      lines_ = std::make_shared<Lines>(world_.clock);
      Lines::stream(*ssc, lines_).save_as_text_files("out/connected");
      return ssc;
    }
    if (world_.pipeline == Pipeline::files) {
      ssc->text_file_stream("in").save_as_text_files("out/files");
      return ssc;
    }
    DStream<std::string> words = world_.tape.stream(*ssc);
    if (is_tuned_) {
      words = words.filter([](const std::string& word) { return !word.empty(); }).cache();
      words.count().foreach_batch([](const auto& batch) { static_cast<void>(batch.collect()); });
    }
    const auto ones = words.map([](const std::string& word) { return Count{word, 1L}; });
    switch (world_.pipeline) {
      case Pipeline::lines: words.save_as_text_files("out/lines"); break;
      case Pipeline::objects: words.repartition(2).save_as_object_files("out/objects", "tm"); break;
      case Pipeline::totals:
        ones.update_state_by_key<long>(
                [](const std::vector<long>& values, std::optional<long> total) {
                  return std::optional<long>{total.value_or(0) + static_cast<long>(values.size())};
                },
                partitions)
            .save_as_text_files("out/totals");
        break;
      case Pipeline::window:
        ones.reduce_by_key_and_window(std::plus<>{}, 3s, 1s, partitions).save_as_text_files("out/window");
        break;
      case Pipeline::window_with_inverse:
        ones.reduce_by_key_and_window(std::plus<>{}, std::minus<>{}, 3s, 1s, partitions,
                                      [](const std::string&, long count) { return count != 0; })
            .save_as_text_files("out/window");
        break;
      case Pipeline::sessions:
        ones.map_with_state(state_spec<long>([](const std::string& word, std::optional<long> one, State<long>& state) {
                              if (state.is_timing_out()) return Count{word + " timed out", state.get()};
                              state.update(state.get_option().value_or(0) + one.value_or(0));
                              return Count{word, state.get()};
                            }).timeout(2s))
            .save_as_text_files("out/sessions");
        break;
      case Pipeline::files:
      case Pipeline::received:
      case Pipeline::connected: break;
    }
    return ssc;
  }

  World& world_;
  const bool is_tuned_;
  const bool is_logged_;
  Log log_;
  std::shared_ptr<Feed<std::string>> feed_;
  std::shared_ptr<Lines> lines_;
  std::unique_ptr<StreamingContext> ssc_;
};

/// What a reader sees.
Published published(const SimFs& disk) {
  Published seen;
  for (const std::string& file : disk.files()) {
    if (!file.starts_with("out/") || file.starts_with("out/.")) continue;
    const std::size_t slash = file.rfind('/');
    auto& lines = seen[file.substr(0, slash)];
    if (file.substr(slash + 1) == "_SUCCESS") lines.insert("_SUCCESS");
    std::istringstream text{disk.contents(file)};
    for (std::string line; std::getline(text, line);) lines.insert(line);
  }
  return seen;
}

/// What of `seen` an uninterrupted run would not have published; "" when there is nothing.
std::string difference(const World& world, const Published& seen, const Published& expected) {
  if (world.uncertain.empty()) {
    for (const auto& [directory, lines] : seen) {
      const auto same = expected.find(directory);
      if (same == expected.end()) return directory + " is one too many";
      if (same->second != lines)
        return directory + " is " + ::testing::PrintToString(lines) + " and not " +
               ::testing::PrintToString(same->second);
    }
    return "";
  }
  // What was not acknowledged may have come or not; but nothing comes twice, and nothing comes from nowhere.
  std::multiset<std::string> all;
  for (const auto& [directory, lines] : seen) {
    if (lines.count("_SUCCESS") != 1) return directory + " is not whole";
    all.insert(lines.begin(), lines.end());
  }
  all.erase("_SUCCESS");
  for (const std::string& line : all) {
    if (all.count(line) != 1) return line + " came twice";
    if (!world.stored.contains(line) && !world.uncertain.contains(line)) return line + " came from nowhere";
  }
  return "";
}
std::string missing(const World& world, const Published& seen, const Published& expected) {
  if (seen.size() != expected.size())
    return std::to_string(seen.size()) + " of " + std::to_string(expected.size()) + " batches are there";
  for (const std::string& number : world.stored) {
    bool found = false;
    for (const auto& [_, lines] : seen) found = found || lines.contains(number);
    if (!found) return number + " was acknowledged and did not come";
  }
  return "";
}

struct Fault {
  SimFault what = SimFault::none;
  std::uint64_t call = 1;
  bool for_ever = false;
  std::uint64_t seed = 1;
};

/// Memory is short, once or for the rest of it, while the program does this for the first time.
enum class Phase { none, start, batch, stop, recovery };
struct Shortage {
  Phase phase = Phase::none;
  int allocation = 0;  // the first that fails
  bool for_ever = true;
};

struct Outcome {
  std::string wrong;  // "" when all is well
  bool happened = false;
  bool starved = false;  // memory was short
  Published published;
  std::uint64_t calls = 0;
};

/// The whole script, with one fault in it. `expected` is null for the run that says what is expected.
Outcome run(Pipeline pipeline, const Fault& fault, const Published* expected, const Sabotage* sabotage,
            const Shortage& shortage = {}, Lives lives = Lives::alike) {
  World world{pipeline, fault.seed * 7919 + fault.call, sabotage, lives};
  Outcome outcome;
  if (fault.what != SimFault::none) world.disk->fail_at(fault.call, fault.what, fault.for_ever);
  if (shortage.phase != Phase::none)
    world.disk->on_calls(testing_state::pause_failing_allocations, testing_state::resume_failing_allocations);
  std::unique_ptr<Program> program;
  int deaths = 0;
  bool short_of_memory = shortage.phase != Phase::none;  // that is still to come
  const auto in_phase = [&](Phase phase, const auto& action) {
    if (!short_of_memory || phase != shortage.phase) return action();
    short_of_memory = false;
    const FailingAllocations failing{shortage.allocation, shortage.for_ever};
    try {
      action();
    } catch (...) {
      outcome.starved = failing.happened();
      throw;
    }
    outcome.starved = failing.happened();
  };

  const auto look = [&](const char* when) {
    if (expected == nullptr || !outcome.wrong.empty()) return;
    const std::string wrong = difference(world, published(*world.disk), *expected);
    if (!wrong.empty()) outcome.wrong = std::string{when} + ": " + wrong;
  };
  const auto restart = [&] {
    if (program && expected == nullptr) outcome.wrong = "it died without a fault:" + program->said();
    program.reset();
    outcome.happened = outcome.happened || world.disk->fault_happened();
    if (fault.what != SimFault::kill) world.uncertain.merge(world.read);
    world.disk->kill();  // what was written stays in the cache, unless the power went
    world.disk->restart();
    if (++deaths > 3) outcome.wrong = "it does not come up any more, on a disk without faults";
    look("after a restart");
  };
  // Brings the program to where it stood, and on to now.
  const auto run_until_now = [&](Phase phase = Phase::none) {
    while (outcome.wrong.empty()) {
      try {
        if (!program)
          in_phase(deaths == 0 ? Phase::start : Phase::recovery, [&] { program = std::make_unique<Program>(world); });
        in_phase(phase, [&] { static_cast<void>(program->run_what_is_due()); });
        if (program->run_what_is_due()) return;
      } catch (const SimCrash&) {
      } catch (const std::bad_alloc&) {
        if (!outcome.starved) outcome.wrong = "it ran out of memory, of which there was enough";
      } catch (const Error& error) {
        if (deaths > 0 && !outcome.starved) outcome.wrong = std::string{"it cannot start: "} + error.what();
      }
      restart();
    }
  };

  for (std::size_t step = 0; step < script.size() && outcome.wrong.empty(); ++step) {
    if (step + 1 == script.size()) {
      // The last batch shows what is left when the power goes after all is done.
      try {
        in_phase(Phase::stop, [&] {
          static_cast<void>(program->stop());
          program.reset();
        });
      } catch (...) {
      }
      program.reset();
      outcome.happened = outcome.happened || world.disk->fault_happened();
      world.disk->lose_power();
      world.disk->restart();
      look("after the power went");
    }
    run_until_now();
    if (!outcome.wrong.empty()) break;
    for (std::size_t i = 0; i < script[step].size(); ++i)
      program->store(std::to_string(step) + "." + std::to_string(i));
    world.write(step);
    world.clock->advance(1s);
    run_until_now(step == 4 ? Phase::batch : Phase::none);
    world.stored.merge(world.read);
  }
  if (outcome.wrong.empty()) {
    outcome.happened = outcome.happened || world.disk->fault_happened();
    static_cast<void>(program->stop());
    look("at the end");
  }
  outcome.calls = world.disk->durable_calls();
  outcome.published = published(*world.disk);
  if (expected != nullptr && outcome.wrong.empty()) outcome.wrong = missing(world, outcome.published, *expected);
  return outcome;
}

// Under a sanitizer the sweeps take one call of three, each seed others: they take ten times as long there.
constexpr std::uint64_t stride = TIDEMILL_SANITIZED ? 3 : 1;

/// One kind of fault at each durable call. Returns the first violation, and counts the cases.
std::string sweep(Pipeline pipeline, const Published& expected, SimFault what, bool for_ever, std::uint64_t seeds,
                  const Sabotage* sabotage, int& cases, Lives lives = Lives::alike) {
  static constexpr const char* names[] = {"nothing", "a kill", "a loss of power", "EIO", "ENOSPC", "a lost sync"};
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    for (std::uint64_t call = 1 + seed % stride;; call += stride) {
      const Outcome outcome = run(pipeline, {what, call, for_ever, seed}, &expected, sabotage, {}, lives);
      if (!outcome.wrong.empty())
        return std::string{names[static_cast<std::size_t>(what)]} + (for_ever ? " for ever" : "") + " at call " +
               std::to_string(call) + ", seed " + std::to_string(seed) + ": " + outcome.wrong;
      if (!outcome.happened) break;
      ++cases;
    }
  }
  return "";
}

class RestartSweep : public ::testing::TestWithParam<Pipeline> {};

TEST_P(RestartSweep, PublishesTheSameWhateverHappensAtAnyDurableCall) {
  const Outcome whole = run(GetParam(), {}, nullptr, nullptr);
  ASSERT_EQ(whole.wrong, "");
  ASSERT_EQ(whole.published.size(), script.size());
  int cases = 0;
  const auto expect_none = [&](SimFault what, bool for_ever, std::uint64_t seeds) {
    EXPECT_EQ(sweep(GetParam(), whole.published, what, for_ever, seeds, nullptr, cases), "");
  };
  expect_none(SimFault::kill, false, 3);
  expect_none(SimFault::power_loss, false, 3);
  expect_none(SimFault::io_error, false, 2);
  expect_none(SimFault::io_error, true, 1);
  expect_none(SimFault::disk_full, false, 1);
  expect_none(SimFault::sync_lost, false, 1);
  EXPECT_GT(cases, static_cast<int>(5 * whole.calls / stride)) << "of each fault about as many as there are calls";
  RecordProperty("cases", cases);
}

TEST_P(RestartSweep, PublishesTheSameWhenEverySecondLifeIsAnotherProgram) {
  const Outcome whole = run(GetParam(), {}, nullptr, nullptr);
  int cases = 0;
  const auto expect_none = [&](SimFault what) {
    EXPECT_EQ(sweep(GetParam(), whole.published, what, false, 1, nullptr, cases, Lives::tuned), "");
  };
  expect_none(SimFault::kill);
  expect_none(SimFault::power_loss);
  expect_none(SimFault::io_error);
  EXPECT_GT(cases, static_cast<int>(2 * whole.calls / stride));
}

// What the first life has received goes with it at worst; from the second on nothing that was acknowledged does.
TEST(RestartSweepOfReceivers, ALogOfWhatIsReceivedIsSwitchedOnBetweenTwoLives) {
  for (const Pipeline pipeline : {Pipeline::received, Pipeline::connected}) {
    const Outcome whole = run(pipeline, {}, nullptr, nullptr);
    int cases = 0;
    for (const SimFault what : {SimFault::kill, SimFault::power_loss, SimFault::io_error})
      EXPECT_EQ(sweep(pipeline, whole.published, what, false, 1, nullptr, cases, Lives::logged_later), "")
          << name_of(pipeline);
    EXPECT_GT(cases, static_cast<int>(2 * whole.calls / stride / 2));
  }
}

std::string parameter_name(const ::testing::TestParamInfo<Pipeline>& test) { return name_of(test.param); }
INSTANTIATE_TEST_SUITE_P(, RestartSweep, ::testing::ValuesIn(pipelines), parameter_name);

TEST(Restart, OfPipelinesWhoseResultsAreKnown) {
  const Outcome files = run(Pipeline::files, {}, nullptr, nullptr);
  EXPECT_EQ(files.published.at("out/files-1005000"), (std::multiset<std::string>{"c", "c", "d", "_SUCCESS"}));
  const Outcome totals = run(Pipeline::totals, {}, nullptr, nullptr);
  EXPECT_EQ(totals.published.at("out/totals-1007000"),
            (std::multiset<std::string>{"(a,4)", "(b,3)", "(c,3)", "(d,1)", "_SUCCESS"}));
  const Outcome sessions = run(Pipeline::sessions, {}, nullptr, nullptr);
  EXPECT_EQ(sessions.published.at("out/sessions-1006000"),
            (std::multiset<std::string>{"(a,4)", "(b timed out,2)", "_SUCCESS"}));
}

// --- Memory that runs out ---

class RestartShortOfMemory : public ::testing::TestWithParam<Pipeline> {};

TEST_P(RestartShortOfMemory, PublishesTheSameWhicheverAllocationFails) {
  const Pipeline pipeline = GetParam();
  const Outcome whole = run(pipeline, {}, nullptr, nullptr);
  ASSERT_EQ(whole.wrong, "");
  const Fault in_a_batch{.what = SimFault::kill, .call = whole.calls * 2 / 3};  // which is unfinished then
  static constexpr const char* names[] = {"none", "start", "batch", "stop", "recovery"};
  for (const Phase phase : {Phase::start, Phase::batch, Phase::stop, Phase::recovery}) {
    for (const bool for_ever : {true, false}) {
      int n = 0;
      for (bool starved = true; starved; ++n) {
        const Outcome outcome = run(pipeline, phase == Phase::recovery ? in_a_batch : Fault{}, &whole.published,
                                    nullptr, {.phase = phase, .allocation = n, .for_ever = for_ever});
        starved = outcome.starved;
        ASSERT_EQ(outcome.wrong, "") << names[static_cast<std::size_t>(phase)] << ", allocation " << n
                                     << (for_ever ? " and all after it" : "");
      }
      // A stop with nothing left to do allocates nothing.
      if (phase != Phase::stop) {
        EXPECT_GT(n, 20) << names[static_cast<std::size_t>(phase)];
      }
      RecordProperty(std::string{names[static_cast<std::size_t>(phase)]} + (for_ever ? "_for_ever" : "_once"), n);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, RestartShortOfMemory,
                         ::testing::Values(Pipeline::totals, Pipeline::files, Pipeline::window,
                                           Pipeline::window_with_inverse, Pipeline::sessions, Pipeline::received),
                         parameter_name);

// --- Tests of the test: each of these programs has one step too few, or two in the wrong order ---

void expect_found(Pipeline pipeline, SimFault what, const Sabotage& sabotage) {
  const Outcome whole = run(pipeline, {}, nullptr, nullptr);
  ASSERT_EQ(whole.wrong, "");
  int cases = 0;
  EXPECT_NE(sweep(pipeline, whole.published, what, false, 6, &sabotage, cases), "") << "in " << cases << " cases";
}

TEST(PlantedFaults, PlansOfAProgramThatAreNotSynchronisedAreFound) {
  expect_found(Pipeline::totals, SimFault::power_loss, {.no_sync_of = names_with("plan-")});
}
TEST(PlantedFaults, CommitsOfAProgramThatAreNotSynchronisedAreFound) {
  expect_found(Pipeline::totals, SimFault::power_loss, {.no_sync_of = names_with("commit-")});
}
TEST(PlantedFaults, ReceivedBlocksThatAreNotSynchronisedAreFound) {
  expect_found(Pipeline::received, SimFault::power_loss, {.no_sync_of = names_with("checkpoint/receivers/")});
}
TEST(PlantedFaults, OutputFilesThatAreNotSynchronisedAreFound) {
  expect_found(Pipeline::lines, SimFault::power_loss, {.no_sync_of = names_with("part-")});
}
TEST(PlantedFaults, OutputDirectoriesThatAreNotSynchronisedAreFound) {
  expect_found(Pipeline::lines, SimFault::power_loss, {.no_sync_directory_of = names_with("out/.")});
}
TEST(PlantedFaults, PublishedNamesThatAreNotSynchronisedAreFound) {
  expect_found(Pipeline::lines, SimFault::power_loss,
               {.no_sync_directory_of = [](const std::string& path) { return path == "out"; }});
}
TEST(PlantedFaults, ACommitBeforeTheOutputIsFoundByAKill) {
  const auto is_output = [](const std::string& path) { return path.starts_with("out/"); };
  const Sabotage swapped{.delays = is_output, .until_sync_of = names_with("commit-")};
  ASSERT_EQ(run(Pipeline::lines, {}, nullptr, &swapped).wrong, "") << "without a fault nothing is to be seen";
  expect_found(Pipeline::lines, SimFault::kill, swapped);
}

}  // namespace
}  // namespace tidemill
