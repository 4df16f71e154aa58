#include "checkpoint/block_log.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

namespace tidemill {

using namespace detail;

namespace {

LogPlace block_place(Fs& fs, const std::string& directory, const CheckpointId& id, std::uint64_t segment_bytes,
                     const CheckpointChecks& checks) {
  LogPlace place;
  place.fs = &fs;
  place.directory = directory;
  place.prefix = "blocks";
  place.kind = FileKind::block_log;
  place.id = id;
  place.segment_bytes = segment_bytes;
  place.checks = checks;
  return place;
}

}  // namespace

std::string detail::block_log_directory(Fs& fs, const std::string& checkpoint, std::string_view name) {
  if (name.empty()) throw ConfigError("the log of a receiver needs a name");
  std::string file;
  for (const char c : name) {
    const bool plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    if (plain) {
      file.push_back(c);
    } else {
      file.append("%").append(to_hex(bytes_of({&c, 1})));
    }
  }
  const std::string receivers = join_path(checkpoint, "receivers");
  std::string directory = join_path(receivers, file);
  if (fs.make_directory(receivers)) fs.sync_directory(checkpoint);
  fs.make_directory(directory);
  // Made just now, or by a process that did not get further.
  fs.sync_directory(checkpoint);
  fs.sync_directory(receivers);
  fs.sync_directory(directory);
  return directory;
}

BlockLog::Impl::Impl(std::shared_ptr<Fs> file_system, const std::string& directory, const CheckpointId& id,
                     BlockLogOptions what, const CheckpointChecks& check)
    : fs{std::move(file_system)}, options{what}, checks{check} {
  if (options.segment_bytes < 4096 || options.segment_bytes % 512 != 0)
    throw ConfigError("segments of a receiver's log take at least 4096 bytes, and a multiple of 512");
  const LogPlace place = block_place(*fs, directory, id, options.segment_bytes, checks);
  std::vector<std::uint64_t> segments = place.segments();
  if (segments.empty()) {
    SegmentLog::create(place);
    segments = place.segments();
  }
  ScanOptions scan_options;
  // Removal goes from the front and may have been undone in part, so the log begins behind the last gap.
  scan_options.base = segments.back();
  for (std::size_t i = segments.size(); i > 1 && segments[i - 2] + 1 == segments[i - 1]; --i)
    scan_options.base = segments[i - 2];
  scan_options.damaged_end = options.skip_corrupt_blocks ? DamagedEnd::cut : DamagedEnd::refuse;
  scan_options.allow_gaps = options.skip_corrupt_blocks;
  bool any = false;
  bool gap = false;
  LogScan scan = scan_log(
      place, scan_options,
      [&](std::uint64_t segment, const Frame& frame) {
        if (frame.type != FrameType::block)
          fail_damaged(place.path(segment), frame.offset, "a record that does not belong into this log");
        const auto number = static_cast<std::uint64_t>(frame.stamp);
        if (frame.first) {
          if (any && number != end) {
            if (!std::exchange(gap, false) || number < end)
              fail_damaged(place.path(segment), frame.offset, "blocks are missing before this one");
            skipped += number - end;
          }
          if (places.empty() || places.back().segment != segment) places.push_back({segment, number});
        }
        if (!frame.last) return;
        if (!any) first = number;
        any = true;
        end = number + 1;
      },
      [&] { gap = true; });
  // A gap takes all before it out of the log.
  if (!scan.extents.empty()) {
    while (!places.empty() && places.front().segment < scan.extents.front().segment) places.pop_front();
    if (!places.empty()) first = std::max(first, places.front().first);
  }
  if (scan.end_was_cut) ++skipped;
  durable_end = end;
  log.emplace(place, std::move(scan));
  log->start();
}

std::uint64_t BlockLog::Impl::append(std::string_view bytes) {
  std::unique_lock guard{mutex};
  unsynced.emplace_back(bytes);
  unsynced_bytes += bytes.size();
  const std::uint64_t id = end++;
  if (unsynced_bytes <= options.max_unsynced_bytes) return id;
  guard.unlock();
  sync(id + 1);
  return id;
}

// Whoever comes first writes for all that have come by then; the others wait for it (group commit).
void BlockLog::Impl::sync(std::uint64_t to) {
  std::unique_lock guard{mutex};
  to = std::min(to, end);
  while (durable_end < to) {
    if (writing) {
      done.wait(guard);
      continue;
    }
    writing = true;
    std::vector<std::string> blocks{std::make_move_iterator(unsynced.begin()), std::make_move_iterator(unsynced.end())};
    unsynced.clear();
    const std::uint64_t from = durable_end;
    guard.unlock();
    std::exception_ptr error;
    std::vector<LogPosition> positions;
    std::size_t bytes = 0;
    try {
      std::vector<LogRecord> records;
      for (const std::string& block : blocks) {
        records.push_back({FrameType::block, static_cast<std::int64_t>(from + records.size()), {block}});
        bytes += block.size();
      }
      log->append(records, &positions);
      if (log->wants_segment()) {
        try {
          log->make_ready();
        } catch (const FsError&) {  // the next append makes it, and reports
        }
      }
    } catch (...) {
      error = std::current_exception();
    }
    guard.lock();
    writing = false;
    done.notify_all();
    if (error) {
      unsynced.insert(unsynced.begin(), std::make_move_iterator(blocks.begin()), std::make_move_iterator(blocks.end()));
      std::rethrow_exception(error);
    }
    durable_end = from + blocks.size();
    unsynced_bytes -= bytes;
    if (places.empty()) places.push_back({log->extents().front().segment, from});
    for (std::size_t i = 0; i < positions.size(); ++i) {
      // This one may have begun in the segment before; the next one begins here.
      if (positions[i].segment != places.back().segment) places.push_back({positions[i].segment, from + i + 1});
    }
  }
}

void BlockLog::Impl::read(std::uint64_t from, std::uint64_t to,
                          FunctionRef<void(std::uint64_t, std::string_view)> visit) {
  if (from >= to) return;
  sync(to);
  LogPosition position;
  {
    const std::lock_guard guard{mutex};
    if (from < first || to > end) {
      throw StateError("not_found",
                       "blocks " + std::to_string(from) + " to " + std::to_string(to) +
                           " are not there: the log holds " + std::to_string(first) + " to " + std::to_string(end),
                       Retry::is_useless);
    }
    for (const Place& place : places) {
      if (place.first > from) break;
      position.segment = place.segment;
    }
  }
  std::vector<Extent> extents = log->extents();
  // From the segment in which the first block begins.
  std::erase_if(extents, [&](const Extent& extent) { return extent.segment < position.segment; });
  RecordReader reader{*fs, std::move(extents), checks};
  std::uint64_t expected = from;
  while (expected < to && reader.next()) {
    const auto number = static_cast<std::uint64_t>(reader.stamp());
    if (number < from) continue;
    if (number != expected && !options.skip_corrupt_blocks) reader.fail("blocks are missing before this one");
    if (number >= to) break;
    const std::string bytes = reader.take_rest();
    visit(number, bytes);
    expected = number + 1;
  }
  if (expected < to && !options.skip_corrupt_blocks)
    throw StateError("not_found", "block " + std::to_string(expected) + " is not there", Retry::is_useless);
}

void BlockLog::Impl::truncate_before(std::uint64_t id) {
  std::uint64_t segment = 0;
  {
    const std::lock_guard guard{mutex};
    first = std::max(first, std::min(id, durable_end));
    while (places.size() > 1 && places[1].first <= first) places.pop_front();
    if (places.empty()) return;
    segment = places.front().segment;
  }
  log->remove_before(segment);
}

BlockLog::BlockLog(std::unique_ptr<Impl> impl) : impl_{std::move(impl)} {}
BlockLog::~BlockLog() = default;

std::uint64_t BlockLog::append(std::string_view bytes) {
  return with_state_errors([&] { return impl_->append(bytes); });
}
void BlockLog::sync(std::uint64_t id) {
  with_state_errors([&] { impl_->sync(id + 1); });
}
void BlockLog::sync() {
  with_state_errors([&] { impl_->sync(end_id()); });
}
std::uint64_t BlockLog::first_id() const {
  const std::lock_guard guard{impl_->mutex};
  return impl_->first;
}
std::uint64_t BlockLog::end_id() const {
  const std::lock_guard guard{impl_->mutex};
  return impl_->end;
}
std::uint64_t BlockLog::durable_end() const {
  const std::lock_guard guard{impl_->mutex};
  return impl_->durable_end;
}
void BlockLog::read(std::uint64_t first, std::uint64_t end, FunctionRef<void(std::uint64_t, std::string_view)> visit) {
  with_state_errors([&] { impl_->read(first, end, visit); });
}
void BlockLog::truncate_before(std::uint64_t id) {
  with_state_errors([&] { impl_->truncate_before(id); });
}
std::uint64_t BlockLog::skipped() const {
  const std::lock_guard guard{impl_->mutex};
  return impl_->skipped;
}
std::uint64_t BlockLog::disk_bytes() const { return impl_->log->disk_bytes(); }

}  // namespace tidemill
