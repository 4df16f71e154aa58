#include "tidemill/core/codec_layout.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cxxabi.h>
#include <functional>
#include <vector>

#include "tidemill/core/error.hpp"

namespace tidemill {

std::string detail::type_name(const std::type_info& type) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> readable{
      abi::__cxa_demangle(type.name(), nullptr, nullptr, &status), &std::free};
  std::string name = status == 0 && readable ? readable.get() : type.name();
  // Brackets that do not pair (operator->, a shift) would end the layout around it somewhere else.
  int depth = 0;
  bool paired = true;
  for (const char c : name) {
    if (c == '<') ++depth;
    if (c == '>' && --depth < 0) paired = false;
  }
  if (!paired || depth != 0)
    std::replace_if(
        name.begin(), name.end(), [](char c) { return c == '<' || c == '>' || c == ','; }, '_');
  return name;
}

struct CodecLayout::Node {
  enum class Kind {
    boolean,
    integer,
    floating,
    character,
    string,
    bytes,
    parts,  // pair, tuple, struct
    array,
    list,  // vector, set
    map,
    optional,
    variant,
    ticks,
    unit,
    outer,
    custom,
  };
  Kind kind = Kind::unit;
  bool is_signed = false;
  std::size_t size = 0;   // of a number; elements of an array
  std::size_t level = 0;  // of a type around this one
  std::vector<Node> parts;
};

namespace {

using Node = CodecLayout::Node;
using Kind = CodecLayout::Node::Kind;

class Parser {
 public:
  explicit Parser(std::string_view words) : words_{words} {}

  Node all() {
    Node node = type(0);
    if (at_ != words_.size()) fail("the end");
    return node;
  }

 private:
  [[noreturn]] void fail(std::string_view expected) const {
    throw ConfigError("\"" + std::string{words_.substr(0, 200)} + "\" is no layout of a codec: " +
                      std::string{expected} + " is expected at character " + std::to_string(at_ + 1));
  }

  bool take(std::string_view text) {
    if (!words_.substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }

  std::size_t number(std::string_view expected) {
    std::size_t value = 0;
    const char* const begin = words_.data() + at_;
    const auto [end, error] = std::from_chars(begin, words_.data() + words_.size(), value);
    if (error != std::errc{}) fail(expected);
    at_ += static_cast<std::size_t>(end - begin);
    return value;
  }

  Node integer(bool is_signed, std::size_t bits) {
    Node node;
    node.kind = Kind::integer;
    node.is_signed = is_signed;
    node.size = bits / 8;
    return node;
  }

  Node type(std::size_t depth) {
    if (depth > static_cast<std::size_t>(max_codec_nesting)) fail("a layout that is less deep");
    Node node;
    const auto simple = [&](Kind kind) {
      node.kind = kind;
      return std::move(node);
    };
    static_cast<void>(take("enum "));
    const std::size_t begin = at_;
    while (at_ < words_.size() &&
           ((words_[at_] >= 'a' && words_[at_] <= 'z') || (words_[at_] >= '0' && words_[at_] <= '9')))
      ++at_;
    const std::string_view word = words_.substr(begin, at_ - begin);
    if (word == "bool") return simple(Kind::boolean);
    if (word == "char") return simple(Kind::character);
    if (word == "string") return simple(Kind::string);
    if (word == "bytes") return simple(Kind::bytes);
    if (word == "unit") return simple(Kind::unit);
    for (const std::size_t bits : {8U, 16U, 32U, 64U}) {
      if (word == "i" + std::to_string(bits)) return integer(true, bits);
      if (word == "u" + std::to_string(bits)) return integer(false, bits);
    }
    if (word == "f32" || word == "f64") {
      node.size = word == "f32" ? 4 : 8;
      return simple(Kind::floating);
    }
    if (word == "custom" && take(":")) {
      for (int open = 0; at_ < words_.size(); ++at_) {
        const char c = words_[at_];
        if (open == 0 && (c == ',' || c == '>')) break;
        if (c == '<') ++open;
        if (c == '>') --open;
      }
      return simple(Kind::custom);
    }
    if (word.empty() && take("^")) {
      node.level = number("a number");
      if (node.level == 0 || node.level > depth) fail("the number of a type around this one");
      return simple(Kind::outer);
    }
    struct Composite {
      std::string_view word;
      Kind kind;
      std::size_t least;
      std::size_t most;
    };
    static constexpr Composite composites[] = {
        {"pair", Kind::parts, 2, 2},     {"tuple", Kind::parts, 1, 1024},    {"struct", Kind::parts, 1, 1024},
        {"array", Kind::array, 1, 1},    {"vector", Kind::list, 1, 1},       {"set", Kind::list, 1, 1},
        {"map", Kind::map, 2, 2},        {"optional", Kind::optional, 1, 1}, {"variant", Kind::variant, 1, 1024},
        {"duration", Kind::ticks, 1, 1}, {"time", Kind::ticks, 1, 1},
    };
    const auto composite =
        std::find_if(std::begin(composites), std::end(composites), [&](const Composite& c) { return c.word == word; });
    if (composite == std::end(composites)) {
      at_ = begin;
      fail("a type");
    }
    node.kind = composite->kind;
    if (!take("<")) fail("<");
    for (;;) {
      if (node.parts.size() == composite->most) fail("fewer types");
      node.parts.push_back(type(depth + 1));
      const bool has_number = node.kind == Kind::array || node.kind == Kind::ticks;
      if (has_number) break;
      if (!take(",")) break;
    }
    if (node.parts.size() < composite->least) fail("another type");
    if (node.kind == Kind::array || node.kind == Kind::ticks) {
      if (!take(",")) fail("a comma");
      node.size = number("a number");
      if (node.kind == Kind::array && node.size == 0) fail("a number of elements");
      if (node.kind == Kind::ticks && take("/")) static_cast<void>(number("a number"));
    }
    if (!take(">")) fail(">");
    return node;
  }

  std::string_view words_;
  std::size_t at_ = 0;
};

// Length of the UTF-8 sequence at the front, or 0.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto follows = [&](std::size_t i) { return i < text.size() && (byte(i) & 0xC0) == 0x80; };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return follows(1) ? 2 : 0;
  if ((first & 0xF0) == 0xE0) {
    if (!follows(1) || !follows(2)) return 0;
    if ((first == 0xE0 && byte(1) < 0xA0) || (first == 0xED && byte(1) > 0x9F)) return 0;
    return 3;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if (!follows(1) || !follows(2) || !follows(3)) return 0;
    if ((first == 0xF0 && byte(1) < 0x90) || (first == 0xF4 && byte(1) > 0x8F)) return 0;
    return 4;
  }
  return 0;
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

constexpr char digits[] = "0123456789abcdef";

void append_hex(std::string& out, std::string_view bytes) {
  out += "{\"hex\":\"";
  for (const char c : bytes) {
    out.push_back(digits[static_cast<unsigned char>(c) >> 4]);
    out.push_back(digits[static_cast<unsigned char>(c) & 15]);
  }
  out += "\"}";
}

void append_quoted(std::string& out, std::string_view text) {
  out.push_back('"');
  for (const char c : text) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += "\\u00";
          out.push_back(digits[static_cast<unsigned char>(c) >> 4]);
          out.push_back(digits[static_cast<unsigned char>(c) & 15]);
        } else {
          out.push_back(c);
        }
    }
  }
  out.push_back('"');
}

void append_text(std::string& out, std::string_view text) {
  if (is_utf8(text)) {
    append_quoted(out, text);
  } else {
    append_hex(out, text);
  }
}

// Writes what the bytes hold.
class Printer {
 public:
  Printer(std::string& out, Decoder& from) : out_{out}, from_{from} {}

  void value(const Node& node) {
    if (depth_ == max_depth) from_.fail("a value that is less deep", "one nested too deeply");
    ++depth_;
    around_.push_back(&node);
    switch (node.kind) {
      case Kind::boolean: out_ += flag("a bool") ? "true" : "false"; break;
      case Kind::integer: integer(node); break;
      case Kind::floating:
        if (node.size == 4) {
          floating(from_.fixed<float>());
        } else {
          floating(from_.fixed<double>());
        }
        break;
      case Kind::character: {
        const char c = from_.fixed<char>();
        append_text(out_, {&c, 1});
        break;
      }
      case Kind::string: append_text(out_, from_.text()); break;
      case Kind::bytes: append_hex(out_, from_.text("bytes")); break;
      case Kind::unit:
        if (from_.fixed<std::uint8_t>("an empty value") != 0) from_.fail("an empty value, a 0", "another byte");
        out_ += "null";
        break;
      case Kind::parts: list(node.parts.size(), [&](std::size_t i) { value(node.parts[i]); }); break;
      case Kind::array:
        if (node.size > from_.remaining()) from_.fail("the elements of an array", "fewer bytes than elements");
        list(node.size, [&](std::size_t) { value(node.parts[0]); });
        break;
      case Kind::list: list(from_.count("a count of elements"), [&](std::size_t) { value(node.parts[0]); }); break;
      case Kind::map: map(node); break;
      case Kind::optional:
        if (flag("whether there is a value")) {
          value(node.parts[0]);
        } else {
          out_ += "null";
        }
        break;
      case Kind::variant: {
        const std::uint64_t index = from_.varint("the index of an alternative");
        if (index >= node.parts.size()) from_.fail("the index of an alternative", "an index beyond the last one");
        out_ += "{\"" + std::to_string(index) + "\":";
        value(node.parts[static_cast<std::size_t>(index)]);
        out_.push_back('}');
        break;
      }
      case Kind::ticks: value(node.parts[0]); break;
      case Kind::outer: {
        // As that type again, with what is around it, and not with what is around here.
        std::vector<const Node*> inner{around_.end() - static_cast<std::ptrdiff_t>(node.level) - 1, around_.end()};
        const Node& outer = *inner.front();
        around_.resize(around_.size() - inner.size());
        value(outer);
        around_.insert(around_.end(), inner.begin(), inner.end());
        break;
      }
      case Kind::custom: {
        // How long it is, nobody knows: all that is left.
        const auto rest = from_.bytes(from_.remaining(), "bytes of a codec");
        append_hex(out_, {reinterpret_cast<const char*>(rest.data()), rest.size()});
        break;
      }
    }
    around_.pop_back();
    --depth_;
  }

 private:
  static constexpr int max_depth = 4 * max_codec_nesting;

  bool flag(std::string_view expected) {
    const auto byte = from_.fixed<std::uint8_t>(expected);
    if (byte > 1) from_.fail(expected, "another byte");
    return byte == 1;
  }

  void integer(const Node& node) {
    const auto print = [&](auto signed_value, auto unsigned_value) {
      if (node.is_signed) {
        out_ += std::to_string(from_.fixed<decltype(signed_value)>());
      } else {
        out_ += std::to_string(from_.fixed<decltype(unsigned_value)>());
      }
    };
    switch (node.size) {
      case 1: print(std::int8_t{}, std::uint8_t{}); break;
      case 2: print(std::int16_t{}, std::uint16_t{}); break;
      case 4: print(std::int32_t{}, std::uint32_t{}); break;
      default: print(std::int64_t{}, std::uint64_t{}); break;
    }
  }

  template <class T>
  void floating(T number) {
    if (std::isnan(number)) {
      out_ += "\"nan\"";
    } else if (std::isinf(number)) {
      out_ += number < 0 ? "\"-inf\"" : "\"inf\"";
    } else {
      char text[40];
      const auto [end, error] = std::to_chars(text, text + sizeof text, number);
      out_.append(text, end);
    }
  }

  template <class Element>
  void list(std::size_t count, Element element) {
    out_.push_back('[');
    for (std::size_t i = 0; i < count; ++i) {
      if (i > 0) out_.push_back(',');
      element(i);
    }
    out_.push_back(']');
  }

  void map(const Node& node) {
    const std::size_t count = from_.count("a count of elements");
    if (node.parts[0].kind != Kind::string) {
      list(count, [&](std::size_t) { list(2, [&](std::size_t i) { value(node.parts[i]); }); });
      return;
    }
    out_.push_back('{');
    for (std::size_t i = 0; i < count; ++i) {
      if (i > 0) out_.push_back(',');
      const std::string_view key = from_.text("a key");
      if (is_utf8(key)) {
        append_quoted(out_, key);
      } else {
        std::string hex;
        append_hex(hex, key);
        append_quoted(out_, hex);
      }
      out_.push_back(':');
      value(node.parts[1]);
    }
    out_.push_back('}');
  }

  std::string& out_;
  Decoder& from_;
  std::vector<const Node*> around_;  // from the outermost type to this one
  int depth_ = 0;                    // of calls of value(): a bound on the stack
};

}  // namespace

void detail::append_json_text(std::string& out, std::string_view text) { append_text(out, text); }
void detail::append_json_hex(std::string& out, std::string_view bytes) { append_hex(out, bytes); }

CodecLayout::CodecLayout(std::string_view words) : root_{std::make_unique<Node>(Parser{words}.all())} {}
CodecLayout::CodecLayout(CodecLayout&&) noexcept = default;
CodecLayout& CodecLayout::operator=(CodecLayout&&) noexcept = default;
CodecLayout::~CodecLayout() = default;

void CodecLayout::append_json(std::string& out, std::string_view bytes) const {
  const std::size_t before = out.size();
  try {
    Decoder from{std::as_bytes(std::span{bytes})};
    Printer{out, from}.value(*root_);
    from.expect_end();
  } catch (...) {
    out.resize(before);
    throw;
  }
}

}  // namespace tidemill
