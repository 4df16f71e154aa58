// Whatever goes wrong, the host lives on: each case runs in a process of its own, which watches for std::terminate, abort and
// exit and has to come to its end by itself. DESIGN §4.1.
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <new>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>

#include "engine/harness.hpp"
#include "tidemill/batch/split.hpp"

// ---- memory that can run out --------------------------------------------------------------------------------------------

namespace {

thread_local bool memory_is_out = false;  // every allocation of this thread fails
std::atomic<long> fails_at = -1;          // the allocation that fails, counted down; negative: none

void* allocate(std::size_t size) {
  if (memory_is_out) throw std::bad_alloc{};
  if (fails_at.load(std::memory_order_relaxed) >= 0 && fails_at.fetch_sub(1) == 0) throw std::bad_alloc{};
  if (void* const memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc{};
}

}  // namespace

void* operator new(std::size_t size) { return allocate(size); }
void* operator new[](std::size_t size) { return allocate(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  try {
    return allocate(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void* operator new[](std::size_t size, const std::nothrow_t& nothrow) noexcept { return operator new(size, nothrow); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace tidemill {
namespace {

using namespace testing_engine;
namespace fs = std::filesystem;

// ---- a process of its own -----------------------------------------------------------------------------------------------

int report_to = -1;  // the pipe to the test

void say(const char* what) { static_cast<void>(!write(report_to, what, std::strlen(what))); }

// What a case finds wrong; in its own process there is no GoogleTest to tell.
#define REQUIRE(condition)                          \
  do {                                              \
    if (!(condition)) say("not: " #condition "\n"); \
  } while (false)

/// Runs `work` in a child process; gives what went wrong there, or nothing.
std::string survives(void (*work)()) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  const pid_t child = fork();
  if (child < 0) return "no process";
  if (child == 0) {
    close(ends[0]);
    report_to = ends[1];
    std::set_terminate([] {
      say("std::terminate was called\n");
      _exit(1);
    });
    std::signal(SIGABRT, [](int) {
      say("abort was called\n");
      _exit(1);
    });
    std::atexit([] {
      say("exit was called\n");
      _exit(1);
    });
    std::at_quick_exit([] {
      say("quick_exit was called\n");
      _exit(1);
    });
    alarm(100);
    try {
      work();
      say("end");
    } catch (const std::exception& error) {
      say("an exception came out: ");
      say(error.what());
      say("\n");
    } catch (...) {
      say("an exception came out\n");
    }
    _exit(0);
  }
  close(ends[1]);
  std::string said;
  char bytes[4096];
  for (ssize_t n = read(ends[0], bytes, sizeof bytes); n > 0; n = read(ends[0], bytes, sizeof bytes))
    said.append(bytes, static_cast<std::size_t>(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (!said.ends_with("end")) return said + "the process ended early, with status " + std::to_string(status);
  if (status != 0) return said + " status " + std::to_string(status);
  said.resize(said.size() - 3);
  return said;
}

/// A streaming context with two threads of workers under the system's clock, and what it does.
struct Host {
  Log log;
  Context context{{.app_name = "host", .parallelism = 3, .executor = nullptr, .clock = nullptr, .log = log.logger()}};
  std::ostringstream printed;
  StreamingContext ssc{context, 5ms, {.graceful_stop_timeout = {}, .output = &printed}};
  [[nodiscard]] bool batches_pass(std::uint64_t how_many) {
    const std::uint64_t until = ssc.metrics().total_completed_batches + how_many;
    return eventually([&] { return ssc.metrics().total_completed_batches >= until; });
  }
};

using Server = boost::asio::ip::tcp;

/// Listens on the loopback and sends `bytes` to each who connects, until the process ends.
std::uint16_t serve(std::string bytes) {
  static boost::asio::io_context io;
  auto acceptor = std::make_shared<Server::acceptor>(io, Server::endpoint{boost::asio::ip::address_v4::loopback(), 0});
  const std::uint16_t port = acceptor->local_endpoint().port();
  std::thread{[acceptor, bytes = std::move(bytes)] {
    while (true) {
      boost::system::error_code failure;
      Server::socket socket{io};
      acceptor->accept(socket, failure);
      boost::asio::write(socket, boost::asio::buffer(bytes), failure);
    }
  }}.detach();
  return port;
}

// ---- the cases ----------------------------------------------------------------------------------------------------------

std::string garbage(std::size_t size) {
  std::string bytes(size, '\0');
  std::uint32_t state = 1;
  for (char& byte : bytes) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<char>(state >> 24);
  }
  return bytes;
}

TEST(HostSurvival, OfBadInput) {
  const std::string outcome = survives([] {
    const std::uint16_t port = serve("good\n" + std::string(5000, 'x') + '\n' + garbage(100000) + "\ncut");
    Host host;
    SocketOptions options;
    options.max_line_bytes = 1000;
    options.max_block_bytes = 1000;
    options.reconnect_delay_min = 1ms;
    const auto lines = record(host.ssc.socket_text_stream("127.0.0.1", port, options));
    const auto blocks = record(host.ssc.raw_socket_stream<std::vector<std::string>>("127.0.0.1", port, options));
    const auto decoded = record(host.ssc.socket_stream<int>(
        "127.0.0.1", port,
        [](std::span<const std::byte>, bool, std::vector<int>&) -> std::size_t {
          throw std::runtime_error{"not mine"};
        },
        options));
    host.ssc.start();
    REQUIRE(eventually([&] { return host.ssc.metrics().total_received_records > 100; }));
    REQUIRE(eventually([&] { return host.ssc.metrics().receiver_errors > 10; }));
    REQUIRE(host.batches_pass(3));
    host.ssc.stop();
  });
  EXPECT_EQ(outcome, "");
}

TEST(HostSurvival, OfBadFiles) {
  const std::string outcome = survives([] {
    const fs::path directory = fs::temp_directory_path() / ("tidemill-bad-" + std::to_string(getpid()));
    fs::create_directories(directory);
    std::ofstream{directory / "garbage"} << garbage(10007);
    Host host;
    DirectoryOptions options;
    options.new_files_only = false;
    options.max_line_bytes = 10;
    const auto lines = record(host.ssc.text_file_stream(directory, options));
    const auto records = record(host.ssc.binary_records_stream(directory, 100, options));
    host.ssc.start();
    REQUIRE(host.batches_pass(5));
    bool refused = false;
    try {
      (void)host.context.object_file<std::string>(directory / "garbage").collect();
    } catch (const Error&) {
      refused = true;
    }
    REQUIRE(refused);
    REQUIRE(host.ssc.metrics().total_failed_batches > 0);
    REQUIRE(host.ssc.state() == StreamingState::active);
    host.ssc.stop();
    fs::remove_all(directory);
  });
  EXPECT_EQ(outcome, "");
}

[[noreturn]] void boom() { throw std::runtime_error{"boom"}; }

struct BadListener final : StreamingListener {
  void on_streaming_started(Time) override { boom(); }
  void on_receiver_started(const ReceiverInfo&) override { boom(); }
  void on_receiver_stopped(const ReceiverInfo&) override { throw 1; }
  void on_batch_submitted(const BatchInfo&) override { boom(); }
  void on_batch_completed(const BatchInfo&) override { throw 2; }
};

TEST(HostSurvival, OfUserFunctionsThatThrow) {
  const std::string outcome = survives([] {
    Context context{{.app_name = "host",
                     .parallelism = 3,
                     .executor = nullptr,
                     .clock = nullptr,
                     .log = [](LogLevel, std::string_view) { boom(); }}};
    std::ostringstream printed;
    StreamingContext ssc{context, 5ms, {.graceful_stop_timeout = {}, .output = &printed}};
    const auto feed = std::make_shared<Feed<int>>();
    feed->when_stopped = [] { throw 3; };
    const auto hopeless = std::make_shared<Feed<int>>();
    hopeless->when_started = boom;
    const auto stream = ssc.receiver_stream(feed);
    ssc.receiver_stream(hopeless, {.name = "hopeless", .restart_delay = 1ms}).print();
    const auto numbers = stream.map_partitions([](std::span<const int>) {
      std::vector<int> many(50000);  // enough for the workers to take part
      for (std::size_t i = 0; i < many.size(); ++i) many[i] = static_cast<int>(i);
      return many;
    });
    const auto fails = [](int i) -> int { return i % 1000 == 999 ? throw i : i; };
    numbers.repartition(7).map(fails).count().print();
    numbers.filter([](int i) -> bool { return i > 40000 ? throw std::bad_alloc{} : true; }).print();
    numbers.key_by(fails).reduce_by_key([](int, int) -> int { boom(); }).print();
    numbers.map([](int i) { return std::pair{i % 7, i}; }).reduce_by_key([](int, int) -> int { boom(); }).print();
    stream.foreach_batch([](const auto&) { boom(); });
    const auto seen = record(stream);
    ssc.add_listener(std::make_shared<BadListener>());
    ssc.engine()->when_terminated([](std::exception_ptr) { boom(); });
    ssc.start();
    REQUIRE(eventually([&] { return feed->is_started(); }));
    feed->put(1);
    REQUIRE(seen->wait_for(5));
    try {
      ssc.await_termination();
      say("no error was delivered\n");
    } catch (const Error&) {
    }
    REQUIRE(ssc.state() == StreamingState::active);
    ssc.stop(StopMode::graceful);
  });
  EXPECT_EQ(outcome, "");
}

TEST(HostSurvival, OfATransformThatThrows) {
  const std::string outcome = survives([] {
    Host host;
    std::atomic<int> calls = 0;
    host.ssc.receiver_stream(std::make_shared<Feed<int>>())
        .transform([&](const Batch<int>& batch) {
          if (++calls % 2 == 1) boom();
          return batch;
        })
        .print();
    host.ssc.start();
    REQUIRE(eventually([&] { return calls > 6; }));
    REQUIRE(host.batches_pass(1));
  });
  EXPECT_EQ(outcome, "");
}

TEST(HostSurvival, OfARefusedConnection) {
  const std::string outcome = survives([] {
    boost::asio::io_context io;
    Server::acceptor nobody{io, Server::endpoint{boost::asio::ip::address_v4::loopback(), 0}};
    const std::uint16_t port = nobody.local_endpoint().port();
    nobody.close();
    Host host;
    SocketOptions options;
    options.reconnect_delay_min = 1ms;
    options.reconnect_delay_max = 2ms;
    const auto lines = record(host.ssc.socket_text_stream("127.0.0.1", port, options));
    const auto unknown = record(host.ssc.socket_text_stream("no such host.invalid", port, options));
    host.ssc.start();
    REQUIRE(eventually([&] { return host.ssc.metrics().receiver_errors > 3; }));
    REQUIRE(host.batches_pass(3));
    REQUIRE(host.ssc.stop(StopMode::graceful));
  });
  EXPECT_EQ(outcome, "");
}

TEST(HostSurvival, OfADirectoryThatCannotBeRead) {
  const std::string outcome = survives([] {
    const fs::path directory = fs::temp_directory_path() / ("tidemill-unreadable-" + std::to_string(getpid()));
    fs::create_directories(directory / "locked");
    std::ofstream{directory / "file"} << "no directory\n";
    fs::permissions(directory / "locked", fs::perms::none);
    if (geteuid() == 0) REQUIRE(setuid(65534) == 0);  // root may read everything
    Host host;
    for (const char* name : {"locked", "missing", "file"}) host.ssc.text_file_stream(directory / name).print();
    host.ssc.start();
    REQUIRE(host.batches_pass(5));
    REQUIRE(host.ssc.metrics().total_failed_batches == 0);  // I5: an empty batch, not a failure
    REQUIRE(host.log.says("warning"));
    REQUIRE(host.ssc.stop(StopMode::graceful));
  });
  EXPECT_EQ(outcome, "");
}

// A file system of 64 KiB; where a process may not mount one, no file can be larger, which fails in the same way.
void make_small_disk(const fs::path& where) {
  if (unshare(CLONE_NEWNS) == 0) {
    mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
    if (mount("tmpfs", where.c_str(), "tmpfs", 0, "size=64k") == 0) return;
  }
  std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit limit {
    65536, 65536
  };
  REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

TEST(HostSurvival, OfAFullDisk) {
  const std::string outcome = survives([] {
    const fs::path disk = fs::temp_directory_path() / ("tidemill-disk-" + std::to_string(getpid()));
    fs::create_directories(disk);
    make_small_disk(disk);
    std::ofstream full{"/dev/full"};
    Rig rig;
    const auto queue = std::make_shared<BatchQueue<std::string>>();
    const auto stream = rig.ssc.queue_stream(queue);
    stream.save_as_text_files((disk / "text").string());
    stream.save_as_object_files((disk / "objects").string());
    stream.print(full);
    const auto seen = record(stream);
    rig.ssc.start(Drive::by_host);
    for (const std::size_t size : {200000u, 100u}) {
      queue->push(std::vector<std::string>{garbage(size)});
      rig.pass(1s);
      const auto outputs = rig.ssc.metrics().last_completed_batch->outputs;
      for (std::size_t i = 0; i < 2; ++i) {
        REQUIRE(outputs[i].failure_reason.has_value() == (size == 200000));
      }
      REQUIRE(outputs[2].failure_reason.has_value());
    }
    REQUIRE(seen->size() == 2);
    REQUIRE(fs::exists(disk / "text-1002000"));
    REQUIRE(!fs::exists(disk / "text-1001000"));
    rig.ssc.stop();
    umount2(disk.c_str(), MNT_DETACH);
    fs::remove_all(disk);
  });
  EXPECT_EQ(outcome, "");
}

TEST(HostSurvival, OfMemoryThatRunsOutInAUserFunction) {
  const std::string outcome = survives([] {
    Host host;
    const auto feed = std::make_shared<Feed<int>>();
    std::atomic<int> failed = 0;
    const auto stream = host.ssc.receiver_stream(feed);
    stream
        .map([&](int i) {
          if (i % 2 == 1) {
            ++failed;
            memory_is_out = true;  // until the batch has failed
          }
          return std::string(1000, 'x');
        })
        .foreach_batch([](const auto& batch) { (void)batch.collect(); });
    stream.foreach_batch([](const auto&) { memory_is_out = false; });
    const auto seen = record(stream);
    host.ssc.start();
    for (int i = 0; i < 20; ++i) {
      while (!feed->put(i)) {
      }
      REQUIRE(host.batches_pass(2));
    }
    REQUIRE(failed > 0);
    REQUIRE(host.ssc.metrics().total_failed_batches > 0);
    REQUIRE(host.ssc.state() == StreamingState::active);
    REQUIRE(host.ssc.stop(StopMode::graceful));
  });
  EXPECT_EQ(outcome, "");
}

// One life of a context, from its making to its end, in which one allocation fails: the 1st, the 2nd, …
TEST(HostSurvival, OfAnyAllocationThatFails) {
#if TIDEMILL_SANITIZED
  GTEST_SKIP() << "the sanitizers bring an operator new of their own, and this test makes every one fail";
#endif
  const std::string outcome = survives([] {
    bool all_have_failed = false;
    long n = 0;
    for (; n < 5000 && !all_have_failed; ++n) {
      fails_at = n;
      try {
        Rig rig;
        const auto feed = std::make_shared<Feed<std::string>>();
        rig.ssc.receiver_stream(feed)
            .flat_map(split(' '))
            .map([](std::string_view word) {
              return std::pair{word, 1L};
            })
            .reduce_by_key(std::plus<>{})
            .print();
        rig.ssc.start(Drive::by_host);
        feed->put("to be or not to be");
        rig.clock->advance(2s);
        rig.ssc.step();
        feed->restart("again");
        rig.ssc.step();
        feed->put("that is the question");
        rig.ssc.stop(StopMode::graceful);
      } catch (const std::bad_alloc&) {  // the host is told, and lives
      } catch (const Error&) {
      }
      all_have_failed = fails_at >= 0;  // none failed this time: those before were all there are
      fails_at = -1;
    }
    REQUIRE(all_have_failed);
    REQUIRE(n > 50);
  });
  EXPECT_EQ(outcome, "");
}

}  // namespace
}  // namespace tidemill
