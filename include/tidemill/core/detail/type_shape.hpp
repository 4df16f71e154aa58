// What kind of type a type is: the questions that codec.hpp and text_form.hpp both ask before they take a value apart.
#pragma once

#include <array>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include <boost/pfr/core.hpp>
#include <boost/pfr/tuple_size.hpp>

namespace tidemill::detail {

template <class T>
inline constexpr bool is_pair = false;
template <class A, class B>
inline constexpr bool is_pair<std::pair<A, B>> = true;

template <class T>
inline constexpr bool is_tuple = false;
template <class... Ts>
inline constexpr bool is_tuple<std::tuple<Ts...>> = true;

template <class T>
inline constexpr bool is_optional = false;
template <class T>
inline constexpr bool is_optional<std::optional<T>> = true;

template <class T>
inline constexpr bool is_variant = false;
template <class... Ts>
inline constexpr bool is_variant<std::variant<Ts...>> = true;

template <class T>
inline constexpr bool is_std_array = false;
template <class T, std::size_t N>
inline constexpr bool is_std_array<std::array<T, N>> = true;

template <class T>
inline constexpr bool is_unique_ptr = false;
template <class T>
inline constexpr bool is_unique_ptr<std::unique_ptr<T>> = !std::is_array_v<T>;

template <class T>
inline constexpr bool is_duration = false;
template <class Rep, class Period>
inline constexpr bool is_duration<std::chrono::duration<Rep, Period>> = true;

template <class T>
inline constexpr bool is_time_point = false;
template <class Clock, class D>
inline constexpr bool is_time_point<std::chrono::time_point<Clock, D>> = true;

// Converts to every base class of Derived and to nothing else.
template <class Derived>
struct AnyBaseOf {
  template <class Base>
    requires(std::is_base_of_v<Base, Derived> && !std::same_as<Base, Derived>)
  operator Base() const;
};

/// An aggregate that Boost.PFR can take apart: a plain struct without base classes. Members that are C arrays are not
/// supported (PFR would count their elements as members); std::array is.
template <class T>
concept PlainAggregate = std::is_class_v<T> && std::is_aggregate_v<T> && !std::is_polymorphic_v<T> &&
                         (std::is_empty_v<T> || !requires { T{AnyBaseOf<T>{}}; });

template <class T>
inline constexpr std::size_t field_count = boost::pfr::tuple_size_v<T>;

template <std::size_t I, class T>
using field_t = boost::pfr::tuple_element_t<I, T>;

}  // namespace tidemill::detail
