#include "checkpoint/format.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "tidemill/core/crc32c.hpp"

namespace tidemill::detail {
namespace {

constexpr std::string_view magic = "TIDECKPT";
constexpr char last_byte =
    '\x7E';  // of every frame, so that a frame without its end is not taken for one that ends in zeros
constexpr auto read_bytes = static_cast<std::size_t>(4 * frame_bytes(max_frame_payload));  // whole frames of a snapshot

template <class T>
void put(char* at, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) at[i] = static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i));
}
template <class T>
T get(const char* at) {
  std::uint64_t value = 0;
  for (std::size_t i = sizeof(T); i > 0; --i) value = value << 8 | static_cast<unsigned char>(at[i - 1]);
  return static_cast<T>(value);
}

bool all_zero(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char byte) { return byte == 0; });
}

}  // namespace

struct FrameHead {
  std::uint32_t checksum;
  std::uint32_t previous;
  std::int64_t stamp;
  std::uint32_t length;
  std::uint8_t type;
  std::uint8_t flags;
  std::uint16_t check;     // of the header alone: with it, the length can be relied on
  std::uint16_t expected;  // value of `check`

  explicit FrameHead(const char* at)
      : checksum{get<std::uint32_t>(at)},
        previous{get<std::uint32_t>(at + 4)},
        stamp{get<std::int64_t>(at + 8)},
        length{get<std::uint32_t>(at + 16)},
        type{get<std::uint8_t>(at + 20)},
        flags{get<std::uint8_t>(at + 21)},
        check{get<std::uint16_t>(at + 22)},
        expected{check_of(at)} {}

  // The last byte is never 0, nor one flipped bit away from it: 0 is what was not written.
  static std::uint16_t check_of(const char* at) {
    return static_cast<std::uint16_t>(crc32c(bytes_of({at + 4, 18})) | 0xC000U);
  }

  [[nodiscard]] bool is_type() const noexcept {
    switch (static_cast<FrameType>(type)) {
      case FrameType::begin:
      case FrameType::run:
      case FrameType::plan:
      case FrameType::drop:
      case FrameType::commit:
      case FrameType::snapshot:
      case FrameType::state:
      case FrameType::end:
      case FrameType::block: return true;
    }
    return false;
  }

  [[nodiscard]] bool plausible(std::uint64_t room) const noexcept {
    return length <= max_frame_payload && frame_bytes(length) <= room && is_type() && flags <= 3;
  }
};

std::string to_hex(std::span<const std::byte> bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const std::byte byte : bytes) {
    text.push_back(digits[std::to_integer<unsigned>(byte) >> 4]);
    text.push_back(digits[std::to_integer<unsigned>(byte) & 15]);
  }
  return text;
}

void fail_damaged(const std::string& path, std::uint64_t offset, std::string_view what) {
  ErrorContext context;
  context.op = path;
  context.offset = offset;
  std::string message{"the checkpoint is damaged: "};
  message.append(path).append(", byte ").append(std::to_string(offset)).append(": ").append(what);
  message.append("; restore the directory from a copy, or look at it with tidemill-checkpoint verify");
  throw StateError("checkpoint_damaged", message, Retry::is_useless, std::move(context));
}

// --- Headers ---

std::string encode_header(const FileHeader& header) {
  std::string bytes(file_header_bytes, '\0');
  std::memcpy(bytes.data(), magic.data(), magic.size());
  put(&bytes[8], checkpoint_format_version);
  put(&bytes[10], static_cast<std::uint16_t>(header.kind));
  std::memcpy(&bytes[16], header.id.data(), header.id.size());
  put(&bytes[32], header.number);
  put(&bytes[40], header.capacity);
  put(&bytes[60], crc32c(bytes_of(bytes).first(60)));
  return bytes;
}

FileHeader decode_header(std::string_view bytes, const std::string& path, const CheckpointChecks& checks) {
  if (bytes.size() < file_header_bytes) fail_damaged(path, bytes.size(), "the file ends within its header");
  if (!bytes.starts_with(magic)) fail_damaged(path, 0, "it does not begin as a file of a checkpoint does");
  if (checks.crc && get<std::uint32_t>(&bytes[60]) != crc32c(bytes_of(bytes).first(60)))
    fail_damaged(path, 60, "the checksum of the header does not match");
  const auto version = get<std::uint16_t>(&bytes[8]);
  if (version > checkpoint_format_version) {
    ErrorContext context;
    context.op = path;
    throw StateError("newer_format",
                     path + " has version " + std::to_string(version) +
                         " of the checkpoint format, and this library reads versions up to " +
                         std::to_string(checkpoint_format_version) + ": use a later Tidemill; nothing was changed",
                     Retry::is_useless, std::move(context));
  }
  FileHeader header;
  header.kind = static_cast<FileKind>(get<std::uint16_t>(&bytes[10]));
  std::memcpy(header.id.data(), &bytes[16], header.id.size());
  header.number = get<std::uint64_t>(&bytes[32]);
  header.capacity = get<std::uint64_t>(&bytes[40]);
  if (version == 0 || !all_zero(bytes.substr(12, 4)) || !all_zero(bytes.substr(48, 12)))
    fail_damaged(path, 8, "the header holds values that are not used");
  return header;
}

void check_header(const FsReader& file, const std::string& path, const FileHeader& expected,
                  const CheckpointChecks& checks) {
  std::string bytes(file_header_bytes, '\0');
  bytes.resize(read_twice(file, 0, std::as_writable_bytes(std::span{bytes})));
  const FileHeader found = decode_header(bytes, path, checks);
  if (found.kind != expected.kind) fail_damaged(path, 10, "it is a file of another kind");
  if (found.id != expected.id)
    fail_damaged(path, 16,
                 "it belongs to another checkpoint, of the id " + to_hex(found.id) + " and not " + to_hex(expected.id));
  if (found.number != expected.number)
    fail_damaged(path, 32,
                 "it is number " + std::to_string(found.number) + " under the name of number " +
                     std::to_string(expected.number));
  if (found.capacity != 0 && file.size() != found.capacity)
    fail_damaged(path, file.size(),
                 "the file has " + std::to_string(file.size()) + " bytes and not the " +
                     std::to_string(found.capacity) + " that it was made with");
}

// --- Frames ---

std::uint32_t append_frame(std::string& out, FrameType type, bool first, bool last, std::int64_t stamp,
                           std::uint32_t previous, std::string_view payload) {
  const std::size_t at = out.size();
  const auto size = static_cast<std::size_t>(frame_bytes(payload.size()));
  out.reserve(at + size);
  char head[frame_header_bytes];
  put(head, std::uint32_t{0});
  put(head + 4, previous);
  put(head + 8, stamp);
  put(head + 16, static_cast<std::uint32_t>(payload.size()));
  put(head + 20, static_cast<std::uint8_t>(type));
  put(head + 21, static_cast<std::uint8_t>((first ? 1 : 0) | (last ? 2 : 0)));
  put(head + 22, FrameHead::check_of(head));
  out.append(head, sizeof head).append(payload);
  out.resize(at + size - 1, '\0');
  out.push_back(last_byte);
  const std::uint32_t checksum = crc32c(bytes_of(out).subspan(at + 4, size - 4));
  put(&out[at], checksum);
  return checksum;
}

std::size_t read_twice(const FsReader& file, std::uint64_t offset, std::span<std::byte> to) {
  try {
    return file.read_at(offset, to);
  } catch (const FsError&) {
    return file.read_at(offset, to);
  }
}

FrameReader::FrameReader(const FsReader& file, std::uint64_t offset, std::uint64_t end, std::uint32_t chain,
                         const CheckpointChecks& checks)
    : file_{file}, checks_{checks}, offset_{offset}, end_{end}, chain_{chain} {}

std::string_view FrameReader::look(std::size_t bytes) {
  bytes = static_cast<std::size_t>(std::min<std::uint64_t>(bytes, end_ - std::min(offset_, end_)));
  const std::uint64_t skipped = offset_ - buffer_offset_;
  if (skipped + bytes <= filled_) return {buffer_.get() + skipped, bytes};
  const char* const rest = buffer_.get() + std::min<std::uint64_t>(skipped, filled_);
  const std::size_t have = filled_ - static_cast<std::size_t>(std::min<std::uint64_t>(skipped, filled_));
  // A short log is not worth a large buffer.
  const std::size_t wanted = static_cast<std::size_t>(std::min<std::uint64_t>(
      std::max(bytes, have == 0 && offset_ < 4096 ? std::size_t{64 * 1024} : read_bytes), end_ - offset_));
  if (wanted > room_) {
    auto larger = std::make_unique_for_overwrite<char[]>(wanted);
    if (have > 0) std::memcpy(larger.get(), rest, have);
    buffer_ = std::move(larger);
    room_ = wanted;
  } else if (have > 0) {
    std::memmove(buffer_.get(), rest, have);
  }
  buffer_offset_ = offset_;
  filled_ = have;
  if (wanted > have)
    filled_ +=
        read_twice(file_, offset_ + have, std::as_writable_bytes(std::span{buffer_.get() + have, wanted - have}));
  return {buffer_.get(), std::min(bytes, filled_)};
}

FrameReader::Outcome FrameReader::next(Frame& frame) {
  std::string_view bytes = look(frame_header_bytes);
  if (bytes.empty()) return Outcome::end;
  if (bytes.size() < frame_header_bytes) return all_zero(bytes) ? Outcome::end : Outcome::bad;
  const FrameHead head{bytes.data()};
  if (!head.plausible(end_ - offset_)) {
    // Zeros are the end only if nothing follows them: of a torn write the first sector may be the one that is missing.
    if (all_zero(bytes)) {
      const std::string_view more = look(static_cast<std::size_t>(std::min<std::uint64_t>(end_ - offset_, 64 * 1024)));
      if (all_zero(more)) return Outcome::end;
    }
    return Outcome::bad;
  }
  const auto size = static_cast<std::size_t>(frame_bytes(head.length));
  bytes = look(size);
  if (bytes.size() < size) return Outcome::bad;
  if (checks_.crc && crc32c(bytes_of(bytes).subspan(4)) != head.checksum) return Outcome::bad;
  if (!accept(head, frame)) return Outcome::bad;
  frame.payload = bytes.substr(frame_header_bytes, head.length);
  return Outcome::frame;
}

FrameReader::Outcome FrameReader::skip(Frame& frame) {
  char bytes[frame_header_bytes];
  if (offset_ >= end_) return Outcome::end;
  const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(sizeof bytes, end_ - offset_));
  if (read_twice(file_, offset_, std::as_writable_bytes(std::span{bytes}.first(size))) < sizeof bytes)
    return Outcome::bad;
  const FrameHead head{bytes};
  if (head.check != head.expected || !head.plausible(end_ - offset_) || !accept(head, frame)) return Outcome::bad;
  frame.payload = {};
  return Outcome::frame;
}

bool FrameReader::accept(const FrameHead& head, Frame& frame) {
  if (checks_.chain && !any_chain_ && head.previous != chain_) return false;
  any_chain_ = false;
  frame.type = static_cast<FrameType>(head.type);
  frame.first = (head.flags & 1) != 0;
  frame.last = (head.flags & 2) != 0;
  frame.stamp = head.stamp;
  frame.chain = head.checksum;
  frame.previous = head.previous;
  frame.offset = offset_;
  offset_ += frame_bytes(head.length);
  chain_ = head.checksum;
  return true;
}

bool is_torn(const FsReader& file, std::uint64_t offset, std::uint64_t end) {
  const auto sector_is_missing = [&](std::uint64_t size) {
    std::string bytes(static_cast<std::size_t>(std::min(size, end - offset)), '\0');
    bytes.resize(read_twice(file, offset, std::as_writable_bytes(std::span{bytes})));
    std::string_view rest{bytes};
    for (std::uint64_t at = offset; !rest.empty();) {
      const auto part =
          static_cast<std::size_t>(std::min<std::uint64_t>(rest.size(), sector_bytes - at % sector_bytes));
      if (all_zero(rest.substr(0, part))) return true;
      rest.remove_prefix(part);
      at += part;
    }
    return false;
  };
  if (end - offset < frame_header_bytes || sector_is_missing(frame_header_bytes)) return true;
  char bytes[frame_header_bytes];
  if (read_twice(file, offset, std::as_writable_bytes(std::span{bytes})) < sizeof bytes) return true;
  const FrameHead head{bytes};
  if (bytes[frame_header_bytes - 1] == 0) return true;  // a write that ended within the header
  if (head.check != head.expected || !head.plausible(end - offset)) return false;
  const std::uint64_t size = frame_bytes(head.length);
  if (sector_is_missing(size)) return true;
  char last[1];
  return read_twice(file, offset + size - 1, std::as_writable_bytes(std::span{last})) < 1 || last[0] == 0;
}

bool has_record_after(const FsReader& file, std::uint64_t offset, std::uint64_t end) {
  CheckpointChecks checks;
  checks.chain = false;
  std::string bytes;
  for (std::uint64_t at = offset + 8; at + frame_header_bytes <= end;) {
    bytes.resize(static_cast<std::size_t>(std::min<std::uint64_t>(read_bytes, end - at)));
    bytes.resize(read_twice(file, at, std::as_writable_bytes(std::span{bytes})));
    if (bytes.size() < frame_header_bytes) return false;
    std::size_t i = 0;
    for (; i + frame_header_bytes <= bytes.size(); i += 8) {
      const FrameHead head{&bytes[i]};
      if ((head.flags & 1) == 0 || !head.plausible(end - at - i)) continue;
      FrameReader frames{file, at + i, end, 0, checks};
      Frame frame;
      if (frames.next(frame) == FrameReader::Outcome::frame) return true;
    }
    at += i;
  }
  return false;
}

// --- Records ---

RecordReader::RecordReader(Fs& fs, std::vector<Extent> extents, const CheckpointChecks& checks)
    : fs_{fs}, extents_{std::move(extents)}, checks_{checks} {
  frame_.last = true;
}
RecordReader::~RecordReader() = default;

bool RecordReader::next_frame() {
  for (;;) {
    while (!frames_ || frames_->offset() >= extents_[extent_ - 1].to) {
      if (extent_ == extents_.size()) return false;
      const Extent& extent = extents_[extent_++];
      file_ = fs_.read(extent.path);
      frames_ = std::make_unique<FrameReader>(*file_, extent.from, extent.to, extent.chain, checks_);
    }
    // Where checksums are not looked at, what nobody wants to see need not be read.
    const auto outcome = passing_over_ && !checks_.crc ? frames_->skip(frame_) : frames_->next(frame_);
    if (outcome != FrameReader::Outcome::frame)
      fail_damaged(extents_[extent_ - 1].path, frames_->offset(), "a record that was good is not so any more");
    if (frame_.type != FrameType::begin) return true;
  }
}

bool RecordReader::next() {
  stitched_.clear();
  passing_over_ = true;
  while (!frame_.last) next_of_record();
  passing_over_ = false;
  rest_ = {};
  if (!next_frame()) return false;
  while (!frame_.first && !begun_) {
    if (!next_frame()) return false;
  }
  begun_ = true;
  if (!frame_.first) fail("a record without a beginning");
  head_ = frame_;
  segment_ = extents_[extent_ - 1].segment;
  rest_ = frame_.payload;
  return true;
}

void RecordReader::enter(FrameType type, std::size_t bytes) {
  if (!next_frame()) fail("a record is missing");
  if (frame_.type != type || frame_.payload.size() < bytes) fail("it is another record");
  begun_ = true;
  head_ = frame_;
  segment_ = extents_[extent_ - 1].segment;
  rest_ = frame_.payload.substr(bytes);
}

void RecordReader::next_of_record() {
  if (frame_.last) fail("a record is shorter than its contents");
  if (!next_frame()) fail("a record without an end");
  if (frame_.first || frame_.type != head_.type || frame_.stamp != head_.stamp) fail("a record within another");
}

std::string_view RecordReader::take_across(std::size_t bytes) {
  std::string joined{rest_};
  rest_ = {};
  while (joined.size() < bytes) {
    next_of_record();
    const std::size_t part = std::min(frame_.payload.size(), bytes - joined.size());
    joined.append(frame_.payload.substr(0, part));
    rest_ = frame_.payload.substr(part);
  }
  stitched_ = std::move(joined);
  return stitched_;
}

void RecordReader::take_entry(Entry& entry) {
  const auto begin = [&](std::string_view head) {
    const auto what = static_cast<unsigned char>(head[0]);
    if (what != 1 && what != 2) fail("an entry that is neither put nor erased");
    entry.erased = what == 2;
    entry.group = static_cast<KeyGroup>(head[1]);
  };
  constexpr std::size_t sizes = 4;
  constexpr std::size_t head = 2 + sizes;
  if (rest_.size() >= head) [[likely]] {  // all of it in this frame, as nearly always
    const std::size_t key = get<std::uint32_t>(&rest_[2]);
    if (rest_.size() - head >= key) [[likely]] {
      begin(rest_);
      entry.key = rest_.substr(head, key);
      if (entry.erased) {
        entry.value = {};
        rest_.remove_prefix(head + key);
        return;
      }
      if (rest_.size() - head - key >= sizes) [[likely]] {
        const std::size_t value = get<std::uint32_t>(&rest_[head + key]);
        if (rest_.size() - head - key - sizes >= value) [[likely]] {
          entry.value = rest_.substr(head + key + sizes, value);
          rest_.remove_prefix(head + key + sizes + value);
          return;
        }
      }
    }
  }
  begin(take(2));
  key_ = take_sized();
  entry.key = key_;
  entry.value = entry.erased ? std::string_view{} : take_sized();
}

std::string RecordReader::take_rest() {
  std::string all;
  while (!at_end()) {
    all.append(rest_);
    rest_ = {};
  }
  return all;
}

void RecordReader::skip(std::uint64_t bytes) {
  while (bytes > rest_.size()) {
    bytes -= rest_.size();
    next_of_record();
    rest_ = frame_.payload;
  }
  rest_.remove_prefix(static_cast<std::size_t>(bytes));
}

bool RecordReader::at_end() {
  while (rest_.empty()) {
    if (frame_.last) return true;
    next_of_record();
    rest_ = frame_.payload;
  }
  return false;
}

void RecordReader::fail(std::string_view what) const { fail_damaged(extents_[extent_ - 1].path, frame_.offset, what); }

}  // namespace tidemill::detail
