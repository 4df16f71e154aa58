#include "tidemill/core/file_output.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tidemill/core/crc32c.hpp"
#include "tidemill/core/error.hpp"

namespace file_output_test {

class Picky {  // a codec that refuses one value
 public:
  explicit Picky(int value) : value_{value} {}
  [[nodiscard]] int value() const { return value_; }

 private:
  int value_;
};

}  // namespace file_output_test

template <>
struct tidemill::Codec<file_output_test::Picky> {
  static void write(Encoder& to, const file_output_test::Picky& picky) {
    to.fixed(picky.value());
    if (picky.value() == 13) throw std::runtime_error{"not 13"};
  }
  static file_output_test::Picky read(Decoder& from) { return file_output_test::Picky{from.fixed<int>()}; }
};

namespace tidemill {
namespace {

namespace fs = std::filesystem;
using file_output_test::Picky;
using namespace std::literals;

std::string content_of(const fs::path& path) {
  std::ifstream file{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{file}, {}};
}

void put(const fs::path& path, std::string_view content) {
  std::ofstream file{path, std::ios::binary | std::ios::trunc};
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  ASSERT_TRUE(file.flush()) << path;
}

// The files of a directory, hidden ones too, by name.
std::map<std::string, std::string> files_of(const fs::path& directory) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator{directory}) {
    files[entry.path().filename()] = entry.is_directory() ? "<directory>" : content_of(entry.path());
  }
  return files;
}

std::size_t open_descriptors() {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator{"/proc/self/fd"}, fs::directory_iterator{}));
}

struct Caught {
  std::string code = "nothing was thrown";
  std::string text;
  std::optional<Retry> retry;
};

template <class ErrorType>
Caught caught(const std::function<void()>& action) {
  try {
    action();
  } catch (const ErrorType& error) {
    return {error.code(), error.what(), error.retry()};
  }
  return {};
}

testing::AssertionResult contains(const std::string& text, std::string_view part) {
  if (text.find(part) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << '"' << part << "\" is not in \"" << text << '"';
}

using Files = std::map<std::string, std::string>;

class FileOutput : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "tidemill-file-output-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
    descriptors_ = open_descriptors();
  }
  void TearDown() override {
    EXPECT_EQ(open_descriptors(), descriptors_) << "a file descriptor was leaked";
    fs::permissions(root_, fs::perms::owner_all);
    fs::remove_all(root_);
  }

  [[nodiscard]] std::string path(const std::string& name = "out") const { return (root_ / name).string(); }

  void write_batch(const std::string& to, std::string_view text, detail::ReplaceBy by = detail::ReplaceBy::exchange) {
    OutputDirectory output{to, nullptr, by};
    PartWriter part = output.open_part(0);
    part.write(text);
    part.close();
    output.commit();
  }

  fs::path root_;
  std::size_t descriptors_ = 0;
};

TEST_F(FileOutput, AppearsWholeAtCommitAndNotBefore) {
  OutputDirectory output{path()};
  EXPECT_EQ(output.path(), path());
  PartWriter first = output.open_part(0);
  PartWriter second = output.open_part(1);
  first.write("a\n");
  second.write("b\n");
  first.write("c\n");
  EXPECT_EQ(first.size(), 4U);
  first.close();
  first.close();
  EXPECT_FALSE(fs::exists(path()));
  EXPECT_EQ(files_of(root_).begin()->first, ".out.tmp-0") << "what is being written is hidden";

  output.commit();
  EXPECT_EQ(files_of(path()), (Files{{"part-00000", "a\nc\n"}, {"part-00001", "b\n"}, {"_SUCCESS", ""}}));
  EXPECT_EQ(files_of(root_).size(), 1U) << "nothing else is left beside it";
}

TEST_F(FileOutput, OfNoPartsIsADirectoryWithTheMarkOnly) {
  OutputDirectory{path()}.commit();
  EXPECT_EQ(files_of(path()), (Files{{"_SUCCESS", ""}}));
}

TEST_F(FileOutput, KeepsTheBytesOfLargeAndSmallWrites) {
  std::mt19937_64 random{5};
  std::string expected;
  OutputDirectory output{path()};
  PartWriter part = output.open_part(100'000);
  for (int i = 0; i < 200; ++i) {
    const std::string text(random() % (i % 10 == 0 ? 200'000 : 2'000), static_cast<char>('a' + i % 26));
    expected += text;
    part.write(text);
  }
  EXPECT_EQ(part.size(), expected.size());
  output.commit();
  EXPECT_TRUE(content_of(path() + "/part-100000") == expected);
}

TEST_F(FileOutput, CreatesMissingParentsAndTakesATrailingSlash) {
  write_batch(path("a/b/c/"), "x");
  EXPECT_EQ(files_of(path("a/b/c")), (Files{{"part-00000", "x"}, {"_SUCCESS", ""}}));
}

TEST_F(FileOutput, TakesARelativePath) {
  const fs::path before = fs::current_path();
  fs::current_path(root_);
  {
    OutputDirectory output{"relative"};
    fs::current_path(before);  // the host may change its directory meanwhile
    PartWriter part = output.open_part(0);
    part.write("x");
    output.commit();
  }
  EXPECT_EQ(content_of(path("relative/part-00000")), "x");
}

TEST_F(FileOutput, LeavesNothingBehindWithoutCommit) {
  {
    OutputDirectory output{path()};
    PartWriter part = output.open_part(0);
    part.write("x");
    part.close();
    PartWriter open = output.open_part(1);
    open.write("y");
  }
  EXPECT_EQ(files_of(root_), Files{});
}

TEST_F(FileOutput, WritesPartsFromManyThreads) {
  OutputDirectory output{path()};
  std::vector<std::jthread> threads;
  for (std::size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&output, t] {
      for (std::size_t i = 0; i < 8; ++i) {
        PartWriter part = output.open_part(8 * t + i);
        for (int line = 0; line < 100; ++line) part.write(std::to_string(8 * t + i) + '\n');
        part.close();
      }
    });
  }
  threads.clear();
  output.commit();
  const auto files = part_files(path());
  ASSERT_EQ(files.size(), 32U);
  for (std::size_t i = 0; i < files.size(); ++i) {
    std::string expected;
    for (int line = 0; line < 100; ++line) expected += std::to_string(i) + '\n';
    EXPECT_EQ(content_of(files[i]), expected) << files[i];
  }
}

// --- a batch that is run again ---

class FileOutputRerun : public FileOutput, public testing::WithParamInterface<detail::ReplaceBy> {};

TEST_P(FileOutputRerun, ReplacesTheFormerOutput) {
  {
    OutputDirectory output{path(), nullptr, GetParam()};
    output.open_part(0).close();
    output.open_part(1).close();
    output.commit();
  }
  write_batch(path(), "again", GetParam());
  EXPECT_EQ(files_of(path()), (Files{{"part-00000", "again"}, {"_SUCCESS", ""}}));
  EXPECT_EQ(files_of(root_).size(), 1U);
  write_batch(path(), "and again", GetParam());
  EXPECT_EQ(content_of(path() + "/part-00000"), "and again");
  EXPECT_EQ(files_of(root_).size(), 1U);
}

TEST_P(FileOutputRerun, KeepsTheFormerOutputUntilCommit) {
  write_batch(path(), "first", GetParam());
  {
    OutputDirectory output{path(), nullptr, GetParam()};
    output.open_part(0).close();
    EXPECT_EQ(content_of(path() + "/part-00000"), "first");
  }
  EXPECT_EQ(content_of(path() + "/part-00000"), "first");
  EXPECT_EQ(files_of(root_).size(), 1U);
}

INSTANTIATE_TEST_SUITE_P(, FileOutputRerun,
                         testing::Values(detail::ReplaceBy::exchange, detail::ReplaceBy::two_renames),
                         [](const auto& test) {
                           return test.param == detail::ReplaceBy::exchange ? "ByExchange" : "ByTwoRenames";
                         });

TEST_F(FileOutput, IsNeverMissingOrMixedForAReaderDuringReruns) {
  write_batch(path(), "0");
  std::atomic<bool> done = false;
  std::atomic<int> wrong = 0;
  std::jthread reader{[&] {
    while (!done) {  // through one descriptor: one look at one directory
      const int directory = ::open(path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      if (directory < 0) {
        ++wrong;
        continue;
      }
      ::close(directory);
    }
  }};
  for (int i = 1; i <= 50; ++i) write_batch(path(), std::to_string(i));
  done = true;
  reader.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(content_of(path() + "/part-00000"), "50");
}

TEST_F(FileOutput, ReplacesAnEmptyDirectoryAndOneThatHadoopWrote) {
  fs::create_directory(path("empty"));
  write_batch(path("empty"), "x");
  EXPECT_EQ(content_of(path("empty/part-00000")), "x");

  fs::create_directory(path("hadoop"));
  for (const char* name : {"part-00000", ".part-00000.crc", "_SUCCESS", "._SUCCESS.crc"}) {
    put(root_ / "hadoop" / name, "old");
  }
  write_batch(path("hadoop"), "new");
  EXPECT_EQ(files_of(path("hadoop")), (Files{{"part-00000", "new"}, {"_SUCCESS", ""}}));
}

TEST_F(FileOutput, ReplacesWhatALinkPointsTo) {
  write_batch(path("real"), "old");
  fs::create_directory_symlink(path("real"), path("link"));
  write_batch(path("link"), "new");
  EXPECT_TRUE(fs::is_symlink(path("link")));
  EXPECT_EQ(content_of(path("real/part-00000")), "new");
}

TEST_F(FileOutput, ReclaimsWhatAKilledProcessLeft) {
  fs::create_directory(path(".out.tmp-0"));
  put(root_ / ".out.tmp-0" / "part-00000", "torn");
  put(root_ / ".out.tmp-0" / "part-00007", "torn");
  write_batch(path(), "whole");
  EXPECT_EQ(files_of(path()), (Files{{"part-00000", "whole"}, {"_SUCCESS", ""}}));
  EXPECT_EQ(files_of(root_).size(), 1U);
}

TEST_F(FileOutput, LeavesAloneWhatAnotherWriterIsWriting) {
  OutputDirectory first{path()};
  PartWriter part = first.open_part(0);
  part.write("first");
  write_batch(path(), "second");
  EXPECT_EQ(content_of(path() + "/part-00000"), "second");
  first.commit();
  EXPECT_EQ(content_of(path() + "/part-00000"), "first") << "the last commit counts";
  EXPECT_EQ(files_of(root_).size(), 1U);
}

TEST_F(FileOutput, SurvivesWritersThatRaceForOnePath) {
  std::vector<std::jthread> threads;
  std::atomic<int> failed = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        try {
          OutputDirectory output{path()};
          for (std::size_t p = 0; p < 3; ++p) {
            PartWriter part = output.open_part(p);
            part.write(std::to_string(t));
            part.close();
          }
          output.commit();
        } catch (const SinkError& error) {
          ++failed;
          ADD_FAILURE() << error.what();
        }
      }
    });
  }
  threads.clear();
  EXPECT_EQ(failed, 0);
  const Files files = files_of(path());
  ASSERT_EQ(files.size(), 4U);
  EXPECT_EQ(files.at("part-00000"), files.at("part-00001")) << "all parts are of one writer";
  EXPECT_EQ(files.at("part-00000"), files.at("part-00002"));
}

// --- what is refused ---

TEST_F(FileOutput, RefusesToReplaceWhatNoBatchWrote) {
  fs::create_directory(path());
  put(root_ / "out" / "thesis.tex", "years of work");
  const Caught error = caught<SinkError>([&] { OutputDirectory output{path()}; });
  EXPECT_EQ(error.code, "not_an_output");
  EXPECT_TRUE(contains(error.text, path()));
  EXPECT_TRUE(contains(error.text, "holds \"thesis.tex\""));
  EXPECT_TRUE(contains(error.text, "choose another path"));

  fs::remove(root_ / "out" / "thesis.tex");
  fs::create_directory(root_ / "out" / "part-00000");
  EXPECT_EQ(caught<SinkError>([&] { OutputDirectory output{path()}; }).code, "not_an_output") << "a directory inside";

  put(path("file"), "x");
  EXPECT_EQ(caught<SinkError>([&] { OutputDirectory output{path("file")}; }).code, "not_an_output");
  EXPECT_EQ(content_of(path("file")), "x");
}

TEST_F(FileOutput, RefusesWhatAppearedAtThePathMeanwhile) {
  OutputDirectory output{path()};
  output.open_part(0).close();
  fs::create_directory(path());
  put(root_ / "out" / "thesis.tex", "years of work");
  EXPECT_EQ(caught<SinkError>([&] { output.commit(); }).code, "not_an_output");
  EXPECT_EQ(content_of(root_ / "out" / "thesis.tex"), "years of work");
}

TEST_F(FileOutput, RefusesAPathWithoutAName) {
  for (const char* nameless : {"", "/", ".", "..", "a/.."}) {
    EXPECT_EQ(caught<SinkError>([&] { OutputDirectory output{nameless}; }).code, "not_an_output") << nameless;
  }
}

TEST_F(FileOutput, NamesThePathAndTheReason) {
  put(path("file"), "x");
  const Caught below_file = caught<SinkError>([&] { OutputDirectory output{path("file/out")}; });
  EXPECT_EQ(below_file.code, "not_found");
  EXPECT_TRUE(contains(below_file.text, path("file")));
  EXPECT_TRUE(contains(below_file.text, "Not a directory"));

  const Caught long_name = caught<SinkError>([&] { OutputDirectory output{path(std::string(300, 'n'))}; });
  EXPECT_TRUE(contains(long_name.text, "choose a shorter name"));
  EXPECT_EQ(files_of(root_), (Files{{"file", "x"}}));
}

TEST_F(FileOutput, SaysWhenPermissionIsMissing) {
  fs::permissions(root_, static_cast<fs::perms>(0555));
  const bool is_root = ::geteuid() == 0;  // root may write everywhere, so it becomes "nobody" for a moment
  if (is_root && ::seteuid(65534) != 0) GTEST_SKIP() << "root cannot become another user here; run this test as one";
  const Caught error = caught<SinkError>([&] { OutputDirectory output{path()}; });
  if (is_root) {
    ASSERT_EQ(::seteuid(0), 0);
  }
  EXPECT_EQ(error.code, "permission_denied");
  EXPECT_TRUE(contains(error.text, "cannot make the directory " + path(".out.tmp-0") + ": Permission denied"));
  EXPECT_TRUE(contains(error.text, "choose another path"));
}

TEST_F(FileOutput, RefusesToPublishAPartThatWasGivenUp) {
  OutputDirectory output{path()};
  try {
    PartWriter part = output.open_part(3);
    part.write("half");
    throw std::runtime_error{"the user function failed"};
  } catch (const std::runtime_error&) {
  }
  const Caught error = caught<SinkError>([&] { output.commit(); });
  EXPECT_EQ(error.code, "incomplete");
  EXPECT_TRUE(contains(error.text, "part-00003"));
  EXPECT_FALSE(fs::exists(path()));
  EXPECT_EQ(caught<SinkError>([&] { output.commit(); }).code, "io") << "there is no second try";
}

TEST_F(FileOutput, RefusesCallsThatComeTooLateOrTwice) {
  std::optional<OutputDirectory> output{path()};
  PartWriter part = output->open_part(0);
  EXPECT_TRUE(
      contains(caught<SinkError>([&] { auto again = output->open_part(0); }).text, "each partition has one writer"));
  PartWriter open = output->open_part(1);
  part.close();
  EXPECT_TRUE(contains(caught<SinkError>([&] { part.write("x"); }).text, "closed"));
  output->commit();
  EXPECT_TRUE(contains(caught<SinkError>([&] { open.write("x"); }).text, "committed"));
  EXPECT_TRUE(contains(caught<SinkError>([&] { auto late = output->open_part(2); }).text, "committed before"));
  EXPECT_TRUE(contains(caught<SinkError>([&] { output->commit(); }).text, "done or tried before"));
  EXPECT_EQ(files_of(path()).size(), 3U);

  std::optional<OutputDirectory> abandoned{path("other")};
  PartWriter orphan = abandoned->open_part(0);
  abandoned.reset();
  EXPECT_EQ(caught<SinkError>([&] { orphan.write("x"); }).code, "incomplete");
  const PartWriter taken = std::move(orphan);
  EXPECT_THROW(orphan.write("x"), PlanError);  // NOLINT(bugprone-use-after-move): that is what is tested
}

// --- a full disk ---

void expect_disk_full(const std::string& target, std::size_t bytes) {
  OutputDirectory output{target};
  PartWriter part = output.open_part(0);
  const std::string block(100'000, 'x');
  const Caught error = caught<SinkError>([&] {
    for (std::size_t written = 0; written < bytes; written += block.size()) part.write(block);
    part.close();
  });
  EXPECT_EQ(error.code, "disk_full");
  EXPECT_TRUE(contains(error.text, "part-00000"));
  EXPECT_EQ(caught<SinkError>([&] { part.write("more"); }).code, "incomplete") << "a failed file is not trusted again";
  EXPECT_EQ(caught<SinkError>([&] { output.commit(); }).code, "incomplete");
  EXPECT_FALSE(fs::exists(target));
}

class FileSizeLimit {  // of what this process writes
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_{std::signal(SIGXFSZ, SIG_IGN)} {
    EXPECT_EQ(::getrlimit(RLIMIT_FSIZE, &before_), 0);
    struct rlimit limit = before_;
    limit.rlim_cur = bytes;
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &before_), 0);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  struct rlimit before_ {};
  void (*handler_)(int);
};

class
    SmallDisk {  // of 256 KiB; where this process may not mount one, no file can be larger, which fails in the same way
 public:
  explicit SmallDisk(std::string at) : at_{std::move(at)} {
    is_mounted_ = ::mount("tidemill-test", at_.c_str(), "tmpfs", 0, "size=256k") == 0;
    if (!is_mounted_) limit_.emplace(256 * 1024);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  ~SmallDisk() {
    if (is_mounted_) ::umount2(at_.c_str(), MNT_DETACH);
  }

 private:
  std::string at_;
  bool is_mounted_ = false;
  std::optional<FileSizeLimit> limit_;
};

TEST_F(FileOutput, FailsWithASentenceWhenTheDiskIsFull) {
  const std::string disk = path("disk");
  fs::create_directory(disk);
  const SmallDisk small{disk};
  write_batch(disk + "/before", "kept");
  expect_disk_full(disk + "/out", 1'000'000);
  EXPECT_EQ(files_of(disk), (Files{{"before", "<directory>"}})) << "the failed output gives its space back";
  write_batch(disk + "/out", "now it fits");
  EXPECT_EQ(content_of(disk + "/out/part-00000"), "now it fits");
  EXPECT_EQ(content_of(disk + "/before/part-00000"), "kept");
}

TEST_F(FileOutput, FailsWithASentenceWhenAFileGrowsBeyondItsLimit) {
  {
    const FileSizeLimit limit{150'000};
    expect_disk_full(path(), 1'000'000);
  }
  EXPECT_EQ(files_of(root_), Files{});
}

TEST_F(FileOutput, ReleasesEverythingWhenTooManyFilesAreOpen) {
#if TIDEMILL_SANITIZED
  GTEST_SKIP()
      << "UndefinedBehaviorSanitizer needs a descriptor to look at an object's type, and here there is none left";
#endif
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  struct rlimit limit = before;
  limit.rlim_cur = static_cast<rlim_t>(open_descriptors() + 8);
  Caught error;
  {
    OutputDirectory output{path()};
    std::vector<PartWriter> parts;
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
    error = caught<SinkError>([&] {
      for (std::size_t p = 0; p < 100; ++p) parts.push_back(output.open_part(p));
    });
    parts.clear();
    EXPECT_EQ(caught<SinkError>([&] { output.commit(); }).code, "incomplete");
  }
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_TRUE(contains(error.text, "ulimit -n"));
  EXPECT_EQ(error.retry, Retry::may_help);
  EXPECT_EQ(files_of(root_), Files{});
}

// --- the parts of a directory ---

TEST_F(FileOutput, ListsPartsInTheOrderOfPartitions) {
  fs::create_directory(path());
  for (const char* name : {"part-100000", "part-00002", "part-00010", "_SUCCESS", ".part-00002.crc", "notes"}) {
    put(root_ / "out" / name, "");
  }
  fs::create_directory(root_ / "out" / "part-dir");
  EXPECT_EQ(part_files(path()),
            (std::vector<std::string>{path("out/part-00002"), path("out/part-00010"), path("out/part-100000")}));
  EXPECT_EQ(part_files(path() + '/'), part_files(path()).size() == 3 ? part_files(path()) : std::vector<std::string>{});
  EXPECT_EQ(part_files(path("out/notes")), std::vector<std::string>{path("out/notes")});
  const Caught error = caught<SourceError>([&] { static_cast<void>(part_files(path("none"))); });
  EXPECT_EQ(error.code, "not_found");
  EXPECT_TRUE(contains(error.text, path("none")));
}

// --- object files ---

using Word = std::pair<std::string, std::int64_t>;

class ObjectFile : public FileOutput {
 protected:
  template <class T>
  std::string write_objects(const std::vector<T>& records) {
    OutputDirectory output{path("objects")};
    ObjectFileWriter writer{output.open_part(0)};
    for (const T& record : records) writer.write(record);
    writer.close();
    output.commit();
    return path("objects/part-00000");
  }

  template <class T>
  static std::vector<T> read_objects(const std::string& file) {
    ObjectFileReader reader{file};
    std::vector<T> records;
    while (std::optional<T> record = reader.next<T>()) records.push_back(std::move(*record));
    EXPECT_FALSE(reader.next<T>().has_value());
    return records;
  }

  template <class T>
  Caught read_error(const std::string& bytes) {
    put(path("damaged"), bytes);
    return caught<SourceError>([&] { static_cast<void>(read_objects<T>(path("damaged"))); });
  }
};

std::vector<Word> some_words(std::size_t count) {
  std::vector<Word> words;
  for (std::size_t i = 0; i < count; ++i) words.emplace_back("word" + std::to_string(i), static_cast<std::int64_t>(i));
  return words;
}

TEST_F(ObjectFile, BringsRecordsBack) {
  for (const std::size_t count : {0U, 1U, 2U, 1000U, 20'000U}) {
    EXPECT_EQ(read_objects<Word>(write_objects(some_words(count))), some_words(count)) << count;
  }
  const std::vector<std::string> large{std::string(300'000, 'a'), "", std::string(65'536, 'b')};
  EXPECT_EQ(read_objects<std::string>(write_objects(large)), large);
}

TEST_F(ObjectFile, HasTheDocumentedLayout) {
  const std::string bytes = content_of(write_objects(std::vector<std::string>{"ab", "c"}));
  const auto with_checksum = [](const std::string& before, const std::string& after) {
    const std::string all = before + after;
    return before + encode(crc32c(std::as_bytes(std::span{all}))) + after;
  };
  EXPECT_EQ(bytes, with_checksum("TMOBJ1\n\0\x01\0\x01\0"s, "") +
                       with_checksum("\x05\0\0\0\x02\0\0\0"s, "\x02"s + "ab" + "\x01"s + "c") +
                       with_checksum("\x08\0\0\0\0\0\0\0"s, "\x02\0\0\0\0\0\0\0"s));
}

TEST_F(ObjectFile, GivesViewsThatLastUntilTheNextCall) {
  ObjectFileReader reader{write_objects(some_words(3))};
  const auto record = reader.next<std::pair<std::string_view, std::int64_t>>();
  ASSERT_TRUE(record);
  EXPECT_EQ(record->first, "word0");
}

TEST_F(ObjectFile, LeavesOutARecordWhoseCodecThrows) {
  OutputDirectory output{path()};
  ObjectFileWriter writer{output.open_part(0)};
  writer.write(Picky{1});
  EXPECT_THROW(writer.write(Picky{13}), std::runtime_error);
  writer.write(Picky{2});
  writer.close();
  output.commit();
  EXPECT_EQ(read_objects<std::int32_t>(path("out/part-00000")), (std::vector<std::int32_t>{1, 2}));
}

TEST_F(ObjectFile, IsNotPublishedWithoutItsEnd) {
  OutputDirectory output{path()};
  ObjectFileWriter writer{output.open_part(0)};
  writer.write("x"s);
  const Caught error = caught<SinkError>([&] { output.commit(); });
  EXPECT_EQ(error.code, "incomplete");
  EXPECT_TRUE(contains(error.text, "has no end"));
  EXPECT_FALSE(fs::exists(path()));
}

TEST_F(ObjectFile, CutAnywhereIsRefused) {
  const std::string good = content_of(write_objects(some_words(20)));
  for (std::size_t size = 0; size < good.size(); ++size) {
    const Caught error = read_error<Word>(good.substr(0, size));
    ASSERT_EQ(error.code, "malformed_file") << "cut to " << size << " of " << good.size();
    ASSERT_TRUE(contains(error.text, path("damaged")));
    ASSERT_TRUE(contains(error.text, "at byte "));
  }
}

TEST_F(ObjectFile, CutBetweenTwoChunksIsRefused) {
  const std::string good = content_of(write_objects(std::vector<std::string>(3, std::string(70'000, 'x'))));
  const std::size_t chunk = 12 + 70'003;  // header; three bytes of count
  ASSERT_EQ(good.size(), 16 + 3 * chunk + 20);
  EXPECT_EQ(read_error<std::string>(good.substr(0, 16 + 2 * chunk)).code, "malformed_file");
  const Caught missing = read_error<std::string>(good.substr(0, 16 + chunk) + good.substr(16 + 2 * chunk));
  EXPECT_EQ(missing.code, "malformed_file");
  EXPECT_TRUE(contains(missing.text, "chunks are missing or were added"));
  EXPECT_EQ(read_error<std::string>(good + "x").code, "malformed_file");
  EXPECT_EQ(read_error<std::string>(good + good).code, "malformed_file");
}

TEST_F(ObjectFile, WithAnyBitFlippedIsRefused) {
  std::string bytes = content_of(write_objects(some_words(20)));
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    const auto mask = static_cast<char>(1U << (bit % 8));
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ mask);
    ASSERT_EQ(read_error<Word>(bytes).code, "malformed_file") << "bit " << bit;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ mask);
  }
  EXPECT_EQ(read_error<Word>(bytes).code, "nothing was thrown");
}

TEST_F(ObjectFile, DamagedGivesOutNoRecordOfTheDamagedChunkAndNoneAfterIt) {
  std::string bytes = content_of(write_objects(std::vector<std::string>(4, std::string(70'000, 'x'))));
  bytes[16 + (12 + 70'003) + 500] = 'y';  // in the second chunk
  put(path("damaged"), bytes);
  ObjectFileReader reader{path("damaged")};
  EXPECT_TRUE(reader.next<std::string>().has_value());
  for (int again = 0; again < 3; ++again) EXPECT_THROW(static_cast<void>(reader.next<std::string>()), SourceError);
}

TEST_F(ObjectFile, ReadAsAnotherTypeIsRefused) {
  const std::string file = write_objects(some_words(20));
  const Caught error = caught<SourceError>([&] { static_cast<void>(read_objects<std::vector<std::string>>(file)); });
  EXPECT_EQ(error.code, "malformed_file");
  EXPECT_TRUE(contains(error.text, "does not fit the type"));
  EXPECT_EQ(caught<SourceError>([&] { static_cast<void>(read_objects<bool>(file)); }).code, "malformed_file");

  const std::string numbers = write_objects(std::vector<std::int64_t>{1, 2});
  ObjectFileReader reader{numbers};
  EXPECT_EQ(reader.next<std::int32_t>(), 1);
  for (int again = 0; again < 3; ++again) {
    EXPECT_TRUE(contains(caught<SourceError>([&] { static_cast<void>(reader.next<std::int32_t>()); }).text,
                         "the end of a chunk after its last record"));
  }
}

TEST_F(ObjectFile, OfAnotherKindOrVersionIsRefusedByName) {
  EXPECT_TRUE(contains(read_error<Word>("tide 3\nmill 4\nand more lines of text\n").text, "another kind of file"));
  std::string bytes = content_of(write_objects(some_words(1)));
  bytes[8] = 2;
  bytes.replace(12, 4, encode(crc32c(std::as_bytes(std::span{bytes}.first(12)))));
  EXPECT_TRUE(contains(read_error<Word>(bytes).text, "expected versions 1 and 1, found 2 and 1"));

  EXPECT_EQ(caught<SourceError>([&] { ObjectFileReader reader{path("none")}; }).code, "not_found");
  EXPECT_TRUE(contains(caught<SourceError>([&] { ObjectFileReader reader{root_.string()}; }).text, "a directory"));
}

TEST_F(ObjectFile, WithAForgedLengthAllocatesNothing) {
  std::string bytes = content_of(write_objects(some_words(1)));
  bytes.replace(16, 4, "\xFF\xFF\xFF\xFF");
  const Caught error = read_error<Word>(bytes);
  EXPECT_TRUE(contains(error.text, "expected the records of a chunk of 4294967295 bytes, found the end of the file"));
}

}  // namespace
}  // namespace tidemill
