// What the tests of the source share: one life of a program that reads Kafka, driven batch by batch. Brokers answer in their own
// time, so a test waits for what it needs to be there, up to a deadline that only a broken test reaches; then it moves the clock.
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "kafka/input.hpp"
#include "tidemill/kafka/mock_kafka.hpp"
#include "tidemill/testing/sim_fs.hpp"

namespace tidemill::testing_kafka {

using namespace std::chrono_literals;
using testing::MockKafka;
using testing::MockRecord;
using testing::SimFs;

template <class Condition>
[[nodiscard]] bool await(const Condition& condition, std::chrono::seconds at_most = 60s) {
  const auto deadline = std::chrono::steady_clock::now() + at_most;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

[[nodiscard]] inline std::vector<MockRecord> numbers(int first, int end, std::size_t size = 0) {
  std::vector<MockRecord> records;
  for (int i = first; i < end; ++i) {
    std::string value = std::to_string(i);
    if (value.size() < size) value.insert(0, size - value.size(), '0');
    records.push_back({.value = std::move(value)});
  }
  return records;
}

/// For a source on the mock cluster: it answers fetches without data only when their time is up.
[[nodiscard]] inline KafkaSource source_of(const MockKafka& kafka, std::vector<std::string> topics) {
  return {.brokers = kafka.brokers(),
          .topics = std::move(topics),
          .start = KafkaStart::earliest(),
          .settings = {{"fetch.wait.max.ms", "5"}, {"reconnect.backoff.max.ms", "100"}}};
}

class Life final : public StreamingListener {
 public:
  struct Options {
    std::shared_ptr<SimFs> disk = nullptr;  ///< with one: a checkpoint
    Time now{1000s};
    bool on_arrival = false;
    StreamingOptions streaming = {};
  };

  Life(KafkaSource source, Options options) : clock{std::make_shared<ManualClock>(options.now)}, disk_{options.disk} {
    const Context context{{.app_name = "reader",
                           .parallelism = 1,
                           .executor = nullptr,
                           .clock = clock,
                           .log =
                               [this](LogLevel, std::string_view line) {
                                 const std::scoped_lock lock{mutex_};
                                 log_ += std::string{line} + '\n';
                               },
                           .fs = options.disk}};
    input = std::make_shared<detail::KafkaInput>("reader", std::move(source));
    const auto build = [&] {
      auto fresh = options.on_arrival ? std::make_unique<StreamingContext>(context, on_arrival, options.streaming)
                                      : std::make_unique<StreamingContext>(context, 1s, options.streaming);
      const auto records = detail::make_kafka_stream(*fresh, input);
      records.foreach_batch([this](const Batch<KafkaRecord>& batch, Time t) {
        ranges[t] = offset_ranges(batch);
        on_batch(ranges[t]);
        taken[t] = batch.collect();
        if (disk_) killed = disk_->copy(7);
      });
      return fresh;
    };
    if (options.disk) {
      RecoveryOptions recovery;
      recovery.store.plan_segment_bytes = recovery.store.commit_segment_bytes = 4096;
      ssc = StreamingContext::get_or_create("checkpoint", build, std::move(recovery));
    } else {
      ssc = build();
    }
    ssc->add_listener(std::shared_ptr<StreamingListener>{std::shared_ptr<void>{}, this});
  }
  explicit Life(KafkaSource source) : Life(std::move(source), Options{}) {}
  ~Life() override { ssc.reset(); }

  void start() const { ssc->start(Drive::by_host); }
  /// One interval, with its batch and those that were due before.
  void pass() const {
    clock->advance(1s);
    while (ssc->step()) {
    }
  }
  /// Once so many records wait.
  [[nodiscard]] bool pass_with(std::size_t records) const {
    const bool are_there = await([&] { return input->buffered_records() >= records; });
    pass();
    return are_there;
  }

  /// The values of all batches, in order of time, partition and offset.
  [[nodiscard]] std::vector<std::string> values() const {
    std::vector<std::string> all;
    for (const auto& [_, records] : taken) {
      for (const OwnedKafkaRecord& record : records) all.push_back(record.value.value_or("(none)"));
    }
    return all;
  }
  [[nodiscard]] std::vector<OwnedKafkaRecord> last() const { return taken.rbegin()->second; }
  /// Passes whenever something waits, until so many records have been in batches.
  [[nodiscard]] bool pass_until(std::size_t records) const {
    std::size_t all = 0;
    for (const auto& [_, some] : taken) all += some.size();
    return await([&] {
      if (input->buffered_records() != 0) {
        pass();
        all += taken.rbegin()->second.size();
      }
      return all >= records;
    });
  }
  /// Whether the listener hears, sooner or later, of an error with these words.
  [[nodiscard]] bool is_told(const std::string& words) const {
    if (!await([&] { return has_said(words); })) return false;  // what is told is logged at once
    pass();
    return std::any_of(errors.begin(), errors.end(),
                       [&](const std::string& error) { return error.find(words) != std::string::npos; });
  }
  /// The error with which the context ended, or that a batch left behind.
  [[nodiscard]] std::string failure() const {
    try {
      static_cast<void>(ssc->await_termination_or_timeout(Duration::zero()));
    } catch (const Error& error) {
      return error.code() + ": " + error.what();
    }
    return "none";
  }
  [[nodiscard]] bool has_said(const std::string& words) const {
    const std::scoped_lock lock{mutex_};
    return log_.find(words) != std::string::npos;
  }
  [[nodiscard]] std::string log() const {
    const std::scoped_lock lock{mutex_};
    return log_;
  }
  void on_batch_completed(const BatchInfo& batch) override {
    if (!batch.inputs.empty()) infos.push_back(batch.inputs[0]);
  }
  void on_receiver_error(const ReceiverInfo& error) override { errors.push_back(error.message); }

  std::function<void(const std::vector<KafkaOffsetRange>&)> on_batch = [](const auto&) {};
  std::shared_ptr<ManualClock> clock;
  std::shared_ptr<detail::KafkaInput> input;
  std::map<Time, std::vector<KafkaOffsetRange>> ranges;
  std::map<Time, std::vector<OwnedKafkaRecord>> taken;
  std::vector<InputInfo> infos;
  std::vector<std::string> errors;
  std::shared_ptr<SimFs> killed;  ///< the disk in the middle of the last batch
  std::unique_ptr<StreamingContext> ssc;

 private:
  std::shared_ptr<SimFs> disk_;
  mutable std::mutex mutex_;
  std::string log_;
};

[[nodiscard]] inline std::shared_ptr<SimFs> new_disk() {
  auto disk = std::make_shared<SimFs>(1);
  disk->sync_directory(".");
  return disk;
}

[[nodiscard]] inline std::vector<std::string> texts(int first, int end) {
  std::vector<std::string> all;
  for (int i = first; i < end; ++i) all.push_back(std::to_string(i));
  return all;
}

}  // namespace tidemill::testing_kafka
