// The two ends of a loopback connection without this library: a sender of ready-made text and a reader that counts lines.
#pragma once

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <netinet/in.h>
#include <string_view>
#include <sys/socket.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace tidemill::bench {

/// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {
    if (fd < 0) {
      throw std::system_error(errno, std::generic_category(), "socket");
    }
  }
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) {
      ::close(fd_);
    }
  }
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

/// Listens on a free port of the loopback interface and sends `text` to the first that connects, `repeats` times over, as
/// fast as it is read. The text outlives the sender.
class Sender {
 public:
  Sender(std::string_view text, std::int64_t repeats) : listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener_.get(), any, size) != 0 || ::listen(listener_.get(), 1) != 0 ||
        ::getsockname(listener_.get(), any, &size) != 0) {
      throw std::system_error(errno, std::generic_category(), "listen");
    }
    port_ = ntohs(address.sin_port);
    thread_ = std::jthread([this, text, repeats] { send(text, repeats); });
  }

  /// A sender to which nobody came gives up; one that sends ends with the text or when its reader goes.
  ~Sender() { ::shutdown(listener_.get(), SHUT_RDWR); }

  [[nodiscard]] std::uint16_t port() const { return port_; }

 private:
  void send(std::string_view text, std::int64_t repeats) const {
    const int accepted = ::accept(listener_.get(), nullptr, nullptr);
    if (accepted < 0) {
      return;
    }
    const Descriptor connection(accepted);
    for (; repeats != 0; --repeats) {
      for (std::string_view rest = text; !rest.empty();) {
        const ssize_t sent = ::send(connection.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
        if (sent < 0) {
          return;  // the reader has gone, and will miss lines
        }
        rest.remove_prefix(static_cast<std::size_t>(sent));
      }
    }
  }

  Descriptor listener_;
  std::uint16_t port_ = 0;
  std::jthread thread_;  // last: it uses the others
};

/// The limit program: recv into one buffer, memchr for every newline, until the sender has closed.
inline std::int64_t count_lines_by_hand(std::uint16_t port) {
  const Descriptor connection(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  if (::connect(connection.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    throw std::system_error(errno, std::generic_category(), "connect");
  }
  std::vector<char> buffer(std::size_t{256} * 1024);
  std::int64_t lines = 0;
  for (;;) {
    const ssize_t received = ::recv(connection.get(), buffer.data(), buffer.size(), 0);
    if (received <= 0) {
      return lines;
    }
    const char* at = buffer.data();
    const char* const end = at + received;
    while (const void* newline = std::memchr(at, '\n', static_cast<std::size_t>(end - at))) {
      ++lines;
      at = static_cast<const char*>(newline) + 1;
    }
  }
}

}  // namespace tidemill::bench
