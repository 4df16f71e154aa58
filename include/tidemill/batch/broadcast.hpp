// A value that all functions of a pipeline read: a dictionary, a model, a table to enrich records from.
//
//     const auto names = context.broadcast(load_names());           // one copy, however many lambdas hold it
//     auto lines = events.map([names](const Event& e) { return names->at(e.id); });
#pragma once

#include <memory>
#include <utility>

namespace tidemill {

/// A handle to a shared value that nobody changes. Copies are cheap and refer to the same value; it goes with the last.
/// Threads: any number may read.
/// Source: Spark `Broadcast`. Nothing is sent anywhere: the threads share memory.
template <class T>
class Broadcast {
 public:
  explicit Broadcast(T value) : value_{std::make_shared<const T>(std::move(value))} {}
  [[nodiscard]] const T& value() const noexcept { return *value_; }
  [[nodiscard]] const T& operator*() const noexcept { return *value_; }
  [[nodiscard]] const T* operator->() const noexcept { return value_.get(); }

 private:
  std::shared_ptr<const T> value_;  // shared by the functions that captured the handle
};

}  // namespace tidemill
