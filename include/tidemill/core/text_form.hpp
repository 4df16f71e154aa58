// The text of a record, as `print` and `save_as_text_files` show it. For people and for files that people read; what
// must come back as the same value is the business of codec.hpp.
//
//     bool                      true, false
//     char                      the character
//     other integers            decimal, those of one byte too
//     float, double             the shortest digits that give the value back, as Java prints them: 1.0, 0.1, 1.0E7, 1.0E-4,
//                               -0.0, NaN, Infinity
//     strings                   as they are, also inside other values; a null `const char*` is null
//     pair, tuple, plain struct (a,b): no space, as a Scala tuple
//     monostate, empty struct   ()
//     optional                  Some(x), None
//     variant                   the text of the value it holds
//     unique_ptr, shared_ptr    the text of what it points to, or null
//     vector, array, set, …     [a, b], as a Java list
//     map                       {k=v, k2=v2}, as a Java map
//     Time, Duration            1700000000000 ms, 250 ms, 1.5 s (to_string of time.hpp)
//     enum                      its number
//
// A type of yours is shown by the first of these that it has: `to_text(const T&)` in its own namespace, returning
// something that converts to std::string_view; `operator<<` for std::ostream in its own namespace; a form above.
#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include "tidemill/core/config.hpp"
#include "tidemill/core/detail/type_shape.hpp"
#include "tidemill/core/time.hpp"

namespace tidemill {

namespace detail {
template <class T, class... Seen>
consteval bool is_text_printable();
}  // namespace detail

/// Whether a T, with all its parts, has a text form.
template <class T>
concept TextPrintable = detail::is_text_printable<T>();

/// Appends the text of `value` to `out`.
/// Errors: std::bad_alloc, and what a `to_text` or `operator<<` of the user throws; `out` may then end in a part of it.
/// Cost:   no allocation beyond the growth of `out`, but for times and for types that are shown by `operator<<`.
template <class T>
void append_text(std::string& out, const T& value);

/// The text of `value` alone.
template <class T>
[[nodiscard]] std::string text_of(const T& value) {
  std::string out;
  append_text(out, value);
  return out;
}

namespace detail {

TIDEMILL_API void append_integer(std::string& out, long long value);
TIDEMILL_API void append_integer(std::string& out, unsigned long long value);
TIDEMILL_API void append_floating(std::string& out, float value);
TIDEMILL_API void append_floating(std::string& out, double value);
TIDEMILL_API void append_floating(std::string& out, long double value);
TIDEMILL_API void append_nanoseconds(std::string& out, std::chrono::nanoseconds value);

/// Calls `insert` with a stream that appends to `out`, has the classic locale and throws when it cannot append.
TIDEMILL_API void append_streamed(std::string& out, const void* value, void (*insert)(std::ostream&, const void*));

namespace adl {

void to_text() = delete;  // keeps the search for `to_text` to the namespaces of its argument

template <class T>
concept HasToText = requires(const T& value) {
  { to_text(value) } -> std::convertible_to<std::string_view>;
};

template <class T>
void append_to_text(std::string& out, const T& value) {
  const auto& text = to_text(value);
  out.append(static_cast<std::string_view>(text));
}

// As a function call, so that the members of std::ostream for numbers and pointers do not count: a class that converts
// to bool is not thereby printable, and the answer does not depend on whether <ostream> was included.
template <class T>
concept HasInserter = (std::is_class_v<T> || std::is_union_v<T> ||
                       (std::is_enum_v<T> && (sizeof(T) > 1 || !std::is_convertible_v<T, int>))) &&
                      requires(std::ostream& to, const T& value) { operator<<(to, value); };

template <class T>
void insert(std::ostream& to, const void* value) {
  operator<<(to, *static_cast<const T*>(value));
}

}  // namespace adl

template <class T>
inline constexpr bool is_shared_ptr = false;
template <class T>
inline constexpr bool is_shared_ptr<std::shared_ptr<T>> = !std::is_array_v<T> && !std::is_void_v<T>;

template <class T>
inline constexpr bool is_wide_character =
    std::same_as<T, wchar_t> || std::same_as<T, char8_t> || std::same_as<T, char16_t> || std::same_as<T, char32_t>;

template <class T>
concept TextTime = is_time_point<T> && std::convertible_to<T, Time>;

template <class T>
concept TextDuration = is_duration<T> && std::convertible_to<T, std::chrono::nanoseconds>;

template <class T>
concept Iterable = std::is_array_v<T> || requires(const T& items) {
  *items.begin();
  items.begin() != items.end();
};

template <class T>
struct ItemOf {
  using type = std::remove_cvref_t<decltype(*std::declval<const T&>().begin())>;
};
template <class T, std::size_t N>
struct ItemOf<T[N]> {
  using type = std::remove_cv_t<T>;
};

template <class T>
concept TextMap = Iterable<T> && requires {
  typename T::key_type;
  typename T::mapped_type;
};

enum class TextForm {
  none,
  to_text,
  boolean,
  character,
  integer,
  floating,
  string,
  c_string,
  time,
  duration,
  unit,
  pair,
  tuple,
  optional,
  variant,
  pointer,
  inserter,
  enumeration,
  map,
  range,
  aggregate,
};

template <class T>
consteval TextForm text_form() {
  if constexpr (adl::HasToText<T>)
    return TextForm::to_text;
  else if constexpr (std::same_as<T, bool>)
    return TextForm::boolean;
  else if constexpr (std::same_as<T, char>)
    return TextForm::character;
  else if constexpr (is_wide_character<T>)
    return TextForm::none;
  else if constexpr (std::is_integral_v<T>)
    return TextForm::integer;
  else if constexpr (std::is_floating_point_v<T>)
    return TextForm::floating;
  else if constexpr (std::same_as<T, const char*> || std::same_as<T, char*>)
    return TextForm::c_string;
  else if constexpr (std::is_convertible_v<const T&, std::string_view>)
    return TextForm::string;
  else if constexpr (std::is_pointer_v<T>)
    return TextForm::none;
  else if constexpr (TextTime<T>)
    return TextForm::time;
  else if constexpr (TextDuration<T>)
    return TextForm::duration;
  else if constexpr (std::same_as<T, std::monostate>)
    return TextForm::unit;
  else if constexpr (is_pair<T>)
    return TextForm::pair;
  else if constexpr (is_tuple<T>)
    return TextForm::tuple;
  else if constexpr (is_optional<T>)
    return TextForm::optional;
  else if constexpr (is_variant<T>)
    return TextForm::variant;
  else if constexpr (is_unique_ptr<T> || is_shared_ptr<T>)
    return TextForm::pointer;
  else if constexpr (adl::HasInserter<T>)
    return TextForm::inserter;
  else if constexpr (std::is_enum_v<T>)
    return TextForm::enumeration;
  else if constexpr (TextMap<T>)
    return TextForm::map;
  else if constexpr (Iterable<T>)
    return TextForm::range;
  else if constexpr (PlainAggregate<T>)
    return field_count<T> == 0 ? TextForm::unit : TextForm::aggregate;
  else
    return TextForm::none;
}

template <class... Parts>
struct AllTextPrintable {
  template <class... Seen>
  static consteval bool given() {
    return (is_text_printable<std::remove_cv_t<Parts>, Seen...>() && ...);
  }
};

template <class T>
struct TextParts;
template <template <class...> class Template, class... Parts>
struct TextParts<Template<Parts...>> : AllTextPrintable<Parts...> {};

template <class T, class Indices>
struct TextFields;
template <class T, std::size_t... I>
struct TextFields<T, std::index_sequence<I...>> : AllTextPrintable<field_t<I, T>...> {};

// A type met again inside itself is as good as its other parts.
template <class T, class... Seen>
consteval bool is_text_printable() {
  if constexpr ((std::same_as<T, Seen> || ...)) {
    return true;
  } else if constexpr (!std::is_object_v<T> || std::is_const_v<T> || std::is_volatile_v<T>) {
    return false;
  } else {
    constexpr TextForm form = text_form<T>();
    if constexpr (form == TextForm::none)
      return false;
    else if constexpr (form == TextForm::pair || form == TextForm::tuple || form == TextForm::variant ||
                       form == TextForm::optional)
      return TextParts<T>::template given<T, Seen...>();
    else if constexpr (form == TextForm::pointer)
      return AllTextPrintable<typename T::element_type>::template given<T, Seen...>();
    else if constexpr (form == TextForm::map)
      return AllTextPrintable<typename T::key_type, typename T::mapped_type>::template given<T, Seen...>();
    else if constexpr (form == TextForm::range)
      // A range of itself, as a path is one of paths, has no end.
      return !std::same_as<typename ItemOf<T>::type, T> &&
             AllTextPrintable<typename ItemOf<T>::type>::template given<T, Seen...>();
    else if constexpr (form == TextForm::aggregate)
      return TextFields<T, std::make_index_sequence<field_count<T>>>::template given<T, Seen...>();
    else
      return true;
  }
}

// Appends the items between two brackets; `append_item` appends one.
template <class Items, class AppendItem>
void append_items(std::string& out, const Items& items, std::string_view between, AppendItem append_item) {
  std::string_view separator;
  for (const auto& item : items) {
    out.append(separator);
    append_item(item);
    separator = between;
  }
}

template <class Tuple>
void append_tuple(std::string& out, const Tuple& parts) {
  out.push_back('(');
  std::apply(
      [&](const auto&... part) {
        [[maybe_unused]] std::string_view separator;
        ((out.append(separator), append_text(out, part), separator = ","), ...);
      },
      parts);
  out.push_back(')');
}

}  // namespace detail

template <class T>
void append_text(std::string& out, const T& value) {
  using detail::TextForm;
  constexpr TextForm form = detail::text_form<T>();
  if constexpr (form == TextForm::to_text) {
    detail::adl::append_to_text(out, value);
  } else if constexpr (form == TextForm::boolean) {
    out.append(value ? "true" : "false");
  } else if constexpr (form == TextForm::character) {
    out.push_back(value);
  } else if constexpr (form == TextForm::integer) {
    if constexpr (std::is_signed_v<T>)
      detail::append_integer(out, static_cast<long long>(value));
    else
      detail::append_integer(out, static_cast<unsigned long long>(value));
  } else if constexpr (form == TextForm::floating) {
    detail::append_floating(out, value);
  } else if constexpr (form == TextForm::string) {
    out.append(static_cast<std::string_view>(value));
  } else if constexpr (form == TextForm::c_string) {
    out.append(value == nullptr ? "null" : value);
  } else if constexpr (form == TextForm::time) {
    out.append(to_string(static_cast<Time>(value)));
  } else if constexpr (form == TextForm::duration) {
    if constexpr (std::convertible_to<T, Duration>)
      out.append(to_string(static_cast<Duration>(value)));
    else
      detail::append_nanoseconds(out, value);
  } else if constexpr (form == TextForm::unit) {
    out.append("()");
  } else if constexpr (form == TextForm::pair) {
    detail::append_tuple(out, std::tie(value.first, value.second));
  } else if constexpr (form == TextForm::tuple) {
    detail::append_tuple(out, value);
  } else if constexpr (form == TextForm::optional) {
    if (value.has_value()) {
      out.append("Some(");
      append_text(out, *value);
      out.push_back(')');
    } else {
      out.append("None");
    }
  } else if constexpr (form == TextForm::variant) {
    if (value.valueless_by_exception())
      out.append("null");
    else
      std::visit([&](const auto& alternative) { append_text(out, alternative); }, value);
  } else if constexpr (form == TextForm::pointer) {
    if (value == nullptr)
      out.append("null");
    else
      append_text(out, *value);
  } else if constexpr (form == TextForm::inserter) {
    detail::append_streamed(out, std::addressof(value), &detail::adl::insert<T>);
  } else if constexpr (form == TextForm::enumeration) {
    using Number = std::underlying_type_t<T>;
    if constexpr (std::is_signed_v<Number>)
      detail::append_integer(out, static_cast<long long>(value));
    else
      detail::append_integer(out, static_cast<unsigned long long>(value));
  } else if constexpr (form == TextForm::map) {
    out.push_back('{');
    detail::append_items(out, value, ", ", [&](const auto& item) {
      append_text(out, item.first);
      out.push_back('=');
      append_text(out, item.second);
    });
    out.push_back('}');
  } else if constexpr (form == TextForm::range) {
    out.push_back('[');
    detail::append_items(out, value, ", ", [&](const auto& item) { append_text(out, item); });
    out.push_back(']');
  } else if constexpr (form == TextForm::aggregate) {
    detail::append_tuple(out, detail::tie_fields(value));
  } else {
    static_assert(form != TextForm::none,
                  "no text form for this type: give it `std::string to_text(const T&)` or `std::ostream& "
                  "operator<<(std::ostream&, const T&)` in its own namespace");
  }
}

}  // namespace tidemill
