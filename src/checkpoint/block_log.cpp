#include "checkpoint/block_log.hpp"

#include <algorithm>
#include <utility>

namespace tidemill {

using namespace detail;

LogPlace detail::block_log_place(Fs& fs, const std::string& directory, const CheckpointId& id,
                                 const CheckpointChecks& checks) {
  LogPlace place;
  place.fs = &fs;
  place.directory = directory;
  place.prefix = "blocks";
  place.kind = FileKind::block_log;
  place.id = id;
  place.checks = checks;
  return place;
}

BlockScan detail::scan_blocks(const LogPlace& place, bool skip_corrupt_blocks) {
  const std::vector<std::uint64_t> segments = place.segments();
  ScanOptions options;
  // Removal goes from the front and may have been undone in part, so the log begins behind the last gap.
  options.base = segments.back();
  for (std::size_t i = segments.size(); i > 1 && segments[i - 2] + 1 == segments[i - 1]; --i)
    options.base = segments[i - 2];
  options.damaged_end = skip_corrupt_blocks ? DamagedEnd::cut : DamagedEnd::refuse;
  options.allow_gaps = skip_corrupt_blocks;
  BlockScan found;
  bool any = false;
  bool gap = false;
  found.log = scan_log(
      place, options,
      [&](std::uint64_t segment, const Frame& frame) {
        if (frame.type != FrameType::block)
          fail_damaged(place.path(segment), frame.offset, "a record that does not belong into this log");
        const auto number = static_cast<std::uint64_t>(frame.stamp);
        if (frame.first) {
          if (any && number != found.end) {
            if (!std::exchange(gap, false) || number < found.end)
              fail_damaged(place.path(segment), frame.offset, "blocks are missing before this one");
            found.skipped += number - found.end;
          }
          if (found.places.empty() || found.places.back().segment != segment) found.places.push_back({segment, number});
        }
        if (!frame.last) return;
        if (!any) found.first = number;
        any = true;
        found.end = number + 1;
      },
      [&] { gap = true; });
  // A gap takes all before it out of the log.
  if (!found.log.extents.empty()) {
    while (!found.places.empty() && found.places.front().segment < found.log.extents.front().segment)
      found.places.pop_front();
    if (!found.places.empty()) found.first = std::max(found.first, found.places.front().first);
  }
  if (found.log.end_was_cut) ++found.skipped;
  return found;
}

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
  check_segment_bytes("segment_bytes of a receiver's log", options.segment_bytes);
  LogPlace place = block_log_place(*fs, directory, id, checks);
  place.segment_bytes = options.segment_bytes;
  if (place.segments().empty()) SegmentLog::create(place);
  BlockScan found = scan_blocks(place, options.skip_corrupt_blocks);
  places = std::move(found.places);
  first = found.first;
  end = durable_end = written_end = found.end;
  skipped = found.skipped;
  log.emplace(place, std::move(found.log));
  log->start();
}

// What waits is made durable before the block is taken: one that append() reports as failed is not in the log.
std::uint64_t BlockLog::Impl::append(std::string_view bytes) {
  std::unique_lock guard{mutex};
  while (unsynced_bytes > 0 && unsynced_bytes + bytes.size() > options.max_unsynced_bytes) {
    const std::uint64_t to = end;
    guard.unlock();
    bring(to, Reach::durable);
    guard.lock();
  }
  unsynced.push_back({std::string{bytes}});
  unsynced_bytes += bytes.size();
  return end++;
}

// Whoever comes first writes for all that have come by then; the others wait for it (group commit).
void BlockLog::Impl::bring(std::uint64_t to, Reach how) {
  std::unique_lock guard{mutex};
  to = std::min(to, end);
  while ((how == Reach::durable ? durable_end : written_end) < to) {
    if (writing) {
      done.wait(guard);
      continue;
    }
    // The blocks stay where they are, numbered, until they are durable; others may come behind them meanwhile.
    const auto begin = static_cast<std::size_t>(written_end - durable_end);
    std::vector<LogRecord> records;
    records.reserve(unsynced.size() - begin);
    for (std::size_t i = begin; i < unsynced.size(); ++i)
      records.push_back({FrameType::block, static_cast<std::int64_t>(durable_end + i), {unsynced[i].bytes}});
    writing = true;
    guard.unlock();
    std::exception_ptr error;
    std::vector<LogPosition> positions;
    try {
      log->write(records, &positions);
      if (how == Reach::durable) log->sync();
    } catch (...) {
      error = std::current_exception();
    }
    guard.lock();
    writing = false;
    done.notify_all();
    if (error) {
      written_end = durable_end;
      std::rethrow_exception(error);
    }
    for (std::size_t i = 0; i < positions.size(); ++i) unsynced[begin + i].segment = positions[i].segment;
    written_end += positions.size();
    if (how == Reach::durable) {
      synced();
      guard.unlock();
      make_ready();
      guard.lock();
    }
  }
}

// All that is written is durable.
void BlockLog::Impl::synced() {
  for (; durable_end < written_end; ++durable_end) {
    const Block& block = unsynced.front();
    if (places.empty()) places.push_back({log->extents().front().segment, durable_end});
    // This one may have begun in the segment before; the next one begins here.
    if (block.segment != places.back().segment) places.push_back({block.segment, durable_end + 1});
    unsynced_bytes -= block.bytes.size();
    unsynced.pop_front();
  }
}

void BlockLog::Impl::make_ready() {
  if (!log->wants_segment()) return;
  try {
    log->make_ready();
  } catch (const std::exception&) {  // the next write makes it, and reports
  }
}

void BlockLog::Impl::read(std::uint64_t from, std::uint64_t to,
                          FunctionRef<void(std::uint64_t, std::string_view)> visit) {
  if (from >= to) return;
  bring(to, Reach::durable);
  LogPosition position;
  {
    const std::lock_guard guard{mutex};
    if (from < first || to > end) {
      throw StateError("not_found",
                       "blocks " + std::to_string(from) + " to " + std::to_string(to) +
                           " are not there: the log holds " + std::to_string(first) + " to " + std::to_string(end),
                       Retry::is_useless);
    }
    for (const BlockScan::Place& place : places) {
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
void BlockLog::write(std::uint64_t id) {
  with_state_errors([&] { impl_->bring(id + 1, Impl::Reach::written); });
}
void BlockLog::sync(std::uint64_t id) {
  with_state_errors([&] { impl_->bring(id + 1, Impl::Reach::durable); });
}
void BlockLog::sync() {
  with_state_errors([&] { impl_->bring(end_id(), Impl::Reach::durable); });
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
bool BlockLog::skips_corrupt_blocks() const noexcept { return impl_->options.skip_corrupt_blocks; }
std::uint64_t BlockLog::skipped() const {
  const std::lock_guard guard{impl_->mutex};
  return impl_->skipped;
}
std::uint64_t BlockLog::disk_bytes() const { return impl_->log->disk_bytes(); }

}  // namespace tidemill
