// Inputs through a StreamingContext, from what arrives to the records of a batch; and batches that a program made outside of any
// interval. SEMANTICS C8–C12, I2, I3.
#include "engine/harness.hpp"
#include "io/fake_host.hpp"
#include "tidemill/testing/sim_fs.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;
using testing_io::Server;
using tidemill::testing::SimFs;

/// A context of one second on a manual clock, with a disk in memory that has a directory "in".
struct DiskRig {
  DiskRig() {
    disk->make_directory("in");
    disk->sync_directory("in");
  }
  /// A file that is written now.
  void put(const std::string& name, std::string contents) {
    disk->set_time(clock->now());
    disk->set_contents("in/" + name, std::move(contents));
  }
  /// An interval passes, and its batch runs.
  void pass() {
    clock->advance(1s);
    EXPECT_TRUE(ssc.step());
  }

  std::shared_ptr<SimFs> disk = std::make_shared<SimFs>();
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  Log log;
  Context context{{.app_name = "inputs-test",
                   .parallelism = 1,
                   .executor = nullptr,
                   .clock = clock,
                   .log = log.logger(),
                   .fs = disk}};
  StreamingContext ssc{context, 1s};
};

// ---- errors of batches that no input of ours made: UserCodeError names application and batch all the same ------------------

int fussy(int i) {
  if (i < 0) throw std::runtime_error{"no negative numbers"};
  return i;
}

/// The batch of 1001 s of `make(rig)` must fail in "map", and say so.
template <class Make>
void expect_named_failure(const char* input, Make make) {
  SCOPED_TRACE(input);
  DiskRig rig;
  auto seen = record(make(rig));
  rig.ssc.start(Drive::by_host);
  rig.pass();
  EXPECT_EQ(seen->size(), 0u);
  try {
    rig.ssc.await_termination();
    ADD_FAILURE() << "nothing was delivered";
  } catch (const UserCodeError& error) {
    EXPECT_EQ(error.context().op, "map");
    EXPECT_EQ(error.context().application, "inputs-test");
    EXPECT_EQ(error.context().batch_time, at(1001));
    EXPECT_EQ(error.context().partition, 0u);
    EXPECT_THAT(error.what(), HasSubstr("no negative numbers"));
    EXPECT_THAT(error.what(), HasSubstr("batch 1001000 ms"));
    EXPECT_THROW(std::rethrow_if_nested(error), std::runtime_error);
  }
}

TEST(BatchOfTheProgram, ThatFailsNamesTheBatchTimeThatItWasUsedIn) {
  const auto bad = [](DiskRig& rig) { return rig.context.parallelize(std::vector<int>{1, -1}, 1); };
  expect_named_failure("queue", [&](DiskRig& rig) {
    const auto queue = std::make_shared<BatchQueue<int>>();
    queue->push(bad(rig));
    return rig.ssc.queue_stream(queue).map(fussy);
  });
  expect_named_failure("constant", [&](DiskRig& rig) { return rig.ssc.constant_stream(bad(rig)).map(fussy); });
  expect_named_failure("file_stream", [&](DiskRig& rig) {
    return rig.ssc.file_stream("in", [&](const auto&) { return bad(rig).map(fussy); });
  });
  expect_named_failure("transform", [&](DiskRig& rig) {
    return rig.ssc.constant_stream(rig.context.empty_batch<int>()).transform([&](const Batch<int>&) {
      return bad(rig).map(fussy);
    });
  });
}

TEST(BatchOfTheProgram, ThatCannotBeReadNamesTheBatchTimeThatItWasUsedIn) {
  DiskRig rig;
  auto seen = record(rig.ssc.constant_stream(rig.context.text_file("missing")));
  rig.ssc.start(Drive::by_host);
  rig.pass();
  try {
    rig.ssc.await_termination();
    ADD_FAILURE() << "nothing was delivered";
  } catch (const SourceError& error) {
    EXPECT_EQ(error.code(), "not_found");
    EXPECT_EQ(error.context().op, "text_file");
    EXPECT_EQ(error.context().batch_time, at(1001));
  }
}

// ---- files ------------------------------------------------------------------------------------------------------------------

TEST(TextFileStream, LeavesOutALineThatIsTooLongAndSaysSoOnceHoweverOftenTheBatchIsComputed) {
  DiskRig rig;
  const auto lines = rig.ssc.text_file_stream("in", {.max_line_bytes = 5});
  auto seen = record(lines);
  auto upper = record(lines.map([](std::string_view line) { return line.size(); }));
  rig.ssc.start(Drive::by_host);
  rig.put("a", "good\ntoo long\nfine\n");
  rig.pass();
  EXPECT_THAT(seen->all(), ElementsAre(Seen<std::string>{at(1001), {"good", "fine"}}));
  EXPECT_THAT(upper->all(), ElementsAre(Seen<std::size_t>{at(1001), {4, 4}}));
  EXPECT_EQ(rig.ssc.metrics().receiver_errors, 1u);
  EXPECT_TRUE(
      rig.log.says("warning: directory in: in/a: the line at byte 5 is longer than 5 bytes", "left out so far: 1"));
  rig.put("b", "too long\nlonger yet\nend");
  rig.pass();
  EXPECT_EQ(seen->all().back(), (Seen<std::string>{at(1002), {"end"}}));
  EXPECT_EQ(rig.ssc.metrics().receiver_errors, 2u);
  EXPECT_TRUE(rig.log.says("warning: directory in: in/b: the line at byte 0 is longer", "left out so far: 3"));
  EXPECT_EQ(rig.ssc.metrics().total_failed_batches, 0u);
}

TEST(TextFileStream, ABatchThatOutlivesItsContextStillLeavesOutALineThatIsTooLong) {
  auto rig = std::make_unique<DiskRig>();
  std::optional<Batch<std::string_view>> kept;
  rig->ssc.text_file_stream("in", {.max_line_bytes = 5}).foreach_batch([&](const Batch<std::string_view>& batch) {
    kept = batch;
  });
  rig->ssc.start(Drive::by_host);
  rig->put("a", "good\ntoo long\n");
  rig->pass();
  rig.reset();
  EXPECT_THAT(kept->collect(), ElementsAre("good"));
}

}  // namespace
}  // namespace tidemill
