// Several output operations at once, each on a thread of its own. SEMANTICS J2; invariants EN2, EN6.
#include <algorithm>
#include <map>
#include <numeric>

#include "engine/harness.hpp"

namespace tidemill::concurrent_jobs_test {
namespace {

using namespace testing_engine;

// What a listener hears, as lines; and the batches that were completed.
struct Diary final : StreamingListener {
  void on_batch_submitted(const BatchInfo& b) override { lines.add("submitted " + to_string(b.batch_time)); }
  void on_batch_started(const BatchInfo& b) override { lines.add("started " + to_string(b.batch_time)); }
  void on_batch_completed(const BatchInfo& b) override {
    lines.add("completed " + to_string(b.batch_time));
    batches.add(b);
  }
  void on_output_operation_started(const OutputOperationInfo& o) override { lines.add(o.name + " started"); }
  void on_output_operation_completed(const OutputOperationInfo& o) override { lines.add(o.name + " completed"); }
  [[nodiscard]] std::size_t place_of(const std::string& line) const {
    const auto all = lines.all();
    return static_cast<std::size_t>(std::find(all.begin(), all.end(), line) - all.begin());
  }
  Journal<std::string> lines;
  Journal<BatchInfo> batches;
};

struct Jobs : Rig {
  explicit Jobs(std::size_t concurrent_jobs, StreamingOptions options = {})
      : Rig{1s, (options.concurrent_jobs = concurrent_jobs, options)} {
    ssc.add_listener(diary);
  }
  std::shared_ptr<Diary> diary = std::make_shared<Diary>();
};

template <class T>
std::vector<Seen<T>> in_order_of_time(std::vector<Seen<T>> seen) {
  std::sort(seen.begin(), seen.end(), [](const auto& a, const auto& b) { return a.time < b.time; });
  return seen;
}

TEST(ConcurrentJobs, ASlowOutputDoesNotHoldUpTheNextBatch) {
  Jobs rig{2};
  const auto feed = std::make_shared<Feed<int>>();
  Journal<Time> begun;
  Journal<Seen<int>> seen;
  Door door;
  rig.ssc.receiver_stream(feed).foreach_batch([&](const Batch<int>& batch, Time t) {
    begun.add(t);
    if (t == at(1001)) {
      EXPECT_TRUE(door.wait());
    }
    seen.add({t, batch.collect()});
  });
  rig.ssc.start();
  feed->put(1);
  rig.clock->advance(1s);
  ASSERT_TRUE(begun.wait_for(1));
  feed->put(2);
  rig.clock->advance(1s);
  ASSERT_TRUE(seen.wait_for(1));
  EXPECT_THAT(seen.all(), ElementsAre(Seen<int>{at(1002), {2}}));
  ASSERT_TRUE(rig.diary->batches.wait_for(1));
  EXPECT_EQ(rig.ssc.metrics().running_batches, 1u);
  door.open();
  ASSERT_TRUE(rig.diary->batches.wait_for(2));
  EXPECT_THAT(seen.all(), ElementsAre(Seen<int>{at(1002), {2}}, Seen<int>{at(1001), {1}}));
  const BatchInfo slow = rig.diary->batches.all()[1];
  EXPECT_EQ(slow.batch_time, at(1001));
  EXPECT_EQ(slow.processing_start_time, at(1001));
  EXPECT_EQ(slow.processing_end_time, at(1002));
  EXPECT_EQ(slow.num_records(), 1u);
  EXPECT_TRUE(rig.ssc.stop());
  EXPECT_EQ(rig.ssc.metrics().total_completed_batches, 2u);
}

TEST(ConcurrentJobs, AreNoMoreThanWasAskedFor) {
  Jobs rig{2};
  Journal<Time> begun;
  Door door;
  rig.ssc.receiver_stream(std::make_shared<Feed<int>>()).foreach_batch([&](const auto&, Time t) {
    begun.add(t);
    EXPECT_TRUE(door.wait());
  });
  rig.ssc.start();
  rig.clock->advance(4s);
  ASSERT_TRUE(begun.wait_for(2));
  EXPECT_EQ(rig.ssc.metrics().running_batches, 2u);
  EXPECT_EQ(rig.ssc.metrics().waiting_batches, 2u) << "a tick that waits is a number, and its records are in the inbox";
  door.open();
  ASSERT_TRUE(rig.diary->batches.wait_for(4));
  for (const BatchInfo& batch : rig.diary->batches.all()) {
    EXPECT_EQ(batch.submission_time == batch.batch_time, batch.batch_time >= at(1003)) << to_string(batch.batch_time);
    EXPECT_EQ(batch.processing_start_time, at(1004));
  }
  rig.ssc.stop();
  EXPECT_EQ(begun.size(), 4u);
}

TEST(ConcurrentJobs, OfOneBatchRunSideBySide) {
  Jobs rig{2};
  const auto stream = rig.ssc.receiver_stream(std::make_shared<Feed<int>>());
  Door door;
  stream.foreach_batch([&](const auto&) { EXPECT_TRUE(door.wait()); }, "first");
  stream.foreach_batch([&](const auto&) { door.open(); }, "second");
  rig.ssc.start();
  rig.clock->advance(1s);
  ASSERT_TRUE(rig.diary->batches.wait_for(1));
  rig.ssc.stop();
  ASSERT_EQ(rig.diary->lines.size(), 7u);
  EXPECT_EQ(rig.diary->place_of("submitted 1001000 ms"), 0u);
  EXPECT_EQ(rig.diary->place_of("started 1001000 ms"), 1u);
  EXPECT_EQ(rig.diary->place_of("first started"), 2u) << "they begin in the order of registration";
  EXPECT_LT(rig.diary->place_of("second started"), rig.diary->place_of("second completed"));
  EXPECT_LT(rig.diary->place_of("first completed"), 6u);
  EXPECT_EQ(rig.diary->place_of("completed 1001000 ms"), 6u);
}

TEST(ConcurrentJobs, FailEachForItself) {  // L14
  Jobs rig{2};
  const auto stream = rig.ssc.receiver_stream(std::make_shared<Feed<int>>());
  Door door;
  stream.foreach_batch([&](const auto&) { EXPECT_TRUE(door.wait()); }, "slow");
  stream.foreach_batch(
      [](const auto&, Time t) {
        if (t == at(1001)) throw std::runtime_error{"boom"};
      },
      "failing");
  rig.ssc.start();
  rig.clock->advance(1s);
  try {
    rig.ssc.await_termination();
    ADD_FAILURE() << "nothing was delivered";
  } catch (const UserCodeError& error) {
    EXPECT_EQ(error.context().op, "foreach_batch");
    EXPECT_EQ(error.context().batch_time, at(1001));
  }
  door.open();
  rig.clock->advance(1s);
  ASSERT_TRUE(rig.diary->batches.wait_for(2));
  rig.ssc.stop();
  EXPECT_EQ(rig.ssc.metrics().total_failed_batches, 1u);
  for (const BatchInfo& batch : rig.diary->batches.all()) {
    for (const OutputOperationInfo& output : batch.outputs)
      EXPECT_EQ(output.failure_reason.has_value(), output.name == "failing" && batch.batch_time == at(1001));
  }
}

TEST(ConcurrentJobs, SeeStatesAndWindowsAsOfTheirBatchHoweverLateTheyRun) {
  using Pair = std::pair<int, int>;
  Jobs rig{20};
  const auto feed = std::make_shared<Feed<Pair>>();
  const auto stream = rig.ssc.receiver_stream(feed);
  Journal<Time> begun;
  Door door;
  std::map<std::string, Journal<Seen<Pair>>> seen;
  const auto look = [&](const std::string& name, const auto& results) {
    auto& journal = seen[name];
    results.foreach_batch([&](const auto& batch, Time t) {
      begun.add(t);
      if (t != at(1004)) {
        EXPECT_TRUE(door.wait());  // until the last batch has begun
      }
      journal.add({t, batch.collect()});
    });
  };
  const auto add = [](const std::vector<int>& values, std::optional<int> sum) {
    return std::optional{std::accumulate(values.begin(), values.end(), sum.value_or(0))};
  };
  const auto mapped =
      stream.map_with_state(state_spec<int>([](const int& key, std::optional<int> value, State<int>& state) {
        state.update(state.get_option().value_or(0) + value.value_or(0));
        return Pair{key, state.get()};
      }));
  look("update_state", stream.update_state_by_key<int>(add));
  look("map_with_state", mapped);
  look("snapshots", mapped.state_snapshots());
  look("keyed window", stream.reduce_by_key_and_window(std::plus<>{}, std::minus<>{}, 2s, 1s));
  look("window", stream.window(2s, 1s));
  rig.ssc.start();
  for (std::size_t i = 1; i <= 4; ++i) {
    feed->put({7, static_cast<int>(i)});
    rig.clock->advance(1s);
    ASSERT_TRUE(begun.wait_for(5 * i));
  }
  door.open();
  ASSERT_TRUE(rig.diary->batches.wait_for(4));
  rig.ssc.stop();
  const auto results = [&](const std::string& name) { return in_order_of_time(seen[name].all()); };
  const auto totals = ElementsAre(Seen<Pair>{at(1001), {{7, 1}}}, Seen<Pair>{at(1002), {{7, 3}}},
                                  Seen<Pair>{at(1003), {{7, 6}}}, Seen<Pair>{at(1004), {{7, 10}}});
  EXPECT_THAT(results("update_state"), totals);
  EXPECT_THAT(results("map_with_state"), totals);
  EXPECT_THAT(results("snapshots"), totals);
  EXPECT_THAT(results("keyed window"), ElementsAre(Seen<Pair>{at(1001), {{7, 1}}}, Seen<Pair>{at(1002), {{7, 3}}},
                                                   Seen<Pair>{at(1003), {{7, 5}}}, Seen<Pair>{at(1004), {{7, 7}}}));
  EXPECT_THAT(results("window"),
              ElementsAre(Seen<Pair>{at(1001), {{7, 1}}}, Seen<Pair>{at(1002), {{7, 1}, {7, 2}}},
                          Seen<Pair>{at(1003), {{7, 2}, {7, 3}}}, Seen<Pair>{at(1004), {{7, 3}, {7, 4}}}));
}

TEST(ConcurrentJobs, AreAllDoneWhenAGracefulStopEnds) {  // L12
  Jobs rig{2};
  const auto feed = std::make_shared<Feed<int>>();
  Journal<Time> begun;
  Journal<Seen<int>> seen;
  Door door;
  rig.ssc.receiver_stream(feed).foreach_batch([&](const Batch<int>& batch, Time t) {
    begun.add(t);
    if (t == at(1001)) {
      EXPECT_TRUE(door.wait());
    }
    seen.add({t, batch.collect()});
    if (t == at(1002)) door.open();
  });
  rig.ssc.start();
  feed->put(1);
  rig.clock->advance(1s);
  ASSERT_TRUE(begun.wait_for(1));
  feed->put(2);
  rig.ssc.request_stop(StopMode::graceful);
  rig.clock->advance(1s);
  EXPECT_TRUE(rig.ssc.stop(StopMode::graceful));
  EXPECT_THAT(in_order_of_time(seen.all()), ElementsAre(Seen<int>{at(1001), {1}}, Seen<int>{at(1002), {2}}));
  EXPECT_EQ(rig.diary->batches.size(), 2u) << "and told";
  EXPECT_EQ(rig.ssc.metrics().running_batches, 0u);
}

TEST(ConcurrentJobs, AreFinishedByAnImmediateStop) {  // L7
  Jobs rig{2};
  Journal<std::string> done;
  Door begun;
  const auto stream = rig.ssc.receiver_stream(std::make_shared<Feed<int>>());
  for (const char* name : {"a", "b", "c"}) {
    stream.foreach_batch([&, name](const auto&) {
      begun.open();
      done.add(name);
    });
  }
  rig.ssc.start();
  rig.clock->advance(1s);
  ASSERT_TRUE(begun.wait());
  rig.ssc.stop(StopMode::immediate);
  EXPECT_EQ(done.size(), 3u) << "also what waited for a thread";
  EXPECT_EQ(rig.diary->batches.size(), 1u);
}

TEST(ConcurrentJobs, CannotStopTheContextThatWaitsForThemButMayAskOrDestroyIt) {  // L8
  Rig parts;
  auto ssc = std::make_unique<StreamingContext>(parts.context, 1s, StreamingOptions{.concurrent_jobs = 2});
  const std::weak_ptr<detail::StreamingEngine> engine = ssc->engine();
  std::string code;
  const auto done = std::make_shared<Door>();  // shared: nobody waits here for the thread that opens it
  ssc->receiver_stream(std::make_shared<Feed<int>>()).foreach_batch([&, done](const auto&) {
    code = code_of([&] { ssc->stop(); }) + ", " + code_of([&] { ssc->await_termination(); });
    ssc.reset();
    done->open();
  });
  ssc->start();
  parts.clock->advance(1s);
  ASSERT_TRUE(done->wait());
  EXPECT_EQ(code, "illegal_state, illegal_state");
  EXPECT_TRUE(eventually([&] { return engine.expired(); }));
}

TEST(ConcurrentJobs, PrintWholeTexts) {
  Jobs rig{4};
  const auto feed = std::make_shared<Feed<int>>();
  const auto stream = rig.ssc.receiver_stream(feed);
  stream.print();
  stream.map([](int i) { return 10 * i; }).print();
  rig.ssc.start();
  feed->put(1);
  rig.clock->advance(5s);
  ASSERT_TRUE(rig.diary->batches.wait_for(5));
  rig.ssc.stop();
  std::string printed = rig.printed.str();
  static const std::string rule = "-------------------------------------------\n";
  for (double t = 1001; t <= 1005; ++t) {
    for (const std::string value : {"1\n", "10\n"}) {
      const std::string text = rule + "Time: " + to_string(at(t)) + '\n' + rule + (t == 1001 ? value : "") + '\n';
      const std::size_t place = printed.find(text);
      ASSERT_NE(place, std::string::npos) << text;
      printed.erase(place, text.size());
    }
  }
  EXPECT_EQ(printed, "");
}

TEST(ConcurrentJobs, AreRefusedWhereTheyCannotBe) {
  EXPECT_THAT(message_of<ConfigError>([] {
                Rig{1s, {.concurrent_jobs = 0}};
              }),
              HasSubstr("concurrent_jobs must lie between 1 and 1024, and it is 0"));
  for (const bool with_checkpoint : {true, false}) {
    Jobs rig{3};
    auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
    if (with_checkpoint) rig.ssc.checkpoint("/nonexistent/checkpoint");
    std::string message;
    EXPECT_EQ(code_of([&] { rig.ssc.start(with_checkpoint ? Drive::own_thread : Drive::by_host); }, &message),
              "concurrent_jobs");
    EXPECT_THAT(message, HasSubstr("concurrent_jobs is 3"));
    EXPECT_THAT(message, HasSubstr("leave concurrent_jobs at 1"));
    EXPECT_EQ(rig.ssc.state(), StreamingState::stopped);
  }
}

}  // namespace
}  // namespace tidemill::concurrent_jobs_test
