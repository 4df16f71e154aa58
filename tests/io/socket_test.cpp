// Socket inputs against a server on the loopback.
#include "tidemill/io/socket.hpp"

#include <atomic>
#include <cstring>
#include <future>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/socket_base.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/fake_host.hpp"
#include "tidemill/asio.hpp"
#include "tidemill/batch/text.hpp"

namespace tidemill {
namespace {

using namespace std::chrono_literals;
using detail::BlockInput;
using detail::RawBlock;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using testing_io::FakeHost;
using testing_io::free_port;
using testing_io::Server;

const std::string loopback = "127.0.0.1";

SocketOptions quick() {
  SocketOptions options;
  options.reconnect_delay_min = 1ms;
  options.reconnect_delay_max = 20ms;
  return options;
}

std::shared_ptr<const detail::Scope> scope_of(const FakeHost& host) {
  return std::make_shared<const detail::Scope>(detail::Scope{host.runtime(), Time{1s}});
}

std::vector<std::string> lines_of(const FakeHost& host, std::vector<TextBlock> blocks) {
  return detail::text_blocks_batch(scope_of(host), std::move(blocks), 3).collect();
}

// What an input has received, cut by cut, until there are so many records.
template <class Block>
std::vector<Block> receive(FakeHost& host, BlockInput<Block>& input, std::size_t records) {
  std::vector<Block> blocks;
  std::size_t got = 0;
  while (true) {
    got += input.cut(host.runtime()->clock->now(), std::size_t(-1)).records;
    for (Block& block : input.take_cut()) blocks.push_back(std::move(block));
    if (got >= records) break;
    if (!host.wait_for_arrival()) {
      ADD_FAILURE() << "only " << got << " of " << records << " records came; the host heard:\n" << host.all();
      break;
    }
  }
  return blocks;
}

std::vector<std::string> receive_lines(FakeHost& host, BlockInput<TextBlock>& input, std::size_t lines) {
  return lines_of(host, receive(host, input, lines));
}

TEST(SocketText, GivesTheLinesWithoutTheirEndsAndTheLastOneWithoutANewline) {
  FakeHost host;
  Server server{{Server::sends("one\r\n\ntwo\nth\xC3\xA9 end")}};
  const auto input = make_socket_text_input(host.runtime(), loopback, server.port(), quick());
  EXPECT_EQ(input->name(), "socket 127.0.0.1:" + std::to_string(server.port()));
  input->start(host, 3);
  EXPECT_THAT(receive_lines(host, *input, 4), ElementsAre("one", "", "two", "th\xC3\xA9 end"));
  EXPECT_TRUE(host.wait_for("stopped the peer closed the connection after 18 bytes"));
  input->stop();
  EXPECT_FALSE(input->has_pending());
}

TEST(SocketText, ResolvesNames) {
  FakeHost host;
  Server server{{Server::sends_and_stays("hello\n")}};
  const auto input = make_socket_text_input(host.runtime(), "localhost", server.port(), quick());
  input->start(host, 0);
  EXPECT_THAT(receive_lines(host, *input, 1), ElementsAre("hello"));
  input->stop();
}

TEST(SocketText, ReportsANameThatCannotBeResolvedAndTriesAgain) {
  FakeHost host;
  const auto input = make_socket_text_input(host.runtime(), "no such host", 9, quick());
  input->start(host, 0);
  EXPECT_TRUE(host.wait_for("error the name cannot be resolved", 2));
  input->stop();
}

TEST(SocketText, PutsLinesTogetherThatCameInSeveralPackets) {
  FakeHost host;
  const std::string text = "a\r\nbc\n\r\nd";
  // The server sends one byte at a time, and the next only once the one before has been taken from the socket.
  Server server{{[&](Server::Socket& socket) {
    socket.set_option(boost::asio::ip::tcp::no_delay{true});
    for (const char byte : text) Server::send(socket, {&byte, 1});
  }}};
  const auto input = make_socket_text_input(host.runtime(), loopback, server.port(), quick());
  input->start(host, 0);
  EXPECT_THAT(receive_lines(host, *input, 4), ElementsAre("a", "bc", "", "d"));
  input->stop();
}

TEST(SocketText, WaitsForAServerThatIsNotThereYet) {
  FakeHost host;
  const std::uint16_t port = free_port();
  const auto input = make_socket_text_input(host.runtime(), loopback, port, quick());
  input->start(host, 0);
  ASSERT_TRUE(host.wait_for("error no connection: Connection refused; connecting again in 1 ms"));
  ASSERT_TRUE(host.wait_for("error no connection: Connection refused; connecting again in 2 ms"));
  ASSERT_TRUE(host.wait_for("error no connection: Connection refused; connecting again in 20 ms", 2));
  EXPECT_EQ(host.count("started"), 0U);
  Server server{{Server::sends_and_stays("here\n")}, port};
  EXPECT_THAT(receive_lines(host, *input, 1), ElementsAre("here"));
  EXPECT_EQ(host.count("started"), 1U);
  input->stop();
  EXPECT_EQ(host.count("stopped"), 1U);
}

TEST(SocketText, ConnectsAgainWhenTheServerHasClosed) {
  FakeHost host;
  Server server{{Server::sends("first\nunfinished"), Server::sends("second\n"), Server::sends_and_stays("third\n")}};
  const auto input = make_socket_text_input(host.runtime(), loopback, server.port(), quick());
  input->start(host, 0);
  EXPECT_THAT(receive_lines(host, *input, 4), ElementsAre("first", "unfinished", "second", "third"));
  input->stop();
  EXPECT_EQ(host.count("started"), 3U);
  EXPECT_EQ(host.count("stopped"), 3U);
  EXPECT_EQ(host.count("error"), 0U) << host.all();
}

TEST(SocketText, ReportsAConnectionThatBreaksAndWhatIsLostWithIt) {
  FakeHost host;
  std::promise<void> taken;
  Server server{{[&](Server::Socket& socket) {
                   Server::send(socket, "whole\ncut of");
                   taken.get_future().wait();
                   socket.set_option(boost::asio::socket_base::linger{true, 0});  // closing resets
                   socket.close();
                 },
                 Server::sends_and_stays("again\n")}};
  const auto input = make_socket_text_input(host.runtime(), loopback, server.port(), quick());
  input->start(host, 0);
  EXPECT_THAT(receive_lines(host, *input, 1), ElementsAre("whole"));
  taken.set_value();
  EXPECT_THAT(receive_lines(host, *input, 1), ElementsAre("again"));
  ASSERT_TRUE(
      host.wait_for("error the connection broke after 12 bytes: Connection reset by peer; an unfinished record of "
                    "6 bytes is lost"))
      << host.all();
  input->stop();
}

TEST(SocketText, LeavesOutALineThatIsTooLongAndNamesItsPosition) {
  FakeHost host;
  SocketOptions options = quick();
  options.max_line_bytes = 10;
  const std::string far = std::string(3'000'000, 'x');
  Server server{{Server::sends_and_stays("short\n" + far + "\r\nexactly 10\r\n" + "more than 10\nshort\n")}};
  const auto input = make_socket_text_input(host.runtime(), loopback, server.port(), options);
  input->start(host, 0);
  EXPECT_THAT(receive_lines(host, *input, 3), ElementsAre("short", "exactly 10", "short"));
  ASSERT_TRUE(host.wait_for("error", 1));
  input->stop();
  const auto events = host.events();
  EXPECT_THAT(events, Contains(StartsWith("error the line at byte 6 of the connection is longer than 10 bytes "
                                          "(max_line_bytes) and is left out")));
  EXPECT_THAT(host.all(), HasSubstr("left out so far: 2"));
}

TEST(SocketText, AFullInboxHoldsTheSenderBackAndLosesNothing) {
  constexpr std::size_t lines = 400'000;
  std::string text;
  for (std::size_t i = 0; i < lines; ++i)
    text += "line " + std::to_string(i) + " of a sender that is too fast for us\n";
  FakeHost host;
  SocketOptions options = quick();
  options.inbox.max_buffered_bytes = std::size_t{1} << 20;
  std::atomic<bool> all_sent = false;
  Server server{{[&](Server::Socket& socket) {
    Server::send(socket, text);
    all_sent = true;
  }}};
  const auto input = make_socket_text_input(host.runtime(), loopback, server.port(), options);
  input->start(host, 0);

  // Nobody takes anything: the inbox fills up to its limit and one read more, and the sender does not get through.
  while (input->inbox().buffered_bytes() < options.inbox.max_buffered_bytes) ASSERT_TRUE(host.wait_for_arrival());
  std::vector<std::string> got;
  std::size_t most = 0;
  while (got.size() < lines) {
    most = std::max(most, input->inbox().buffered_bytes());
    input->cut(host.runtime()->clock->now(), std::size_t(-1));
    const auto some = lines_of(host, input->take_cut());
    got.insert(got.end(), some.begin(), some.end());
    if (some.empty()) {
      ASSERT_TRUE(host.wait_for_arrival()) << host.all();
    }
  }
  EXPECT_LE(most, options.inbox.max_buffered_bytes + options.read_buffer_bytes + 4096);
  EXPECT_TRUE(all_sent);
  ASSERT_EQ(got.size(), lines);
  for (std::size_t i = 0; i < lines; ++i) {
    ASSERT_EQ(got[i], "line " + std::to_string(i) + " of a sender that is too fast for us");
  }
  input->stop();
}

TEST(SocketText, StopsWhileItWaitsForRoom) {
  FakeHost host;
  SocketOptions options = quick();
  options.inbox.max_buffered_bytes = 1;
  std::promise<void> gone;
  Server server{{[&](Server::Socket& socket) {
    while (Server::send(socket, "blast\n")) {
    }
    gone.set_value();
  }}};
  const auto input = make_socket_text_input(host.runtime(), loopback, server.port(), options);
  input->start(host, 0);
  while (!input->has_pending()) ASSERT_TRUE(host.wait_for_arrival());
  input->stop();
  EXPECT_EQ(gone.get_future().wait_for(testing_io::deadline), std::future_status::ready);
  EXPECT_TRUE(input->has_pending()) << "what has arrived stays";
}

TEST(SocketText, StopsInEveryStateAndTwiceAndBeforeItWasStarted) {
  FakeHost host;
  {
    const auto never_started = make_socket_text_input(host.runtime(), loopback, 9, quick());
    never_started->stop();
  }
  Server server{std::vector<Server::Session>(300, Server::sends("line\n"))};
  const std::uint16_t nobody = free_port();
  for (int round = 0; round < 300; ++round) {
    // Resolving, connecting, reading, waiting after a refusal, waiting after an end: wherever it is just now.
    const bool refused = round % 3 == 0;
    const auto input = make_socket_text_input(host.runtime(), round % 2 == 0 ? "localhost" : loopback,
                                              refused ? nobody : server.port(), quick());
    input->start(host, 0);
    for (int i = 0; i < round % 7 * 40; ++i) std::this_thread::yield();
    input->stop();
    input->stop();
  }
  host.io().stop();
  // The server still waits for those that never got through.
  boost::asio::io_context io;
  for (int i = 0; i < 300; ++i) {
    Server::Socket socket{io};
    boost::system::error_code ignored;
    socket.connect({boost::asio::ip::address_v4::loopback(), server.port()}, ignored);
    if (ignored) break;
  }
}

TEST(SocketText, StartsAgainAfterAStop) {
  FakeHost host;
  Server server{{Server::sends_and_stays("one\nhalf"), Server::sends_and_stays("two\n")}};
  const auto input = make_socket_text_input(host.runtime(), loopback, server.port(), quick());
  input->start(host, 0);
  EXPECT_THAT(receive_lines(host, *input, 1), ElementsAre("one"));
  input->stop();
  host.io().stop();
  input->start(host, 0);
  EXPECT_THAT(receive_lines(host, *input, 1), ElementsAre("two"));
  input->stop();
}

TEST(SocketText, HearsNothingMoreOnceStopHasReturned) {
  for (int round = 0; round < 50; ++round) {
    FakeHost host;
    Server server{{[](Server::Socket& socket) {
      while (Server::send(socket, "line\n")) {
      }
    }}};
    auto input = make_socket_text_input(host.runtime(), loopback, server.port(), quick());
    input->start(host, 0);
    while (!input->has_pending()) ASSERT_TRUE(host.wait_for_arrival());
    input->stop();
    const std::size_t heard = host.events().size();
    input.reset();  // a handler that still touched it would be found by the sanitizers
    host.io().stop();
    EXPECT_EQ(host.events().size(), heard);
  }
}

TEST(SocketText, ReadsOnTheHostsExecutor) {
  boost::asio::io_context io;
  FakeHost host{{.executor = asio_executor(io, 1)}};
  Server server{{Server::sends_and_stays("hello\n")}};
  const auto input = make_socket_text_input(host.runtime(), "localhost", server.port(), quick());
  input->start(host, 0);
  while (!input->has_pending()) ASSERT_EQ(io.run_one_for(testing_io::deadline), 1U);
  EXPECT_THAT(receive_lines(host, *input, 1), ElementsAre("hello"));
  input->stop();
  io.run();  // comes to its end: nothing of the input is left
}

TEST(SocketText, StopsAlthoughTheHostsExecutorWasStoppedInTheMiddle) {
  boost::asio::io_context io;
  FakeHost host{{.executor = asio_executor(io, 2)}};
  Server server{{Server::sends_and_stays("hello\n")}};
  const auto reading = make_socket_text_input(host.runtime(), loopback, server.port(), quick());
  const auto resolving = make_socket_text_input(host.runtime(), "localhost", server.port(), quick());
  const auto posted = make_socket_text_input(host.runtime(), loopback, server.port(), quick());
  reading->start(host, 0);
  while (!reading->has_pending()) ASSERT_EQ(io.run_one_for(testing_io::deadline), 1U);
  resolving->start(host, 1);
  ASSERT_EQ(io.run_one_for(testing_io::deadline), 1U);
  posted->start(host, 2);
  io.stop();
  reading->stop();
  resolving->stop();
  posted->stop();
  EXPECT_EQ(host.count("stopped"), 1U);
  // What is left undone goes with the io_context, and finds nobody.
}

TEST(SocketText, ManyThreadsOfTheHostMayRunItsExecutor) {
  boost::asio::io_context io;
  auto work = boost::asio::make_work_guard(io);
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.emplace_back([&] { io.run(); });
  {
    FakeHost host{{.executor = asio_executor(io, 3)}};
    std::string text;
    for (int i = 0; i < 50'000; ++i) text += std::to_string(i) + '\n';
    Server server{{Server::sends(text)}};
    const auto input = make_socket_text_input(host.runtime(), loopback, server.port(), quick());
    input->start(host, 0);
    const auto lines = receive_lines(host, *input, 50'000);
    ASSERT_EQ(lines.size(), 50'000U);
    for (std::size_t i = 0; i < lines.size(); ++i) ASSERT_EQ(lines[i], std::to_string(i));
    input->stop();
  }
  work.reset();
  for (std::thread& thread : threads) thread.join();
}

TEST(SocketText, RefusesSettingsThatCannotBe) {
  const FakeHost host;
  const auto make = [&](std::string name, std::uint16_t port, const SocketOptions& options) {
    static_cast<void>(make_socket_text_input(host.runtime(), std::move(name), port, options));
  };
  EXPECT_THROW(make("", 1, {}), ConfigError);
  EXPECT_THROW(make("localhost", 0, {}), ConfigError);
  const auto with = [](auto change) {
    SocketOptions options;
    change(options);
    return options;
  };
  EXPECT_THROW(make("h", 1, with([](SocketOptions& o) { o.max_line_bytes = 0; })), ConfigError);
  EXPECT_THROW(make("h", 1, with([](SocketOptions& o) { o.max_line_bytes = std::size_t(-1); })), ConfigError);
  EXPECT_THROW(make("h", 1, with([](SocketOptions& o) { o.max_block_bytes = 0; })), ConfigError);
  EXPECT_THROW(make("h", 1, with([](SocketOptions& o) { o.read_buffer_bytes = 1; })), ConfigError);
  EXPECT_THROW(make("h", 1, with([](SocketOptions& o) { o.reconnect_delay_min = 0s; })), ConfigError);
  EXPECT_THROW(make("h", 1, with([](SocketOptions& o) { o.reconnect_delay_max = 1ms; })), ConfigError);
  EXPECT_THROW(make("h", 1, with([](SocketOptions& o) { o.inbox.max_buffered_bytes = 0; })), ConfigError);
}

// ---- a decoder of the user ----

// Numbers of 4 bytes.
std::size_t decode_numbers(std::span<const std::byte> received, bool, std::vector<std::uint32_t>& out) {
  const std::size_t whole = received.size() / 4;
  const std::size_t before = out.size();
  out.resize(before + whole);
  if (whole != 0) std::memcpy(out.data() + before, received.data(), whole * 4);
  return whole * 4;
}

std::string bytes_of(const std::vector<std::uint32_t>& numbers) {
  std::string bytes(numbers.size() * 4, '\0');
  std::memcpy(bytes.data(), numbers.data(), bytes.size());
  return bytes;
}

template <class T>
std::vector<T> receive_records(FakeHost& host, BlockInput<std::vector<T>>& input, std::size_t records) {
  std::vector<T> all;
  for (const std::vector<T>& block : receive(host, input, records)) all.insert(all.end(), block.begin(), block.end());
  return all;
}

TEST(SocketDecoder, GetsTheRestAgainWithWhatFollows) {
  FakeHost host;
  std::vector<std::uint32_t> numbers(100'000);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<std::uint32_t>(i * 7);
  SocketOptions options = quick();
  options.read_buffer_bytes = 4099;  // never a whole number of records
  Server server{{Server::sends(bytes_of(numbers))}};
  const auto input = make_socket_input<std::uint32_t>(host.runtime(), loopback, server.port(), decode_numbers, options);
  input->start(host, 0);
  EXPECT_EQ(receive_records(host, *input, numbers.size()), numbers);
  input->stop();
}

TEST(SocketDecoder, MayTakeOneRecordACallAndSeesTheEnd) {
  FakeHost host;
  Server server{{Server::sends("a;b;c;last")}};
  const auto input = make_socket_input<std::string>(
      host.runtime(), loopback, server.port(),
      [](std::span<const std::byte> received, bool at_end, std::vector<std::string>& out) -> std::size_t {
        const std::string_view text{reinterpret_cast<const char*>(received.data()), received.size()};
        const std::size_t semicolon = text.find(';');
        if (semicolon != std::string_view::npos) {
          out.emplace_back(text.substr(0, semicolon));
          return semicolon + 1;
        }
        if (!at_end || text.empty()) return 0;
        out.emplace_back(text);
        return text.size();
      },
      quick());
  input->start(host, 0);
  EXPECT_THAT(receive_records(host, *input, 4), ElementsAre("a", "b", "c", "last"));
  input->stop();
}

TEST(SocketDecoder, ThatThrowsIsReportedWithThePositionAndGetsANewConnection) {
  FakeHost host;
  Server server{{Server::sends_and_stays(bytes_of({1, 2, 666, 4})), Server::sends_and_stays(bytes_of({5}))}};
  const auto input = make_socket_input<std::uint32_t>(
      host.runtime(), loopback, server.port(),
      [](std::span<const std::byte> received, bool, std::vector<std::uint32_t>& out) -> std::size_t {
        if (received.size() < 4) return 0;
        decode_numbers(received.first(4), false, out);
        if (out.back() == 666) throw std::runtime_error{"the number of the beast"};
        return 4;
      },
      quick());
  input->start(host, 0);
  EXPECT_THAT(receive_records(host, *input, 3), ElementsAre(1, 2, 5));
  input->stop();
  EXPECT_THAT(host.events(),
              Contains(StartsWith("error the decoder failed at byte 8 of the connection: the number of the "
                                  "beast; connecting again in")));
}

TEST(SocketDecoder, StartsAfreshWithEachConnection) {
  FakeHost host;
  Server server{{Server::sends("ab"), Server::sends_and_stays("cd")}};
  const auto input = make_socket_input<std::string>(
      host.runtime(), loopback, server.port(),
      [calls = 0](std::span<const std::byte> received, bool, std::vector<std::string>& out) mutable -> std::size_t {
        if (received.empty()) return 0;
        out.push_back(std::to_string(++calls) + static_cast<char>(received[0]));
        return 1;
      },
      quick());
  input->start(host, 0);
  EXPECT_THAT(receive_records(host, *input, 4), ElementsAre("1a", "2b", "1c", "2d"));
  input->stop();
}

TEST(SocketDecoder, ThatTakesMoreThanItWasGivenOrNeverTakesAnythingIsReported) {
  FakeHost host;
  SocketOptions options = quick();
  options.max_block_bytes = 1000;
  Server server{{Server::sends_and_stays("x"), Server::sends(std::string(1001, 'y')), Server::sends("ende")}};
  const auto input = make_socket_input<int>(
      host.runtime(), loopback, server.port(),
      [&](std::span<const std::byte> received, bool, std::vector<int>&) -> std::size_t {
        return !received.empty() && static_cast<char>(received[0]) == 'x' ? received.size() + 1 : 0;
      },
      options);
  input->start(host, 0);
  EXPECT_TRUE(host.wait_for("error the decoder failed at byte 0 of the connection: it says that it took 2 bytes"));
  EXPECT_TRUE(host.wait_for("error the decoder left the 1001 bytes from byte 0 of the connection for later"));
  EXPECT_TRUE(host.wait_for("error the connection ended inside a record: the decoder left the 4 bytes from byte 0"));
  input->stop();
}

// ---- raw blocks ----

TEST(RawSocket, GivesRecordsThatAreDecodedWhenTheBatchRuns) {
  FakeHost host;
  using Pair = std::pair<std::string, long>;
  std::string wire;
  std::vector<Pair> expected;
  for (long block = 0; block < 50; ++block) {
    std::vector<Pair> records;
    for (long i = 0; i < block; ++i) records.emplace_back("key " + std::to_string(i), block);
    wire += encode_raw_block(records);
    expected.insert(expected.end(), records.begin(), records.end());
  }
  SocketOptions options = quick();
  options.read_buffer_bytes = 4096;
  Server server{{Server::sends(wire)}};
  const auto input = make_raw_socket_input(host.runtime(), loopback, server.port(), options);
  input->start(host, 0);
  auto blocks = receive(host, *input, expected.size());
  const auto batch = detail::raw_blocks_batch<Pair>(scope_of(host), blocks, 4, "raw");
  EXPECT_EQ(batch.num_partitions(), 4U);
  EXPECT_EQ(batch.collect(), expected);
  EXPECT_EQ(batch.collect(), expected) << "decoded once more";
  input->stop();
}

TEST(RawSocket, ABatchThatMayTakeFewRecordsTakesPartOfABlock) {
  FakeHost host;
  std::vector<std::string> records;
  for (int i = 0; i < 10; ++i) records.push_back("record " + std::to_string(i));
  Server server{{Server::sends_and_stays(encode_raw_block(records))}};
  const auto input = make_raw_socket_input(host.runtime(), loopback, server.port(), quick());
  input->start(host, 0);
  while (!input->has_pending()) ASSERT_TRUE(host.wait_for_arrival());
  std::vector<std::string> got;
  for (const std::size_t expected : {4U, 4U, 2U}) {
    EXPECT_EQ(input->cut(host.runtime()->clock->now(), 4).records, expected);
    const auto some = detail::raw_blocks_batch<std::string_view>(scope_of(host), input->take_cut(), 2, "raw").collect();
    EXPECT_EQ(some.size(), expected);
    got.insert(got.end(), some.begin(), some.end());
  }
  EXPECT_EQ(got, records);
  EXPECT_EQ(input->inbox().buffered_bytes(), 0U);
  input->stop();
}

std::string with_header(std::uint32_t length, std::uint32_t records, std::string_view rest = {}) {
  std::string block;
  for (const std::uint32_t number : {length, records}) {
    for (int shift = 24; shift >= 0; shift -= 8) block.push_back(static_cast<char>(number >> shift & 0xFF));
  }
  return block.append(rest);
}

TEST(RawSocket, ABlockThatCannotBeRightIsReportedAndTheConnectionMadeAnew) {
  FakeHost host;
  SocketOptions options = quick();
  options.max_block_bytes = 1000;
  const std::string good = encode_raw_block(std::vector<int>{1, 2});  // 16 bytes
  Server server{{Server::sends_and_stays(good + with_header(3, 0)), Server::sends_and_stays(with_header(1005, 1)),
                 Server::sends_and_stays(with_header(14, 11, "0123456789")),
                 Server::sends_and_stays(with_header(14, 0, "0123456789")),
                 Server::sends(good + with_header(8, 1, "abc")), Server::sends_and_stays(good)}};
  const auto input = make_raw_socket_input(host.runtime(), loopback, server.port(), options);
  input->start(host, 0);
  const auto blocks = receive(host, *input, 6);
  EXPECT_THAT(detail::raw_blocks_batch<int>(scope_of(host), blocks, 1, "raw").collect(), ElementsAre(1, 2, 1, 2, 1, 2));
  input->stop();
  EXPECT_EQ(host.count("error"), 5U) << host.all();
  EXPECT_THAT(host.events(),
              Contains(StartsWith("error the raw block at byte 16 of the connection gives its length as 3")));
  EXPECT_THAT(host.events(), Contains(HasSubstr("has 1001 bytes of records, and max_block_bytes allows 1000")));
  EXPECT_THAT(host.events(), Contains(HasSubstr("claims 11 records in 10 bytes")));
  EXPECT_THAT(host.events(), Contains(HasSubstr("claims 0 records in 10 bytes")));
  EXPECT_THAT(host.events(), Contains(HasSubstr("ended inside the raw block at byte 16; 11 bytes of it are left out")));
}

TEST(RawSocket, BytesThatDoNotHoldTheRecordsFailTheBatchAndNameTheBlock) {
  FakeHost host;
  const std::string good = encode_raw_block(std::vector<std::string>{"fine"});
  const std::string bad = with_header(4 + 6, 2,
                                      std::string_view{"\x01"
                                                       "a"
                                                       "\x09"
                                                       "bcd",
                                                       6});
  const std::string trailing = with_header(4 + 6, 1,
                                           std::string_view{"\x01"
                                                            "a"
                                                            "\x01"
                                                            "b"
                                                            "\x01"
                                                            "c",
                                                            6});
  Server server{{Server::sends_and_stays(good + bad + trailing)}};
  const auto input = make_raw_socket_input(host.runtime(), loopback, server.port(), quick());
  input->start(host, 0);
  const auto blocks = receive(host, *input, 4);
  ASSERT_EQ(blocks.size(), 3U);
  const auto error_of = [&](const RawBlock& block) -> std::string {
    try {
      static_cast<void>(detail::raw_blocks_batch<std::string>(scope_of(host), {block}, 1, "socket x:1").collect());
    } catch (const SourceError& error) {
      EXPECT_EQ(error.code(), "malformed_block");
      EXPECT_EQ(error.context().offset, block.position);
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(error_of(blocks[0]), "no error");
  EXPECT_THAT(error_of(blocks[1]),
              StartsWith("socket x:1: the raw block at byte " + std::to_string(good.size()) + " of its connection"));
  EXPECT_THAT(error_of(blocks[2]), StartsWith("socket x:1: the raw block at byte"));
  input->stop();
}

TEST(RawBlocks, AreReadFromTheNearestPlaceThatIsKnown) {
  FakeHost host;
  std::vector<std::uint16_t> numbers(1000);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<std::uint16_t>(i);
  const std::string wire = encode_raw_block(numbers);
  const RawBlock whole{.payload = std::as_bytes(std::span{wire}).subspan(8),
                       .records = 1000,
                       .first = 0,
                       .ends_payload = true,
                       .charged_bytes = 2000,
                       .position = 0,
                       .owner = nullptr,
                       .marks = nullptr};
  const auto pieces = detail::BlockTraits<RawBlock>::pieces(whole, 10, 100);
  ASSERT_EQ(pieces.size(), 11U);
  std::size_t charged = 0;
  for (const RawBlock& piece : pieces) charged += piece.charged_bytes;
  EXPECT_EQ(charged, whole.charged_bytes);
  for (const std::size_t i : {3U, 0U, 1U, 2U, 10U, 3U}) {  // in any order
    const auto got = detail::raw_blocks_batch<std::uint16_t>(scope_of(host), {pieces[i]}, 1, "raw").collect();
    const std::size_t first = i == 0 ? 0 : 10 + (i - 1) * 100;
    ASSERT_EQ(got.size(), pieces[i].records);
    EXPECT_EQ(got.front(), first);
    EXPECT_EQ(got.back(), first + got.size() - 1);
  }
  EXPECT_EQ(pieces[0].marks->before(300).record, 210U);
  // A piece is cut again.
  const auto again = detail::BlockTraits<RawBlock>::pieces(pieces[1], 30, 30);
  EXPECT_EQ(detail::raw_blocks_batch<std::uint16_t>(scope_of(host), {again[3]}, 1, "raw").collect().back(), 109U);
}

}  // namespace
}  // namespace tidemill
