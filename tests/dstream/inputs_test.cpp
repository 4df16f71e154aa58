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

TEST(FileStream, GivesEachBatchWhatTheProgramMakesOfTheNewFilesAlsoOfNone) {  // C10
  DiskRig rig;
  std::vector<std::vector<std::string>> calls;
  auto seen = record(rig.ssc.file_stream("in", [&](const std::vector<std::filesystem::path>& paths) {
    std::vector<std::string> names;
    for (const auto& path : paths) names.push_back(path.filename().string());
    calls.push_back(names);
    return rig.context.parallelize(names).map([](std::string_view name) { return "the file " + std::string{name}; });
  }));
  rig.ssc.start(Drive::by_host);
  rig.clock->advance(500ms);
  rig.put("a", "1");
  rig.put("b", "2");
  rig.clock->advance(500ms);
  EXPECT_TRUE(rig.ssc.step());
  rig.pass();
  rig.put("c", "3");
  rig.pass();
  EXPECT_THAT(calls, ElementsAre(ElementsAre("a", "b"), IsEmpty(), ElementsAre("c"))) << "once an interval";
  EXPECT_THAT(seen->all(), ElementsAre(Seen<std::string>{at(1001), {"the file a", "the file b"}},
                                       Seen<std::string>{at(1002), {}}, Seen<std::string>{at(1003), {"the file c"}}));
}

TEST(BinaryRecordsStream, GivesTheRecordsOfNewFiles) {  // C12
  DiskRig rig;
  auto seen = record(rig.ssc.binary_records_stream("in", 3).map([](std::span<const std::byte> bytes) {
    std::string text;
    for (const std::byte byte : bytes) text += static_cast<char>(byte);
    return text;
  }));
  rig.ssc.start(Drive::by_host);
  rig.put("a", "onetwo");
  rig.pass();
  rig.put("b", "six");
  rig.put("c", "");
  rig.pass();
  EXPECT_THAT(seen->all(),
              ElementsAre(Seen<std::string>{at(1001), {"one", "two"}}, Seen<std::string>{at(1002), {"six"}}));
}

TEST(BinaryRecordsStream, FailsTheBatchOverAFileThatIsNoWholeNumberOfRecords) {  // C12
  DiskRig rig;
  auto seen = record(rig.ssc.binary_records_stream("in", 3));
  rig.ssc.start(Drive::by_host);
  rig.put("a", "onetw");
  rig.pass();
  EXPECT_EQ(code_of<SourceError>([&] { rig.ssc.await_termination(); }), "record_length");
  EXPECT_EQ(seen->size(), 0u);
}

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

// ---- sockets ----------------------------------------------------------------------------------------------------------------

/// All that `stream` gives of what a server sends, until there are `records` records.
template <class S>
[[nodiscard]] auto receive(Rig& rig, const S& stream, std::size_t records) {
  std::vector<owned_t<typename S::value_type>> all;
  stream.foreach_batch([&all](const auto& batch) {
    for (auto& one : batch.collect()) all.push_back(std::move(one));
  });
  rig.ssc.start(Drive::by_host);
  EXPECT_TRUE(eventually([&] {
    while (rig.ssc.step()) {
    }
    return all.size() >= records;
  }));
  rig.ssc.stop();
  EXPECT_EQ(rig.ssc.metrics().total_received_records, records);
  return all;
}

TEST(SocketStream, GivesWhatTheDecoderMakesOfTheBytes) {  // C8
  Server server{{Server::sends_and_stays("12;345;6;")}};
  Rig rig{on_arrival};
  const auto until_semicolon = [](std::span<const std::byte> received, bool, std::vector<int>& out) {
    std::size_t taken = 0;
    int number = 0;
    for (std::size_t i = 0; i < received.size(); ++i) {
      const char c = static_cast<char>(received[i]);
      if (c != ';') {
        number = number * 10 + (c - '0');
        continue;
      }
      out.push_back(std::exchange(number, 0));
      taken = i + 1;
    }
    return taken;
  };
  const auto numbers = rig.ssc.socket_stream<int>("127.0.0.1", server.port(), until_semicolon);
  EXPECT_THAT(receive(rig, numbers.map([](int i) { return i + 1; }), 3), ElementsAre(13, 346, 7));
}

TEST(RawSocketStream, GivesTheRecordsOfTheBlocks) {  // C9, I2
  using Sale = std::pair<std::string, int>;
  const std::vector<Sale> morning{{"tea", 2}, {"milk", 1}};
  const std::vector<Sale> evening{{"wine", 3}};
  Server server{{Server::sends_and_stays(encode_raw_block(morning) + encode_raw_block(evening))}};
  Rig rig{on_arrival};
  const auto sales = rig.ssc.raw_socket_stream<Sale>("127.0.0.1", server.port());
  EXPECT_THAT(receive(rig, sales.map_values([](int n) { return 10 * n; }), 3),
              ElementsAre(Sale{"tea", 20}, Sale{"milk", 10}, Sale{"wine", 30}));
}

}  // namespace
}  // namespace tidemill
