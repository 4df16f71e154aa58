// Random runs of windows against an oracle that looks through the whole history again for every window. SEMANTICS W1-W4, W7-W9.
#include <map>
#include <random>

#include "dstream/streams.hpp"
#include "tidemill/dstream/detail/window_keys.hpp"

namespace tidemill {
namespace {

using namespace testing_streams;

using Text = std::pair<int, std::string>;

struct Shape {
  int length;
  int slide;
};
constexpr Shape shapes[] = {{1, 1}, {3, 1}, {4, 2}, {3, 2}, {5, 2}, {7, 3}, {2, 3}, {1, 4}, {6, 6}, {12, 1}, {10, 4}};

// Keys come and go in spells, so that some vanish from the window altogether.
std::vector<std::vector<Text>> random_batches(std::mt19937& random, int count) {
  std::vector<std::vector<Text>> batches;
  for (int t = 1; t <= count; ++t) {
    std::vector<Text> batch;
    const auto records = random() % 4 == 0 ? 0 : random() % 6;
    for (unsigned i = 0; i < records; ++i) {
      const int key = static_cast<int>(random() % 3) + 3 * (t / 10 % 3);
      batch.emplace_back(key, std::to_string(t) + static_cast<char>('a' + i) + " ");
    }
    batches.push_back(std::move(batch));
  }
  return batches;
}

// The window that ends with the batch numbered t, from 1.
std::map<int, std::string> window_by_hand(const std::vector<std::vector<Text>>& batches, int t, int length) {
  std::map<int, std::string> values;
  for (int u = std::max(1, t - length + 1); u <= t; ++u) {
    for (const auto& [key, text] : batches[static_cast<std::size_t>(u - 1)]) values[key] += text;
  }
  return values;
}

TEST(RandomWindows, EqualTheirDefinition) {
  std::mt19937 random{42};
  for (const Shape& shape : shapes) {
    for (const std::size_t parallelism : {1u, 3u}) {
      SCOPED_TRACE(std::to_string(shape.length) + " every " + std::to_string(shape.slide) + ", parallelism " +
                   std::to_string(parallelism));
      const auto batches = random_batches(random, 50);
      StreamTest<Text> test{1s, parallelism};
      const Duration length = std::chrono::seconds{shape.length};
      const Duration slide = std::chrono::seconds{shape.slide};
      // Joining texts is associative and nothing more: an order or a batch that is wrong shows. The lengths can be undone.
      const auto joined = test.collect(test.input().reduce_by_key_and_window(std::plus<>{}, length, slide));
      const auto sizes =
          test.collect(test.input()
                           .map_values([](const std::string& text) { return static_cast<long>(text.size()); })
                           .reduce_by_key_and_window(std::plus<>{}, std::minus<>{}, length, slide, 2,
                                                     [](int, long size) { return size > 0; }));
      const auto records = test.collect(test.input().window(length, slide));
      for (const auto& batch : batches) test.step(batch);

      std::size_t window = 0;
      for (int t = shape.slide; t <= 50; t += shape.slide, ++window) {
        SCOPED_TRACE("window that ends at " + std::to_string(t));
        const auto expected = window_by_hand(batches, t, shape.length);
        ASSERT_LT(window, joined->size());
        const auto& now = (*joined)[window];
        EXPECT_EQ((std::map<int, std::string>{now.begin(), now.end()}), expected);
        EXPECT_EQ(now.size(), expected.size());
        std::map<int, long> expected_sizes;
        for (const auto& [key, text] : expected) expected_sizes[key] = static_cast<long>(text.size());
        const auto& now_sizes = (*sizes)[window];
        EXPECT_EQ((std::map<int, long>{now_sizes.begin(), now_sizes.end()}), expected_sizes);
        EXPECT_EQ(now_sizes.size(), expected_sizes.size());
        std::map<int, std::string> of_records;
        for (const auto& [key, text] : (*records)[window]) of_records[key] += text;
        EXPECT_EQ(of_records, expected);
      }
      EXPECT_EQ(joined->size(), window);
      EXPECT_EQ(records->size(), window);
    }
  }
}

TEST(RandomWindows, GiveTheSameInTheSameOrderWhateverTheNumberOfThreads) {
  using Number = std::pair<int, long>;
  std::vector<std::vector<std::vector<Number>>> answers;
  for (const std::size_t parallelism : {1u, 4u}) {
    std::mt19937 random{7};
    StreamTest<Number> test{1s, parallelism};
    const auto sums = test.collect(test.input().reduce_by_key_and_window(std::plus<>{}, 5s, 2s, 4));
    for (int t = 0; t < 12; ++t) {
      std::vector<Number> batch;
      for (int i = 0; i < 6000; ++i) batch.emplace_back(static_cast<int>(random() % 5000), i);
      test.step(std::move(batch));
    }
    answers.push_back(*sums);
  }
  EXPECT_TRUE(answers[0] == answers[1]);
}

// ---- the table of keys ------------------------------------------------------------------------------------------------------

// All keys on one hash, or all on two: probes are long, and taking keys out has to move others up.
struct Crowded {
  int value;
  friend bool operator==(const Crowded&, const Crowded&) = default;
};

}  // namespace

template <>
struct Hash<Crowded> {
  std::uint64_t operator()(const Crowded& key) const noexcept { return hash_of(key.value % 5); }
};

namespace {

template <class K, class Make>
void keys_come_and_go(Make make) {
  std::mt19937 random{3};
  detail::WindowKeys<K, int> keys;
  std::map<int, detail::KeyId> here;
  for (int round = 0; round < 200; ++round) {
    for (int i = 0; i < 20; ++i) {
      const int number = static_cast<int>(random() % 100);
      if (random() % 2 == 0) {
        const detail::KeyId id = keys.intern(make(number));
        if (const auto known = here.find(number); known != here.end()) {
          EXPECT_EQ(id, known->second);
        } else {
          EXPECT_EQ(keys[id], 0) << "a cell starts empty";
          keys[id] = number + 1;
          here[number] = id;
        }
      } else if (const auto known = here.find(number); known != here.end()) {
        keys.release(known->second);
        here.erase(known);
      }
    }
    ASSERT_EQ(keys.size(), here.size());
    if (round % 3 == 0) continue;
    std::vector<K> order;
    keys.for_each([&](detail::KeyId id, const K& key, int cell) {
      EXPECT_EQ(here.at(cell - 1), id);
      EXPECT_EQ(key, make(cell - 1));
      order.push_back(key);
    });
    ASSERT_EQ(order.size(), here.size());
    detail::WindowKeys<K, int> again;
    for (auto last = here.rbegin(); last != here.rend(); ++last) static_cast<void>(again.intern(make(last->first)));
    std::vector<K> order_again;
    again.for_each([&](detail::KeyId, const K& key, int) { order_again.push_back(key); });
    EXPECT_EQ(order, order_again) << "the order depends on the keys alone";
  }
}

TEST(WindowKeys, ComeAndGoAndHaveAnOrderOfTheirOwn) {
  keys_come_and_go<int>([](int i) { return i; });
  keys_come_and_go<std::string>([](int i) { return std::string(static_cast<std::size_t>(i), 'x'); });
}

TEST(WindowKeys, WithEqualHashesAreToldApart) {
  keys_come_and_go<Crowded>([](int i) { return Crowded{i}; });
}

TEST(WindowKeys, AreFoundByViews) {
  detail::WindowKeys<std::string, int> keys;
  const auto id = keys.intern(std::string_view{"tide"});
  EXPECT_EQ(keys.intern(std::string{"tide"}), id);
  EXPECT_EQ(keys.key(id), "tide");
  EXPECT_NE(keys.intern(std::string_view{"tides"}), id);
}

}  // namespace
}  // namespace tidemill
