// A program with a checkpoint, killed and started again: SEMANTICS C1, C2, C5, C21, B3, K4-K6, I7, L14, R8-R11. A kill is a
// copy of the directory, taken at that instant: what a process leaves behind when it is gone.
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>

#include "engine/harness.hpp"
#include "tidemill/testing/tape.hpp"

namespace tidemill {
namespace {

namespace fs = std::filesystem;
using namespace testing_engine;
using testing::Tape;
using Count = std::pair<std::string, long>;

// Running totals by word, kept by hand: what an operator with state does, in its simplest form.
class Totals final : public DurableState {
 public:
  explicit Totals(std::string value = "i64") : value_{std::move(value)} {}
  void add(const std::string& word) {
    ++totals_[word];
    changed_[word] = true;
  }
  [[nodiscard]] const std::map<std::string, long>& get() const { return totals_; }

  [[nodiscard]] StateSchema schema() const override {
    return {.kind = "totals", .key = "string", .value = value_, .parameters = {}};
  }
  void track_changes() override {}
  void restore(KeyGroup, std::string_view key, std::string_view value) override {
    totals_[decode<std::string>(key)] = decode<long>(value);
  }
  void restored(Time last) override { restored_at = last; }
  void take_changes(StateChanges& to) override {
    for (const auto& [word, _] : changed_) to.put(7, word, totals_[word]);
    changed_.clear();
  }
  std::optional<Time> restored_at;

 private:
  std::string value_;
  std::map<std::string, long> totals_;
  std::map<std::string, bool> changed_;
};

class Recovery : public ::testing::Test {
 protected:
  Recovery() {
    std::string name = (fs::temp_directory_path() / "tidemill-recovery-XXXXXX").string();
    root_ = ::mkdtemp(name.data());
  }
  ~Recovery() override {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }
  [[nodiscard]] fs::path dir(const char* name = "checkpoint") const { return root_ / name; }

  // The state of the directory now, as a killed process would leave it, under another name.
  void copy_to(const char* name, const char* from = "checkpoint") const {
    fs::remove_all(dir(name));
    fs::copy(dir(from), dir(name), fs::copy_options::recursive);
  }

  fs::path root_;
};

// A word count with running totals over a tape, and what it showed.
struct Job {
  std::shared_ptr<ManualClock> clock;
  Log log;
  std::shared_ptr<Totals> totals = std::make_shared<Totals>();
  std::vector<Seen<Count>> seen;
  std::function<void(Time)> on_batch = [](Time) {};
  std::unique_ptr<StreamingContext> ssc;

  Job(Tape<std::string>& tape, const fs::path& dir, Time now = at(1000), RecoveryOptions options = {},
      Duration interval = 1s)
      : clock{std::make_shared<ManualClock>(now)} {
    const Context context{
        {.app_name = "totals", .parallelism = 1, .executor = nullptr, .clock = clock, .log = log.logger()}};
    ssc = StreamingContext::get_or_create(
        dir,
        [&] {
          auto fresh = std::make_unique<StreamingContext>(context, interval);
          const auto words = tape.stream(*fresh);
          words.foreach_batch([this](const Batch<std::string>& batch, Time t) {
            on_batch(t);
            std::vector<Count> counts;
            for (const std::string& word : batch.collect()) {
              totals->add(word);
              counts.emplace_back(word, totals->get().at(word));
            }
            seen.push_back({t, counts});
          });
          fresh->engine()->add_state(words.node_pointer(), totals);
          return fresh;
        },
        std::move(options));
  }
  void start() const { ssc->start(Drive::by_host); }
  std::size_t pass(Duration d) const {
    clock->advance(d);
    std::size_t batches = 0;
    while (ssc->step()) ++batches;
    return batches;
  }
};

TEST_F(Recovery, ACleanStopIsContinuedWhereItEnded) {
  Tape<std::string> tape;
  {
    Job job{tape, dir()};
    job.start();
    tape.write({"a", "b", "a"});
    EXPECT_EQ(job.pass(1s), 1u);
    EXPECT_TRUE(job.ssc->stop());
  }
  tape.write({"a"});
  Job job{tape, dir(), at(1001.5)};
  job.start();
  EXPECT_EQ(job.totals->restored_at, at(1001));
  EXPECT_EQ(job.pass(1s), 1u);
  EXPECT_THAT(job.seen, ElementsAre(Seen<Count>{at(1002), {{"a", 3}}}));
  EXPECT_TRUE(job.log.says("info", "0 unfinished batches"));
}

TEST_F(Recovery, ABatchThatWasNotFinishedIsRunAgainWithExactlyWhatItHadTaken) {
  Tape<std::string> tape;
  {
    Job job{tape, dir()};
    job.start();
    tape.write({"a", "b"});
    EXPECT_EQ(job.pass(1s), 1u);
    tape.write({"a", "c"});
    job.on_batch = [&](Time) { copy_to("killed"); };  // the plan is there, the commit is not
    EXPECT_EQ(job.pass(1s), 1u);
    EXPECT_THAT(job.seen.back(), (Seen<Count>{at(1002), {{"a", 2}, {"c", 1}}}));
  }
  tape.write({"later"});
  Job job{tape, dir("killed"), at(1002.5)};
  job.start();
  EXPECT_EQ(job.totals->get(), (std::map<std::string, long>{{"a", 1}, {"b", 1}})) << "the state before the batch";
  EXPECT_TRUE(job.ssc->step());
  EXPECT_FALSE(job.ssc->step());
  EXPECT_THAT(job.seen, ElementsAre(Seen<Count>{at(1002), {{"a", 2}, {"c", 1}}})) << "the same batch, the same time";
  EXPECT_EQ(job.pass(1s), 1u);
  EXPECT_THAT(job.seen.back(), (Seen<Count>{at(1003), {{"later", 1}}}));
}

TEST_F(Recovery, AKillAtAnyBatchLosesNothingAndDoublesNothing) {
  // One run without a break, of which a copy is taken in every batch; each copy must come to the same end.
  Tape<std::string> tape;
  Job whole{tape, dir()};
  whole.start();
  int batch = 0;
  whole.on_batch = [&](Time) { copy_to(("killed" + std::to_string(batch)).c_str()); };
  std::vector<std::size_t> written;
  for (; batch < 10; ++batch) {
    tape.write(std::vector<std::string>(static_cast<std::size_t>(batch % 4), "word" + std::to_string(batch % 3)));
    EXPECT_EQ(whole.pass(1s), 1u);
  }
  for (int killed = 0; killed < 10; ++killed) {
    Job job{tape, dir(("killed" + std::to_string(killed)).c_str()), at(1010)};
    job.start();
    while (job.ssc->step()) {
    }
    EXPECT_EQ(job.totals->get(), whole.totals->get()) << "killed in batch " << killed;
    ASSERT_EQ(job.seen.size(), static_cast<std::size_t>(10 - killed));
    EXPECT_EQ(job.seen.front(), whole.seen[static_cast<std::size_t>(killed)]);
  }
}

TEST_F(Recovery, TicksThatPassedMeanwhileHaveTheirBatches) {  // K6
  Tape<std::string> tape;
  {
    Job job{tape, dir()};
    job.start();
    EXPECT_EQ(job.pass(1s), 1u);
  }
  tape.write({"meanwhile"});
  Job job{tape, dir(), at(1005.5)};
  job.start();
  while (job.ssc->step()) {
  }
  EXPECT_THAT(job.seen, ElementsAre(Seen<Count>{at(1002), {{"meanwhile", 1}}}, Seen<Count>{at(1003), {}},
                                    Seen<Count>{at(1004), {}}, Seen<Count>{at(1005), {}}));
}

TEST_F(Recovery, TicksThatPassedMeanwhileCanBeMerged) {
  Tape<std::string> tape;
  {
    Job job{tape, dir()};
    job.start();
    EXPECT_EQ(job.pass(1s), 1u);
  }
  tape.write({"meanwhile"});
  Job job{tape, dir(), at(1005.5), {.catch_up = CatchUp::merged}};
  job.start();
  EXPECT_EQ(job.pass(0s), 1u);
  EXPECT_THAT(job.seen, ElementsAre(Seen<Count>{at(1005), {{"meanwhile", 1}}}));
}

TEST_F(Recovery, TicksThatPassedMeanwhileCanBeSpreadOut) {
  Tape<std::string> tape;
  {
    Job job{tape, dir()};
    job.start();
    EXPECT_EQ(job.pass(1s), 1u);
  }
  Job job{tape, dir(), at(1004.5), {.catch_up = CatchUp::throttled}};
  job.start();
  EXPECT_EQ(job.pass(0s), 1u);
  EXPECT_EQ(job.pass(400ms), 0u);
  EXPECT_EQ(job.pass(100ms), 1u) << "two an interval";
  EXPECT_EQ(job.seen.back().time, at(1003));
  for (int i = 0; i < 10; ++i) job.pass(500ms);
  EXPECT_EQ(job.seen.back().time, at(1010)) << "and then the usual pace";
}

TEST_F(Recovery, ABatchThatFailsIsTriedAgainAndThenTheContextStopsForTheNextRun) {
  Tape<std::string> tape;
  int failures = 1;
  {
    Job job{tape, dir()};
    job.on_batch = [&](Time) {
      if (failures-- > 0) throw std::runtime_error{"no luck"};
    };
    job.start();
    tape.write({"a"});
    EXPECT_EQ(job.pass(1s), 1u);
    EXPECT_EQ(job.ssc->state(), StreamingState::active) << "the second attempt went well";
    EXPECT_THAT(job.seen, ElementsAre(Seen<Count>{at(1001), {{"a", 1}}}));
    EXPECT_TRUE(job.log.says("warning", "no luck"));
    EXPECT_NO_THROW(static_cast<void>(job.ssc->await_termination_or_timeout(std::chrono::nanoseconds{0})));

    failures = 2;
    tape.write({"b"});
    EXPECT_EQ(job.pass(1s), 1u);
    EXPECT_EQ(job.ssc->state(), StreamingState::stopped);
    EXPECT_THAT(message_of<UserCodeError>([&] { job.ssc->await_termination(); }), HasSubstr("no luck"));
    EXPECT_EQ(job.ssc->metrics().total_failed_batches, 1u);
  }
  Job job{tape, dir(), at(1002.5)};
  job.start();
  EXPECT_TRUE(job.ssc->step());
  EXPECT_THAT(job.seen, ElementsAre(Seen<Count>{at(1002), {{"b", 1}}})) << "the batch that failed";
}

TEST_F(Recovery, ABatchThatFailsCanBePassedOver) {  // L14
  Tape<std::string> tape;
  Job job{tape, dir(), at(1000), {.failed_batch = FailedBatch::carry_on}};
  job.on_batch = [](Time t) {
    if (t == at(1001)) throw std::runtime_error{"no luck"};
  };
  job.start();
  tape.write({"a"});
  EXPECT_EQ(job.pass(1s), 1u);
  tape.write({"b"});
  EXPECT_EQ(job.pass(1s), 1u);
  EXPECT_THAT(job.seen, ElementsAre(Seen<Count>{at(1002), {{"b", 1}}}));
  EXPECT_EQ(job.ssc->state(), StreamingState::active);
}

TEST_F(Recovery, ACheckpointThatIsThereAlreadyIsNotOverwritten) {
  Tape<std::string> tape;
  {
    Job job{tape, dir()};
    job.start();
  }
  Rig rig;
  rig.ssc.checkpoint(dir());
  auto seen = record(tape.stream(rig.ssc));
  std::string message;
  EXPECT_EQ(code_of<PlanError>([&] { rig.ssc.start(Drive::by_host); }, &message), "checkpoint_exists");
  EXPECT_THAT(message, HasSubstr("get_or_create"));
  EXPECT_EQ(rig.ssc.state(), StreamingState::stopped);
}

TEST_F(Recovery, TwoContextsCannotShareADirectory) {
  Tape<std::string> tape;
  Job first{tape, dir()};
  first.start();
  Job second{tape, dir()};
  std::string message;
  EXPECT_EQ(code_of<StateError>([&] { second.start(); }, &message), "checkpoint_in_use");
  EXPECT_THAT(message, HasSubstr(std::to_string(::getpid())));
  first.ssc->stop();
  Job third{tape, dir()};
  EXPECT_NO_THROW(third.start()) << "a stop frees the directory";
}

TEST_F(Recovery, AnotherProgramIsRefusedWithEveryDifference) {
  Tape<std::string> tape;
  {
    Job job{tape, dir()};
    job.start();
    job.pass(1s);
  }
  const auto start = [&](auto build) {
    Rig rig;
    std::string message;
    auto ssc = StreamingContext::get_or_create(dir(), [&] {
      auto fresh = std::make_unique<StreamingContext>(rig.context, 1s);
      build(*fresh);
      return fresh;
    });
    const std::string code = code_of<PlanError>([&] { ssc->start(Drive::by_host); }, &message);
    return code + ": " + message;
  };
  EXPECT_THAT(
      start([&](StreamingContext& ssc) { static_cast<void>(record(tape.stream(ssc))); }),
      ::testing::AllOf(HasSubstr("incompatible_checkpoint"), HasSubstr("the state \"tape\" (totals of string to i64)"),
                       HasSubstr("the program has none of that name")));
  EXPECT_THAT(start([&](StreamingContext& ssc) {
                const auto words = tape.stream(ssc);
                static_cast<void>(record(words));
                ssc.engine()->add_state(words.node_pointer(), std::make_shared<Totals>("f64"));
              }),
              HasSubstr("its value type is \"f64\" and was \"i64\""));
  EXPECT_THAT(start([&](StreamingContext& ssc) {
                const auto words = tape.stream(ssc).name("words");
                static_cast<void>(record(words));
                ssc.engine()->add_state(words.node_pointer(), std::make_shared<Totals>());
              }),
              ::testing::AllOf(HasSubstr("the input \"tape\" (tape) is in the checkpoint"), HasSubstr("words")));
  EXPECT_THAT(start([&](StreamingContext& ssc) {
                const auto words = tape.stream(ssc);
                static_cast<void>(record(words));
                ssc.engine()->add_unsaved_state(words.node_pointer(),
                                                "a Widget has no codec; specialise tidemill::Codec");
              }),
              ::testing::AllOf(HasSubstr("not_encodable"), HasSubstr("a Widget has no codec")));
  Job job{tape, dir(), at(1002)};
  EXPECT_NO_THROW(job.start()) << "refusals change nothing";
}

TEST_F(Recovery, NewStatesInputsAndIntervalsAreWelcome) {
  Tape<std::string> tape;
  {
    Job job{tape, dir()};
    job.start();
    tape.write({"a"});
    job.pass(1s);
  }
  tape.write({"a"});
  Job job{tape, dir(), at(1003), {}, 250ms};
  Tape<int> other;
  const auto more = other.stream(*job.ssc).name("more");
  auto seen = record(more);
  job.ssc->engine()->add_state(more.node_pointer(), std::make_shared<Totals>());
  job.start();
  EXPECT_TRUE(job.ssc->step());
  EXPECT_THAT(job.seen, ElementsAre(Seen<Count>{at(1001.25), {{"a", 2}}})) << "times go on, at the new pace";
}

TEST_F(Recovery, WhatCannotBeReadAgainIsSaid) {  // I7, R8
  Tape<std::string> tape;
  const auto build = [](Rig& rig, const std::shared_ptr<Feed<int>>& feed, std::shared_ptr<Journal<Seen<int>>>& seen) {
    auto fresh = std::make_unique<StreamingContext>(rig.context, 1s);
    seen = record(fresh->receiver_stream(feed));
    return fresh;
  };
  {
    Rig rig;
    const auto feed = std::make_shared<Feed<int>>();
    std::shared_ptr<Journal<Seen<int>>> seen;
    auto ssc = StreamingContext::get_or_create(dir(), [&] { return build(rig, feed, seen); });
    ssc->add_listener([&] {
      struct Copy : StreamingListener {
        std::function<void()> copy;
        void on_batch_started(const BatchInfo&) override { copy(); }
      };
      auto listener = std::make_shared<Copy>();
      listener->copy = [this] { copy_to("killed"); };
      return listener;
    }());
    ssc->start(Drive::by_host);
    feed->put_all({1, 2, 3});
    rig.clock->advance(1s);
    EXPECT_TRUE(ssc->step());
  }
  Rig rig;
  const auto feed = std::make_shared<Feed<int>>();
  std::shared_ptr<Journal<Seen<int>>> seen;
  auto ssc = StreamingContext::get_or_create(dir("killed"), [&] { return build(rig, feed, seen); });
  ssc->start(Drive::by_host);
  EXPECT_TRUE(ssc->step());
  EXPECT_THAT(seen->all(), ElementsAre(Seen<int>{at(1001), {}}));
  EXPECT_TRUE(rig.log.says("warning", "without 3 records of receiver"));
}

// ---- what is received is logged: R9-R11 ----

// A context with one receiver of ints.
struct Receiving {
  Rig rig;
  std::shared_ptr<Feed<int>> feed = std::make_shared<Feed<int>>();
  std::shared_ptr<Journal<Seen<int>>> seen;
  std::function<void()> on_batch = [] {};
  std::unique_ptr<StreamingContext> ssc;

  explicit Receiving(const fs::path& dir, RecoveryOptions options = {.log_received = true}) {
    ssc = StreamingContext::get_or_create(
        dir,
        [&] {
          auto fresh = std::make_unique<StreamingContext>(rig.context, 1s);
          const auto records = fresh->receiver_stream(feed);
          records.foreach_batch([this](const auto&) { on_batch(); });
          seen = record(records);
          return fresh;
        },
        std::move(options));
    ssc->start(Drive::by_host);
  }
  std::size_t pass(Duration d) {
    rig.clock->advance(d);
    std::size_t batches = 0;
    while (ssc->step()) ++batches;
    return batches;
  }
};

TEST_F(Recovery, WhatWasReceivedIsReceivedAgain) {
  {
    Receiving before{dir()};
    before.feed->put_all({1, 2});
    EXPECT_EQ(before.pass(1s), 1u);
    before.feed->put_all({3});
    before.feed->put_all({4, 5});
    before.on_batch = [&] { copy_to("killed in a batch"); };
    EXPECT_EQ(before.pass(1s), 1u);
    before.feed->put_all({6, 7});
    copy_to("killed between batches");
  }
  {
    Receiving after{dir("killed in a batch")};
    EXPECT_TRUE(after.ssc->step());
    EXPECT_THAT(after.seen->all(), ElementsAre(Seen<int>{at(1002), {3, 4, 5}})) << "planned and not finished";
  }
  {
    Receiving after{dir("killed between batches")};
    EXPECT_EQ(after.pass(2s), 0u) << "1002 s: that batch is committed";
    after.feed->put_all({8});
    EXPECT_EQ(after.pass(2s), 2u);
    EXPECT_THAT(after.seen->all(), ElementsAre(Seen<int>{at(1003), {6, 7, 8}}, Seen<int>{at(1004), {}}))
        << "received and in no plan: for the first batch of the new run";
  }
}

TEST_F(Recovery, WhatIsCommittedIsNotReceivedAgainHoweverOftenItIsKilled) {
  std::vector<int> all;
  std::string from = "checkpoint";
  for (int run = 0; run < 8; ++run) {
    const std::string killed = "killed" + std::to_string(run);
    Receiving job{dir(from.c_str())};
    while (job.ssc->step()) {
    }
    for (const auto& seen : job.seen->all()) all.insert(all.end(), seen.records.begin(), seen.records.end());
    job.feed->put_all({2 * run});
    job.feed->put_all({2 * run + 1});
    copy_to(killed.c_str(), from.c_str());
    from = killed;
  }
  Receiving last{dir(from.c_str())};
  last.pass(5s);
  for (const auto& seen : last.seen->all()) all.insert(all.end(), seen.records.begin(), seen.records.end());
  EXPECT_EQ(all.size(), 16u);
  std::sort(all.begin(), all.end());
  EXPECT_EQ(std::unique(all.begin(), all.end()), all.end());
}

TEST_F(Recovery, SingleRecordsAreLoggedWhenTheirBlockIsCut) {  // R2
  {
    Receiving before{dir()};
    for (int i = 0; i < 5; ++i) before.feed->put(i);
    before.on_batch = [&] { copy_to("killed"); };
    EXPECT_EQ(before.pass(1s), 1u);
  }
  Receiving after{dir("killed")};
  EXPECT_TRUE(after.ssc->step());
  EXPECT_THAT(after.seen->all(), ElementsAre(Seen<int>{at(1001), {0, 1, 2, 3, 4}}));
}

TEST_F(Recovery, RunsOnItsOwnThreadToo) {
  Tape<std::string> tape;
  {
    Job job{tape, dir()};
    Door done;
    job.on_batch = [&](Time t) {
      if (t == at(1003)) done.open();
    };
    job.ssc->start();
    tape.write({"a"});
    job.clock->advance(3s);
    ASSERT_TRUE(done.wait());
    job.ssc->stop();
  }
  tape.write({"a"});
  Job job{tape, dir(), at(1004)};
  Door done;
  job.on_batch = [&](Time) { done.open(); };
  job.ssc->start();
  ASSERT_TRUE(done.wait());
  job.ssc->stop();
  EXPECT_THAT(job.seen.front(), (Seen<Count>{at(1004), {{"a", 2}}}));
}

}  // namespace
}  // namespace tidemill
