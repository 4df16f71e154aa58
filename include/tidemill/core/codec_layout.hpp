// The layout that a type has in serialised form (codec.hpp), in words: what a checkpoint keeps beside its bytes, so that a
// program whose types have changed is refused, and a tool can show the bytes without the program.
//
//     tidemill::codec_layout<std::map<std::string, std::vector<int>>>()      // "map<string,vector<i32>>"
//
// The words; types that lie alike in bytes have the same:
//
//     bool  i8 … i64  u8 … u64  f32  f64  char  enum i32      integers by their size; an enumeration by what is under it
//     string  bytes                                           std::string and std::string_view; std::span<const std::byte>
//     pair<A,B>  tuple<A,…>  struct<A,…>  array<T,N>  unit
//     vector<T>  set<T>  map<K,V>                             all sequences, sets and maps
//     optional<T>  variant<A,…>                               optional<T> also for std::unique_ptr<T>
//     duration<i64,1/1000000>  time<i64,1/1000000>            ticks, and their length in seconds
//     ^N                                                      the N-th type around this one, 1 is the nearest: a type in itself
//     custom:Name                                             a Codec of the user's, of which nothing more is known
//
// A Codec of the user's may say its layout in these words, and is then shown like any other type:
//
//     template <> struct tidemill::Codec<Price> {
//       static constexpr std::string_view layout = "struct<i64,string>";
//       ...
//     };
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include "tidemill/core/codec.hpp"
#include "tidemill/core/config.hpp"

namespace tidemill {

namespace detail {

/// The name of a type for people, without what would end a layout early.
[[nodiscard]] TIDEMILL_API std::string type_name(const std::type_info& type);

/// Appends a JSON string, or {"hex":"…"} when the text is not UTF-8.
TIDEMILL_API void append_json_text(std::string& out, std::string_view text);
/// Appends {"hex":"…"}.
TIDEMILL_API void append_json_hex(std::string& out, std::string_view bytes);

template <class... Parts>
struct Around {};

// The place of T among the types around it, the nearest first; 0 when it is none of them.
template <class T, class... Parts>
consteval std::size_t place_among(Around<Parts...>) {
  std::size_t place = 0;
  std::size_t found = 0;
  static_cast<void>(((++place, found = found == 0 && std::is_same_v<T, Parts> ? place : found), ...));
  return found;
}

template <class T, class... Outer>
void append_layout(std::string& out, Around<Outer...> around);

template <class... Parts, class... Outer>
void append_parts(std::string& out, std::string_view name, Around<Outer...> around) {
  out.append(name).push_back('<');
  bool first = true;
  static_cast<void>(((first ? void(first = false) : out.push_back(','), append_layout<Parts>(out, around)), ...));
  out.push_back('>');
}

template <class T>
std::string number_layout() {
  if constexpr (std::is_enum_v<T> && !std::is_same_v<T, std::byte>) {
    return "enum " + number_layout<std::underlying_type_t<T>>();
  } else if constexpr (std::is_same_v<T, std::byte>) {
    return "u8";
  } else if constexpr (std::is_same_v<T, char>) {
    return "char";
  } else {
    return (std::is_floating_point_v<T> ? "f" : std::is_signed_v<T> ? "i" : "u") + std::to_string(8 * sizeof(T));
  }
}

template <class Ticks>
void append_ticks(std::string& out, std::string_view name) {
  out.append(name).push_back('<');
  append_layout<typename Ticks::rep>(out, Around<>{});
  out.push_back(',');
  out += std::to_string(Ticks::period::num);
  if constexpr (Ticks::period::den != 1) out += "/" + std::to_string(Ticks::period::den);
  out.push_back('>');
}

template <class T>
struct TemplateParts;
template <template <class...> class Template, class... Parts>
struct TemplateParts<Template<Parts...>> {
  template <class... Outer>
  static void append(std::string& out, std::string_view name, Around<Outer...> around) {
    append_parts<std::remove_const_t<Parts>...>(out, name, around);
  }
};

template <class T, class... Outer>
void append_layout(std::string& out, Around<Outer...> outer) {
  constexpr Around<T, Outer...> around;
  constexpr CodecForm form = codec_form<T>();
  if constexpr (constexpr std::size_t place = place_among<T>(Around<Outer...>{}); place > 0) {
    static_cast<void>(outer);
    out += "^" + std::to_string(place);
  } else if constexpr (requires { std::string_view{Codec<T>::layout}; }) {
    out += std::string_view{Codec<T>::layout};
  } else if constexpr (!BuiltInCodec<T>) {
    out += "custom:" + type_name(typeid(T));
  } else if constexpr (form == CodecForm::boolean) {
    out += "bool";
  } else if constexpr (form == CodecForm::fixed) {
    out += number_layout<T>();
  } else if constexpr (form == CodecForm::string || std::is_same_v<T, std::string_view>) {
    out += "string";
  } else if constexpr (form == CodecForm::view) {
    out += "bytes";
  } else if constexpr (form == CodecForm::pair) {
    TemplateParts<T>::append(out, "pair", around);
  } else if constexpr (form == CodecForm::tuple) {
    TemplateParts<T>::append(out, "tuple", around);
  } else if constexpr (form == CodecForm::variant) {
    TemplateParts<T>::append(out, "variant", around);
  } else if constexpr (form == CodecForm::array) {
    out += "array<";
    append_layout<typename T::value_type>(out, around);
    out += "," + std::to_string(std::tuple_size_v<T>) + ">";
  } else if constexpr (form == CodecForm::sequence) {
    append_parts<typename T::value_type>(out, "vector", around);
  } else if constexpr (form == CodecForm::set) {
    append_parts<typename T::key_type>(out, "set", around);
  } else if constexpr (form == CodecForm::map) {
    append_parts<typename T::key_type, typename T::mapped_type>(out, "map", around);
  } else if constexpr (form == CodecForm::optional) {
    append_parts<typename T::value_type>(out, "optional", around);
  } else if constexpr (form == CodecForm::unique_ptr) {
    append_parts<typename T::element_type>(out, "optional", around);
  } else if constexpr (form == CodecForm::duration) {
    append_ticks<T>(out, "duration");
  } else if constexpr (form == CodecForm::time_point) {
    append_ticks<typename T::duration>(out, "time");
  } else if constexpr (form == CodecForm::unit) {
    out += "unit";
  } else {
    static_assert(form == CodecForm::aggregate, "the type has no codec");
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      append_parts<field_t<I, T>...>(out, "struct", around);
    }(std::make_index_sequence<field_count<T>>{});
  }
}

}  // namespace detail

/// The layout of T in words, as above.
template <Encodable T>
[[nodiscard]] std::string codec_layout() {
  std::string out;
  detail::append_layout<T>(out, detail::Around<>{});
  return out;
}

/// A layout in words, understood: shows bytes of that layout without the type.
/// Threads: immutable, so any number at once.
class TIDEMILL_API CodecLayout {
 public:
  /// Errors: ConfigError naming the place, for words that are no layout, and for one nested deeper than max_codec_nesting.
  explicit CodecLayout(std::string_view words);
  CodecLayout(CodecLayout&&) noexcept;
  CodecLayout& operator=(CodecLayout&&) noexcept;
  ~CodecLayout();

  /// Appends the value that the bytes are as JSON. Maps are objects when their keys are strings, and lists of pairs otherwise;
  /// strings that are not UTF-8, bytes, and what a codec of the user's wrote are {"hex":"…"}; numbers that JSON does not have
  /// are strings ("nan"); of a variant, {"index":value}.
  /// Errors: StateError "malformed_data" when the bytes are not of this layout; `out` is then as it was. The bytes may come
  /// from anywhere: time and memory are in proportion to their number.
  void append_json(std::string& out, std::string_view bytes) const;

  struct Node;

 private:
  std::unique_ptr<Node> root_;
};

}  // namespace tidemill
