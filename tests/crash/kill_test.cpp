// kill -9 at any moment, some of them during recovery, and nothing is lost or doubled: real processes, real files.
// SEMANTICS R9, R11. The number of kills: TIDEMILL_KILLS, 200 unless set.
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

class Kill : public ::testing::Test {
 protected:
  Kill() {
    std::string name = (fs::temp_directory_path() / "tidemill-kill-XXXXXX").string();
    dir_ = ::mkdtemp(name.data());
    fs::create_directories(dir_ / "in");
    fs::create_directories(dir_ / "out");
  }
  ~Kill() override {
    if (HasFailure()) return;  // for whoever looks into it
    std::error_code ignored;
    fs::remove_all(dir_, ignored);
  }

  [[nodiscard]] pid_t start() const {
    const pid_t child = ::fork();
    if (child == 0) {
      ::execl(CRASH_JOB, CRASH_JOB, dir_.c_str(), static_cast<char*>(nullptr));
      ::_exit(127);
    }
    return child;
  }
  // How the child ended; negative: killed.
  static int wait_for(pid_t child) {
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  // A file of words, moved in whole.
  void feed(int number) {
    std::string text;
    for (int i = static_cast<int>(random_() % 40); i >= 0; --i) {
      const std::string word = "word" + std::to_string(random_() % 50);
      text += word + (random_() % 8 == 0 ? '\n' : ' ');
      ++expected_[word];
    }
    std::ofstream{dir_ / "next"} << text;
    fs::rename(dir_ / "next", dir_ / "in" / ("file" + std::to_string(number)));
  }

  // What was saved under a prefix: the lines of each batch, by its name, which is its time.
  [[nodiscard]] std::map<std::string, std::vector<std::string>> saved(const std::string& prefix) const {
    std::map<std::string, std::vector<std::string>> batches;
    for (const auto& entry : fs::directory_iterator{dir_ / "out"}) {
      const std::string name = entry.path().filename();
      if (!name.starts_with(prefix + "-")) continue;
      auto& lines = batches[name];
      for (const auto& part : fs::directory_iterator{entry.path()}) {
        if (!part.path().filename().string().starts_with("part-")) continue;
        std::ifstream file{part.path()};
        for (std::string line; std::getline(file, line);) lines.push_back(line);
      }
    }
    return batches;
  }
  // "(word7,3)" -> word7, 3
  static std::pair<std::string, long> count_of(const std::string& line) {
    const std::size_t comma = line.rfind(',');
    return {line.substr(1, comma - 1), std::stol(line.substr(comma + 1))};
  }

  // How many lives ended between the beginning of their recovery and its end, and how many had a batch to run again.
  [[nodiscard]] std::pair<int, int> recoveries() const {
    std::string lives;
    std::getline(std::ifstream{dir_ / "lives"}, lives);
    int unrecovered = 0;
    for (std::size_t i = 0; i < lives.size(); ++i) {
      if (lives[i] != 'b') continue;
      const std::size_t next = lives.find('b', i + 1);
      if (lives.substr(i, next - i).find('r') == std::string::npos) ++unrecovered;
    }
    return {unrecovered, static_cast<int>(std::count(lives.begin(), lives.end(), 'u'))};
  }

  fs::path dir_;
  std::map<std::string, long> expected_;
  std::mt19937 random_{20261122};
};

TEST_F(Kill, AtAnyMomentLosesNothingAndDoublesNothing) {
  const char* const wanted = std::getenv("TIDEMILL_KILLS");
  const int kills = wanted != nullptr ? std::atoi(wanted) : 200;
  int files = 0;
  for (int kill = 0; kill < kills; ++kill) {
    const pid_t child = start();
    // A fifth of them have hardly begun to recover.
    const auto life = kill % 5 == 0 ? 1ms * (random_() % 12) : 10ms + 1ms * (random_() % 60);
    const auto end = std::chrono::steady_clock::now() + life;
    do {
      if (random_() % 3 == 0) feed(files++);
      std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(5ms, life));
    } while (std::chrono::steady_clock::now() < end);
    ::kill(child, SIGKILL);
    ASSERT_EQ(wait_for(child), -1) << "the program ended by itself, before kill " << kill << ", in " << dir_;
  }
  std::ofstream{dir_ / "stop"};
  ASSERT_EQ(wait_for(start()), 0) << "in " << dir_;

  std::map<std::string, std::multiset<long>> counts;
  for (const auto& [batch, lines] : saved("running")) {
    for (const std::string& line : lines) {
      const auto [word, count] = count_of(line);
      counts[word].insert(count);
    }
  }
  ASSERT_EQ(counts.size(), expected_.size());
  for (const auto& [word, seen] : counts) {
    long next = 1;
    for (const long count : seen)
      ASSERT_EQ(count, next++) << "a count of " << word << " is lost or doubled, in " << dir_;
    EXPECT_EQ(next - 1, expected_[word]) << word << " in " << dir_;
  }

  const auto totals = saved("totals");
  ASSERT_FALSE(totals.empty());
  std::map<std::string, long> last;
  for (const std::string& line : totals.rbegin()->second) last.insert(count_of(line));
  EXPECT_EQ(last, expected_);

  // What the receiver had acknowledged is there. A block that was stored and not acknowledged when the process was killed is
  // sent, and so there, twice: at least once, at most twice.
  long acknowledged = 0;
  std::ifstream{dir_ / "acknowledged", std::ios::binary}.read(reinterpret_cast<char*>(&acknowledged),
                                                              sizeof acknowledged);
  std::map<long, int> numbers;
  for (const auto& [batch, lines] : saved("numbers")) {
    for (const std::string& line : lines) ++numbers[std::stol(line)];
  }
  EXPECT_GT(acknowledged, kills);
  int twice = 0;
  for (long number = 0; number < acknowledged; ++number) {
    ASSERT_TRUE(numbers.contains(number)) << number << " of " << acknowledged << " is lost, in " << dir_;
    if (numbers[number] > 1) ++twice;
  }
  EXPECT_LE(twice, 3 * kills);

  // The kills were worth their name: some fell into the recovery from the one before, and many left a batch to be run again.
  const auto [in_recovery, with_batches_run_again] = recoveries();
  RecordProperty("in_recovery", in_recovery);
  RecordProperty("with_batches_run_again", with_batches_run_again);
  EXPECT_GT(in_recovery, kills / 20);
  EXPECT_GT(with_batches_run_again, kills / 20);
  EXPECT_LT(files, static_cast<int>(expected_.size()) * 1000);
}

}  // namespace
