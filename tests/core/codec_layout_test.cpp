#include "tidemill/core/codec_layout.hpp"

#include <chrono>
#include <deque>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "tidemill/core/error.hpp"
#include "tidemill/core/time.hpp"

namespace layout_test {

struct Price {
  long cents;
};
struct Odd {
  long value;
};
struct Leaf {
  std::string name;
  bool big;
};
struct Tree {
  Leaf leaf;
  std::vector<Tree> children;
};
struct Empty {};
enum class Colour : short { red, blue };

}  // namespace layout_test

template <>
struct tidemill::Codec<layout_test::Price> {
  static constexpr std::string_view layout = "i64";
  static void write(Encoder& to, const layout_test::Price& price) { to.fixed(std::int64_t{price.cents}); }
  static layout_test::Price read(Decoder& from) { return {from.fixed<std::int64_t>()}; }
};
template <>
struct tidemill::Codec<layout_test::Odd> {
  static void write(Encoder& to, const layout_test::Odd& odd) { to.varint(static_cast<std::uint64_t>(odd.value)); }
  static layout_test::Odd read(Decoder& from) { return {static_cast<long>(from.varint())}; }
};

namespace {

using namespace layout_test;
using tidemill::codec_layout;
using tidemill::CodecLayout;

template <class T>
std::string json_of(const T& value) {
  std::string out;
  CodecLayout{codec_layout<T>()}.append_json(out, tidemill::encode(value));
  return out;
}

TEST(CodecLayout, NamesEveryFormThatTheCodecHas) {
  EXPECT_EQ(codec_layout<bool>(), "bool");
  EXPECT_EQ(codec_layout<int>(), "i32");
  EXPECT_EQ(codec_layout<long>(), "i64");
  EXPECT_EQ(codec_layout<unsigned char>(), "u8");
  EXPECT_EQ(codec_layout<char>(), "char");
  EXPECT_EQ(codec_layout<std::byte>(), "u8");
  EXPECT_EQ(codec_layout<double>(), "f64");
  EXPECT_EQ(codec_layout<Colour>(), "enum i16");
  EXPECT_EQ(codec_layout<std::string>(), "string");
  EXPECT_EQ(codec_layout<std::string_view>(), "string");
  EXPECT_EQ(codec_layout<std::span<const std::byte>>(), "bytes");
  EXPECT_EQ((codec_layout<std::pair<const std::string, long>>()), "pair<string,i64>");
  EXPECT_EQ((codec_layout<std::tuple<int, std::string, bool>>()), "tuple<i32,string,bool>");
  EXPECT_EQ((codec_layout<std::array<float, 3>>()), "array<f32,3>");
  EXPECT_EQ(codec_layout<std::vector<std::string>>(), "vector<string>");
  EXPECT_EQ(codec_layout<std::deque<int>>(), "vector<i32>");
  EXPECT_EQ(codec_layout<std::set<long>>(), "set<i64>");
  EXPECT_EQ((codec_layout<std::unordered_map<std::string, std::vector<int>>>()), "map<string,vector<i32>>");
  EXPECT_EQ(codec_layout<std::optional<int>>(), "optional<i32>");
  EXPECT_EQ(codec_layout<std::unique_ptr<int>>(), "optional<i32>");
  EXPECT_EQ((codec_layout<std::variant<std::monostate, int>>()), "variant<unit,i32>");
  EXPECT_EQ(codec_layout<tidemill::Duration>(), "duration<i64,1/1000000>");
  EXPECT_EQ(codec_layout<std::chrono::minutes>(), "duration<i64,60>");
  EXPECT_EQ(codec_layout<tidemill::Time>(), "time<i64,1/1000000>");
  EXPECT_EQ(codec_layout<Empty>(), "unit");
  EXPECT_EQ(codec_layout<Leaf>(), "struct<string,bool>");
  EXPECT_EQ(codec_layout<Tree>(), "struct<struct<string,bool>,vector<^2>>");
  EXPECT_EQ(codec_layout<Price>(), "i64");
  EXPECT_EQ(codec_layout<Odd>(), "custom:layout_test::Odd");
  EXPECT_EQ((codec_layout<std::map<int, Odd>>()), "map<i32,custom:layout_test::Odd>");
}

TEST(CodecLayout, ShowsValuesAsJson) {
  EXPECT_EQ(json_of(true), "true");
  EXPECT_EQ(json_of(-5), "-5");
  EXPECT_EQ(json_of(std::numeric_limits<std::uint64_t>::max()), "18446744073709551615");
  EXPECT_EQ(json_of(0.1), "0.1");
  EXPECT_EQ(json_of(std::numeric_limits<float>::quiet_NaN()), "\"nan\"");
  EXPECT_EQ(json_of(-std::numeric_limits<double>::infinity()), "\"-inf\"");
  EXPECT_EQ(json_of('c'), "\"c\"");
  EXPECT_EQ(json_of(Colour::blue), "1");
  EXPECT_EQ(json_of(std::string{"a\"b\\\n\x01\xC3\xA9"}), "\"a\\\"b\\\\\\n\\u0001\xC3\xA9\"");
  EXPECT_EQ(json_of(std::string{"\xFF\x00z", 3}), "{\"hex\":\"ff007a\"}");
  EXPECT_EQ(json_of(std::pair{std::string{"tide"}, 3L}), "[\"tide\",3]");
  EXPECT_EQ(json_of(std::map<std::string, int>{{"a", 1}, {"b", 2}}), "{\"a\":1,\"b\":2}");
  EXPECT_EQ(json_of(std::map<int, int>{{1, 2}}), "[[1,2]]");
  EXPECT_EQ(json_of(std::optional<int>{}), "null");
  EXPECT_EQ(json_of(std::variant<int, std::string>{"x"}), "{\"1\":\"x\"}");
  EXPECT_EQ(json_of(std::array<int, 2>{7, 8}), "[7,8]");
  EXPECT_EQ(json_of(Empty{}), "null");
  EXPECT_EQ(json_of(tidemill::Duration{15}), "15");
  EXPECT_EQ(json_of(Price{250}), "250");
  EXPECT_EQ(json_of(Odd{300}), "{\"hex\":\"ac02\"}");
  EXPECT_EQ(json_of(Tree{{"root", true}, {{{"a", false}, {}}, {{"b", true}, {{{"c", false}, {}}}}}}),
            "[[\"root\",true],[[[\"a\",false],[]],[[\"b\",true],[[[\"c\",false],[]]]]]]");
}

TEST(CodecLayout, WordsThatAreNoLayoutAreRefused) {
  for (const char* const words : {"", "int", "i128", "pair<i32>", "pair<i32,i32", "vector<i32>x", "^1", "vector<^2>",
                                  "array<i32>", "array<i32,0>", "struct<>", "optional<i32,i32>", "duration<i64>",
                                  " i32", "vector< i32>", "array<i32,99999999999999999999999>"}) {
    EXPECT_THROW(CodecLayout{words}, tidemill::ConfigError) << words;
  }
  std::string deep;
  for (int i = 0; i < 10'000; ++i) deep += "vector<";
  EXPECT_THROW(CodecLayout{deep}, tidemill::ConfigError);
}

TEST(CodecLayout, BytesOfAnotherLayoutAreRefusedAndNothingIsAppended) {
  std::string out = "before";
  const CodecLayout pairs{"vector<pair<string,i64>>"};
  for (const std::string& bytes :
       {std::string{}, std::string(1, '\x7F'), std::string{"\x01\x01xx"}, std::string(3, '\0')}) {
    if (bytes == std::string(1, '\0')) continue;
    EXPECT_THROW(pairs.append_json(out, bytes), tidemill::StateError);
    EXPECT_EQ(out, "before");
  }
  // A list in a list in a list … as deep as the bytes like.
  const CodecLayout lists{"struct<vector<^2>>"};
  EXPECT_THROW(lists.append_json(out, std::string(100'000, '\x01')), tidemill::StateError);
}

}  // namespace
