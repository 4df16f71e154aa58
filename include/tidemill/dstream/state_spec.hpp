// What map_with_state is told: the function that sees every record with the state of its key, and how long a state lives.
//
//     auto sessions = clicks.map_with_state(
//         tidemill::state_spec<Session>([](std::string_view user, std::optional<Click> click, tidemill::State<Session>& session)
//                                           -> std::optional<Report> {
//           if (session.is_timing_out()) return report(user, session.get());     // idle for half an hour
//           session.update(session.exists() ? extend(session.get(), *click) : begin(*click));
//           return std::nullopt;
//         }).timeout(30min));
//
// Source: Spark `StateSpec`, `State`.
#pragma once

#include <concepts>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "tidemill/batch/batch.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/core/text_form.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/state/keyed_table.hpp"

namespace tidemill {

namespace detail {

enum class StateMisuse { absent, removed, removed_twice, timing_out };
/// `key`: its text, or empty when it has none.
[[noreturn]] TIDEMILL_API void throw_state_misuse(StateMisuse misuse, const std::string& key);
TIDEMILL_API void check_timeout(Duration idle);
TIDEMILL_API void check_lazy_timeouts(Duration every);

template <class S>
class StateCall;

}  // namespace detail

/// The state of one key during one call of the function of map_with_state. Valid during the call.
/// Errors: PlanError: "state_absent", "state_removed" or "state_timing_out", with the text of the key where it has one. [X2]
template <StateValue S>
class State {
 public:
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  /// Whether the key has a state, with what this call has done so far.
  [[nodiscard]] bool exists() const noexcept { return now_ != nullptr; }

  /// The state; a reference until the next update, edit or remove. Errors: "state_absent".
  [[nodiscard]] const S& get() const {
    if (now_ == nullptr) [[unlikely]]
      misuse(detail::StateMisuse::absent);
    return *now_;
  }
  /// The same as a copy, or nothing.
  [[nodiscard]] std::optional<S> get_option() const
    requires std::copy_constructible<S>
  {
    return now_ == nullptr ? std::nullopt : std::optional<S>{*now_};
  }

  /// The new state of the key. Errors: "state_removed" after `remove`, "state_timing_out" in a timeout.
  TIDEMILL_INLINE void update(S state) {
    check_can_change(detail::StateMisuse::removed);
    if (in_place_) {
      *now_ = std::move(state);
    } else {
      now_ = &fresh_.emplace(std::move(state));
    }
    change_ = Change::updated;
  }
  /// The state, to be changed where it is: for states that are costly to copy, which this does at most once a key and batch.
  /// Counts as an update. Errors: those of `update`, and "state_absent".
  [[nodiscard]] S& edit()
    requires std::copy_constructible<S>
  {
    check_can_change(detail::StateMisuse::removed);
    if (now_ == nullptr) [[unlikely]]
      misuse(detail::StateMisuse::absent);
    if (!in_place_ && !fresh_) now_ = &fresh_.emplace(*now_);
    change_ = Change::updated;
    return *now_;
  }
  /// The key has no state any more. Does nothing when it had none. Errors: "state_removed" the second time, "state_timing_out".
  void remove() {
    check_can_change(detail::StateMisuse::removed_twice);
    now_ = nullptr;
    change_ = Change::removed;
  }

  /// Whether this call is the key's last, because it was not touched for the idle time: there is no value, and the state is
  /// removed afterwards. [X6]
  [[nodiscard]] bool is_timing_out() const noexcept { return timing_out_; }

 private:
  friend class detail::StateCall<S>;
  enum class Change { none, updated, removed };

  using KeyText = std::string (*)(const void* key);

  State(const void* key, KeyText key_text, const S* now, bool in_place, bool timing_out) noexcept
      : now_{const_cast<S*>(now)}, in_place_{in_place}, timing_out_{timing_out}, key_{key}, key_text_{key_text} {}
  TIDEMILL_INLINE void check_can_change(detail::StateMisuse when_removed) const {
    if (change_ == Change::removed) [[unlikely]]
      misuse(when_removed);
    if (timing_out_) [[unlikely]]
      misuse(detail::StateMisuse::timing_out);
  }
  [[noreturn]] TIDEMILL_INLINE void misuse(detail::StateMisuse what) const { misuse(what, key_, key_text_); }
  // Not told where this is, so that all of it may live in registers.
  [[noreturn]] TIDEMILL_NOINLINE static void misuse(detail::StateMisuse what, const void* key, KeyText key_text) {
    detail::throw_state_misuse(what, key_text == nullptr ? std::string{} : key_text(key));
  }

  S* now_;  // in the table, where it is written to only when in_place_, or fresh_; null: there is no state
  std::optional<S> fresh_;  // the new state, unless it could be changed in the table
  Change change_ = Change::none;
  bool in_place_;  // the table has logged what was before this batch
  bool timing_out_;
  const void* key_;
  KeyText key_text_;  // null: the key has no text
};

namespace detail {

/// The library's side of a State.
template <class S>
class StateCall {
 public:
  using Change = typename State<S>::Change;
  enum class Kind { record, timeout };

  /// `key` outlives the call. `now`: null when the key has no state. `in_place`: it may be written to.
  template <class K>
  TIDEMILL_INLINE StateCall(const K& key, const S* now, bool in_place, Kind kind = Kind::record) noexcept
      : state_{&key, key_text<K>(), now, in_place, kind == Kind::timeout} {}

  [[nodiscard]] TIDEMILL_INLINE State<S>& state() noexcept { return state_; }
  [[nodiscard]] TIDEMILL_INLINE bool unchanged() const noexcept { return state_.change_ == Change::none; }
  [[nodiscard]] TIDEMILL_INLINE bool changed() const noexcept { return state_.change_ == Change::updated; }
  [[nodiscard]] TIDEMILL_INLINE bool removed() const noexcept { return state_.change_ == Change::removed; }
  /// Null when the table has the state already. Pre: neither unchanged nor removed.
  [[nodiscard]] TIDEMILL_INLINE S* fresh() noexcept { return state_.fresh_ ? &*state_.fresh_ : nullptr; }

 private:
  template <class K>
  static constexpr typename State<S>::KeyText key_text() noexcept {
    if constexpr (TextPrintable<K>) {
      return [](const void* key) { return text_of(*static_cast<const K*>(key)); };
    } else {
      return nullptr;
    }
  }

  State<S> state_;
};

}  // namespace detail

/// The states with which an operator begins, when it continues no earlier run: pairs, or a Batch of pairs. [X10, U5]
/// Of several pairs with one key the last counts.
template <class K, class S>
class InitialState {
 public:
  InitialState() = default;
  /// From pairs.
  InitialState(std::vector<std::pair<K, S>> pairs)  // NOLINT(google-explicit-constructor): says the same
      : pairs_{std::move(pairs)} {}
  /// From a batch of pairs, which is computed in the first batch of the stream.
  InitialState(Batch<std::pair<K, S>> batch)  // NOLINT(google-explicit-constructor): says the same
      : pairs_{std::move(batch)} {}

  /// Calls `see(key, state)` for each.
  template <class See>
  void for_each(See&& see) const {
    if (const auto* const pairs = std::get_if<std::vector<std::pair<K, S>>>(&pairs_)) {
      for (const auto& [key, state] : *pairs) see(key, state);
    } else if (const auto* const batch = std::get_if<Batch<std::pair<K, S>>>(&pairs_)) {
      const auto& node = batch->node();
      node.prepare();
      for (std::size_t p = 0; p < node.partitions(); ++p) {
        node.run(p, [&](std::span<const std::pair<K, S>> chunk) {
          for (const auto& [key, state] : chunk) see(key, state);
          return true;
        });
      }
    }
  }

 private:
  std::variant<std::monostate, std::vector<std::pair<K, S>>, Batch<std::pair<K, S>>> pairs_;
};

/// No states to begin with.
struct NoInitialState {
  /// Calls nothing.
  template <class See>
  void for_each(See&&) const noexcept {}
};

/// A builder: each member returns the spec with one thing added. Made by `state_spec<S>(f)`.
template <StateValue S, class F, class Initial = NoInitialState>
class StateSpec {
 public:
  using state_type = S;  ///< of a key

  /// By `state_spec`.
  StateSpec(F f, Initial initial) : f_{std::move(f)}, initial_{std::move(initial)} {}

  /// The states to begin with: `std::vector<std::pair<K, S>>`, or a `Batch<std::pair<K, S>>`. Needs a copyable S. [X10]
  template <class K>
  [[nodiscard]] auto initial_state(std::vector<std::pair<K, S>> pairs) && {
    return with_initial(InitialState<K, S>{std::move(pairs)});
  }
  /// The same.
  template <class K>
  [[nodiscard]] auto initial_state(Batch<std::pair<K, S>> batch) && {
    return with_initial(InitialState<K, S>{std::move(batch)});
  }

  /// Partitions of the state; 0, the default, means the context's parallelism. May change from run to run.
  [[nodiscard]] StateSpec num_partitions(std::size_t partitions) && {
    partitions_ = partitions;
    return std::move(*this);
  }

  /// A key that was not touched for longer than `idle` times out: in the first batch whose time is later than its last touch
  /// by more than that, after all records of the batch. A record touches its key if it updates the state, or finds one. [X5–X8]
  /// Errors: ConfigError unless idle > 0.
  [[nodiscard]] StateSpec timeout(Duration idle) && {
    detail::check_timeout(idle);
    idle_ = idle;
    return std::move(*this);
  }
  /// Timeouts as late as Spark's: looked at only in the first batch at or after a multiple of `every` since the epoch, where
  /// Spark takes the checkpoint interval. 0, the default, means ten batch intervals. Errors: ConfigError unless every >= 0, and
  /// from map_with_state when there is no timeout. [X7]
  [[nodiscard]] StateSpec lazy_timeouts(Duration every = Duration::zero()) && {
    detail::check_lazy_timeouts(every);
    lazy_ = every;
    return std::move(*this);
  }

  // For the operator.
  /// As it was given.
  [[nodiscard]] const F& function() const noexcept { return f_; }
  /// As it was given; NoInitialState otherwise.
  [[nodiscard]] const Initial& initial() const noexcept { return initial_; }
  /// 0: the parallelism of the context.
  [[nodiscard]] std::size_t partitions() const noexcept { return partitions_; }
  /// Of the timeout, if there is one.
  [[nodiscard]] std::optional<Duration> idle() const noexcept { return idle_; }
  /// Of lazy_timeouts, if they were asked for.
  [[nodiscard]] std::optional<Duration> lazy() const noexcept { return lazy_; }

 private:
  template <StateValue, class, class>
  friend class StateSpec;

  template <class Other>
  [[nodiscard]] StateSpec<S, F, Other> with_initial(Other initial) {
    static_assert(std::copy_constructible<S>,
                  "initial_state: the state must be copyable, since a failed batch begins anew");
    StateSpec<S, F, Other> spec{std::move(f_), std::move(initial)};
    spec.partitions_ = partitions_;
    spec.idle_ = idle_;
    spec.lazy_ = lazy_;
    return spec;
  }

  F f_;
  Initial initial_;
  std::size_t partitions_ = 0;
  std::optional<Duration> idle_;
  std::optional<Duration> lazy_;  // zero: ten intervals
};

/// `f` is called once a record, in batch order for each key, and once when a key times out: [X1, X3, X6]
///
///     f(key, value, state)    f(time, key, value, state)
///
/// key    as in the records; string keys as std::string_view, or as const std::string& where the function wants that. What is
///        a view is valid during the call.
/// value  std::optional<V>, or const V* to save the copy; nothing in a timeout.
/// state  State<S>&
///
/// It returns a record of the result, an std::optional of one, or nothing.
template <StateValue S, class F>
[[nodiscard]] StateSpec<S, F> state_spec(F f) {
  return {std::move(f), NoInitialState{}};
}

}  // namespace tidemill
