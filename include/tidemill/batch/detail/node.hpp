// Where types are erased between the fused loops of a batch: a node yields the records of one partition in chunks. Wide
// operators (those that need other partitions) do their work in `prepare`, on the thread that runs the action; `run`
// then only reads, so partition tasks never wait for each other.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "tidemill/batch/context.hpp"
#include "tidemill/batch/partitioner.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/core/function_ref.hpp"
#include "tidemill/core/ownership.hpp"

namespace tidemill::detail {

/// A run of records; answers whether more are wanted.
template <class T>
using ChunkSink = FunctionRef<bool(std::span<const T>)>;

/// Records cross a node in chunks of about this many.
inline constexpr std::size_t chunk_records = 1024;

/// Batches with no more records than this are run by the calling thread alone: waking a worker costs more.
inline constexpr std::size_t inline_records = 4096;

/// One batch, seen without knowing how it comes about.
/// Threads: immutable from the outside; any thread may call any member.
template <class T>
class BatchNode {
 public:
  explicit BatchNode(std::shared_ptr<const Scope> scope) : scope_{std::move(scope)} {}
  BatchNode(const BatchNode&) = delete;
  BatchNode& operator=(const BatchNode&) = delete;
  virtual ~BatchNode() = default;

  [[nodiscard]] virtual std::size_t partitions() const = 0;

  /// Brings about whatever `run` reads. Idempotent; when it throws it may be called again.
  virtual void prepare() const = 0;

  /// Yields the records of a partition, in order. Pre: `prepare` has returned.
  /// The span is valid during the call; what borrowing records look at, as long as the node.
  virtual void run(std::size_t partition, ChunkSink<T> sink) const = 0;

  /// All records of a partition, when they lie side by side in memory; else `run` has to yield them. Pre: as for `run`.
  /// The span is valid as long as the node.
  [[nodiscard]] virtual std::optional<std::span<const T>> stored([[maybe_unused]] std::size_t partition) const {
    return std::nullopt;
  }

  /// About how many records: decides whether workers are asked for help, nothing else.
  [[nodiscard]] virtual std::size_t size_hint() const = 0;

  /// How records were assigned to partitions, when that is known (see PartitionerRef).
  [[nodiscard]] virtual PartitionerRef partitioner() const { return nullptr; }

  /// Gives up what was kept only to save computing it again (`persist`).
  virtual void unpersist() const {}

  /// What the user called this batch (`named`); empty by default.
  [[nodiscard]] virtual std::string_view name() const noexcept { return {}; }

  [[nodiscard]] const std::shared_ptr<const Scope>& scope() const noexcept { return scope_; }

 private:
  std::shared_ptr<const Scope> scope_;  // shared by all batches of the interval
};

/// A node whose partitions lie in memory once it is prepared.
template <class T>
class PreparedNode : public BatchNode<T> {
 public:
  using BatchNode<T>::BatchNode;

  void prepare() const final {
    const std::scoped_lock lock{mutex_};
    if (ready_) return;
    parts_.clear();
    arenas_.clear();
    parts_.resize(this->partitions());
    arenas_.resize(this->partitions());
    build(parts_, arenas_);
    ready_ = true;
  }
  void run(std::size_t partition, ChunkSink<T> sink) const final {
    if (const std::vector<T>& part = parts_[partition]; !part.empty()) sink(part);
  }
  [[nodiscard]] std::optional<std::span<const T>> stored(std::size_t partition) const final {
    return parts_[partition];
  }

 protected:
  /// Fills `parts`; `arenas` keep what borrowing records look at. There is one empty vector and one empty arena for
  /// each partition, also after an attempt that threw; more arenas may be added.
  virtual void build(std::vector<std::vector<T>>& parts, std::vector<Arena>& arenas) const = 0;

 private:
  mutable std::mutex mutex_;  // guards the rest until ready_, after which nothing changes
  mutable bool ready_ = false;
  mutable std::vector<std::vector<T>> parts_;
  mutable std::vector<Arena> arenas_;
};

/// The surroundings of a batch made from several: those of the first input that belongs to an interval, so that an
/// error says which one, else of the first.
template <class First, class... Others>
[[nodiscard]] const std::shared_ptr<const Scope>& common_scope(const First& first, const Others&... others) {
  const std::shared_ptr<const Scope>* chosen = &first.scope();
  ((chosen = (*chosen)->batch_time ? chosen : (others.scope()->batch_time ? &others.scope() : chosen)), ...);
  return *chosen;
}

/// Calls `task(partition)`. What a user function throws comes back as UserCodeError with operator, partition and batch
/// time.
template <class Task>
void for_one_partition_of(const Scope& scope, std::size_t partition, const Task& task) {
  try {
    task(partition);
  } catch (...) {
    std::rethrow_exception(with_context({.application = scope.runtime->app_name,
                                         .op = {},
                                         .batch_time = scope.batch_time,
                                         .partition = partition,
                                         .offset = {}}));
  }
}

/// Calls `task(partition)` for every partition, over the workers when the batch is large enough. Errors: as for one.
template <class Task>
void for_each_partition_of(const Scope& scope, std::size_t partitions, std::size_t size_hint, const Task& task) {
  const Spread spread = size_hint <= inline_records ? Spread::inline_only : Spread::over_workers;
  for_each_partition(*scope.runtime->executor, partitions, spread,
                     [&](std::size_t p) { for_one_partition_of(scope, p, task); });
}

}  // namespace tidemill::detail
