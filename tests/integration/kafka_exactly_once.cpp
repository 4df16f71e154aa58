// Exactly once on a real broker: a program with states is killed, its broker is killed and restarted, its connections are cut, at
// random moments. In the end a reader with isolation.level=read_committed must find every total of every word exactly once: all
// are different, so nothing that is lost, comes twice, or was aborted can hide.
//
//     kafka_exactly_once <broker.sh> <kafka_job> <folder> <cycles> [seed]
#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <librdkafka/rdkafka.h>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <netinet/in.h>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error{what}; }

/// Leads every connection to its port on to another one, and cuts them all when told to.
class Proxy {
 public:
  Proxy() : listener_{socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)} {
    sockaddr_in address = local(0);
    socklen_t size = sizeof address;
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener_, 64) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0)
      fail("the proxy has no port");
    port_ = ntohs(address.sin_port);
  }
  ~Proxy() {
    shutdown(listener_, SHUT_RDWR);
    if (acceptor_.joinable()) acceptor_.join();
    cut();
    for (std::thread& pump : pumps_) pump.join();
    for (const int one : all_) close(one);
    close(listener_);
  }
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;

  [[nodiscard]] int port() const { return port_; }
  void lead_to(int port) {
    acceptor_ = std::thread{[this, port] {
      for (;;) {
        const int from = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
        if (from < 0) return;
        const int to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const sockaddr_in address = local(port);
        const bool is_there = connect(to, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
        const std::scoped_lock lock{mutex_};
        all_.insert(all_.end(), {from, to});
        if (is_there) {
          pumps_.emplace_back(pump, from, to);
          pumps_.emplace_back(pump, to, from);
        } else {
          shutdown(from, SHUT_RDWR);
        }
      }
    }};
  }
  void cut() {
    const std::scoped_lock lock{mutex_};
    for (const int one : all_) shutdown(one, SHUT_RDWR);
  }

 private:
  static sockaddr_in local(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }
  static void pump(int from, int to) {
    std::array<char, 65536> bytes;
    for (;;) {
      const ssize_t size = read(from, bytes.data(), bytes.size());
      ssize_t sent = 0;
      while (sent < size) {
        const ssize_t more = send(to, bytes.data() + sent, static_cast<std::size_t>(size - sent), MSG_NOSIGNAL);
        if (more <= 0) break;
        sent += more;
      }
      if (size <= 0 || sent < size) break;
    }
    shutdown(from, SHUT_RDWR);
    shutdown(to, SHUT_RDWR);
  }

  int listener_;
  int port_ = 0;
  std::thread acceptor_;
  std::mutex mutex_;  // guards what follows
  std::vector<int> all_;
  std::list<std::thread> pumps_;
};

/// The program under test, one life of it.
class Job {
 public:
  Job(const std::vector<std::string>& command, const fs::path& log) {
    std::vector<char*> arguments;
    for (const std::string& one : command) arguments.push_back(const_cast<char*>(one.c_str()));
    arguments.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      const int to = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
      dup2(to, 1);
      dup2(to, 2);
      execv(arguments[0], arguments.data());
      _exit(127);
    }
  }
  ~Job() { kill(); }
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  /// False when it had ended by itself.
  bool kill() {
    if (pid_ <= 0) return true;
    ::kill(pid_, SIGKILL);
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFSIGNALED(status);
  }

 private:
  pid_t pid_;
};

class Broker {
 public:
  Broker(std::string script, fs::path folder) : script_{std::move(script)}, folder_{std::move(folder)} {}
  ~Broker() { static_cast<void>(run("stop")); }
  Broker(const Broker&) = delete;
  Broker& operator=(const Broker&) = delete;
  [[nodiscard]] int start(int proxied) {
    if (run("start", ' ' + std::to_string(proxied)) != 0) fail("the broker does not start");
    int port = 0;
    std::ifstream{folder_ / "port"} >> port;
    return port;
  }
  [[nodiscard]] int run(const std::string& what, const std::string& more = "") const {
    return std::system(
        ("bash '" + script_ + "' " + what + " '" + folder_.string() + '\'' + more + " > /dev/null").c_str());
  }

 private:
  std::string script_;
  fs::path folder_;
};

rd_kafka_t* client(rd_kafka_type_t type, const std::map<std::string, std::string>& settings) {
  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  std::array<char, 512> why{};
  for (const auto& [name, value] : settings) {
    if (rd_kafka_conf_set(conf, name.c_str(), value.c_str(), why.data(), why.size()) != RD_KAFKA_CONF_OK)
      fail(why.data());
  }
  rd_kafka_t* made = rd_kafka_new(type, conf, why.data(), why.size());
  if (made == nullptr) fail(why.data());
  return made;
}

void make_topic(const std::string& brokers, const std::string& name, int partitions) {
  rd_kafka_t* admin = client(RD_KAFKA_PRODUCER, {{"bootstrap.servers", brokers}});
  std::array<char, 512> why{};
  rd_kafka_NewTopic_t* topic = rd_kafka_NewTopic_new(name.c_str(), partitions, 1, why.data(), why.size());
  rd_kafka_queue_t* queue = rd_kafka_queue_new(admin);
  rd_kafka_CreateTopics(admin, &topic, 1, nullptr, queue);
  rd_kafka_event_t* event = rd_kafka_queue_poll(queue, 30'000);
  if (event == nullptr || rd_kafka_event_error(event) != 0) fail("the topic \"" + name + "\" could not be made");
  rd_kafka_event_destroy(event);
  rd_kafka_queue_destroy(queue);
  rd_kafka_NewTopic_destroy(topic);
  rd_kafka_destroy(admin);
}

/// Reads on until `enough(values)` or the deadline; every value with how often it came.
class Reader {
 public:
  Reader(const std::string& brokers, const std::string& topic, int partitions)
      : client_{client(RD_KAFKA_CONSUMER, {{"bootstrap.servers", brokers},
                                           {"group.id", "reader"},
                                           {"isolation.level", "read_committed"},
                                           {"enable.auto.commit", "false"}})} {
    rd_kafka_poll_set_consumer(client_);
    rd_kafka_topic_partition_list_t* all = rd_kafka_topic_partition_list_new(partitions);
    for (int p = 0; p < partitions; ++p) rd_kafka_topic_partition_list_add(all, topic.c_str(), p)->offset = 0;
    rd_kafka_assign(client_, all);
    rd_kafka_topic_partition_list_destroy(all);
  }
  ~Reader() {
    rd_kafka_consumer_close(client_);
    rd_kafka_destroy(client_);
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  void read(std::size_t enough, std::chrono::seconds at_most) {
    const auto deadline = std::chrono::steady_clock::now() + at_most;
    auto quiet_since = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() < deadline) {
      rd_kafka_message_t* message = rd_kafka_consumer_poll(client_, 200);
      // What comes too often comes soon after.
      if (message == nullptr && values.size() >= enough && std::chrono::steady_clock::now() > quiet_since + 3s) return;
      if (message == nullptr) continue;
      if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        quiet_since = std::chrono::steady_clock::now();
        ++values[std::string{static_cast<const char*>(message->payload), message->len}];
      }
      rd_kafka_message_destroy(message);
    }
  }

  std::map<std::string, int> values;

 private:
  rd_kafka_t* client_;
};

int run(const std::vector<std::string>& arguments) {
  const std::string& script = arguments.at(0);
  const fs::path folder = fs::absolute(arguments.at(2));
  const int cycles = std::stoi(arguments.at(3));
  std::mt19937 random{arguments.size() > 4 ? static_cast<unsigned>(std::stoul(arguments[4])) : 1U};
  const auto up_to = [&random](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  constexpr int partitions = 3;
  constexpr int words = 50;

  fs::create_directories(folder / "in");
  Proxy proxy;
  Broker broker{script, folder / "broker"};
  const int port = broker.start(proxy.port());
  proxy.lead_to(port + 1);
  const std::string brokers = "127.0.0.1:" + std::to_string(port);
  make_topic(brokers, "totals", partitions);

  // The input grows all the time, and all that it will have had is known at the end.
  std::map<int, long> written;
  std::atomic<bool> is_over = false;
  std::thread writer{[&] {
    std::mt19937 words_of{7};
    for (int file = 0; !is_over; ++file) {
      const fs::path name = "words-" + std::to_string(file);
      {
        std::ofstream out{folder / name};
        for (int i = 0; i < 40; ++i) {
          const int word = static_cast<int>(words_of() % words);
          ++written[word];
          out << 'w' << word << '\n';
        }
      }
      fs::rename(folder / name, folder / "in" / name);
      std::this_thread::sleep_for(25ms);
    }
  }};

  const std::vector<std::string> command{fs::absolute(arguments.at(1)).string(),
                                         "127.0.0.1:" + std::to_string(proxy.port()),
                                         (folder / "in").string(),
                                         "totals",
                                         (folder / "checkpoint").string(),
                                         "50"};
  int broker_kills = 0;
  int broker_stops = 0;
  int cuts = 0;
  int ended = 0;
  const auto began = std::chrono::steady_clock::now();
  for (int cycle = 0; cycle < cycles; ++cycle) {
    Job job{command, folder / "job.log"};
    std::this_thread::sleep_for(std::chrono::milliseconds{300 + up_to(1200)});
    switch (cycle % 5) {
      case 1:
        for (int i = 0; i < 3; ++i) {
          proxy.cut();
          ++cuts;
          std::this_thread::sleep_for(std::chrono::milliseconds{up_to(400)});
        }
        break;
      case 3: {
        const bool at_once = up_to(2) == 0;
        ++(at_once ? broker_kills : broker_stops);
        static_cast<void>(broker.run(at_once ? "kill" : "stop"));
        static_cast<void>(broker.start(proxy.port()));
        std::this_thread::sleep_for(std::chrono::milliseconds{up_to(1000)});
        break;
      }
      default: break;
    }
    if (!job.kill()) ++ended;
  }
  is_over = true;
  writer.join();

  std::set<std::string> expected;
  for (const auto& [word, count] : written) {
    for (long i = 1; i <= count; ++i) expected.insert('w' + std::to_string(word) + ' ' + std::to_string(i));
  }
  Reader reader{brokers, "totals", partitions};
  const Job last{command, folder / "job.log"};
  reader.read(expected.size(), 120s);

  std::size_t twice = 0;
  std::size_t foreign = 0;
  for (const auto& [value, times] : reader.values) {
    if (times != 1) ++twice;
    if (!expected.contains(value)) ++foreign;
  }
  std::size_t lost = 0;
  for (const std::string& value : expected) lost += reader.values.contains(value) ? 0 : 1;
  std::size_t again = 0;
  std::size_t left_out = 0;
  std::ifstream log{folder / "job.log"};
  for (std::string line; std::getline(log, line);) {
    if (line.find("unfinished batches are run again") != std::string::npos &&
        line.find("; 0 unfinished") == std::string::npos)
      ++again;
    if (line.find("has been committed already") != std::string::npos) ++left_out;
  }
  std::cout << cycles << " kills of the program (" << again << " left batches unfinished, " << left_out
            << " batches had been committed already), " << broker_kills << " kills and " << broker_stops
            << " stops of the broker, " << cuts << " cuts of all connections, in "
            << std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - began).count()
            << " s\n"
            << expected.size() << " results: " << lost << " lost, " << twice << " more than once, " << foreign
            << " from nowhere; the program ended by itself " << ended << " times\n";
  return lost == 0 && twice == 0 && foreign == 0 && ended == 0 && again > 0 ? 0 : 1;
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
