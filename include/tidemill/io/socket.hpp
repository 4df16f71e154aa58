// Inputs that connect to a TCP server and read until they are stopped: lines of text, whatever a decoder makes of the bytes,
// and raw blocks. When the server is not there, refuses, closes or breaks the connection, they connect again after a while.
//
// Delivery: what was received before a connection ended is kept; what the server sends while there is no connection is lost.
// Memory:   bounded by SocketOptions::inbox and one record; past that, or past its max_rate, the server is held back by TCP.
// Errors:   those of settings are ConfigError, from the factories. All others go to the receiver events of the listener.
// Source:   Spark `socketTextStream`, `socketStream`, `rawSocketStream`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tidemill/batch/context.hpp"
#include "tidemill/batch/text.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/io/detail/receive_buffer.hpp"
#include "tidemill/io/detail/socket_reader.hpp"
#include "tidemill/io/input.hpp"
#include "tidemill/io/raw_block.hpp"
#include "tidemill/io/socket_options.hpp"
#include "tidemill/io/text_blocks.hpp"

namespace tidemill {

/// Makes records of a stream of bytes: appends those that are whole to `out` and returns how many bytes they took. The rest
/// comes again, with what follows it, at the next call. It is called again at once as long as it takes something and
/// something is left. `at_end`: the peer has closed the connection, so nothing follows; called once even if nothing is left.
///
///     [](std::span<const std::byte> received, bool, std::vector<double>& out) {          // 8 bytes each
///       const std::size_t whole = received.size() / sizeof(double);
///       const std::size_t before = out.size();
///       out.resize(before + whole);
///       std::memcpy(out.data() + before, received.data(), whole * sizeof(double));
///       return whole * sizeof(double);
///     }
///
/// Each connection gets its own copy of the decoder, so it may keep what it needs between calls. Records own their data.
/// Errors:  what it throws is reported with the position of `received` in the connection; what it had appended by then in
///          earlier calls is kept, and the connection is made anew.
/// Threads: one call at a time. It runs on an I/O thread: it must not block, nor wait for the stream to stop.
template <class T>
using StreamDecoder = std::function<std::size_t(std::span<const std::byte> received, bool at_end, std::vector<T>& out)>;

namespace detail {

/// The part of a decoding sink that does not know the records.
class TIDEMILL_API DecodingSink : public StreamSink {
 public:
  explicit DecodingSink(const SocketOptions& options)
      : max_rest_bytes_{options.max_block_bytes}, buffer_{options.read_buffer_bytes} {}

  void begin() final;
  [[nodiscard]] std::span<char> space() final { return buffer_.space(); }
  [[nodiscard]] Next received(std::size_t bytes, std::string& complaint) final;
  [[nodiscard]] Next end(std::string& complaint) final;
  [[nodiscard]] std::uint64_t position() const noexcept final { return position_ + buffer_.unfinished().size(); }
  [[nodiscard]] std::size_t unfinished_bytes() const noexcept final { return buffer_.unfinished().size(); }

 protected:
  /// A fresh decoder.
  virtual void renew() = 0;
  /// Calls it. When it throws, records of this call are gone and those of earlier calls are there.
  [[nodiscard]] virtual std::size_t decode(std::span<const std::byte> received, bool at_end) = 0;
  /// Hands over what has been decoded since the last call.
  [[nodiscard]] virtual Next deliver() = 0;

 private:
  void decode_all(bool at_end);

  const std::size_t max_rest_bytes_;
  ReceiveBuffer buffer_;
  std::uint64_t position_ = 0;  // of the first byte that was not taken
};

template <class T>
class TypedDecodingSink final : public DecodingSink {
 public:
  TypedDecodingSink(Inbox<std::vector<T>>& inbox, StreamDecoder<T> decoder, const SocketOptions& options)
      : DecodingSink{options}, inbox_{inbox}, prototype_{std::move(decoder)} {}

  [[nodiscard]] InboxBase& inbox() noexcept override { return inbox_; }

 protected:
  void renew() override {
    decoder_ = prototype_;
    records_.clear();
  }
  [[nodiscard]] std::size_t decode(std::span<const std::byte> received, bool at_end) override {
    const std::size_t before = records_.size();
    try {
      return decoder_(received, at_end, records_);
    } catch (...) {
      if (records_.size() > before)
        records_.erase(std::next(records_.begin(), static_cast<std::ptrdiff_t>(before)), records_.end());
      throw;
    }
  }
  [[nodiscard]] Next deliver() override {
    if (records_.empty()) return Next::read;
    return offer_block(inbox_, std::exchange(records_, {}));
  }

 private:
  Inbox<std::vector<T>>& inbox_;
  const StreamDecoder<T> prototype_;
  StreamDecoder<T> decoder_;
  std::vector<T> records_;
};

/// An input that reads a socket; `MakeSink(inbox)` makes the sink of each run.
template <class Block>
class SocketInput final : public BlockInput<Block> {
 public:
  using MakeSink = std::function<std::shared_ptr<StreamSink>(Inbox<Block>&)>;

  /// Errors: ConfigError.
  SocketInput(const std::shared_ptr<Runtime>& runtime, const SocketAddress& address, const SocketOptions& options,
              MakeSink make_sink)
      : BlockInput<Block>{runtime->clock, options.inbox, options.max_rate},
        name_{address.name()},
        make_sink_{std::move(make_sink)},
        reader_{address, options} {}

  [[nodiscard]] std::string name() const override { return name_; }

 protected:
  void start_receiving(InputHost& host, std::size_t stream_id) override {
    reader_.start(host, stream_id, make_sink_(this->inbox()));
  }
  void stop_receiving() noexcept override { reader_.stop(); }

 private:
  const std::string name_;
  const MakeSink make_sink_;
  SocketReader reader_;
};

/// What reads raw blocks from a connection.
[[nodiscard]] TIDEMILL_API std::shared_ptr<StreamSink> make_raw_sink(Inbox<RawBlock>& inbox,
                                                                     const SocketOptions& options);

}  // namespace detail

/// Lines of text, ended by LF or CRLF; the last line of a connection needs no end. An empty line is an empty record. Bytes
/// are passed on as they are: text is UTF-8, and nothing checks it.
/// A line longer than `max_line_bytes` is left out; a receiver error names its position and how many there were so far.
[[nodiscard]] TIDEMILL_API std::shared_ptr<detail::BlockInput<TextBlock>> make_socket_text_input(
    const std::shared_ptr<detail::Runtime>& runtime, std::string host, std::uint16_t port,
    const SocketOptions& options = {});

/// Records that `decoder` makes of the bytes.
template <class T>
[[nodiscard]] std::shared_ptr<detail::BlockInput<std::vector<T>>> make_socket_input(
    const std::shared_ptr<detail::Runtime>& runtime, std::string host, std::uint16_t port, StreamDecoder<T> decoder,
    const SocketOptions& options = {}) {
  if (!decoder) throw ConfigError("the decoder of a socket input is empty; give a function");
  return std::make_shared<detail::SocketInput<std::vector<T>>>(
      runtime, detail::SocketAddress{std::move(host), port}, options,
      [decoder = std::move(decoder), options](detail::Inbox<std::vector<T>>& inbox) {
        return std::make_shared<detail::TypedDecodingSink<T>>(inbox, decoder, options);
      });
}

/// Raw blocks (raw_block.hpp), which `detail::raw_blocks_batch<T>` decodes when the batch runs. A block whose two numbers
/// cannot be right is a receiver error, and the connection is made anew, since the next block could not be found.
[[nodiscard]] TIDEMILL_API std::shared_ptr<detail::BlockInput<detail::RawBlock>> make_raw_socket_input(
    const std::shared_ptr<detail::Runtime>& runtime, std::string host, std::uint16_t port,
    const SocketOptions& options = {});

}  // namespace tidemill
