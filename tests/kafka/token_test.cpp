// What becomes of a token source: its tokens arrive at the broker, newer ones when it is time, and what goes wrong is told. The
// mock cluster does not authenticate, so the broker is an ear that hears the token. That a broker lets clients in by it is seen
// in tests/integration.sh.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kafka/harness.hpp"
#include "tidemill/kafka/group.hpp"
#include "tidemill/kafka/sink.hpp"
#include "tidemill/testing/stream_test.hpp"

namespace tidemill::token_test {
namespace {

using namespace testing_kafka;
using ::testing::HasSubstr;

/// Takes connections, answers until it is told the token, and says nothing more.
class Ear {
 public:
  Ear() : listener_{socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)} {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener_, 64) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0)
      throw std::runtime_error{"the ear has no port"};
    brokers_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    thread_ = std::thread{[this] { hear(); }};
  }
  ~Ear() {
    stopping_ = true;
    thread_.join();
    close(listener_);
  }
  Ear(const Ear&) = delete;
  Ear& operator=(const Ear&) = delete;

  [[nodiscard]] const std::string& brokers() const { return brokers_; }
  [[nodiscard]] bool has_heard(const std::string& words) const {
    const std::scoped_lock lock{mutex_};
    return said_.find(words) != std::string::npos;
  }
  /// Ends the connections there are; the clients make new ones.
  void cut() { cutting_ = true; }

 private:
  void hear() {
    std::vector<pollfd> open{{listener_, POLLIN, 0}};
    std::map<int, std::string> unread;
    while (!stopping_) {
      static_cast<void>(poll(open.data(), open.size(), 20));
      for (std::size_t i = 1; i < open.size(); ++i) {
        std::array<char, 4096> bytes;
        const ssize_t read = recv(open[i].fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
        if (read == 0) open[i].events = 0;  // it has been closed there
        if (read <= 0) continue;
        std::string& text = unread[open[i].fd].append(bytes.data(), static_cast<std::size_t>(read));
        while (text.size() >= 12 && text.size() >= 4 + number(text, 0, 4)) {
          answer(open[i].fd, text.substr(4, number(text, 0, 4)));
          text.erase(0, 4 + number(text, 0, 4));
        }
      }
      const bool cuts = cutting_.exchange(false);
      for (std::size_t i = 1; cuts && i < open.size(); ++i) close(open[i].fd);
      if (cuts) {
        open.resize(1);
        unread.clear();
      }
      if ((open[0].revents & POLLIN) == 0) continue;
      if (const int one = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC); one >= 0)
        open.push_back({one, POLLIN, 0});
    }
    for (std::size_t i = 1; i < open.size(); ++i) close(open[i].fd);
  }

  // A request: its kind and version (two bytes each), its number (four), and the rest.
  void answer(int to, const std::string& request) {
    constexpr std::size_t sasl_handshake = 17;
    constexpr std::size_t api_versions = 18;
    {
      const std::scoped_lock lock{mutex_};
      said_ += request;
    }
    std::string text = request.substr(4, 4);
    const auto add = [&text](std::initializer_list<int> numbers) {
      for (const int one : numbers) {
        text += static_cast<char>(one >> 8);
        text += static_cast<char>(one);
      }
    };
    if (number(request, 0, 2) == api_versions) {
      constexpr int unsupported_version = 35;
      add({number(request, 2, 2) == 0 ? 0 : unsupported_version});
      add({0, 3, 17, 0, 1, 18, 0, 0, 36, 0, 0});  // three kinds: handshake, versions, authenticate; of these versions
    } else if (number(request, 0, 2) == sasl_handshake) {
      constexpr std::string_view mechanism = "OAUTHBEARER";
      add({0, 0, 1, static_cast<int>(mechanism.size())});
      text += mechanism;
    } else {
      return;
    }
    const auto size = static_cast<char>(text.size());
    text.insert(0, {'\0', '\0', '\0', size});
    static_cast<void>(send(to, text.data(), text.size(), MSG_NOSIGNAL));
  }
  // The highest byte first.
  static std::size_t number(const std::string& text, std::size_t at, std::size_t bytes) {
    std::size_t value = 0;
    for (std::size_t i = at; i < at + bytes; ++i) value = value << 8 | static_cast<unsigned char>(text[i]);
    return value;
  }

  int listener_;
  std::string brokers_;
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> cutting_ = false;
  std::thread thread_;
  mutable std::mutex mutex_;
  std::string said_;
};

Time now() { return Time{std::chrono::duration_cast<Duration>(std::chrono::system_clock::now().time_since_epoch())}; }

KafkaSettings oauth() {
  return {{"security.protocol", "sasl_plaintext"},
          {"sasl.mechanisms", "OAUTHBEARER"},
          {"sasl.oauthbearer.config", "scope=words"},
          {"reconnect.backoff.max.ms", "100"}};
}
std::string bearer(const std::string& token) { return "auth=Bearer " + token + '\1'; }

/// Tokens 1, 2, ... that are good for so long; the first calls fail.
class Tokens {
 public:
  explicit Tokens(Duration lifetime, int failures = 0) : lifetime_{lifetime}, failures_{failures} {}
  KafkaTokenSource source() {
    return [this](std::string_view config) -> KafkaToken {
      {
        const std::scoped_lock lock{mutex_};
        config_ = config;
      }
      const int call = ++calls_;
      if (call <= failures_) throw std::runtime_error{"the vault is closed"};
      return {.value = "token-" + std::to_string(call), .expires = now() + lifetime_, .principal = "reader"};
    };
  }
  [[nodiscard]] int calls() const { return calls_; }
  [[nodiscard]] std::string config() const {
    const std::scoped_lock lock{mutex_};
    return config_;
  }

 private:
  const Duration lifetime_;
  const int failures_;
  std::atomic<int> calls_ = 0;
  mutable std::mutex mutex_;
  std::string config_;
};

KafkaSource source_of(const Ear& ear, Tokens& tokens) {
  return {.brokers = ear.brokers(), .topics = {"words"}, .settings = oauth(), .token_source = tokens.source()};
}

TEST(KafkaTokens, OfASourceGoToTheBrokerAndNewerOnesBeforeTheyExpire) {
  const Ear ear;
  Tokens tokens{2s};
  Life life{source_of(ear, tokens)};
  life.start();
  ASSERT_TRUE(await([&] { return ear.has_heard(bearer("token-1")); }));
  EXPECT_EQ(tokens.config(), "scope=words");
  ASSERT_TRUE(await([&] { return tokens.calls() >= 2; }));
}

TEST(KafkaTokens, AreNewOnConnectionsThatAreMadeLater) {
  Ear ear;
  Tokens tokens{2s};
  Life life{source_of(ear, tokens)};
  life.start();
  ASSERT_TRUE(await([&] { return ear.has_heard(bearer("token-1")); }));
  ASSERT_TRUE(await([&] { return tokens.calls() >= 2; }));
  ear.cut();
  ASSERT_TRUE(await([&] { return ear.has_heard(bearer("token-2")); }));
}

TEST(KafkaTokens, ThatCannotBeHadAreReportedAndAskedForAgain) {
  const Ear ear;
  Tokens tokens{1h, 1};
  Life life{source_of(ear, tokens)};
  life.start();
  EXPECT_TRUE(life.is_told("the vault is closed"));
  EXPECT_FALSE(ear.has_heard("auth=Bearer"));
  EXPECT_TRUE(await([&] { return ear.has_heard(bearer("token-2")); })) << "it was called once more";
}

TEST(KafkaTokens, ThatHaveExpiredAreReported) {
  const Ear ear;
  Tokens tokens{-1h};
  Life life{source_of(ear, tokens)};
  life.start();
  EXPECT_TRUE(life.is_told("token")) << life.log();
  EXPECT_FALSE(ear.has_heard("auth=Bearer"));
}

// A call that opens a sink waits for the brokers, and they for the token.
TEST(KafkaTokens, OfASinkGoToTheBroker) {
  for (const auto delivery : {KafkaDelivery::at_least_once, KafkaDelivery::exactly_once}) {
    const Ear ear;
    Tokens tokens{1h};
    KafkaWriter writer{{.brokers = ear.brokers(),
                        .topic = "out",
                        .delivery = delivery,
                        .stall_timeout = 1s,
                        .settings = oauth(),
                        .token_source = tokens.source()}};
    try {
      writer.open({.name = "out", .id = "job", .has_checkpoint = true, .runtime = nullptr});
      EXPECT_EQ(delivery, KafkaDelivery::at_least_once) << "which waits for nobody yet";
    } catch (const SinkError&) {  // the ear answers nothing
    }
    EXPECT_TRUE(await([&] { return ear.has_heard(bearer("token-1")); }));
    EXPECT_EQ(tokens.config(), "scope=words");
  }
}

TEST(KafkaTokens, ThatCannotBeHadForASinkAreWhyItDoesNotOpen) {
  const Ear ear;
  Tokens tokens{1h, 1};
  KafkaWriter writer{{.brokers = ear.brokers(),
                      .topic = "out",
                      .stall_timeout = 2s,
                      .settings = oauth(),
                      .token_source = tokens.source()}};
  try {
    writer.open({.name = "out", .id = "job", .has_checkpoint = true, .runtime = nullptr});
    FAIL() << "nobody let it in";
  } catch (const SinkError& error) {
    EXPECT_THAT(error.what(), HasSubstr("the vault is closed"));
  }
}

TEST(KafkaTokens, ThatNobodyWouldAskForAreRefused) {
  const auto refusal = [](KafkaSettings settings) -> std::string {
    Tokens tokens{1h};
    const KafkaSource source{.brokers = "localhost:1",
                             .topics = {"words"},
                             .group_id = "copies",
                             .settings = settings,
                             .token_source = tokens.source()};
    std::string all;
    const auto add = [&](const auto& make) {
      try {
        make();
      } catch (const ConfigError& error) {
        all += std::string{error.what()} + '\n';
      }
    };
    add([&] { const detail::KafkaInput input{"job", source}; });
    add([&] {
      const KafkaWriter writer{
          {.brokers = "localhost:1", .topic = "out", .settings = settings, .token_source = tokens.source()}};
    });
    add([&] {
      const Context context{{.app_name = "job"}};
      const KafkaGroup group{
          context, {.source = source, .checkpoint = "copies"}, [](auto&, const auto&, const auto&) {}};
    });
    return all;
  };
  const auto times = [](const std::string& text, const std::string& words) {
    int all = 0;
    for (auto at = text.find(words); at != std::string::npos; at = text.find(words, at + 1)) ++all;
    return all;
  };
  EXPECT_EQ(times(refusal({}), "\"sasl.mechanisms\" is"), 3) << refusal({});
  EXPECT_EQ(times(refusal({{"sasl.mechanisms", "OAUTHBEARER"}}), "\"security.protocol\" is \"plaintext\""), 3);
  EXPECT_EQ(refusal(oauth()), "");
}

}  // namespace
}  // namespace tidemill::token_test
