// The stages of a fused chain. A stage takes one record and an `emit`, and calls `emit` for each record that it yields;
// stages nest into one function object, so a chain of them is one loop without a virtual call or an allocation.
#pragma once

#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <ranges>
#include <tuple>
#include <type_traits>
#include <utility>

#include "tidemill/core/config.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/core/ownership.hpp"

namespace tidemill::detail {

// ---- what a record is -----------------------------------------------------------------------------------------------

template <class T>
struct PairTraits : std::false_type {};
template <class K, class V>
struct PairTraits<std::pair<K, V>> : std::true_type {
  using Key = K;
  using Value = V;
};
template <class T>
concept PairLike = PairTraits<T>::value;
template <class T>
using pair_key_t = typename PairTraits<T>::Key;
template <class T>
using pair_value_t = typename PairTraits<T>::Value;

// ---- how long views in a record last --------------------------------------------------------------------------------
//
// A chain is *stable* when whatever its records look at lives as long as the batch; otherwise they may look at a
// temporary of an earlier stage, and must be copied (`rehome`) wherever they have to wait. See
// docs/adr/0002-record-lifetimes.md.

/// Whether records of type U, made by a user function from records of type T, are stable.
/// A view made from a view is taken to look at the same memory. A view made from a record that owns memory looks into
/// that record, which may be a temporary. A view made from a number can only look at something that the function keeps.
template <class T, class U>
consteval bool stays_stable(bool input_is_stable) {
  constexpr bool holds_no_memory =
      std::is_arithmetic_v<T> || std::is_enum_v<T> || (borrows_v<T> && std::is_trivially_destructible_v<T>);
  return !borrows_v<U> || (input_is_stable && holds_no_memory);
}

// ---- user functions -------------------------------------------------------------------------------------------------

/// A callable that is cheap to copy: itself when it is small and trivial, else a shared one. Chains and batches are
/// copied each interval, what a lambda captured must not be.
template <class F>
class SharedFunction {
 public:
  explicit SharedFunction(F f) : f_{std::make_shared<const F>(std::move(f))} {}
  template <class... Args>
    requires std::invocable<const F&, Args...>
  TIDEMILL_INLINE decltype(auto) operator()(Args&&... args) const {
    return std::invoke(*f_, std::forward<Args>(args)...);
  }

 private:
  std::shared_ptr<const F> f_;  // shared by the copies of a chain; immutable
};
template <class T>
inline constexpr bool is_shared_function = false;
template <class F>
inline constexpr bool is_shared_function<SharedFunction<F>> = true;

template <class F>
inline constexpr bool is_cheap_function = is_shared_function<F> || (std::is_trivially_copyable_v<F> && sizeof(F) <= 64);

template <class F>
[[nodiscard]] auto share(F&& f) {
  using Plain = std::decay_t<F>;
  if constexpr (is_cheap_function<Plain>) {
    return Plain(std::forward<F>(f));
  } else {
    return SharedFunction<Plain>{std::forward<F>(f)};
  }
}
template <class F>
using shared_t = decltype(share(std::declval<F>()));

/// Calls a user function; what it throws is labelled with the operator's name.
template <class F, class... Args>
TIDEMILL_INLINE decltype(auto) call_user(const char* op, const F& f, Args&&... args) {
  if constexpr (std::is_nothrow_invocable_v<const F&, Args...>) {
    return std::invoke(f, std::forward<Args>(args)...);
  } else {
    try {
      return std::invoke(f, std::forward<Args>(args)...);
    } catch (...) {
      throw_user_failure(op);
    }
  }
}

// ---- stages ---------------------------------------------------------------------------------------------------------

struct Identity {
  template <class R, class Emit>
  TIDEMILL_INLINE void operator()(R&& record, Emit&& emit) const {
    emit(std::forward<R>(record));
  }
};

template <class First, class Second>
struct Then {
  [[no_unique_address]] First first;
  [[no_unique_address]] Second second;
  template <class R, class Emit>
  TIDEMILL_INLINE void operator()(R&& record, Emit&& emit) const {
    first(std::forward<R>(record),
          [&](auto&& next) TIDEMILL_INLINE_LAMBDA { second(std::forward<decltype(next)>(next), emit); });
  }
};

template <class F>
struct Map {
  [[no_unique_address]] F f;
  template <class R, class Emit>
  TIDEMILL_INLINE void operator()(R&& record, Emit&& emit) const {
    emit(call_user("map", f, std::forward<R>(record)));
  }
};

template <class F>
struct Filter {
  [[no_unique_address]] F predicate;
  template <class R, class Emit>
  TIDEMILL_INLINE void operator()(R&& record, Emit&& emit) const {
    if (call_user("filter", predicate, std::as_const(record))) emit(std::forward<R>(record));
  }
};

/// The record that `Range` yields, and how: an element of a temporary container may be moved from.
template <class Range>
struct RangeElement {
  using Value = std::ranges::range_value_t<Range>;
  using Reference = std::ranges::range_reference_t<std::remove_reference_t<Range>&>;
  static constexpr bool movable = !std::is_reference_v<Range> && !std::ranges::view<std::remove_cvref_t<Range>> &&
                                  std::is_lvalue_reference_v<Reference> &&
                                  !std::is_const_v<std::remove_reference_t<Reference>>;
  using Ref = std::conditional_t<movable || !std::is_same_v<std::remove_cvref_t<Reference>, Value>, Value&&,
                                 std::conditional_t<std::is_reference_v<Reference>, const Value&, Value&&>>;
};

/// Emits the elements of a range, moving them out of a temporary container.
template <class Range, class Emit>
TIDEMILL_INLINE void emit_range(Range&& range, Emit&& emit) {
  using Element = RangeElement<Range>;
  for (auto&& element : range) {
    if constexpr (Element::movable) {
      emit(std::move(element));
    } else if constexpr (std::is_same_v<std::remove_cvref_t<decltype(element)>, typename Element::Value>) {
      if constexpr (std::is_lvalue_reference_v<typename Element::Reference>) {
        emit(std::as_const(element));
      } else {
        emit(std::move(element));
      }
    } else {  // a proxy, as of vector<bool>
      emit(static_cast<typename Element::Value>(element));
    }
  }
}

/// emit_range for what the user's function returned. A view may compute its elements as it goes, by functions of the
/// user that may throw; what later stages throw has its label already.
template <class Range, class Emit>
TIDEMILL_INLINE void emit_user_range(const char* op, Range&& range, Emit&& emit) {
  if constexpr (std::ranges::contiguous_range<Range> || !std::ranges::view<std::remove_cvref_t<Range>>) {
    emit_range(std::forward<Range>(range), emit);
  } else {
    try {
      emit_range(std::forward<Range>(range), emit);
    } catch (const Error&) {
      throw;
    } catch (...) {
      throw_user_failure(op);
    }
  }
}

/// The form in which the function returns a range.
template <class F>
struct FlatMap {
  [[no_unique_address]] F f;
  template <class R, class Emit>
  TIDEMILL_INLINE void operator()(R&& record, Emit&& emit) const {
    auto&& range = call_user("flat_map", f, std::forward<R>(record));
    emit_user_range("flat_map", std::forward<decltype(range)>(range), emit);
  }
};

/// The form in which the function is handed `emit`. What the later stages throw passes through the user's function, so
/// failures that are labelled already keep their label.
template <class Out, class F>
struct FlatMapEmit {
  [[no_unique_address]] F f;
  template <class R, class Emit>
  TIDEMILL_INLINE void operator()(R&& record, Emit&& emit) const {
    const auto emit_out = [&](auto&& out) TIDEMILL_INLINE_LAMBDA {
      if constexpr (std::is_same_v<decltype(out), Out&&>) {
        emit(std::move(out));
      } else {
        emit(Out(std::forward<decltype(out)>(out)));
      }
    };
    try {
      std::invoke(f, std::forward<R>(record), emit_out);
    } catch (const Error&) {
      throw;
    } catch (...) {
      throw_user_failure("flat_map");
    }
  }
};

template <class F>
struct MapValues {
  [[no_unique_address]] F f;
  template <class R, class Emit>
  TIDEMILL_INLINE void operator()(R&& record, Emit&& emit) const {
    using K = pair_key_t<std::remove_cvref_t<R>>;
    using U = std::remove_cvref_t<decltype(call_user("map_values", f, std::forward<R>(record).second))>;
    auto&& value = call_user("map_values", f, std::forward<R>(record).second);
    emit(std::pair<K, U>{std::forward<R>(record).first, std::forward<decltype(value)>(value)});
  }
};

template <class F>
struct FlatMapValues {
  [[no_unique_address]] F f;
  template <class R, class Emit>
  TIDEMILL_INLINE void operator()(R&& record, Emit&& emit) const {
    using K = pair_key_t<std::remove_cvref_t<R>>;
    auto&& range = call_user("flat_map_values", f, std::forward<R>(record).second);
    using U = typename RangeElement<decltype(range)>::Value;
    emit_user_range("flat_map_values", std::forward<decltype(range)>(range), [&](auto&& value) TIDEMILL_INLINE_LAMBDA {
      emit(std::pair<K, U>{record.first, std::forward<decltype(value)>(value)});
    });
  }
};

template <class F>
struct KeyBy {
  [[no_unique_address]] F f;
  template <class R, class Emit>
  TIDEMILL_INLINE void operator()(R&& record, Emit&& emit) const {
    using T = std::remove_cvref_t<R>;
    using K = std::remove_cvref_t<decltype(call_user("key_by", f, std::as_const(record)))>;
    K key = call_user("key_by", f, std::as_const(record));
    if constexpr (borrows_v<K> && std::copy_constructible<T>) {
      // The key may look into the record (short strings lie inside their object), so the record stays where it is.
      emit(std::pair<K, T>{std::move(key), std::as_const(record)});
    } else {
      emit(std::pair<K, T>{std::move(key), std::forward<R>(record)});
    }
  }
};

struct Keys {
  template <class R, class Emit>
  TIDEMILL_INLINE void operator()(R&& record, Emit&& emit) const {
    emit(std::forward<R>(record).first);
  }
};
/// (record, {}): for what folds records themselves.
struct Nothing {
  friend constexpr bool operator==(Nothing, Nothing) = default;
};
template <class V>
struct WithValue {
  V value;
  template <class R, class Emit>
  TIDEMILL_INLINE void operator()(R&& record, Emit&& emit) const {
    emit(std::pair<std::remove_cvref_t<R>, V>{std::forward<R>(record), value});
  }
};
/// (k, value) for (k, v).
template <class V>
struct ReplaceValue {
  V value;
  template <class R, class Emit>
  TIDEMILL_INLINE void operator()(R&& record, Emit&& emit) const {
    emit(std::pair<pair_key_t<std::remove_cvref_t<R>>, V>{std::forward<R>(record).first, value});
  }
};
struct Values {
  template <class R, class Emit>
  TIDEMILL_INLINE void operator()(R&& record, Emit&& emit) const {
    emit(std::forward<R>(record).second);
  }
};

}  // namespace tidemill::detail
