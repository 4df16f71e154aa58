// What the proofs on a real broker are made of: a proxy that cuts connections, the broker, the program under test, a writer of
// its input and a reader of its output.
#pragma once

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <librdkafka/rdkafka.h>
#include <list>
#include <map>
#include <mutex>
#include <netinet/in.h>
#include <optional>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace tidemill_integration {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

inline bool expect(bool good, const std::string& what) {
  if (!good) std::cout << "  FAILED: " << what << std::endl;
  return good;
}

[[noreturn]] inline void fail(const std::string& what) { throw std::runtime_error{what}; }

/// Leads every connection to its port on to another one, and cuts them when told to.
class Proxy {
 public:
  /// What happens to the next EndTxn, the request by which a producer commits.
  enum class EndOfTransaction {
    passes,
    is_lost,       ///< the connection is cut before the broker has it
    goes_unheard,  ///< the broker has it, and the connection is cut before it answers
  };

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
        if (is_there && !is_out()) {
          pumps_.emplace_back([this, from, to] { pump_requests(from, to); });
          pumps_.emplace_back(pump_answers, to, from);
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
  void next_commit(EndOfTransaction what) { next_commit_ = what; }
  /// Then nobody gets through, from the cut of that commit on.
  void set_down(bool down) { is_down_ = down; }
  /// Whether that has happened.
  [[nodiscard]] bool has_cut() const { return next_commit_ == EndOfTransaction::passes; }

 private:
  static sockaddr_in local(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }
  static bool send_all(int to, const char* bytes, std::size_t size) {
    while (size > 0) {
      const ssize_t sent = send(to, bytes, size, MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes += sent;
      size -= static_cast<std::size_t>(sent);
    }
    return true;
  }
  static void close_both(int one, int other) {
    shutdown(one, SHUT_RDWR);
    shutdown(other, SHUT_RDWR);
  }
  static bool read_all(int from, char* bytes, std::size_t size) {
    while (size > 0) {
      const ssize_t more = read(from, bytes, size);
      if (more <= 0) return false;
      bytes += more;
      size -= static_cast<std::size_t>(more);
    }
    return true;
  }
  static void pump_answers(int broker, int program) {
    std::array<char, 65536> bytes;
    for (;;) {
      const ssize_t size = read(broker, bytes.data(), bytes.size());
      if (size <= 0 || !send_all(program, bytes.data(), static_cast<std::size_t>(size))) break;
    }
    close_both(program, broker);
  }
  // A request is its size (four bytes, the highest first), its kind (two bytes) and the rest.
  void pump_requests(int program, int broker) {
    constexpr int end_txn = 26;
    std::vector<char> request;
    for (;;) {
      std::array<unsigned char, 4> size{};
      if (!read_all(program, reinterpret_cast<char*>(size.data()), size.size())) break;
      const std::size_t rest =
          std::size_t{size[0]} << 24 | std::size_t{size[1]} << 16 | std::size_t{size[2]} << 8 | size[3];
      request.resize(rest);
      if (!read_all(program, request.data(), rest)) break;
      const bool is_commit = rest > 2 && request[0] == 0 && request[1] == end_txn;
      const auto what = is_commit ? next_commit_.exchange(EndOfTransaction::passes) : EndOfTransaction::passes;
      if (what == EndOfTransaction::is_lost) break;
      if (what == EndOfTransaction::goes_unheard) shutdown(program, SHUT_WR);  // what the broker says goes nowhere
      if (!send_all(broker, reinterpret_cast<const char*>(size.data()), size.size()) ||
          !send_all(broker, request.data(), rest))
        break;
      if (what == EndOfTransaction::goes_unheard) {
        std::this_thread::sleep_for(300ms);  // for the broker to do it
        break;
      }
    }
    close_both(program, broker);
  }

  [[nodiscard]] bool is_out() const { return is_down_ && has_cut(); }

  int listener_;
  int port_ = 0;
  std::atomic<bool> is_down_ = false;
  std::atomic<EndOfTransaction> next_commit_ = EndOfTransaction::passes;
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

  void signal(int number) const { ::kill(pid_, number); }
  /// Waits for it to end by itself: its exit status, or absent when it does not.
  [[nodiscard]] std::optional<int> exit_status(std::chrono::seconds at_most) {
    const auto deadline = std::chrono::steady_clock::now() + at_most;
    for (int status = 0; std::chrono::steady_clock::now() < deadline; std::this_thread::sleep_for(20ms)) {
      if (waitpid(pid_, &status, WNOHANG) != pid_) continue;
      pid_ = 0;
      return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }
    return std::nullopt;
  }
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

inline rd_kafka_t* client(rd_kafka_type_t type, const std::map<std::string, std::string>& settings) {
  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  std::array<char, 512> why{};
  rd_kafka_conf_set(conf, "log_level", "0", why.data(), why.size());  // that the broker is away is no news here
  for (const auto& [name, value] : settings) {
    if (rd_kafka_conf_set(conf, name.c_str(), value.c_str(), why.data(), why.size()) != RD_KAFKA_CONF_OK)
      fail(why.data());
  }
  rd_kafka_t* made = rd_kafka_new(type, conf, why.data(), why.size());
  if (made == nullptr) fail(why.data());
  return made;
}

inline void make_topic(const std::string& brokers, const std::string& name, int partitions) {
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

/// Writes words into a topic all the time, each exactly once (an idempotent producer), by their keys into its partitions.
class Writer {
 public:
  static constexpr int words = 50;

  Writer(const std::string& brokers, const std::string& topic)
      : client_{client(RD_KAFKA_PRODUCER, {{"bootstrap.servers", brokers},
                                           {"enable.idempotence", "true"},
                                           {"message.timeout.ms", "120000"},
                                           {"reconnect.backoff.max.ms", "500"},
                                           {"linger.ms", "5"}})},
        topic_{rd_kafka_topic_new(client_, topic.c_str(), nullptr)},
        thread_{[this] { write(); }} {}
  ~Writer() {
    finish();
    rd_kafka_topic_destroy(topic_);
    rd_kafka_destroy(client_);
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  /// Ends, when everything is there; then `written` tells how often each word is.
  void finish() {
    is_over_ = true;
    if (thread_.joinable()) thread_.join();
    if (rd_kafka_flush(client_, 120'000) != RD_KAFKA_RESP_ERR_NO_ERROR) fail("the input could not be written");
  }
  /// Every total that has to come out.
  [[nodiscard]] std::set<std::string> expected() const {
    std::set<std::string> all;
    for (const auto& [word, count] : written_) {
      for (long i = 1; i <= count; ++i) all.insert(word + ' ' + std::to_string(i));
    }
    return all;
  }

 private:
  void write() {
    std::mt19937 random{7};
    while (!is_over_) {
      for (int i = 0; i < 40; ++i) {
        std::string word = 'w' + std::to_string(random() % words);
        while (rd_kafka_produce(topic_, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, word.data(), word.size(),
                                word.data(), word.size(), nullptr) != 0)
          rd_kafka_poll(client_, 50);
        ++written_[word];
      }
      rd_kafka_poll(client_, 0);
      std::this_thread::sleep_for(25ms);
    }
  }

  rd_kafka_t* client_;
  rd_kafka_topic_t* topic_;
  std::map<std::string, long> written_;  // the thread's, until it has ended
  std::atomic<bool> is_over_ = false;
  std::thread thread_;
};

/// How many records of a topic a consumer group has behind it, by what was committed.
[[nodiscard]] inline std::int64_t committed(const std::string& brokers, const std::string& group,
                                            const std::string& topic, int partitions) {
  rd_kafka_t* monitor = client(RD_KAFKA_CONSUMER, {{"bootstrap.servers", brokers}, {"group.id", group}});
  rd_kafka_topic_partition_list_t* all = rd_kafka_topic_partition_list_new(partitions);
  for (int p = 0; p < partitions; ++p) rd_kafka_topic_partition_list_add(all, topic.c_str(), p);
  std::int64_t sum = 0;
  if (rd_kafka_committed(monitor, all, 10'000) == RD_KAFKA_RESP_ERR_NO_ERROR) {
    for (int p = 0; p < partitions; ++p) sum += std::max<std::int64_t>(0, all->elems[p].offset);
  }
  rd_kafka_topic_partition_list_destroy(all);
  rd_kafka_destroy(monitor);
  return sum;
}

[[nodiscard]] inline std::size_t lines_with(const fs::path& log, const std::string& words) {
  std::size_t count = 0;
  std::ifstream in{log};
  for (std::string line; std::getline(in, line);) count += line.find(words) != std::string::npos ? 1 : 0;
  return count;
}
template <class Condition>
[[nodiscard]] bool await(const Condition& condition, std::chrono::seconds at_most = 60s) {
  const auto deadline = std::chrono::steady_clock::now() + at_most;
  for (; std::chrono::steady_clock::now() < deadline; std::this_thread::sleep_for(20ms)) {
    if (condition()) return true;
  }
  return condition();
}

}  // namespace tidemill_integration
