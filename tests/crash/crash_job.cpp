// The program that kill_test.cpp kills and starts again, until all of its input is worked on. It keeps state in every way that
// there is, over an input that can be read again and one that cannot, and writes everything it finds to files.
//   crash_job DIR        DIR/in: files of words; DIR/out: a directory a batch; ends soon after DIR/stop has appeared
//                        DIR/lives: for each life 'b' when it begins to recover, 'u' when there are unfinished batches to be run
//                        again, and 'r' when its first batch is done, those before it
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <unistd.h>
#include <utility>

#include "tidemill/tidemill.hpp"

namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using Count = std::pair<std::string, long>;

// Numbers from 0 on. Each block is stored, and then acknowledged to whom they come from: a file that outlives the process.
class Numbers final : public tidemill::Receiver<long> {
 public:
  explicit Numbers(const fs::path& acknowledged)
      : file_{::open(acknowledged.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)} {
    if (::pread(file_, &next_, sizeof next_, 0) != sizeof next_) next_ = 0;
  }
  ~Numbers() override { ::close(file_); }

 private:
  void on_start() override {
    thread_ = std::jthread{[this](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        if (!store(std::vector<long>{next_, next_ + 1, next_ + 2})) return;
        next_ += 3;
        if (::pwrite(file_, &next_, sizeof next_, 0) != sizeof next_) return;
        std::this_thread::sleep_for(1ms);
      }
    }};
  }
  void on_stop() override { thread_ = {}; }

  int file_;
  long next_ = 0;
  std::jthread thread_;
};

// What the program has come to, in a file that outlives it.
class Lives {
 public:
  explicit Lives(const fs::path& path) : file_{::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)} {}
  ~Lives() { ::close(file_); }
  Lives(const Lives&) = delete;
  Lives& operator=(const Lives&) = delete;

  void note(char what) const {
    if (::write(file_, &what, 1) != 1) std::perror("crash_job: lives");
  }

 private:
  int file_;
};

class Recovered final : public tidemill::StreamingListener {
 public:
  explicit Recovered(const Lives& lives) : lives_{lives} {}
  void on_batch_completed(const tidemill::BatchInfo&) override {
    if (!std::exchange(is_noted_, true)) lives_.note('r');
  }

 private:
  const Lives& lives_;
  bool is_noted_ = false;
};

std::unique_ptr<tidemill::StreamingContext> build(const tidemill::Context& context, const fs::path& dir) {
  auto ssc = std::make_unique<tidemill::StreamingContext>(context, 10ms);
  const auto words = ssc->text_file_stream(dir / "in", {.new_files_only = false, .min_remember = 1h})
                         .flat_map(tidemill::split(' '))
                         .map([](std::string_view word) {
                           return Count{word, 1L};
                         });

  // Each word with how often it has come: every count of every word has to come exactly once.
  words
      .map_with_state(tidemill::state_spec<long>(
          [](const std::string& word, std::optional<long> one, tidemill::State<long>& state) {
            state.update(state.get_option().value_or(0) + one.value_or(0));
            return Count{word, state.get()};
          }))
      .save_as_text_files(dir / "out" / "running");

  // The whole state, every batch: the last one is the total.
  words
      .update_state_by_key<long>([](const std::vector<long>& ones, std::optional<long> total) -> std::optional<long> {
        return total.value_or(0) + static_cast<long>(ones.size());
      })
      .save_as_text_files(dir / "out" / "totals");

  // A window by its inverse, and the same one by two stacks: at no time may they differ.
  const auto running = words.reduce_by_key_and_window(std::plus<>{}, std::minus<>{}, 100ms, 10ms, 2,
                                                      [](const std::string&, long count) { return count != 0; });
  const auto folded = words.reduce_by_key_and_window(std::plus<>{}, 100ms, 10ms, 2);
  running.full_outer_join(folded).foreach_batch([](const auto& batch, tidemill::Time t) {
    for (const auto& [word, counts] : batch.collect()) {
      if (counts.first != counts.second)
        throw std::runtime_error{"the windows of " + word + " at " + tidemill::to_string(t) + " differ"};
    }
  });

  ssc->receiver_stream(std::make_shared<Numbers>(dir / "acknowledged")).save_as_text_files(dir / "out" / "numbers");
  return ssc;
}

}  // namespace

int main(int, char** argv) {
  const fs::path dir = argv[1];
  try {
    const Lives lives{dir / "lives"};
    const tidemill::Logger log = [&lives](tidemill::LogLevel, std::string_view line) {
      if (line.find("unfinished batches are run again") != line.npos && line.find("; 0 unfinished") == line.npos)
        lives.note('u');
    };
    const tidemill::Context context{{.app_name = "crash-job", .parallelism = 2, .log = log}};
    const auto ssc = tidemill::StreamingContext::get_or_create(
        dir / "checkpoint", [&] { return build(context, dir); },
        {.catch_up = tidemill::CatchUp::merged,
         .log_received = true,
         .store = {.snapshot_min_log_bytes = 32 * 1024, .commit_segment_bytes = 16 * 1024}});
    ssc->add_listener(std::make_shared<Recovered>(lives));
    lives.note('b');
    ssc->start();
    while (!fs::exists(dir / "stop") && ssc->state() == tidemill::StreamingState::active)
      std::this_thread::sleep_for(5ms);
    std::this_thread::sleep_for(300ms);  // batches that take what came last
    ssc->stop(tidemill::StopMode::graceful);
    ssc->await_termination();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "crash_job: %s\n", error.what());
    return 1;
  }
  return 0;
}
