// States that go on after a restart as if there had been none, wherever the run was cut: states, timeouts that fall due right
// after it, the order of results. The changes of each batch go into a map, from which another graph is filled.
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>

#include "dstream/streams.hpp"
#include "tidemill/dstream/detail/map_with_state.hpp"
#include "tidemill/dstream/detail/update_state.hpp"
#include "tidemill/dstream/dstream.hpp"
#include "tidemill/testing/tape.hpp"

namespace tidemill::state_restart_test {
namespace {

using namespace testing_streams;
using Pair = std::pair<std::string, int>;
using Total = std::pair<std::string, double>;

// What a checkpoint keeps of one state.
class Kept {
 public:
  // Returns how many entries changed.
  std::size_t take(DurableState& state) {
    StateChanges changes;
    state.take_changes(changes);
    const std::string taken = changes.bytes();
    Decoder from{std::as_bytes(std::span{taken})};
    std::size_t count = 0;
    for (; from.remaining() != 0; ++count) {
      const bool put = from.fixed<std::uint8_t>() == 1;
      const auto group = from.fixed<KeyGroup>();
      const std::string key = bytes(from);
      if (put) {
        entries_[key] = {group, bytes(from)};
      } else {
        entries_.erase(key);
      }
    }
    return count;
  }
  void give_back(DurableState& state, Time last) const {
    state.track_changes();
    for (const auto& [key, entry] : entries_) state.restore(entry.first, key, entry.second);
    state.restored(last);
  }
  [[nodiscard]] const auto& entries() const { return entries_; }

 private:
  static std::string bytes(Decoder& from) {
    const auto taken = from.bytes(from.fixed<std::uint32_t>(), "bytes");
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }
  std::map<std::string, std::pair<KeyGroup, std::string>> entries_;
};

const Context context{{.app_name = "test", .parallelism = 1}};
Batch<Pair> batch_of(const std::vector<Pair>& records) { return context.parallelize(records, 2); }

// A run of map_with_state below the stream: the same steps, without an engine.
class Sums {
 public:
  struct Function {
    std::optional<Total> operator()(std::string_view key, std::optional<int> v, State<double>& s) const {
      if (s.is_timing_out()) return Total{std::string{key}, -s.get()};
      if (*v == 0) {
        s.remove();
        return std::nullopt;
      }
      if (*v != 1) s.update(s.get_option().value_or(0.1) * 1.1 + *v);  // 1 only touches
      return s.exists() ? std::optional{Total{std::string{key}, s.get()}} : std::nullopt;
    }
  };
  using Store = KeyedStore<std::string, double>;
  using Steps = detail::MapWithStateSteps<Batch<Pair>, double, Function, InitialState<std::string, double>>;

  explicit Sums(std::size_t partitions)
      : store{std::make_shared<Store>(partitions, true)},
        steps{store, {}, std::vector<Total>{{"initial", 5}}, {.idle = 3s}},
        durable{store, context.runtime()->executor, "map_with_state", {}} {}

  std::vector<Total> batch(Time t, const std::vector<Pair>& records) {
    steps.owe(t);
    const auto step = steps.prepare(t, [&](Time) { return batch_of(records); });
    steps.settle(t);
    std::vector<Total> all;
    for (const auto& part : step->result.parts) all.insert(all.end(), part.begin(), part.end());
    return all;
  }

  std::shared_ptr<Store> store;
  Steps steps;
  DurableKeyedStore<std::string, double, SavedTouch::yes> durable;
};

std::vector<std::vector<Pair>> random_batches(unsigned seed, int count) {
  std::mt19937 random{seed};
  std::vector<std::vector<Pair>> batches(static_cast<std::size_t>(count));
  for (auto& batch : batches) {
    batch.resize(random() % 3 == 0 ? 0 : random() % 10);
    for (auto& [key, value] : batch) {
      key = "key number " + std::to_string(random() % 15);
      value = static_cast<int>(random() % 6);
    }
  }
  return batches;
}

TEST(MapWithStateRestart, ContinuesExactlyWhereverItIsCut) {
  constexpr int count = 24;
  for (unsigned seed = 1; seed <= 8; ++seed) {
    const auto batches = random_batches(seed, count);
    Sums whole{3};
    std::vector<std::vector<Total>> expected;
    for (int i = 0; i < count; ++i)
      expected.push_back(whole.batch(batch_time(i), batches[static_cast<std::size_t>(i)]));
    for (int cut = 0; cut < count; ++cut) {
      Kept kept;
      Sums before{3};
      before.durable.track_changes();
      for (int i = 0; i < cut; ++i) {
        static_cast<void>(before.batch(batch_time(i), batches[static_cast<std::size_t>(i)]));
        kept.take(before.durable);
      }
      EXPECT_EQ(kept.entries().size(), before.store->size());
      Sums after{3};
      if (cut != 0) kept.give_back(after.durable, batch_time(cut - 1));
      for (int i = cut; i < count; ++i) {
        ASSERT_EQ(after.batch(batch_time(i), batches[static_cast<std::size_t>(i)]),
                  expected[static_cast<std::size_t>(i)])
            << "seed " << seed << ", cut at " << cut << ", batch " << i;
      }
      EXPECT_EQ(after.store->size(), whole.store->size());
    }
  }
}

TEST(MapWithStateRestart, TheNumberOfPartitionsMayChange) {
  const auto batches = random_batches(99, 30);
  Sums whole{1};
  Sums before{5};
  before.durable.track_changes();
  Kept kept;
  for (int i = 0; i < 15; ++i) {
    whole.batch(batch_time(i), batches[static_cast<std::size_t>(i)]);
    before.batch(batch_time(i), batches[static_cast<std::size_t>(i)]);
    kept.take(before.durable);
  }
  Sums after{2};
  kept.give_back(after.durable, batch_time(14));
  for (int i = 15; i < 30; ++i) {
    const auto expected = whole.batch(batch_time(i), batches[static_cast<std::size_t>(i)]);
    EXPECT_THAT(after.batch(batch_time(i), batches[static_cast<std::size_t>(i)]),
                ::testing::UnorderedElementsAreArray(expected));
  }
}

//   a touched at 0, idle 3 s: due in the batch of 4   |  the run is cut after 3
TEST(MapWithStateRestart, ATimeoutThatFallsDueRightAfterItComesInTime) {
  Kept kept;
  Sums before{2};
  before.durable.track_changes();
  for (int i = 0; i < 4; ++i) {
    EXPECT_TRUE(
        before.batch(batch_time(i), i == 0 ? std::vector<Pair>{{"a", 2}, {"b", 2}} : std::vector<Pair>{{"b", 1}})
            .size() <= 2);
    kept.take(before.durable);
  }
  Sums after{2};
  kept.give_back(after.durable, batch_time(3));
  const auto due = after.batch(batch_time(4), {});
  EXPECT_THAT(
      due, ::testing::UnorderedElementsAre(::testing::Pair("a", -(0.1 * 1.1 + 2)), ::testing::Pair("initial", -5.0)));
  EXPECT_EQ(after.store->size(), 1u) << "b was touched at 3, by a record that changed nothing";
}

TEST(MapWithStateRestart, ABatchWritesTheKeysThatItTouchedAndNoOthers) {
  Sums sums{2};
  sums.durable.track_changes();
  Kept kept;
  sums.batch(batch_time(0), {{"a", 2}, {"b", 2}, {"c", 2}});
  EXPECT_EQ(kept.take(sums.durable), 4u) << "with the initial one";
  sums.batch(batch_time(1), {{"a", 2}, {"a", 3}, {"b", 1}});
  EXPECT_EQ(kept.take(sums.durable), 2u) << "b has another last touch";
  sums.batch(batch_time(2), {{"c", 0}});
  EXPECT_GE(kept.take(sums.durable), 1u);
  EXPECT_EQ(kept.entries().size(), 3u);
  EXPECT_EQ(kept.take(sums.durable), 0u);
}

TEST(MapWithStateRestart, AFailedStepHasNoChanges) {
  Sums sums{1};
  sums.durable.track_changes();
  Kept kept;
  sums.batch(batch_time(0), {{"a", 2}});
  kept.take(sums.durable);
  const auto throwing =
      context.parallelize(std::vector<Pair>{{"a", 3}, {"x", 3}, {"y", 0}}, 1).map([](const Pair& pair) {
        if (pair.first == "y") throw std::runtime_error{"boom"};
        return pair;
      });
  sums.steps.owe(batch_time(1));
  static_cast<void>(sums.steps.prepare(batch_time(1), [&](Time) { return Batch<Pair>{throwing}; }));
  EXPECT_THROW(sums.steps.settle(batch_time(1)), UserCodeError);
  EXPECT_EQ(kept.take(sums.durable), 0u);
  EXPECT_EQ(sums.store->size(), 2u);
}

TEST(MapWithStateRestart, DamagedEntriesAreNoticed) {
  Sums sums{1};
  EXPECT_THROW(sums.durable.restore(0, "\x01", encode(std::pair{Time{}, 1.0})), StateError);
  EXPECT_THROW(sums.durable.restore(0, encode(std::string{"a"}), "xyz"), StateError);
  sums.durable.restore(0, encode(std::string{"a"}), encode(std::pair{Time{}, 1.0}));
  sums.durable.restore(0, encode(std::string{"a"}), encode(std::pair{Time{}, 1.0}));
  EXPECT_THROW(sums.durable.restored(batch_time(0)), StateError);
}

// A run of update_state_by_key, likewise.
class Averages {
 public:
  struct Function {
    std::optional<double> operator()(const std::vector<int>& values, std::optional<double> s) const {
      for (const int v : values) s = s.value_or(0) * 0.9 + v;
      return s && *s > 12 ? std::nullopt : s;
    }
  };
  struct Group {
    std::shared_ptr<const Partitioner<std::string>> partitioner;
    auto operator()(const Batch<Pair>& batch) const {
      return batch.combine_by_key(detail::StartGroup<int>{}, detail::AppendToGroup<int>{}, detail::JoinGroups<int>{},
                                  partitioner);
    }
  };
  using Store = KeyedStore<std::string, double>;
  using Steps = detail::UpdateStateSteps<std::string, int, double, Function, NoInitialState, Group>;

  explicit Averages(std::size_t partitions)
      : store{std::make_shared<Store>(partitions, false)},
        steps{store, {}, {}, Group{std::make_shared<const HashPartitioner<std::string>>(partitions)}},
        durable{store, context.runtime()->executor, "update_state_by_key", {}} {}

  std::vector<Total> batch(Time t, const std::vector<Pair>& records) {
    steps.owe(t);
    const auto step = steps.prepare(t, [&](Time) { return steps.input(batch_of(records)); });
    steps.settle(t);
    std::vector<std::vector<Total>> parts(store->partitions());
    std::vector<Arena> arenas(parts.size());
    steps.show(*step, *batch_of({}).node().scope(), parts, arenas);
    std::vector<Total> all;
    for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
  }

  std::shared_ptr<Store> store;
  Steps steps;
  DurableKeyedStore<std::string, double, SavedTouch::no> durable;
};

TEST(UpdateStateRestart, ContinuesExactlyWhereverItIsCutInTheSameOrder) {
  constexpr int count = 20;
  for (unsigned seed = 1; seed <= 5; ++seed) {
    const auto batches = random_batches(seed, count);
    Averages whole{3};
    std::vector<std::vector<Total>> expected;
    for (int i = 0; i < count; ++i)
      expected.push_back(whole.batch(batch_time(i), batches[static_cast<std::size_t>(i)]));
    for (int cut = 1; cut < count; ++cut) {
      Kept kept;
      Averages before{3};
      before.durable.track_changes();
      for (int i = 0; i < cut; ++i) {
        static_cast<void>(before.batch(batch_time(i), batches[static_cast<std::size_t>(i)]));
        kept.take(before.durable);
      }
      Averages after{3};
      kept.give_back(after.durable, batch_time(cut - 1));
      for (int i = cut; i < count; ++i) {
        ASSERT_EQ(after.batch(batch_time(i), batches[static_cast<std::size_t>(i)]),
                  expected[static_cast<std::size_t>(i)])
            << "seed " << seed << ", cut at " << cut << ", batch " << i;
      }
    }
  }
}

TEST(UpdateStateRestart, KeysWhoseStateIsEqualAreNotWritten) {
  Averages averages{1};
  averages.durable.track_changes();
  Kept kept;
  averages.batch(batch_time(0), {{"a", 1}, {"b", 2}, {"c", 3}});
  EXPECT_EQ(kept.take(averages.durable), 3u);
  averages.batch(batch_time(1), {{"b", 1}});
  EXPECT_EQ(kept.take(averages.durable), 1u);
  averages.batch(batch_time(2), {});
  EXPECT_EQ(kept.take(averages.durable), 0u);
}

// ---- the whole way: through a checkpoint directory ----------------------------------------------------------------------

class StateCheckpoint : public ::testing::Test {
 protected:
  StateCheckpoint() {
    std::string name = (std::filesystem::temp_directory_path() / "tidemill-state-XXXXXX").string();
    root_ = ::mkdtemp(name.data());
  }
  ~StateCheckpoint() override {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  [[nodiscard]] std::filesystem::path dir() const { return root_ / "checkpoint"; }

 private:
  std::filesystem::path root_;
};

TEST_F(StateCheckpoint, StatesAndTimeoutsGoOnWithAnotherNumberOfPartitions) {
  const auto clock = std::make_shared<ManualClock>(Time{1000s});
  testing::Tape<Pair> tape;
  std::vector<std::vector<std::pair<std::string, long>>> ended, all;
  const auto run = [&](std::size_t partitions, int batches, const std::vector<Pair>& records) {
    const Context surroundings{
        {.app_name = "test", .parallelism = 1, .executor = nullptr, .clock = clock, .log = nullptr}};
    const auto ssc = StreamingContext::get_or_create(dir(), [&] {
      auto fresh = std::make_unique<StreamingContext>(surroundings, 1s);
      const auto input = tape.stream(*fresh);
      input
          .map_with_state(state_spec<long>([](std::string_view key, std::optional<int> v,
                                              State<long>& s) -> std::optional<std::pair<std::string, long>> {
                            if (s.is_timing_out()) return std::pair{std::string{key}, s.get()};
                            s.update(s.get_option().value_or(0) + *v);
                            return std::nullopt;
                          })
                              .timeout(3s)
                              .num_partitions(partitions))
          .foreach_batch([&](const auto& batch) { ended.push_back(batch.collect()); });
      input
          .update_state_by_key<long>(
              [](const std::vector<int>& values, const long* sum) -> std::optional<long> {
                return std::accumulate(values.begin(), values.end(), sum == nullptr ? 0L : *sum);
              },
              partitions)
          .foreach_batch([&](const auto& batch) { all.push_back(batch.collect()); });
      return fresh;
    });
    ssc->start(Drive::by_host);
    tape.write(records);
    for (int i = 0; i < batches; ++i) {
      clock->advance(1s);
      while (ssc->step()) {
      }
    }
  };
  run(3, 2, {{"a", 1}, {"b", 2}});  // batches at 1001, 1002
  run(1, 2, {{"b", 5}});            // at 1003, 1004
  run(2, 4, {});                    // at 1005 … 1008
  using Ended = std::vector<std::pair<std::string, long>>;
  EXPECT_EQ(ended, (std::vector<Ended>{{}, {}, {}, {}, {{"a", 1}}, {}, {{"b", 7}}, {}}));
  ASSERT_EQ(all.size(), 8u);
  EXPECT_THAT(all[1], ::testing::UnorderedElementsAre(::testing::Pair("a", 1), ::testing::Pair("b", 2)));
  EXPECT_THAT(all[7], ::testing::UnorderedElementsAre(::testing::Pair("a", 1), ::testing::Pair("b", 7)));
}

TEST_F(StateCheckpoint, AStateWithoutACodecIsRefusedByName) {
  struct Opaque {
    explicit Opaque(int v) : value{v} {}
    int value;
  };
  StreamTest<Pair> test;
  const auto stream = test.input().map_with_state(
      state_spec<Opaque>([](std::string_view, std::optional<int> v, State<Opaque>& s) { s.update(Opaque{*v}); }));
  stream.name("opaque").foreach_batch([](const auto&) {});
  test.streaming().checkpoint(dir());
  try {
    test.streaming().start(Drive::by_host);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const PlanError& error) {
    EXPECT_EQ(error.code(), "not_encodable");
    EXPECT_THAT(error.what(), HasSubstr("opaque"));
    EXPECT_THAT(error.what(), HasSubstr("codec"));
  }
}

}  // namespace
}  // namespace tidemill::state_restart_test
