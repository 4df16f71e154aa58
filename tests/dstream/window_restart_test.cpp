// Windows that go on after a restart as if there had been none: the same results in the same order, to the last bit of a
// floating-point number, wherever the run was cut. The checkpoint is a map in memory.
#include <map>
#include <random>

#include "dstream/streams.hpp"

namespace tidemill::window_restart_test {
namespace {

using namespace testing_streams;

// ---- a checkpoint -------------------------------------------------------------------------------------------------------------

class Kept {
 public:
  void take(DurableState& state) {
    StateChanges changes;
    state.take_changes(changes);
    const std::string taken = changes.bytes();
    Decoder from{std::as_bytes(std::span{taken})};
    while (from.remaining() != 0) {
      const bool put = from.fixed<std::uint8_t>() == 1;
      const auto group = from.fixed<KeyGroup>();
      const std::string key = bytes(from);
      if (put) {
        entries_[key] = {group, bytes(from)};
      } else {
        entries_.erase(key);
      }
    }
  }
  void give_back(DurableState& state, Time last) const {
    state.track_changes();
    for (const auto& [key, entry] : entries_) state.restore(entry.first, key, entry.second);
    state.restored(last);
  }
  [[nodiscard]] std::size_t size() const { return entries_.size(); }

 private:
  static std::string bytes(Decoder& from) {
    const auto taken = from.bytes(from.fixed<std::uint32_t>(), "bytes");
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }
  std::map<std::string, std::pair<KeyGroup, std::string>> entries_;
};

// ---- one run of a keyed window ------------------------------------------------------------------------------------------------

using Price = std::pair<std::string, double>;
using Results = std::map<Time, std::vector<Price>>;

const Time zero{std::chrono::seconds{1003}};
Time at(int batch) { return zero + std::chrono::seconds{batch}; }

struct Shape {
  int length;
  int slide;
};
constexpr Shape shapes[] = {{1, 1}, {4, 1}, {6, 3}, {3, 2}, {7, 3}, {2, 5}, {5, 5}};

detail::WindowShape shape_of(const Shape& shape) {
  const Context context{{.parallelism = 1}};
  StreamingContext ssc{context, 1s};
  return {"window", ssc.queue_stream(std::make_shared<BatchQueue<int>>()).node(), std::chrono::seconds{shape.length},
          std::chrono::seconds{shape.slide}};
}

struct Stacks {
  using Part = detail::TwoStacks<std::string, double, std::plus<>>;
  static Part part(const detail::WindowShape& shape) { return {"window", {}, shape}; }
};
struct Positive {
  bool operator()(const std::string&, double price) const { return price > 1e-9; }
};
struct Totals {
  using Part = detail::RunningTotals<std::string, double, std::plus<>, std::minus<>, Positive>;
  static Part part(const detail::WindowShape& shape) { return {"window", {}, {}, {}, shape}; }
};

template <class Form>
class KeyedRun {
 public:
  using Window = detail::KeyedWindow<typename Form::Part, Price>;

  KeyedRun(const Shape& shape, std::size_t partitions)
      : partitioner_{std::make_shared<const HashPartitioner<std::string>>(partitions)},
        window_{std::make_shared<Window>("window", shape_of(shape), Form::part(shape_of(shape)), partitioner_)},
        state_{window_} {}

  void batch(int t, const std::vector<Price>& prices, Results& results) {
    window_->expect(at(t), context_.parallelize(prices).reduce_by_key(std::plus<>{}, partitioner_));
    if (!window_->shape().ends_at(at(t), zero)) return window_->bring_to(at(t), zero, scope_);
    std::vector<std::vector<Price>> parts(window_->partitions());
    window_->emit(at(t), zero, scope_, parts, [](const std::string& key, double price) { return Price{key, price}; });
    auto& result = results[at(t)];
    for (const auto& part : parts) result.insert(result.end(), part.begin(), part.end());
  }
  [[nodiscard]] DurableState& state() { return state_; }

 private:
  Context context_{{.parallelism = 1}};
  detail::Scope scope_{context_.runtime(), std::nullopt};
  std::shared_ptr<const Partitioner<std::string>> partitioner_;
  std::shared_ptr<Window> window_;
  detail::WindowState<Window> state_;
};

std::vector<std::vector<Price>> random_prices(unsigned seed, int count) {
  std::mt19937 random{seed};
  std::uniform_real_distribution<double> price{0, 1};
  std::vector<std::vector<Price>> batches;
  for (int t = 0; t < count; ++t) {
    std::vector<Price> batch;
    const auto records = random() % 3 == 0 ? 0 : random() % 8;
    for (unsigned i = 0; i < records; ++i) batch.emplace_back("key " + std::to_string(random() % 9), price(random));
    batches.push_back(std::move(batch));
  }
  return batches;
}

template <class Form>
void goes_on_wherever_it_was_cut() {
  constexpr int count = 30;
  for (const Shape& shape : shapes) {
    const auto prices = random_prices(static_cast<unsigned>(10 * shape.length + shape.slide), count);
    Results expected;
    KeyedRun<Form> whole{shape, 3};
    for (int t = 1; t <= count; ++t) whole.batch(t, prices[static_cast<std::size_t>(t - 1)], expected);

    for (int cut = 1; cut < count; ++cut) {
      SCOPED_TRACE(std::to_string(shape.length) + " every " + std::to_string(shape.slide) + ", cut after " +
                   std::to_string(cut));
      Results results;
      Kept kept;
      {
        KeyedRun<Form> before{shape, 3};
        kept.give_back(before.state(), zero);
        for (int t = 1; t <= cut; ++t) {
          before.batch(t, prices[static_cast<std::size_t>(t - 1)], results);
          kept.take(before.state());
        }
      }
      KeyedRun<Form> after{shape, 3};
      kept.give_back(after.state(), at(cut));
      for (int t = cut + 1; t <= count; ++t) {
        after.batch(t, prices[static_cast<std::size_t>(t - 1)], results);
        kept.take(after.state());
      }
      ASSERT_EQ(results, expected);
    }
  }
}

TEST(WindowRestart, TwoStacksGoOnToTheLastBit) { goes_on_wherever_it_was_cut<Stacks>(); }
TEST(WindowRestart, RunningTotalsGoOnToTheLastBit) { goes_on_wherever_it_was_cut<Totals>(); }

template <class Form>
void goes_on_with_other_partitions() {
  constexpr int count = 24;
  for (const Shape& shape : shapes) {
    SCOPED_TRACE(std::to_string(shape.length) + " every " + std::to_string(shape.slide));
    const auto prices = random_prices(99, count);
    Results expected;
    Results results;
    KeyedRun<Form> whole{shape, 1};
    for (int t = 1; t <= count; ++t) whole.batch(t, prices[static_cast<std::size_t>(t - 1)], expected);
    Kept kept;
    int last = 0;
    // Started five times, each time with another number of partitions.
    for (const std::size_t partitions : {4u, 1u, 2u, 300u, 3u}) {
      KeyedRun<Form> run{shape, partitions};
      kept.give_back(run.state(), at(last));
      for (const int end = std::min(count, last + 5); last < end;) {
        ++last;
        run.batch(last, prices[static_cast<std::size_t>(last - 1)], results);
        kept.take(run.state());
      }
    }
    ASSERT_EQ(results.size(), expected.size());
    for (auto& [time, prices_then] : results) {
      std::sort(prices_then.begin(), prices_then.end());
      std::sort(expected[time].begin(), expected[time].end());
      EXPECT_EQ(prices_then, expected[time]) << to_string(time);
    }
  }
}

TEST(WindowRestart, TheNumberOfPartitionsMayChange) {
  goes_on_with_other_partitions<Stacks>();
  goes_on_with_other_partitions<Totals>();
}

template <class Form>
std::size_t entries_after(const Shape& shape, int silent) {
  Results results;
  Kept kept;
  KeyedRun<Form> run{shape, 2};
  kept.give_back(run.state(), zero);
  for (int t = 1; t <= 60 + silent; ++t) {
    run.batch(t, t <= 60 ? std::vector<Price>{{"a", 1.0}, {"b", 1.0}} : std::vector<Price>{}, results);
    kept.take(run.state());
  }
  return kept.size();
}

TEST(WindowRestart, ACheckpointHoldsThePanesOfTheWindowAndNoMore) {
  for (const Shape& shape : shapes) {
    SCOPED_TRACE(std::to_string(shape.length) + " every " + std::to_string(shape.slide));
    const auto panes = static_cast<std::size_t>(shape_of(shape).panes + shape.slide);
    EXPECT_LE(entries_after<Stacks>(shape, 0), 2 * panes);
    EXPECT_LE(entries_after<Totals>(shape, 0), 2 * panes + 2);
    EXPECT_EQ(entries_after<Stacks>(shape, 30), 0u) << "everything has left";
    EXPECT_EQ(entries_after<Totals>(shape, 30), 0u) << "everything has left, and the filter rejects what is zero";
  }
}

TEST(WindowRestart, WhatIsNotSavedByTheFormIsRefused) {
  KeyedRun<Totals> run{{4, 1}, 1};
  const std::string key = encode(std::variant<detail::PieceKey, std::string>{std::string{"a"}});
  EXPECT_THROW(run.state().restore(0, key, encode(std::variant<std::vector<Price>, double>{std::vector<Price>{}})),
               StateError);
  EXPECT_THROW(run.state().restore(0, key, "x"), StateError);
  EXPECT_THROW(run.state().restore(0, "", ""), StateError);
}

TEST(WindowRestart, TheSchemaTellsLengthAndSlide) {
  KeyedRun<Stacks> stacks{{6, 3}, 1};
  KeyedRun<Totals> totals{{6, 3}, 1};
  EXPECT_EQ(stacks.state().schema().parameters, "length 6 s, slide 3 s");
  EXPECT_NE(stacks.state().schema().kind, totals.state().schema().kind);
  KeyedRun<Stacks> longer{{7, 3}, 1};
  EXPECT_NE(stacks.state().schema(), longer.state().schema());
}

// ---- windows of records -------------------------------------------------------------------------------------

template <class T>
class RunOfPieces {
 public:
  using Pieces = detail::WindowPieces<T>;
  explicit RunOfPieces(const Shape& shape)
      : pieces_{std::make_shared<Pieces>("window", shape_of(shape), context_.runtime())}, state_{pieces_} {}

  template <class Chain>
  std::vector<owned_t<T>> batch(int t, const Chain& chain) {
    pieces_->add(at(t), pieces_->make(chain));
    const auto scope = std::make_shared<const detail::Scope>(detail::Scope{context_.runtime(), at(t)});
    const Batch<T> window{std::make_shared<const detail::UnionOfPieces<T>>(scope, pieces_->of_window(at(t)))};
    auto records = window.collect();
    partitioned_ = window.partitioner() != nullptr;
    pieces_->settle(at(t), zero);
    return records;
  }
  [[nodiscard]] const Context& context() const { return context_; }
  [[nodiscard]] DurableState& state() { return state_; }
  [[nodiscard]] bool is_partitioned() const { return partitioned_; }

 private:
  Context context_{{.parallelism = 3}};
  std::shared_ptr<Pieces> pieces_;
  detail::WindowState<Pieces> state_;
  bool partitioned_ = false;
};

TEST(WindowRestart, RecordsAreThereAgainInTheirOrder) {
  constexpr int count = 14;
  const auto prices = random_prices(5, count);
  for (const bool by_key : {false, true}) {
    for (const Shape& shape : {Shape{4, 1}, Shape{5, 2}, Shape{2, 3}}) {
      const auto step = [&](RunOfPieces<Price>& run, int t) {
        const auto batch = run.context().parallelize(prices[static_cast<std::size_t>(t - 1)], 3);
        return by_key ? run.batch(t, batch.reduce_by_key(std::plus<>{})) : run.batch(t, batch);
      };
      RunOfPieces<Price> whole{shape};
      std::vector<std::vector<Price>> expected;
      for (int t = 1; t <= count; ++t) expected.push_back(step(whole, t));
      for (int cut = 1; cut < count; ++cut) {
        SCOPED_TRACE(std::to_string(shape.length) + " every " + std::to_string(shape.slide) + ", cut after " +
                     std::to_string(cut));
        std::vector<std::vector<Price>> results;
        Kept kept;
        RunOfPieces<Price> before{shape};
        kept.give_back(before.state(), zero);
        for (int t = 1; t <= cut; ++t) {
          results.push_back(step(before, t));
          kept.take(before.state());
        }
        RunOfPieces<Price> after{shape};
        kept.give_back(after.state(), at(cut));
        for (int t = cut + 1; t <= count; ++t) {
          results.push_back(step(after, t));
          kept.take(after.state());
          EXPECT_EQ(after.is_partitioned(), by_key);
        }
        ASSERT_EQ(results, expected);
        EXPECT_LE(kept.size(), 3u * static_cast<std::size_t>(shape.length));
      }
    }
  }
}

TEST(WindowRestart, ViewsLookAtMemoryOfTheWindow) {
  const Shape shape{3, 1};
  Kept kept;
  {
    RunOfPieces<std::string_view> before{shape};
    kept.give_back(before.state(), zero);
    EXPECT_THAT(before.batch(1, before.context().text_batch("ebb\na flow that fits into no small string\n")),
                ElementsAre("ebb", "a flow that fits into no small string"));
    kept.take(before.state());
  }
  RunOfPieces<std::string_view> after{shape};
  kept.give_back(after.state(), at(1));
  EXPECT_THAT(after.batch(2, after.context().text_batch("tide\n")),
              ElementsAre("ebb", "a flow that fits into no small string", "tide"));
}

TEST(WindowRestart, RecordsOfNoKnownPartitionAreRefused) {
  RunOfPieces<int> run{{3, 1}};
  const auto key = [](std::uint32_t partition) { return encode(detail::PieceKey{at(1), partition}); };
  const auto value = [](std::uint32_t partitions) {
    return encode(std::tuple<std::uint32_t, bool, std::vector<int>>{partitions, false, {1}});
  };
  EXPECT_THROW(run.state().restore(0, key(2), value(2)), StateError);
  run.state().restore(0, key(0), value(2));
  EXPECT_THROW(run.state().restore(0, key(1), value(3)), StateError);
}

}  // namespace
}  // namespace tidemill::window_restart_test
