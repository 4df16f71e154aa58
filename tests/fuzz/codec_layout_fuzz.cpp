// Words of a layout and bytes, both from anywhere. Every outcome is JSON, ConfigError or StateError.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "tidemill/core/codec_layout.hpp"
#include "tidemill/core/error.hpp"

namespace {

void show(std::string_view words, std::string_view bytes) {
  try {
    const tidemill::CodecLayout layout{words};
    std::string out;
    layout.append_json(out, bytes);
    if (out.empty() || out.size() > 64 * (bytes.size() + words.size()) + 4096) __builtin_trap();
  } catch (const tidemill::ConfigError&) {
  } catch (const tidemill::StateError&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input{reinterpret_cast<const char*>(data), size};
  // Words up to a zero, then bytes; and the bytes as some layouts that are good.
  const std::size_t zero = input.find('\0');
  show(input.substr(0, zero), zero == std::string_view::npos ? std::string_view{} : input.substr(zero + 1));
  show("struct<string,vector<^2>,optional<^2>>", input);
  show("map<string,variant<unit,bool,f64,array<u16,3>,custom:a::b<c,d>>>", input);
  show("vector<pair<time<i64,1/1000000>,set<enum i8>>>", input);
  return 0;
}

#ifndef TIDEMILL_LIBFUZZER
#include "random_inputs.hpp"

int main(int count, char** arguments) {
  static constexpr char good[] = "struct<string,vector<^2>,map<string,i32>>\0\1a\1\1b\0\0\1\1c\1\0\0\0";
  return tidemill_fuzz::run_random_inputs(count, arguments, {good, sizeof good - 1}, LLVMFuzzerTestOneInput);
}
#endif
