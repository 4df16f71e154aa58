#include "checkpoint/fold.hpp"

#include <algorithm>
#include <bit>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
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

// One change, its bytes in an arena. Order: key, then age.
struct Change {
  std::uint64_t prefix;  // of the key, so that most comparisons look no further
  const char* bytes;     // key, then value
  std::uint32_t key_size;
  std::uint32_t value_size;
  std::uint32_t age;
  bool erased;

  [[nodiscard]] std::string_view key() const noexcept { return {bytes, key_size}; }
  [[nodiscard]] std::string_view value() const noexcept { return {bytes + key_size, value_size}; }
};

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

// How `key` stands to that of the change: less, equal or greater than 0.
int compare(std::string_view key, const Change& change) {
  const std::uint64_t prefix = prefix_of(key);
  if (prefix != change.prefix) return prefix < change.prefix ? -1 : 1;
  return key.compare(change.key());
}

bool before(const Change& a, const Change& b) {
  if (a.prefix != b.prefix) return a.prefix < b.prefix;
  if (const int order = a.key().compare(b.key()); order != 0) return order < 0;
  return a.age < b.age;
}

// Bytes that stay where they are.
class Arena {
 public:
  const char* add(std::string_view first, std::string_view second) {
    const std::size_t size = first.size() + second.size();
    if (size > left_) {
      const std::size_t block = std::max<std::size_t>(size, 256 * 1024);
      blocks_.push_back(std::make_unique_for_overwrite<char[]>(block));
      free_ = blocks_.back().get();
      left_ = block;
    }
    char* const at = free_;
    if (!first.empty()) std::memcpy(at, first.data(), first.size());
    if (!second.empty()) std::memcpy(at + first.size(), second.data(), second.size());
    free_ += size;
    left_ -= size;
    return at;
  }

 private:
  std::vector<std::unique_ptr<char[]>> blocks_;
  char* free_ = nullptr;
  std::size_t left_ = 0;
};

// The entries of one state of a snapshot, in order.
class SnapshotCursor {
 public:
  SnapshotCursor(const FoldSource& source, const FoldIndex::State& state) {
    if (!source.snapshot || !state.in_snapshot) return;
    reader_.emplace(source.snapshot_reader());
    static_cast<void>(reader_->next());  // the head
    for (std::size_t i = 0; i <= *state.in_snapshot; ++i) {
      if (!reader_->next() || reader_->type() != FrameType::state) reader_->fail("a state is missing");
    }
    if (reader_->take_sized() != state.state.name) reader_->fail("it is another state");
    advance();
  }
  [[nodiscard]] bool valid() const noexcept { return valid_; }
  [[nodiscard]] const RecordReader::Entry& entry() const noexcept { return entry_; }
  void advance() {
    valid_ = !reader_->at_end();
    if (valid_) reader_->take_entry(entry_);
  }

 private:
  std::optional<RecordReader> reader_;
  RecordReader::Entry entry_;
  bool valid_ = false;
};

// The changes of one state in the groups [first, end), the newest of each key, by group and key.
class Changes {
 public:
  Changes(const FoldSource& source, const FoldIndex::State& state, unsigned first, unsigned end) {
    RecordReader reader = source.log_reader();
    std::uint32_t age = 0;
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
          of_group_[entry.group].push_back({prefix_of(entry.key), arena_.add(entry.key, entry.value),
                                            static_cast<std::uint32_t>(entry.key.size()),
                                            static_cast<std::uint32_t>(entry.value.size()), age++, entry.erased});
        });
      }
    }
  }

  // The changes of a group, of which only the last one of each key counts.
  std::vector<Change>& group(unsigned group) {
    std::vector<Change>& changes = of_group_[group];
    std::sort(changes.begin(), changes.end(), before);
    std::size_t kept = 0;
    for (std::size_t i = 0; i < changes.size(); ++i) {
      if (i + 1 < changes.size() && changes[i].key() == changes[i + 1].key()) continue;
      changes[kept++] = changes[i];
    }
    changes.resize(kept);
    return changes;
  }

 private:
  Arena arena_;
  std::array<std::vector<Change>, 256> of_group_;
};

}  // namespace

Extent FoldSource::snapshot_extent() const {
  // The first frame continues the checksum of the header, which ties the two together.
  const auto file = fs->read(snapshot->path);
  char bytes[4];
  std::uint32_t chain = 0;
  if (read_twice(*file, file_header_bytes - 4, std::as_writable_bytes(std::span{bytes})) == 4)
    std::memcpy(&chain, bytes, 4);
  if constexpr (std::endian::native == std::endian::big) chain = __builtin_bswap32(chain);
  return {snapshot->path, snapshot->number, file_header_bytes, snapshot->size, chain};
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
        state->bytes[entry.group] += sizeof(Change) + entry.key.size() + entry.value.size();
        ++state->changes;
      });
    }
  }
  std::sort(index.states.begin(), index.states.end(),
            [](const auto& a, const auto& b) { return a.state.name < b.state.name; });
  return index;
}

void fold_state(const FoldSource& source, const FoldIndex::State& state, std::size_t merge_bytes, EntryVisitor visit) {
  SnapshotCursor snapshot{source, state};
  for (unsigned first = 0; first < 256;) {
    std::uint64_t bytes = state.bytes[first];
    unsigned end = first + 1;
    while (end < 256 && bytes + state.bytes[end] <= merge_bytes) bytes += state.bytes[end++];
    std::optional<Changes> changes;
    if (bytes > 0) changes.emplace(source, state, first, end);
    for (unsigned group = first; group < end; ++group) {
      const auto key_group = static_cast<KeyGroup>(group);
      const auto in_group = [&] { return snapshot.valid() && snapshot.entry().group == key_group; };
      if (changes) {
        for (const Change& change : changes->group(group)) {
          int order = -1;
          while (in_group() && (order = compare(snapshot.entry().key, change)) < 0) {
            visit(key_group, snapshot.entry().key, snapshot.entry().value);
            snapshot.advance();
          }
          if (in_group() && order == 0) snapshot.advance();
          if (!change.erased) visit(key_group, change.key(), change.value());
        }
      }
      for (; in_group(); snapshot.advance()) visit(key_group, snapshot.entry().key, snapshot.entry().value);
    }
    first = end;
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
  std::vector<std::exception_ptr> errors(parts.size());
  const auto guarded = [&](std::size_t p) {
    try {
      verify(parts[p]);
    } catch (...) {
      errors[p] = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> helpers;
    helpers.reserve(parts.size());
    std::size_t next = 1;
    try {
      for (; next < parts.size(); ++next) helpers.emplace_back(guarded, next);
    } catch (const std::system_error&) {  // no thread to be had: then one after the other
    }
    guarded(0);
    for (; next < parts.size(); ++next) guarded(next);
  }
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

// Entries on their way from the thread that reads them.
struct EntryBlock {
  struct Head {
    KeyGroup group;
    std::uint32_t key_size;
    std::uint32_t value_size;
  };
  std::vector<Head> heads;
  std::string bytes;  // of keys and values in turn
};

class EntryQueue {
 public:
  // For the reader. False: nobody wants more.
  bool push(EntryBlock& block) {
    std::unique_lock guard{mutex_};
    changed_.wait(guard, [&] { return full_.size() < most || given_up_; });
    if (given_up_) return false;
    full_.push_back(std::exchange(block, {}));
    if (!spare_.empty()) {
      block = std::move(spare_.back());
      spare_.pop_back();
    }
    changed_.notify_all();
    return true;
  }
  void end(std::exception_ptr error) {
    const std::lock_guard guard{mutex_};
    ended_ = true;
    error_ = std::move(error);
    changed_.notify_all();
  }
  // For the other one. False: that was all.
  bool pop(EntryBlock& block) {
    std::unique_lock guard{mutex_};
    block.heads.clear();
    block.bytes.clear();
    if (block.bytes.capacity() != 0) spare_.push_back(std::exchange(block, {}));
    changed_.wait(guard, [&] { return !full_.empty() || ended_; });
    if (full_.empty()) {
      if (error_) std::rethrow_exception(error_);
      return false;
    }
    block = std::move(full_.front());
    full_.pop_front();
    changed_.notify_all();
    return true;
  }
  void give_up() {
    const std::lock_guard guard{mutex_};
    given_up_ = true;
    changed_.notify_all();
  }

 private:
  static constexpr std::size_t most = 8;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<EntryBlock> full_;
  std::vector<EntryBlock> spare_;
  bool ended_ = false;
  bool given_up_ = false;
  std::exception_ptr error_;
};

struct GivenUp {};

}  // namespace

void fold_state_ahead(const FoldSource& source, const FoldIndex::State& state, std::size_t merge_bytes,
                      EntryVisitor visit) {
  constexpr std::size_t block_bytes = 128 * 1024;
  EntryQueue queue;
  std::jthread reader;
  try {
    reader = std::jthread{[&] {
      try {
        EntryBlock block;
        fold_state(source, state, merge_bytes, [&](KeyGroup group, std::string_view key, std::string_view value) {
          block.heads.push_back(
              {group, static_cast<std::uint32_t>(key.size()), static_cast<std::uint32_t>(value.size())});
          block.bytes.append(key).append(value);
          if (block.bytes.size() + block.heads.size() * sizeof(EntryBlock::Head) >= block_bytes && !queue.push(block))
            throw GivenUp{};
        });
        static_cast<void>(queue.push(block));
        queue.end(nullptr);
      } catch (const GivenUp&) {
      } catch (...) {
        queue.end(std::current_exception());
      }
    }};
  } catch (const std::system_error&) {  // no thread to be had
    return fold_state(source, state, merge_bytes, visit);
  }
  try {
    for (EntryBlock block; queue.pop(block);) {
      std::string_view rest = block.bytes;
      for (const EntryBlock::Head& head : block.heads) {
        visit(head.group, rest.substr(0, head.key_size), rest.substr(head.key_size, head.value_size));
        rest.remove_prefix(std::size_t{head.key_size} + head.value_size);
      }
    }
  } catch (...) {
    queue.give_up();
    throw;
  }
}

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
  }
  if (!reader.next() || reader.type() != FrameType::end) reader.fail("the end is missing");
  for (std::size_t i = 0; i < snapshot.head.states.size(); ++i)
    snapshot.entries.push_back(reader.take_number<std::uint64_t>());
  if (!reader.at_end() || reader.next()) reader.fail("something follows the end");
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
      std::uint64_t entries = 0;
      put_number(named.name.size(), 4);
      payload += named.name;
      if (state != index.states.end()) {
        fold_state(source, *state, merge_bytes, [&](KeyGroup group, std::string_view key, std::string_view value) {
          payload.push_back(1);
          payload.push_back(static_cast<char>(group));
          put_number(key.size(), 4);
          payload += key;
          put_number(value.size(), 4);
          payload += value;
          ++entries;
          if (payload.size() > max_frame_payload) put_frames(FrameType::state, false);
        });
      }
      put_frames(FrameType::state, true);
      snapshot.entries.push_back(entries);
    }
    for (const std::uint64_t entries : snapshot.entries) put_number(entries, 8);
    put_frames(FrameType::end, true);
    write_out();
    file->sync();
  }
  fs.rename(temporary, snapshot.path);
  fs.sync_directory(directory);
  return snapshot;
}

}  // namespace tidemill::detail
