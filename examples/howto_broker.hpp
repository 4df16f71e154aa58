// A source with a thread of its own, and the broker that it reads from. docs/howto/write-a-source.md shows it piece by
// piece; howto_thread_source.cpp runs it, howto_test_a_source.cpp tests it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <tidemill/tidemill.hpp>

// Stands for the client library of a message broker. It keeps every message until it is acknowledged, and hands out
// again what was not when the client connects anew.
class Broker {
 public:
  struct Message {
    std::uint64_t id = 0;
    std::string text;
  };

  void publish(std::string text) {
    const std::scoped_lock lock{mutex_};
    messages_.push_back({++last_id_, std::move(text)});
    changed_.notify_all();
  }
  // No more messages will be published.
  void close() {
    const std::scoped_lock lock{mutex_};
    closed_ = true;
    changed_.notify_all();
  }
  // The connection will break when this message is acknowledged, once.
  void break_at(std::uint64_t id) {
    const std::scoped_lock lock{mutex_};
    break_at_ = id;
  }

  void connect() {
    const std::scoped_lock lock{mutex_};
    next_ = 0;
  }
  // Waits for messages, and gives up to `most` of them; none when the broker is closed or `stopping`.
  std::vector<Message> fetch(std::size_t most, std::stop_token stopping) {
    std::unique_lock lock{mutex_};
    changed_.wait(lock, stopping, [this] { return closed_ || next_ < messages_.size(); });
    std::vector<Message> fetched;
    for (; !stopping.stop_requested() && next_ < messages_.size() && fetched.size() < most; ++next_)
      fetched.push_back(messages_[next_]);
    return fetched;
  }
  // Everything up to `id` has been dealt with.
  void acknowledge(std::uint64_t id) {
    const std::scoped_lock lock{mutex_};
    if (break_at_ != 0 && id >= break_at_) {
      break_at_ = 0;
      throw std::runtime_error{"the connection was reset"};
    }
    for (; !messages_.empty() && messages_.front().id <= id; --next_) messages_.pop_front();
    acknowledged_ = id;
    changed_.notify_all();
  }

  [[nodiscard]] std::uint64_t acknowledged() const {
    const std::scoped_lock lock{mutex_};
    return acknowledged_;
  }
  void wait_until_acknowledged(std::uint64_t id) {
    std::unique_lock lock{mutex_};
    changed_.wait(lock, [&] { return acknowledged_ >= id; });
  }

 private:
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable_any changed_;
  std::deque<Message> messages_;  // not acknowledged
  std::size_t next_ = 0;          // the first of them that was not fetched
  std::uint64_t last_id_ = 0;
  std::uint64_t acknowledged_ = 0;
  std::uint64_t break_at_ = 0;
  bool closed_ = false;
};

// [receiver]
class BrokerSource final : public tidemill::Receiver<std::string> {
 public:
  explicit BrokerSource(Broker& broker) : broker_{broker} {}

 private:
  void on_start() override {  // must not block: start a thread, and return
    thread_ = std::jthread{[this](std::stop_token stopping) { receive(stopping); }};
  }
  void on_stop() override { thread_ = {}; }  // asks the thread to stop, and joins it

  void receive(std::stop_token stopping) {
    try {
      broker_.connect();
      while (!stopping.stop_requested()) {
        std::vector<Broker::Message> messages = broker_.fetch(100, stopping);  // ends early when we are stopping
        if (messages.empty()) break;
        std::vector<std::string> records;
        for (Broker::Message& message : messages) records.push_back(std::move(message.text));
        if (!store(std::move(records))) return;   // refused: the context stops. Waits while the buffer is full
        broker_.acknowledge(messages.back().id);  // only now, when the block is kept
      }
      if (!stopping.stop_requested()) stop("the broker has no more messages");
    } catch (const std::exception&) {
      restart("reading from the broker failed", std::current_exception());  // on_stop, a pause, on_start
    }
  }

  Broker& broker_;
  std::jthread thread_;
};
// [/receiver]
