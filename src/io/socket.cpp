#include "tidemill/io/socket.hpp"

#include <algorithm>
#include <exception>
#include <string_view>

#include "tidemill/io/detail/line_framer.hpp"

namespace tidemill {
namespace detail {
namespace {

using Next = StreamSink::Next;

// Several blocks of one read: the last answer counts, for an inbox never gets emptier by what is put in. It may be emptied
// meanwhile; then the wait for room is over at once.
template <class Block>
Next offer_blocks(Inbox<Block>& inbox, std::vector<Block> blocks) {
  Next next = Next::read;
  for (Block& block : blocks) next = offer_block(inbox, std::move(block));
  return next;
}

class TextSink final : public StreamSink {
 public:
  TextSink(Inbox<TextBlock>& inbox, const SocketOptions& options)
      : inbox_{inbox},
        max_line_bytes_{options.max_line_bytes},
        framer_{options.read_buffer_bytes, options.max_line_bytes} {}

  void begin() override { framer_.begin(); }
  [[nodiscard]] std::span<char> space() override { return framer_.space(); }
  [[nodiscard]] Next received(std::size_t bytes, std::string& complaint) override {
    return pass_on(framer_.received(bytes), complaint);
  }
  [[nodiscard]] Next end(std::string& complaint) override { return pass_on(framer_.end(), complaint); }
  [[nodiscard]] std::uint64_t position() const noexcept override { return framer_.position(); }
  [[nodiscard]] std::size_t unfinished_bytes() const noexcept override { return framer_.unfinished_bytes(); }
  [[nodiscard]] InboxBase& inbox() noexcept override { return inbox_; }

 private:
  Next pass_on(LineFramer::Found found, std::string& complaint) {
    const Next next = offer_blocks(inbox_, std::move(found.blocks));
    if (found.long_lines != 0) {
      long_lines_ += found.long_lines;
      complaint = "the line at byte " + std::to_string(found.first_long_line) + " of the connection is longer than " +
                  std::to_string(max_line_bytes_) + " bytes (max_line_bytes) and is left out";
      if (found.long_lines > 1)
        complaint += ", as are " + std::to_string(found.long_lines - 1) + " lines soon after it";
      complaint += "; left out so far: " + std::to_string(long_lines_);
    }
    return next;
  }

  Inbox<TextBlock>& inbox_;
  const std::size_t max_line_bytes_;
  LineFramer framer_;
  std::uint64_t long_lines_ = 0;  // since the input was started
};

std::uint32_t big_endian_at(std::string_view bytes, std::size_t offset) noexcept {
  std::uint32_t value = 0;
  for (const char byte : bytes.substr(offset, 4)) value = value << 8 | static_cast<unsigned char>(byte);
  return value;
}

class RawSink final : public StreamSink {
 public:
  RawSink(Inbox<RawBlock>& inbox, const SocketOptions& options)
      : inbox_{inbox}, max_block_bytes_{options.max_block_bytes}, buffer_{options.read_buffer_bytes} {}

  void begin() override {
    buffer_.clear();
    position_ = 0;
  }
  [[nodiscard]] std::span<char> space() override { return buffer_.space(); }

  [[nodiscard]] Next received(std::size_t bytes, std::string&) override {
    buffer_.received(bytes);
    Next next = Next::read;
    while (buffer_.unfinished().size() >= raw_block_header_bytes) {
      const std::string_view rest = buffer_.unfinished();
      const std::uint32_t length = big_endian_at(rest, 0);
      const std::uint32_t records = big_endian_at(rest, 4);
      check_header(length, records);
      const std::size_t block_bytes = std::size_t{4} + length;
      if (rest.size() < block_bytes) break;
      if (records != 0) {
        const auto payload = std::as_bytes(std::span{rest}.subspan(raw_block_header_bytes, length - 4));
        next = offer_block(inbox_, RawBlock{.payload = payload,
                                            .records = records,
                                            .first = 0,
                                            .ends_payload = true,
                                            .charged_bytes = payload.size(),
                                            .position = position_,
                                            .owner = buffer_.owner(),
                                            .marks = nullptr});
      }
      buffer_.take(block_bytes);
      position_ += block_bytes;
    }
    return next;
  }

  [[nodiscard]] Next end(std::string& complaint) override {
    if (const std::size_t rest = buffer_.unfinished().size(); rest != 0) {
      complaint = "the connection ended inside the raw block at byte " + std::to_string(position_) + "; " +
                  std::to_string(rest) + " bytes of it are left out";
    }
    return Next::read;
  }

  [[nodiscard]] std::uint64_t position() const noexcept override { return position_ + buffer_.unfinished().size(); }
  [[nodiscard]] std::size_t unfinished_bytes() const noexcept override { return buffer_.unfinished().size(); }
  [[nodiscard]] InboxBase& inbox() noexcept override { return inbox_; }

 private:
  void check_header(std::uint32_t length, std::uint32_t records) const {
    std::string fault;
    if (length < 4) {
      fault = "gives its length as " + std::to_string(length) + ", and at least 4 bytes follow a length";
    } else if (length - 4 > max_block_bytes_) {
      fault = "has " + std::to_string(length - 4) + " bytes of records, and max_block_bytes allows " +
              std::to_string(max_block_bytes_);
    } else if (records > length - 4 || (records == 0 && length != 4)) {
      fault = "claims " + std::to_string(records) + " records in " + std::to_string(length - 4) + " bytes";
    } else {
      return;
    }
    throw SourceError("malformed_block",
                      "the raw block at byte " + std::to_string(position_) + " of the connection " + fault,
                      Retry::may_help);
  }

  Inbox<RawBlock>& inbox_;
  const std::size_t max_block_bytes_;
  ReceiveBuffer buffer_;
  std::uint64_t position_ = 0;  // of the first unfinished byte
};

}  // namespace

std::shared_ptr<StreamSink> make_raw_sink(Inbox<RawBlock>& inbox, const SocketOptions& options) {
  return std::make_shared<RawSink>(inbox, options);
}

void DecodingSink::begin() {
  buffer_.clear();
  position_ = 0;
  renew();
}

StreamSink::Next DecodingSink::received(std::size_t bytes, std::string&) {
  buffer_.received(bytes);
  decode_all(false);
  if (const std::size_t rest = buffer_.unfinished().size(); rest > max_rest_bytes_) {
    static_cast<void>(deliver());
    throw SourceError("record_too_large",
                      "the decoder left the " + std::to_string(rest) + " bytes from byte " + std::to_string(position_) +
                          " of the connection for later, and max_block_bytes allows " + std::to_string(max_rest_bytes_),
                      Retry::may_help);
  }
  return deliver();
}

StreamSink::Next DecodingSink::end(std::string& complaint) {
  decode_all(true);
  if (const std::size_t rest = buffer_.unfinished().size(); rest != 0) {
    complaint = "the connection ended inside a record: the decoder left the " + std::to_string(rest) +
                " bytes from byte " + std::to_string(position_);
  }
  return deliver();
}

void DecodingSink::decode_all(bool at_end) {
  try {
    std::size_t taken = 0;
    do {
      const std::string_view rest = buffer_.unfinished();
      taken = decode(std::as_bytes(std::span{rest}), at_end);
      if (taken > rest.size())
        throw SourceError(
            "decoder_failed",
            "it says that it took " + std::to_string(taken) + " bytes, and was given " + std::to_string(rest.size()),
            Retry::is_useless);
      buffer_.take(taken);
      position_ += taken;
    } while (taken != 0 && !buffer_.unfinished().empty());
  } catch (...) {
    const std::string what = describe(std::current_exception());
    static_cast<void>(deliver());
    throw SourceError("decoder_failed",
                      "the decoder failed at byte " + std::to_string(position_) + " of the connection: " + what,
                      Retry::may_help);
  }
}

}  // namespace detail

std::shared_ptr<detail::BlockInput<TextBlock>> make_socket_text_input(const std::shared_ptr<detail::Runtime>& runtime,
                                                                      std::string host, std::uint16_t port,
                                                                      const SocketOptions& options) {
  return std::make_shared<detail::SocketInput<TextBlock>>(
      runtime, detail::SocketAddress{std::move(host), port}, options,
      [options](detail::Inbox<TextBlock>& inbox) { return std::make_shared<detail::TextSink>(inbox, options); });
}

std::shared_ptr<detail::BlockInput<detail::RawBlock>> make_raw_socket_input(
    const std::shared_ptr<detail::Runtime>& runtime, std::string host, std::uint16_t port,
    const SocketOptions& options) {
  return std::make_shared<detail::SocketInput<detail::RawBlock>>(
      runtime, detail::SocketAddress{std::move(host), port}, options,
      [options](detail::Inbox<detail::RawBlock>& inbox) { return detail::make_raw_sink(inbox, options); });
}

}  // namespace tidemill
