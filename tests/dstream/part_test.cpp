// A program that sees a part of its input: what needs more is refused, by name; and what lies beside other parts says which it
// is.
#include "tidemill/testing/stream_test.hpp"

namespace tidemill::part_test {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Pair = std::pair<std::string, int>;

class Part : public ::testing::Test {
 protected:
  Part() { ssc.engine()->see_part("orders-3"); }

  [[nodiscard]] DStream<Pair> pairs() { return ssc.queue_stream<Pair>(queue); }
  [[nodiscard]] DStream<Pair> whole_pairs() { return pairs().keyed_by_partition(); }

  // What `build` is told when it is refused.
  template <class Build>
  [[nodiscard]] static std::string refusal(const Build& build) {
    try {
      static_cast<void>(build());
    } catch (const PlanError& error) {
      EXPECT_EQ(error.code(), "needs_whole_input");
      return error.what();
    }
    return "nothing was refused";
  }

  Context context{{.app_name = "part", .parallelism = 1}};
  StreamingContext ssc{context, 1s};
  std::shared_ptr<BatchQueue<Pair>> queue = std::make_shared<BatchQueue<Pair>>();
};

constexpr auto keep_last = [](const std::vector<int>& values, std::optional<int> state) {
  return values.empty() ? state : std::optional{values.back()};
};
constexpr auto count_up = [](const std::string&, const std::optional<int>& value, State<int>& state) {
  if (!state.is_timing_out()) state.update(state.get_option().value_or(0) + value.value_or(0));
  return value.value_or(0);
};

TEST_F(Part, WhatNeedsAllRecordsIsRefusedByName) {
  const auto stream = whole_pairs();
  EXPECT_THAT(refusal([&] { return stream.count(); }),
              AllOf(HasSubstr("\"count\""), HasSubstr("all records"), HasSubstr("\"orders-3\"")));
  EXPECT_THAT(refusal([&] { return stream.reduce([](const Pair& a, const Pair&) { return a; }); }),
              HasSubstr("\"reduce\""));
  EXPECT_THAT(refusal([&] { return stream.count_by_value(); }), HasSubstr("\"count_by_value\""));
  EXPECT_THAT(refusal([&] { return stream.count_by_window(2s); }), HasSubstr("\"count_by_window\""));
  EXPECT_THAT(refusal([&] { return stream.count_by_value_and_window(2s); }),
              HasSubstr("\"count_by_value_and_window\""));
  EXPECT_THAT(refusal([&] { return stream.reduce_by_window([](const Pair& a, const Pair&) { return a; }, 2s); }),
              HasSubstr("\"reduce_by_window\""));
}

TEST_F(Part, WhatWorksByKeyIsRefusedUntilKeysAreSaidToBeWhole) {
  const auto refused_before = [&](const char* op, const auto& build) {
    EXPECT_THAT(
        refusal([&] { return build(pairs()); }),
        AllOf(HasSubstr('"' + std::string{op} + '"'), HasSubstr("of a key"), HasSubstr("keyed_by_partition()")));
    EXPECT_NO_THROW(static_cast<void>(build(whole_pairs()))) << op;
  };
  const auto plus = std::plus<>{};
  refused_before("reduce_by_key", [&](const auto& s) { return s.reduce_by_key(plus); });
  refused_before("combine_by_key",
                 [&](const auto& s) { return s.combine_by_key([](int v) { return v; }, plus, plus); });
  refused_before("group_by_key", [&](const auto& s) { return s.group_by_key(); });
  refused_before("join", [&](const auto& s) { return s.join(s); });
  refused_before("left_outer_join", [&](const auto& s) { return s.left_outer_join(s); });
  refused_before("right_outer_join", [&](const auto& s) { return s.right_outer_join(s); });
  refused_before("full_outer_join", [&](const auto& s) { return s.full_outer_join(s); });
  refused_before("cogroup", [&](const auto& s) { return s.cogroup(s); });
  refused_before("group_by_key_and_window", [&](const auto& s) { return s.group_by_key_and_window(2s); });
  refused_before("reduce_by_key_and_window", [&](const auto& s) { return s.reduce_by_key_and_window(plus, 2s); });
  refused_before("reduce_by_key_and_window",
                 [&](const auto& s) { return s.reduce_by_key_and_window(plus, std::minus<>{}, 2s); });
  refused_before("update_state_by_key", [&](const auto& s) { return s.template update_state_by_key<int>(keep_last); });
  refused_before("map_with_state", [&](const auto& s) { return s.map_with_state(state_spec<int>(count_up)); });
}

TEST_F(Part, BothSidesOfAJoinHaveToBeWhole) {
  EXPECT_THAT(refusal([&] { return whole_pairs().join(pairs()); }), HasSubstr("\"join\""));
  EXPECT_THAT(refusal([&] { return whole_pairs().union_with(pairs()).group_by_key(); }), HasSubstr("\"group_by_key\""));
  EXPECT_NO_THROW(static_cast<void>(whole_pairs().union_with(whole_pairs()).group_by_key()));
}

TEST_F(Part, KeysStayWholeWhereOperatorsLeaveThemAlone) {
  const auto whole = [](const auto& stream) { static_cast<void>(stream.group_by_key()); };
  EXPECT_NO_THROW(whole(whole_pairs().map_values([](int v) { return v + 1; })));
  EXPECT_NO_THROW(whole(whole_pairs().flat_map_values([](int v) { return std::vector{v, v}; })));
  EXPECT_NO_THROW(whole(whole_pairs().filter([](const Pair& p) { return p.second > 0; })));
  EXPECT_NO_THROW(whole(whole_pairs().cache()));
  EXPECT_NO_THROW(whole(whole_pairs().repartition(2)));
  EXPECT_NO_THROW(whole(whole_pairs().window(2s)));
  EXPECT_NO_THROW(whole(whole_pairs().reduce_by_key(std::plus<>{})));
  EXPECT_NO_THROW(whole(whole_pairs().update_state_by_key<int>(keep_last)));
  EXPECT_NO_THROW(whole(whole_pairs().map_with_state(state_spec<int>(count_up)).state_snapshots()));
  EXPECT_NO_THROW(whole(DStream<Pair>{whole_pairs().map_values([](int v) { return v; })}));
}

TEST_F(Part, KeysAreNotWholeAnyMoreWhereOperatorsMayChangeThem) {
  const auto refused = [&](const auto& stream) {
    EXPECT_THAT(refusal([&] { return stream.group_by_key(); }), HasSubstr("\"group_by_key\""));
  };
  const auto other = [](const Pair& p) { return Pair{"x", p.second}; };
  refused(whole_pairs().map(other));
  refused(DStream<Pair>{whole_pairs().map(other)});
  refused(whole_pairs().flat_map([](const Pair& p) { return std::vector{p}; }));
  refused(whole_pairs().key_by([](const Pair& p) { return p.second; }));
  refused(whole_pairs().transform([](const Batch<Pair>& batch) { return batch; }));
  refused(whole_pairs().map_with_state(
      state_spec<int>([](const std::string& key, const std::optional<int>& value, State<int>&) {
        return Pair{key, value.value_or(0)};
      })));
}

TEST_F(Part, TheNameOfAStateIsTheSameAsInAProgramThatSeesEverything) {
  const auto state = whole_pairs().update_state_by_key<int>(keep_last);
  EXPECT_EQ(state.node().name(), "queue.update_state_by_key");
}

TEST(WholeInput, KeyedByPartitionChangesNothing) {
  const Context context{{.app_name = "whole", .parallelism = 2}};
  StreamingContext ssc{context, 1s};
  const auto queue = std::make_shared<BatchQueue<Pair>>();
  const auto stream = ssc.queue_stream<Pair>(queue);
  EXPECT_NO_THROW(static_cast<void>(stream.count()));
  EXPECT_NO_THROW(static_cast<void>(stream.group_by_key()));
  EXPECT_NO_THROW(static_cast<void>(stream.keyed_by_partition().map([](const Pair& p) { return p; }).group_by_key()));
}

TEST_F(Part, FilesSayWhichPartTheyAreOf) {
  EXPECT_EQ(detail::output_path("out", "", "txt", Time{5s}), "out-5000.txt");
  EXPECT_EQ(detail::output_path("out", "orders-3", "txt", Time{5s}), "out-orders-3-5000.txt");
}

}  // namespace
}  // namespace tidemill::part_test
