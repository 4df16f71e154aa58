#include "checkpoint/fold.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <exception>
#include <system_error>
#include <thread>
#include <utility>

namespace tidemill::detail {
namespace {

// So that no fdatasync of the logs has to wait for much of a snapshot.
constexpr std::size_t sync_bytes = 2 * 1024 * 1024;
constexpr std::size_t write_bytes = 1024 * 1024;

// Reads the head of a commit; then, for each state, its name and the entries by `visit(name, end)`, which takes them until
// `reader` has given as many bytes.
struct CommitStates {
  explicit CommitStates(RecordReader& reader) : reader_{reader} {
    plan_chain = reader.take_number<std::uint32_t>();
    left_ = reader.take_number<std::uint32_t>();
  }
  bool next() {
    if (left_ == 0) {
      if (!reader_.at_end()) reader_.fail("a commit is longer than its contents");
      return false;
    }
    --left_;
    name = reader_.take_sized();
    size = reader_.take_number<std::uint64_t>();
    return true;
  }
  // Calls `visit(entry)` for all entries of the state.
  template <class Visit>
  void entries(Visit visit) {
    RecordReader::Entry entry;
    while (size > 0) {
      reader_.take_entry(entry);
      const std::uint64_t taken = 6 + entry.key.size() + (entry.erased ? 0 : 4 + entry.value.size());
      if (taken > size) reader_.fail("an entry is longer than the changes of its state");
      size -= taken;
      visit(entry);
    }
  }
  void skip() { reader_.skip(std::exchange(size, 0)); }

  std::uint32_t plan_chain;
  std::string name;
  std::uint64_t size = 0;

 private:
  RecordReader& reader_;
  std::uint32_t left_;
};

// One change, as it lies in an arena: its sizes, then key and value.
class Change {
 public:
  struct Sizes {
    std::uint32_t key;
    std::uint32_t value;
    std::uint32_t erased;
  };
  explicit Change(const char* at) : at_{at} { std::memcpy(&sizes_, at, sizeof sizes_); }

  [[nodiscard]] bool erased() const noexcept { return sizes_.erased != 0; }
  [[nodiscard]] std::string_view key() const noexcept { return {at_ + sizeof sizes_, sizes_.key}; }
  [[nodiscard]] std::string_view value() const noexcept { return {at_ + sizeof sizes_ + sizes_.key, sizes_.value}; }

 private:
  const char* at_;
  Sizes sizes_;
};
// What is sorted in its place.
struct Ranked {
  std::uint64_t prefix;  // of the key, so that most comparisons look no further
  const char* change;    // a later one lies behind an earlier one
};
constexpr std::size_t bytes_beside = sizeof(Change::Sizes) + sizeof(Ranked);

std::uint64_t prefix_of(std::string_view key) {
  unsigned char bytes[8] = {};
  if (key.size() >= 8) {
    std::memcpy(bytes, key.data(), 8);
  } else if (!key.empty()) {
    std::memcpy(bytes, key.data(), key.size());
  }
  std::uint64_t prefix = 0;
  for (const unsigned char byte : bytes) prefix = prefix << 8 | byte;
  return prefix;
}

// How two keys stand to each other: less, equal or greater than 0.
int compare(std::uint64_t prefix, std::string_view key, std::uint64_t other_prefix, std::string_view other) {
  if (prefix != other_prefix) return prefix < other_prefix ? -1 : 1;
  if (key.size() > sizeof prefix && other.size() > sizeof prefix) return key.compare(other);
  return key.size() < other.size() ? -1 : key.size() > other.size();  // of equal prefixes, one begins the other
}

// The entries of one state of a snapshot that are of some groups, in order.
class SnapshotCursor {
 public:
  SnapshotCursor(const FoldSource& source, const FoldIndex::State& state, Groups groups) {
    if (!source.snapshot || !state.in_snapshot) return;
    const SnapshotFile& snapshot = *source.snapshot;
    places_ = &snapshot.states[*state.in_snapshot].groups;
    group_ = groups.first;
    end_ = groups.end;
    at_ = (*places_)[group_];
    if (at_ == (*places_)[end_]) return;
    // All frames of a record but the last are full.
    const std::uint64_t frame =
        snapshot.records[*state.in_snapshot] + at_ / max_frame_payload * frame_bytes(max_frame_payload);
    reader_.emplace(*source.fs, std::vector{source.snapshot_extent(frame)}, source.checks);
    reader_->enter(FrameType::state, static_cast<std::size_t>(at_ % max_frame_payload));
    advance();
  }
  [[nodiscard]] bool valid() const noexcept { return valid_; }
  [[nodiscard]] const RecordReader::Entry& entry() const noexcept { return entry_; }
  // What lies between the places of two groups are entries of the first, exactly: so a wrong place is noticed.
  void advance() {
    while (group_ < end_ && at_ == (*places_)[group_ + 1]) ++group_;
    valid_ = group_ < end_;
    if (!valid_) return;
    reader_->take_entry(entry_);
    at_ += 10 + entry_.key.size() + entry_.value.size();
    if (entry_.erased || entry_.group != group_ || at_ > (*places_)[group_ + 1])
      reader_->fail("an entry does not stand where those of its group do");
  }

 private:
  const std::array<std::uint64_t, key_groups + 1>* places_ = nullptr;
  unsigned group_ = 0;  // of the next entry, unless it has no more
  unsigned end_ = 0;
  std::uint64_t at_ = 0;  // in the record, behind entry_
  std::optional<RecordReader> reader_;
  RecordReader::Entry entry_;
  bool valid_ = false;
};

// The changes of one state in the groups [first, end). Those of a group lie together.
class Changes {
 public:
  Changes(const FoldSource& source, const FoldIndex::State& state, unsigned first, unsigned end) {
    std::size_t count = 0;
    std::size_t size = 0;
    for (unsigned group = first; group < end; ++group) {
      groups_[group] = {count, count, size, size};
      count += state.groups[group].changes;
      size += state.groups[group].bytes + state.groups[group].changes * sizeof(Change::Sizes);
    }
    ranked_ = std::make_unique_for_overwrite<Ranked[]>(count);
    bytes_ = std::make_unique_for_overwrite<char[]>(size);
    RecordReader reader = source.log_reader();
    for (std::uint64_t record = 0; reader.next(); ++record) {
      if (reader.type() != FrameType::commit || record < state.from) continue;
      CommitStates states{reader};
      while (states.next()) {
        if (states.name != state.state.name) {
          states.skip();
          continue;
        }
        states.entries([&](const RecordReader::Entry& entry) {
          if (entry.group < first || entry.group >= end) return;
          if (!add(entry, state.groups[entry.group])) reader.fail("it has more changes than before");
        });
      }
    }
  }

  // Calls `see(prefix, change)` for the newest change of each key of a group, in the order of keys.
  template <class See>
  void for_each_of(unsigned group, See see) {
    const std::span<Ranked> ranked{ranked_.get() + groups_[group].first, ranked_.get() + groups_[group].end};
    const auto order = [](const Ranked& a, const Ranked& b) {
      if (a.prefix != b.prefix) return a.prefix < b.prefix ? -1 : 1;
      return compare(a.prefix, Change{a.change}.key(), b.prefix, Change{b.change}.key());
    };
    std::sort(ranked.begin(), ranked.end(), [&](const Ranked& a, const Ranked& b) {
      const int keys = order(a, b);
      return keys != 0 ? keys < 0 : a.change < b.change;
    });
    for (std::size_t i = 0; i < ranked.size(); ++i) {
      constexpr std::size_t ahead = 16;  // they lie anywhere
      if (i + ahead < ranked.size()) __builtin_prefetch(ranked[i + ahead].change);
      if (i + 1 < ranked.size() && order(ranked[i], ranked[i + 1]) == 0) continue;
      see(ranked[i].prefix, Change{ranked[i].change});
    }
  }

 private:
  struct Group {
    std::size_t first = 0;  // change, and the one behind the last
    std::size_t end = 0;
    std::size_t begin_bytes = 0;  // where its bytes begin and, so far, end
    std::size_t end_bytes = 0;
  };

  // False when there is no room: `room` was counted when the log was read before.
  bool add(const RecordReader::Entry& entry, const FoldIndex::Group& room) {
    Group& group = groups_[entry.group];
    const std::size_t count = group.end - group.first;
    const std::size_t used = group.end_bytes - group.begin_bytes - count * sizeof(Change::Sizes);
    if (count == room.changes || entry.key.size() + entry.value.size() > room.bytes - used) return false;
    const Change::Sizes sizes{static_cast<std::uint32_t>(entry.key.size()),
                              static_cast<std::uint32_t>(entry.value.size()), entry.erased};
    char* const at = bytes_.get() + group.end_bytes;
    std::memcpy(at, &sizes, sizeof sizes);
    std::copy(entry.key.begin(), entry.key.end(), at + sizeof sizes);
    std::copy(entry.value.begin(), entry.value.end(), at + sizeof sizes + entry.key.size());
    ranked_[group.end++] = {prefix_of(entry.key), at};
    group.end_bytes += sizeof sizes + entry.key.size() + entry.value.size();
    return true;
  }

  std::array<Group, key_groups> groups_;
  std::unique_ptr<Ranked[]> ranked_;
  std::unique_ptr<char[]> bytes_;
};

}  // namespace

Extent FoldSource::snapshot_extent(std::uint64_t from) const {
  // The first frame continues the checksum of the header, which ties the two together. Another one was seen to continue what is
  // before it, and is asked what that was.
  const std::uint64_t at = from == file_header_bytes ? from - 4 : from + 4;
  const auto file = fs->read(snapshot->path);
  char bytes[4];
  std::uint32_t chain = 0;
  if (read_twice(*file, at, std::as_writable_bytes(std::span{bytes})) == 4) std::memcpy(&chain, bytes, 4);
  if constexpr (std::endian::native == std::endian::big) chain = __builtin_bswap32(chain);
  return {snapshot->path, snapshot->number, from, snapshot->size, chain};
}

FoldIndex index_log(const FoldSource& source) {
  FoldIndex index;
  if (source.snapshot) {
    for (std::size_t i = 0; i < source.snapshot->head.states.size(); ++i) {
      FoldIndex::State& state = index.states.emplace_back();
      state.state = source.snapshot->head.states[i];
      state.in_snapshot = i;
    }
  }
  const auto find = [&](std::string_view name) {
    return std::find_if(index.states.begin(), index.states.end(),
                        [&](const FoldIndex::State& state) { return state.state.name == name; });
  };
  RecordReader reader = source.log_reader();
  for (std::uint64_t record = 0; reader.next(); ++record) {
    if (reader.type() == FrameType::run) {
      // From here on there are the states of this run: those that it shares with the one before, and new ones.
      std::vector<FoldIndex::State> states;
      for (NamedState& state : decode_run(reader.take_rest()).run.states) {
        const auto known = find(state.name);
        if (known != index.states.end() && known->state == state) {
          states.push_back(std::move(*known));
        } else {
          states.emplace_back().state = std::move(state);
          states.back().from = record;
        }
      }
      index.states = std::move(states);
      continue;
    }
    if (reader.type() != FrameType::commit) reader.fail("a record that does not belong into this log");
    ++index.commits;
    CommitStates states{reader};
    while (states.next()) {
      const auto state = find(states.name);
      if (state == index.states.end()) reader.fail("a state that the run does not have");
      states.entries([&](const RecordReader::Entry& entry) {
        FoldIndex::Group& group = state->groups[entry.group];
        ++group.changes;
        group.bytes += entry.key.size() + entry.value.size();
      });
    }
  }
  std::sort(index.states.begin(), index.states.end(),
            [](const auto& a, const auto& b) { return a.state.name < b.state.name; });
  return index;
}

void fold_state(const FoldSource& source, const FoldIndex::State& state, std::size_t merge_bytes, Groups groups,
                EntryVisitor visit) {
  SnapshotCursor snapshot{source, state, groups};
  for (unsigned first = groups.first; first < groups.end;) {
    const auto bytes_of_group = [&](unsigned group) {
      return state.groups[group].changes * bytes_beside + state.groups[group].bytes;
    };
    std::uint64_t bytes = bytes_of_group(first);
    unsigned end = first + 1;
    while (end < groups.end && bytes + bytes_of_group(end) <= merge_bytes) bytes += bytes_of_group(end++);
    std::optional<Changes> changes;
    if (bytes > 0) changes.emplace(source, state, first, end);
    for (unsigned group = first; group < end; ++group) {
      const auto key_group = static_cast<KeyGroup>(group);
      const auto in_group = [&] { return snapshot.valid() && snapshot.entry().group == key_group; };
      if (changes) {
        changes->for_each_of(group, [&](std::uint64_t prefix, const Change& change) {
          int order = -1;
          const auto before_it = [&] {
            const std::string_view key = snapshot.entry().key;
            order = compare(prefix_of(key), key, prefix, change.key());
            return order < 0;
          };
          for (; in_group() && before_it(); snapshot.advance())
            visit(key_group, snapshot.entry().key, snapshot.entry().value);
          if (in_group() && order == 0) snapshot.advance();
          if (!change.erased()) visit(key_group, change.key(), change.value());
        });
      }
      for (; in_group(); snapshot.advance()) visit(key_group, snapshot.entry().key, snapshot.entry().value);
    }
    first = end;
  }
}

void in_parallel(std::size_t count, FunctionRef<void(std::size_t)> task) {
  if (count == 1) return task(0);
  std::vector<std::exception_ptr> errors(count);
  const auto guarded = [&](std::size_t i) {
    try {
      task(i);
    } catch (...) {
      errors[i] = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> helpers;
    helpers.reserve(count);
    std::size_t next = 1;
    try {
      for (; next < count; ++next) helpers.emplace_back(guarded, next);
    } catch (const std::system_error&) {  // no thread to be had: then one after the other
    }
    guarded(0);
    for (; next < count; ++next) guarded(next);
  }
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

namespace {

// All frames of a file, in parts that are read at the same time.
void verify_frames(Fs& fs, const Extent& all, const CheckpointChecks& checks, unsigned threads) {
  const auto fail = [](const Extent& extent, std::uint64_t offset) {
    fail_damaged(extent.path, offset, "a record is not what it was");
  };
  const auto verify = [&](const Extent& part) {
    const auto file = fs.read(part.path);
    FrameReader frames{*file, part.from, part.to, part.chain, checks};
    Frame frame;
    while (frames.offset() < part.to) {
      if (frames.next(frame) != FrameReader::Outcome::frame) fail(part, frames.offset());
    }
  };
  constexpr std::uint64_t least = 1024 * 1024;  // of a part
  const std::uint64_t count = std::clamp<std::uint64_t>((all.to - all.from) / least, 1, threads);
  if (count == 1) return verify(all);
  // A header has the checksum of its frame, which the next part begins with and this one finds to be right.
  std::vector<Extent> parts;
  {
    const auto file = fs.read(all.path);
    FrameReader frames{*file, all.from, all.to, all.chain, checks};
    Frame frame;
    Extent part = all;
    for (std::uint64_t p = 1; p < count; ++p) {
      const std::uint64_t to = all.from + (all.to - all.from) / count * p;
      while (frames.offset() < to) {
        if (frames.skip(frame) != FrameReader::Outcome::frame) fail(all, frames.offset());
      }
      part.to = frames.offset();
      parts.push_back(part);
      part.from = frames.offset();
      part.chain = frames.chain();
    }
    part.to = all.to;
    parts.push_back(std::move(part));
  }
  in_parallel(parts.size(), [&](std::size_t p) { verify(parts[p]); });
}

}  // namespace

SnapshotFile verify_snapshot(Fs& fs, const std::string& path, std::uint64_t number, const CheckpointId& id,
                             const CheckpointChecks& checks, unsigned threads) {
  SnapshotFile snapshot;
  snapshot.number = number;
  snapshot.path = path;
  {
    const auto file = fs.read(path);
    FileHeader expected;
    expected.kind = FileKind::snapshot;
    expected.id = id;
    expected.number = number;
    check_header(*file, path, expected, checks);
    snapshot.size = file->size();
  }
  FoldSource source;
  source.fs = &fs;
  source.checks = checks;
  source.snapshot = snapshot;
  verify_frames(fs, source.snapshot_extent(), checks, threads);
  source.checks.crc = false;  // the bytes are good; now what they say
  RecordReader reader = source.snapshot_reader();
  if (!reader.next() || reader.type() != FrameType::snapshot) fail_damaged(path, file_header_bytes, "it has no head");
  snapshot.head = decode_snapshot_head(reader.take_rest());
  for (const NamedState& state : snapshot.head.states) {
    if (!reader.next() || reader.type() != FrameType::state) reader.fail("a state is missing");
    if (reader.take_sized() != state.name) reader.fail("it is another state");
    snapshot.records.push_back(reader.offset());
  }
  if (!reader.next() || reader.type() != FrameType::end) reader.fail("the end is missing");
  const std::uint64_t end = reader.offset();
  snapshot.states = decode_snapshot_end(snapshot.head, reader.take_rest());
  for (std::size_t i = 0; i < snapshot.states.size(); ++i) {
    // That the groups are where it says is seen when they are read.
    const std::uint64_t next = i + 1 < snapshot.records.size() ? snapshot.records[i + 1] : end;
    const std::uint64_t bytes = snapshot.states[i].groups.back();
    const std::uint64_t full = (bytes - 1) / max_frame_payload;
    if (snapshot.records[i] + full * frame_bytes(max_frame_payload) + frame_bytes(bytes - full * max_frame_payload) !=
        next)
      fail_damaged(path, end, "a state has another size than the end says");
  }
  if (reader.next()) reader.fail("something follows the end");
  return snapshot;
}

SnapshotFile write_snapshot(const FoldSource& source, const FoldIndex& index, const SnapshotHead& head,
                            const std::string& directory, std::uint64_t number, const CheckpointId& id,
                            std::size_t merge_bytes) {
  SnapshotFile snapshot;
  snapshot.number = number;
  snapshot.path = join_path(directory, numbered_name(snapshot_prefix, number, snapshot_suffix));
  snapshot.head = head;
  const std::string temporary = snapshot.path + ".tmp";
  Fs& fs = *source.fs;
  static_cast<void>(fs.remove(temporary));
  {
    const auto file = fs.create(temporary);
    FileHeader header;
    header.kind = FileKind::snapshot;
    header.id = id;
    header.number = number;
    std::string buffer = encode_header(header);
    std::uint32_t chain = 0;
    for (std::size_t i = 4; i > 0; --i)
      chain = chain << 8 | static_cast<unsigned char>(buffer[file_header_bytes - 5 + i]);
    std::uint64_t unsynced = 0;
    const auto write_out = [&] {
      file->write_at(snapshot.size, bytes_of(buffer));
      snapshot.size += buffer.size();
      unsynced += buffer.size();
      buffer.clear();
      if (unsynced < sync_bytes) return;
      file->sync_data();
      unsynced = 0;
    };
    const auto put = [&](FrameType type, bool first, bool last, std::string_view payload) {
      chain = append_frame(buffer, type, first, last, head.time, chain, payload);
      if (buffer.size() >= write_bytes) write_out();
    };
    // A record of any size, frame by frame.
    std::string payload;
    bool first = true;
    const auto put_frames = [&](FrameType type, bool last) {
      std::size_t at = 0;
      for (; payload.size() - at > max_frame_payload; at += max_frame_payload, first = false)
        put(type, first, false, std::string_view{payload}.substr(at, max_frame_payload));
      if (last) {
        put(type, first, true, std::string_view{payload}.substr(at));
        at = payload.size();
      }
      payload.erase(0, at);
      first = last;
    };
    const auto put_number = [&](std::uint64_t value, std::size_t size) {
      for (std::size_t i = 0; i < size; ++i) payload.push_back(static_cast<char>(value >> (8 * i)));
    };

    payload = encode_snapshot_head(head);
    put_frames(FrameType::snapshot, true);
    for (const NamedState& named : head.states) {
      const auto state = std::find_if(index.states.begin(), index.states.end(),
                                      [&](const FoldIndex::State& s) { return s.state == named; });
      snapshot.records.push_back(snapshot.size + buffer.size());
      SnapshotState& wrote = snapshot.states.emplace_back();
      put_number(named.name.size(), 4);
      payload += named.name;
      std::array<std::uint64_t, key_groups> sizes{};
      if (state != index.states.end()) {
        fold_state(source, *state, merge_bytes, {}, [&](KeyGroup group, std::string_view key, std::string_view value) {
          payload.push_back(1);
          payload.push_back(static_cast<char>(group));
          put_number(key.size(), 4);
          payload += key;
          put_number(value.size(), 4);
          payload += value;
          ++wrote.entries;
          sizes[group] += 10 + key.size() + value.size();
          if (payload.size() > max_frame_payload) put_frames(FrameType::state, false);
        });
      }
      put_frames(FrameType::state, true);
      wrote.groups[0] = state_head_bytes(named.name);
      for (std::size_t group = 0; group < key_groups; ++group)
        wrote.groups[group + 1] = wrote.groups[group] + sizes[group];
    }
    payload = encode_snapshot_end(snapshot.states);
    put_frames(FrameType::end, true);
    write_out();
    file->sync();
  }
  fs.rename(temporary, snapshot.path);
  fs.sync_directory(directory);
  return snapshot;
}

}  // namespace tidemill::detail
