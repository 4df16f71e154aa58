// What receivers and sockets take in, logged in a checkpoint: a program that is killed receives it again. R9-R11. A kill is a
// copy of the disk, taken at that instant: what a process leaves behind when it is gone.
#include <functional>
#include <memory>
#include <string>

#include "engine/harness.hpp"
#include "io/fake_host.hpp"
#include "tidemill/testing/sim_fs.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;
using testing::SimFs;
using Disk = std::shared_ptr<SimFs>;

RecoveryOptions logged(bool skip_corrupt_blocks = false) {
  RecoveryOptions options{.log_received = true};
  options.received.segment_bytes = 4096;
  options.received.skip_corrupt_blocks = skip_corrupt_blocks;
  options.store.plan_segment_bytes = 4096;
  options.store.commit_segment_bytes = 4096;
  return options;
}

// One life of a program with one receiver of ints, from 1000 s on.
struct Receiving {
  Disk disk;
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  Log log;
  std::shared_ptr<Feed<int>> feed = std::make_shared<Feed<int>>();
  std::shared_ptr<Journal<Seen<int>>> seen;
  std::function<void()> on_batch = [] {};
  std::unique_ptr<StreamingContext> ssc;

  explicit Receiving(Disk on, const RecoveryOptions& options = logged()) : disk{std::move(on)} {
    const Context context{{.app_name = "receiving",
                           .parallelism = 1,
                           .executor = nullptr,
                           .clock = clock,
                           .log = log.logger(),
                           .fs = disk}};
    ssc = StreamingContext::get_or_create(
        "checkpoint",
        [&] {
          auto fresh = std::make_unique<StreamingContext>(context, 1s);
          const auto records = fresh->receiver_stream(feed);
          records.foreach_batch([this](const auto&) { on_batch(); });
          seen = record(records);
          return fresh;
        },
        options);
    ssc->start(Drive::by_host);
  }
  std::size_t pass(Duration d) {
    clock->advance(d);
    std::size_t batches = 0;
    while (ssc->step()) ++batches;
    return batches;
  }
};

TEST(Received, ALogThatIsSwitchedOnKeepsWhatIsReceivedFromThenOn) {
  const auto disk = std::make_shared<SimFs>(1);
  Disk without_log;
  {
    Receiving before{disk, {}};
    before.feed->put_all({1, 2});
    EXPECT_EQ(before.pass(1s), 1u);
    before.feed->put_all({3, 4, 5});
    before.on_batch = [&] { without_log = disk->copy(1); };  // the plan is there, the commit is not
    EXPECT_EQ(before.pass(1s), 1u);
  }
  Disk between;
  Disk within;
  {
    Receiving job{without_log};
    EXPECT_TRUE(job.ssc->step());
    EXPECT_THAT(job.seen->all(), ElementsAre(Seen<int>{at(1002), {}})) << "nobody had kept it";
    EXPECT_TRUE(job.log.says("warning", "without 3 records of receiver"));
    job.feed->put_all({6, 7});
    between = without_log->copy(2);
    job.feed->put_all({8});
    job.on_batch = [&] { within = without_log->copy(3); };
    EXPECT_EQ(job.pass(3s), 1u);
  }
  {
    Receiving after{between};
    EXPECT_EQ(after.pass(3s), 1u);
    EXPECT_THAT(after.seen->all(), ElementsAre(Seen<int>{at(1003), {6, 7}}));
  }
  Receiving after{within};
  EXPECT_TRUE(after.ssc->step());
  EXPECT_THAT(after.seen->all(), ElementsAre(Seen<int>{at(1003), {6, 7, 8}}));
}

TEST(Received, ALogThatIsSwitchedOnIsKilledBeforeTheFirstBatch) {
  const auto disk = std::make_shared<SimFs>(1);
  Disk killed;
  {
    Receiving before{disk, {}};
    before.feed->put_all({1, 2, 3});
    before.on_batch = [&] { killed = disk->copy(1); };
    EXPECT_EQ(before.pass(1s), 1u);
  }
  {
    Receiving job{killed};
    job.feed->put_all({4, 5});
    killed = killed->copy(2);
  }
  Receiving after{killed};
  EXPECT_EQ(after.pass(2s), 2u);
  EXPECT_THAT(after.seen->all(), ElementsAre(Seen<int>{at(1001), {}}, Seen<int>{at(1002), {4, 5}}));
}

TEST(Received, ALogThatIsSwitchedOffIsRefusedByItsOption) {
  const auto disk = std::make_shared<SimFs>(1);
  { Receiving with{disk}; }
  EXPECT_THAT(message_of<PlanError>([&] { Receiving(disk, {}); }), HasSubstr("RecoveryOptions::log_received"));
  RecoveryOptions odd = logged();
  odd.received.segment_bytes = 5000;
  EXPECT_THAT(message_of<ConfigError>([&] { Receiving(disk, odd); }),
              HasSubstr("segment_bytes of a receiver's log is 5000"));
}

// What start() says about a program whose only stream `make` makes of a fresh context.
std::string start_on(const Disk& disk, const std::function<void(StreamingContext&)>& make) {
  Rig rig;
  const Context context{{.app_name = "another",
                         .parallelism = 1,
                         .executor = nullptr,
                         .clock = rig.clock,
                         .log = rig.log.logger(),
                         .fs = disk}};
  const auto ssc = StreamingContext::get_or_create(
      "checkpoint",
      [&] {
        auto fresh = std::make_unique<StreamingContext>(context, 1s);
        make(*fresh);
        return fresh;
      },
      logged());
  return message_of<PlanError>([&] { ssc->start(Drive::by_host); });
}

TEST(Received, RecordsOfAnotherTypeAreRefusedWithTheDifference) {
  const auto disk = std::make_shared<SimFs>(1);
  { Receiving with{disk}; }
  EXPECT_THAT(start_on(disk,
                       [](StreamingContext& ssc) {
                         static_cast<void>(record(ssc.receiver_stream(std::make_shared<Feed<std::string>>())));
                       }),
              HasSubstr("its setting is \"records of string\" and was \"records of i32\""));
  Receiving again{disk};
  EXPECT_EQ(again.pass(1s), 1u) << "nothing was changed";
}

TEST(Received, RawBlocksOfAnotherTypeAreRefusedWithTheDifference) {
  constexpr std::uint16_t nobody = 1;  // whether the connection comes about does not matter
  const auto disk = std::make_shared<SimFs>(1);
  const auto numbers = [](StreamingContext& ssc) {
    static_cast<void>(record(ssc.raw_socket_stream<std::int64_t>("127.0.0.1", nobody)));
  };
  EXPECT_EQ(start_on(disk, numbers), "nothing was thrown");
  EXPECT_THAT(start_on(disk,
                       [](StreamingContext& ssc) {
                         static_cast<void>(record(ssc.raw_socket_stream<double>("127.0.0.1", nobody)));
                       }),
              HasSubstr("its setting is \"records of f64\" and was \"records of i64\""));
  EXPECT_EQ(start_on(disk, numbers), "nothing was thrown");
}

// Flips a bit in the last byte of a log that is not zero.
void damage_end_of(SimFs& disk, const std::string& file) {
  std::string bytes = disk.contents(file);
  bytes[bytes.find_last_not_of('\0')] ^= 1;
  disk.set_contents(file, bytes);
}

TEST(Received, ALogWhoseEndIsLeftOutKeepsWhatIsReceivedFromThenOn) {
  for (const bool planned : {true, false}) {
    SCOPED_TRACE(planned ? "a plan names what is left out" : "no plan does");
    const auto disk = std::make_shared<SimFs>(1);
    Disk damaged;
    {
      Receiving before{disk};
      before.feed->put_all({1, 2});
      EXPECT_EQ(before.pass(1s), 1u);
      before.feed->put_all({3});
      before.feed->put_all({4, 5});
      if (!planned) damaged = disk->copy(1);
      before.on_batch = [&] {
        if (planned) damaged = disk->copy(1);
      };
      EXPECT_EQ(before.pass(1s), 1u);
    }
    damage_end_of(*damaged, "checkpoint/receivers/receiver/blocks-0000000001.log");
    Disk killed;
    {
      Receiving job{damaged, logged(true)};
      EXPECT_EQ(job.pass(2s), 1u);
      EXPECT_THAT(job.seen->all().front(), (Seen<int>{at(1002), {3}}));
      EXPECT_EQ(job.log.says("warning", "without 2 records of receiver"), planned);
      job.feed->put_all({6});
      job.feed->put_all({7, 8});
      killed = damaged->copy(3);
    }
    Receiving after{killed};
    EXPECT_EQ(after.pass(3s), 1u);
    EXPECT_THAT(after.seen->all(), ElementsAre(Seen<int>{at(1003), {6, 7, 8}}));
  }
}

TEST(Received, ALogThatLacksAFileIsRefusedOrLeftOut) {
  const auto disk = std::make_shared<SimFs>(1);
  std::vector<int> all;
  {
    Receiving before{disk};
    for (int i = 0; i < 20; ++i) {
      before.feed->put_all(std::vector<int>(300, i));
      all.insert(all.end(), 300, i);
    }
    disk->kill();  // nothing of it is in a plan
  }
  disk->restart();
  int refused = 0;
  for (const std::string& file : disk->files()) {
    if (file.find("blocks-") == std::string::npos) continue;
    const Disk damaged = disk->copy(1);
    damaged->erase(file);
    std::string message;
    const std::string code = code_of<StateError>([&] { Receiving{damaged}; }, &message);
    if (code == "nothing") continue;  // the one that was made ahead
    EXPECT_EQ(code, "checkpoint_damaged") << file;
    EXPECT_THAT(message, HasSubstr("receiver"));
    ++refused;
  }
  EXPECT_GT(refused, 3);
  // One in the middle: what comes after it is there, and is numbered so that a further kill loses nothing.
  disk->erase("checkpoint/receivers/receiver/blocks-0000000002.log");
  Disk killed;
  {
    Receiving job{disk, logged(true)};
    job.feed->put_all({-1});
    job.on_batch = [&] { killed = disk->copy(2); };
    EXPECT_EQ(job.pass(1s), 1u);
    const std::vector<int> seen = job.seen->all().at(0).records;
    ASSERT_LT(seen.size(), all.size());
    EXPECT_TRUE(std::equal(seen.rbegin() + 1, seen.rend(), all.rbegin()));
    all = seen;
  }
  Receiving after{killed, logged(true)};
  EXPECT_TRUE(after.ssc->step());
  EXPECT_EQ(after.seen->all().at(0).records, all);
}

// ---- sockets ------------------------------------------------------------------------------------------------------------

enum class Kind { text, decoded, raw };
std::string name_of(const ::testing::TestParamInfo<Kind>& test) {
  static constexpr const char* names[] = {"Text", "Decoded", "Raw"};
  return names[static_cast<std::size_t>(test.param)];
}

using Words = std::vector<std::string>;

// Lines, as a decoder of a user's makes them.
std::size_t decode_lines(std::span<const std::byte> received, bool, Words& out) {
  const std::string_view text{reinterpret_cast<const char*>(received.data()), received.size()};
  std::size_t taken = 0;
  for (std::size_t end = 0; (end = text.find('\n', taken)) != std::string_view::npos; taken = end + 1)
    out.emplace_back(text.substr(taken, end - taken));
  return taken;
}

// One life of a program with one socket, whose batches have at most two records.
struct Connected {
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  Log log;
  std::shared_ptr<Journal<Words>> batches = std::make_shared<Journal<Words>>();
  std::function<void(std::size_t)> on_batch = [](std::size_t) {};
  std::unique_ptr<StreamingContext> ssc;

  Connected(Kind kind, const Disk& disk, std::uint16_t port) {
    const Context context{{.app_name = "connected",
                           .parallelism = 1,
                           .executor = nullptr,
                           .clock = clock,
                           .log = log.logger(),
                           .fs = disk}};
    ssc = StreamingContext::get_or_create(
        "checkpoint",
        [&] {
          auto fresh = std::make_unique<StreamingContext>(context, OnArrival{.max_batch_records = 2});
          const auto keep = [this](const auto& batch, Time) {
            on_batch(batches->size());
            Words words;
            for (const auto& word : batch.collect()) words.emplace_back(word);
            batches->add(std::move(words));
          };
          switch (kind) {
            case Kind::text: fresh->socket_text_stream("127.0.0.1", port).foreach_batch(keep); break;
            case Kind::decoded:
              fresh->socket_stream<std::string>("127.0.0.1", port, decode_lines).foreach_batch(keep);
              break;
            case Kind::raw: fresh->raw_socket_stream<std::string>("127.0.0.1", port).foreach_batch(keep); break;
          }
          return fresh;
        },
        logged());
    ssc->start(Drive::by_host);
  }
  // All that the peer sent has been received.
  [[nodiscard]] bool peer_has_closed() const {
    return eventually([&] { return log.says("info", "the peer closed the connection"); });
  }
  void run() const {
    while (ssc->step()) clock->advance(1s);
  }
};

class ReceivedBySocket : public ::testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(, ReceivedBySocket, ::testing::Values(Kind::text, Kind::decoded, Kind::raw), name_of);

TEST_P(ReceivedBySocket, IsReceivedAgain) {
  const Words words{"a", "bc", "", "def", "g"};
  std::string bytes;
  for (const std::string& word : words) bytes += word + '\n';
  if (GetParam() == Kind::raw) bytes = encode_raw_block(words);

  const auto disk = std::make_shared<SimFs>(1);
  Disk received;
  std::map<std::size_t, Disk> within;  // a batch
  const std::uint16_t nobody = testing_io::free_port();
  {
    testing_io::Server server{{testing_io::Server::sends(bytes)}};
    Connected job{GetParam(), disk, server.port()};
    ASSERT_TRUE(job.peer_has_closed());
    received = disk->copy(1);
    job.on_batch = [&](std::size_t batch) { within[batch] = disk->copy(2 + batch); };
    job.run();
    EXPECT_THAT(job.batches->all(), ElementsAre(Words{"a", "bc"}, Words{"", "def"}, Words{"g"}));
  }
  for (std::size_t batch = 0; batch < 3; ++batch) {
    for (const bool power_went : {false, true}) {
      const Disk killed = within[batch]->copy(9);
      if (power_went) {
        killed->lose_power();
        killed->restart();
      }
      Connected job{GetParam(), killed, nobody};
      job.run();
      Words again;
      for (const Words& some : job.batches->all()) again.insert(again.end(), some.begin(), some.end());
      EXPECT_EQ(again, Words(words.begin() + static_cast<std::ptrdiff_t>(2 * batch), words.end()))
          << "killed within batch " << batch;
      EXPECT_EQ(job.batches->all().front(), (std::vector<Words>{{"a", "bc"}, {"", "def"}, {"g"}})[batch]);
    }
  }
  Connected job{GetParam(), received, nobody};
  job.run();
  EXPECT_THAT(job.batches->all(), ElementsAre(Words{"a", "bc"}, Words{"", "def"}, Words{"g"}))
      << "killed before any batch was planned with it";
}

}  // namespace
}  // namespace tidemill
