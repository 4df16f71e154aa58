// Which records own what they hold, and how those that do not are copied.
#include "tidemill/core/ownership.hpp"

#include <array>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

struct Quote {
  std::string_view symbol;
  double price;
};
struct OwnedQuote {
  std::string symbol;
  double price;
};
template <>
struct tidemill::Ownership<Quote> {
  using Owned = OwnedQuote;
  static constexpr bool borrows = true;
  static OwnedQuote to_owned(const Quote& q) { return {std::string{q.symbol}, q.price}; }
  static Quote rehome(const Quote& q, Arena& arena) { return {arena.copy(q.symbol), q.price}; }
};

namespace tidemill {
namespace {

using V = std::string_view;
using S = std::string;

static_assert(!borrows_v<int> && !borrows_v<S> && !borrows_v<std::vector<S>> && !borrows_v<std::pair<int, S>>);
static_assert(!borrows_v<std::span<int>>, "a span of what may change is nobody's business but the user's");
static_assert(borrows_v<V> && borrows_v<std::pair<V, int>> && borrows_v<std::vector<std::optional<V>>>);
static_assert(std::is_same_v<owned_t<V>, S>);
static_assert(std::is_same_v<owned_t<std::pair<V, int>>, std::pair<S, int>>);
static_assert(std::is_same_v<owned_t<std::tuple<int, V, std::vector<V>>>, std::tuple<int, S, std::vector<S>>>);
static_assert(std::is_same_v<owned_t<std::variant<int, V>>, std::variant<int, S>>);
static_assert(std::is_same_v<owned_t<std::array<V, 2>>, std::array<S, 2>>);
static_assert(std::is_same_v<owned_t<std::span<const int>>, std::vector<int>>);
static_assert(std::is_same_v<owned_t<std::map<V, V>>, std::map<S, S>>);
static_assert(std::is_same_v<owned_t<std::unordered_map<int, V>>, std::unordered_map<int, S>>);
static_assert(std::is_same_v<owned_t<std::set<V>>, std::set<S>>);
static_assert(std::is_same_v<owned_t<std::list<V>>, std::list<S>>);
static_assert(std::is_same_v<owned_t<Quote>, OwnedQuote>);

// Rehomes what `make` builds from views into a text, overwrites the text, and returns the result as an owner.
template <class Make>
auto survives(const Make& make) {
  S text = "first second";
  Arena arena;
  auto kept = rehome(make(V{text}.substr(0, 5), V{text}.substr(6)), arena);
  text.assign(text.size(), '#');
  return to_owned(std::move(kept));
}

TEST(Rehome, CopiesEverythingThatAValueLooksAt) {
  EXPECT_EQ(survives([](V a, V) { return a; }), "first");
  EXPECT_EQ(survives([](V a, V b) { return std::pair{a, b}; }), (std::pair<S, S>{"first", "second"}));
  EXPECT_EQ(survives([](V a, V b) { return std::tuple{a, 1, b}; }), (std::tuple<S, int, S>{"first", 1, "second"}));
  EXPECT_EQ(survives([](V a, V) { return std::optional{a}; }), std::optional<S>{"first"});
  EXPECT_EQ(survives([](V, V) { return std::optional<V>{}; }), std::nullopt);
  EXPECT_EQ(survives([](V a, V b) { return std::vector{a, b}; }), (std::vector<S>{"first", "second"}));
  EXPECT_EQ(survives([](V a, V b) { return std::array{a, b}; }), (std::array<S, 2>{"first", "second"}));
  EXPECT_EQ(survives([](V a, V b) { return std::map<V, V>{{a, b}}; }), (std::map<S, S>{{"first", "second"}}));
  EXPECT_EQ(survives([](V a, V) { return std::map<V, int>{{a, 1}}; }), (std::map<S, int>{{"first", 1}}));
  EXPECT_EQ(survives([](V a, V) {
              return std::unordered_map<V, int>{{a, 1}};
            }),
            (std::unordered_map<S, int>{{"first", 1}}));
  EXPECT_EQ(survives([](V a, V b) { return std::set<V>{a, b}; }), (std::set<S>{"first", "second"}));
  EXPECT_EQ(survives([](V a, V b) { return std::list<V>{a, b}; }), (std::list<S>{"first", "second"}));
  EXPECT_EQ((survives([](V a, V) { return std::variant<int, V>{a}; })), (std::variant<int, S>{S{"first"}}));
  EXPECT_EQ((survives([](V, V b) { return std::variant<V, V>{std::in_place_index<1>, b}; }).index()), 1u);
  EXPECT_EQ(survives([](V a, V) { return Quote{a, 1.5}; }).symbol, "first");
  EXPECT_EQ(survives([](V a, V b) { return std::vector{std::pair{a, std::optional{b}}}; }).front().second, "second");
}

TEST(Rehome, CopiesSpans) {
  std::vector<int> numbers{1, 2, 3};
  Arena arena;
  const auto kept = rehome(std::span<const int>{numbers}, arena);
  numbers.assign(3, 0);
  EXPECT_EQ(to_owned(kept), (std::vector{1, 2, 3}));
  EXPECT_TRUE(rehome(std::span<const int>{}, arena).empty());
}

TEST(ToOwned, MovesWhatOwnsItsMemory) {
  auto box = std::make_unique<int>(3);
  const int* const inside = box.get();
  const auto moved = to_owned(std::move(box));
  EXPECT_EQ(moved.get(), inside);
  auto mixed = std::pair{V{"view"}, std::make_unique<int>(4)};
  EXPECT_EQ(*to_owned(std::move(mixed)).second, 4);
}

TEST(Arena, AlignsAndKeepsWhatItGaveOut) {
  Arena arena;
  std::vector<std::pair<V, S>> copies;
  for (int i = 0; i < 5000; ++i) {
    const S text(static_cast<std::size_t>(i % 97), static_cast<char>('a' + i % 26));
    copies.emplace_back(arena.copy(text), text);
    for (const std::size_t alignment : {1u, 2u, 8u, 16u}) {
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(arena.allocate(3, alignment)) % alignment, 0u);
    }
  }
  const S large(1 << 20, 'x');
  copies.emplace_back(arena.copy(large), large);
  Arena elsewhere{std::move(arena)};
  for (const auto& [copy, text] : copies) EXPECT_EQ(copy, text);
  EXPECT_GE(elsewhere.allocated_bytes(), large.size());
  EXPECT_EQ(arena.allocated_bytes(), 0u);  // NOLINT(bugprone-use-after-move): an arena that was moved from is empty
  elsewhere = Arena{};
  EXPECT_EQ(elsewhere.copy("again"), "again");
}

}  // namespace
}  // namespace tidemill
