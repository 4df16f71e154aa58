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
//                                             without C arrays and bit-fields, of at most 32 members)
//     std::array                              the elements
//     vector, list, deque, set, map,
//     unordered and flat ones, …              count, then the elements in iteration order; of a map, key then value
//     optional, unique_ptr                    1 byte, 0 or 1, then the value if 1
//     variant                                 varint index of the alternative, then its value
//     duration, time_point                    as the count of ticks (since the clock's epoch)
//     monostate, empty struct, tuple<>,
//     array<T, 0>                             1 byte, 0
//
// Any other type: specialise tidemill::Codec. That goes for classes with base classes, private members or more than 32 members,
// also where they are described for Boost.Describe, at which nothing here looks.
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

class Encoder;
class Decoder;

namespace detail {

template <class T, class... Seen>
consteval bool is_encodable();

// What is written as sizeof(T) little-endian bytes, whatever they are. bool is not: only two of its 256 bytes exist.
template <class T>
concept FixedWidth = (std::is_arithmetic_v<T> && !std::same_as<T, bool> && !std::same_as<T, long double>) ||
                     (std::is_enum_v<T> && sizeof(T) > 0);

// Counts the levels of nesting while a value is written or read.
template <class Cursor>
class Nesting {
 public:
  explicit Nesting(Cursor& cursor) : cursor_{cursor} { cursor.enter(); }
  ~Nesting() { cursor_.leave(); }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  Cursor& cursor_;
};

}  // namespace detail

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
concept Encodable = detail::is_encodable<T>();

/// Appends values to a string of bytes that the caller owns and that outlives the encoder.
/// Errors:  StateError "unencodable" for a valueless variant, for values nested deeper than max_codec_nesting, and for
///          elements whose codec writes no byte; whatever a codec of the user throws. What was appended before stays.
/// Threads: one at a time.
class TIDEMILL_API Encoder {
 public:
  explicit Encoder(std::string& out) noexcept : out_{out} {}

  /// Appends `value` by its codec.
  template <class T>
  void value(const T& value) {
    Codec<T>::write(*this, value);
  }

  /// Appends the bytes as they are, without a count.
  void bytes(std::span<const std::byte> bytes) {
    if (!bytes.empty()) out_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }

  /// Appends a number or enumerator in sizeof(T) bytes.
  template <class T>
    requires detail::FixedWidth<T>
  void fixed(T value) {
    auto raw = std::bit_cast<std::array<char, sizeof(T)>>(value);
    if constexpr (std::endian::native == std::endian::big) reverse(raw.data(), raw.size());
    out_.append(raw.data(), raw.size());
  }

  /// Appends a count or another number that is mostly small: 1 byte below 128, at most 10.
  void varint(std::uint64_t value) {
    if (value < 0x80) [[likely]] {
      out_.push_back(static_cast<char>(value));
    } else {
      long_varint(value);
    }
  }

  /// Appends the count of bytes, then the bytes.
  void text(std::string_view text) {
    varint(text.size());
    out_.append(text);
  }

  /// Bytes in the string so far, with those that were there before.
  [[nodiscard]] std::size_t size() const noexcept { return out_.size(); }

  /// Throws StateError "unencodable": `what` cannot be written because of `why`.
  [[noreturn]] static void fail(std::string_view what, std::string_view why);

 private:
  friend class detail::Nesting<Encoder>;
  static void reverse(char* bytes, std::size_t size) noexcept;
  [[noreturn]] static void fail_nesting();
  void long_varint(std::uint64_t value);
  void enter() {
    if (nesting_ == max_codec_nesting) [[unlikely]]
      fail_nesting();
    ++nesting_;
  }
  void leave() noexcept { --nesting_; }

  std::string& out_;
  int nesting_ = 0;  // in [0, max_codec_nesting]
};

/// Takes values from bytes, from the front. The bytes may come from anywhere: whatever they hold, a read gives a value
/// or throws, touches nothing outside them, and allocates in proportion to the elements that are really there, whatever
/// the counts claim.
/// Errors:  StateError "malformed_data" naming the byte offset, what was expected there and what was found.
/// Lifetime: the bytes are the caller's; they outlive the decoder and every view that it gave out.
/// Threads: one at a time.
class TIDEMILL_API Decoder {
 public:
  explicit Decoder(std::span<const std::byte> bytes) noexcept : bytes_{bytes} {}

  /// Takes a T by its codec.
  template <class T>
  [[nodiscard]] T value() {
    return Codec<T>::read(*this);
  }

  /// Takes `count` bytes; `expected` says in an error message what they should have been. The result is a view.
  [[nodiscard]] std::span<const std::byte> bytes(std::size_t count, std::string_view expected) {
    if (count > remaining()) [[unlikely]]
      fail_short(count, expected);
    const auto taken = bytes_.subspan(offset_, count);
    offset_ += count;
    return taken;
  }

  /// Takes a number or enumerator of sizeof(T) bytes.
  template <class T>
    requires detail::FixedWidth<T>
  [[nodiscard]] T fixed(std::string_view expected = "a number") {
    std::array<char, sizeof(T)> raw;
    std::memcpy(raw.data(), bytes(sizeof(T), expected).data(), sizeof(T));
    if constexpr (std::endian::native == std::endian::big) reverse(raw.data(), raw.size());
    return std::bit_cast<T>(raw);
  }

  /// Takes a number that Encoder::varint wrote.
  [[nodiscard]] std::uint64_t varint(std::string_view expected = "a varint") {
    if (offset_ < bytes_.size()) [[likely]] {
      const auto first = std::to_integer<std::uint8_t>(bytes_[offset_]);
      if (first < 0x80) [[likely]] {
        ++offset_;
        return first;
      }
    }
    return long_varint(expected);
  }

  /// Takes a count of things of which each takes at least `bytes_each` > 0 bytes, so it is at most
  /// remaining() / bytes_each.
  [[nodiscard]] std::size_t count(std::string_view expected, std::size_t bytes_each = 1) {
    const std::size_t at = offset_;
    const std::uint64_t count = varint(expected);
    if (count > remaining() / bytes_each) [[unlikely]]
      fail_count(at, count, expected);
    return static_cast<std::size_t>(count);
  }

  /// Takes what Encoder::text wrote. The result is a view.
  [[nodiscard]] std::string_view text(std::string_view expected = "a string") {
    const auto taken = bytes(count(expected), expected);
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }

  [[nodiscard]] std::size_t offset() const noexcept { return offset_; }
  [[nodiscard]] std::size_t remaining() const noexcept { return bytes_.size() - offset_; }

  /// Throws StateError unless all bytes were taken.
  void expect_end() const {
    if (remaining() != 0) [[unlikely]]
      fail_trailing();
  }

  /// Throws StateError "malformed_data" at the current offset.
  [[noreturn]] void fail(std::string_view expected, std::string_view found) const;

  /// The same at an offset that was passed already.
  [[noreturn]] static void fail_at(std::size_t offset, std::string_view expected, std::string_view found);

 private:
  friend class detail::Nesting<Decoder>;
  static void reverse(char* bytes, std::size_t size) noexcept;
  [[noreturn]] void fail_short(std::size_t count, std::string_view expected) const;
  [[noreturn]] void fail_count(std::size_t at, std::uint64_t count, std::string_view expected) const;
  [[noreturn]] void fail_trailing() const;
  [[noreturn]] void fail_nesting() const;
  std::uint64_t long_varint(std::string_view expected);
  void enter() {
    if (nesting_ == max_codec_nesting) [[unlikely]]
      fail_nesting();
    ++nesting_;
  }
  void leave() noexcept { --nesting_; }

  std::span<const std::byte> bytes_;
  std::size_t offset_ = 0;  // <= bytes_.size()
  int nesting_ = 0;         // in [0, max_codec_nesting]
};

/// Appends the serialised form of `value` to `out`. Errors: those of Encoder; `out` is then as it was before.
template <class T>
void encode_to(std::string& out, const T& value) {
  const std::size_t before = out.size();
  try {
    Encoder{out}.value(value);
  } catch (...) {
    out.resize(before);
    throw;
  }
}

/// The serialised form of `value`.
template <class T>
[[nodiscard]] std::string encode(const T& value) {
  std::string out;
  Encoder{out}.value(value);
  return out;
}

/// The value that `bytes` are the serialised form of, all of them. Errors: those of Decoder.
/// Views in the result (T is std::string_view or holds one) look into `bytes`.
template <class T>
[[nodiscard]] T decode(std::span<const std::byte> bytes) {
  Decoder from{bytes};
  if constexpr (std::is_move_constructible_v<T>) {
    T value = from.value<T>();
    from.expect_end();
    return value;
  } else {
    return from.value<T>();
  }
}

template <class T>
[[nodiscard]] T decode(std::string_view bytes) {
  return decode<T>(std::as_bytes(std::span{bytes}));
}

namespace detail {

enum class CodecForm {
  none,
  boolean,
  fixed,
  string,
  view,  // std::string_view, std::span<const std::byte>: decoded without a copy
  pair,
  tuple,
  array,
  sequence,
  set,
  map,
  optional,
  unique_ptr,
  variant,
  duration,
  time_point,
  unit,
  aggregate,
};

template <class T>
inline constexpr bool is_char_string = false;
template <class Traits, class Allocator>
inline constexpr bool is_char_string<std::basic_string<char, Traits, Allocator>> = true;

template <class T>
concept SizedContainer = std::default_initializable<T> && requires(const T& items) {
  typename T::value_type;
  { items.size() } -> std::convertible_to<std::size_t>;
  items.begin();
  items.end();
};

template <class T>
concept SequenceContainer =
    SizedContainer<T> && requires(T& items, typename T::value_type& item) { items.push_back(std::move(item)); };

template <class T>
concept MapContainer =
    SizedContainer<T> && requires(T& items, typename T::key_type& key, typename T::mapped_type& mapped) {
      items.emplace(std::move(key), std::move(mapped));
    };

template <class T>
concept SetContainer = SizedContainer<T> && !requires { typename T::mapped_type; } &&
                       requires(T& items, typename T::key_type& key) { items.insert(std::move(key)); };

template <class T>
consteval CodecForm codec_form() {
  if constexpr (std::same_as<T, bool>)
    return CodecForm::boolean;
  else if constexpr (FixedWidth<T>)
    return CodecForm::fixed;
  else if constexpr (!std::is_class_v<T>)
    return CodecForm::none;
  else if constexpr (is_char_string<T>)
    return CodecForm::string;
  else if constexpr (std::same_as<T, std::string_view> || std::same_as<T, std::span<const std::byte>>)
    return CodecForm::view;
  else if constexpr (is_pair<T>)
    return CodecForm::pair;
  else if constexpr (is_tuple<T>)
    return std::tuple_size_v<T> == 0 ? CodecForm::unit : CodecForm::tuple;
  else if constexpr (is_std_array<T>)
    return std::tuple_size_v<T> == 0 ? CodecForm::unit : CodecForm::array;
  else if constexpr (is_optional<T>)
    return CodecForm::optional;
  else if constexpr (is_unique_ptr<T>)
    return CodecForm::unique_ptr;
  else if constexpr (is_variant<T>)
    return CodecForm::variant;
  else if constexpr (is_duration<T>)
    return CodecForm::duration;
  else if constexpr (is_time_point<T>)
    return CodecForm::time_point;
  else if constexpr (MapContainer<T>)
    return CodecForm::map;
  else if constexpr (SetContainer<T>)
    return CodecForm::set;
  else if constexpr (SequenceContainer<T>)
    return CodecForm::sequence;
  else if constexpr (std::same_as<T, std::monostate>)
    return CodecForm::unit;
  else if constexpr (PlainAggregate<T>) {
    if constexpr (field_count<T> == 0)
      return CodecForm::unit;
    else
      return CodecForm::aggregate;
  } else
    return CodecForm::none;
}

// Codec<T> is ours, not a specialisation of the user.
template <class T>
concept BuiltInCodec = requires { typename Codec<T>::BuiltIn; };

// Whether the bytes of a T in memory are those of its codec, and any such bytes are a T.
template <class T>
consteval bool is_copied_to_bytes() {
  if constexpr (!BuiltInCodec<T>) {
    return false;
  } else {
    constexpr CodecForm form = codec_form<T>();
    if constexpr (form == CodecForm::fixed) {
      return std::endian::native == std::endian::little || sizeof(T) == 1;
    } else if constexpr (form == CodecForm::duration) {
      return is_copied_to_bytes<typename T::rep>();
    } else if constexpr (form == CodecForm::time_point) {
      return is_copied_to_bytes<typename T::rep>();
    } else if constexpr (form == CodecForm::pair) {
      return is_copied_to_bytes<typename T::first_type>() && is_copied_to_bytes<typename T::second_type>() &&
             sizeof(typename T::first_type) + sizeof(typename T::second_type) == sizeof(T);
    } else if constexpr (form == CodecForm::array) {
      return is_copied_to_bytes<typename T::value_type>();
    } else if constexpr (form == CodecForm::aggregate) {
      return []<std::size_t... I>(std::index_sequence<I...>) {
        return (is_copied_to_bytes<std::remove_const_t<field_t<I, T>>>() && ...) &&
               (sizeof(field_t<I, T>) + ... + 0) == sizeof(T);  // no padding
      }(std::make_index_sequence<field_count<T>>{});
    } else {
      return false;
    }
  }
}
template <class T>
concept CopiedToBytes = is_copied_to_bytes<T>();
// That is how they are read as well. (A std::pair may not be.)
template <class T>
concept CopiedFromBytes = CopiedToBytes<T> && std::is_trivially_copyable_v<T>;

template <class... Parts>
struct AllEncodable {
  template <class... Seen>
  static consteval bool given() {
    return (is_encodable<std::remove_const_t<Parts>, Seen...>() && ...);
  }
};

template <class T>
struct PartsOf;
template <template <class...> class Template, class... Parts>
struct PartsOf<Template<Parts...>> : AllEncodable<Parts...> {};

template <class T, class Indices>
struct FieldsOf;
template <class T, std::size_t... I>
struct FieldsOf<T, std::index_sequence<I...>> : AllEncodable<field_t<I, T>...> {};

// A type met again inside itself (a tree of vectors or unique_ptrs) is as good as its other parts.
template <class T, class... Seen>
consteval bool is_encodable() {
  if constexpr ((std::same_as<T, Seen> || ...)) {
    return true;
  } else if constexpr (!std::is_object_v<T> || std::is_array_v<T> || std::is_const_v<T> || std::is_volatile_v<T>) {
    return false;
  } else if constexpr (!BuiltInCodec<T>) {
    return requires(Encoder& to, Decoder& from, const T& value) {
      Codec<T>::write(to, value);
      { Codec<T>::read(from) } -> std::same_as<T>;
    };
  } else {
    constexpr CodecForm form = codec_form<T>();
    if constexpr (form == CodecForm::none)
      return false;
    else if constexpr (form == CodecForm::pair || form == CodecForm::tuple || form == CodecForm::variant ||
                       form == CodecForm::optional)
      return PartsOf<T>::template given<T, Seen...>();
    else if constexpr (form == CodecForm::array || form == CodecForm::sequence)
      return AllEncodable<typename T::value_type>::template given<T, Seen...>();
    else if constexpr (form == CodecForm::set)
      return AllEncodable<typename T::key_type>::template given<T, Seen...>();
    else if constexpr (form == CodecForm::map)
      return AllEncodable<typename T::key_type, typename T::mapped_type>::template given<T, Seen...>();
    else if constexpr (form == CodecForm::unique_ptr)
      return AllEncodable<typename T::element_type>::template given<T, Seen...>();
    else if constexpr (form == CodecForm::duration)
      return AllEncodable<typename T::rep>::template given<T, Seen...>();
    else if constexpr (form == CodecForm::time_point)
      return AllEncodable<typename T::duration>::template given<T, Seen...>();
    else if constexpr (form == CodecForm::aggregate)
      return FieldsOf<T, std::make_index_sequence<field_count<T>>>::template given<T, Seen...>();
    else
      return true;
  }
}

template <class T>
void write_part(Encoder& to, const T& part) {
  Codec<T>::write(to, part);
}

template <class T>
std::remove_const_t<T> read_part(Decoder& from) {
  return Codec<std::remove_const_t<T>>::read(from);
}

inline bool read_flag(Decoder& from, std::string_view expected) {
  const std::size_t at = from.offset();
  const auto flag = from.fixed<std::uint8_t>(expected);
  if (flag > 1) [[unlikely]]
    Decoder::fail_at(at, expected, "a byte that is neither 0 nor 1");
  return flag == 1;
}

template <class Items, class WriteItem>
void write_items(Encoder& to, const Items& items, WriteItem write_item) {
  const Nesting nesting{to};
  to.varint(items.size());
  const std::size_t before = to.size();
  for (const auto& item : items) write_item(item);
  if (to.size() - before < items.size()) [[unlikely]] {
    Encoder::fail("a container", "the codec of its elements writes no byte for some of them, so it could not be read");
  }
}

// Reads a count, then adds that many elements by `read_item`. Room is reserved for no more elements than would fit into
// the bytes that are left: elements may be far larger in memory than in the layout.
template <class Items, class ReadItem>
Items read_items(Decoder& from, std::string_view expected, ReadItem read_item) {
  const Nesting nesting{from};
  const std::size_t at = from.offset();
  const std::size_t count = from.count(expected);
  Items items;
  if constexpr (requires { items.reserve(count); }) {
    const std::size_t fit = 1 + from.remaining() / sizeof(typename Items::value_type);
    items.reserve(count < fit ? count : fit);
  }
  for (std::size_t i = 0; i < count; ++i) read_item(items);
  if (items.size() != count) [[unlikely]]
    Decoder::fail_at(at, expected, "an element twice");
  return items;
}

template <class T, class Function, std::size_t... I>
decltype(auto) with_indices(Function&& function, std::index_sequence<I...>) {
  return function(std::integral_constant<std::size_t, I>{}...);
}

template <class Variant, std::size_t I = 0>
Variant read_alternative(Decoder& from, std::uint64_t index, std::size_t at) {
  if constexpr (I == std::variant_size_v<Variant>) {
    Decoder::fail_at(at, "the index of an alternative of a variant", "an index beyond the last one");
  } else {
    if (index != I) return read_alternative<Variant, I + 1>(from, index, at);
    return Variant{std::in_place_index<I>, read_part<std::variant_alternative_t<I, Variant>>(from)};
  }
}

template <class T>
void write_built_in(Encoder& to, const T& value) {
  constexpr CodecForm form = codec_form<T>();
  if constexpr (form == CodecForm::boolean) {
    to.fixed(static_cast<std::uint8_t>(value ? 1 : 0));
  } else if constexpr (form == CodecForm::fixed) {
    to.fixed(value);
  } else if constexpr (form == CodecForm::string) {
    to.text(std::string_view{value.data(), value.size()});
  } else if constexpr (form == CodecForm::view) {
    to.varint(value.size());
    to.bytes(std::as_bytes(std::span{value.data(), value.size()}));
  } else if constexpr (form == CodecForm::pair) {
    write_part(to, value.first);
    write_part(to, value.second);
  } else if constexpr (form == CodecForm::tuple) {
    std::apply([&](const auto&... part) { (write_part(to, part), ...); }, value);
  } else if constexpr (form == CodecForm::array) {
    if constexpr (CopiedFromBytes<typename T::value_type>) {
      to.bytes(std::as_bytes(std::span{value}));
    } else {
      for (const auto& item : value) write_part(to, item);
    }
  } else if constexpr (form == CodecForm::sequence) {
    using Item = typename T::value_type;
    if constexpr (CopiedFromBytes<Item> && requires(T& items) {
                    items.data();
                    items.resize(1);
                  }) {
      to.varint(value.size());
      to.bytes(std::as_bytes(std::span<const Item>{value.data(), value.size()}));
    } else {  // the cast is for std::vector<bool>, whose elements are proxies
      write_items(to, value, [&](const auto& item) { write_part<Item>(to, static_cast<const Item&>(item)); });
    }
  } else if constexpr (form == CodecForm::set) {
    write_items(to, value, [&](const auto& item) { write_part(to, item); });
  } else if constexpr (form == CodecForm::map) {
    write_items(to, value, [&](const auto& item) {
      write_part(to, item.first);
      write_part(to, item.second);
    });
  } else if constexpr (form == CodecForm::optional) {
    to.fixed(static_cast<std::uint8_t>(value.has_value() ? 1 : 0));
    if (value.has_value()) write_part(to, *value);
  } else if constexpr (form == CodecForm::unique_ptr) {
    const Nesting nesting{to};
    to.fixed(static_cast<std::uint8_t>(value != nullptr ? 1 : 0));
    if (value != nullptr) write_part(to, *value);
  } else if constexpr (form == CodecForm::variant) {
    if (value.valueless_by_exception()) [[unlikely]]
      Encoder::fail("a variant", "it holds no value");
    to.varint(value.index());
    std::visit([&](const auto& alternative) { write_part(to, alternative); }, value);
  } else if constexpr (form == CodecForm::duration) {
    write_part(to, value.count());
  } else if constexpr (form == CodecForm::time_point) {
    write_part(to, value.time_since_epoch());
  } else if constexpr (form == CodecForm::unit) {
    to.fixed(std::uint8_t{0});
  } else if constexpr (form == CodecForm::aggregate) {
    std::apply([&](const auto&... part) { (write_part(to, part), ...); }, tie_fields(value));
  } else {
    static_assert(
        form != CodecForm::none,
        "no codec for this type: specialise tidemill::Codec<T> with `static void write(Encoder&, const T&)` and "
        "`static T read(Decoder&)`");
  }
}

template <class T>
T read_built_in(Decoder& from) {
  constexpr CodecForm form = codec_form<T>();
  if constexpr (form == CodecForm::boolean) {
    return read_flag(from, "a bool");
  } else if constexpr (form == CodecForm::fixed) {
    return from.fixed<T>();
  } else if constexpr (form == CodecForm::string) {
    const std::string_view text = from.text();
    return T(text.data(), text.size());
  } else if constexpr (form == CodecForm::view) {
    if constexpr (std::same_as<T, std::string_view>) {
      return from.text();
    } else {
      return from.bytes(from.count("a count of bytes"), "bytes");
    }
  } else if constexpr (form == CodecForm::pair) {  // braces: the parts are read from left to right
    return T{read_part<typename T::first_type>(from), read_part<typename T::second_type>(from)};
  } else if constexpr (form == CodecForm::tuple) {
    return with_indices<T>([&](auto... i) { return T{read_part<std::tuple_element_t<i, T>>(from)...}; },
                           std::make_index_sequence<std::tuple_size_v<T>>{});
  } else if constexpr (form == CodecForm::array) {
    using Item = typename T::value_type;
    if constexpr (CopiedFromBytes<Item>) {
      T items;
      std::memcpy(items.data(), from.bytes(sizeof(Item) * items.size(), "the numbers of an array").data(),
                  sizeof(Item) * items.size());
      return items;
    } else {
      return with_indices<T>([&](auto... i) { return T{{(static_cast<void>(i), read_part<Item>(from))...}}; },
                             std::make_index_sequence<std::tuple_size_v<T>>{});
    }
  } else if constexpr (form == CodecForm::sequence) {
    using Item = typename T::value_type;
    if constexpr (CopiedFromBytes<Item> && requires(T& items) {
                    items.data();
                    items.resize(1);
                  }) {
      const std::size_t count = from.count("a count of numbers", sizeof(Item));
      const auto bytes = from.bytes(count * sizeof(Item), "the numbers of a sequence");
      T items;
      items.resize(count);
      if (count > 0) std::memcpy(items.data(), bytes.data(), bytes.size());
      return items;
    } else {
      return read_items<T>(from, "a count of elements", [&](T& items) { items.push_back(read_part<Item>(from)); });
    }
  } else if constexpr (form == CodecForm::set) {
    return read_items<T>(from, "a set", [&](T& items) { items.insert(read_part<typename T::key_type>(from)); });
  } else if constexpr (form == CodecForm::map) {
    return read_items<T>(from, "a map", [&](T& items) {
      auto key = read_part<typename T::key_type>(from);
      items.emplace(std::move(key), read_part<typename T::mapped_type>(from));
    });
  } else if constexpr (form == CodecForm::optional) {
    if (!read_flag(from, "whether an optional holds a value")) return T{};
    return T{std::in_place, read_part<typename T::value_type>(from)};
  } else if constexpr (form == CodecForm::unique_ptr) {
    const Nesting nesting{from};
    if (!read_flag(from, "whether a pointer holds a value")) return T{};
    return T{new typename T::element_type(read_part<typename T::element_type>(from))};
  } else if constexpr (form == CodecForm::variant) {
    const std::size_t at = from.offset();
    const std::uint64_t index = from.varint("the index of an alternative of a variant");
    return read_alternative<T>(from, index, at);
  } else if constexpr (form == CodecForm::duration) {
    return T{read_part<typename T::rep>(from)};
  } else if constexpr (form == CodecForm::time_point) {
    return T{read_part<typename T::duration>(from)};
  } else if constexpr (form == CodecForm::unit) {
    const std::size_t at = from.offset();
    if (from.fixed<std::uint8_t>("an empty value") != 0) Decoder::fail_at(at, "an empty value, a 0", "another byte");
    return T{};
  } else if constexpr (form == CodecForm::aggregate) {
    if constexpr (CopiedFromBytes<T>) {
      if (from.remaining() >= sizeof(T)) {
        std::array<std::byte, sizeof(T)> raw;
        std::memcpy(raw.data(), from.bytes(sizeof(T), "a struct").data(), sizeof(T));
        return std::bit_cast<T>(raw);
      }
    }
    return with_indices<T>([&](auto... i) { return T{read_part<field_t<i, T>>(from)...}; },
                           std::make_index_sequence<field_count<T>>{});
  } else {
    static_assert(
        form != CodecForm::none,
        "no codec for this type: specialise tidemill::Codec<T> with `static void write(Encoder&, const T&)` and "
        "`static T read(Decoder&)`");
  }
}

}  // namespace detail

// The primary template holds the built-in forms, so that any specialisation of a user goes before them.
template <class T>
struct Codec {
  using BuiltIn = void;
  static void write(Encoder& to, const T& value) { detail::write_built_in(to, value); }
  static T read(Decoder& from) { return detail::read_built_in<T>(from); }
};

}  // namespace tidemill
