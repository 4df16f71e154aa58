#include "tidemill/core/text_form.hpp"

#include <array>
#include <bit>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <limits>
#include <list>
#include <locale>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <random>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

namespace text_form_test {

struct Point {
  int x = 0;
  double y = 0;
};

struct Line {
  Point from;
  std::vector<Point> others;
  std::string name;
};

struct Nothing {};

struct Tree {
  int value = 0;
  std::vector<Tree> children;
};

struct WithToText {  // has all three; the first counts
  int value = 0;
  friend std::string to_text(const WithToText& w) { return "text " + std::to_string(w.value); }
  friend std::ostream& operator<<(std::ostream& to, const WithToText& w) { return to << "stream " << w.value; }
};

struct WithInserter {
  int value = 0;
  friend std::ostream& operator<<(std::ostream& to, const WithInserter& w) { return to << "stream " << w.value; }
};

struct Thrower {
  friend std::ostream& operator<<(std::ostream& /*to*/, const Thrower&) { throw std::runtime_error{"no text today"}; }
};

class Opaque {
 public:
  explicit Opaque(int value) : value_{value} {}
  explicit operator bool() const { return value_ != 0; }

 private:
  int value_;
};

class Truthy {  // prints through std::ostream as 1, by way of bool; that is no text form
 public:
  operator bool() const { return value_ != 0; }

 private:
  int value_ = 1;
};

struct HoldsOpaque {
  std::map<int, std::vector<Opaque>> values;
};

class Named {
 public:
  explicit Named(std::string name) : name_{std::move(name)} {}
  operator std::string_view() const { return name_; }

 private:
  std::string name_;
};

enum class Colour : std::uint8_t { red = 3, blue = 200 };
enum Plain { first = 1, second = 70000 };
enum class Level { low, high };
std::string_view to_text(const Level& level) { return level == Level::low ? "low" : "high"; }
enum class Side { left, right };
std::ostream& operator<<(std::ostream& to, Side side) { return to << (side == Side::left ? "left" : "right"); }

}  // namespace text_form_test

namespace tidemill {
namespace {

using namespace text_form_test;
using namespace std::literals;

static_assert(TextPrintable<int> && TextPrintable<std::string> && TextPrintable<std::string_view> &&
              TextPrintable<char>);
static_assert(TextPrintable<const char*> && TextPrintable<char[4]> && TextPrintable<int[4]> && TextPrintable<Line>);
static_assert(TextPrintable<Tree> && TextPrintable<std::pair<std::string_view, long>> && TextPrintable<Interval>);
static_assert(TextPrintable<std::vector<std::map<Colour, std::optional<WithInserter>>>> && TextPrintable<std::byte>);
static_assert(!TextPrintable<Opaque> && !TextPrintable<Truthy> && !TextPrintable<HoldsOpaque> && !TextPrintable<void*>);
static_assert(!TextPrintable<std::pair<int, Opaque>> && !TextPrintable<std::vector<Opaque>> && !TextPrintable<int*>);
static_assert(!TextPrintable<wchar_t> && !TextPrintable<std::u16string> && !TextPrintable<void> &&
              !TextPrintable<int&>);
static_assert(!TextPrintable<decltype([] {})> && !TextPrintable<int (*)()>);

TEST(TextForm, OfStringsIsTheStringItself) {
  EXPECT_EQ(text_of("tide"), "tide");
  EXPECT_EQ(text_of("tide\n\"mill\""s), "tide\n\"mill\"");
  EXPECT_EQ(text_of("a\0b"sv), "a\0b"s);
  EXPECT_EQ(text_of(static_cast<const char*>("c")), "c");
  EXPECT_EQ(text_of(static_cast<const char*>(nullptr)), "null");
  EXPECT_EQ(text_of(Named{"converts"}), "converts");
  EXPECT_EQ(text_of(""s), "");
}

TEST(TextForm, AppendsToWhatIsThere) {
  std::string out = "a=";
  append_text(out, 1);
  append_text(out, WithInserter{2});
  EXPECT_EQ(out, "a=1stream 2");
}

TEST(TextForm, OfIntegersIsDecimalAndOfCharTheCharacter) {
  EXPECT_EQ(text_of(true), "true");
  EXPECT_EQ(text_of(false), "false");
  EXPECT_EQ(text_of('x'), "x");
  EXPECT_EQ(text_of(std::int8_t{-65}), "-65");
  EXPECT_EQ(text_of(std::uint8_t{65}), "65");
  EXPECT_EQ(text_of(std::byte{255}), "255");
  EXPECT_EQ(text_of(0), "0");
  EXPECT_EQ(text_of(std::numeric_limits<std::int64_t>::min()), "-9223372036854775808");
  EXPECT_EQ(text_of(std::numeric_limits<std::uint64_t>::max()), "18446744073709551615");
}

TEST(TextForm, OfFloatingPointIsWhatJavaPrints) {
  EXPECT_EQ(text_of(1.0), "1.0");
  EXPECT_EQ(text_of(0.0), "0.0");
  EXPECT_EQ(text_of(-0.0), "-0.0");
  EXPECT_EQ(text_of(0.1), "0.1");
  EXPECT_EQ(text_of(-12.5), "-12.5");
  EXPECT_EQ(text_of(100.0), "100.0");
  EXPECT_EQ(text_of(9999999.0), "9999999.0");
  EXPECT_EQ(text_of(1e7), "1.0E7");
  EXPECT_EQ(text_of(12345678.9), "1.23456789E7");
  EXPECT_EQ(text_of(0.001), "0.001");
  EXPECT_EQ(text_of(0.0012), "0.0012");
  EXPECT_EQ(text_of(0.00099), "9.9E-4");
  EXPECT_EQ(text_of(1e-300), "1.0E-300");
  EXPECT_EQ(text_of(1.0 / 3), "0.3333333333333333");
  EXPECT_EQ(text_of(std::numeric_limits<double>::max()), "1.7976931348623157E308");
  EXPECT_EQ(text_of(std::numeric_limits<double>::denorm_min()), "5.0E-324");  // Java pads to two digits: 4.9E-324
  EXPECT_EQ(text_of(0.1F), "0.1");
  EXPECT_EQ(text_of(1.0F / 3), "0.33333334");
  EXPECT_EQ(text_of(2.5L), "2.5");
  EXPECT_EQ(text_of(std::nan("")), "NaN");
  EXPECT_EQ(text_of(-std::nan("")), "NaN");
  EXPECT_EQ(text_of(HUGE_VAL), "Infinity");
  EXPECT_EQ(text_of(-HUGE_VAL), "-Infinity");
}

TEST(TextForm, OfEveryDoubleGivesTheDoubleBack) {
  std::mt19937_64 random{1};
  for (int i = 0; i < 20'000; ++i) {
    const auto value =
        i % 2 == 0 ? std::bit_cast<double>(random()) : static_cast<double>(random() % 100'000'000) / 1000;
    if (!std::isfinite(value)) continue;
    const std::string text = text_of(value);
    ASSERT_NE(text.find('.'), std::string::npos) << text;
    double back = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), back);
    ASSERT_EQ(error, std::errc{}) << text;
    ASSERT_EQ(end, text.data() + text.size()) << text;
    ASSERT_EQ(back, value) << text;
  }
}

TEST(TextForm, OfPairsTuplesAndPlainStructsIsInParentheses) {
  EXPECT_EQ(text_of(std::pair{"tide"sv, 3L}), "(tide,3)");
  EXPECT_EQ(text_of(std::pair{"k"s, std::pair{1, 2.0}}), "(k,(1,2.0))");
  EXPECT_EQ(text_of(std::tuple{1, 'c', "s"}), "(1,c,s)");
  EXPECT_EQ(text_of(std::tuple{1}), "(1)");
  EXPECT_EQ(text_of(std::tuple<>{}), "()");
  EXPECT_EQ(text_of(std::monostate{}), "()");
  EXPECT_EQ(text_of(Nothing{}), "()");
  EXPECT_EQ(text_of(Point{1, 2.5}), "(1,2.5)");
  EXPECT_EQ(text_of(Line{{1, 2}, {{3, 4}}, "n"}), "((1,2.0),[(3,4.0)],n)");
  EXPECT_EQ(text_of(Tree{1, {{2, {}}, {3, {}}}}), "(1,[(2,[]), (3,[])])");
  const int referred = 5;
  EXPECT_EQ(text_of(std::pair<const int&, int>{referred, 6}), "(5,6)");
}

TEST(TextForm, OfWhatMayBeAbsentSaysSo) {
  EXPECT_EQ(text_of(std::optional{5}), "Some(5)");
  EXPECT_EQ(text_of(std::optional<int>{}), "None");
  EXPECT_EQ(text_of(std::optional<std::optional<int>>{std::optional<int>{}}), "Some(None)");
  EXPECT_EQ(text_of(std::make_unique<int>(7)), "7");
  EXPECT_EQ(text_of(std::make_shared<const std::string>("s")), "s");
  EXPECT_EQ(text_of(std::unique_ptr<int>{}), "null");
  EXPECT_EQ(text_of(std::variant<int, std::string>{"v"s}), "v");
  EXPECT_EQ(text_of(std::variant<std::monostate, int>{}), "()");
}

TEST(TextForm, OfContainersIsInBrackets) {
  EXPECT_EQ(text_of(std::vector<int>{}), "[]");
  EXPECT_EQ(text_of(std::vector{1, 2, 3}), "[1, 2, 3]");
  EXPECT_EQ(text_of(std::vector{true, false}), "[true, false]");
  EXPECT_EQ(text_of(std::vector{"a"s, "b"s}), "[a, b]");
  EXPECT_EQ(text_of(std::deque{std::pair{1, 2}}), "[(1,2)]");
  EXPECT_EQ(text_of(std::list{1.0}), "[1.0]");
  EXPECT_EQ(text_of(std::array{1, 2}), "[1, 2]");
  EXPECT_EQ(text_of(std::set{2, 1}), "[1, 2]");
  const int numbers[] = {4, 5};
  EXPECT_EQ(text_of(numbers), "[4, 5]");
  EXPECT_EQ(text_of(std::span{numbers}), "[4, 5]");
  EXPECT_EQ(text_of(std::vector{'a', 'b'}), "[a, b]");
  EXPECT_EQ(text_of(std::map<std::string, int>{{"b", 2}, {"a", 1}}), "{a=1, b=2}");
  EXPECT_EQ(text_of(std::unordered_map<int, std::vector<int>>{{1, {2, 3}}}), "{1=[2, 3]}");
  EXPECT_EQ(text_of(std::map<int, int>{}), "{}");
}

TEST(TextForm, OfTimesNamesTheUnit) {
  EXPECT_EQ(text_of(Time{1'700'000'000'000ms}), "1700000000000 ms");
  EXPECT_EQ(text_of(std::chrono::sys_time<std::chrono::seconds>{1s}), "1000 ms");
  EXPECT_EQ(text_of(Duration{250ms}), "250 ms");
  EXPECT_EQ(text_of(2min), "2 min");
  EXPECT_EQ(text_of(3us), "3 us");
  EXPECT_EQ(text_of(3000ns), "3 us");
  EXPECT_EQ(text_of(3001ns), "3001 ns");
  EXPECT_EQ(text_of(Interval{Time{1s}, Time{2s}}), "(1000 ms,2000 ms)");
}

TEST(TextForm, PrefersToTextThenTheStreamThenTheMembers) {
  EXPECT_EQ(text_of(WithToText{1}), "text 1");
  EXPECT_EQ(text_of(WithInserter{2}), "stream 2");
  EXPECT_EQ(text_of(std::vector{WithInserter{1}, WithInserter{2}}), "[stream 1, stream 2]");
  EXPECT_EQ(text_of(std::filesystem::path{"a/b"}), "\"a/b\"");
}

TEST(TextForm, OfEnumsIsTheirNumberUnlessTheySayOtherwise) {
  EXPECT_EQ(text_of(Colour::blue), "200");
  EXPECT_EQ(text_of(Plain::second), "70000");
  EXPECT_EQ(text_of(Level::high), "high");
  EXPECT_EQ(text_of(std::pair{Side::left, Side::right}), "(left,right)");
}

TEST(TextForm, DoesNotDependOnTheLocaleOfTheHost) {
  struct Grouped : std::numpunct<char> {
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\3"; }
    char do_decimal_point() const override { return ','; }
  };
  const std::locale before = std::locale::global(std::locale{std::locale::classic(), new Grouped});
  const std::string inserted = text_of(WithInserter{1'000'000});
  const std::string number = text_of(1234.5);
  std::locale::global(before);
  EXPECT_EQ(inserted, "stream 1000000");
  EXPECT_EQ(number, "1234.5");
}

TEST(TextForm, LetsTheExceptionOfAnInserterPass) {
  try {
    static_cast<void>(text_of(Thrower{}));
    FAIL();
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "no text today");
  }
}

}  // namespace
}  // namespace tidemill
