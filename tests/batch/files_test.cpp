// Batches over files: lines and binary records, and files that are not what they should be.
#include "tidemill/batch/files.hpp"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tidemill/core/error.hpp"

namespace tidemill {
namespace {

namespace fs = std::filesystem;
using detail::binary_records_batch;
using detail::text_files_batch;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

class Files : public ::testing::Test {
 protected:
  Files() {
    std::string name = (fs::temp_directory_path() / "tidemill-files-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~Files() override {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }

  fs::path put(const std::string& name, std::string_view text) const {
    fs::create_directories((path_ / name).parent_path());
    std::ofstream{path_ / name, std::ios::binary} << text;
    return path_ / name;
  }
  [[nodiscard]] std::shared_ptr<const detail::Scope> scope() const {
    return std::make_shared<const detail::Scope>(detail::Scope{context_.runtime(), Time{std::chrono::seconds{1}}});
  }
  template <class T>
  static std::string code_of(const Batch<T>& batch, std::string* message = nullptr) {
    try {
      static_cast<void>(batch.collect());
    } catch (const SourceError& error) {
      if (message != nullptr) *message = error.what();
      EXPECT_EQ(error.context().batch_time, Time{std::chrono::seconds{1}});
      return error.code();
    }
    return "";
  }

  const Context context_{{.parallelism = 3}};
  fs::path path_;
};

TEST_F(Files, GiveTheirLinesInOrderWithoutTheirEnds) {
  const auto batch = context_.text_file(put("book.txt", "one\r\n\ntwo\nlast"));
  EXPECT_THAT(batch.collect(), ElementsAre("one", "", "two", "last"));
  EXPECT_EQ(batch.count(), 4U);
}

TEST_F(Files, AreReadOneAfterTheOtherAndALastLineEndsWithItsFile) {
  const auto batch = text_files_batch(scope(), {put("b", "b1\nb2"), put("a", "a1"), put("empty", ""), put("c", "\n")});
  EXPECT_THAT(batch.collect(), ElementsAre("b1", "b2", "a1", ""));
}

TEST_F(Files, OfADirectoryAreReadInOrderOfNameWithoutTheHiddenOnes) {
  put("out/part-00001", "c\n");
  put("out/part-00000", "a\nb\n");
  put("out/_SUCCESS", "no\n");
  put("out/.crc", "no\n");
  put("out/below/deep", "no\n");
  EXPECT_THAT(context_.text_file(path_ / "out").collect(), ElementsAre("a", "b", "c"));
}

TEST_F(Files, LargeOnesAreCutIntoPartitionsAtLineEnds) {
  std::string text;
  std::vector<std::string> expected;
  for (int i = 0; text.size() < 9'000'000; ++i) {
    expected.push_back("line number " + std::to_string(i) + std::string(static_cast<std::size_t>(i % 50), '.'));
    text += expected.back() + (i % 3 == 0 ? "\r\n" : "\n");
  }
  const auto batch = context_.text_file(put("large", text), 4);
  EXPECT_EQ(batch.num_partitions(), 4U);
  EXPECT_EQ(batch.collect(), expected);
  std::atomic<int> partitions_with_lines = 0;
  batch.foreach_partition(
      [&](std::span<const std::string_view> lines) { partitions_with_lines += lines.empty() ? 0 : 1; });
  EXPECT_EQ(partitions_with_lines, 4);
}

TEST_F(Files, AreReadOnceWhenAnActionNeedsThemAndNotBefore) {
  const fs::path file = path_ / "later";
  const auto batch = context_.text_file(file);
  const auto lengths = batch.map([](std::string_view line) { return line.size(); });
  put("later", "a\nbb\n");
  EXPECT_THAT(lengths.collect(), ElementsAre(1U, 2U));
  put("later", "changed\n");
  fs::remove(file);
  EXPECT_THAT(batch.collect(), ElementsAre("a", "bb"));
}

TEST_F(Files, NoneAtAllGiveABatchWithoutRecords) {
  EXPECT_THAT(text_files_batch(scope(), {}).collect(), IsEmpty());
  EXPECT_THAT(binary_records_batch(scope(), {}, 4).collect(), IsEmpty());
}

TEST_F(Files, ThatAreNotThereFailTheActionAndMayBeThereNextTime) {
  const auto batch = text_files_batch(scope(), {path_ / "missing"});
  std::string message;
  EXPECT_EQ(code_of(batch, &message), "not_found");
  EXPECT_THAT(message,
              HasSubstr("cannot find the file " + (path_ / "missing").string() + ": No such file or directory"));
  put("missing", "here\n");
  EXPECT_THAT(batch.collect(), ElementsAre("here"));
}

TEST_F(Files, ThatMayNotBeReadFailTheAction) {
  const fs::path file = put("secret", "text\n");
  fs::permissions(file, fs::perms::none);
  fs::permissions(path_, fs::perms::all);
  ::setfsuid(::geteuid() == 0 ? 65534 : ::geteuid());  // root may read everything; this thread is not root for a while
  std::string message;
  const std::string code = code_of(text_files_batch(scope(), {file}, 1), &message);
  ::setfsuid(::geteuid());
  EXPECT_EQ(code, "permission_denied");
  EXPECT_THAT(message, HasSubstr("cannot open " + file.string() + ": Permission denied"));
}

TEST_F(Files, ThatAreNoFilesFailTheActionAtOnce) {
  ASSERT_EQ(::mkfifo((path_ / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(code_of(text_files_batch(scope(), {path_ / "pipe"})), "not_a_file");
  EXPECT_EQ(code_of(text_files_batch(scope(), {"/dev/zero"})), "not_a_file");
}

TEST_F(Files, OfTheKernelThatHaveNoSizeAreReadToTheirEnd) {
  EXPECT_GT(context_.text_file("/proc/self/status").count(), 5U);
}

TEST_F(Files, LeaveOutALineThatIsTooLongAndTellOfItOnce) {
  const fs::path file = put("long", "ok\n0123456789\n01234567890\n\n" + std::string(5000, 'x') + "\nlast\n01234567890");
  std::vector<std::string> complaints;
  std::size_t left_out = 0;
  const auto batch = text_files_batch(scope(), {file, put("good", "1\n2\n")}, 2, 10,
                                      [&](const std::string& complaint, std::size_t lines) {
                                        complaints.push_back(complaint);
                                        left_out += lines;
                                      });
  const std::vector<std::string> kept{"ok", "0123456789", "", "last", "1", "2"};
  EXPECT_EQ(batch.collect(), kept);
  EXPECT_EQ(batch.map([](std::string_view line) { return std::string{line}; }).collect(), kept) << "computed again";
  ASSERT_EQ(complaints.size(), 1U);
  EXPECT_EQ(complaints[0], file.string() +
                               ": the line at byte 14 is longer than 10 bytes (max_line_bytes) and is left "
                               "out, as are 2 lines after it");
  EXPECT_EQ(left_out, 3U);
  EXPECT_EQ(text_files_batch(scope(), {file}, 2, 5000).count(), 7U);
  EXPECT_EQ(text_files_batch(scope(), {put("crlf", "0123456789\r\n0123456789\r")}, 2, 10).count(), 2U);
}

TEST_F(Files, ThatEndBeforeTheirSizeSaysFailTheAction) {
  const fs::path file = "/sys/devices/system/cpu/online";  // says that it has a page, and has a few bytes
  std::error_code failure;
  if (fs::file_size(file, failure) < 1000 || failure) GTEST_SKIP() << "this system has no such file";
  std::string message;
  EXPECT_EQ(code_of(text_files_batch(scope(), {file}), &message), "file_changed");
  EXPECT_THAT(message, HasSubstr("online: the file changed while it was read: it ended at byte"));
}

TEST_F(Files, ThatChangeWhileTheyAreReadFailTheActionAndNeverTheProcess) {
  // A writer makes the file short and long again while it is read over and over.
  const std::string text(9'000'000, '\n');
  const fs::path file = put("changes", text);
  std::atomic<bool> done = false;
  std::thread writer{[&] {
    while (!done) {
      static_cast<void>(::truncate(file.c_str(), 1000));
      static_cast<void>(::truncate(file.c_str(), static_cast<off_t>(text.size())));
      std::this_thread::yield();
    }
  }};
  for (int i = 0; i < 20; ++i) {
    try {
      text_files_batch(scope(), {file}, 3).node().prepare();  // reads, and does not look at the lines
    } catch (const SourceError& error) {
      EXPECT_EQ(error.code(), "file_changed");  // when it was caught while it was short
    }
  }
  done = true;
  writer.join();
}

TEST_F(Files, GiveBinaryRecordsOfTheirLength) {
  const auto batch = binary_records_batch(scope(), {put("a", "aaaabbbb"), put("none", ""), put("b", "cccc")}, 4, 2);
  EXPECT_EQ(batch.num_partitions(), 2U);
  const auto texts = batch.map([](std::span<const std::byte> record) {
    return std::string{reinterpret_cast<const char*>(record.data()), record.size()};
  });
  EXPECT_THAT(texts.collect(), ElementsAre("aaaa", "bbbb", "cccc"));
}

TEST_F(Files, GiveManyBinaryRecordsInEveryPartitioning) {
  std::string bytes;
  for (int i = 0; i < 5000; ++i) bytes += std::to_string(10'000 + i);
  const fs::path a = put("a", bytes.substr(0, 5 * 1234));
  const fs::path b = put("b", bytes.substr(5 * 1234));
  for (const std::size_t partitions : {1U, 2U, 3U, 7U, 6000U}) {
    std::string all;
    for (const auto& record : binary_records_batch(scope(), {a, b}, 5, partitions).collect()) {
      ASSERT_EQ(record.size(), 5U);
      all.append(reinterpret_cast<const char*>(record.data()), record.size());
    }
    EXPECT_EQ(all, bytes) << partitions;
  }
}

TEST_F(Files, OfAnotherLengthThanAWholeNumberOfRecordsFailTheAction) {
  std::string message;
  EXPECT_EQ(code_of(binary_records_batch(scope(), {put("good", "12345678"), put("odd", "123456789")}, 4), &message),
            "record_length");
  EXPECT_THAT(message, HasSubstr("odd: has 9 bytes, which is no multiple of the record length 4"));
  EXPECT_THROW(static_cast<void>(binary_records_batch(scope(), {}, 0)), ConfigError);
}

}  // namespace
}  // namespace tidemill
