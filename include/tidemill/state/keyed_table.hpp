// KeyedTable<K, S>: the state of the keys of one partition, in memory. What happens within a batch is written to a log of what
// was there before, so a batch that fails leaves no trace, and one that succeeds can say what it changed and what was before.
//
//     table.begin(t);
//     auto place = table.find(tag, probe);                // or in blocks: prefetch, candidate, find_from
//     if (!place) table.insert(tag, probe, state);
//     else table.assign(place, state);                    // or touch, remove
//     table.prepare(); table.commit();                    // or table.roll_back()
//
// Layout:  entries (when last touched, key, state) lie side by side in chunks that never move; an index of eight bytes a cell
//          finds them by 32 bits of the hash. A key costs its entry and 10 to 12.5 bytes (in small tables
//          up to 15 or 24); spare room is at most 64 KiB.
//          Slots of removed keys are used again; memory goes back when the table goes.
// Order:   `for_each` visits keys in an order that depends on the keys alone.
//
// Other stores. This class is the store in memory, and no interface with a virtual function a key. What another store (a file
// of sorted tables, say) has to do falls where a call costs nothing: keys are looked up in blocks of some dozen (operators stage
// them, see `candidate`), and changes leave in one piece, at `commit`. Such a store keeps a KeyedTable as its cache: one call a
// block fetches the entries that the table does not have, one call a batch writes what the log names.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "tidemill/core/config.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/core/hash.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/state/detail/chunked_storage.hpp"
#include "tidemill/state/detail/stamp.hpp"
#include "tidemill/state/detail/table_key.hpp"
#include "tidemill/state/detail/tag_index.hpp"

namespace tidemill {

namespace detail {
[[noreturn]] TIDEMILL_API void throw_table_full();
}  // namespace detail

/// What can be the state of a key: any type that owns what it holds and is moved and assigned without throwing. (A type that is
/// not, such as one with a throwing move assignment, goes into a std::unique_ptr.)
template <class S>
concept StateValue = std::movable<S> && std::is_nothrow_move_assignable_v<S> && !borrows_v<S>;

/// K is a type that owns its data: owned_t of the keys in the records.
/// Invariant KT1: between `begin` and the end of the batch every slot that the batch changed is in the log once, with the state
///                before, and its stamp says `saved`; every other slot that it touched is in the list of touches once.
/// Invariant KT2: a slot that lost its key in this batch keeps it, and its place in the index, until `commit`.
/// Errors:  std::bad_alloc, StateError "table_full" beyond four billion keys, and what copying or moving a key or state throws:
///          the table is then as it was before the call. What the recorder throws: the change is there, and the batch is to be
///          rolled back. `commit` and `roll_back` throw nothing.
/// Threads: as a standard container.
template <class K, StateValue S>
class KeyedTable {
  using Form = detail::TableKey<K>;
  struct Entry;

 public:
  using Slot = detail::Slot;
  using Stored = typename Form::Stored;
  using Probe = typename Form::Probe;
  using View = typename Form::View;

  /// What a batch changed in one slot.
  struct Change {
    Slot slot;
    std::uint32_t rank;      ///< of a new key: where it stands in the index
    detail::Stamp stamp;     ///< before; without meaning when the key was new
    std::optional<S> state;  ///< before; nothing when the key was new
  };
  /// A key that went, for those who still want to know what was in its slot.
  struct Gone {
    Slot slot;
    Stored key;
  };
  /// From what is in the table back to what was there before a batch.
  struct Undo {
    detail::ChunkedList<Change> changes;
    std::vector<Gone> gone;
  };
  /// Whether a batch leaves an Undo, for those who read what was before it.
  enum class Keep { nothing, undo };

  KeyedTable() = default;
  KeyedTable(KeyedTable&&) = delete;
  ~KeyedTable() { destroy_entries(); }

  // ---- looking up ---------------------------------------------------------------------------------------------------------

  [[nodiscard]] static TIDEMILL_INLINE std::uint32_t tag_of(const Probe& probe) {
    return detail::tag_of_hash(Form::hash(probe));
  }

  /// Where a key is. Valid until the end of the batch; false when it is nowhere.
  class Place {
   public:
    Place() = default;
    [[nodiscard]] TIDEMILL_INLINE explicit operator bool() const noexcept { return entry_ != nullptr; }
    [[nodiscard]] Slot slot() const noexcept { return slot_; }

   private:
    friend class KeyedTable;
    Place(Entry* entry, Slot slot) noexcept : entry_{entry}, slot_{slot} {}
    Entry* entry_ = nullptr;
    Slot slot_ = detail::no_slot;
  };

  /// A change of a key: another state, another last touch, or no state any more.
  struct Noted {
    Place place;
    bool again;  ///< not the first one in this batch
  };
  /// Writes down what a batch changes while it is in the cache.
  class Recorder {
   public:
    virtual ~Recorder() = default;
    virtual void begin_batch() noexcept = 0;
    /// The keys are written down as they are now.
    virtual void write(std::span<const Noted> changes) = 0;
    /// All changes have been given.
    virtual void end_batch() = 0;
    virtual void roll_back() noexcept = 0;
  };

  /// A block of keys is found in three passes, each of which asks for the memory that the next one needs.
  TIDEMILL_INLINE void prefetch(std::uint32_t tag) const noexcept { index_.prefetch(rank_of(tag)); }
  [[nodiscard]] TIDEMILL_INLINE Place candidate(std::uint32_t tag) const noexcept {
    const Slot slot = index_.first(rank_of(tag));
    if (slot == detail::no_slot) return {};
    const Place place = at(slot);
    const char* const entry = reinterpret_cast<const char*>(place.entry_);
    __builtin_prefetch(entry, 1);
    if constexpr (sizeof(Entry) > 16) __builtin_prefetch(entry + sizeof(Entry) - 1, 1);
    return place;
  }
  /// `candidate` may be older than insertions of this batch.
  [[nodiscard]] TIDEMILL_INLINE Place find_from(Place candidate, std::uint32_t tag, const Probe& probe) const {
    if (candidate && Form::equal(candidate.entry_->key, probe)) [[likely]]
      return candidate;
    return find(tag, probe);
  }
  /// The place of the key, be it removed in this batch.
  [[nodiscard]] Place find(std::uint32_t tag, const Probe& probe) const {
    return at(index_.find(rank_of(tag), [&](Slot slot) { return Form::equal(entries_[slot]->key, probe); }));
  }
  /// The place of what lies in a slot; nowhere for no_slot.
  [[nodiscard]] TIDEMILL_INLINE Place at(Slot slot) const noexcept {
    return slot == detail::no_slot ? Place{} : Place{entries_[slot], slot};
  }

  // ---- a place that is one --------------------------------------------------------------------------------------------------

  [[nodiscard]] TIDEMILL_INLINE bool exists(Place place) const noexcept { return !place.entry_->stamp.removed(); }
  [[nodiscard]] const Probe& probe(Place place) const noexcept { return Form::probe_of(place.entry_->key); }
  [[nodiscard]] View key(Place place) const noexcept { return Form::view(probe(place)); }
  [[nodiscard]] TIDEMILL_INLINE const S& state(Place place) const noexcept { return place.entry_->state; }
  [[nodiscard]] Time last_touch(Place place) const noexcept { return place.entry_->stamp.time(); }
  [[nodiscard]] std::uint8_t generation(Place place) const noexcept { return place.entry_->stamp.generation(); }

  // ---- changes, between begin and the end of the batch ------------------------------------------------------------------------

  /// Batches come in ascending order of time.
  void begin(Time t) noexcept {
    now_ = t;
    noted_ = 0;
    if (recorder_) recorder_->begin_batch();
  }

  /// Whether the log has the state before the batch already; if so, the state may be changed in place.
  [[nodiscard]] TIDEMILL_INLINE bool is_saved(Place place) const noexcept { return place.entry_->stamp.saved_at(now_); }

  /// Whether a state is copied before it may be changed: a small one, for which a copy costs less than a branch on whether the
  /// batch has had the key already, which nobody can guess.
  static constexpr bool copies_ahead = std::is_trivially_copyable_v<S> && sizeof(S) <= 64;
  /// What `open` found.
  struct Opened {
    detail::Stamp before;
    bool saved;
  };
  /// The state may be changed in place until `close`, or `take_back`. Pre: exists(place).
  [[nodiscard]] TIDEMILL_INLINE Opened open(Place place)
    requires copies_ahead
  {
    Entry& entry = *place.entry_;
    const Opened opened{entry.stamp, is_saved(place)};
    log_.add_if(!opened.saved, [&] { return Change{place.slot_, 0, opened.before, std::optional<S>{entry.state}}; });
    entry.stamp = opened.before.changed(now_);
    return opened;
  }
  TIDEMILL_INLINE void close(Place place, Opened opened) { note(place, opened.before.time() == now_); }
  /// The state is not to be changed after all. Pre: nothing else was changed meanwhile.
  TIDEMILL_INLINE void take_back(Place place, Opened opened) noexcept {
    if (opened.saved) return;
    place.entry_->state = *log_[log_.size() - 1].state;
    place.entry_->stamp = opened.before;
    log_.pop_back();
  }

  /// Pre: the key is not there, and not removed in this batch either.
  Place insert(std::uint32_t tag, Probe&& probe, S&& state) {
    log_.reserve_one();
    const Place placed = at(add(tag, Form::keep(std::move(probe)), std::move(state), now_));
    placed.entry_->stamp = placed.entry_->stamp.changed(now_);
    log_.add([&] { return Change{placed.slot_, rank_of(tag), detail::Stamp{}, std::nullopt}; });
    ++size_;
    note(placed, false);
    return placed;
  }
  /// Also gives a state to a key that this batch removed.
  TIDEMILL_INLINE void assign(Place place, S&& state) {
    Entry& entry = *place.entry_;
    const bool again = entry.stamp.time() == now_;
    save(place);
    if (entry.stamp.removed()) ++size_;
    entry.state = std::move(state);
    entry.stamp = entry.stamp.changed(now_);
    note(place, again);
  }
  /// The state was changed in place. Pre: is_saved(place).
  TIDEMILL_INLINE void edited(Place place) { note(place, true); }
  /// The key is used, and its state stays as it is.
  TIDEMILL_INLINE void touch(Place place) {
    Entry& entry = *place.entry_;
    if (entry.stamp.time() == now_) return;
    touches_.add([&] { return Touch{place.slot_, entry.stamp}; });
    entry.stamp = entry.stamp.touched(now_);
    note(place, false);
  }
  /// Pre: exists(place).
  void remove(Place place) {
    Entry& entry = *place.entry_;
    const bool again = entry.stamp.time() == now_;
    removed_.push_back({place.slot_, rank_of(tag_of(Form::probe_of(entry.key)))});
    try {
      save(place);
    } catch (...) {
      removed_.pop_back();
      throw;
    }
    entry.stamp = entry.stamp.without(now_);
    --size_;
    note(place, again);
  }

  // ---- the end of a batch -----------------------------------------------------------------------------------------------------

  /// The slots that the batch changed, new and removed ones included.
  [[nodiscard]] const detail::ChunkedList<Change>& changes() const noexcept { return log_; }
  /// Calls `see(place)` once for every key that the batch changed or touched. One that came and went is among them.
  template <class See>
  void for_each_changed(See&& see) const {
    for (std::size_t i = 0; i < log_.size(); ++i) see(at(log_[i].slot));
    for (std::size_t i = 0; i < touches_.size(); ++i) {
      if (const Place place = at(touches_[i].slot); !is_saved(place)) see(place);  // else it is in the log as well
    }
  }

  /// Gets what `commit` needs; may fail, and then the batch can only be rolled back.
  void prepare(Keep keep) {
    if (recorder_) {
      write_noted();
      recorder_->end_batch();
    }
    if (keep == Keep::undo) gone_.reserve(removed_.size());
  }
  /// Pre: `prepare` was called with the same argument after the last change.
  Undo commit(Keep keep) noexcept {
    for (const Removed& removed : removed_) {
      Entry& entry = *entries_[removed.slot];
      if (!entry.stamp.removed() || is_free(removed.slot)) continue;  // it came back, or went twice
      if (keep == Keep::undo) gone_.push_back({removed.slot, std::move(entry.key)});
      free_slot(removed.slot, removed.rank);
    }
    removed_.clear();
    touches_.clear_and_shrink();
    if (keep == Keep::undo) return Undo{std::exchange(log_, {}), std::exchange(gone_, {})};
    log_.clear_and_shrink();
    return {};
  }
  void roll_back() noexcept {
    if (recorder_) recorder_->roll_back();
    while (!log_.empty()) {
      Change& change = log_[log_.size() - 1];
      Entry& entry = *entries_[change.slot];
      const bool existed = change.state.has_value();
      if (!entry.stamp.removed()) --size_;
      if (existed) {
        entry.state = *std::move(change.state);
        entry.stamp = change.stamp;
        ++size_;
      } else {
        free_slot(change.slot, change.rank);
      }
      log_.pop_back();
    }
    while (!touches_.empty()) {
      const Touch& touch = touches_[touches_.size() - 1];
      entries_[touch.slot]->stamp = touch.stamp;
      touches_.pop_back();
    }
    log_.clear_and_shrink();
    touches_.clear_and_shrink();
    removed_.clear();
    gone_.clear();
  }

  // ---- outside of batches -----------------------------------------------------------------------------------------------------

  /// From now on `recorder` is told of every change.
  void record_with(std::unique_ptr<Recorder> recorder) {
    notes_ = std::make_unique<Notes>();
    recorder_ = std::move(recorder);
  }
  /// About so many keys will be restored.
  void expect(std::size_t keys) { restored_.reserve(keys); }
  /// Adds a key that comes from elsewhere. It is found after `index_restored`. Pre: the table has no others.
  void restore(std::uint32_t tag, Stored&& key, S&& state, Time last_touch) {
    if (slots_ >= detail::no_slot - 1) detail::throw_table_full();
    if (slots_ == entries_.capacity()) entries_.grow();
    restored_.push_back(detail::TagIndex::cell(rank_of(tag), slots_));
    Entry& entry = *::new (static_cast<void*>(entries_[slots_])) Entry;
    ::new (static_cast<void*>(std::addressof(entry.state))) S(std::move(state));
    ::new (static_cast<void*>(std::addressof(entry.key))) Stored(std::move(key));
    entry.stamp = detail::Stamp::at(last_touch, 0);
    ++size_;
    ++slots_;
  }
  /// False when a key was restored twice: then the table is of no use.
  [[nodiscard]] bool index_restored() {
    bool once = true;
    index_.build(std::move(restored_), [&](std::span<detail::TagIndex::Cell> cells) {
      const auto probe = [&](auto cell) -> const Probe& {
        return Form::probe_of(entries_[detail::TagIndex::slot_in(cell)]->key);
      };
      const auto hash = [&](auto cell) { return Form::hash(probe(cell)); };
      std::sort(cells.begin(), cells.end(), [&](auto a, auto b) { return hash(a) < hash(b); });
      for (auto one = cells.begin(); one != cells.end(); ++one) {
        for (auto other = one + 1; other != cells.end() && hash(*other) == hash(*one); ++other)
          once = once && !Form::equal(entries_[detail::TagIndex::slot_in(*one)]->key, probe(*other));
      }
    });
    restored_ = {};
    return once;
  }

  // ---- facts ------------------------------------------------------------------------------------------------------------------

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  /// Slots are numbered from 0 to this; some may be free.
  [[nodiscard]] Slot slots() const noexcept { return slots_; }
  [[nodiscard]] bool is_free(Slot slot) const noexcept { return entries_[slot]->stamp.time() == free_time; }
  /// Calls `see(place)` for every key that has a state, in the order of keys. `see` may assign, touch and remove.
  template <class See>
  void for_each(See&& see) const {
    index_.for_each([&](Slot slot) {
      if (const Place place = at(slot); exists(place)) see(place);
    });
  }
  /// What `for_each` goes by: keys ascend by this.
  [[nodiscard]] static std::pair<std::uint32_t, std::uint64_t> order_of(const Probe& probe) {
    const std::uint64_t hash = Form::hash(probe);
    return {rank_of(detail::tag_of_hash(hash)), hash};
  }
  /// All memory of entries, index and logs; not what keys and states themselves allocate.
  [[nodiscard]] std::size_t allocated_bytes() const noexcept {
    return entries_.allocated_bytes() + index_.allocated_bytes() + log_.allocated_bytes() + touches_.allocated_bytes() +
           removed_.capacity() * sizeof(Removed) + gone_.capacity() * sizeof(Gone);
  }

 private:
  struct Entry {
    Entry() noexcept {}  // NOLINT(modernize-use-equals-default): `add` makes the rest
    ~Entry() {}          // NOLINT(modernize-use-equals-default): `end` does the opposite
    detail::Stamp stamp;
    union {
      S state;  // alive unless the slot is free
    };
    union {
      Stored key;      // likewise
      Slot next_free;  // of a free slot; no_slot ends the list
    };
  };
  struct Touch {
    Slot slot;
    detail::Stamp stamp;
  };
  struct Removed {
    Slot slot;
    std::uint32_t rank;
  };
  // Before all times, so that no batch is older.
  static constexpr Time free_time{Duration{std::numeric_limits<std::int64_t>::min() >> 10}};

  [[nodiscard]] static TIDEMILL_INLINE std::uint32_t rank_of(std::uint32_t tag) noexcept {
    return detail::TagIndex::rank_of(tag);
  }

  TIDEMILL_INLINE void save(Place place) {
    if (is_saved(place)) return;
    Entry& entry = *place.entry_;
    log_.reserve_one();  // before the state is moved away
    log_.add([&] { return Change{place.slot_, 0, entry.stamp, std::optional<S>{std::move(entry.state)}}; });
  }

  // Not at once: what was just written is slow to read, until it has left the store buffer.
  TIDEMILL_INLINE void note(Place place, bool again) {
    if (!recorder_) return;
    (*notes_)[noted_++] = {place, again};
    if (noted_ == notes_->size()) [[unlikely]]
      write_noted();
  }
  TIDEMILL_NOINLINE void write_noted() { recorder_->write(std::span{*notes_}.first(std::exchange(noted_, 0))); }

  Slot add(std::uint32_t tag, Stored&& key, S&& state, Time t) {
    const bool reused = free_ != detail::no_slot;
    const Slot slot = reused ? free_ : slots_;
    if (!reused) {
      if (slots_ >= detail::no_slot - 1) detail::throw_table_full();
      if (slots_ == entries_.capacity()) entries_.grow();
      ::new (static_cast<void*>(entries_[slot])) Entry;
    }
    Entry& entry = *entries_[slot];
    ::new (static_cast<void*>(std::addressof(entry.state))) S(std::move(state));
    try {
      insert_into_index(tag, slot, Form::probe_of(key));
    } catch (...) {
      std::destroy_at(std::addressof(entry.state));
      throw;
    }
    // Nothing fails from here on.
    if (reused) {
      free_ = entry.next_free;
    } else {
      ++slots_;
    }
    ::new (static_cast<void*>(std::addressof(entry.key))) Stored(std::move(key));
    entry.stamp = detail::Stamp::at(t, static_cast<std::uint8_t>(reused ? entry.stamp.generation() + 1 : 0));
    return slot;
  }

  void insert_into_index(std::uint32_t tag, Slot slot, const Probe& key) {
    index_.insert(rank_of(tag), slot,
                  [&](Slot other) { return Form::hash(Form::probe_of(entries_[other]->key)) < Form::hash(key); });
  }

  void free_slot(Slot slot, std::uint32_t rank) noexcept {
    index_.erase(rank, slot);
    Entry& entry = *entries_[slot];
    end(entry);
    entry.stamp = detail::Stamp::at(free_time, entry.stamp.generation());
    entry.next_free = free_;
    free_ = slot;
  }
  static void end(Entry& entry) noexcept {
    std::destroy_at(std::addressof(entry.key));
    std::destroy_at(std::addressof(entry.state));
  }
  void destroy_entries() noexcept {
    if constexpr (std::is_trivially_destructible_v<Stored> && std::is_trivially_destructible_v<S>) return;
    for (Slot slot = 0; slot < slots_; ++slot) {
      if (!is_free(slot)) end(*entries_[slot]);
    }
  }

  detail::ChunkedStorage<Entry> entries_;
  detail::TagIndex index_;
  Slot slots_ = 0;               // slots that were ever used
  Slot free_ = detail::no_slot;  // the first free one
  std::size_t size_ = 0;         // keys that have a state
  Time now_;                     // of the batch, or the last one

  detail::ChunkedList<Change> log_;     // of this batch [KT1]
  detail::ChunkedList<Touch> touches_;  // likewise
  std::vector<Removed> removed_;        // likewise; a slot may be here and have come back
  std::vector<Gone> gone_;              // room for what `commit` hands out

  std::vector<detail::TagIndex::Cell> restored_;  // that are not in the index yet

  using Notes = std::array<Noted, 64>;
  std::unique_ptr<Recorder> recorder_;  // null: nobody writes changes down
  std::unique_ptr<Notes> notes_;        // what it has not been given yet: so many
  std::size_t noted_ = 0;
};

}  // namespace tidemill
