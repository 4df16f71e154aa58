// BatchQueue<T>: batches that a program hands to a stream one by one; for tests, for replays, and for programs that make their
// own batches.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <deque>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "tidemill/batch/batch.hpp"
#include "tidemill/core/clock.hpp"
#include "tidemill/io/input.hpp"

namespace tidemill {

/// A queue of batches. Push vectors or batches; a stream takes one an interval, or all (`queue_stream`).
/// Threads: any.   Source: Spark `queueStream`, where the caller must lock the queue; here it does that itself.
template <class T>
class BatchQueue {
 public:
  using Entry = std::variant<std::vector<T>, Batch<T>>;

  void push(std::vector<T> records) { push_entry(Entry{std::in_place_index<0>, std::move(records)}); }
  void push(Batch<T> batch) { push_entry(Entry{std::in_place_index<1>, std::move(batch)}); }
  [[nodiscard]] std::size_t size() const noexcept { return size_.load(std::memory_order_acquire); }

  // For the stream. At most so many entries, and so many records: a vector that has more is cut, a Batch is left whole.
  [[nodiscard]] std::vector<Entry> pop(std::size_t most, std::size_t max_records) {
    std::vector<Entry> popped;
    const std::scoped_lock lock{mutex_};
    for (; most != 0 && max_records != 0 && !entries_.empty(); --most) {
      Entry& front = entries_.front();
      if (auto* const records = std::get_if<0>(&front); records != nullptr && records->size() > max_records) {
        const auto end = records->begin() + static_cast<std::ptrdiff_t>(max_records);
        popped.emplace_back(std::in_place_index<0>, std::make_move_iterator(records->begin()),
                            std::make_move_iterator(end));
        records->erase(records->begin(), end);
        break;
      }
      max_records -= std::min(max_records, size_of(front));
      popped.push_back(std::move(front));
      entries_.pop_front();
    }
    size_.store(entries_.size(), std::memory_order_release);
    return popped;
  }
  /// Records of an entry; for a Batch, as far as it knows without being computed.
  [[nodiscard]] static std::size_t size_of(const Entry& entry) {
    return entry.index() == 0 ? std::get<0>(entry).size() : std::get<1>(entry).node().size_hint();
  }
  void ring_on_arrival(WakeUp* bell) noexcept {
    const std::scoped_lock lock{mutex_};
    bell_ = bell;
  }

 private:
  void push_entry(Entry entry) {
    const std::scoped_lock lock{mutex_};
    entries_.push_back(std::move(entry));
    size_.store(entries_.size(), std::memory_order_release);
    if (bell_ != nullptr) bell_->ring();
  }

  std::mutex mutex_;
  std::deque<Entry> entries_;
  WakeUp* bell_ = nullptr;
  std::atomic<std::size_t> size_ = 0;
};

/// How many queued batches go into one interval's. Source: Spark `oneAtATime`.
enum class QueueMode : std::uint8_t { one_at_a_time, all_at_once };

namespace detail {

[[noreturn]] TIDEMILL_API void throw_queue_is_gone(Time t, std::size_t records);

template <class T>
class QueueInput final : public Input {
 public:
  QueueInput(std::shared_ptr<BatchQueue<T>> queue, QueueMode mode) : queue_{std::move(queue)}, mode_{mode} {}

  [[nodiscard]] std::string name() const override { return "queue"; }
  void start(InputHost& host, std::size_t stream_id) override {
    stream_id_ = stream_id;
    queue_->ring_on_arrival(host.arrival_bell());
  }
  void stop() noexcept override { queue_->ring_on_arrival(nullptr); }
  [[nodiscard]] bool has_pending() const noexcept override { return queue_->size() != 0; }

  InputInfo cut(Time, std::size_t max_records) override {
    cut_ = queue_->pop(mode_ == QueueMode::one_at_a_time ? 1 : queue_->size(), max_records);
    cut_records_ = 0;
    for (const auto& entry : cut_) cut_records_ += BatchQueue<T>::size_of(entry);
    return {.stream_id = stream_id_, .name = name(), .records = cut_records_, .metadata = {}, .lost = 0};
  }

  [[nodiscard]] std::string plan() const override { return plan_of_records(cut_records_); }
  InputInfo replay(Time t, std::string_view plan) override {
    cut_.clear();
    if (const std::size_t records = records_of_plan(plan); records != 0) throw_queue_is_gone(t, records);
    return {.stream_id = stream_id_, .name = name(), .records = 0, .metadata = {}, .lost = 0};
  }

  /// The batches of the last cut as one; nothing when the queue was empty.
  [[nodiscard]] std::optional<Batch<T>> take_cut(const std::shared_ptr<const Scope>& scope) {
    std::optional<Batch<T>> all;
    for (auto& entry : std::exchange(cut_, {})) {
      Batch<T> batch = entry.index() == 0
                           ? Batch<T>{std::make_shared<const VectorNode<T>>(scope, std::get<0>(std::move(entry)),
                                                                            scope->runtime->executor->parallelism())}
                           : std::get<1>(std::move(entry));
      if (all) {
        all = all->union_with(batch);
      } else {
        all = std::move(batch);
      }
    }
    return all;
  }

 private:
  std::shared_ptr<BatchQueue<T>> queue_;  // shared with the program that fills it
  QueueMode mode_;
  std::vector<typename BatchQueue<T>::Entry> cut_;
  std::size_t cut_records_ = 0;
  std::size_t stream_id_ = 0;
};

/// A stream that gives the same batch for ever and has nothing to receive.
class TIDEMILL_API ConstantInput final : public Input {
 public:
  [[nodiscard]] std::string name() const override { return "constant"; }
  void start(InputHost&, std::size_t stream_id) override { stream_id_ = stream_id; }
  void stop() noexcept override {}
  [[nodiscard]] bool has_pending() const noexcept override { return false; }
  InputInfo cut(Time, std::size_t) override {
    return {.stream_id = stream_id_, .name = "constant", .records = 0, .metadata = {}, .lost = 0};
  }
  [[nodiscard]] std::string plan() const override { return {}; }
  InputInfo replay(Time t, std::string_view) override { return cut(t, 0); }
  [[nodiscard]] const char* refuses_on_arrival() const noexcept override { return "nothing ever arrives at it"; }

 private:
  std::size_t stream_id_ = 0;
};

}  // namespace detail
}  // namespace tidemill
