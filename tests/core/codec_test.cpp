#include "tidemill/core/codec.hpp"

#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <deque>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

#include <boost/unordered/unordered_flat_map.hpp>
#include <boost/unordered/unordered_flat_set.hpp>
#include <gtest/gtest.h>

#include "tidemill/core/error.hpp"
#include "tidemill/core/time.hpp"

namespace codec_test {

struct Quote {
  std::string symbol;
  double price = 0;
  std::optional<std::int32_t> size;
  friend bool operator==(const Quote&, const Quote&) = default;
};

struct Book {
  std::vector<Quote> quotes;
  std::map<std::string, std::vector<std::int64_t>> levels;
  std::variant<std::monostate, int, std::string> note;
  tidemill::Time at{};
  std::array<std::string, 2> names;
  friend bool operator==(const Book&, const Book&) = default;
};

struct Tree {
  int value = 0;
  std::vector<Tree> children;
  friend bool operator==(const Tree&, const Tree&) = default;
};

struct Chain {
  int value = 0;
  std::unique_ptr<Chain> next;
};

struct Nothing {
  friend bool operator==(const Nothing&, const Nothing&) = default;
};

enum class Colour : std::uint16_t { red = 1, blue = 0x1234 };

class Price {  // not an aggregate; has a codec of its own, below
 public:
  explicit Price(std::int64_t cents) : cents_{cents} {}
  [[nodiscard]] std::int64_t cents() const { return cents_; }
  friend bool operator==(const Price&, const Price&) = default;

 private:
  std::int64_t cents_;
};

struct Secret {  // an aggregate whose own codec goes before the built-in one
  int value = 0;
  friend bool operator==(const Secret&, const Secret&) = default;
};

class NoCodec {
 public:
  explicit NoCodec(int value) : value_{value} {}
  [[nodiscard]] int value() const { return value_; }

 private:
  int value_;
};

struct HoldsNoCodec {
  int first;
  std::vector<NoCodec> second;
};

struct Derived : Secret {
  int more = 0;
};

template <class T>
class Box {
 public:
  explicit Box(T value) : value_{std::move(value)} {}
  [[nodiscard]] const T& value() const { return value_; }

 private:
  T value_;
};

class Fragile {  // leaves a variant without a value
 public:
  explicit Fragile(int /*unused*/) { throw std::runtime_error{"fragile"}; }
  explicit Fragile(std::string text) : text_{std::move(text)} {}
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
};

struct Silent {
  friend bool operator==(const Silent&, const Silent&) = default;
};

}  // namespace codec_test

template <>
struct tidemill::Codec<codec_test::Price> {
  static void write(Encoder& to, const codec_test::Price& price) { to.fixed(price.cents()); }
  static codec_test::Price read(Decoder& from) {
    const auto cents = from.fixed<std::int64_t>("the cents of a price");
    if (cents < 0) from.fail("a price of 0 or more", "a negative one");
    return codec_test::Price{cents};
  }
};

template <>
struct tidemill::Codec<codec_test::Secret> {
  static void write(Encoder& to, const codec_test::Secret& secret) { to.fixed(secret.value ^ 0x5A5A5A5A); }
  static codec_test::Secret read(Decoder& from) { return {from.fixed<int>() ^ 0x5A5A5A5A}; }
};

template <class T>
struct tidemill::Codec<codec_test::Box<T>> {
  static void write(Encoder& to, const codec_test::Box<T>& box) { to.value(box.value()); }
  static codec_test::Box<T> read(Decoder& from) { return codec_test::Box<T>{from.value<T>()}; }
};

template <>
struct tidemill::Codec<codec_test::Fragile> {
  static void write(Encoder& to, const codec_test::Fragile& fragile) { to.text(fragile.text()); }
  static codec_test::Fragile read(Decoder& from) { return codec_test::Fragile{std::string{from.text()}}; }
};

template <>
struct tidemill::Codec<codec_test::Silent> {  // breaks the rule that a value takes at least one byte
  static void write(Encoder&, const codec_test::Silent&) {}
  static codec_test::Silent read(Decoder&) { return {}; }
};

namespace tidemill {
namespace {

using namespace codec_test;
using namespace std::literals;

static_assert(Encodable<bool> && Encodable<char> && Encodable<double> && Encodable<Colour> && Encodable<std::byte>);
static_assert(Encodable<std::string> && Encodable<std::string_view> && Encodable<std::span<const std::byte>>);
static_assert(Encodable<Book> && Encodable<Tree> && Encodable<Chain> && Encodable<Nothing> && Encodable<Price>);
static_assert(Encodable<std::vector<std::pair<Price, std::unique_ptr<Box<int>>>>> && Encodable<std::tuple<>>);
static_assert(Encodable<Interval> && Encodable<std::variant<int, std::string>> && Encodable<std::vector<bool>>);
static_assert(!Encodable<NoCodec> && !Encodable<HoldsNoCodec> && !Encodable<std::vector<NoCodec>>);
static_assert(!Encodable<std::pair<int, NoCodec>> && !Encodable<std::map<int, NoCodec>> && !Encodable<Box<int>*>);
static_assert(!Encodable<const char*> && !Encodable<int[3]> && !Encodable<int&> && !Encodable<void> &&
              !Encodable<int()>);
static_assert(!Encodable<Derived> && !Encodable<long double> && !Encodable<std::span<int>>);

template <class T>
void expect_round_trip(const T& value) {
  const std::string bytes = encode(value);
  EXPECT_GE(bytes.size(), 1U);
  EXPECT_TRUE(decode<T>(bytes) == value) << testing::PrintToString(value);
}

std::string error_of(const auto& action) {
  try {
    action();
  } catch (const StateError& error) {
    EXPECT_EQ(error.retry(), Retry::is_useless);
    return error.code() + ": " + error.what();
  }
  return "nothing was thrown";
}

template <class T>
std::string decode_error(std::string_view bytes) {
  return error_of([&] { static_cast<void>(decode<T>(bytes)); });
}

testing::AssertionResult contains(const std::string& text, std::string_view part) {
  if (text.find(part) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "\"" << part << "\" is not in \"" << text << '"';
}

// --- the layout: these bytes are in files, so a change here is a new codec_format_version ---

TEST(CodecLayout, OfNumbersIsLittleEndianOfTheirSize) {
  EXPECT_EQ(codec_format_version, 1);
  EXPECT_EQ(encode(true), "\x01"s);
  EXPECT_EQ(encode(std::uint8_t{0xAB}), "\xAB"s);
  EXPECT_EQ(encode(std::int32_t{-2}), "\xFE\xFF\xFF\xFF"s);
  EXPECT_EQ(encode(std::uint64_t{0x0102030405060708}), "\x08\x07\x06\x05\x04\x03\x02\x01"s);
  EXPECT_EQ(encode(1.0), "\0\0\0\0\0\0\xF0\x3F"s);
  EXPECT_EQ(encode(Colour::blue), "\x34\x12"s);
  EXPECT_EQ(encode(Time{1ms}), "\xE8\x03\0\0\0\0\0\0"s);
}

TEST(CodecLayout, OfCountsIsTheShortestVarint) {
  EXPECT_EQ(encode("tide"s), "\x04tide"s);
  EXPECT_EQ(encode("tide"sv), "\x04tide"s);
  EXPECT_EQ(encode(std::string(300, 'x')), "\xAC\x02"s + std::string(300, 'x'));
  EXPECT_EQ(encode(std::vector<std::int16_t>{1, 2}), "\x02\x01\0\x02\0"s);
}

TEST(CodecLayout, OfCompositesIsTheirPartsInOrder) {
  EXPECT_EQ(encode(std::pair{"a"s, std::int16_t{7}}), "\x01"s + "a" + "\x07\0"s);
  EXPECT_EQ(encode(std::tuple{true, 'x', "b"s}), "\x01x\x01"s + "b");
  EXPECT_EQ(encode(Quote{"T", 1.0, 5}), "\x01T\0\0\0\0\0\0\xF0\x3F\x01\x05\0\0\0"s);
  EXPECT_EQ(encode(std::array<char, 3>{'a', 'b', 'c'}), "abc");
  EXPECT_EQ(encode(std::map<char, bool>{{'a', true}, {'b', false}}), "\x02"s + "a\x01" + "b\0"s);
  EXPECT_EQ(encode(std::optional<char>{}), "\0"s);
  EXPECT_EQ(encode(std::optional<char>{'z'}), "\x01z"s);
  EXPECT_EQ(encode(std::variant<int, char>{'z'}), "\x01z"s);
  EXPECT_EQ(encode(std::make_unique<char>('z')), "\x01z"s);
  EXPECT_EQ(encode(std::vector{true, false, true}), "\x03\x01\0\x01"s);
  EXPECT_EQ(encode(std::monostate{}), "\0"s);
  EXPECT_EQ(encode(Nothing{}), "\0"s);
  EXPECT_EQ(encode(std::array<int, 0>{}), "\0"s);
}

// --- there and back ---

TEST(Codec, BringsNumbersBack) {
  for (const bool b : {true, false}) expect_round_trip(b);
  for (int i = -128; i < 128; ++i) expect_round_trip(static_cast<std::int8_t>(i));
  expect_round_trip(std::numeric_limits<std::int64_t>::min());
  expect_round_trip(std::numeric_limits<std::uint64_t>::max());
  expect_round_trip(std::numeric_limits<float>::denorm_min());
  expect_round_trip(-std::numeric_limits<double>::infinity());
  expect_round_trip(U'\U0001F30A');
  expect_round_trip(std::byte{0x80});
  EXPECT_TRUE(std::signbit(decode<double>(encode(-0.0))));
  EXPECT_TRUE(std::isnan(decode<double>(encode(std::nan("")))));
}

TEST(Codec, BringsVarintsBackAtEveryLength) {
  for (unsigned bits = 0; bits < 64; ++bits) {
    for (const std::uint64_t value : {(1ULL << bits) - 1, 1ULL << bits, ~0ULL >> bits}) {
      std::string bytes;
      Encoder{bytes}.varint(value);
      Decoder from{std::as_bytes(std::span{bytes})};
      EXPECT_EQ(from.varint(), value);
      EXPECT_EQ(from.remaining(), 0U);
    }
  }
}

TEST(Codec, BringsContainersBack) {
  expect_round_trip(""s);
  expect_round_trip("with \0 inside"s);
  expect_round_trip(u"tide"s);
  expect_round_trip(std::vector<int>{});
  expect_round_trip(std::vector<std::string>{"a", "", "ccc"});
  expect_round_trip(std::vector<std::vector<double>>{{1, 2}, {}, {3}});
  expect_round_trip(std::vector<bool>{true, false, false});
  expect_round_trip(std::deque<int>{1, 2, 3});
  expect_round_trip(std::list<std::string>{"x", "y"});
  expect_round_trip(std::array<std::int32_t, 3>{1, 2, 3});
  expect_round_trip(std::array<std::string, 2>{"a", "b"});
  expect_round_trip(std::set<std::string>{"a", "b"});
  expect_round_trip(std::multiset<int>{1, 1, 2});
  expect_round_trip(std::unordered_set<int>{1, 2, 3});
  expect_round_trip(std::map<std::string, int>{{"a", 1}, {"b", 2}});
  expect_round_trip(std::multimap<int, int>{{1, 1}, {1, 2}});
  expect_round_trip(std::unordered_map<std::string, std::vector<int>>{{"a", {1}}, {"b", {}}});
  expect_round_trip(boost::unordered_flat_map<std::string, long>{{"a", 1}, {"b", 2}});
  expect_round_trip(boost::unordered_flat_set<int>{1, 2, 3});
  expect_round_trip(std::vector<std::monostate>(5));
}

TEST(Codec, BringsComposedTypesBack) {
  expect_round_trip(std::pair{"key"s, 3L});
  expect_round_trip(std::tuple{1, "two"s, 3.0, std::optional<int>{}});
  expect_round_trip(std::tuple<>{});
  expect_round_trip(std::optional<std::optional<int>>{std::optional<int>{}});
  expect_round_trip(std::variant<int, std::string, int>{std::in_place_index<2>, 7});
  expect_round_trip(Time{1'700'000'000'123'456us});
  expect_round_trip(Duration{-5});
  expect_round_trip(std::chrono::duration<double>{0.25});
  expect_round_trip(Interval{Time{1s}, Time{2s}});
  expect_round_trip(Nothing{});
  expect_round_trip(Tree{1, {{2, {}}, {3, {{4, {}}}}}});
  expect_round_trip(Book{.quotes = {{"T", 1.5, 3}, {"U", -0.5, {}}},
                         .levels = {{"bid", {1, 2, 3}}, {"ask", {}}},
                         .note = "n"s,
                         .at = Time{5s},
                         .names = {"x", "y"}});
}

TEST(Codec, BringsMoveOnlyTypesBack) {
  const auto chain =
      decode<Chain>(encode(Chain{1, std::make_unique<Chain>(Chain{2, std::make_unique<Chain>(Chain{3, nullptr})})}));
  EXPECT_EQ(chain.value, 1);
  EXPECT_EQ(chain.next->next->value, 3);
  EXPECT_EQ(chain.next->next->next, nullptr);

  std::vector<std::unique_ptr<int>> pointers;
  pointers.push_back(std::make_unique<int>(7));
  pointers.push_back(nullptr);
  const auto back = decode<std::vector<std::unique_ptr<int>>>(encode(pointers));
  ASSERT_EQ(back.size(), 2U);
  EXPECT_EQ(*back[0], 7);
  EXPECT_EQ(back[1], nullptr);
}

TEST(Codec, OfTheUserGoesBeforeTheBuiltInOne) {
  expect_round_trip(Price{1995});
  expect_round_trip(std::map<std::string, Price>{{"a", Price{1}}});
  expect_round_trip(std::vector<Secret>{{1}, {2}});
  EXPECT_EQ(encode(Secret{0}), "ZZZZ");
  EXPECT_EQ(decode<Box<std::string>>(encode(Box{"boxed"s})).value(), "boxed");
  EXPECT_TRUE(contains(decode_error<Price>(encode(std::int64_t{-1})), "expected a price of 0 or more"));
}

TEST(Codec, DecodesViewsWithoutACopy) {
  const std::string bytes = encode(std::pair{"tide"s, 3});
  const auto [word, count] = decode<std::pair<std::string_view, int>>(bytes);
  EXPECT_EQ(word, "tide");
  EXPECT_EQ(word.data(), bytes.data() + 1);
  EXPECT_EQ(count, 3);

  const std::array<std::byte, 3> raw{std::byte{1}, std::byte{2}, std::byte{3}};
  const std::string encoded = encode(std::span<const std::byte>{raw});
  const auto view = decode<std::span<const std::byte>>(encoded);
  EXPECT_TRUE(std::equal(view.begin(), view.end(), raw.begin(), raw.end()));
  EXPECT_EQ(static_cast<const void*>(view.data()), encoded.data() + 1);
}

TEST(Codec, AppendsToWhatIsThereAndTakesItBackWhenItFails) {
  std::string out = "before";
  encode_to(out, 'x');
  EXPECT_EQ(out, "beforex");
  EXPECT_THROW(encode_to(out, std::pair{1, std::vector<Silent>(3)}), StateError);
  EXPECT_EQ(out, "beforex");
}

// --- what is refused ---

TEST(Codec, NamesTheOffsetAndWhatWasExpectedThere) {
  const std::string error = decode_error<std::pair<std::int16_t, std::string>>("\x01\0\x05"s + "ab");
  EXPECT_TRUE(contains(error, "malformed_data"));
  EXPECT_TRUE(contains(error, "at byte 2: expected a string, found a count of 5 with only 2 bytes after it")) << error;
  EXPECT_TRUE(
      contains(decode_error<std::int64_t>("abc"), "at byte 0: expected a number, found the end after 3 more bytes"));
  EXPECT_TRUE(contains(decode_error<char>("abc"), "at byte 1: expected the end of the value, found 2 more bytes"));
  EXPECT_TRUE(contains(decode_error<bool>("\x02"), "at byte 0: expected a bool, found a byte that is neither 0 nor 1"));
  EXPECT_TRUE(contains(decode_error<std::optional<int>>("\x07"), "neither 0 nor 1"));
  EXPECT_TRUE(contains(decode_error<std::variant<int, char>>("\x02z"), "an index beyond the last one"));
  EXPECT_TRUE(contains(decode_error<std::set<char>>("\x02"s + "aa"), "an element twice"));
  EXPECT_TRUE(contains(decode_error<std::map<char, char>>("\x02"s + "axay"), "an element twice"));
  EXPECT_TRUE(contains(decode_error<Nothing>("\x01"), "expected an empty value"));
  EXPECT_TRUE(contains(decode_error<std::string>(""), "at byte 0: expected a string"));
  try {
    static_cast<void>(decode<std::pair<char, bool>>("a\x03"));
    FAIL();
  } catch (const StateError& e) {
    EXPECT_EQ(e.context().offset, 1U);
  }
}

TEST(Codec, RefusesVarintsThatAreTooLongOrNotTheShortest) {
  EXPECT_TRUE(contains(decode_error<std::string>("\x80\0"s), "longer than it needs to be"));
  EXPECT_TRUE(contains(decode_error<std::string>(std::string(9, '\xFF') + "\x02"), "more than 64 bits"));
  EXPECT_TRUE(contains(decode_error<std::string>(std::string(30, '\xFF')), "more than 64 bits"));
  EXPECT_TRUE(contains(decode_error<std::string>(std::string(9, '\xFF') + "\x01"), "a count of 18446744073709551615"));
  EXPECT_TRUE(contains(decode_error<std::string>(std::string(9, '\xFF')), "found the end"));
}

template <class T>
void expect_refused_at_once(std::uint64_t count, std::size_t bytes_after) {
  std::string bytes;
  Encoder{bytes}.varint(count);
  bytes.append(bytes_after, '\0');
  EXPECT_THROW(static_cast<void>(decode<T>(bytes)), StateError);
}

TEST(Codec, DoesNotBelieveAForgedCount) {
  for (const std::uint64_t count :
       {std::uint64_t{1} << 20U, std::uint64_t{1} << 40U, ~std::uint64_t{0}, ~std::uint64_t{0} / 8}) {
    for (const std::size_t bytes_after : {std::size_t{0}, std::size_t{16}}) {
      expect_refused_at_once<std::string>(count, bytes_after);
      expect_refused_at_once<std::string_view>(count, bytes_after);
      expect_refused_at_once<std::vector<std::uint64_t>>(count, bytes_after);
      expect_refused_at_once<std::vector<std::string>>(count, bytes_after);
      expect_refused_at_once<std::vector<std::monostate>>(count, bytes_after);
      expect_refused_at_once<std::vector<bool>>(count, bytes_after);
      expect_refused_at_once<std::unordered_map<int, int>>(count, bytes_after);
      expect_refused_at_once<boost::unordered_flat_map<std::string, std::string>>(count, bytes_after);
    }
  }
}

TEST(Codec, ReservesNoMoreThanTheBytesThatAreLeft) {
  struct Big {
    std::optional<std::array<std::uint64_t, 1000>> values;
  };
  std::string bytes;
  Encoder{bytes}.varint(1000);
  bytes.append(1000, '\x09');  // a thousand elements might be there, but the first one is malformed
  std::size_t reserved = 0;
  Decoder from{std::as_bytes(std::span{bytes})};
  EXPECT_THROW(static_cast<void>(detail::read_items<std::vector<Big>>(from, "elements",
                                                                      [&](std::vector<Big>& items) {
                                                                        reserved = items.capacity();
                                                                        items.push_back(from.value<Big>());
                                                                      })),
               StateError);
  EXPECT_LE(reserved * sizeof(Big), bytes.size() + sizeof(Big));
}

TEST(Codec, BoundsTheNestingThatBytesCanAskFor) {
  EXPECT_TRUE(contains(decode_error<Tree>([] {
                         std::string bytes;
                         for (int i = 0; i < 100'000; ++i) bytes += "\0\0\0\0\x01"s;
                         return bytes;
                       }()),
                       "expected at most 256 levels of nesting"));
  Chain chain;
  Chain* last = &chain;
  for (int i = 0; i < 1000; ++i) {
    last->next = std::make_unique<Chain>();
    last = last->next.get();
  }
  EXPECT_TRUE(contains(error_of([&] { static_cast<void>(encode(chain)); }), "unencodable"));
}

TEST(Codec, TakesTheDeepestNestingThatItWrites) {
  Tree tree;
  for (int i = 1; i < max_codec_nesting; ++i) {
    Tree parent{i, {}};
    parent.children.push_back(std::move(tree));
    tree = std::move(parent);
  }
  expect_round_trip(tree);
  Tree parent{0, {}};
  parent.children.push_back(std::move(tree));
  EXPECT_THROW(static_cast<void>(encode(parent)), StateError);
}

TEST(Codec, RefusesToWriteWhatItCouldNotRead) {
  EXPECT_TRUE(contains(error_of([] { static_cast<void>(encode(std::vector<Silent>(2))); }), "writes no byte"));

  std::variant<char, Fragile> fragile{'a'};
  EXPECT_THROW(fragile.emplace<1>(0), std::runtime_error);
  ASSERT_TRUE(fragile.valueless_by_exception());
  EXPECT_TRUE(
      contains(error_of([&] { static_cast<void>(encode(fragile)); }), "cannot serialise a variant: it holds no value"));
}

TEST(Codec, RefusesEveryTruncationOfAValue) {
  const Book book{.quotes = {{"T", 1.5, 3}, {"U", -0.5, {}}},
                  .levels = {{"bid", {1, 2, 3}}, {"ask", {}}},
                  .note = "note"s,
                  .at = Time{5s},
                  .names = {"x", "y"}};
  const std::string bytes = encode(book);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const std::string cut = bytes.substr(0, size);  // its own allocation, so that ASan sees a read beyond it
    EXPECT_THROW(static_cast<void>(decode<Book>(cut)), StateError) << size;
  }
}

// --- seeded random bytes: every outcome is a value or StateError, and a value is written as the same bytes ---

using Everything =
    std::tuple<bool, std::string, std::vector<std::uint16_t>, std::vector<std::string>, std::optional<int>,
               std::variant<char, std::string, Tree>, std::map<std::uint8_t, std::string>, Book>;

template <class T>
bool survives(const std::string& bytes) {
  try {
    const T value = decode<T>(bytes);
    EXPECT_EQ(decode<T>(encode(value)), value);
    return true;
  } catch (const StateError&) {
    return false;
  }
}

TEST(Codec, SurvivesRandomBytes) {
  std::mt19937_64 random{20240229};
  int accepted = 0;
  int refused = 0;
  const auto count = [&](bool taken) { ++(taken ? accepted : refused); };
  for (int round = 0; round < 5'000; ++round) {
    std::string bytes(random() % 64, '\0');
    const bool small = random() % 2 == 0;  // small bytes look like counts and flags
    for (char& byte : bytes) byte = static_cast<char>(small ? random() % 4 : random() % 256);
    count(survives<Tree>(bytes));
    count(survives<std::vector<std::string>>(bytes));
    count(survives<std::map<std::string, std::optional<bool>>>(bytes));
    count(survives<std::vector<std::variant<bool, std::string, std::vector<std::int16_t>>>>(bytes));
    count(survives<std::unordered_set<std::string>>(bytes));
  }
  EXPECT_GT(accepted, 100);
  EXPECT_GT(refused, 1000);
}

TEST(Codec, SurvivesDamageToAGoodValue) {
  const Everything value{true,
                         "text",
                         {1, 2, 3},
                         {"a", "bb"},
                         7,
                         Tree{1, {{2, {}}, {3, {}}}},
                         {{1, "x"}, {2, "y"}},
                         Book{.quotes = {{"T", 1.5, 3}}, .levels = {{"bid", {1}}}, .note = 5, .at = {}, .names = {}}};
  const std::string good = encode(value);
  ASSERT_TRUE(survives<Everything>(good));
  std::mt19937_64 random{77};
  int refused = 0;
  for (int round = 0; round < 5'000; ++round) {
    std::string bytes = good;
    for (auto changes = 1 + random() % 3; changes > 0; --changes) {
      switch (random() % 3) {
        case 0: bytes[random() % bytes.size()] ^= static_cast<char>(1U << (random() % 8)); break;
        case 1: bytes.insert(random() % bytes.size(), 1, static_cast<char>(random() % 256)); break;
        default: bytes.erase(random() % bytes.size(), 1); break;
      }
    }
    try {  // bytes are compared, not values: a damaged price may be NaN, which does not equal itself
      EXPECT_EQ(encode(decode<Everything>(bytes)).size(), bytes.size());
    } catch (const StateError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace tidemill
