// A KeyedStore in a checkpoint: an entry a key, of which only those are written that a batch changed.
#pragma once

#include <cstddef>
#include <memory>
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

/// Threads: as DurableState; taking changes spreads the encoding over the executor when there are many.
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
  void track_changes() override { store_->track_changes(); }

  void restoring(std::uint64_t entries) override {
    store_->while_still([&] {
      const auto each = static_cast<std::size_t>(entries) / store_->partitions();
      for (std::size_t p = 0; p < store_->partitions(); ++p) store_->partition(p).table.reserve(each + each / 64);
    });
  }
  void restore(KeyGroup, std::string_view key, std::string_view value) override {
    auto probe = Form::probe(decode<KeyInBytes>(key));
    const std::uint32_t tag = Table::tag_of(probe);
    if constexpr (touch == SavedTouch::yes) {
      auto [last_touch, state] = decode<std::pair<Time, S>>(value);
      decoded_.push_back({tag, Form::keep(std::move(probe)), std::move(state), last_touch});
    } else {
      decoded_.push_back({tag, Form::keep(std::move(probe)), decode<S>(value), Time{}});
    }
    if (decoded_.size() == most_decoded) insert_decoded();
  }
  void restored(Time last) override {
    insert_decoded();
    index_restored();
    std::vector<Decoded>{}.swap(decoded_);
    std::vector<std::vector<Restored>>{}.swap(restored_);
    store_->while_still([&] { store_->restored(last); });
  }

  void take_changes(StateChanges& to) override {
    store_->while_still([&] {
      std::size_t changes = 0;
      for (std::size_t p = 0; p < store_->partitions(); ++p) changes += store_->partition(p).count_changes();
      if (changes == 0) return;
      const std::span<StateChanges> parts = to.split(store_->partitions());
      for_each_partition(*executor_, parts.size(), changes <= few ? Spread::inline_only : Spread::over_workers,
                         [&](std::size_t p) { encode(store_->partition(p), parts[p]); });
      for (std::size_t p = 0; p < parts.size(); ++p) store_->partition(p).forget_changes();
    });
  }

 private:
  using KeyInBytes = std::remove_cvref_t<typename Form::View>;  // a string need not be copied to be looked for
  static constexpr std::size_t few = 1024;
  static constexpr std::size_t most_decoded = 256;
  static constexpr std::size_t most_restored = 512 * 1024;  // of a partition, before they are put into the index

  // Taken from a checkpoint: some on their way into their tables, and those that are there and not in the index yet.
  struct Decoded {
    std::uint32_t tag;
    typename Table::Stored key;
    S state;
    Time last_touch;
  };
  struct Restored {
    std::uint32_t tag;
    detail::Slot slot;
  };

  void insert_decoded() {
    restored_.resize(store_->partitions());
    bool full = false;
    store_->while_still([&] {
      for (Decoded& entry : decoded_) {
        const std::size_t p = detail::partition_of_tag(entry.tag, store_->partitions());
        Table& table = store_->partition(p).table;
        const detail::Slot slot = table.restore(std::move(entry.key), std::move(entry.state), entry.last_touch);
        restored_[p].push_back({entry.tag, slot});
        full = full || restored_[p].size() >= most_restored;
      }
    });
    decoded_.clear();
    if (full) index_restored();
  }
  // Many at a time, so that most of those that go into one part of the index do so while that is in the cache.
  void index_restored() {
    store_->while_still([&] {
      std::size_t count = 0;
      for (const std::vector<Restored>& restored : restored_) count += restored.size();
      for_each_partition(
          *executor_, restored_.size(), count <= few ? Spread::inline_only : Spread::over_workers, [&](std::size_t p) {
            Table& table = store_->partition(p).table;
            table.reserve(table.size());  // it is filled from one end: growing meanwhile, it would crowd there
            for (const Restored& entry : by_rank(restored_[p])) {
              if (!table.index_restored(entry.tag, entry.slot)) detail::throw_key_restored_twice();
            }
            restored_[p].clear();
          });
    });
  }
  // By the leading bits of the rank.
  [[nodiscard]] static std::vector<Restored> by_rank(const std::vector<Restored>& entries) {
    constexpr unsigned bits = 10;
    const auto bucket = [](const Restored& entry) { return detail::TagIndex::rank_of(entry.tag) >> (32 - bits); };
    std::vector<std::size_t> ends(std::size_t{1} << bits);
    for (const Restored& entry : entries) ++ends[bucket(entry)];
    std::size_t end = 0;
    for (std::size_t& next : ends) next = std::exchange(end, end + next);
    std::vector<Restored> sorted(entries.size());
    for (const Restored& entry : entries) sorted[ends[bucket(entry)]++] = entry;
    return sorted;
  }

  [[nodiscard]] static std::string layout() {
    if constexpr (touch == SavedTouch::yes) {
      return codec_layout<std::pair<Time, S>>();
    } else {
      return codec_layout<S>();
    }
  }
  static void encode(const typename Store::Partition& partition, StateChanges& to) {
    const Table& table = partition.table;
    const auto group_of = [](const typename Table::Probe& key) {
      return static_cast<KeyGroup>(Table::tag_of(key) >> 24);
    };
    const std::size_t changes = partition.count_changes();
    if constexpr (touch == SavedTouch::yes) {
      to.reserve<KeyInBytes, Time, S>(changes);
    } else {
      to.reserve<KeyInBytes, S>(changes);
    }
    partition.for_each_change([&](const typename Table::Probe& key) { to.erase(group_of(key), Form::view(key)); },
                              [&](auto place) {
                                const auto& key = table.probe(place);
                                if constexpr (touch == SavedTouch::yes) {
                                  to.put(group_of(key), Form::view(key), table.last_touch(place), table.state(place));
                                } else {
                                  to.put(group_of(key), Form::view(key), table.state(place));
                                }
                              });
  }

  std::shared_ptr<Store> store_;        // shared with the operator
  std::shared_ptr<Executor> executor_;  // shared with the context
  StateSchema schema_;
  std::vector<Decoded> decoded_;
  std::vector<std::vector<Restored>> restored_;  // of each partition
};

}  // namespace tidemill
