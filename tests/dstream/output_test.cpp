// print and save_…: what they write, and where. SEMANTICS M12, M13.
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <unistd.h>

#include "dstream/streams.hpp"

namespace tidemill {
namespace {

using namespace testing_streams;
namespace fs = std::filesystem;

const std::string rule = "-------------------------------------------\n";  // 43, as Spark's

TEST(Print, HasSparksForm) {  // M12
  StreamTest<std::string> test;
  test.input().print();
  test.step({"a", "b"});
  test.step();
  EXPECT_EQ(rule.size(), 44u);
  EXPECT_EQ(test.printed(), rule + "Time: 1001000 ms\n" + rule + "a\nb\n\n" +  //
                                rule + "Time: 1002000 ms\n" + rule + "\n");
}

TEST(Print, ShowsTenRecordsAndSaysWhenThereAreMore) {  // M12
  StreamTest<int> test;
  test.input().print();
  test.step({1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  test.step({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  EXPECT_EQ(test.printed(), rule + "Time: 1001000 ms\n" + rule + "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n\n" +  //
                                rule + "Time: 1002000 ms\n" + rule + "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n...\n\n");
}

TEST(Print, ShowsAsManyAsItIsTold) {  // M12
  StreamTest<std::pair<std::string, int>> test;
  std::ostringstream none;
  std::ostringstream one;
  std::ostringstream all;
  test.input().print(none, 0);
  test.input().print(one, 1);
  test.input().print(all, std::numeric_limits<std::size_t>::max());
  test.step({{"a", 1}, {"b", 2}});
  const std::string header = rule + "Time: 1001000 ms\n" + rule;
  EXPECT_EQ(none.str(), header + "...\n\n");
  EXPECT_EQ(one.str(), header + "(a,1)\n...\n\n");
  EXPECT_EQ(all.str(), header + "(a,1)\n(b,2)\n\n");
}

TEST(Print, ShowsTheTimeOfABatchBetweenTwoMilliseconds) {
  StreamTest<int> test{250us};
  test.input().print();
  test.step();
  EXPECT_THAT(test.printed(), HasSubstr("Time: 1000000.250 ms\n"));
}

TEST(Print, ThatCannotWriteFailsTheBatchAndTriesAgain) {
  StreamTest<int> test;
  std::ostringstream out;
  test.input().print(out);
  out.setstate(std::ios::badbit);
  EXPECT_THROW(test.step({1}), SinkError);
  test.step({2});
  EXPECT_THAT(out.str(), HasSubstr("Time: 1002000 ms\n"));
}

TEST(Print, GoesToTheStandardOutputUnlessToldOtherwise) {  // M12
  const auto clock = std::make_shared<ManualClock>();
  const Context context{{.app_name = "print", .parallelism = 1, .executor = nullptr, .clock = clock, .log = nullptr}};
  StreamingContext ssc{context, 1s};
  ssc.queue_stream(std::make_shared<BatchQueue<int>>()).print();
  ssc.start(Drive::by_host);
  clock->advance(1s);
  ::testing::internal::CaptureStdout();
  ssc.step();
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), rule + "Time: 1001000 ms\n" + rule + "\n");
}

// A directory that goes with the test.
class Save : public ::testing::Test {
 protected:
  Save()
      : directory{fs::temp_directory_path() / ("tidemill-save-" + std::to_string(getpid()) + '-' +
                                               ::testing::UnitTest::GetInstance()->current_test_info()->name())} {
    fs::remove_all(directory);
    fs::create_directories(directory);
  }
  ~Save() override { fs::remove_all(directory); }

  [[nodiscard]] std::string prefix(const std::string& name) const { return (directory / name).string(); }
  [[nodiscard]] std::vector<std::string> entries() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator{directory}) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }
  const fs::path directory;
};

template <class T>
std::vector<std::string> lines_of(const Context& context, const T& path) {
  return context.text_file(path).collect();
}

TEST_F(Save, TextFilesGoIntoADirectoryForEachBatch) {  // M13
  StreamTest<std::pair<std::string, int>> test;
  test.input().save_as_text_files(prefix("plain"));
  test.input().save_as_text_files(prefix("with"), "txt");
  test.step({{"a", 1}, {"b", 2}});
  test.step();
  EXPECT_THAT(entries(), ElementsAre("plain-1001000", "plain-1002000", "with-1001000.txt", "with-1002000.txt"));
  EXPECT_THAT(lines_of(test.context(), prefix("plain-1001000")), ElementsAre("(a,1)", "(b,2)"));
  EXPECT_THAT(lines_of(test.context(), prefix("with-1001000.txt")), ElementsAre("(a,1)", "(b,2)"));
  EXPECT_THAT(lines_of(test.context(), prefix("plain-1002000")), ::testing::IsEmpty())
      << "an empty batch is published too";
}

TEST_F(Save, BatchesOfLessThanAMillisecondHaveDirectoriesOfTheirOwn) {  // M13
  StreamTest<int> test{250us};
  test.input().save_as_text_files(prefix("fine"), "txt");
  for (int i = 0; i < 4; ++i) test.step({i});
  EXPECT_THAT(entries(),
              ElementsAre("fine-1000000_250.txt", "fine-1000000_500.txt", "fine-1000000_750.txt", "fine-1000001.txt"));
}

TEST_F(Save, ABatchThatIsRunAgainReplacesItsDirectory) {  // M13
  for (const char* text : {"a first attempt", "the second"}) {
    StreamTest<std::string> test;
    test.input().save_as_text_files(prefix("again"));
    test.step({text});
    EXPECT_THAT(lines_of(test.context(), prefix("again-1001000")), ElementsAre(text));
  }
  EXPECT_THAT(entries(), ElementsAre("again-1001000"));
}

TEST_F(Save, ObjectFilesGiveTheRecordsBack) {  // M13
  StreamTest<std::pair<std::string, int>> test;
  test.input().save_as_object_files(prefix("objects"), "bin");
  const std::vector<std::pair<std::string, int>> records{{"a", 1}, {"b", 2}};
  test.step(records);
  const auto back = test.context().object_file<std::pair<std::string, int>>(prefix("objects-1001000.bin"));
  EXPECT_EQ(back.collect(), records);
}

TEST_F(Save, ABatchThatFailsLeavesNothingBehind) {  // M13: whole or not at all
  StreamTest<int> test;
  test.input()
      .map([](int i) { return i == 3 ? throw std::runtime_error{"boom"} : i; })
      .save_as_text_files(prefix("fails"));
  EXPECT_THROW(test.step({1, 2, 3}), UserCodeError);
  EXPECT_THAT(entries(), ::testing::IsEmpty());
  test.step({4});
  EXPECT_THAT(entries(), ElementsAre("fails-1002000"));
}

TEST_F(Save, WhereNothingCanBeWrittenTheBatchFailsAndTheStreamGoesOn) {  // M13
  std::ofstream{directory / "file"} << "not a directory";
  StreamTest<int> test;
  test.input().save_as_text_files(prefix("file") + "/below");
  const auto seen = test.collect(test.input());
  EXPECT_THROW(test.step({1}), SinkError);
  EXPECT_THROW(test.step({2}), SinkError);
  EXPECT_EQ(seen->size(), 2u);
}

}  // namespace
}  // namespace tidemill
