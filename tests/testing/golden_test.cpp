// The checkpoint of a program with every kind of state that the library keeps, written when version 1 of the format was made and
// killed within a batch: a later version of the library must go on from it as if nothing had happened.
//   TIDEMILL_WRITE_GOLDEN=file   writes it anew, in the form of golden_v1.inc; only with a new version of the format
#include "checkpoint/golden.hpp"

#include <cstdlib>
#include <fstream>
#include <map>

#include "engine/harness.hpp"
#include "tidemill/testing/sim_fs.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;
using testing::SimFs;
using Count = std::pair<std::string, long>;

constexpr const char* golden =
#include "testing/golden_v1.inc"
    ;

constexpr int steps = 12;
constexpr int killed_in = 6;

// A disk with all files that come in, one in each batch: a file from the future waits. They are made first, so that they are the
// same files, by their numbers, on every disk.
std::shared_ptr<SimFs> disk_with_files() {
  auto disk = std::make_shared<SimFs>(1);
  disk->make_directory("in");
  for (int step = 0; step < steps; ++step) {
    disk->set_time(at(1000.5 + step));
    std::string text;
    for (int i = 0; i <= step % 4; ++i) text += "word" + std::to_string((step * 3 + i) % 7) + '\n';
    disk->set_contents("in/file" + std::to_string(step), text);
  }
  return disk;
}

struct Program {
  std::shared_ptr<ManualClock> clock;
  std::shared_ptr<Feed<std::string>> feed = std::make_shared<Feed<std::string>>();
  std::map<Time, std::string> put_out;
  std::function<void(Time)> at_end_of_batch = [](Time) {};
  std::unique_ptr<StreamingContext> ssc;

  Program(const std::shared_ptr<SimFs>& disk, Time now) : clock{std::make_shared<ManualClock>(now)} {
    const Context context{
        {.app_name = "golden", .parallelism = 1, .executor = nullptr, .clock = clock, .log = nullptr, .fs = disk}};
    RecoveryOptions options{.log_received = true};
    options.received.segment_bytes = 4096;
    options.store.snapshot_min_log_bytes = 1500;  // so that there is a snapshot, and a log behind it
    options.store.snapshot_log_fraction = 0.1;
    options.store.plan_segment_bytes = options.store.commit_segment_bytes = 4096;
    ssc = StreamingContext::get_or_create(
        "checkpoint",
        [&] {
          auto fresh = std::make_unique<StreamingContext>(context, 1s);
          build(*fresh);
          return fresh;
        },
        options);
    ssc->start(Drive::by_host);
  }

  template <class S>
  void show(const std::string& name, const S& stream) {
    stream.foreach_batch([this, name](const auto& batch, Time t) {
      std::multiset<std::string> lines;
      for (const auto& record : batch.collect()) {
        std::string line;
        append_text(line, record);
        lines.insert(line);
      }
      put_out[t] += name + ':';
      for (const std::string& line : lines) put_out[t] += ' ' + line;
      put_out[t] += '\n';
    });
  }

  void build(StreamingContext& context) {
    const auto ones = context.text_file_stream("in", {.new_files_only = false}).map([](std::string_view word) {
      return Count{std::string{word}, 1L};
    });
    show("running",
         ones.map_with_state(state_spec<long>([](const std::string& word, std::optional<long> one, State<long>& state) {
                               if (state.is_timing_out()) return Count{word + " timed out", state.get()};
                               state.update(state.get_option().value_or(0) + one.value_or(0));
                               return Count{word, state.get()};
                             }).timeout(3s)));
    show("totals", ones.update_state_by_key<long>([](const std::vector<long>& values, std::optional<long> total) {
      return std::optional<long>{total.value_or(0) + static_cast<long>(values.size())};
    }));
    show("inverse", ones.reduce_by_key_and_window(std::plus<>{}, std::minus<>{}, 4s, 1s, 2,
                                                  [](const std::string&, long count) { return count != 0; }));
    show("folded", ones.reduce_by_key_and_window(std::plus<>{}, 4s, 1s, 2));
    show("longest", ones.keys().reduce_by_window(
                        [](const std::string& a, const std::string& b) { return std::max(a, b); }, 4s, 2s));
    show("window", ones.keys().window(3s, 3s));
    show("received", context.receiver_stream(feed));
    ones.foreach_batch([this](const auto&, Time t) { at_end_of_batch(t); });
  }

  void run_step(int step) {
    clock->advance(500ms);
    feed->put_all({"r" + std::to_string(step) + "a", "r" + std::to_string(step) + "b"});
    clock->advance(500ms);
    while (ssc->step()) {
    }
  }
};

TEST(GoldenProgram, OfVersion1GoesOnAsIfNothingHadHappened) {
  const auto disk = disk_with_files();
  std::string killed;
  std::map<Time, std::string> expected;
  {
    Program program{disk, at(1000)};
    program.at_end_of_batch = [&](Time t) {
      if (t == at(1001 + killed_in)) killed = tidemill_test::golden_text(*disk);
    };
    for (int step = 0; step < steps; ++step) program.run_step(step);
    expected = program.put_out;
  }
  ASSERT_EQ(expected.size(), std::size_t{steps});
  if (const char* const file = std::getenv("TIDEMILL_WRITE_GOLDEN")) {
    std::ofstream{file} << "R\"(" << killed << ")\"\n";
    return;
  }
  const auto old = disk_with_files();
  tidemill_test::put_golden(*old, golden);
  Program program{old, at(1001 + killed_in)};
  EXPECT_TRUE(program.ssc->step()) << "the batch that was not finished";
  for (int step = killed_in + 1; step < steps; ++step) program.run_step(step);
  expected.erase(expected.begin(), expected.find(at(1001 + killed_in)));
  EXPECT_EQ(program.put_out, expected);
}

}  // namespace
}  // namespace tidemill
