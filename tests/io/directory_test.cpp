// Which files of a directory belong to which batch: SEMANTICS rows I3, I4 and I5, one by one, with times set by hand.
#include "tidemill/io/directory.hpp"

#include <chrono>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/fake_host.hpp"
#include "tidemill/core/clock.hpp"
#include "tidemill/core/codec.hpp"
#include "tidemill/core/error.hpp"

namespace tidemill::directory_test {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;
using testing_io::FakeHost;

Time at(Duration since_epoch) { return Time{since_epoch}; }

class Directory : public ::testing::Test {
 protected:
  Directory() {
    std::string name = (fs::temp_directory_path() / "tidemill-directory-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~Directory() override {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }

  void put(const std::string& name, std::chrono::nanoseconds modified) const {
    std::ofstream{path_ / name} << name;
    touch(name, modified);
  }
  void touch(const std::string& name, std::chrono::nanoseconds modified) const {
    const auto seconds = std::chrono::floor<std::chrono::seconds>(modified);
    const timespec time{seconds.count(), (modified - seconds).count()};
    const timespec times[2] = {time, time};
    ASSERT_EQ(::utimensat(AT_FDCWD, (path_ / name).c_str(), times, 0), 0);
  }
  static std::vector<std::string> names(const DirectoryMonitor::Selection& selection) {
    EXPECT_EQ(selection.error, "");
    std::vector<std::string> names;
    for (const DirectoryFile& file : selection.files) names.push_back(file.name);
    return names;
  }

  fs::path path_;
};

TEST_F(Directory, GivesEachFileToTheFirstBatchThatIsNotBeforeItsModificationTime) {
  DirectoryMonitor monitor{path_, 1s, at(100s)};
  EXPECT_THAT(names(monitor.select(at(101s))), IsEmpty());
  put("b", 101500ms);
  put("a", 101500ms);
  put("z", 101200ms);
  EXPECT_THAT(names(monitor.select(at(102s))), ElementsAre("z", "a", "b")) << "by modification time, then name";
  EXPECT_THAT(names(monitor.select(at(103s))), IsEmpty());
}

TEST_F(Directory, AFileFromTheFutureWaitsForItsTime) {
  DirectoryMonitor monitor{path_, 1s, at(100s)};
  put("future", 105s);
  EXPECT_THAT(names(monitor.select(at(104s))), IsEmpty());
  EXPECT_THAT(names(monitor.select(at(105s))), ElementsAre("future"));
}

TEST_F(Directory, ComparesModificationTimesInNanoseconds) {
  DirectoryMonitor monitor{path_, 1s, at(100s)};
  put("at_the_start", 100s);
  put("after_the_start", 100s + 1ns);
  put("at_the_batch", 101s);
  put("after_the_batch", 101s + 1ns);
  EXPECT_THAT(names(monitor.select(at(101s))), ElementsAre("after_the_start", "at_the_batch"));
  EXPECT_THAT(names(monitor.select(at(102s))), ElementsAre("after_the_batch"));
}

TEST_F(Directory, LeavesOutNamesThatBeginWithADot) {
  DirectoryMonitor monitor{path_, 1s, at(100s)};
  put(".hidden", 100500ms);
  put("_seen", 100500ms);
  EXPECT_THAT(names(monitor.select(at(101s))), ElementsAre("_seen"));
}

TEST_F(Directory, TakesWhatTheFilterOfTheUserLetsPass) {
  DirectoryMonitor monitor{
      path_, 1s, at(100s), {.filter = [](const fs::path& file) { return file.extension() == ".log"; }}};
  put(".hidden.log", 100500ms);
  put("other.txt", 100500ms);
  EXPECT_THAT(names(monitor.select(at(101s))), ElementsAre(".hidden.log"));
}

TEST_F(Directory, LeavesOutFilesThatAreOlderThanTheStartUnlessToldOtherwise) {
  put("old", 90s);
  DirectoryMonitor new_only{path_, 1s, at(100s)};
  EXPECT_THAT(names(new_only.select(at(101s))), IsEmpty());
  DirectoryMonitor all{path_, 1s, at(100s), {.new_files_only = false}};
  EXPECT_THAT(names(all.select(at(101s))), ElementsAre("old"));
  EXPECT_THAT(names(all.select(at(102s))), IsEmpty());
}

TEST_F(Directory, RemembersForAWholeNumberOfIntervals) {
  EXPECT_EQ((DirectoryMonitor{path_, 1s, at(0s)}.remember_window()), 60s);
  EXPECT_EQ((DirectoryMonitor{path_, 7s, at(0s)}.remember_window()), 63s);
  EXPECT_EQ((DirectoryMonitor{path_, 60s, at(0s)}.remember_window()), 60s);
  EXPECT_EQ((DirectoryMonitor{path_, 100s, at(0s)}.remember_window()), 100s);
  EXPECT_EQ((DirectoryMonitor{path_, 1s, at(0s), {.min_remember = 1500ms}}.remember_window()), 2s);
}

TEST_F(Directory, AFileThatAppearsLaterThanTheRememberWindowAllowsIsLost) {
  DirectoryMonitor monitor{path_, 10s, at(0s)};
  EXPECT_THAT(names(monitor.select(at(1000s))), IsEmpty());
  put("just_too_late", 950s);  // 1010 s - 60 s: not later than the threshold
  put("just_in_time", 950s + 1ns);
  EXPECT_THAT(names(monitor.select(at(1010s))), ElementsAre("just_in_time"));
  EXPECT_THAT(names(monitor.select(at(1020s))), IsEmpty());
}

TEST_F(Directory, IgnoresWhatIsAppendedWhileTheFileIsRemembered) {
  DirectoryMonitor monitor{path_, 1s, at(100s)};
  put("grows", 100500ms);
  EXPECT_THAT(names(monitor.select(at(101s))), ElementsAre("grows"));
  touch("grows", 150s);
  EXPECT_THAT(names(monitor.select(at(150s))), IsEmpty());
  EXPECT_THAT(names(monitor.select(at(161s))), IsEmpty()) << "101 s is the last batch that is still remembered";
  EXPECT_THAT(names(monitor.select(at(162s))), ElementsAre("grows")) << "and now it is not, so the file counts as new";
}

TEST_F(Directory, LooksAtRegularFilesOnlyAndFollowsLinks) {
  DirectoryMonitor monitor{path_, 1s, at(100s), {.new_files_only = false}};
  put("file", 100500ms);
  fs::create_directory(path_ / "below");
  fs::create_symlink("file", path_ / "link");
  fs::create_symlink("nothing", path_ / "broken_link");
  ASSERT_EQ(::mkfifo((path_ / "pipe").c_str(), 0600), 0);
  touch("below", 100500ms);
  touch("pipe", 100500ms);
  EXPECT_THAT(names(monitor.select(at(101s))), ElementsAre("file", "link"));
}

TEST_F(Directory, ADirectoryThatCannotBeListedGivesAnEmptyBatchAndAnError) {
  DirectoryMonitor monitor{path_ / "later", 1s, at(100s)};
  const auto missing = monitor.select(at(101s));
  EXPECT_THAT(missing.files, IsEmpty());
  EXPECT_THAT(missing.error, HasSubstr("later: No such file or directory"));
  fs::create_directory(path_ / "later");
  put("later/file", 101500ms);
  EXPECT_THAT(names(monitor.select(at(102s))), ElementsAre("file"));

  put("plain", 101s);
  EXPECT_THAT((DirectoryMonitor{path_ / "plain", 1s, at(0s)}.select(at(1s)).error), HasSubstr("Not a directory"));
}

TEST_F(Directory, ADirectoryThatMayNotBeReadGivesAnEmptyBatchAndAnError) {
  put("file", 100500ms);
  fs::permissions(path_, fs::perms::none);
  ::setfsuid(::geteuid() == 0 ? 65534 : ::geteuid());  // root may read everything; this thread is not root for a while
  const auto selection = DirectoryMonitor{path_, 1s, at(100s)}.select(at(101s));
  ::setfsuid(::geteuid());
  fs::permissions(path_, fs::perms::owner_all);
  EXPECT_THAT(selection.files, IsEmpty());
  EXPECT_THAT(selection.error, HasSubstr("Permission denied"));
}

TEST_F(Directory, AFilterThatThrowsIsTheUsersErrorAndTheFilesAreNotLost) {
  bool angry = true;
  DirectoryMonitor monitor{path_, 1s, at(100s), {.filter = [&](const fs::path&) {
                             if (angry) throw std::runtime_error{"no"};
                             return true;
                           }}};
  put("file", 100500ms);
  EXPECT_THROW(static_cast<void>(monitor.select(at(101s))), UserCodeError);
  angry = false;
  EXPECT_THAT(names(monitor.select(at(102s))), ElementsAre("file"));
}

TEST_F(Directory, RefusesSettingsThatCannotBe) {
  EXPECT_THROW((DirectoryMonitor{path_, 0s, at(0s)}), ConfigError);
  EXPECT_THROW((DirectoryMonitor{path_, 1s, at(0s), {.min_remember = 0s}}), ConfigError);
  const FakeHost host;
  EXPECT_THROW(static_cast<void>(make_directory_input(host.runtime(), "")), ConfigError);
  EXPECT_THROW(static_cast<void>(make_directory_input(host.runtime(), path_, {.min_remember = -1s})), ConfigError);
}

TEST_F(Directory, AsAnInputNamesTheFilesOfEachBatch) {
  const auto clock = std::make_shared<ManualClock>(at(100s));
  FakeHost host{{.clock = clock}, 1s};
  const auto input = make_directory_input(host.runtime(), path_);
  EXPECT_EQ(input->name(), "directory " + path_.string());
  EXPECT_THAT(input->refuses_on_arrival(), HasSubstr("interval"));
  put("before", 99s);
  input->start(host, 7);
  put("one", 100200ms);
  put("two", 100400ms);
  clock->advance(1s);
  EXPECT_FALSE(input->has_pending());
  const InputInfo info = input->cut(at(101s), 1);
  EXPECT_EQ(info.stream_id, 7U);
  EXPECT_EQ(info.metadata, (path_ / "one").string() + '\n' + (path_ / "two").string());
  EXPECT_THAT(input->take_cut(), ElementsAre(path_ / "one", path_ / "two"));
  EXPECT_THAT(input->take_cut(), IsEmpty());

  fs::rename(path_, path_.string() + "-away");
  EXPECT_EQ(input->cut(at(102s), 1).metadata, "");
  EXPECT_THAT(input->take_cut(), IsEmpty());
  EXPECT_THAT(host.events(), ElementsAre(HasSubstr("the batch has no files")));
  fs::rename(path_.string() + "-away", path_);

  input->stop();
  put("three", 102500ms);
  EXPECT_EQ(input->cut(at(103s), 1).metadata, "") << "a stopped input gives nothing";
  clock->advance(3s);
  input->start(host, 7);
  input->cut(at(104s), 1);
  EXPECT_THAT(input->take_cut(), ElementsAre(path_ / "three")) << "and goes on where it was";
}

TEST_F(Directory, AListingThatTakesLongerThanTheIntervalIsAWarning) {  // I5
  const auto clock = std::make_shared<ManualClock>(at(100s));
  for (const Duration interval : {Duration{1us}, Duration{1h}}) {
    std::vector<std::string> lines;
    FakeHost host{{.clock = clock, .log = [&](LogLevel, std::string_view line) { lines.emplace_back(line); }},
                  interval};
    const auto input = make_directory_input(host.runtime(), path_, {.filter = [](const fs::path&) {
                                              const auto begin = std::chrono::steady_clock::now();
                                              while (std::chrono::steady_clock::now() - begin < 3us) {
                                              }
                                              return true;
                                            }});
    put("file", 100s);
    input->start(host, 0);
    input->cut(at(101s), 1);
    input->stop();
    if (interval == Duration{1h}) {
      EXPECT_THAT(lines, IsEmpty());
      continue;
    }
    ASSERT_EQ(lines.size(), 1u);
    EXPECT_THAT(lines[0], StartsWith("directory " + path_.string() + ": listing it took "));
    EXPECT_THAT(lines[0], HasSubstr("longer than the batch interval of 1 us"));
  }
}

TEST_F(Directory, AnInputLooksBackToItsFirstStartWhenNoBatchWasDoneBeforeARestart) {
  FakeHost host{{.clock = std::make_shared<ManualClock>(at(500s))}, 1s};
  host.set_first_start(at(100s));
  const auto input = make_directory_input(host.runtime(), path_);
  put("before", 99s);
  put("while it was down", 102s);
  input->start(host, 0);
  static_cast<void>(input->cut(at(500s), 1));
  EXPECT_THAT(input->take_cut(), ElementsAre(path_ / "while it was down"));
  put("too old", 150s);
  static_cast<void>(input->cut(at(501s), 1));
  EXPECT_THAT(input->take_cut(), IsEmpty()) << "the window is the usual one again";
}

TEST_F(Directory, AFileMadeRightAfterTheStartIsNewThoughItsTimeIsATickOlder) {
  FakeHost host{{.clock = std::make_shared<ManualClock>(at(100s))}, 1s};
  const auto input = make_directory_input(host.runtime(), path_);
  input->start(host, 0);
  put("of the tick before", 99995ms);
  put("old", 99s);
  input->cut(at(101s), 1);
  EXPECT_THAT(input->take_cut(), ElementsAre(path_ / "of the tick before"));
}

TEST_F(Directory, AsAnInputHandsOverWhatTheFilterThrew) {
  FakeHost host{{.clock = std::make_shared<ManualClock>(at(100s))}};
  const auto input = make_directory_input(host.runtime(), path_,
                                          {.filter = [](const fs::path&) -> bool { throw std::runtime_error{"no"}; }});
  put("file", 100500ms);
  input->start(host, 0);
  EXPECT_NO_THROW(input->cut(at(101s), 1));
  EXPECT_THROW(static_cast<void>(input->take_cut()), UserCodeError);
  EXPECT_THAT(input->take_cut(), IsEmpty());
  input->stop();
}

TEST_F(Directory, WithACheckpointThereIsNoPlanWithoutTheFilesOfAFilterThatThrew) {
  FakeHost host{{.clock = std::make_shared<ManualClock>(at(100s))}};
  bool angry = true;
  const auto input = make_directory_input(host.runtime(), path_, {.filter = [&](const fs::path&) {
                                            if (angry) throw std::runtime_error{"no"};
                                            return true;
                                          }});
  input->durable_state()->track_changes();
  put("file", 100500ms);
  input->start(host, 0);
  EXPECT_THROW(input->cut(at(101s), 1), UserCodeError);
  angry = false;
  EXPECT_EQ(input->cut(at(101s), 1).metadata, (path_ / "file").string());
  input->stop();
}

// ---- restarts: I6 ----

// What a checkpoint would keep of a memory.
std::map<std::string, std::string> entries_of(detail::DirectoryMemory& memory,
                                              std::map<std::string, std::string> entries = {}) {
  StateChanges changes;
  memory.take_changes(changes);
  const std::string all = changes.bytes();
  std::string_view bytes = all;
  const auto take = [&bytes](std::size_t size) {
    const std::string_view taken = bytes.substr(0, size);
    bytes.remove_prefix(size);
    return std::string{taken};
  };
  const auto sized = [&] { return take(static_cast<unsigned char>(take(4)[0])); };  // names here are short
  while (!bytes.empty()) {
    const bool put = take(2)[0] == 1;
    const std::string key = sized();
    if (put) {
      entries[key] = sized();
    } else {
      entries.erase(key);
    }
  }
  return entries;
}

std::shared_ptr<detail::DirectoryMemory> restored(const std::map<std::string, std::string>& entries, Time last) {
  auto memory = std::make_shared<detail::DirectoryMemory>();
  memory->track_changes();
  for (const auto& [key, value] : entries) memory->restore(0, key, value);
  memory->restored(last);
  return memory;
}

TEST_F(Directory, ARestartTakesNoFileTwiceAndMissesNoneThatCameMeanwhile) {
  auto memory = std::make_shared<detail::DirectoryMemory>();
  memory->track_changes();
  put("old", 50s);
  put("a", 101s);
  std::map<std::string, std::string> entries;
  {
    DirectoryMonitor monitor{path_, 1s, at(100s), {}, memory};
    EXPECT_THAT(names(monitor.select(at(101s))), ElementsAre("a"));
    entries = entries_of(*memory);
  }
  put("while it was down", 102s);
  memory = restored(entries, at(101s));
  DirectoryMonitor monitor{path_, 1s, at(100s), {}, memory};
  EXPECT_THAT(names(monitor.select(at(500s))), ElementsAre("while it was down"))
      << "longer ago than the remember window, and yet after the last batch";
  put("too old", 150s);
  EXPECT_THAT(names(monitor.select(at(501s))), IsEmpty()) << "the window is the usual one again";
}

TEST_F(Directory, ForgetsInTheCheckpointWhatItForgets) {
  auto memory = std::make_shared<detail::DirectoryMemory>();
  memory->track_changes();
  DirectoryMonitor monitor{path_, 1s, at(100s), {}, memory};
  put("a", 101s);
  EXPECT_THAT(names(monitor.select(at(101s))), ElementsAre("a"));
  auto entries = entries_of(*memory);
  EXPECT_TRUE(entries.contains(encode(std::string{"a"})));
  static_cast<void>(monitor.select(at(200s)));
  entries = entries_of(*memory, entries);
  EXPECT_TRUE(entries.empty());
}

TEST_F(Directory, SelectsAgainWhatAnEarlierRunSelected) {
  put("a", 101s);
  put("b", 101s);
  DirectoryMonitor before{path_, 1s, at(100s)};
  const auto planned = before.select(at(101s)).files;
  put("c", 101s);
  DirectoryMonitor after{path_, 1s, at(100s)};
  EXPECT_THAT(names(after.select_again(at(101s), planned)), ElementsAre("a", "b"));
  EXPECT_THAT(names(after.select(at(102s))), ElementsAre("c"));
}

TEST_F(Directory, AFileThatChangedSinceItWasPlannedFailsTheBatchOrIsLeftOut) {
  put("a", 101s);
  put("b", 101s);
  put("c", 101s);
  DirectoryMonitor before{path_, 1s, at(100s)};
  const auto planned = before.select(at(101s)).files;
  std::ofstream{path_ / "a", std::ios::app} << "more";
  touch("a", 101s);
  fs::remove(path_ / "b");
  DirectoryMonitor strict{path_, 1s, at(100s)};
  try {
    static_cast<void>(strict.select_again(at(101s), planned));
    FAIL() << "two files are not what they were";
  } catch (const SourceError& error) {
    EXPECT_EQ(error.code(), "file_changed");
    EXPECT_THAT(error.what(), HasSubstr((path_ / "a").string()));
  }
  DirectoryMonitor lenient{path_, 1s, at(100s), {.changed_file = ChangedFile::skip}};
  const auto selection = lenient.select_again(at(101s), planned);
  ASSERT_EQ(selection.files.size(), 1u);
  EXPECT_EQ(selection.files[0].name, "c");
  EXPECT_THAT(selection.error, HasSubstr("the file was changed"));
  EXPECT_THAT(selection.error, HasSubstr("the file has gone"));
}

}  // namespace
}  // namespace tidemill::directory_test
