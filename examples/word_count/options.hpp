// The command line of word_count.
#pragma once

#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include <tidemill/core/time.hpp>
#include <tidemill/io/inbox.hpp>

namespace word_count {

inline constexpr std::string_view help =
    R"(Counts words in a stream of text, batch by batch.

Where the text comes from, one of:
  --socket HOST:PORT     a TCP server that sends lines; connects again when it goes away
  --directory DIR        files that are moved into DIR from now on
  --replay FILE          FILE, which the program serves to itself over TCP; ends when all of it has been counted
    --rate N             lines per second that --replay serves (default 0: as fast as they are taken)

How it is worked on:
  --interval TIME        length of a batch: 500us, 250ms, 1s, 2min (default 1s)
  --parallelism N        threads that may work on one batch (default 0: one per core)
  --max-buffered BYTES   how much may wait for its batch; beyond that the sender is made to wait (default 268435456)

What is printed:
  --totals               at the end, word<TAB>count of the whole run on the standard output, most frequent first; the
                         progress, which is printed in any case, then goes to the standard error
  --help                 this text

Ctrl-C stops: what has been received is still counted. A second Ctrl-C stops at once.
)";

struct Address {
  std::string host;
  std::uint16_t port = 0;
};

struct Options {
  std::optional<Address> socket;
  std::optional<std::filesystem::path> directory;
  std::optional<std::filesystem::path> replay;
  std::uint64_t rate = 0;
  tidemill::Duration interval = std::chrono::seconds{1};
  std::size_t parallelism = 0;
  std::size_t max_buffered_bytes = tidemill::InboxLimits{}.max_buffered_bytes;
  bool totals = false;
};

/// The command line asks for something that cannot be. what() is a sentence for whoever typed it.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class Number>
Number parse_number(std::string_view option, std::string_view text) {
  Number number{};
  const char* const end = text.data() + text.size();
  const auto [stopped_at, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc{} || stopped_at != end)
    throw UsageError{std::string{option} + " needs a whole number, and was given \"" + std::string{text} + "\"."};
  return number;
}

inline tidemill::Duration parse_interval(std::string_view text) {
  struct Unit {
    std::string_view name;
    tidemill::Duration length;
  };
  const std::size_t digits = text.find_first_not_of("0123456789");
  for (const Unit& unit : {Unit{"us", std::chrono::microseconds{1}}, Unit{"ms", std::chrono::milliseconds{1}},
                           Unit{"s", std::chrono::seconds{1}}, Unit{"min", std::chrono::minutes{1}}}) {
    if (digits == std::string_view::npos || text.substr(digits) != unit.name) continue;
    const auto count = parse_number<std::uint32_t>("--interval", text.substr(0, digits));
    if (count != 0) return count * unit.length;
  }
  throw UsageError{"--interval needs a time above zero such as 500us, 250ms, 1s or 2min, and was given \"" +
                   std::string{text} + "\"."};
}

inline Address parse_address(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0)
    throw UsageError{"--socket needs HOST:PORT, such as localhost:9999, and was given \"" + std::string{text} + "\"."};
  std::string_view host = text.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);  // [::1]:9999
  const auto port = parse_number<std::uint16_t>("The port of --socket", text.substr(colon + 1));
  return {std::string{host}, port};
}

/// Absent when help was asked for. Errors: UsageError.
inline std::optional<Options> parse(std::span<const char* const> arguments) {
  Options options;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view option = arguments[i];
    const auto value = [&] {
      if (i + 1 == arguments.size()) throw UsageError{std::string{option} + " needs a value."};
      return std::string_view{arguments[++i]};
    };
    if (option == "--help" || option == "-h") return std::nullopt;
    if (option == "--socket") {
      options.socket = parse_address(value());
    } else if (option == "--directory") {
      options.directory = value();
    } else if (option == "--replay") {
      options.replay = value();
    } else if (option == "--rate") {
      options.rate = parse_number<std::uint64_t>(option, value());
    } else if (option == "--interval") {
      options.interval = parse_interval(value());
    } else if (option == "--parallelism") {
      options.parallelism = parse_number<std::size_t>(option, value());
    } else if (option == "--max-buffered") {
      options.max_buffered_bytes = parse_number<std::size_t>(option, value());
    } else if (option == "--totals") {
      options.totals = true;
    } else {
      throw UsageError{"There is no option \"" + std::string{option} + "\"."};
    }
  }
  if (int{options.socket.has_value()} + int{options.directory.has_value()} + int{options.replay.has_value()} != 1)
    throw UsageError{"Say where the text comes from, by one of --socket, --directory and --replay."};
  return options;
}

}  // namespace word_count
