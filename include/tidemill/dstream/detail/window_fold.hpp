// How a partition of a keyed window folds its panes: by two stacks, or by a running total from which the user's inverse takes
// what leaves. Either way a batch costs what it holds, and a slide what enters, what leaves, and one result a key.
//
// A user function may throw at any point. Each step below first computes what it needs, from constants, and then puts it in
// place without calling anybody; so a step is done or not done, and what failed is taken up again where it stopped.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "tidemill/batch/detail/stages.hpp"
#include "tidemill/core/codec.hpp"
#include "tidemill/core/function_ref.hpp"
#include "tidemill/core/ownership.hpp"
#include "tidemill/dstream/detail/window_keys.hpp"
#include "tidemill/dstream/detail/window_shape.hpp"
#include "tidemill/state/durable_state.hpp"

namespace tidemill {
namespace detail {

/// What a checkpoint keeps of a window: the records of each pane under its last time, in one entry a partition, and of batches
/// whose pane is not complete under their own.
using PieceKey = std::pair<Time, std::uint32_t>;

/// A sequence that is written where it lies, in the form of a std::vector.
struct SavedRecords {
  std::size_t count;
  FunctionRef<void(Encoder&, std::size_t)> write;
};

/// A value that is written as the alternative of a variant, without being one.
template <class T>
struct SavedAlternative {
  std::uint64_t index;
  const T& value;
};

}  // namespace detail

template <>
struct Codec<detail::SavedRecords> {
  static void write(Encoder& to, const detail::SavedRecords& records) {
    to.varint(records.count);
    for (std::size_t i = 0; i < records.count; ++i) records.write(to, i);
  }
  [[noreturn]] static detail::SavedRecords read(Decoder& from) {
    from.fail("a sequence", "a type that is only written");
  }
};
template <class T>
struct Codec<detail::SavedAlternative<T>> {
  static void write(Encoder& to, const detail::SavedAlternative<T>& alternative) {
    to.varint(alternative.index);
    to.value(alternative.value);
  }
  [[noreturn]] static detail::SavedAlternative<T> read(Decoder& from) {
    from.fail("an alternative", "a type that is only written");
  }
};

namespace detail {

/// f(a, b), or a copy of a into which f has folded b; the arguments stay as they are.
template <class V, class F>
[[nodiscard]] V merged(const char* op, const F& f, const V& a, const V& b) {
  if constexpr (std::is_void_v<std::invoke_result_t<const F&, V&, const V&>>) {
    V result = a;
    call_user(op, f, result, b);
    return result;
  } else {
    return V(to_owned(call_user(op, f, a, b)));
  }
}

/// A key in a pane, and its value there.
template <class V>
struct PaneEntry {
  KeyId id;
  bool has_later = false;  // two stacks: `value` is what remains of the stack when this pane has left it
  V value;
};

template <class V>
struct WindowPane {
  WindowShape::Pane pane;
  std::vector<PaneEntry<V>> entries;
  bool entered = false;  // running totals: the value of a window has it
};

/// One partition of a keyed window, up to the pane that is not complete yet. `Self` does the rest:
///   Cell                     what it keeps for a key; has `open`, and `vacant()` says that nothing holds the key any more
///   keeps_totals             whether its saved keys are std::variant<PieceKey, K>, or PieceKey alone
///   close(pane)              the open pane is complete: `take_open` gives it. Does nothing when it has been done.
///   end_window(pane)         the window that ends with this pane is next. Likewise.
template <class Self, class K, class V, class F, class Cell, bool keeps_totals>
class WindowPart {
 public:
  static constexpr bool can_be_saved = Encodable<K> && Encodable<V>;
  static constexpr bool saves_totals = keeps_totals;

  WindowPart(const char* op, F f, WindowShape shape) : op_{op}, f_{std::move(f)}, shape_{std::move(shape)} {}

  void set_number(std::uint32_t number) noexcept { number_ = number; }
  void track_changes(bool track) noexcept { tracking_ = track && can_be_saved; }
  void take_changes(StateChanges& to) {
    to.append(changes_);
    changes_.clear();
  }
  [[nodiscard]] std::size_t keys() const noexcept { return keys_.size(); }

  /// The batch of u, reduced: each key once. Batches come in order of time; one that was added before is not added again, so
  /// the call may be repeated after a failure. `pane` is that of u.
  template <class Record>
  void add(Time u, const WindowShape::Pane& pane, bool ends_window, std::span<const Record> records) {
    if (u > gathered_) {
      if (!open_.empty() && open_pane_.index != pane.index) self().close(open_pane_);  // without its last batches
      gather(u, pane, records);
      gathered_ = u;
    }
    if (u != pane.last) return;
    self().close(pane);
    if (ends_window) self().end_window(pane);
  }

 protected:
  using Entry = PaneEntry<V>;

  /// Folds a batch into the open pane.
  template <class Record>
  void gather(Time u, const WindowShape::Pane& pane, std::span<const Record> records) {
    ids_.clear();
    values_.clear();
    ids_.reserve(records.size());
    values_.reserve(records.size());
    try {
      for (const Record& record : records) {
        const KeyId id = keys_.intern(record.first);
        ids_.push_back(id);
        const std::size_t open = keys_[id].open;
        if (open == 0) {
          values_.push_back(V(to_owned(record.second)));
        } else if constexpr (borrows_v<std::remove_cvref_t<decltype(record.second)>>) {
          values_.push_back(merged<V>(op_, f_, open_[open - 1].value, to_owned(record.second)));
        } else {
          values_.push_back(merged<V>(op_, f_, open_[open - 1].value, record.second));
        }
      }
      const bool saved_alone = u != pane.last && !records.empty();
      if (saved_alone) saved_batches_.push_back(u);
      if (open_.capacity() < open_.size() + ids_.size())
        open_.reserve(std::max(open_.size() + ids_.size(), 2 * open_.capacity()));
      if constexpr (can_be_saved) {
        if (tracking_ && saved_alone) {
          const auto write = [&](Encoder& to, std::size_t i) {
            to.value(keys_.key(ids_[i]));
            to.value(static_cast<const V&>(to_owned(records[i].second)));
          };
          put_piece(changes_, u, ids_.size(), write);
        }
      }
    } catch (...) {
      if (!saved_batches_.empty() && saved_batches_.back() == u) saved_batches_.pop_back();
      for (const KeyId id : ids_) {
        if (keys_[id].vacant()) keys_.release(id);
      }
      throw;
    }
    for (std::size_t i = 0; i < ids_.size(); ++i) {
      std::uint32_t& open = keys_[ids_[i]].open;
      if (open == 0) {
        open_.push_back({ids_[i], false, std::move(values_[i])});
        open = static_cast<std::uint32_t>(open_.size());
      } else {
        open_[open - 1].value = std::move(values_[i]);
      }
    }
    open_pane_ = pane;
  }

  [[nodiscard]] const std::vector<Entry>& opened() const noexcept { return open_; }
  /// The entry of the open pane, complete now, instead of those of its batches. For `close`, before it changes anything.
  void save_open(const WindowShape::Pane& pane) {
    if constexpr (can_be_saved) {
      if (!tracking_) return;
      StateChanges change;
      const auto write = [this](Encoder& to, std::size_t i) {
        to.value(keys_.key(open_[i].id));
        to.value(open_[i].value);
      };
      if (!open_.empty()) put_piece(change, pane.last, open_.size(), write);
      for (const Time u : saved_batches_) erase_piece(change, u);
      changes_.append(change);
    }
  }
  /// Leaves the open pane empty.
  [[nodiscard]] std::vector<Entry> take_open() noexcept {
    for (const Entry& entry : open_) keys_[entry.id].open = 0;
    saved_batches_.clear();
    return std::exchange(open_, {});
  }
  /// The pane has left all windows.
  void erase_saved(const WindowShape::Pane& pane) {
    if constexpr (can_be_saved) {
      if (tracking_) erase_piece(changes_, pane.last);
    }
  }

  /// `write(encoder, i)` writes the i-th record.
  template <class Write>
  void put_piece(StateChanges& to, Time time, std::size_t count, const Write& write) const {
    const PieceKey key{time, number_};
    const SavedRecords records{count, write};
    if constexpr (keeps_totals) {
      to.put(group(), SavedAlternative<PieceKey>{0, key}, SavedAlternative<SavedRecords>{0, records});
    } else {
      to.put(group(), key, records);
    }
  }
  void erase_piece(StateChanges& to, Time time) const {
    const PieceKey key{time, number_};
    if constexpr (keeps_totals) {
      to.erase(group(), SavedAlternative<PieceKey>{0, key});
    } else {
      to.erase(group(), key);
    }
  }
  // A piece holds keys of many groups; it is spread over them for those who read groups side by side.
  [[nodiscard]] KeyGroup group() const noexcept { return static_cast<KeyGroup>(number_); }

  const char* op_;
  [[no_unique_address]] F f_;
  WindowShape shape_;
  std::uint32_t number_ = 0;
  WindowKeys<K, Cell> keys_;
  bool tracking_ = false;
  StateChanges changes_;

 private:
  [[nodiscard]] Self& self() noexcept { return static_cast<Self&>(*this); }

  Time gathered_ = Time::min();      // the batch that was gathered last
  std::vector<Entry> open_;          // the pane that is not complete; a key's cell knows its place here, from 1
  WindowShape::Pane open_pane_{};    // its number, when there is anything in it
  std::vector<Time> saved_batches_;  // batches in it that are saved by themselves
  std::vector<KeyId> ids_;           // room for `gather`: the keys of a batch,
  std::vector<V> values_;            // and their new values in the open pane
};

template <class V>
struct StacksCell {
  std::optional<V> front;  // all of the front stack that is still in the window, folded
  std::optional<V> back;   // all of the back stack, folded
  std::uint32_t open = 0;
  [[nodiscard]] bool vacant() const noexcept { return !front && !back && open == 0; }
};

/// Two stacks. Panes are cut into blocks of as many as a window has, at multiples of that number, so a window is the end of one
/// block (the front) and the beginning of the next (the back):
///
///     block            |---- 4 5 6 7 ----|---- 8 9 10 11 ----|
///     window                     [6 7          8 9]              front 6 7, back 8 9
///
/// The back is folded as its panes come. When it is a whole block it becomes the front: from its last pane to its first, each
/// entry takes the fold of what stands behind it and gives the key the fold of what stands before, so that a pane that leaves
/// only has to hand its entries over. A record of a pane is thus folded at most three times: into the back, on turning, and
/// front with back in the result. Nothing depends on when the run began, so results are the same after a restart, bit for bit.
/// Invariant TS1: back_ holds panes of block_ only, front_ panes of earlier blocks (while turning_, of block_ too).
template <class K, class V, class F>
class TwoStacks final : public WindowPart<TwoStacks<K, V, F>, K, V, F, StacksCell<V>, false> {
  using Base = WindowPart<TwoStacks, K, V, F, StacksCell<V>, false>;
  using Entry = PaneEntry<V>;
  using Pane = WindowPane<V>;
  using Base::f_, Base::keys_, Base::op_, Base::shape_;

 public:
  using Base::Base;

  /// What two runs of a program must agree on, besides the shape.
  static constexpr std::string_view kind = "window";

  void close(const WindowShape::Pane& pane) {
    if (pane.index <= closed_) return;
    advance(pane.index);
    const std::vector<Entry>& open = this->opened();
    folded_.clear();
    folded_.reserve(open.size());
    for (const Entry& entry : open) {
      const std::optional<V>& back = keys_[entry.id].back;
      folded_.push_back(back ? merged(op_, f_, *back, entry.value) : entry.value);
    }
    if (!open.empty()) back_.emplace_back();
    try {
      this->save_open(pane);
    } catch (...) {
      if (!open.empty()) back_.pop_back();
      throw;
    }
    std::vector<Entry> entries = this->take_open();
    for (std::size_t i = 0; i < entries.size(); ++i) keys_[entries[i].id].back = std::move(folded_[i]);
    if (!entries.empty()) back_.back() = {pane, std::move(entries), true};
    closed_ = pane.index;
  }

  void end_window(const WindowShape::Pane&) noexcept {}

  void resume(std::int64_t) noexcept {}

  /// `see(key, value)` for every key of the window that has ended.
  template <class See>
  void emit(const See& see) {
    keys_.for_each([&](KeyId, const K& key, const StacksCell<V>& cell) {
      if (cell.front && cell.back) {
        see(key, merged(op_, f_, *cell.front, *cell.back));
      } else if (const std::optional<V>& only = cell.front ? cell.front : cell.back) {
        see(key, V(*only));
      }
    });
  }

 private:
  friend Base;

  // Makes the window end with this pane.
  void advance(std::int64_t pane) {
    const std::int64_t block = floor_div(pane, shape_.panes);
    if (block != block_) {
      if (!turning_) leave_until(std::numeric_limits<std::int64_t>::max());  // of the block before the last one
      turning_ = true;
      for (; !back_.empty(); back_.pop_back()) turn_last();
      turning_ = false;
      block_ = block;
    }
    leave_until(pane - shape_.panes + 1);
  }

  // Moves the last pane of the back under the front.
  void turn_last() {
    Pane& pane = back_.back();
    folded_.clear();
    for (const Entry& entry : pane.entries) {
      if (const std::optional<V>& later = keys_[entry.id].front)
        folded_.push_back(merged(op_, f_, entry.value, *later));
    }
    front_.emplace_front();
    auto next = folded_.begin();
    for (Entry& entry : pane.entries) {
      StacksCell<V>& cell = keys_[entry.id];
      entry.has_later = cell.front.has_value();
      if (entry.has_later) {
        entry.value = *std::exchange(cell.front, std::move(*next++));
      } else {
        cell.front = std::move(entry.value);
      }
      cell.back.reset();
    }
    front_.front() = std::move(pane);
  }

  // Lets go of the panes before this one.
  void leave_until(std::int64_t index) {
    for (; !front_.empty() && front_.front().pane.index < index; front_.pop_front()) {
      this->erase_saved(front_.front().pane);
      for (Entry& entry : front_.front().entries) {
        StacksCell<V>& cell = keys_[entry.id];
        if (entry.has_later) {
          cell.front = std::move(entry.value);
        } else {
          cell.front.reset();
          if (cell.vacant()) keys_.release(entry.id);
        }
      }
    }
  }

  std::deque<Pane> front_;  // the oldest first; only panes with records
  std::deque<Pane> back_;
  std::int64_t block_ = std::numeric_limits<std::int64_t>::min();
  std::int64_t closed_ = std::numeric_limits<std::int64_t>::min();  // the pane that was closed last
  bool turning_ = false;                                            // a turn was begun and not finished
  std::vector<V> folded_;                                           // room for the results of a step
};

/// Nothing is dropped.
struct KeepAll {
  template <class K, class V>
  constexpr bool operator()(const K&, const V&) const noexcept {
    return true;
  }
};

template <class V>
struct TotalCell {
  std::optional<V> total;   // the value of the window that ended last
  std::uint32_t panes = 0;  // how many panes hold the key
  std::uint32_t open = 0;
  std::uint32_t changing = 0;  // its place among the changes of a step, from 1
  [[nodiscard]] bool vacant() const noexcept { return !total && panes == 0 && open == 0; }
};

/// A running total: value(t) = f(inverse(value(t - slide), what left), what entered). [W7, W8]
/// A key whose total became neutral stays, as long as the filter lets it. [W9] A key that the filter rejects is not shown, and is
/// forgotten once no pane of the window has it; before, its total is kept, so that what leaves later can be taken from it.
template <class K, class V, class F, class Inverse, class Filter>
class RunningTotals final : public WindowPart<RunningTotals<K, V, F, Inverse, Filter>, K, V, F, TotalCell<V>, true> {
  using Base = WindowPart<RunningTotals, K, V, F, TotalCell<V>, true>;
  using Entry = PaneEntry<V>;
  using Pane = WindowPane<V>;
  using Base::f_, Base::keys_, Base::op_, Base::shape_, Base::changes_, Base::tracking_;

 public:
  static constexpr std::string_view kind = "window_with_inverse";

  RunningTotals(const char* op, F f, Inverse inverse, Filter filter, WindowShape shape)
      : Base{op, std::move(f), std::move(shape)}, inverse_{std::move(inverse)}, filter_{std::move(filter)} {}

  void close(const WindowShape::Pane& pane) {
    if (pane.index <= closed_) return;
    const bool any = !this->opened().empty();
    if (any) panes_.emplace_back();
    try {
      this->save_open(pane);
    } catch (...) {
      if (any) panes_.pop_back();
      throw;
    }
    if (any) panes_.back() = {pane, this->take_open(), false};
    if (any) {
      for (const Entry& entry : panes_.back().entries) ++keys_[entry.id].panes;
    }
    closed_ = pane.index;
  }

  void end_window(const WindowShape::Pane& pane) {
    const std::int64_t begin = pane.index - shape_.panes + 1;
    std::size_t leaving = 0;
    while (leaving < panes_.size() && panes_[leaving].pane.index < begin) ++leaving;
    std::size_t entering = panes_.size();
    while (entering > 0 && !panes_[entering - 1].entered) --entering;
    try {
      for (std::size_t i = 0; i < std::min(leaving, entering); ++i) collect(panes_[i], &Change::left);
      for (std::size_t i = std::max(leaving, entering); i < panes_.size(); ++i) collect(panes_[i], &Change::entered);
      for (Change& change : changing_) change.total = changed_total(change);
      save_step(leaving);
    } catch (...) {
      forget_changes();
      throw;
    }
    for (Change& change : changing_) keys_[change.id].total = std::move(change.total);
    forget_changes();
    for (; leaving > 0; --leaving) {
      for (const Entry& entry : panes_.front().entries) {
        TotalCell<V>& cell = keys_[entry.id];
        --cell.panes;
        if (cell.vacant()) keys_.release(entry.id);
      }
      panes_.pop_front();
    }
    for (std::size_t i = panes_.size(); i > 0 && !panes_[i - 1].entered; --i) panes_[i - 1].entered = true;
  }

  template <class See>
  void emit(const See& see) {
    rejected_.clear();
    keys_.for_each([&](KeyId id, const K& key, const TotalCell<V>& cell) {
      if (!cell.total) return;
      if constexpr (!std::is_same_v<Filter, KeepAll>) {
        if (!passes(key, *cell.total)) {
          if (cell.panes == 0 && cell.open == 0) rejected_.push_back(id);
          return;
        }
      }
      see(key, V(*cell.total));
    });
    if constexpr (Base::can_be_saved) {
      if (tracking_) {
        StateChanges saved;
        for (const KeyId id : rejected_) saved.erase(group_of(id), SavedAlternative<K>{1, keys_.key(id)});
        changes_.append(saved);
      }
    }
    for (const KeyId id : rejected_) keys_.release(id);
  }

  /// After a restart: the total of a key; and the pane with which the last window ended.
  template <class Value>
  void restore_total(const K& key, Value&& total) {
    keys_[keys_.intern(key)].total.emplace(std::forward<Value>(total));
  }
  void resume(std::int64_t last_end) noexcept {
    for (Pane& pane : panes_) pane.entered = pane.pane.index <= last_end;
  }

 private:
  friend Base;

  // The values of a key in several panes, folded; a single one stays where it is.
  struct Sum {
    const V* first = nullptr;
    std::optional<V> fold;
    [[nodiscard]] const V* get() const noexcept { return fold ? &*fold : first; }
  };
  struct Change {
    KeyId id;
    Sum left{};     // what leaves the window
    Sum entered{};  // what enters it
    std::optional<V> total{};
  };

  void collect(const Pane& pane, Sum Change::*where) {
    for (const Entry& entry : pane.entries) {
      std::uint32_t& place = keys_[entry.id].changing;
      if (place == 0) {
        changing_.push_back(Change{entry.id});
        place = static_cast<std::uint32_t>(changing_.size());
      }
      Sum& sum = changing_[place - 1].*where;
      if (sum.first == nullptr) {
        sum.first = &entry.value;
      } else {
        sum.fold = merged(op_, f_, *sum.get(), entry.value);
      }
    }
  }
  void forget_changes() noexcept {
    for (const Change& change : changing_) keys_[change.id].changing = 0;
    changing_.clear();
  }

  [[nodiscard]] V changed_total(const Change& change) const {
    const std::optional<V>& before = keys_[change.id].total;
    const V* const left = change.left.get();
    const V* const entered = change.entered.get();
    if (!before) {
      TIDEMILL_ASSERT(entered != nullptr, "what leaves a window is in its total");
      return *entered;
    }
    if (left == nullptr) return merged(op_, f_, *before, *entered);
    V rest = merged(op_, inverse_, *before, *left);
    return entered == nullptr ? rest : merged(op_, f_, rest, *entered);
  }

  // Before anything is changed.
  void save_step(std::size_t leaving) {
    if constexpr (Base::can_be_saved) {
      if (!tracking_) return;
      StateChanges saved;
      for (const Change& change : changing_)
        saved.put(group_of(change.id), SavedAlternative<K>{1, keys_.key(change.id)},
                  SavedAlternative<V>{1, *change.total});
      for (std::size_t i = 0; i < leaving; ++i) this->erase_piece(saved, panes_[i].pane.last);
      changes_.append(saved);
    }
  }

  [[nodiscard]] bool passes(const K& key, const V& value) const {
    if constexpr (std::is_invocable_r_v<bool, const Filter&, const K&, const V&>) {
      return call_user(op_, filter_, key, value);
    } else {
      return call_user(op_, filter_, std::pair<K, V>{key, value});
    }
  }

  [[nodiscard]] KeyGroup group_of(KeyId id) const noexcept { return static_cast<KeyGroup>(keys_.tag(id) >> 24); }

  [[no_unique_address]] Inverse inverse_;
  [[no_unique_address]] Filter filter_;
  std::deque<Pane> panes_;  // the oldest first; only panes with records
  std::int64_t closed_ = std::numeric_limits<std::int64_t>::min();
  std::vector<Change> changing_;  // room for a step
  std::vector<KeyId> rejected_;   // likewise
};

}  // namespace detail
}  // namespace tidemill
