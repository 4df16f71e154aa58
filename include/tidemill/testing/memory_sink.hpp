// MemoryStore<T> and its sink: a transactional sink for tests. The store outlives the context, as a broker or a database would,
// and it fails as told: at any call of a sink, before it or after it.
//
//     tidemill::testing::MemoryStore<std::string> store;
//     lines.save_to(store.sink());
//     store.fail_at(3, StoreFault::crash_after);              // at the third call of a sink from now
//     …
//     EXPECT_THAT(store.records(), …);                        // what a reader sees: what has been committed
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tidemill/io/sink.hpp"
#include "tidemill/testing/sim_fs.hpp"

namespace tidemill::testing {

enum class StoreFault {
  none,
  crash_before,  // the process ends, and the call was not carried out: SimCrash, as of all later calls until restart()
  crash_after,   // the same, and the call was carried out
  error_before,  // SinkError, not carried out
  error_after,   // SinkError, though the call was carried out: what an answer that gets lost looks like
  fence,         // another writer has taken over: SinkError "fenced"
};

namespace detail {

/// What the store does whatever its records are.
/// Threads: any.
class TIDEMILL_API MemoryStoreState {
 public:
  struct Writer {
    std::uint64_t epoch = 0;  // of the last that was opened
    std::optional<Time> last_committed;
  };

  void fail_at(std::uint64_t call, StoreFault fault, bool for_ever);
  void on_crash(std::function<void()> call);
  void restart();
  void forget();
  [[nodiscard]] bool fault_happened() const;
  [[nodiscard]] std::uint64_t calls() const;

  /// One call of a sink: `effect` is what it does, unless the fault of this call prevents it.
  void call(const char* what, const std::string& id, std::uint64_t epoch, const std::function<void(Writer&)>& effect);
  [[nodiscard]] std::uint64_t open(const std::string& id);

  mutable std::mutex mutex;

 private:
  [[nodiscard]] StoreFault next_fault();

  std::map<std::string, Writer> writers_;
  std::uint64_t calls_ = 0;
  std::uint64_t fails_at_ = 0;
  StoreFault fault_ = StoreFault::none;
  bool for_ever_ = false;
  bool happened_ = false;
  bool is_dead_ = false;
  std::function<void()> on_crash_;
};

}  // namespace detail

/// Threads: any.
template <class T>
class MemoryStore {
 public:
  /// What a commit brought.
  struct Commit {
    Time batch_time;
    std::vector<T> records;  // partition after partition, in the order in which they came
    std::vector<InputPosition> positions;
  };

  class Sink final : public TransactionalSink {
   public:
    explicit Sink(MemoryStore store) : store_{std::move(store)} {}
    [[nodiscard]] std::string name() const override { return "memory"; }
    void open(const SinkSession& session) override {
      id_ = session.id;
      epoch_ = store_.state_->open(id_);
    }
    [[nodiscard]] std::optional<Time> last_committed() override {
      std::optional<Time> last;
      store_.state_->call("last_committed", id_, epoch_, [&](auto& writer) { last = writer.last_committed; });
      return last;
    }
    void begin(Time) override {
      store_.state_->call("begin", id_, epoch_, [&](auto&) { open_.clear(); });
    }
    void write(std::span<const T> records) {
      store_.state_->call("write", id_, epoch_,
                          [&](auto&) { open_.insert(open_.end(), records.begin(), records.end()); });
    }
    void commit(const SinkCommit& commit) override {
      store_.state_->call("commit", id_, epoch_, [&](auto& writer) {
        store_.commits_->push_back({commit.batch_time, open_, {commit.positions.begin(), commit.positions.end()}});
        writer.last_committed = commit.batch_time;
      });
    }
    void roll_back() noexcept override { open_.clear(); }
    void close() noexcept override {}

   private:
    MemoryStore store_;
    std::string id_;
    std::uint64_t epoch_ = 0;
    std::vector<T> open_;  // guarded by the mutex of the store
  };

  /// A new writer, as each life of a program has.
  [[nodiscard]] std::shared_ptr<Sink> sink() const { return std::make_shared<Sink>(*this); }

  [[nodiscard]] std::vector<Commit> commits() const {
    const std::scoped_lock lock{state_->mutex};
    return *commits_;
  }
  [[nodiscard]] std::vector<T> records() const {
    std::vector<T> all;
    for (const Commit& commit : commits()) all.insert(all.end(), commit.records.begin(), commit.records.end());
    return all;
  }

  /// At the `call`th call of a sink from now (1 is the next); once, or from then on.
  void fail_at(std::uint64_t call, StoreFault fault, bool for_ever = false) { state_->fail_at(call, fault, for_ever); }
  [[nodiscard]] bool fault_happened() const { return state_->fault_happened(); }
  [[nodiscard]] std::uint64_t calls() const { return state_->calls(); }
  /// Called when a fault ends the process, for whatever else dies with it: a SimFs.
  void on_crash(std::function<void()> call) { state_->on_crash(std::move(call)); }
  /// The process starts again: no faults, and what no transaction has committed is gone.
  void restart() { state_->restart(); }
  /// The store forgets who has committed what, as one does whose marks expire.
  void forget() { state_->forget(); }

 private:
  std::shared_ptr<detail::MemoryStoreState> state_ = std::make_shared<detail::MemoryStoreState>();  // with its sinks
  std::shared_ptr<std::vector<Commit>> commits_ = std::make_shared<std::vector<Commit>>();          // likewise
};

}  // namespace tidemill::testing
