// Transactional sinks: what a batch writes becomes visible once and whole, whatever fails, wherever the program is killed. The
// totals in the records show that states and sink stay together.
#include "engine/harness.hpp"
#include "tidemill/testing/memory_sink.hpp"
#include "tidemill/testing/sim_fs.hpp"
#include "tidemill/testing/stream_test.hpp"
#include "tidemill/testing/tape.hpp"

namespace tidemill::sink_test {
namespace {

using namespace testing_engine;
using ::testing::ContainerEq;
using testing::MemoryStore;
using testing::SimCrash;
using testing::SimFault;
using testing::SimFs;
using testing::StoreFault;
using testing::StreamTest;
using testing::Tape;
using ::testing::UnorderedElementsAre;
using Store = MemoryStore<std::string>;
using Commits = std::map<Time, std::multiset<std::string>>;

/// What a reader of the store sees. A batch that was committed twice is there under the time "never".
Commits seen_in(const Store& store) {
  Commits all;
  for (const auto& commit : store.commits()) {
    const std::multiset<std::string> records{commit.records.begin(), commit.records.end()};
    if (!all.emplace(commit.batch_time, records).second) all.emplace(Time::max(), records);
  }
  return all;
}

/// Hands every commit on when the next batch begins, as if the checkpoint were written before the sink.
class LateSink final : public TransactionalSink {
 public:
  explicit LateSink(std::shared_ptr<Store::Sink> sink) : sink_{std::move(sink)} {}
  [[nodiscard]] std::string name() const override { return "memory"; }
  void open(const SinkSession& session) override { sink_->open(session); }
  [[nodiscard]] std::optional<Time> last_committed() override { return sink_->last_committed(); }
  void begin(Time t) override {
    if (late_) sink_->commit({.batch_time = *std::exchange(late_, std::nullopt), .positions = {}});
    sink_->begin(t);
  }
  void write(std::span<const std::string> records) { sink_->write(records); }
  void commit(const SinkCommit& commit) override { late_ = commit.batch_time; }
  void roll_back() noexcept override { sink_->roll_back(); }
  void close() noexcept override {}

 private:
  std::shared_ptr<Store::Sink> sink_;
  std::optional<Time> late_;
};

enum class Kind { saved, saved_as_another, from_foreach_batch, beside_a_failing_output, late, not_saved };

/// What does not go when the program does.
struct World {
  explicit World(Kind which, std::uint64_t seed = 1) : kind{which}, disk{std::make_shared<SimFs>(seed)} {
    store.on_crash([disk = disk] { disk->kill(); });
  }
  void restart() {
    disk->kill();
    disk->restart();
    store.restart();
  }
  Kind kind;
  std::shared_ptr<SimFs> disk;
  Store store;
  Tape<std::string> tape;
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  int failures_left = 0;  // of the other output
};

const std::vector<std::vector<std::string>> script{{"a", "b", "a"}, {"c"}, {}, {"a", "c"}, {"b"}};

/// One life of the program: the totals of the words that came, to the store.
class Program {
 public:
  explicit Program(World& world, RecoveryOptions options = {}) {
    const Context context{{.app_name = "job",
                           .parallelism = 2,
                           .executor = nullptr,
                           .clock = world.clock,
                           .log = log.logger(),
                           .fs = world.disk}};
    options.store.snapshot_min_log_bytes = 200;
    options.store.snapshot_log_fraction = 0.1;
    options.store.plan_segment_bytes = 4096;
    options.store.commit_segment_bytes = 4096;
    ssc = StreamingContext::get_or_create(
        "checkpoint",
        [&] {
          auto fresh = std::make_unique<StreamingContext>(context, 1s);
          auto totals = world.tape.stream(*fresh)
                            .map([](const std::string& word) {
                              return std::pair{word, 1L};
                            })
                            .map_with_state(state_spec<long>(
                                [](const std::string& word, std::optional<long> one, State<long>& state) {
                                  state.update(state.get_option().value_or(0) + one.value_or(0));
                                  return word + '=' + std::to_string(state.get());
                                }));
          switch (world.kind) {
            case Kind::saved: totals.save_to(world.store.sink()); break;
            case Kind::saved_as_another: totals.save_to(world.store.sink(), "another"); break;
            case Kind::not_saved: totals.foreach_batch([](const auto&) {}); break;
            case Kind::late: totals.save_to(std::make_shared<LateSink>(world.store.sink())); break;
            case Kind::from_foreach_batch:
              totals.foreach_batch([sink = fresh->add_sink(world.store.sink())](const auto& batch, Time t) {
                sink.transaction(t, [&](Store::Sink& store) {
                  const std::vector<std::string> records = batch.collect();
                  store.write(records);
                });
              });
              break;
            case Kind::beside_a_failing_output:
              totals.save_to(world.store.sink());
              totals.foreach_batch([&world](const auto&) {
                if (world.failures_left > 0 && world.failures_left-- > 0) throw std::runtime_error{"no"};
              });
              break;
          }
          return fresh;
        },
        std::move(options));
    ssc->start(Drive::by_host);
  }
  /// False when it has died.
  bool run_what_is_due() {
    while (ssc->step()) {
    }
    return ssc->state() == StreamingState::active;
  }

  Log log;
  std::unique_ptr<StreamingContext> ssc;
};

struct Outcome {
  Commits commits;
  std::string wrong;
  bool happened = false;
  std::uint64_t calls = 0;
};

/// The whole script with what `plant` plants; after each death the program is started again.
Outcome run(Kind kind, const std::function<void(World&)>& plant, std::uint64_t seed = 1) {
  World world{kind, seed};
  Outcome outcome;
  plant(world);
  std::unique_ptr<Program> program;
  int deaths = 0;
  const auto run_until_now = [&] {
    while (deaths < 5) {
      try {
        if (!program) program = std::make_unique<Program>(world);
        if (program->run_what_is_due()) return;
      } catch (const SimCrash&) {
      } catch (const Error& error) {
        if (deaths > 0) outcome.wrong = error.what();
      }
      program.reset();
      outcome.happened = outcome.happened || world.disk->fault_happened() || world.store.fault_happened();
      world.restart();
      ++deaths;
    }
    if (outcome.wrong.empty()) outcome.wrong = "it does not come up any more";
  };
  for (const auto& words : script) {
    run_until_now();
    world.tape.write(words);
    world.clock->advance(1s);
    run_until_now();
  }
  outcome.happened = outcome.happened || world.disk->fault_happened() || world.store.fault_happened();
  outcome.commits = seen_in(world.store);
  outcome.calls = world.store.calls();
  return outcome;
}

/// Returns what first went wrong, and counts the cases.
std::string sweep(Kind kind, int& cases) {
  const Outcome whole = run(Kind::saved, [](World&) {});
  const auto compare = [&](const Outcome& outcome) {
    if (!outcome.wrong.empty()) return outcome.wrong;
    return outcome.commits == whole.commits ? "" : ::testing::PrintToString(outcome.commits);
  };
  for (const StoreFault fault :
       {StoreFault::crash_before, StoreFault::crash_after, StoreFault::error_before, StoreFault::error_after}) {
    const bool is_error = fault == StoreFault::error_before || fault == StoreFault::error_after;
    for (const bool for_ever : is_error ? std::vector{false, true} : std::vector{false}) {
      for (std::uint64_t call = 1;; ++call) {
        const Outcome outcome = run(kind, [&](World& world) { world.store.fail_at(call, fault, for_ever); });
        if (const std::string wrong = compare(outcome); !wrong.empty())
          return "fault " + std::to_string(static_cast<int>(fault)) + " at call " + std::to_string(call) + ": " + wrong;
        if (!outcome.happened) break;
        ++cases;
      }
    }
  }
  for (const SimFault fault : {SimFault::kill, SimFault::power_loss, SimFault::io_error}) {
    for (std::uint64_t call = 1;; ++call) {
      const Outcome outcome = run(
          kind, [&](World& world) { world.disk->fail_at(call, fault); }, call);
      if (const std::string wrong = compare(outcome); !wrong.empty())
        return "fault of the disk " + std::to_string(static_cast<int>(fault)) + " at call " + std::to_string(call) +
               ": " + wrong;
      if (!outcome.happened) break;
      ++cases;
    }
  }
  return "";
}

TEST(SinkSweep, CommitsEachBatchOnceWhateverHappensAtAnyCall) {
  const Outcome whole = run(Kind::saved, [](World&) {});
  EXPECT_THAT(whole.commits, ContainerEq(Commits{{at(1001), {"a=1", "a=2", "b=1"}},
                                                 {at(1002), {"c=1"}},
                                                 {at(1003), {}},
                                                 {at(1004), {"a=3", "c=2"}},
                                                 {at(1005), {"b=2"}}}));
  int cases = 0;
  EXPECT_EQ(sweep(Kind::saved, cases), "");
  EXPECT_GT(cases, 200);
}

TEST(SinkSweep, AlsoFromForeachBatch) {
  int cases = 0;
  EXPECT_EQ(sweep(Kind::from_foreach_batch, cases), "");
  EXPECT_GT(cases, 200);
}

TEST(SinkSweep, FindsASinkThatCommitsAfterTheCheckpoint) {
  int cases = 0;
  EXPECT_NE(sweep(Kind::late, cases), "");
}

TEST(Sink, IsLeftOutWhenABatchIsTriedAgainForAnotherOutput) {
  const Outcome whole = run(Kind::saved, [](World&) {});
  for (const int failures :
       {1, 2, 3}) {  // the second is that of the second attempt: the context stops, and starts again
    const Outcome outcome = run(Kind::beside_a_failing_output, [&](World& world) { world.failures_left = failures; });
    EXPECT_EQ(outcome.wrong, "");
    EXPECT_THAT(outcome.commits, ContainerEq(whole.commits)) << failures;
  }
}

TEST(Sink, StopsTheContextWhenAnotherWriterTakesItsPlace) {
  for (const FailedBatch policy : {FailedBatch::stop, FailedBatch::carry_on}) {
    World world{Kind::saved};
    Program program{world, {.failed_batch = policy}};
    world.tape.write({"a"});
    world.clock->advance(1s);
    EXPECT_TRUE(program.run_what_is_due());
    const std::uint64_t calls = world.store.calls();
    world.store.fail_at(2, StoreFault::fence);  // begin
    world.clock->advance(1s);
    EXPECT_FALSE(program.run_what_is_due());
    EXPECT_EQ(world.store.calls(), calls + 2) << "nothing is tried again";
    try {
      program.ssc->await_termination();
      FAIL() << "it stopped without an error";
    } catch (const SinkError& error) {
      EXPECT_EQ(error.code(), "fenced");
      EXPECT_EQ(error.context().batch_time, at(1002));
    }
    EXPECT_EQ(seen_in(world.store).size(), 1U);
  }
}

TEST(Sink, ThatIsFencedInAPartitionStopsTheContextTooWithoutACheckpoint) {
  StreamTest<std::string> test;
  const Store store;
  test.input().save_to(store.sink());
  test.step({"a"});
  Store{store}.fail_at(3, StoreFault::fence);  // write
  EXPECT_THROW(test.step({"b"}), UserCodeError);
  EXPECT_FALSE(test.streaming().step());
  EXPECT_EQ(test.streaming().state(), StreamingState::stopped);
  EXPECT_THAT(store.records(), ElementsAre("a"));
}

TEST(Sink, WithoutACheckpointCommitsEachBatchThatSucceeds) {
  StreamTest<std::string> test;
  Store store;
  test.input().save_to(store.sink());
  test.step({"a", "b"});
  store.fail_at(4, StoreFault::error_before);  // commit
  EXPECT_THROW(test.step({"c"}), SinkError);
  test.step({"d"});
  EXPECT_THAT(seen_in(store), ContainerEq(Commits{{at(1001), {"a", "b"}}, {at(1003), {"d"}}}));
}

/// Looks around whenever it is called, and fails its commits as told: before the store has them, or after, when the answer is
/// lost.
class WatchedSink final : public TransactionalSink {
 public:
  [[nodiscard]] std::string name() const override { return "watched"; }
  void open(const SinkSession&) override {}
  [[nodiscard]] std::optional<Time> last_committed() override { return committed_; }
  void begin(Time) override { look(); }
  void write(std::span<const std::string>) { look(); }
  void commit(const SinkCommit& commit) override {
    look();
    if (failures_before > 0 && failures_before-- > 0) throw SinkError("store", "refused", Retry::may_help);
    committed_ = commit.batch_time;
    look();
    if (failures_after > 0 && failures_after-- > 0) throw SinkError("store", "who knows", Retry::may_help);
  }
  void roll_back() noexcept override { look(); }
  void close() noexcept override {}

  std::function<void()> look = [] {};
  int failures_before = 0;
  int failures_after = 0;

 private:
  std::optional<Time> committed_;
};

// What the program itself, another thread of it say, may see of the states.
TEST(Sink, ShowsStatesToTheHostOnlyWhenTheTransactionHasCommitted) {
  const auto count = [](const std::string& word, std::optional<long> one, State<long>& state) {
    state.update(state.get_option().value_or(0) + one.value_or(0));
    return word;
  };
  using Totals = std::vector<std::pair<std::string, long>>;
  using Seen = std::set<Totals>;
  for (const bool has_checkpoint : {false, true}) {
    for (const bool answer_is_lost : {false, true}) {
      SCOPED_TRACE(std::string{has_checkpoint ? "with" : "without"} + " a checkpoint, " +
                   (answer_is_lost ? "the answer is lost" : "the commit is refused"));
      const auto sink = std::make_shared<WatchedSink>();
      const auto clock = std::make_shared<ManualClock>();
      const Context context{{.app_name = "job",
                             .parallelism = 1,
                             .executor = nullptr,
                             .clock = clock,
                             .log = nullptr,
                             .fs = std::make_shared<SimFs>()}};
      const Tape<std::string> tape;
      std::function<Totals()> totals;
      const auto setup = [&] {
        auto fresh = std::make_unique<StreamingContext>(context, 1s);
        const auto stream = tape.stream(*fresh)
                                .map([](const std::string& word) {
                                  return std::pair{word, 1L};
                                })
                                .map_with_state(state_spec<long>(count));
        totals = [state = stream.state()] {
          const auto entries = state.snapshot().entries;
          Totals all{entries.begin(), entries.end()};
          std::sort(all.begin(), all.end());
          const auto of_a = std::find_if(all.begin(), all.end(), [](const auto& one) { return one.first == "a"; });
          EXPECT_EQ(state.get("a"), of_a == all.end() ? std::nullopt : std::optional{of_a->second});
          return all;
        };
        stream.save_to(sink);
        return fresh;
      };
      const auto ssc = has_checkpoint ? StreamingContext::get_or_create("checkpoint", setup) : setup();
      ssc->start(Drive::by_host);
      Seen seen;
      sink->look = [&] { seen.insert(totals()); };
      const auto step = [&](std::vector<std::string> words) {
        seen.clear();
        Tape{tape}.write(std::move(words));
        clock->advance(1s);
        while (ssc->step()) {
        }
        return seen;
      };
      EXPECT_EQ(step({"a", "b"}), Seen{Totals{}}) << "until the sink has it, nobody sees the batch";
      const Totals first{{"a", 1}, {"b", 1}};
      EXPECT_EQ(totals(), first);

      (answer_is_lost ? sink->failures_after : sink->failures_before) = 1;
      EXPECT_EQ(step({"a"}), Seen{first});
      // With a checkpoint the batch is tried again. When the store has it, that is found, and only the states are left to do.
      const Totals second{{"a", has_checkpoint ? 2 : 1}, {"b", 1}};
      EXPECT_EQ(totals(), second);

      sink->failures_before = 100;
      EXPECT_EQ(step({"b", "c"}), Seen{second});
      EXPECT_EQ(totals(), second) << "what never committed is never seen";
      EXPECT_EQ(ssc->state(), has_checkpoint ? StreamingState::stopped : StreamingState::active);
    }
  }
}

TEST(Sink, IsGivenTheSameIdInEveryRunAndAnotherInAnotherCheckpoint) {
  class Asks final : public TransactionalSink {
   public:
    explicit Asks(std::vector<std::string>& ids) : ids_{ids} {}
    [[nodiscard]] std::string name() const override { return "asks"; }
    void open(const SinkSession& session) override {
      EXPECT_TRUE(session.has_checkpoint);
      EXPECT_EQ(session.name, "orders");
      ids_.push_back(session.id);
    }
    [[nodiscard]] std::optional<Time> last_committed() override { return std::nullopt; }
    void begin(Time) override {}
    void write(std::span<const std::string>) {}
    void commit(const SinkCommit&) override {}
    void roll_back() noexcept override {}
    void close() noexcept override { ids_.emplace_back("closed"); }

   private:
    std::vector<std::string>& ids_;
  };
  std::vector<std::string> ids;
  const auto disk = std::make_shared<SimFs>();
  const auto clock = std::make_shared<ManualClock>();
  for (const char* directory : {"one", "one", "two"}) {
    const Context context{
        {.app_name = "job", .parallelism = 1, .executor = nullptr, .clock = clock, .log = nullptr, .fs = disk}};
    const Tape<std::string> tape;
    auto ssc = StreamingContext::get_or_create(directory, [&] {
      auto fresh = std::make_unique<StreamingContext>(context, 1s);
      tape.stream(*fresh).save_to(std::make_shared<Asks>(ids), "orders");
      return fresh;
    });
    ssc->start(Drive::by_host);
    clock->advance(1s);
    ssc->step();
    ssc->stop();
  }
  ASSERT_EQ(ids.size(), 6U);
  EXPECT_EQ(ids[1], "closed");
  EXPECT_EQ(ids[0], ids[2]);
  EXPECT_NE(ids[0], ids[4]);
  EXPECT_THAT(ids[0], ::testing::EndsWith("-orders"));
}

/// What start() says after a run of three batches and `change`, perhaps on a copy of the checkpoint from after the first.
std::string refusal(const std::function<void(World&)>& change, bool older_copy = false) {
  World world{Kind::saved};
  std::shared_ptr<SimFs> older;
  {
    Program program{world};
    for (int i = 0; i < 3; ++i) {
      world.tape.write({"a"});
      world.clock->advance(1s);
      static_cast<void>(program.run_what_is_due());
      if (i == 0) older = world.disk->copy(1);
    }
    static_cast<void>(program.ssc->stop());
  }
  if (older_copy) world.disk = older;
  change(world);
  try {
    const Program again{world};
    return "";
  } catch (const SinkError& error) {
    return error.code() + ": " + error.what();
  }
}

TEST(Sink, ThatKnowsMoreThanTheCheckpointIsRefused) {
  EXPECT_THAT(refusal([](World& world) { world.disk->restart(); }, true), HasSubstr("sink_ahead: "));
}

TEST(Sink, ThatHasForgottenWhatTheCheckpointKnowsIsRefusedAndGoesOnUnderAnotherName) {
  EXPECT_THAT(refusal([](World& world) { world.store.forget(); }), HasSubstr("sink_behind: "));
  EXPECT_EQ(refusal([](World& world) {
              world.store.forget();
              world.kind = Kind::saved_as_another;
            }),
            "");
}

TEST(Sink, MayGoAndComeBack) {
  World world{Kind::saved};
  for (const Kind kind : {Kind::saved, Kind::not_saved, Kind::saved}) {
    world.kind = kind;
    Program program{world};
    world.tape.write({"a"});
    world.clock->advance(1s);
    EXPECT_TRUE(program.run_what_is_due());
    static_cast<void>(program.ssc->stop());
  }
  EXPECT_THAT(seen_in(world.store), ContainerEq(Commits{{at(1001), {"a=1"}}, {at(1003), {"a=3"}}}));
}

TEST(Sink, IsToldHowFarTheInputsHaveBeenRead) {
  World world{Kind::saved};
  Program program{world};
  world.tape.write({"a", "b"});
  world.clock->advance(1s);
  EXPECT_TRUE(program.run_what_is_due());
  const Store::Commit commit = world.store.commits().at(0);
  ASSERT_EQ(commit.positions.size(), 1U);
  EXPECT_EQ(commit.positions[0].source, "tape");
  EXPECT_EQ(commit.positions[0].next, 2U);
}

TEST(Sink, IsNotAskedForTransactionsOfOtherBatches) {
  StreamTest<std::string> test;
  const Store store;
  auto sink = test.streaming().add_sink(store.sink());
  test.input().foreach_batch([&](const auto& batch, Time t) {
    sink.write(batch, t);
    sink.write(batch, t);
  });
  EXPECT_THROW(test.step({"a"}), PlanError) << "a batch has one transaction";
  EXPECT_THAT(store.records(), ElementsAre("a"));
  EXPECT_THROW(sink.transaction(at(5), [](Store::Sink&) {}), PlanError) << "that batch does not run";
}

TEST(Sink, IsRefusedWithTheNameOfAnotherAndWithConcurrentJobs) {
  {
    StreamTest<std::string> test;
    const Store store;
    test.input().save_to(store.sink());
    EXPECT_THROW(test.input().save_to(store.sink()), PlanError);
    test.input().save_to(store.sink(), "another");
    EXPECT_THROW(test.input().save_to(std::shared_ptr<Store::Sink>{}), ConfigError);
  }
  const Context context{{.app_name = "job", .parallelism = 1, .executor = nullptr, .clock = nullptr, .log = nullptr}};
  StreamingContext ssc{context, 1s, {.concurrent_jobs = 2}};
  const Store store;
  ssc.queue_stream(std::make_shared<BatchQueue<std::string>>()).save_to(store.sink());
  EXPECT_THROW(ssc.start(), PlanError);
}

}  // namespace
}  // namespace tidemill::sink_test
