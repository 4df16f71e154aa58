// KeyedStore<K, S>: the state of all keys of one operator, cut into partitions, changed by batches, read by the host meanwhile.
// A batch changes all partitions or none. After each there is a *version*; as long as somebody holds one, what later batches
// overwrite is kept beside it, so that it can be read however much later: cost and memory follow the keys that changed.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tidemill/batch/partitioner.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/state/detail/step_gate.hpp"
#include "tidemill/state/expiry.hpp"
#include "tidemill/state/host_state.hpp"
#include "tidemill/state/keyed_table.hpp"

namespace tidemill {

namespace detail {

/// One partition of a store. Pre, for all but the facts: within KeyedStore::step.
template <class K, StateValue S>
class StorePartition {
 public:
  using Table = KeyedTable<K, S>;
  using Form = TableKey<K>;
  using Undo = typename Table::Undo;

  Table table;

  void begin(Time t) noexcept {
    now_ = t;
    table.begin(t);
  }

  /// How many timers `expire` would look at.
  [[nodiscard]] std::size_t count_due(Time limit) const noexcept { return expiry_.count_due(limit); }

  /// Calls `call(place)` for every key that was last touched before `limit`, in the order of keys; then removes it.
  template <class Call>
  void expire(Time limit, Call&& call) {
    limit_ = limit;
    due_.clear();
    expiry_.for_each_due(limit, [&](const ExpiryQueue::Timer& timer) {
      if (table.is_free(timer.slot)) return;
      const auto place = table.at(timer.slot);
      if (table.generation(place) != timer.generation || !table.exists(place)) return;
      if (table.last_touch(place) >= limit) {
        expiry_.add(table.last_touch(place), timer);
      } else {
        due_.push_back(place);
      }
    });
    std::sort(due_.begin(), due_.end(),
              [&](auto a, auto b) { return Table::order_of(table.probe(a)) < Table::order_of(table.probe(b)); });
    for (const auto place : due_) {
      call(place);
      table.remove(place);
    }
  }

  void prepare(typename Table::Keep keep, bool with_timers) {
    if (with_timers) {
      const auto& changes = table.changes();
      for (std::size_t i = 0; i < changes.size(); ++i) {
        const auto place = table.at(changes[i].slot);
        if (!changes[i].state && table.exists(place)) expiry_.add(now_, {place.slot(), table.generation(place)});
      }
      expiry_.prepare();
    }
    table.prepare(keep);
  }
  [[nodiscard]] Undo commit(typename Table::Keep keep) noexcept {
    expiry_.commit(std::exchange(limit_, Time::min()));
    return table.commit(keep);
  }
  void roll_back() noexcept {
    expiry_.roll_back();
    limit_ = Time::min();
    table.roll_back();
  }

  /// Sets the timers of all keys, after they were restored.
  void set_timers() {
    for (Slot slot = 0; slot < table.slots(); ++slot) {
      if (table.is_free(slot)) continue;
      const auto place = table.at(slot);
      expiry_.add(table.last_touch(place), {slot, table.generation(place)});
    }
    expiry_.prepare();
    expiry_.commit(Time::min());
  }

  [[nodiscard]] std::size_t allocated_bytes() const noexcept {
    return table.allocated_bytes() + expiry_.allocated_bytes() + due_.capacity() * sizeof(typename Table::Place);
  }

 private:
  Time now_;
  Time limit_ = Time::min();  // of the timeouts of this batch
  ExpiryQueue expiry_;
  std::vector<typename Table::Place> due_;  // room for `expire`
};

}  // namespace detail

/// Errors:  see `step`.
/// Threads: `hold` and `show` as HostState; `step` and what it calls by one thread at a time (partitions by several); `get`,
///          `snapshot`, `size` and `last_batch` by any number at any time.
template <class K, StateValue S>
class KeyedStore final : public HostState {
 public:
  using Partition = detail::StorePartition<K, S>;
  using Table = KeyedTable<K, S>;
  using View = typename Table::View;
  using Slot = typename Table::Slot;

  /// What was there after a batch. Whoever holds one can have it read by `for_each_at`.
  class Version {
   public:
    explicit Version(std::optional<Time> time) noexcept : time_{time} {}
    // A long chain goes link by link, not by recursion.
    ~Version() {
      std::shared_ptr<Version> next = take_next();
      while (next && next.use_count() == 1) next = next->take_next();
    }
    Version(const Version&) = delete;
    Version& operator=(const Version&) = delete;
    [[nodiscard]] std::optional<Time> time() const noexcept { return time_; }

   private:
    friend class KeyedStore;
    void set_next(std::shared_ptr<Version> next) noexcept {
      const std::lock_guard linking{link_};
      next_ = std::move(next);
    }
    std::shared_ptr<Version> take_next() noexcept {
      const std::lock_guard linking{link_};
      return std::move(next_);
    }

    std::size_t size_ = 0;                    // how many keys there were
    std::optional<Time> time_;                // of the batch; nothing before the first
    std::vector<typename Table::Undo> undo_;  // from the next version to this one, a partition each
    std::shared_ptr<Version> next_;           // shared with whoever holds that; both written once, under the gate
    std::mutex link_;  // use_count() does not order what the last other holder wrote before our reading
  };
  using VersionRef = std::shared_ptr<const Version>;

  /// `timed`: keys have timers, for Partition::expire.
  KeyedStore(std::size_t partitions, bool timed) : timed_{timed}, current_{std::make_shared<Version>(std::nullopt)} {
    detail::check_partitions(partitions);
    partitions_.reserve(partitions);
    for (std::size_t p = 0; p < partitions; ++p) partitions_.push_back(std::make_unique<Partition>());
  }

  [[nodiscard]] std::size_t partitions() const noexcept { return partitions_.size(); }
  [[nodiscard]] Partition& partition(std::size_t p) noexcept { return *partitions_[p]; }
  [[nodiscard]] bool timed() const noexcept { return timed_; }

  /// One batch: `work()` changes the partitions; then all changes count, or, when anything throws, none.
  /// Errors: what `work` throws; std::bad_alloc.
  template <class Work>
  VersionRef step(Time t, Work&& work) {
    const detail::StepGate::Step entered{gate_};
    for (const auto& partition : partitions_) partition->begin(t);
    std::shared_ptr<Version> next;
    std::vector<typename Table::Undo> undo;
    auto keep = Table::Keep::nothing;
    try {
      work();
      if (current_.use_count() > 1) {  // versions are handed out under the gate, so nobody comes to hold it now
        keep = Table::Keep::undo;
        undo.reserve(partitions_.size());
      }
      for (const auto& partition : partitions_) partition->prepare(keep, timed_);
      next = std::make_shared<Version>(t);
    } catch (...) {
      for (const auto& partition : partitions_) partition->roll_back();
      throw;
    }
    for (const auto& partition : partitions_) {
      auto before = partition->commit(keep);
      if (keep == Table::Keep::undo) undo.push_back(std::move(before));
    }
    for (const auto& partition : partitions_) next->size_ += partition->table.size();
    current_->undo_ = std::move(undo);
    current_->set_next(next);
    current_ = std::move(next);
    pasts_.clear();
    return current_;
  }
  /// Whether there has been a batch, in this run or in the one that it continues. Pre: within `step`, or by its thread.
  [[nodiscard]] bool has_begun() const noexcept { return last_time().has_value(); }
  /// The time of that batch. Pre: likewise.
  [[nodiscard]] std::optional<Time> last_time() const noexcept { return current_->time(); }

  /// Calls `work()` while no batch runs and no reader reads: what follows in this section needs that.
  template <class Work>
  void while_still(Work&& work) {
    const detail::StepGate::Step entered{gate_};
    work();
  }

  /// Calls `emit(key, state)` for what partition `p` held at a version, in the order of keys. Pre: in `while_still`; several
  /// partitions may be read at a time.
  template <class Emit>
  void for_each_at(const Version& version, std::size_t p, Emit&& emit) const {
    const Table& table = partitions_[p]->table;
    if (!version.next_) {
      table.for_each([&](auto place) { emit(table.key(place), table.state(place)); });
      return;
    }
    const Past past{version, p};
    std::vector<Entry> entries;
    table.for_each([&](auto place) {
      if (past.find(place.slot())) return;
      entries.push_back({Table::order_of(table.probe(place)), &table.probe(place), &table.state(place)});
    });
    past.for_each([&](Slot slot, const S& state, const typename Table::Stored* gone) {
      const auto& probe = gone != nullptr ? detail::TableKey<K>::probe_of(*gone) : table.probe(table.at(slot));
      entries.push_back({Table::order_of(probe), &probe, &state});
    });
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.order < b.order; });
    for (const Entry& entry : entries) emit(detail::TableKey<K>::view(*entry.key), *entry.state);
  }

  /// The state is what was restored into these partitions, as many as there are: that of the batch of `last`. Pre: in
  /// `while_still`.
  void restored(Time last, std::vector<std::unique_ptr<Partition>> partitions) {
    if (timed_) {
      for (const auto& partition : partitions) partition->set_timers();
    }
    current_ = std::make_shared<Version>(last);
    partitions_.swap(partitions);
    for (const auto& partition : partitions_) current_->size_ += partition->table.size();
    held_.reset();
    pasts_.clear();
  }

  void hold() noexcept override {
    const auto reading = gate_.read();
    if (!held_) held_ = current_;
  }
  void show() noexcept override {
    std::shared_ptr<Version> gone;  // ends when the gate is open: a chain of versions may be long
    const auto reading = gate_.read();
    gone.swap(held_);
    pasts_.clear();
  }

  // ---- for the host, at any time ----------------------------------------------------------------------------------------------

  [[nodiscard]] std::optional<S> get(View key) const
    requires std::copy_constructible<S>
  {
    const auto probe = detail::TableKey<K>::probe(key);
    const std::uint32_t tag = Table::tag_of(probe);
    const auto reading = gate_.read();
    const std::size_t p = detail::partition_of_tag(tag, partitions_.size());
    const Table& table = partitions_[p]->table;
    const auto place = table.find(tag, probe);
    if (held_ && held_ != current_) {
      if (pasts_.empty()) pasts_.resize(partitions_.size());
      if (!pasts_[p]) pasts_[p].emplace(*held_, p);  // as long as a batch takes; the next key is found at once
      const Past& past = *pasts_[p];
      const auto* const then = place ? past.find(place.slot()) : nullptr;
      if (place && then == nullptr) return table.state(place);
      if (then != nullptr && then->state != nullptr && then->gone == nullptr) return *then->state;
      std::optional<S> state;  // of a key that has gone since, and may have come again
      past.for_each([&](Slot, const S& before, const typename Table::Stored* gone) {
        if (gone != nullptr && detail::TableKey<K>::equal(*gone, probe)) state.emplace(before);
      });
      return state;
    }
    return place ? std::optional<S>{table.state(place)} : std::nullopt;
  }

  struct Snapshot {
    std::optional<Time> time;  ///< of the last batch that is in it; nothing before the first
    std::vector<std::pair<K, S>> entries;
  };
  /// All keys with their states, as they were after one batch, in no particular order.
  [[nodiscard]] Snapshot snapshot() const
    requires std::copy_constructible<S>
  {
    VersionRef version;
    std::vector<Slot> slots;
    {
      const auto reading = gate_.read();
      version = held_ ? held_ : current_;
      slots.reserve(partitions_.size());
      for (const auto& partition : partitions_) slots.push_back(partition->table.slots());
    }
    Snapshot result{version->time(), {}};
    std::vector<std::vector<Slot>> slots_of(slots.size());  // of the entries, in the same order
    for (std::size_t p = 0; p < slots.size(); ++p) {
      for (Slot from = 0; from < slots[p]; from += piece) {
        const auto reading = gate_.read();
        copy_slots(p, from, std::min(slots[p], from + piece), result.entries, slots_of[p]);
      }
    }
    VersionRef last;
    {
      const auto reading = gate_.read();
      last = current_;
    }
    // What batches changed meanwhile is turned back. Versions between the two are complete, and held by the first.
    if (last != version) turn_back(*version, *last, slots_of, result.entries);
    return result;
  }

  [[nodiscard]] std::size_t size() const {
    const auto reading = gate_.read();
    return (held_ ? held_ : current_)->size_;
  }
  [[nodiscard]] std::optional<Time> last_batch() const {
    const auto reading = gate_.read();
    return (held_ ? held_ : current_)->time();
  }
  [[nodiscard]] std::size_t allocated_bytes() const {
    const auto reading = gate_.read();
    std::size_t bytes = 0;
    for (const auto& partition : partitions_) bytes += partition->allocated_bytes();
    return bytes;
  }

 private:
  static constexpr Slot piece = 4096;

  struct Entry {
    std::pair<std::uint32_t, std::uint64_t> order;
    const typename Table::Probe* key;
    const S* state;
  };

  // What differs between a version and a later one, in one partition: the first thing that later batches overwrote in a slot.
  class Past {
   public:
    Past(const Version& from, std::size_t p, const Version* until = nullptr) {
      for (const Version* version = &from; version != until && version->next_; version = version->next_.get()) {
        const auto& undo = version->undo_[p];
        for (std::size_t i = 0; i < undo.changes.size(); ++i) {
          const auto& change = undo.changes[i];
          slots_.try_emplace(change.slot, Before{change.state ? &*change.state : nullptr, nullptr});
        }
        for (const auto& gone : undo.gone) {
          Before& before = slots_.find(gone.slot)->second;  // a key that goes is a change
          if (before.gone == nullptr) before.gone = &gone.key;
        }
      }
    }
    struct Before {
      const S* state;  // null: there was no key
      const typename Table::Stored* gone;
    };
    [[nodiscard]] const Before* find(Slot slot) const {
      const auto at = slots_.find(slot);
      return at == slots_.end() ? nullptr : &at->second;
    }
    /// `see(slot, state, key)` for what was there; the key is null when it still is.
    template <class See>
    void for_each(See&& see) const {
      for (const auto& [slot, before] : slots_) {
        if (before.state != nullptr) see(slot, *before.state, before.gone);
      }
    }

   private:
    std::unordered_map<Slot, Before> slots_;
  };

  void copy_slots(std::size_t p, Slot from, Slot to, std::vector<std::pair<K, S>>& entries,
                  std::vector<Slot>& slots) const {
    const Table& table = partitions_[p]->table;
    for (Slot slot = from; slot < to; ++slot) {
      if (table.is_free(slot)) continue;
      const auto place = table.at(slot);
      entries.emplace_back(detail::TableKey<K>::owned(table.key(place)), table.state(place));
      slots.push_back(slot);
    }
  }
  void turn_back(const Version& version, const Version& last, const std::vector<std::vector<Slot>>& slots,
                 std::vector<std::pair<K, S>>& entries) const {
    std::vector<std::pair<K, S>> before;
    before.reserve(entries.size());
    std::size_t next = 0;
    for (std::size_t p = 0; p < slots.size(); ++p) {
      const Past past{version, p, &last};
      for (const Slot slot : slots[p]) {
        std::pair<K, S>& copied = entries[next++];
        const auto* const then = past.find(slot);
        if (then == nullptr) {
          before.push_back(std::move(copied));
        } else if (then->state != nullptr && then->gone == nullptr) {
          before.emplace_back(std::move(copied.first), *then->state);
        }
      }
      past.for_each([&](Slot, const S& state, const typename Table::Stored* gone) {
        if (gone != nullptr) before.emplace_back(detail::TableKey<K>::owned(key_of(*gone)), state);
      });
    }
    entries = std::move(before);
  }
  [[nodiscard]] static View key_of(const typename Table::Stored& key) {
    return detail::TableKey<K>::view(detail::TableKey<K>::probe_of(key));
  }

  const bool timed_;
  std::vector<std::unique_ptr<Partition>> partitions_;
  std::shared_ptr<Version> current_;                // shared with those who may want to read it later
  std::shared_ptr<Version> held_;                   // what the host sees; null: the current one
  mutable std::vector<std::optional<Past>> pasts_;  // what differs between the two, of partitions that were asked for
  mutable detail::StepGate gate_;
};

/// How the host reads a state while the stream runs. Copies are the same state, and keep it.
///
/// Consistency: a batch is seen as soon as its state has been computed, whole or not at all; whether its output operations
///              succeed, or it has been made durable, does not matter. Where there are transactional sinks (save_to,
///              save_to_kafka) it is seen when its transactions have committed and its output operations have succeeded; a
///              batch that failed, when a later one has. Before the first batch there is nothing.
/// Cost:        the host waits for a batch that is changing the state. A batch waits for a reader as long as it takes to copy
///              one state (`get`) or some four thousand (`snapshot`); a snapshot that takes several batches keeps what they
///              overwrite until it is done.
/// Threads:     any number at any time, but not in a function that a batch of this state calls.
template <class K, StateValue S>
class KeyedStateView {
 public:
  using Snapshot = typename KeyedStore<K, S>::Snapshot;

  explicit KeyedStateView(std::shared_ptr<const KeyedStore<K, S>> store) noexcept : store_{std::move(store)} {}

  /// The state of a key; nothing when it has none.
  [[nodiscard]] std::optional<S> get(typename KeyedStore<K, S>::View key) const
    requires std::copy_constructible<S>
  {
    return store_->get(key);
  }
  /// All keys with their states, as they were after one batch, in no particular order.
  [[nodiscard]] Snapshot snapshot() const
    requires std::copy_constructible<S>
  {
    return store_->snapshot();
  }
  /// How many keys have a state.
  [[nodiscard]] std::size_t size() const { return store_->size(); }
  /// The time of the last batch that changed the state; nothing before the first.
  [[nodiscard]] std::optional<Time> last_batch() const { return store_->last_batch(); }
  /// The memory of the tables; without what keys and states themselves allocate.
  [[nodiscard]] std::size_t allocated_bytes() const { return store_->allocated_bytes(); }

 private:
  std::shared_ptr<const KeyedStore<K, S>> store_;  // shared with the stream
};

}  // namespace tidemill
