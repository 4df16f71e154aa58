// Exactly once on a real broker: programs with states read words from one topic and write every new total of a word to another,
// while they are killed, their broker is killed and restarted, and their connections are cut. In the end a reader with
// isolation.level=read_committed must find every total of every word exactly once: all are different, so nothing that is lost,
// comes twice, or was aborted can hide. That it would find it is proven by a program that writes at_least_once.
//
//     kafka_exactly_once <broker.sh> <kafka_job> <folder> <cycles> [seed]
#include <iostream>

#include "harness.hpp"
#include "reading.hpp"

namespace {

using namespace tidemill_integration;
using EndOfTransaction = Proxy::EndOfTransaction;

constexpr int partitions = 4;

struct Surroundings {
  Proxy& proxy;
  Broker& broker;
  std::string brokers;  // without the proxy
  std::string program;
  fs::path folder;
  std::mt19937 random;

  [[nodiscard]] int up_to(int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); }
};

// Programs that read `<name>-in` and write `<name>-out`.
class Scenario {
 public:
  Scenario(Surroundings& around, std::string name) : around_{around}, name_{std::move(name)} {
    make_topic(around_.brokers, output(), partitions);
    std::cout << name_ << ": " << std::flush;
  }

  [[nodiscard]] std::string input() const { return name_ + "-in"; }
  [[nodiscard]] std::string output() const { return name_ + "-out"; }
  [[nodiscard]] fs::path checkpoint() const { return around_.folder / (name_ + "-checkpoint"); }
  [[nodiscard]] fs::path log(const std::string& program = "program") const {
    return around_.folder / (name_ + '-' + program + ".log");
  }

  [[nodiscard]] std::vector<std::string> command(std::vector<std::string> more = {}) const {
    std::vector<std::string> all{around_.program, "--brokers",    "127.0.0.1:" + std::to_string(around_.proxy.port()),
                                 "--input",       input(),        "--output",
                                 output(),        "--checkpoint", checkpoint().string()};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }

  struct Count {
    std::size_t expected = 0;
    std::size_t lost = 0;
    std::size_t twice = 0;
    std::size_t foreign = 0;
    [[nodiscard]] bool is_exact() const { return expected != 0 && lost == 0 && twice == 0 && foreign == 0; }
  };
  /// Reads until everything expected is there, and nothing more comes.
  [[nodiscard]] Count count(const std::set<std::string>& expected) const {
    Reader reader{around_.brokers, output(), partitions};
    reader.read(expected.size(), 120s);
    Count result{.expected = expected.size()};
    for (const auto& [value, times] : reader.values) {
      if (times != 1) ++result.twice;
      if (!expected.contains(value)) ++result.foreign;
    }
    for (const std::string& value : expected) result.lost += reader.values.contains(value) ? 0 : 1;
    std::cout << result.expected << " results: " << result.lost << " lost, " << result.twice << " more than once, "
              << result.foreign << " from nowhere" << std::endl;
    return result;
  }

 private:
  Surroundings& around_;
  const std::string name_;
};

// Kills at any moment, of the program and of its broker, and cuts. The input topic is not there when the program starts.
bool kills(Surroundings& around, int cycles) {
  Scenario scenario{around, "kills"};
  const auto command = scenario.command({"--offsets-group", "kills-lag"});
  std::optional<Writer> writer;
  int broker_kills = 0;
  int broker_stops = 0;
  int cuts = 0;
  int ended = 0;
  const auto began = std::chrono::steady_clock::now();
  for (int cycle = 0; cycle < cycles; ++cycle) {
    Job job{command, scenario.log()};
    if (!writer) {
      std::this_thread::sleep_for(700ms);
      make_topic(around.brokers, scenario.input(), partitions);
      writer.emplace(around.brokers, scenario.input());
      if (!expect(await([&] {
                    return lines_with(scenario.log(), "ended: ") != 0 ||
                           committed(around.brokers, "kills-lag", scenario.input(), partitions) > 0;
                  }),
                  "a topic that was made later is read"))
        return false;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds{300 + around.up_to(1200)});
    switch (cycle % 5) {
      case 1:
        for (int i = 0; i < 3; ++i) {
          around.proxy.cut();
          ++cuts;
          std::this_thread::sleep_for(std::chrono::milliseconds{around.up_to(400)});
        }
        break;
      case 3: {
        const bool at_once = around.up_to(2) == 0;
        ++(at_once ? broker_kills : broker_stops);
        static_cast<void>(around.broker.run(at_once ? "kill" : "stop"));
        static_cast<void>(around.broker.start(around.proxy.port()));
        std::this_thread::sleep_for(std::chrono::milliseconds{around.up_to(1000)});
        break;
      }
      default: break;
    }
    if (!job.kill()) ++ended;
  }
  writer->finish();
  const Job last{command, scenario.log()};
  const auto result = scenario.count(writer->expected());
  const std::size_t again = lines_with(scenario.log(), "unfinished batches are run again") -
                            lines_with(scenario.log(), "; 0 unfinished batches are run again");
  std::cout << "  " << cycles << " kills of the program (" << again << " left batches unfinished, "
            << lines_with(scenario.log(), "has been committed already") << " batches had been committed already), "
            << broker_kills << " kills and " << broker_stops << " stops of the broker, " << cuts
            << " cuts of all connections, in "
            << std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - began).count()
            << " s; the program ended by itself " << ended << " times" << std::endl;
  const auto all = static_cast<std::int64_t>(result.expected);
  return expect(result.is_exact(), "every result exactly once") && expect(ended == 0, "no program ends by itself") &&
         expect(again > 0, "some kill leaves a batch unfinished") &&
         expect(await([&] { return committed(around.brokers, "kills-lag", scenario.input(), partitions) == all; }),
                "the offsets of the transactions are those of the input");
}

// A commit whose outcome the producer does not know: the broker has done it, or has not heard of it. First the producer comes
// back at once, and asks again. Then it cannot until its transaction has timed out: another producer has to find out what
// became of it.
bool unknown_commits(Surroundings& around, int cycles) {
  constexpr auto transaction_timeout = 3s;
  Scenario scenario{around, "unknown"};
  make_topic(around.brokers, scenario.input(), partitions);
  Writer writer{around.brokers, scenario.input()};
  Job job{scenario.command({"--offsets-group", "unknown-lag", "--transaction-timeout", "3"}), scenario.log()};
  const auto is_running = [&] {
    const auto before = committed(around.brokers, "unknown-lag", scenario.input(), partitions);
    return await([&] { return committed(around.brokers, "unknown-lag", scenario.input(), partitions) > before; });
  };
  bool good = true;
  for (int cycle = 0; cycle < cycles && good; ++cycle) {
    for (const auto what : {EndOfTransaction::is_lost, EndOfTransaction::goes_unheard}) {
      for (const bool for_long : {false, true}) {
        good = good && expect(is_running(), "batches are committed");
        const std::size_t asked = lines_with(scenario.log(), "is not known, and is asked");
        const std::size_t again = lines_with(scenario.log(), "the transaction was not committed");
        around.proxy.set_down(for_long);
        around.proxy.next_commit(what);
        good = good && expect(await([&] { return around.proxy.has_cut(); }), "a commit is cut off");
        if (!for_long) continue;
        around.proxy.cut();
        std::this_thread::sleep_for(transaction_timeout + 2s);
        around.proxy.set_down(false);
        good = good && expect(is_running(), "batches are committed after that");
        good = good &&
               expect(lines_with(scenario.log(), "is not known, and is asked") > asked, "the outcome is asked for") &&
               expect((lines_with(scenario.log(), "the transaction was not committed") > again) ==
                          (what == EndOfTransaction::is_lost),
                      "the batch is tried again unless it was committed");
      }
    }
  }
  writer.finish();
  good = expect(scenario.count(writer.expected()).is_exact(), "every result exactly once") && good;
  return expect(job.kill(), "the program does not end by itself") && good;
}

// A program is suspended, and another one goes on from a copy of its checkpoint under the same transactional id.
bool zombie(Surroundings& around) {
  Scenario scenario{around, "zombie"};
  make_topic(around.brokers, scenario.input(), partitions);
  Writer writer{around.brokers, scenario.input()};
  const std::vector<std::string> more{"--transactional-id", "the-one", "--offsets-group", "zombie-lag"};
  const auto is_past = [&](std::int64_t records) {
    return await([&] { return committed(around.brokers, "zombie-lag", scenario.input(), partitions) > records; });
  };
  Job first{scenario.command(more), scenario.log("first")};
  bool good = expect(is_past(0), "the first one runs");
  first.signal(SIGSTOP);
  fs::copy(scenario.checkpoint(), around.folder / "zombie-copy", fs::copy_options::recursive);
  auto command = scenario.command(more);
  *(std::find(command.begin(), command.end(), "--checkpoint") + 1) = (around.folder / "zombie-copy").string();
  Job second{command, scenario.log("second")};
  const auto before = committed(around.brokers, "zombie-lag", scenario.input(), partitions);
  good = expect(is_past(before), "the second one goes on") && good;
  first.signal(SIGCONT);
  good = expect(first.exit_status(60s) == 1 && lines_with(scenario.log("first"), "ended: ") == 1 &&
                    lines_with(scenario.log("first"), "fenced") > 0,
                "the first one is shut out, and says so") &&
         good;
  writer.finish();
  good = expect(scenario.count(writer.expected()).is_exact(), "every result exactly once") && good;
  return expect(second.kill(), "the second one does not end by itself") && good;
}

// Copies in a group: some are killed, some come; partitions move with their states.
bool copies(Surroundings& around, int cycles) {
  Scenario scenario{around, "copies"};
  make_topic(around.brokers, scenario.input(), partitions);
  Writer writer{around.brokers, scenario.input()};
  const auto command = scenario.command({"--group", "copies"});
  const auto start = [&] { return std::make_unique<Job>(command, scenario.log()); };
  const auto taken = [&] { return lines_with(scenario.log(), " taken"); };
  bool good = true;
  std::list<std::unique_ptr<Job>> running;
  running.push_back(start());
  good = expect(await([&] { return taken() == partitions; }), "the first copy has all partitions");
  for (int cycle = 0; cycle < cycles && good; ++cycle) {
    std::size_t before = taken();
    running.push_back(start());
    good = expect(await([&] { return taken() > before; }), "a copy that comes takes partitions");
    std::this_thread::sleep_for(std::chrono::milliseconds{around.up_to(2000)});
    before = taken();
    good = good && expect(running.front()->kill(), "no copy ends by itself");
    running.pop_front();
    good = good && expect(await([&] { return taken() > before; }), "the others take over from a copy that was killed");
  }
  writer.finish();
  good = expect(scenario.count(writer.expected()).is_exact(), "every result exactly once") && good;
  const std::size_t moved = taken();
  std::cout << "  " << cycles << " copies came, " << cycles << " were killed, and partitions were taken " << moved
            << " times" << std::endl;
  for (const auto& job : running) good = expect(job->kill(), "no copy ends by itself") && good;
  return good;
}

// That all this would be found: a program that writes at_least_once repeats batches that it was killed in.
bool at_least_once_is_found_out(Surroundings& around) {
  Scenario scenario{around, "at_least_once"};
  make_topic(around.brokers, scenario.input(), partitions);
  Writer writer{around.brokers, scenario.input()};
  const auto command = scenario.command({"--delivery", "at_least_once"});
  for (int cycle = 0; cycle < 6; ++cycle) {
    Job job{command, scenario.log()};
    std::this_thread::sleep_for(std::chrono::milliseconds{600 + around.up_to(600)});
  }
  writer.finish();
  const Job last{command, scenario.log()};
  const auto result = scenario.count(writer.expected());
  return expect(result.lost == 0 && result.foreign == 0, "nothing is lost") &&
         expect(result.twice > 0, "what comes twice is found");
}

int run(const std::vector<std::string>& arguments) {
  const fs::path folder = fs::absolute(arguments.at(2));
  const int cycles = std::stoi(arguments.at(3));
  fs::create_directories(folder);
  Proxy proxy;
  Broker broker{arguments.at(0), folder / "broker"};
  const int port = broker.start(proxy.port());
  proxy.lead_to(port + 1);
  Surroundings around{
      .proxy = proxy,
      .broker = broker,
      .brokers = "127.0.0.1:" + std::to_string(port),
      .program = fs::absolute(arguments.at(1)).string(),
      .folder = folder,
      .random = std::mt19937{arguments.size() > 4 ? static_cast<unsigned>(std::stoul(arguments[4])) : 1U}};
  bool good = true;
  if (cycles > 0) {
    good = kills(around, cycles);
    good = unknown_commits(around, std::max(1, cycles / 10)) && good;
    good = zombie(around) && good;
    good = copies(around, std::max(2, cycles / 5)) && good;
    good = at_least_once_is_found_out(around) && good;
  }
  good = isolation_and_time(around.brokers) && good;
  good = topics_that_are_not_there(around.brokers) && good;
  good = tokens(around.brokers, port + 3) && good;
  return good ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << "kafka_exactly_once: " << error.what() << '\n';
    return 2;
  }
}
