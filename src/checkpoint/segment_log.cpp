#include "checkpoint/segment_log.hpp"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <utility>

namespace tidemill::detail {
namespace {

constexpr std::string_view segment_suffix = ".log";
constexpr std::uint64_t least_room = 512;  // in a segment, for a frame: below that a new one is begun
constexpr std::size_t flush_bytes = 4 * 1024 * 1024;

// The payload of a `begin` frame.
struct Begin {
  std::uint64_t segment = 0;  // 0: nothing before
  std::uint64_t offset = 0;

  [[nodiscard]] std::string bytes() const {
    std::string out;
    Encoder to{out};
    to.fixed(segment);
    to.fixed(offset);
    return out;
  }
};

enum class First { unused, used, torn, damaged };

// How a segment begins.
struct Beginning {
  First first = First::unused;
  Begin continues;
  std::uint32_t chain = 0;  // of what it continues
  std::uint64_t capacity = 0;
};

Beginning read_beginning(const LogPlace& place, std::uint64_t segment) {
  const std::string path = place.path(segment);
  const auto file = place.fs->read(path);
  FileHeader expected;
  expected.kind = place.kind;
  expected.id = place.id;
  expected.number = segment;
  check_header(*file, path, expected, place.checks);
  Beginning beginning;
  beginning.capacity = file->size();
  FrameReader frames{*file, file_header_bytes, beginning.capacity, 0, place.checks};
  frames.accept_any_chain();
  Frame frame;
  switch (frames.next(frame)) {
    case FrameReader::Outcome::end: beginning.first = First::unused; break;
    case FrameReader::Outcome::bad:
      beginning.first = is_torn(*file, file_header_bytes, beginning.capacity) ? First::torn : First::damaged;
      break;
    case FrameReader::Outcome::frame: {
      beginning.first = First::damaged;
      if (frame.type != FrameType::begin || frame.payload.size() != 16) break;
      Decoder from{bytes_of(frame.payload)};
      beginning.continues.segment = from.fixed<std::uint64_t>();
      beginning.continues.offset = from.fixed<std::uint64_t>();
      beginning.chain = frame.previous;
      if (beginning.continues.segment < segment) beginning.first = First::used;
      break;
    }
  }
  return beginning;
}

}  // namespace

std::string numbered_name(std::string_view prefix, std::uint64_t number, std::string_view suffix) {
  std::string digits = std::to_string(number);
  if (digits.size() < 10) digits.insert(0, 10 - digits.size(), '0');
  return std::string{prefix}.append("-").append(digits).append(suffix);
}

std::optional<std::uint64_t> number_of(std::string_view name, std::string_view prefix, std::string_view suffix) {
  if (!name.starts_with(prefix) || !name.ends_with(suffix)) return std::nullopt;
  if (name.size() < prefix.size() + 11 + suffix.size() || name[prefix.size()] != '-') return std::nullopt;
  name.remove_prefix(prefix.size() + 1);
  name.remove_suffix(suffix.size());
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc{} || end != name.data() + name.size() || number == 0) return std::nullopt;
  return number;
}

void check_segment_bytes(std::string_view option, std::uint64_t bytes) {
  if (bytes >= 4096 && bytes % 512 == 0) return;
  throw ConfigError(std::string{option} + " is " + std::to_string(bytes) +
                    "; it must be a multiple of 512, and at least 4096");
}

std::string LogPlace::path(std::uint64_t segment) const {
  return join_path(directory, numbered_name(prefix, segment, segment_suffix));
}

std::vector<std::uint64_t> LogPlace::segments() const {
  std::vector<std::uint64_t> numbers;
  for (const std::string& name : fs->list(directory)) {
    if (const auto number = number_of(name, prefix, segment_suffix)) numbers.push_back(*number);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

// --- Reading ---

LogScan scan_log(const LogPlace& place, const ScanOptions& options,
                 FunctionRef<void(std::uint64_t segment, const Frame&)> visit, FunctionRef<void()> on_gap) {
  LogScan scan;
  std::vector<std::uint64_t> files = place.segments();
  if (!files.empty()) scan.first_file = files.front();
  // What stands before the base was to be removed, and may have been in part.
  std::erase_if(files, [&](std::uint64_t file) { return file < options.base; });
  if (files.empty()) fail_damaged(place.path(options.base), 0, "the file is missing");
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (files[i] != options.base + i) fail_damaged(place.path(options.base + i), 0, "the file is missing");
  }
  scan.last_file = files.back();

  std::vector<Beginning> beginnings;
  beginnings.reserve(files.size());
  for (const std::uint64_t file : files) beginnings.push_back(read_beginning(place, file));
  const auto beginning_of = [&](std::uint64_t segment) -> const Beginning& {
    return beginnings[static_cast<std::size_t>(segment - options.base)];
  };
  if (beginnings.back().first != First::unused)
    fail_damaged(place.path(scan.last_file + 1), 0, "the file is missing: the one before it is in use");  // L2

  // The last segment that was begun, and from there back by what each one says that it continues (L3).
  std::uint64_t tail = scan.last_file;
  for (; tail >= options.base && beginning_of(tail).first != First::used; --tail) {
    if (beginning_of(tail).first == First::damaged) {
      if (options.damaged_end == DamagedEnd::refuse)
        fail_damaged(place.path(tail), file_header_bytes, "the first record is not what it was");
      // Cut off only if nothing else is lost with it.
      const auto file = place.fs->read(place.path(tail));
      if (has_record_after(*file, file_header_bytes, beginning_of(tail).capacity))
        fail_damaged(place.path(tail), file_header_bytes, "the first record is not what it was, and others follow it");
      scan.end_was_cut = true;
      scan.warnings.push_back(place.path(tail) + ": the first record is not what it was and is left out");
    }
    if (beginning_of(tail).first != First::unused) scan.leftovers.push_back(tail);
  }
  if (tail < options.base) {
    if (options.base != 1)
      fail_damaged(place.path(options.base), file_header_bytes, "the file was in use and is empty");
    return scan;
  }
  std::vector<std::uint64_t> path;
  for (std::uint64_t segment = tail;;) {
    path.push_back(segment);
    if (segment == options.base) break;
    const Beginning& beginning = beginning_of(segment);
    segment = beginning.continues.segment;
    if (segment < options.base) {
      // A new log may begin anywhere: the first segments may have failed.
      if (segment == 0 && options.base == 1) break;
      fail_damaged(place.path(options.base), file_header_bytes, "the log goes on elsewhere");
    }
    if (beginning_of(segment).first != First::used && !options.allow_gaps)
      fail_damaged(place.path(segment), file_header_bytes, "the first record is not what it was");
  }
  std::reverse(path.begin(), path.end());

  std::uint32_t chain = beginning_of(path.front()).chain;
  bool in_record = false;
  // The record in which the first segment begins is whole only together with one that is not needed any more.
  bool within = beginning_of(path.front()).continues.segment != 0;
  FrameType type{};
  std::int64_t stamp = 0;
  for (std::size_t i = 0; i < path.size(); ++i) {
    const std::uint64_t segment = path[i];
    const std::string name = place.path(segment);
    const Beginning& beginning = beginning_of(segment);
    const Beginning* const next = i + 1 < path.size() ? &beginning_of(path[i + 1]) : nullptr;
    const std::uint64_t to = next != nullptr ? next->continues.offset : beginning.capacity;
    const auto file = place.fs->read(name);
    FrameReader frames{*file, file_header_bytes, beginning.capacity, chain, place.checks};
    scan.extents.push_back({name, segment, file_header_bytes, to, chain});
    Frame frame;
    const auto gap = [&](std::string_view what) {
      if (next == nullptr || !options.allow_gaps) fail_damaged(name, frames.offset(), what);
      scan.warnings.push_back(name + ", byte " + std::to_string(frames.offset()) + ": " + std::string{what} +
                              "; nothing in this file is needed any more");
      scan.extents.clear();
      in_record = false;
      within = true;
      on_gap();
    };
    for (bool begun = false;; begun = true) {
      if (next != nullptr && frames.offset() >= to) {
        if (frames.offset() > to || (place.checks.chain && frames.chain() != next->chain))
          gap("another log goes on from here");
        break;
      }
      const auto outcome = frames.next(frame);
      if (outcome == FrameReader::Outcome::frame) {
        if (!begun) {
          if (frame.type != FrameType::begin) {
            gap("the first record is not what it was");
            break;
          }
          continue;
        }
        if (options.landmark == LogPosition{segment, frames.offset(), frame.chain}) scan.found_landmark = true;
        if (within && !frame.first && frame.type != FrameType::begin) {
          if (frame.last) scan.end = {segment, frames.offset(), frames.chain()};
          continue;
        }
        within = false;
        const bool fits = frame.first ? !in_record : in_record && frame.type == type && frame.stamp == stamp;
        if (!fits || frame.type == FrameType::begin) {
          gap("a record within another");
          break;
        }
        in_record = !frame.last;
        type = frame.type;
        stamp = frame.stamp;
        visit(segment, frame);
        if (frame.last) scan.end = {segment, frames.offset(), frames.chain()};
        continue;
      }
      if (next != nullptr) {
        gap("a record is not what it was");
        break;
      }
      if (outcome == FrameReader::Outcome::bad && !is_torn(*file, frames.offset(), beginning.capacity)) {
        if (options.damaged_end == DamagedEnd::refuse)
          fail_damaged(name, frames.offset(), "the last record is not what it was");
        if (has_record_after(*file, frames.offset(), beginning.capacity))
          fail_damaged(name, frames.offset(), "a record is not what it was, and others follow it");
        scan.end_was_cut = true;
        scan.warnings.push_back(name + ", byte " + std::to_string(frames.offset()) +
                                ": the last record is not what it was and is left out");
      }
      break;
    }
    chain = next != nullptr ? next->chain : chain;
  }
  // Segments behind the last whole record, and a tail without any, are left over as well.
  while (!scan.extents.empty() && scan.extents.back().segment > scan.end.segment) {
    scan.leftovers.push_back(scan.extents.back().segment);
    scan.extents.pop_back();
  }
  if (!scan.extents.empty()) scan.extents.back().to = scan.end.offset;
  if (scan.extents.empty()) scan.end = {};
  // Whatever was skipped between the last segment of the log and those found so far, too.
  for (std::uint64_t segment = std::max(scan.end.segment + 1, options.base); segment <= scan.last_file; ++segment) {
    if (beginning_of(segment).first != First::unused) scan.leftovers.push_back(segment);
  }
  std::sort(scan.leftovers.begin(), scan.leftovers.end(), std::greater<>{});
  scan.leftovers.erase(std::unique(scan.leftovers.begin(), scan.leftovers.end()), scan.leftovers.end());
  return scan;
}

// --- Writing ---

SegmentLog::SegmentLog(LogPlace place, LogScan found)
    : place_{std::move(place)},
      leftovers_{std::move(found.leftovers)},
      used_{found.end.segment},
      first_file_{found.first_file},
      last_file_{found.last_file},
      position_{found.end},
      extents_{std::move(found.extents)} {}

void SegmentLog::create(const LogPlace& place) {
  LogScan nothing;
  SegmentLog log{place, nothing};
  log.make_segment(1);
  log.make_segment(2);
}

void SegmentLog::make_room(FsFile& file, std::uint64_t from, std::uint64_t size) const {
  file.allocate(size);
  if (!place_.filled) return;
  const std::string zeros(static_cast<std::size_t>(std::min<std::uint64_t>(size - from, 256 * 1024)), '\0');
  for (std::uint64_t at = from; at < size;) {
    const auto step = static_cast<std::size_t>(std::min<std::uint64_t>(zeros.size(), size - at));
    file.write_at(at, bytes_of(zeros).first(step));
    at += step;
  }
}

// Under another name first: a file of the final name is always whole (L1).
void SegmentLog::make_segment(std::uint64_t number) {
  const std::string path = place_.path(number);
  const std::string temporary = path + ".tmp";
  static_cast<void>(place_.fs->remove(temporary));
  FileHeader header;
  header.kind = place_.kind;
  header.id = place_.id;
  header.number = number;
  header.capacity = place_.segment_bytes;
  {
    const auto file = place_.fs->create(temporary);
    file->write_at(0, bytes_of(encode_header(header)));
    make_room(*file, file_header_bytes, place_.segment_bytes);
    file->sync();
  }
  place_.fs->rename(temporary, path);
  place_.fs->sync_directory(place_.directory);
}

void SegmentLog::ensure_file(std::uint64_t number) {
  const std::lock_guard lock{files_};
  while (last_file_.load() < number) {
    make_segment(last_file_.load() + 1);
    ++last_file_;
  }
}

void SegmentLog::start() {
  // From the last one down, each durable before the next, so that at any instant the log ends where it does now.
  for (const std::uint64_t segment : leftovers_) make_segment(segment);
  if (position_.segment == 0) return;
  const std::string path = place_.path(position_.segment);
  const std::string temporary = path + ".tmp";
  static_cast<void>(place_.fs->remove(temporary));
  const auto old = place_.fs->read(path);
  const std::uint64_t capacity = old->size();
  std::string bytes(static_cast<std::size_t>(position_.offset), '\0');
  if (read_twice(*old, 0, std::as_writable_bytes(std::span{bytes})) != bytes.size())
    fail_damaged(path, bytes.size(), "the file has become shorter");
  auto file = place_.fs->create(temporary);
  file->write_at(0, bytes_of(bytes));
  make_room(*file, bytes.size(), capacity);
  file->sync();
  place_.fs->rename(temporary, path);
  place_.fs->sync_directory(place_.directory);
  file_ = std::move(file);
  capacity_ = capacity;
}

void SegmentLog::set_preamble(FrameType type, std::int64_t stamp, std::string bytes) {
  preamble_bytes_ = std::move(bytes);
  preamble_ = LogRecord{type, stamp, {preamble_bytes_}};
}

// P4: nothing is written to a file again of which a write or a sync has failed.
void SegmentLog::give_up() noexcept {
  file_.reset();
  buffer_.clear();
  ahead_.reset();
}

void SegmentLog::write(std::span<const LogRecord> records, std::vector<LogPosition>* at) {
  if (records.empty()) return;
  if (!ahead_) {
    const std::lock_guard lock{mutex_};
    Ahead ahead{position_, {}};
    if (!extents_.empty()) ahead.extents.push_back(extents_.back());
    ahead_ = std::move(ahead);
  }
  LogPosition& now = ahead_->position;
  std::vector<Extent>& extents = ahead_->extents;
  buffer_.clear();
  std::uint64_t write_from = now.offset;
  const auto flush = [&] {
    if (buffer_.empty()) return;
    file_->write_at(write_from, bytes_of(buffer_));
    write_from += buffer_.size();
    buffer_.clear();
  };
  const auto put = [&](FrameType type, bool first, bool last, std::int64_t stamp, std::string_view payload) {
    const std::size_t size = buffer_.size();
    now.chain = append_frame(buffer_, type, first, last, stamp, now.chain, payload);
    now.offset += buffer_.size() - size;
    if (buffer_.size() >= flush_bytes) flush();
  };
  const auto begin_segment = [&] {
    if (file_) {
      flush();
      file_->sync_data();
      file_.reset();
      extents.back().to = now.offset;
    }
    const std::uint64_t number = used_ + 1;
    ensure_file(number + 1);  // L2
    used_ = number;
    const std::string path = place_.path(number);
    file_ = place_.fs->open(path);
    capacity_ = place_.fs->read(path)->size();
    extents.push_back({path, number, file_header_bytes, 0, now.chain});
    const Begin continues{now.segment, now.offset};
    now.segment = number;
    now.offset = file_header_bytes;
    write_from = now.offset;
    put(FrameType::begin, true, true, 0, continues.bytes());
    preamble_due_ = preamble_.has_value();
  };
  const auto put_record = [&](const LogRecord& record) {
    std::size_t left = 0;
    for (const std::string_view bytes : record.parts) left += bytes.size();
    std::size_t part = 0;   // of the record, and
    std::size_t taken = 0;  // how much of it is in frames
    std::string joined;
    for (bool first = true; first || left > 0; first = false) {
      if (capacity_ - now.offset < least_room) begin_segment();
      const std::uint64_t room = (capacity_ - now.offset) / 8 * 8 - frame_header_bytes - 8;
      const auto size = static_cast<std::size_t>(std::min<std::uint64_t>({left, room, max_frame_payload}));
      std::string_view payload;
      joined.clear();
      for (std::size_t need = size; need > 0;) {
        const std::string_view rest = record.parts[part].substr(taken);
        const std::size_t step = std::min(need, rest.size());
        if (step == size) {
          payload = rest.substr(0, step);  // all of it from one part, so without a copy
        } else {
          joined.append(rest.substr(0, step));
        }
        need -= step;
        taken += step;
        if (taken == record.parts[part].size()) {
          ++part;
          taken = 0;
        }
      }
      if (!joined.empty()) payload = joined;
      left -= size;
      put(record.type, first, left == 0, record.stamp, payload);
    }
  };
  std::vector<LogPosition> positions;
  try {
    for (const LogRecord& record : records) {
      // A record that does not fit begins a segment, unless that would waste half of this one: then it is divided.
      std::uint64_t size = least_room;
      for (const std::string_view bytes : record.parts) size += bytes.size();
      if (!file_ || (capacity_ - now.offset < size && now.offset > capacity_ / 2)) begin_segment();
      if (std::exchange(preamble_due_, false) && record.type != preamble_->type) put_record(*preamble_);
      put_record(record);
      positions.push_back(now);
    }
    flush();
  } catch (...) {
    give_up();
    throw;
  }
  if (buffer_.capacity() > 2 * flush_bytes) buffer_ = {};
  if (at != nullptr) *at = std::move(positions);
}

void SegmentLog::sync() {
  if (!ahead_) return;
  try {
    {  // nothing may fail once the records are durable
      const std::lock_guard lock{mutex_};
      extents_.reserve(extents_.size() + ahead_->extents.size());
    }
    file_->sync_data();
  } catch (...) {
    give_up();
    throw;
  }
  std::vector<Extent>& extents = ahead_->extents;
  extents.back().to = ahead_->position.offset;
  const std::lock_guard lock{mutex_};
  if (!extents_.empty()) extents_.pop_back();
  extents_.insert(extents_.end(), std::make_move_iterator(extents.begin()), std::make_move_iterator(extents.end()));
  position_ = ahead_->position;
  ahead_.reset();
}

bool SegmentLog::wants_segment() const noexcept {
  const std::lock_guard lock{mutex_};
  return last_file_.load() < position_.segment + 2 && position_.offset > place_.segment_bytes / 2;
}

void SegmentLog::make_ready() {
  std::uint64_t wanted;
  {
    const std::lock_guard lock{mutex_};
    wanted = position_.segment + 2;
  }
  ensure_file(wanted);
}

void SegmentLog::remove_before(std::uint64_t segment) {
  {
    const std::lock_guard lock{mutex_};
    segment = std::min(segment, position_.segment);
    std::erase_if(extents_, [&](const Extent& extent) { return extent.segment < segment; });
  }
  bool removed = false;
  for (std::uint64_t number = first_file_.load(); number < segment; ++number) {
    removed = place_.fs->remove(place_.path(number)) || removed;
    first_file_ = number + 1;
  }
  if (removed) place_.fs->sync_directory(place_.directory);
}

LogPosition SegmentLog::position() const {
  const std::lock_guard lock{mutex_};
  return position_;
}

std::vector<Extent> SegmentLog::extents() const {
  const std::lock_guard lock{mutex_};
  return extents_;
}

std::vector<Extent> SegmentLog::extents_from(const LogPosition& from) const {
  const std::lock_guard lock{mutex_};
  return extents_behind(extents_, from);
}

std::vector<Extent> extents_behind(const std::vector<Extent>& extents, const LogPosition& from) {
  std::vector<Extent> result;
  for (const Extent& extent : extents) {
    if (extent.segment < from.segment) continue;
    result.push_back(extent);
    if (extent.segment == from.segment) {
      result.back().from = from.offset;
      result.back().chain = from.chain;
    }
  }
  return result;
}

std::uint64_t SegmentLog::disk_bytes() const {
  const std::uint64_t first = first_file_.load();
  const std::uint64_t last = last_file_.load();
  return first == 0 || last < first ? 0 : (last - first + 1) * place_.segment_bytes;
}

}  // namespace tidemill::detail
