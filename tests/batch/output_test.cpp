// Batches as directories of files, and back.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <unistd.h>

#include "batch/batches.hpp"

struct Point {
  int x;
  std::string label;
  friend bool operator==(const Point&, const Point&) = default;
};

namespace fussy {
struct Word {
  std::string text;
};
inline std::string to_text(const Word& word) {
  if (word.text == "bad") throw std::runtime_error{"boom"};
  return word.text;
}
}  // namespace fussy

namespace tidemill {
namespace {

using namespace testing_batches;
namespace fs = std::filesystem;

class Output : public ::testing::Test {
 protected:
  Output()
      : directory{fs::temp_directory_path() / ("tidemill-output-" + std::to_string(::getpid()) + "-" +
                                               ::testing::UnitTest::GetInstance()->current_test_info()->name())} {
    fs::remove_all(directory);
    fs::create_directories(directory);
  }
  ~Output() override { fs::remove_all(directory); }

  static std::string text_of_file(const fs::path& path) {
    std::ifstream in{path};
    return {std::istreambuf_iterator<char>{in}, {}};
  }
  const fs::path directory;
};

TEST_F(Output, TextHasALineForEachRecordAndAFileForEachPartition) {
  const auto pairs =
      four_threads().parallelize(std::vector<std::pair<std::string, int>>{{"a", 1}, {"b", 2}, {"c", 3}}, 2);
  pairs.save_as_text_file(directory / "out");
  EXPECT_EQ(text_of_file(directory / "out" / "part-00000"), "(a,1)\n(b,2)\n");
  EXPECT_EQ(text_of_file(directory / "out" / "part-00001"), "(c,3)\n");
  EXPECT_TRUE(fs::exists(directory / "out" / "_SUCCESS"));
}

TEST_F(Output, IsReplacedByARunAgain) {
  const Context context = four_threads();
  context.parallelize(numbers(9), 3).save_as_text_file(directory / "out");
  context.parallelize(numbers(2), 1).save_as_text_file(directory / "out");
  EXPECT_EQ(text_of_file(directory / "out" / "part-00000"), "0\n1\n");
  EXPECT_FALSE(fs::exists(directory / "out" / "part-00001"));
}

TEST_F(Output, OfAnEmptyBatchIsAnEmptyPart) {
  four_threads().empty_batch<int>().save_as_text_file(directory / "out");
  EXPECT_EQ(text_of_file(directory / "out" / "part-00000"), "");
}

TEST_F(Output, DoesNotAppearWhenAFunctionThrows) {
  const auto bad = four_threads().parallelize(numbers(4), 2).map(BoomAt{3});
  expect_user_error([&] { bad.save_as_text_file(directory / "out"); }, "map", 1);
  expect_user_error([&] { bad.save_as_object_file(directory / "out"); }, "map", 1);
  const auto words = four_threads().parallelize(std::vector<fussy::Word>{{"good"}, {"bad"}}, 2);
  expect_user_error([&] { words.save_as_text_file(directory / "out"); }, "save_as_text_file", 1);
  EXPECT_TRUE(fs::is_empty(directory)) << "nothing is left behind";
}

TEST_F(Output, ToWhereNothingCanBeWrittenIsASinkError) {
  std::ofstream{directory / "file"} << "in the way";
  EXPECT_THROW(four_threads().parallelize(numbers(4), 2).save_as_text_file(directory / "file" / "out"), SinkError);
}

TEST_F(Output, ObjectFilesComeBackAsTheyWere) {
  const Context context = four_threads();
  std::vector<Point> points;
  for (int i = 0; i < 20000; ++i) points.push_back({i, "point number " + std::to_string(i)});
  for (const std::size_t n : partition_counts) {
    context.parallelize(points, n).save_as_object_file(directory / "out");
    const auto back = context.object_file<Point>(directory / "out");
    EXPECT_EQ(back.num_partitions(), n);
    EXPECT_EQ(back.collect(), points);
  }
}

TEST_F(Output, ViewsComeBackAsViewsThatLiveAsLongAsTheBatch) {
  const Context context = four_threads();
  context.parallelize(numbers(5000), 2)
      .map([](int i) { return "text that needs memory of its own " + std::to_string(i % 100); })
      .map([](const std::string& s) { return std::string_view{s}; })
      .save_as_object_file(directory / "out");
  const auto counts = context.object_file<std::string_view>(directory / "out")
                          .map([](std::string_view s) {
                            return std::pair{s, 1};
                          })
                          .reduce_by_key(std::plus<>{});
  EXPECT_EQ(counts.count(), 100u);
  for (const auto& [text, count] : counts.collect()) {
    EXPECT_TRUE(text.starts_with("text that needs memory"));
    EXPECT_EQ(count, 50);
  }
  const auto lazy = context.object_file<std::string_view>(directory / "out");
  fs::remove_all(directory / "out");
  EXPECT_THROW((void)lazy.count(), SourceError) << "read when an action needs it";
}

TEST_F(Output, ObjectFilesThatAreMissingOrDamagedAreSourceErrors) {
  const Context context = four_threads();
  EXPECT_THROW((void)context.object_file<int>(directory / "absent").count(), SourceError);
  context.parallelize(numbers(100), 1).save_as_object_file(directory / "out");
  {
    std::fstream file{directory / "out" / "part-00000", std::ios::in | std::ios::out};
    file.seekp(60);
    file.put('#');
  }
  try {
    (void)context.object_file<int>(directory / "out").count();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const SourceError& error) {
    EXPECT_NE(std::string{error.what()}.find("part-00000"), std::string::npos);
  }
}

}  // namespace
}  // namespace tidemill
