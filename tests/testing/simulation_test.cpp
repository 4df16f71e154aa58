// A program with every kind of state on a disk that fails by chance, from a seed: killed, out of power, out of space, lying about
// syncs, at any durable call, also while it recovers. Whatever happens, each record is in exactly one batch, and everything
// that was put out follows from the batches, as a slow oracle says.
//   TIDEMILL_SEEDS=n   how many seeds, 1000 unless set;  TIDEMILL_SEED=n   one of them, with what happens in words
#include <cstdlib>
#include <iostream>
#include <map>
#include <random>
#include <set>

#include "engine/harness.hpp"
#include "tidemill/testing/sim_fs.hpp"
#include "tidemill/testing/tape.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;
using testing::SimCrash;
using testing::SimFault;
using testing::SimFs;
using testing::Tape;
using Count = std::pair<std::string, long>;
using Sum = std::pair<std::string, double>;

constexpr Duration idle = 5s;    // of map_with_state
constexpr Duration length = 7s;  // of windows
constexpr long timed_out = -1;

/// What one batch put out. A batch that is run again puts out the same.
struct Output {
  std::vector<std::string> words;
  std::vector<long> numbers;
  std::multiset<Count> running;
  std::multiset<Count> totals;
  std::multiset<Count> inverse;
  std::multiset<Sum> folded;
  friend bool operator==(const Output&, const Output&) = default;
};

double weight_of(const std::string& word) { return 0.1 + static_cast<double>(word.size()) / 3.0; }

/// What does not go when the program does.
struct World {
  explicit World(std::uint64_t seed) : random{seed}, disk{std::make_shared<SimFs>(seed)} {}

  std::mt19937_64 random;
  std::shared_ptr<SimFs> disk;
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  Tape<std::string> tape;
  std::vector<std::string> written;  // to the tape
  std::set<long> stored;             // by the receiver, and acknowledged
  std::set<long> uncertain;          // store threw
  long next_number = 0;
  std::map<Time, Output> outputs;
  std::string wrong;  // what was found wrong, at once

  [[nodiscard]] std::size_t chance(std::size_t n) { return static_cast<std::size_t>(random() % n); }
};

/// The program.
class Program {
 public:
  explicit Program(World& world) : world_{world} {
    const Context context{{.app_name = "simulated",
                           .parallelism = 1 + world.chance(3),
                           .executor = nullptr,
                           .clock = world.clock,
                           .log = nullptr,
                           .fs = world.disk}};
    RecoveryOptions options{.log_received = true};
    options.received.segment_bytes = 4096;
    options.store.snapshot_min_log_bytes = 2000;
    options.store.snapshot_log_fraction = 0.1;
    options.store.plan_segment_bytes = 4096;
    options.store.commit_segment_bytes = 4096;
    ssc_ = StreamingContext::get_or_create(
        "checkpoint", [&] { return build(context); }, options);
  }

  /// False when it could not start, or has died since.
  bool start() {
    try {
      ssc_->start(Drive::by_host);
      return true;
    } catch (const SimCrash&) {
    } catch (const std::exception& error) {
      last_error_ = error.what();
    }
    return false;
  }
  bool run_what_is_due() {
    while (ssc_->step()) {
    }
    return ssc_->state() == StreamingState::active;
  }
  void store() {
    std::vector<long> block;
    for (std::size_t i = 0; i <= world_.chance(3); ++i) block.push_back(world_.next_number++);
    try {
      if (!feed_->put_all(block)) return;
      world_.stored.insert(block.begin(), block.end());
    } catch (...) {
      world_.uncertain.insert(block.begin(), block.end());
    }
  }
  void stop() {
    try {
      ssc_->stop();
    } catch (...) {
    }
  }
  [[nodiscard]] std::string last_error() const { return last_error_; }

 private:
  template <class S, class Put>
  void put_out(const S& stream, Put put) {
    stream.foreach_batch([this, put](const auto& batch, Time t) {
      const auto records = batch.collect();
      put(fresh_[t], records);
    });
  }

  std::unique_ptr<StreamingContext> build(const Context& context) {
    auto ssc = std::make_unique<StreamingContext>(context, 1s);
    const DStream<std::string> words = world_.tape.stream(*ssc);
    feed_ = std::make_shared<Feed<long>>();
    const auto ones = words.map([](const std::string& word) { return Count{word, 1L}; });

    put_out(words, [](Output& out, const auto& records) { out.words = records; });
    put_out(ssc->receiver_stream(feed_), [](Output& out, const auto& records) { out.numbers = records; });
    put_out(
        ones.map_with_state(state_spec<long>([](const std::string& word, std::optional<long> one, State<long>& state) {
                              if (state.is_timing_out()) return Count{word, timed_out};
                              state.update(state.get_option().value_or(0) + one.value_or(0));
                              return Count{word, state.get()};
                            }).timeout(idle)),
        [](Output& out, const auto& records) {
          out.running = {records.begin(), records.end()};
        });
    const auto totals = ones.update_state_by_key<long>([](const std::vector<long>& values, std::optional<long> total) {
      return std::optional<long>{total.value_or(0) + static_cast<long>(values.size())};
    });
    totals.save_as_text_files("out/totals");
    put_out(totals, [](Output& out, const auto& records) { out.totals = {records.begin(), records.end()}; });
    put_out(ones.reduce_by_key_and_window(std::plus<>{}, std::minus<>{}, length, 1s, 2,
                                          [](const std::string&, long count) { return count != 0; }),
            [](Output& out, const auto& records) {
              out.inverse = {records.begin(), records.end()};
            });
    put_out(words.map([](const std::string& word) {
                   return Sum{word, weight_of(word)};
                 })
                .reduce_by_key_and_window(std::plus<>{}, length, 1s, 2),
            [](Output& out, const auto& records) {
              out.folded = {records.begin(), records.end()};
            });
    // The last output operation: the batch is out.
    words.foreach_batch([this](const auto&, Time t) {
      Output& out = fresh_[t];
      const auto [before, is_new] = world_.outputs.emplace(t, out);
      if (!is_new && before->second != out)
        world_.wrong = "the batch of " + to_string(t) + " was run again, to another end";
      fresh_.erase(t);
    });
    return ssc;
  }

  World& world_;
  std::map<Time, Output> fresh_;
  std::shared_ptr<Feed<long>> feed_;
  std::unique_ptr<StreamingContext> ssc_;
  std::string last_error_;
};

/// What is wrong with the files of the totals, "" when nothing is: there is a whole directory of each batch, and no other.
std::string files_are_wrong(const SimFs& disk, const std::map<Time, Output>& outputs) {
  std::map<std::string, std::multiset<std::string>> expected;
  for (const auto& [t, output] : outputs) {
    auto& lines = expected["out/totals-" + std::to_string(t.time_since_epoch() / std::chrono::milliseconds{1})];
    lines.insert("_SUCCESS");
    for (const Count& count : output.totals) {
      std::string line;
      append_text(line, count);
      lines.insert(std::move(line));
    }
  }
  std::map<std::string, std::multiset<std::string>> found;
  for (const std::string& file : disk.files()) {
    if (!file.starts_with("out/") || file.starts_with("out/.")) continue;
    auto& lines = found[file.substr(0, file.rfind('/'))];
    if (file.ends_with("/_SUCCESS")) lines.insert("_SUCCESS");
    std::istringstream text{disk.contents(file)};
    for (std::string line; std::getline(text, line);) lines.insert(line);
  }
  if (found.size() != expected.size())
    return "there are files of " + std::to_string(found.size()) + " batches, and there were " +
           std::to_string(expected.size());
  for (const auto& [directory, lines] : expected) {
    if (found[directory] != lines) return directory + " is not what was put out";
  }
  return "";
}

/// What follows from the words of each batch, computed the slow way.
class Oracle {
 public:
  Output operator()(Time t, const Output& given) {
    Output expected;
    expected.words = given.words;
    expected.numbers = given.numbers;
    for (const std::string& word : given.words) {
      auto& [count, touched] = running_[word];
      expected.running.emplace(word, ++count);
      touched = t;
      ++totals_[word];
    }
    std::erase_if(running_, [&](const auto& entry) {
      const bool gone = entry.second.second < t - idle;
      if (gone) expected.running.emplace(entry.first, timed_out);
      return gone;
    });
    expected.totals = {totals_.begin(), totals_.end()};
    batches_[t] = given.words;
    batches_.erase(batches_.begin(), batches_.upper_bound(t - length));
    std::map<std::string, long> window;
    for (const auto& [_, words] : batches_) {
      for (const std::string& word : words) ++window[word];
    }
    for (const auto& [word, count] : window) {
      expected.inverse.emplace(word, count);
      expected.folded.emplace(word, static_cast<double>(count) * weight_of(word));
    }
    return expected;
  }

 private:
  std::map<std::string, std::pair<long, Time>> running_;
  std::map<std::string, long> totals_;
  std::map<Time, std::vector<std::string>> batches_;
};

bool about_equal(const std::multiset<Sum>& a, const std::multiset<Sum>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Sum& x, const Sum& y) {
    return x.first == y.first && std::abs(x.second - y.second) <= 1e-9 * std::abs(y.second);
  });
}

struct Verdict {
  std::string wrong;
  std::uint64_t trace = 0;
  int faults = 0;  // that happened
};

Verdict simulate(std::uint64_t seed, bool loud) {
  World world{seed};
  Verdict verdict;
  const auto say = [&](const std::string& text) {
    if (loud) std::cout << to_string(world.clock->now()) << "  " << text << '\n';
  };
  std::unique_ptr<Program> program;
  bool alive = false;
  const auto begin = [&] {
    for (int attempt = 0; attempt < 5; ++attempt) {
      program = std::make_unique<Program>(world);
      alive = program->start();
      if (alive) {
        verdict.wrong.clear();
        return true;
      }
      verdict.wrong = "it cannot start any more, on a disk without faults: " + program->last_error();
      say("it could not start: " + program->last_error());
      program.reset();
      world.disk->restart();
    }
    return false;
  };

  // Of those that were due, some come too late: the program has ended, or another one is due instead.
  const auto note_fault = [&] { verdict.faults += world.disk->fault_happened() ? 1 : 0; };

  constexpr int steps = 60;
  for (int step = 0; step < steps && verdict.wrong.empty(); ++step) {
    if (!alive) {
      if (world.chance(3) == 0) {  // also while it recovers
        note_fault();
        world.disk->fail_at(1 + world.chance(25), static_cast<SimFault>(1 + world.chance(5)), world.chance(4) == 0);
      }
      if (!begin()) break;
    }
    std::vector<std::string> words;
    for (std::size_t i = world.chance(6); i > 0; --i) words.push_back("word" + std::to_string(world.chance(9)));
    world.written.insert(world.written.end(), words.begin(), words.end());
    world.tape.write(std::move(words));
    if (world.chance(2) == 0) program->store();
    if (world.chance(6) == 0) {
      static constexpr const char* names[] = {"none", "kill", "power loss", "EIO", "ENOSPC", "a lost sync"};
      const auto fault = static_cast<SimFault>(1 + world.chance(5));
      const bool for_ever = world.chance(4) == 0;
      note_fault();
      world.disk->fail_at(1 + world.chance(20), fault, for_ever);
      say(std::string{"a fault is due: "} + names[static_cast<std::size_t>(fault)] + (for_ever ? ", for ever" : ""));
    }
    world.clock->advance(world.chance(10) == 0 ? 4s : 1s);
    if (world.chance(25) == 0) {
      say("a clean stop");
      program->stop();
      alive = false;
    } else {
      alive = program->run_what_is_due();
    }
    if (!alive) {
      say("it is down");
      program.reset();
      if (world.chance(2) == 0) {
        world.disk->kill();
      } else {
        world.disk->lose_power();
      }
      world.disk->restart();
    }
    if (!world.wrong.empty()) verdict.wrong = world.wrong;
  }
  if (!verdict.wrong.empty()) return verdict;
  note_fault();
  world.disk->clear_faults();
  if (!alive && !begin()) return verdict;
  for (int i = 0; i < 3; ++i) {
    world.clock->advance(1s);
    if (!program->run_what_is_due()) {
      program.reset();
      world.disk->restart();
      alive = false;
      if (!begin()) return verdict;
    }
  }
  program->stop();
  program.reset();
  world.disk->lose_power();
  world.disk->restart();
  verdict.wrong = files_are_wrong(*world.disk, world.outputs);

  std::vector<std::string> words;
  std::multiset<long> numbers;
  Oracle oracle;
  for (const auto& [t, output] : world.outputs) {
    words.insert(words.end(), output.words.begin(), output.words.end());
    numbers.insert(output.numbers.begin(), output.numbers.end());
    Output expected = oracle(t, output);
    if (!about_equal(output.folded, expected.folded))
      verdict.wrong = "a window at " + to_string(t) + " is not what it holds";
    expected.folded = output.folded;
    if (output.running != expected.running) verdict.wrong = "map_with_state went wrong at " + to_string(t);
    if (output.totals != expected.totals) verdict.wrong = "update_state_by_key went wrong at " + to_string(t);
    if (output.inverse != expected.inverse) verdict.wrong = "a window with an inverse went wrong at " + to_string(t);
  }
  if (words != world.written) verdict.wrong = "not every word was in exactly one batch, in order";
  for (const long number : world.stored) {
    if (numbers.count(number) != 1)
      verdict.wrong = "number " + std::to_string(number) + " came " + std::to_string(numbers.count(number)) + " times";
  }
  for (const long number : numbers) {
    if (numbers.count(number) != 1) verdict.wrong = "number " + std::to_string(number) + " came twice";
    if (!world.stored.contains(number) && !world.uncertain.contains(number))
      verdict.wrong = "a number came from nowhere";
  }
  if (!world.wrong.empty()) verdict.wrong = world.wrong;
  verdict.trace = world.disk->trace();
  return verdict;
}

TEST(Simulation, WhateverTheDiskDoesEachRecordCountsOnce) {
  if (const char* const one = std::getenv("TIDEMILL_SEED")) {
    EXPECT_EQ(simulate(std::strtoull(one, nullptr, 10), true).wrong, "");
    return;
  }
  const char* const wanted = std::getenv("TIDEMILL_SEEDS");
  const std::uint64_t seeds = wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 1000;
  int faults = 0;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    const Verdict verdict = simulate(seed, false);
    ASSERT_EQ(verdict.wrong, "") << "TIDEMILL_SEED=" << seed << " shows what happened";
    faults += verdict.faults;
    ASSERT_EQ(simulate(seed, false).trace, verdict.trace) << "seed " << seed << " is not deterministic";
  }
  EXPECT_GT(faults, static_cast<int>(seeds) * 5) << "the disk hardly failed";
}

}  // namespace
}  // namespace tidemill
