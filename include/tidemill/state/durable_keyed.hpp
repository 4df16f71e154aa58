// A KeyedStore in a checkpoint: an entry a key, of which only those are written that a batch changed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tidemill/core/codec.hpp"
#include "tidemill/core/codec_layout.hpp"
#include "tidemill/exec/executor.hpp"
#include "tidemill/state/durable_state.hpp"
#include "tidemill/state/keyed_store.hpp"

namespace tidemill {

namespace detail {

[[noreturn]] TIDEMILL_API void throw_key_restored_twice();

}  // namespace detail

/// Whether an entry has the time of the last touch in it; a state with timeouts needs that.
enum class SavedTouch { no, yes };

/// Threads: as DurableState; changes are encoded by the threads that make them.
template <Encodable K, StateValue S, SavedTouch touch>
  requires Encodable<S> && std::copy_constructible<K>
class DurableKeyedStore final : public DurableState {
  using Store = KeyedStore<K, S>;
  using Table = typename Store::Table;
  using Form = detail::TableKey<K>;

 public:
  /// `restored` is called, after the store has been told, with the time of the last batch.
  DurableKeyedStore(std::shared_ptr<Store> store, std::shared_ptr<Executor> executor, std::string kind,
                    std::string parameters)
      : store_{std::move(store)},
        executor_{std::move(executor)},
        schema_{
            .kind = std::move(kind), .key = codec_layout<K>(), .value = layout(), .parameters = std::move(parameters)} {
  }

  [[nodiscard]] StateSchema schema() const override { return schema_; }
  void track_changes() override {
    store_->while_still([&] { record(); });
  }

  void restoring(std::uint64_t entries) override {
    make_lanes();
    const auto each = static_cast<std::size_t>(entries) / lanes_.size();
    for (Lane& lane : lanes_) lane.partition->table.expect(each + each / 64);
  }
  [[nodiscard]] std::size_t restore_parts() const override {
    return store_->partitions() <= detail::key_groups ? store_->partitions() : 1;
  }
  void restore(KeyGroup group, std::string_view key, std::string_view value) override {
    if (lanes_.empty()) make_lanes();
    auto probe = Form::probe(decode<KeyInBytes>(key));
    const std::uint32_t tag = Table::tag_of(probe);
    Decoder from{std::as_bytes(std::span{value})};
    const Time last_touch = touch == SavedTouch::yes ? from.value<Time>() : Time{};
    Decoded entry{tag, Form::keep(std::move(probe)), from.value<S>(), last_touch};
    from.expect_end();
    restore(group, std::move(entry));
  }
  void restored(Time last) override {
    if (lanes_.empty()) make_lanes();
    for (Decoded& stray : strays_) lane_of(stray).add(std::move(stray));
    std::size_t count = 0;
    for (const Lane& lane : lanes_) count += lane.partition->table.size();
    for_each_partition(*executor_, lanes_.size(), count <= few ? Spread::inline_only : Spread::over_workers,
                       [&](std::size_t p) {
                         if (!lanes_[p].partition->table.index_restored()) detail::throw_key_restored_twice();
                       });
    std::vector<std::unique_ptr<typename Store::Partition>> partitions;
    for (Lane& lane : lanes_) partitions.push_back(std::move(lane.partition));
    std::vector<Decoded>{}.swap(strays_);
    std::vector<Lane>{}.swap(lanes_);
    store_->while_still([&] {
      store_->restored(last, std::move(partitions));
      if (!recorders_.empty()) record();  // the tables are others
    });
  }

  void take_changes(StateChanges& to) override {
    store_->while_still([&] {
      if (std::all_of(recorders_.begin(), recorders_.end(), [](const Recorder* one) { return one->changes().empty(); }))
        return;
      const std::span<StateChanges> parts = to.split(recorders_.size());
      for (std::size_t p = 0; p < parts.size(); ++p) recorders_[p]->exchange(parts[p]);
    });
  }

 private:
  using KeyInBytes = std::remove_cvref_t<typename Form::View>;  // a string need not be copied to be looked for
  static constexpr std::size_t few = 1024;

  // What the batches changed in one partition. A change is appended when it is made, also when it is not the first of its key;
  // but where that takes much room, the batch appends every key once, at its end.
  class Recorder final : public Table::Recorder {
   public:
    explicit Recorder(const Table& table) noexcept : table_{table} {}

    void begin_batch() noexcept override {
      before_ = changes_.size();
      repeated_ = 0;
      at_end_ = false;
    }
    void write(std::span<const typename Table::Noted> noted) override {
      if (at_end_) return;
      for (const auto& [place, again] : noted) {
        const std::size_t size = changes_.size();
        append(place);
        if (again) repeated_ += changes_.size() - size;
      }
      if (repeated_ <= (changes_.size() - before_) / 8) return;
      changes_.cut(before_);
      at_end_ = true;
    }
    void end_batch() override {
      if (at_end_) table_.for_each_changed([this](auto place) { append(place); });
    }
    void roll_back() noexcept override { changes_.cut(before_); }

    [[nodiscard]] const StateChanges& changes() const noexcept { return changes_; }
    /// Takes memory for the next changes. Pre: `taker` is empty.
    void exchange(StateChanges& taker) noexcept { std::swap(changes_, taker); }

   private:
    TIDEMILL_INLINE void append(typename Table::Place place) {
      const typename Table::Probe& key = table_.probe(place);
      const auto group = static_cast<KeyGroup>(Table::tag_of(key) >> 24);
      if (!table_.exists(place)) {
        changes_.erase(group, Form::view(key));
      } else if constexpr (touch == SavedTouch::yes) {
        changes_.put(group, Form::view(key), table_.last_touch(place), table_.state(place));
      } else {
        changes_.put(group, Form::view(key), table_.state(place));
      }
    }

    const Table& table_;
    StateChanges changes_;
    std::size_t before_ = 0;    // size when the batch began
    std::size_t repeated_ = 0;  // bytes of keys that the batch had changed before
    bool at_end_ = false;
  };

  // From now on every table has somebody who writes down its changes.
  void record() {
    recorders_.clear();
    for (std::size_t p = 0; p < store_->partitions(); ++p) {
      Table& table = store_->partition(p).table;
      auto recorder = std::make_unique<Recorder>(table);
      recorders_.push_back(recorder.get());
      table.record_with(std::move(recorder));
    }
  }

  // An entry of a checkpoint.
  struct Decoded {
    std::uint32_t tag;
    typename Table::Stored key;
    S state;
    Time last_touch;
  };
  // A partition to be, on lines of the cache of its own, since each may be made by another thread.
  struct alignas(128) Lane {
    std::unique_ptr<typename Store::Partition> partition = std::make_unique<typename Store::Partition>();

    void add(Decoded&& entry) {
      partition->table.restore(entry.tag, std::move(entry.key), std::move(entry.state), entry.last_touch);
    }
  };

  void make_lanes() {
    strays_.clear();
    lanes_ = std::vector<Lane>(store_->partitions());
  }
  [[nodiscard]] Lane& lane_of(const Decoded& entry) {
    return lanes_[detail::partition_of_tag(entry.tag, lanes_.size())];
  }
  void restore(KeyGroup group, Decoded&& entry) {
    // A key that has another hash now than when it was written may be of a partition that another thread restores.
    const auto partition = [&](std::uint32_t tag) { return detail::partition_of_tag(tag, lanes_.size()); };
    if (restore_parts() > 1 && partition(entry.tag) != partition(std::uint32_t{group} << 24)) {
      const std::lock_guard guard{strays_mutex_};
      strays_.push_back(std::move(entry));
    } else {
      lane_of(entry).add(std::move(entry));
    }
  }
  [[nodiscard]] static std::string layout() {
    if constexpr (touch == SavedTouch::yes) {
      return codec_layout<std::pair<Time, S>>();
    } else {
      return codec_layout<S>();
    }
  }
  std::shared_ptr<Store> store_;        // shared with the operator
  std::shared_ptr<Executor> executor_;  // shared with the context
  StateSchema schema_;
  std::vector<Recorder*> recorders_;  // of the partitions, once there is a checkpoint
  std::vector<Lane> lanes_;           // of the partitions, while they are restored
  std::mutex strays_mutex_;           // guards what follows
  std::vector<Decoded> strays_;       // not of the group under which they were given
};

}  // namespace tidemill
