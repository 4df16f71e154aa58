// Values as bytes and back: the form in which records lie in object files and state lies in checkpoints. A type is
// taken apart at compile time; nothing in the bytes says what type they are, so the reader must name the one that the
// writer had. Text for people is text_form.hpp; finding damaged bytes is the work of crc32c.hpp.
//
//     std::string bytes = tidemill::encode(std::pair{std::string{"tide"}, 3L});
//     auto [word, count] = tidemill::decode<std::pair<std::string, long>>(bytes);
//
// The layout, version 1. It is stable: it changes only together with `codec_format_version`.
//
//     bool                                    1 byte, 0 or 1
//     integers, char, std::byte, enums        sizeof(T) bytes, two's complement, little-endian
//     float, double                           4 or 8 bytes, IEEE 754, little-endian (NaN payloads and -0.0 survive)
//     count (of bytes or elements)            varint: 7 bits a byte, low bits first, bit 7 set on all but the last byte;
//                                             the shortest spelling only
//     std::string, std::string_view,
//     std::span<const std::byte>              count, then the bytes
//     pair, tuple, plain struct               the members in order (plain struct: an aggregate without base classes and
//                                             without C arrays; its members are found by Boost.PFR)
//     std::array                              the elements
//     vector, list, deque, set, map,
//     unordered and flat ones, …              count, then the elements in iteration order; of a map, key then value
//     optional, unique_ptr                    1 byte, 0 or 1, then the value if 1
//     variant                                 varint index of the alternative, then its value
//     duration, time_point                    as the count of ticks (since the clock's epoch)
//     monostate, empty struct, tuple<>,
//     array<T, 0>                             1 byte, 0
//
// Every value takes at least one byte. Because of that a count can be checked against the bytes that are left before
// anything is allocated, and a forged one costs nothing.
#pragma once

#include <array>
#include <bit>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include "tidemill/core/config.hpp"
#include "tidemill/core/detail/type_shape.hpp"

namespace tidemill {

/// The version of the layout above. Files carry it; a reader refuses a version that it does not know.
inline constexpr std::uint16_t codec_format_version = 1;

/// How deep values may be nested through containers and unique_ptr: a bound on the stack that hostile bytes can use.
inline constexpr int max_codec_nesting = 256;

/// How a T becomes bytes and comes back. Types of the table above have one; specialise it for yours, or to replace what
/// a plain struct gets by default:
///
///     template <> struct tidemill::Codec<Price> {
///       static void write(Encoder& to, const Price& price) { to.fixed(price.cents()); }
///       static Price read(Decoder& from) { return Price::of_cents(from.fixed<std::int64_t>("the cents of a price")); }
///     };
///
/// `write` appends at least one byte; `read` takes exactly what `write` appended, and calls `from.fail()` on bytes that
/// `write` cannot have written. Neither keeps the Encoder or Decoder. What `read` returns may be a view into the bytes.
template <class T>
struct Codec;

/// Whether a T has a codec: built in, for all its parts too, or specialised by the user.
template <class T>
concept Encodable = requires { requires detail::is_encodable<T>(); };

namespace detail {

template <class T>
concept FixedWidth = (std::is_arithmetic_v<T> && !std::same_as<std::remove_cv_t<T>, bool> &&
                      !std::same_as<std::remove_cv_t<T>, long double>) ||
                     std::is_enum_v<T>;

}  // namespace detail
}  // namespace tidemill
