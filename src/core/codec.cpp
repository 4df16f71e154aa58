#include "tidemill/core/codec.hpp"

#include <algorithm>

#include "tidemill/core/error.hpp"

namespace tidemill {

void Encoder::fail(std::string_view what, std::string_view why) {
  std::string message{"cannot serialise "};
  message.append(what).append(": ").append(why);
  throw StateError("unencodable", message, Retry::is_useless);
}

void Encoder::fail_nesting() {
  fail("a value", "it is nested more than " + std::to_string(max_codec_nesting) +
                      " levels deep through containers and pointers; specialise tidemill::Codec for its type and write "
                      "it as a flat list");
}

void Encoder::reverse(char* bytes, std::size_t size) noexcept { std::reverse(bytes, bytes + size); }

void Encoder::long_varint(std::uint64_t value) {
  std::array<char, 10> digits;
  std::size_t used = 0;
  for (; value >= 0x80; value >>= 7U) digits[used++] = static_cast<char>((value & 0x7FU) | 0x80U);
  digits[used++] = static_cast<char>(value);
  out_.append(digits.data(), used);
}

void Decoder::reverse(char* bytes, std::size_t size) noexcept { std::reverse(bytes, bytes + size); }

std::uint64_t Decoder::long_varint(std::string_view expected) {
  const std::size_t begin = offset_;
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    if (offset_ == bytes_.size()) fail_short(1, expected);
    const auto byte = std::to_integer<std::uint64_t>(bytes_[offset_]);
    if (shift == 63 && byte > 1) break;  // the tenth byte has room for one bit
    ++offset_;
    value |= (byte & 0x7FU) << shift;
    if (byte < 0x80) {
      if (byte == 0 && shift > 0) fail_at(begin, expected, "a varint that is longer than it needs to be");
      return value;
    }
  }
  fail_at(begin, expected, "a varint of more than 64 bits");
}

void Decoder::fail_at(std::size_t offset, std::string_view expected, std::string_view found) {
  std::string message{"malformed data at byte "};
  message.append(std::to_string(offset)).append(": expected ").append(expected).append(", found ").append(found);
  message.append("; the bytes are damaged, or were written from another type or another version of it");
  ErrorContext context;
  context.offset = offset;
  throw StateError("malformed_data", message, Retry::is_useless, std::move(context));
}

void Decoder::fail(std::string_view expected, std::string_view found) const { fail_at(offset_, expected, found); }

void Decoder::fail_short(std::size_t count, std::string_view expected) const {
  fail(expected, "the end after " + std::to_string(remaining()) + " more bytes where " + std::to_string(count) +
                     (count == 1 ? " is needed" : " are needed"));
}

void Decoder::fail_count(std::size_t at, std::uint64_t count, std::string_view expected) const {
  fail_at(at, expected,
          "a count of " + std::to_string(count) + " with only " + std::to_string(remaining()) + " bytes after it");
}

void Decoder::fail_trailing() const { fail("the end of the value", std::to_string(remaining()) + " more bytes"); }

void Decoder::fail_nesting() const {
  fail("at most " + std::to_string(max_codec_nesting) + " levels of nesting", "one more");
}

}  // namespace tidemill
