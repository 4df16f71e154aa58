// What the tests of the engine and of streams share: a context on a manual clock with everything it says kept, a receiver that
// is fed by hand, an output that remembers. Nothing here sleeps; what needs another thread is awaited, with a deadline that only
// a broken test reaches.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tidemill/core/clock.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/dstream/streaming_context.hpp"

namespace tidemill::testing_engine {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

inline constexpr std::chrono::seconds deadline{60};

/// Seconds after the epoch; a ManualClock begins at 1000 s.
inline Time at(double seconds) { return Time{} + std::chrono::round<Duration>(std::chrono::duration<double>{seconds}); }

/// Awaits a condition that other threads bring about.
[[nodiscard]] inline bool eventually(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + deadline;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

/// Opens once, for all who wait.
class Door {
 public:
  void open() {
    {
      const std::scoped_lock lock{mutex_};
      open_ = true;
    }
    opened_.notify_all();
  }
  [[nodiscard]] bool wait() {
    std::unique_lock lock{mutex_};
    return opened_.wait_for(lock, deadline, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool open_ = false;
};

/// Things that several threads add and the test reads.
template <class T>
class Journal {
 public:
  void add(T entry) {
    {
      const std::scoped_lock lock{mutex_};
      entries_.push_back(std::move(entry));
    }
    grown_.notify_all();
  }
  [[nodiscard]] std::vector<T> all() const {
    const std::scoped_lock lock{mutex_};
    return entries_;
  }
  [[nodiscard]] std::size_t size() const { return all().size(); }
  [[nodiscard]] bool wait_for(std::size_t size) {
    std::unique_lock lock{mutex_};
    return grown_.wait_for(lock, deadline, [&] { return entries_.size() >= size; });
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable grown_;
  std::vector<T> entries_;
};

/// What the library logged: "warning: …".
class Log {
 public:
  [[nodiscard]] Logger logger() const {
    return [lines = lines_](LogLevel level, std::string_view line) {
      static constexpr const char* names[] = {"debug: ", "info: ", "warning: ", "error: "};
      lines->add(names[static_cast<std::size_t>(level)] + std::string{line});
    };
  }
  [[nodiscard]] std::vector<std::string> lines() const { return lines_->all(); }
  [[nodiscard]] bool says(std::string_view beginning, std::string_view part = {}) const {
    for (const std::string& line : lines()) {
      if (line.starts_with(beginning) && line.find(part) != std::string::npos) return true;
    }
    return false;
  }

 private:
  std::shared_ptr<Journal<std::string>> lines_ = std::make_shared<Journal<std::string>>();  // shared with the logger
};

/// A receiver whose records come from the test.
template <class T>
class Feed : public Receiver<T> {
 public:
  bool put(T record) { return this->store(std::move(record)); }
  bool put_all(std::vector<T> records) { return this->store(std::move(records)); }
  [[nodiscard]] std::size_t buffered() const { return this->buffered_bytes(); }
  using detail::ReceiverBase::report_error;
  using detail::ReceiverBase::restart;
  using detail::ReceiverBase::stop;

  std::function<void()> when_started = [] {};
  std::function<void()> when_stopped = [] {};
  Journal<std::string> life;  // "start", "stop"

 protected:
  void on_start() override {
    life.add("start");
    when_started();
  }
  void on_stop() override {
    life.add("stop");
    when_stopped();
  }
};

/// A batch as it came out.
template <class T>
struct Seen {
  Time time;
  std::vector<T> records;
  friend bool operator==(const Seen&, const Seen&) = default;
};
template <class T>
void PrintTo(const Seen<T>& seen, std::ostream* out) {
  *out << to_string(seen.time) << ' ' << ::testing::PrintToString(seen.records);
}

/// Registers an output that remembers every batch of `stream`.
template <class S>
[[nodiscard]] auto record(const S& stream) {
  using T = owned_t<typename S::value_type>;
  auto seen = std::make_shared<Journal<Seen<T>>>();  // shared with the output operation
  stream.foreach_batch([seen](const auto& batch, Time t) { seen->add({t, batch.collect()}); });
  return seen;
}

/// A context on a manual clock at 1000 s, with one thread, and a streaming context of one second unless told otherwise.
class Rig {
 public:
  template <class Gate = Duration>
  explicit Rig(Gate gate = 1s, StreamingOptions options = {}) : ssc{context, gate, with_output(options)} {}

  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  Log log;
  std::ostringstream printed;
  Context context{
      {.app_name = "engine-test", .parallelism = 1, .executor = nullptr, .clock = clock, .log = log.logger()}};
  StreamingContext ssc;

  /// Advances the clock and runs all that has become due; returns how many batches that were. For Drive::by_host.
  std::size_t pass(Duration d) {
    clock->advance(d);
    std::size_t batches = 0;
    while (ssc.step()) ++batches;
    return batches;
  }

 private:
  [[nodiscard]] StreamingOptions with_output(StreamingOptions options) {
    if (options.output == nullptr) options.output = &printed;
    return options;
  }
};

/// The code of the Error of type E that `action` throws; "nothing" when it throws nothing.
template <class E = PlanError>
[[nodiscard]] std::string code_of(const std::function<void()>& action, std::string* message = nullptr) {
  try {
    action();
  } catch (const E& error) {
    if (message != nullptr) *message = error.what();
    return error.code();
  }
  return "nothing";
}
template <class E = PlanError>
[[nodiscard]] std::string message_of(const std::function<void()>& action) {
  std::string message = "nothing was thrown";
  static_cast<void>(code_of<E>(action, &message));
  return message;
}

}  // namespace tidemill::testing_engine
