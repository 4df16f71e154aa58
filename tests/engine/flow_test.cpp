// Flow control: static caps, backpressure, and the bound on batches that wait. Time passes only where a test says so: in its
// producer, or in an output operation, where it stands for work. SEMANTICS BP1–BP8, B5, L12.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>

#include "engine/harness.hpp"
#include "io/fake_host.hpp"

namespace tidemill {
namespace {

using namespace testing_engine;

// A receiver that takes what may go in, never waits, and counts what it had to leave with its source.
class Tap : public Feed<std::int64_t> {
 public:
  void offer(std::size_t records) {
    waiting_outside += records;
    const std::size_t now = std::min(waiting_outside, allowance());
    if (now != 0) put_all(std::vector<std::int64_t>(now));
    waiting_outside -= now;
    most_buffered = std::max(most_buffered, buffered());
  }
  std::size_t waiting_outside = 0;
  std::size_t most_buffered = 0;
};

// A producer of `offered` records a second, and a consumer that needs 1 / `capacity` seconds for each. The producer goes on
// while the consumer works.
class Plant {
 public:
  Plant(StreamingOptions options, ReceiverOptions receiver, double capacity)
      : rig{Duration{1s}, options}, capacity_{capacity} {
    rig.ssc.receiver_stream(tap, std::move(receiver)).foreach_batch([this](const auto& batch, Time) {
      const double work = static_cast<double>(batch.count()) / capacity_;
      pass(std::chrono::ceil<Duration>(std::chrono::duration<double>{work}));
    });
    rig.ssc.start(Drive::by_host);
  }

  // Runs the next batch; time passes until it is due.
  BatchInfo next_batch() {
    while (!rig.ssc.step()) pass(10ms);
    return *rig.ssc.metrics().last_completed_batch;
  }
  [[nodiscard]] InputRate rate() const { return rig.ssc.metrics().input_rates.at(0); }

  Rig rig;
  std::shared_ptr<Tap> tap = std::make_shared<Tap>();
  double offered = 0;

 private:
  // In steps of up to 10 ms, one of which ends at each tick.
  void pass(Duration d) {
    for (const Time end = rig.clock->now() + d; rig.clock->now() < end;) {
      const Time next = std::min(end, floor_to(rig.clock->now(), 10ms) + 10ms);
      const Duration step = next - rig.clock->now();
      rig.clock->advance(step);
      produced_ += offered * std::chrono::duration<double>{step}.count();
      const double whole = std::floor(produced_ + 1e-6);
      produced_ -= whole;
      tap->offer(static_cast<std::size_t>(whole));
    }
  }

  const double capacity_;
  double produced_ = 0;  // the part of a record that is not there yet
};

TEST(Flow, MaxRateBoundsEveryBatchAndLeavesTheRestWithTheSource) {  // BP1
  Plant plant{{}, {.max_rate = 1000}, 1e9};
  plant.offered = 5000;
  for (int i = 0; i < 5; ++i) EXPECT_EQ(plant.next_batch().num_records(), 1000u);
  EXPECT_EQ(plant.tap->waiting_outside, 20'000u);
  EXPECT_LE(plant.tap->most_buffered, 1000 * sizeof(std::int64_t));
  EXPECT_EQ(plant.rate().limit, 1000);
  EXPECT_EQ(plant.rate().estimate, std::nullopt);
}

TEST(Flow, MetricsTellTheRateOfEachReceiver) {
  Rig rig{1s, {.backpressure = Backpressure{.initial_rate = 500}}};
  auto a = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>(), {.name = "a"}));
  auto b = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>(), {.name = "b", .max_rate = 300}));
  auto c = record(rig.ssc.queue_stream(std::make_shared<BatchQueue<int>>()));
  rig.ssc.start(Drive::by_host);
  const auto rates = rig.ssc.metrics().input_rates;
  ASSERT_EQ(rates.size(), 2u) << "a queue takes what it finds";
  EXPECT_EQ(rates[0].name, "a");
  EXPECT_EQ(rates[0].limit, 500) << "BP2";
  EXPECT_EQ(rates[1].name, "b");
  EXPECT_EQ(rates[1].limit, 300) << "BP8";
}

TEST(Flow, TheFirstBatchPublishesNothingAndLaterOnesWhatTheyWorkOn) {  // BP3, BP7
  Plant plant{{.backpressure = Backpressure{.initial_rate = 2000}}, {}, 1000};
  plant.offered = 100'000;
  EXPECT_EQ(plant.next_batch().num_records(), 2000u);
  EXPECT_EQ(plant.rate().limit, 2000);
  EXPECT_EQ(plant.rate().estimate, std::nullopt);
  const BatchInfo second = plant.next_batch();
  EXPECT_EQ(second.num_records(), 2000u);
  EXPECT_EQ(second.scheduling_delay(), Duration{1s}) << "the first took 2 s";
  ASSERT_TRUE(plant.rate().estimate);
  EXPECT_NEAR(*plant.rate().estimate, 1000 - 0.2 * 1000, 1) << "its speed less a fifth of what had piled up";
  const double estimate = *plant.rate().estimate;
  EXPECT_NEAR(static_cast<double>(plant.next_batch().num_records()), estimate, 1) << "at once";
}

TEST(Flow, TheEstimateNeverExceedsMaxRate) {  // BP8
  Plant plant{{.backpressure = Backpressure{}}, {.max_rate = 800}, 1000};
  plant.offered = 100'000;
  for (int i = 0; i < 5; ++i) EXPECT_EQ(plant.next_batch().num_records(), 800u);
  EXPECT_NEAR(*plant.rate().estimate, 1000, 1);
  EXPECT_EQ(plant.rate().limit, 800);
}

TEST(Flow, AnIdleBatchChangesNothing) {  // BP4
  Plant plant{{.backpressure = Backpressure{.initial_rate = 2000}}, {}, 1000};
  plant.offered = 1500;
  for (int i = 0; i < 3; ++i) plant.next_batch();
  plant.offered = 0;
  while (plant.next_batch().num_records() != 0) {
  }
  const double before = plant.rate().limit;
  for (int i = 0; i < 10; ++i) plant.next_batch();
  EXPECT_EQ(plant.rate().limit, before);
}

// records a second offered    10 k . . . . . . . 1 M . . . . . . . . 10 k . . . . . . . .
// the consumer works on       100 k
// let in                      10 k               100 k                100 k until the source has none left, 10 k
TEST(Flow, AStepFromTenThousandToAMillionAndBackThroughASlowConsumer) {
  constexpr double capacity = 100'000;
  constexpr std::size_t bound = 1 << 20;  // an interval of the consumer is 800 kB
  Plant plant{{.backpressure = Backpressure{}}, {.inbox = {.max_buffered_bytes = bound}}, capacity};
  std::size_t batch = 0;
  const auto check_memory = [&] { ASSERT_LE(plant.tap->most_buffered, bound) << "batch " << batch; };

  plant.offered = 10'000;
  for (; batch < 10; ++batch) {
    const BatchInfo info = plant.next_batch();
    EXPECT_EQ(info.num_records(), 10'000u) << "batch " << batch;
    EXPECT_EQ(info.scheduling_delay(), Duration::zero()) << "batch " << batch;
    ASSERT_NO_FATAL_FAILURE(check_memory());
  }
  EXPECT_NEAR(plant.rate().limit, capacity, 1) << "known from small batches already";

  plant.offered = 1'000'000;
  for (; batch < 50; ++batch) {
    const BatchInfo info = plant.next_batch();
    EXPECT_LE(info.num_records(), capacity + 1) << "batch " << batch;
    EXPECT_GE(plant.rate().limit, 0.8 * capacity) << "batch " << batch;
    EXPECT_LE(plant.rate().limit, 1.01 * capacity) << "batch " << batch;
    EXPECT_LE(*info.scheduling_delay(), Duration{50ms}) << "batch " << batch;
    if (batch > 12) {
      EXPECT_GE(info.num_records(), 0.9 * capacity) << "the consumer is kept busy, batch " << batch;
    }
    ASSERT_NO_FATAL_FAILURE(check_memory());
  }
  const std::size_t backlog = plant.tap->waiting_outside;
  EXPECT_GT(backlog, 30'000'000u) << "the source keeps what the consumer has no time for";

  plant.offered = 10'000;
  plant.tap->waiting_outside = 500'000;  // it gives up on most of it
  for (; batch < 60; ++batch) {
    const BatchInfo info = plant.next_batch();
    EXPECT_LE(*info.scheduling_delay(), Duration{50ms}) << "batch " << batch;
    ASSERT_NO_FATAL_FAILURE(check_memory());
  }
  for (; batch < 70; ++batch) {
    const BatchInfo info = plant.next_batch();
    EXPECT_EQ(info.num_records(), 10'000u) << "recovered, batch " << batch;
    EXPECT_EQ(info.scheduling_delay(), Duration::zero()) << "batch " << batch;
  }
  EXPECT_EQ(plant.tap->waiting_outside, 0u);
  EXPECT_EQ(plant.rig.ssc.metrics().merged_ticks, 0u);
}

TEST(Flow, WhatCameInBeforeThereWasAnEstimateIsWorkedOffInSmallBatches) {
  Plant plant{{.backpressure = Backpressure{}}, {}, 1000};
  plant.offered = 20'000;  // without an initial rate, the first batch takes all of it: 20 s of work
  EXPECT_EQ(plant.next_batch().num_records(), 20'000u);
  plant.offered = 0;
  const BatchInfo second = plant.next_batch();
  EXPECT_EQ(second.num_records(), 20'000u) << "a single sample is not enough";
  std::size_t records = 40'000;
  int batches = 0;
  for (; records < 20 * 20'000 + 20'000 && batches < 2000; ++batches) {
    const BatchInfo info = plant.next_batch();
    EXPECT_LE(info.num_records(), 1001u);
    records += info.num_records();
  }
  EXPECT_EQ(records, 420'000u) << "nothing is lost";
  EXPECT_LE(*plant.rig.ssc.metrics().last_completed_batch->scheduling_delay(), Duration{10ms});
}

TEST(Flow, AGracefulStopWorksOnAllThatTheRateHeldBack) {  // L12
  Rig rig{1s};
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed, {.max_rate = 10}));
  rig.ssc.start(Drive::by_host);
  rig.clock->advance(500ms);
  feed->put_all(std::vector<int>(1000));
  rig.pass(500ms);
  EXPECT_EQ(seen->all().at(0).records.size(), 10u);
  EXPECT_TRUE(rig.ssc.stop(StopMode::graceful));
  std::size_t records = 0;
  for (const auto& batch : seen->all()) records += batch.records.size();
  EXPECT_EQ(records, 1000u);
}

TEST(Flow, AStoppedContextLetsGoAProducerThatWaitsForTheRate) {
  Rig rig{1s};
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed, {.max_rate = 10}));
  std::thread producer;
  Door stored;
  feed->when_started = [&] {
    producer = std::thread{[&] {
      for (int i = 0; feed->put(i); ++i) {
        if (i == 8) stored.open();
      }
    }};
  };
  feed->when_stopped = [&] { producer.join(); };
  rig.ssc.start(Drive::by_host);
  rig.clock->advance(900ms);
  ASSERT_TRUE(stored.wait());
  EXPECT_TRUE(rig.ssc.stop(StopMode::graceful));
  std::size_t records = 0;
  for (const auto& batch : seen->all()) records += batch.records.size();
  EXPECT_EQ(records, 9u);
}

// ---- through TCP ------------------------------------------------------------------------------------------------------------

// Sends numbered lines of 64 bytes as fast as its socket takes them, and says how many bytes that were and when it is held back.
class Torrent {
 public:
  static constexpr std::size_t line_bytes = 64;
  explicit Torrent(std::size_t lines) : lines_{lines} {}

  void send(testing_io::Server::Socket& socket) {
    socket.set_option(boost::asio::socket_base::send_buffer_size{1 << 16});
    socket.non_blocking(true);
    std::string text;
    std::size_t sent = 0;
    for (std::size_t next = 0; next < lines_ || sent < text.size();) {
      if (sent == text.size()) {
        text.clear();
        for (const std::size_t end = std::min(lines_, next + 1000); next < end; ++next) {
          const std::string number = std::to_string(next);
          text += std::string(line_bytes - 1 - number.size(), '0') + number + '\n';
        }
        sent = 0;
      }
      boost::system::error_code failure;
      const std::size_t bytes = socket.write_some(boost::asio::buffer(text.data() + sent, text.size() - sent), failure);
      sent += bytes;
      accepted += bytes;
      if (failure == boost::asio::error::would_block) {
        held_back = true;
        socket.non_blocking(false);  // else the wait does not wait
        socket.wait(boost::asio::socket_base::wait_type::wait_write, failure);
        socket.non_blocking(true);
        held_back = false;
      }
      if (failure) break;
    }
    done = true;
    socket.non_blocking(false);
    testing_io::Server::wait_until_peer_closes(socket);
  }

  std::atomic<std::size_t> accepted = 0;  // bytes
  std::atomic<bool> held_back = false;
  std::atomic<bool> done = false;

 private:
  const std::size_t lines_;
};

// The most that the system keeps of a connection for its reader.
std::size_t most_kernel_bytes() {
  std::size_t least = 0;
  std::size_t usual = 0;
  std::size_t most = 0;
  std::ifstream limits{"/proc/sys/net/ipv4/tcp_rmem"};
  return limits >> least >> usual >> most ? most : std::size_t{6} << 20;
}

TEST(Flow, ASlowConsumerHoldsBackAProducerThroughTcpAndNothingIsLost) {
  constexpr std::size_t rate = 20'000;
  const SocketOptions options{.max_rate = rate};
  // What the producer may be ahead of the batches: an interval's records, one read, and the buffers of the system.
  const std::size_t bound =
      rate * Torrent::line_bytes + options.read_buffer_bytes + most_kernel_bytes() + (std::size_t{1} << 18);
  const std::size_t lines = 3 * bound / Torrent::line_bytes;
  Torrent torrent{lines};
  testing_io::Server server{{[&](auto& socket) { torrent.send(socket); }}};
  Rig rig{1s};
  std::size_t received = 0;
  std::size_t in_order = 0;
  std::size_t largest = 0;
  rig.ssc.socket_text_stream("127.0.0.1", server.port(), options).foreach_batch([&](const auto& batch) {
    const auto all = batch.collect();
    for (const std::string& line : all) in_order += std::stoul(line) == received++ ? 1 : 0;
    largest = std::max(largest, all.size());
  });
  rig.ssc.start(Drive::by_host);
  ASSERT_TRUE(eventually([&] { return torrent.held_back || torrent.done; }));
  EXPECT_FALSE(torrent.done) << "far less than all goes in while the clock stands still";
  while (received < lines) {
    ASSERT_LE(torrent.accepted - received * Torrent::line_bytes, bound);
    ASSERT_TRUE(eventually([&] { return torrent.held_back || torrent.done; }));
    rig.pass(100ms);
    ASSERT_LT(rig.clock->now(), at(1e6)) << "what was sent does not arrive";
  }
  EXPECT_EQ(received, lines);
  EXPECT_EQ(in_order, lines) << "each line once";
  EXPECT_LE(largest, rate + 1);
  rig.ssc.stop();
}

// ---- the bound on batches that wait -----------------------------------------------------------------------------------------

TEST(PendingBatches, BeyondTheBoundTheOldestTicksAreMergedAndTheirRecordsKept) {  // B5, EN3
  Rig rig{1s, {.max_pending_batches = 3}};
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start(Drive::by_host);
  for (int i = 1; i <= 7; ++i) {
    rig.clock->advance(500ms);
    feed->put(i);
    rig.clock->advance(500ms);
  }
  EXPECT_EQ(rig.ssc.metrics().waiting_batches, 7u);
  EXPECT_EQ(rig.pass(0s), 3u);
  // The ticks of 1001 s to 1007 s wait; the first four go into that of 1005 s.
  EXPECT_THAT(seen->all(),
              ElementsAre(Seen<int>{at(1005), {1, 2, 3, 4, 5}}, Seen<int>{at(1006), {6}}, Seen<int>{at(1007), {7}}));
  EXPECT_EQ(rig.ssc.metrics().merged_ticks, 4u);
  EXPECT_TRUE(rig.log.says("warning: batches are too slow: more than 3 (max_pending_batches) were waiting",
                           "takes what the 4 before it would have had"));
  feed->put(8);
  EXPECT_EQ(rig.pass(1s), 1u) << "and then as always";
  EXPECT_EQ(seen->all().back(), (Seen<int>{at(1008), {8}}));
  EXPECT_EQ(rig.ssc.metrics().last_completed_batch->merged_ticks, 0u);
}

TEST(PendingBatches, UpToTheBoundEveryTickHasItsBatch) {  // EN3
  Rig rig{1s, {.max_pending_batches = 7}};
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  rig.ssc.start(Drive::by_host);
  EXPECT_EQ(rig.pass(7s), 7u);
  EXPECT_EQ(rig.ssc.metrics().merged_ticks, 0u);
}

TEST(PendingBatches,
     AMergePassesOverNoTickOfAStreamWithALongerSlide) {  // EN3: a tumbling window would lose what it held
  Rig rig{1s, {.max_pending_batches = 1}};
  const auto feed = std::make_shared<Feed<int>>();
  const auto stream = rig.ssc.receiver_stream(feed);
  auto sums = record(stream.reduce_by_window(std::plus<>{}, 4s, 4s));
  rig.ssc.start(Drive::by_host);
  for (int i = 1; i <= 10; ++i) {
    rig.clock->advance(500ms);
    feed->put(i);
    rig.clock->advance(500ms);
  }
  EXPECT_EQ(rig.pass(0s), 3u);  // 1004 s, 1008 s, 1010 s
  EXPECT_EQ(rig.ssc.metrics().merged_ticks, 7u);
  EXPECT_THAT(sums->all(), ElementsAre(Seen<int>{at(1004), {1 + 2 + 3 + 4}}, Seen<int>{at(1008), {5 + 6 + 7 + 8}}));
}

TEST(PendingBatches, AListenerHearsHowManyTicksABatchStandsFor) {
  struct Ear : StreamingListener {
    std::vector<std::uint64_t> merged;
    void on_batch_completed(const BatchInfo& batch) override { merged.push_back(batch.merged_ticks); }
  };
  Rig rig{1s, {.max_pending_batches = 2}};
  auto seen = record(rig.ssc.receiver_stream(std::make_shared<Feed<int>>()));
  const auto ear = std::make_shared<Ear>();
  rig.ssc.add_listener(ear);
  rig.ssc.start(Drive::by_host);
  rig.pass(5s);
  EXPECT_THAT(ear->merged, ElementsAre(3u, 0u));
}

TEST(PendingBatches, AGracefulStopDrainsWhatWaits) {  // L12
  Rig rig{1s, {.max_pending_batches = 2}};
  const auto feed = std::make_shared<Feed<int>>();
  auto seen = record(rig.ssc.receiver_stream(feed));
  rig.ssc.start(Drive::by_host);
  for (int i = 1; i <= 5; ++i) {
    rig.clock->advance(500ms);
    feed->put(i);
    rig.clock->advance(500ms);
  }
  rig.clock->advance(500ms);
  feed->put(6);
  EXPECT_TRUE(rig.ssc.stop(StopMode::graceful));
  EXPECT_THAT(seen->all(),
              ElementsAre(Seen<int>{at(1004), {1, 2, 3, 4}}, Seen<int>{at(1005), {5}}, Seen<int>{at(1006), {6}}));
}

TEST(FlowOptions, AreRefusedWhenTheyCannotBe) {
  EXPECT_THAT(message_of<ConfigError>([] { Rig{1s, {.max_pending_batches = 0}}; }), HasSubstr("give at least 1"));
  EXPECT_THAT(message_of<ConfigError>([] { Rig{1s, {.backpressure = Backpressure{.kp = -1}}}; }), HasSubstr("kp"));
  EXPECT_THAT(message_of<ConfigError>([] {
                Rig{on_arrival, {.backpressure = Backpressure{}}};
              }),
              HasSubstr("give the context a batch interval, or the inputs a max_rate"));
  Rig rig;
  const auto receiver = [&](ReceiverOptions options) {
    return message_of<ConfigError>(
        [&] { (void)rig.ssc.receiver_stream(std::make_shared<Feed<int>>(), std::move(options)); });
  };
  EXPECT_THAT(receiver({.max_rate = -5}), HasSubstr("max_rate must be above 0 records a second, and it is -5"));
  EXPECT_THAT(receiver({.block_interval = 0s}), HasSubstr("block_interval must be positive"));
  EXPECT_THAT(message_of<ConfigError>([&] { (void)rig.ssc.socket_text_stream("localhost", 9, {.max_rate = 0}); }),
              HasSubstr("max_rate"));
}

}  // namespace
}  // namespace tidemill
