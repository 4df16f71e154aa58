#include "tidemill/core/text_form.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <locale>
#include <ostream>
#include <streambuf>

namespace tidemill::detail {
namespace {

template <class Number>
void append_decimal(std::string& out, Number value) {
  std::array<char, std::numeric_limits<Number>::digits10 + 3> digits;
  out.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr);
}

// The form of Java's Double.toString: at least one digit on both sides of the point; plain from 10^-3 up to below 10^7,
// with an exponent outside.
template <class Number>
void append_as_java(std::string& out, Number value) {
  if (std::isnan(value)) {
    out.append("NaN");
    return;
  }
  if (std::signbit(value)) out.push_back('-');
  const Number magnitude = std::abs(value);
  if (std::isinf(magnitude)) {
    out.append("Infinity");
    return;
  }
  if (magnitude == 0) {
    out.append("0.0");
    return;
  }

  // "d.ddde[+-]xx": the shortest digits that give the value back.
  std::array<char, 64> buffer;
  char* const end =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), magnitude, std::chars_format::scientific).ptr;
  char* const e = std::find(buffer.data(), end, 'e');
  int exponent = 0;
  std::from_chars(e + 2, end, exponent);
  if (e[1] == '-') exponent = -exponent;
  if (e - buffer.data() > 1) std::copy(buffer.data() + 2, e, buffer.data() + 1);  // closes the gap of the point
  const auto length = e - buffer.data();
  const std::string_view digits{buffer.data(), static_cast<std::size_t>(length > 1 ? length - 1 : 1)};

  if (exponent < -3 || exponent >= 7) {
    out.append(digits.substr(0, 1)).append(".");
    out.append(digits.size() > 1 ? digits.substr(1) : "0").append("E");
    append_decimal(out, exponent);
  } else if (exponent < 0) {
    out.append("0.").append(static_cast<std::size_t>(-exponent - 1), '0').append(digits);
  } else if (const auto whole = static_cast<std::size_t>(exponent) + 1; digits.size() > whole) {
    out.append(digits.substr(0, whole)).append(".").append(digits.substr(whole));
  } else {
    out.append(digits).append(whole - digits.size(), '0').append(".0");
  }
}

class AppendBuffer final : public std::streambuf {
 public:
  explicit AppendBuffer(std::string& out) : out_{out} {}

 protected:
  int_type overflow(int_type c) override {
    if (!traits_type::eq_int_type(c, traits_type::eof())) out_.push_back(traits_type::to_char_type(c));
    return traits_type::not_eof(c);
  }
  std::streamsize xsputn(const char* text, std::streamsize size) override {
    out_.append(text, static_cast<std::size_t>(size));
    return size;
  }

 private:
  std::string& out_;
};

}  // namespace

void append_integer(std::string& out, long long value) { append_decimal(out, value); }
void append_integer(std::string& out, unsigned long long value) { append_decimal(out, value); }
void append_floating(std::string& out, float value) { append_as_java(out, value); }
void append_floating(std::string& out, double value) { append_as_java(out, value); }
void append_floating(std::string& out, long double value) { append_as_java(out, value); }

void append_nanoseconds(std::string& out, std::chrono::nanoseconds value) {
  if (const auto micros = std::chrono::duration_cast<Duration>(value); micros == value) {
    out.append(to_string(micros));
  } else {
    append_decimal(out, value.count());
    out.append(" ns");
  }
}

void append_streamed(std::string& out, const void* value, void (*insert)(std::ostream&, const void*)) {
  AppendBuffer buffer{out};
  std::ostream stream{&buffer};
  stream.imbue(std::locale::classic());  // a record looks the same whatever locale the host has set
  stream.exceptions(std::ios_base::badbit);
  insert(stream, value);
}

}  // namespace tidemill::detail
