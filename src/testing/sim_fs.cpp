#include "tidemill/testing/sim_fs.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "tidemill/core/crc32c.hpp"

namespace tidemill::testing {
namespace {

constexpr std::size_t sector = 512;

// A file: what is read, and what the disk has. `dirty` are the sectors in which the two may differ and that the next sync
// writes; those that a failed sync dropped are in neither, so that they differ until they are written again.
//
// A directory: the names that the process sees in it, and those that the disk has.
struct Node {
  std::string cache;
  std::string disk;
  std::set<std::size_t> dirty;
  bool is_directory = false;
  std::map<std::string, std::shared_ptr<Node>> names;
  std::map<std::string, std::shared_ptr<Node>> durable_names;
  std::uint64_t number = 0;
  std::chrono::nanoseconds modified{0};

  [[nodiscard]] FsStatus status() const {
    return {.type = is_directory ? FsStatus::Type::directory : FsStatus::Type::file,
            .size = cache.size(),
            .modified = modified,
            .device = 1,
            .inode = number};
  }
};
using NodePointer = std::shared_ptr<Node>;  // a file may have several names, or none and be open
using Names = std::map<std::string, NodePointer>;

// A change of names that is not durable yet: all of it or nothing. A null node takes the name away.
struct NameChange {
  struct Name {
    NodePointer directory;
    std::string name;
    NodePointer node;
  };
  std::vector<Name> names;
};

void apply_to(Names Node::*names, const NameChange& change) {
  for (const auto& [directory, name, node] : change.names) {
    if (node) {
      ((*directory).*names)[name] = node;
    } else {
      ((*directory).*names).erase(name);
    }
  }
}

std::string last_name(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  return std::string{path.substr(path.rfind('/') + 1)};
}

}  // namespace

struct SimFs::Impl {
  explicit Impl(std::uint64_t seed) : random{seed} { root->is_directory = true; }

  // What a call at which something happens has to do.
  enum class Now { go_on, fail, crash };

  // Counts a durable call, and says what becomes of it. `room`: it may need room; `sync`: it makes bytes durable.
  Now call(std::string_view what, const std::string& path, std::uint32_t check, bool room, bool sync) {
    note(what, path, check);
    if (crashed) throw SimCrash{};
    ++durable_calls;
    if (recording) calls.push_back(std::string{what} + " " + path);
    if (fault == SimFault::none || durable_calls < fault_at) return Now::go_on;
    if (fault == SimFault::disk_full && !room) return Now::go_on;
    if (fault == SimFault::sync_lost && !sync) return Now::go_on;
    happened = true;
    const SimFault what_now = fault;
    if (!for_ever) fault = SimFault::none;
    if (what_now == SimFault::kill || what_now == SimFault::power_loss) {
      crashed = true;
      power_lost = what_now == SimFault::power_loss;
      return Now::crash;
    }
    error = what_now == SimFault::disk_full ? ENOSPC : EIO;
    return Now::fail;
  }

  // For calls that are done or not done.
  void all_or_nothing(std::string_view what, const std::string& path, std::uint32_t check = 0, bool room = false) {
    switch (call(what, path, check, room, false)) {
      case Now::go_on: return;
      case Now::fail: throw FsError(what, path, error);
      case Now::crash: throw SimCrash{};
    }
  }

  void look(std::string_view what, const std::string& path) {
    note(what, path, 0);
    if (crashed) throw SimCrash{};
  }

  void note(std::string_view what, std::string_view path, std::uint32_t check) {
    hash = crc32c(std::as_bytes(std::span{what}), hash ^ check);
    hash = crc32c(std::as_bytes(std::span{path}), hash);
    trace = trace * 0x9E3779B97F4A7C15ULL + hash;
  }

  NodePointer find(const std::string& path) const {
    NodePointer node = root;
    for (std::size_t at = 0; at < path.size();) {
      const std::size_t end = std::min(path.find('/', at), path.size());
      const std::string name = path.substr(at, end - at);
      at = end + 1;
      if (name.empty() || name == ".") continue;
      const auto found = node->names.find(name);
      if (found == node->names.end()) return nullptr;
      node = found->second;
    }
    return node;
  }
  NodePointer file(std::string_view action, const std::string& path) const {
    NodePointer node = find(path);
    if (!node) throw FsError(action, path, ENOENT);
    if (node->is_directory) throw FsError(action, path, EISDIR);
    return node;
  }
  NodePointer parent(std::string_view action, const std::string& path) const {
    NodePointer parent = find(tidemill::detail::parent_path(path));
    if (!parent) throw FsError(action, path, ENOENT);
    if (!parent->is_directory) throw FsError(action, path, ENOTDIR);
    return parent;
  }
  void change(NameChange what) {
    apply_to(&Node::names, what);
    pending.push_back(std::move(what));
  }

  [[nodiscard]] NodePointer make_node() {
    auto node = std::make_shared<Node>();
    node->number = ++nodes;
    node->modified = now;
    return node;
  }
  static void mark(Node& node, std::uint64_t from, std::uint64_t to) {
    for (std::uint64_t at = from / sector; at * sector < to; ++at) node.dirty.insert(static_cast<std::size_t>(at));
  }
  void write(Node& node, std::uint64_t offset, std::span<const std::byte> bytes) const {
    node.modified = now;
    const std::size_t end = static_cast<std::size_t>(offset) + bytes.size();
    if (end > node.cache.size()) resize(node, end);
    if (!bytes.empty()) std::memcpy(&node.cache[static_cast<std::size_t>(offset)], bytes.data(), bytes.size());
    mark(node, offset, end);
  }
  void resize(Node& node, std::size_t size) const {
    node.modified = now;
    const std::size_t before = node.cache.size();
    node.cache.resize(size, '\0');
    mark(node, std::min(before, size), std::max(before, size));
  }
  // Puts one sector on the disk as it is in the cache.
  static void persist(Node& node, std::size_t at) {
    const std::size_t from = at * sector;
    const std::size_t to = std::min(from + sector, node.cache.size());
    if (from >= to) return;
    if (node.disk.size() < to) node.disk.resize(to, '\0');
    std::memcpy(&node.disk[from], &node.cache[from], to - from);
  }
  static void sync(Node& node) {
    for (const std::size_t at : node.dirty) persist(node, at);
    // Shorter, or longer by zeros. Bytes that a failed sync dropped are not written by a later one.
    if (node.disk.size() != node.cache.size()) node.disk.resize(node.cache.size(), '\0');
    node.dirty.clear();
  }

  // What the disk has when the power comes back.
  void settle_power_loss() {
    const auto chance = [&](std::uint64_t n) { return random() % n == 0; };
    // Names: in some losses none of the changes, or the first few; mostly any of them.
    const std::uint64_t manner = random() % 4;
    const std::size_t first_few = pending.empty() ? 0 : random() % (pending.size() + 1);
    for (std::size_t i = 0; i < pending.size(); ++i) {
      const bool happens = manner == 0 ? false : manner == 1 ? i < first_few : chance(2);
      if (happens) apply_to(&Node::durable_names, pending[i]);
    }
    pending.clear();
    std::set<Node*> done;
    settle_power_loss(*root, done);
  }
  void settle_power_loss(Node& directory, std::set<Node*>& done) {
    const auto chance = [&](std::uint64_t n) { return random() % n == 0; };
    directory.names = directory.durable_names;
    for (auto& [name, node] : directory.names) {
      if (!done.insert(node.get()).second) continue;
      if (node->is_directory) {
        settle_power_loss(*node, done);
        continue;
      }
      const std::uint64_t bytes_manner = random() % 4;
      const std::size_t step = random() % 2 == 0 ? 1 : 8;  // 512 or 4096 bytes
      const std::size_t kept = node->dirty.empty() ? 0 : random() % (node->dirty.size() + 1);
      std::size_t block = static_cast<std::size_t>(-1);
      bool happens = false;
      std::size_t i = 0;
      for (const std::size_t at : node->dirty) {
        if (at / step != block) {
          block = at / step;
          happens = bytes_manner == 0 ? false : bytes_manner == 1 ? i < kept : chance(2);
        }
        if (happens) persist(*node, at);
        ++i;
      }
      // The size may have got there without the bytes.
      if (node->disk.size() < node->cache.size() && chance(2)) {
        const std::size_t missing = node->cache.size() - node->disk.size();
        node->disk.resize(node->disk.size() + random() % (missing + 1), '\0');
      }
      node->cache = node->disk;
      node->dirty.clear();
    }
  }

  // Locked by every call, from its beginning to its end.
  class Turnstile {
   public:
    void lock() {
      mutex_.lock();
      if (begin) begin();
    }
    void unlock() {
      if (end) end();
      mutex_.unlock();
    }
    std::function<void()> begin;
    std::function<void()> end;

   private:
    std::mutex mutex_;
  };
  mutable Turnstile mutex;
  std::mt19937_64 random;
  const NodePointer root = std::make_shared<Node>();  // "." and "/"
  std::uint64_t nodes = 0;                            // made so far, beside that
  std::chrono::nanoseconds now{0};
  std::vector<NameChange> pending;
  std::map<const Node*, std::uint64_t> locks;  // of what, to which lock
  std::uint64_t next_lock = 1;
  std::uint64_t life = 1;  // files opened in an earlier one are dead

  bool crashed = false;
  bool power_lost = false;
  SimFault fault = SimFault::none;
  std::uint64_t fault_at = 0;
  bool for_ever = false;
  bool happened = false;
  int error = EIO;
  std::uint64_t reads = 0;
  std::uint64_t read_fault_at = 0;
  bool read_for_ever = false;

  std::uint64_t durable_calls = 0;
  std::uint32_t hash = 0;
  std::uint64_t trace = 0;
  bool recording = false;
  std::vector<std::string> calls;

  std::uint64_t free_bytes = std::uint64_t{1} << 40;
  FsKind file_system{"simulated", true};
};

namespace {

class SimFile final : public FsFile {
 public:
  SimFile(std::shared_ptr<SimFs::Impl> disk, std::string path, NodePointer node)
      : disk_{std::move(disk)}, path_{std::move(path)}, node_{std::move(node)}, life_{disk_->life} {}

  void write_at(std::uint64_t offset, std::span<const std::byte> bytes) override {
    const std::lock_guard guard{disk_->mutex};
    check("write");
    write("write", offset, bytes);
  }
  void append(std::span<const std::byte> bytes) override {
    const std::lock_guard guard{disk_->mutex};
    check("write");
    write("append", node_->cache.size(), bytes);
  }
  void allocate(std::uint64_t size) override {
    const std::lock_guard guard{disk_->mutex};
    check("allocate room for");
    settle("allocate", disk_->call("allocate", path_, static_cast<std::uint32_t>(size), true, false));
    if (size > node_->cache.size()) disk_->resize(*node_, static_cast<std::size_t>(size));
  }
  void truncate(std::uint64_t size) override {
    const std::lock_guard guard{disk_->mutex};
    check("truncate");
    settle("truncate", disk_->call("truncate", path_, static_cast<std::uint32_t>(size), false, false));
    disk_->resize(*node_, static_cast<std::size_t>(size));
  }
  void sync_data() override { sync_as("sync_data"); }
  void sync() override { sync_as("sync"); }

 private:
  void check(std::string_view action) const {
    if (disk_->crashed || life_ != disk_->life) throw SimCrash{};
    if (failed_ != 0) throw FsError(action, path_, failed_);
  }
  void settle(std::string_view action, SimFs::Impl::Now now) {
    if (now == SimFs::Impl::Now::crash) throw SimCrash{};
    if (now != SimFs::Impl::Now::fail) return;
    failed_ = disk_->error;
    throw FsError(action, path_, failed_);
  }
  void write(std::string_view action, std::uint64_t offset, std::span<const std::byte> bytes) {
    const auto now = disk_->call(action, path_, crc32c(bytes, static_cast<std::uint32_t>(offset)), true, false);
    if (now != SimFs::Impl::Now::go_on) bytes = bytes.first(disk_->random() % (bytes.size() + 1));
    disk_->write(*node_, offset, bytes);
    settle("write", now);
  }
  void sync_as(std::string_view name) {
    const std::lock_guard guard{disk_->mutex};
    check("sync");
    const auto now = disk_->call(name, path_, 0, false, true);
    if (now == SimFs::Impl::Now::go_on) SimFs::Impl::sync(*node_);
    if (now == SimFs::Impl::Now::fail) node_->dirty.clear();  // forgotten, not written
    settle("sync", now);
  }

  const std::shared_ptr<SimFs::Impl> disk_;  // joins the lives of a disk and its files
  const std::string path_;
  const NodePointer node_;
  const std::uint64_t life_;
  int failed_ = 0;
};

class SimReader final : public FsReader {
 public:
  SimReader(std::shared_ptr<SimFs::Impl> disk, std::string path, NodePointer node)
      : disk_{std::move(disk)}, path_{std::move(path)}, node_{std::move(node)}, life_{disk_->life} {}

  FsStatus status() const override {
    const std::lock_guard guard{disk_->mutex};
    check();
    return node_->status();
  }
  std::size_t read_at(std::uint64_t offset, std::span<std::byte> to) const override {
    const std::lock_guard guard{disk_->mutex};
    check();
    if (++disk_->reads; disk_->read_fault_at != 0 && disk_->reads >= disk_->read_fault_at) {
      if (!disk_->read_for_ever) disk_->read_fault_at = 0;
      throw FsError("read", path_, EIO);
    }
    if (offset >= node_->cache.size()) return 0;
    const std::size_t size = std::min(to.size(), node_->cache.size() - static_cast<std::size_t>(offset));
    if (size > 0) std::memcpy(to.data(), &node_->cache[static_cast<std::size_t>(offset)], size);
    return size;
  }

 private:
  void check() const {
    if (disk_->crashed || life_ != disk_->life) throw SimCrash{};
  }
  const std::shared_ptr<SimFs::Impl> disk_;  // joins the lives of a disk and its files
  const std::string path_;
  const NodePointer node_;
  const std::uint64_t life_;
};

class SimLock final : public FsLock {
 public:
  SimLock(std::shared_ptr<SimFs::Impl> disk, NodePointer node)
      : disk_{std::move(disk)}, node_{std::move(node)}, number_{disk_->next_lock++} {
    disk_->locks[node_.get()] = number_;
  }
  ~SimLock() override {
    const std::lock_guard guard{disk_->mutex};
    const auto lock = disk_->locks.find(node_.get());
    if (lock != disk_->locks.end() && lock->second == number_) disk_->locks.erase(lock);
  }

 private:
  const std::shared_ptr<SimFs::Impl> disk_;  // joins the lives of a disk and its locks
  const NodePointer node_;
  const std::uint64_t number_;
};

}  // namespace

SimFs::SimFs(std::uint64_t seed) : impl_{std::make_shared<Impl>(seed)} {}
SimFs::SimFs(std::shared_ptr<Impl> impl) : impl_{std::move(impl)} {}
SimFs::~SimFs() = default;

std::shared_ptr<SimFs> SimFs::copy(std::uint64_t seed) const {
  const std::lock_guard guard{impl_->mutex};
  auto other = std::make_shared<Impl>(seed);
  std::map<const Node*, NodePointer> nodes{{impl_->root.get(), other->root}};
  const std::function<NodePointer(const NodePointer&)> same = [&](const NodePointer& node) {
    if (!node) return NodePointer{};
    if (const auto known = nodes.find(node.get()); known != nodes.end()) return known->second;
    NodePointer copied = nodes[node.get()] = std::make_shared<Node>(*node);
    for (auto& [_, child] : copied->names) child = same(child);
    for (auto& [_, child] : copied->durable_names) child = same(child);
    return copied;
  };
  for (const auto& [name, node] : impl_->root->names) other->root->names[name] = same(node);
  for (const auto& [name, node] : impl_->root->durable_names) other->root->durable_names[name] = same(node);
  for (const NameChange& change : impl_->pending) {
    NameChange& copied = other->pending.emplace_back();
    for (const auto& [directory, name, node] : change.names)
      copied.names.push_back({same(directory), name, same(node)});
  }
  other->nodes = impl_->nodes;
  other->now = impl_->now;
  other->free_bytes = impl_->free_bytes;
  other->file_system = impl_->file_system;
  return std::shared_ptr<SimFs>(new SimFs(std::move(other)));
}

void SimFs::fail_at(std::uint64_t call, SimFault fault, bool for_ever) {
  const std::lock_guard guard{impl_->mutex};
  impl_->fault = fault;
  impl_->fault_at = impl_->durable_calls + call;
  impl_->for_ever = for_ever;
  impl_->happened = false;
}

void SimFs::fail_read_at(std::uint64_t call, bool for_ever) {
  const std::lock_guard guard{impl_->mutex};
  impl_->read_fault_at = impl_->reads + call;
  impl_->read_for_ever = for_ever;
}

void SimFs::clear_faults() {
  const std::lock_guard guard{impl_->mutex};
  impl_->fault = SimFault::none;
  impl_->read_fault_at = 0;
}

bool SimFs::fault_happened() const {
  const std::lock_guard guard{impl_->mutex};
  return impl_->happened;
}

void SimFs::kill() {
  const std::lock_guard guard{impl_->mutex};
  impl_->crashed = true;
}

void SimFs::lose_power() {
  const std::lock_guard guard{impl_->mutex};
  impl_->crashed = true;
  impl_->power_lost = true;
}

void SimFs::restart() {
  const std::lock_guard guard{impl_->mutex};
  if (impl_->power_lost) impl_->settle_power_loss();
  impl_->power_lost = false;
  impl_->crashed = false;
  impl_->locks.clear();
  ++impl_->life;
  impl_->fault = SimFault::none;
  impl_->read_fault_at = 0;
}

std::uint64_t SimFs::durable_calls() const {
  const std::lock_guard guard{impl_->mutex};
  return impl_->durable_calls;
}

std::uint64_t SimFs::trace() const {
  const std::lock_guard guard{impl_->mutex};
  return impl_->trace;
}

void SimFs::record_calls(bool on) {
  const std::lock_guard guard{impl_->mutex};
  impl_->recording = on;
  impl_->calls.clear();
}

const std::vector<std::string>& SimFs::calls() const { return impl_->calls; }

void SimFs::on_calls(std::function<void()> begin, std::function<void()> end) {
  impl_->mutex.begin = std::move(begin);
  impl_->mutex.end = std::move(end);
}

void SimFs::set_free_space(std::uint64_t bytes) {
  const std::lock_guard guard{impl_->mutex};
  impl_->free_bytes = bytes;
}

void SimFs::set_kind(FsKind kind) {
  const std::lock_guard guard{impl_->mutex};
  impl_->file_system = std::move(kind);
}

void SimFs::set_time(Time now) {
  const std::lock_guard guard{impl_->mutex};
  impl_->now = now.time_since_epoch();
}

std::vector<std::string> SimFs::files() const {
  const std::lock_guard guard{impl_->mutex};
  std::vector<std::string> paths;
  const std::function<void(const Node&, const std::string&)> collect = [&](const Node& directory,
                                                                           const std::string& in) {
    for (const auto& [name, node] : directory.names) {
      if (node->is_directory) {
        collect(*node, in + name + '/');
      } else {
        paths.push_back(in + name);
      }
    }
  };
  collect(*impl_->root, "");
  return paths;
}

std::string SimFs::contents(const std::string& path) const {
  const std::lock_guard guard{impl_->mutex};
  return impl_->file("read", path)->cache;
}

void SimFs::set_contents(const std::string& path, std::string bytes) {
  const std::lock_guard guard{impl_->mutex};
  const NodePointer node = impl_->make_node();
  node->cache = bytes;
  node->disk = std::move(bytes);
  const NodePointer directory = impl_->parent("write", path);
  directory->names[last_name(path)] = node;
  directory->durable_names[last_name(path)] = node;
}

void SimFs::erase(const std::string& path) {
  const std::lock_guard guard{impl_->mutex};
  const NodePointer directory = impl_->parent("erase", path);
  directory->names.erase(last_name(path));
  directory->durable_names.erase(last_name(path));
}

std::unique_ptr<FsFile> SimFs::create(const std::string& path) {
  const std::lock_guard guard{impl_->mutex};
  impl_->all_or_nothing("create", path, 0, true);
  const NodePointer directory = impl_->parent("create", path);
  if (impl_->find(path)) throw FsError("create", path, EEXIST);
  const NodePointer node = impl_->make_node();
  impl_->change(NameChange{{{directory, last_name(path), node}}});
  return std::make_unique<SimFile>(impl_, path, node);
}

std::unique_ptr<FsFile> SimFs::open(const std::string& path) {
  const std::lock_guard guard{impl_->mutex};
  impl_->look("open", path);
  return std::make_unique<SimFile>(impl_, path, impl_->file("open", path));
}

std::unique_ptr<FsReader> SimFs::read(const std::string& path) {
  const std::lock_guard guard{impl_->mutex};
  impl_->look("read", path);
  return std::make_unique<SimReader>(impl_, path, impl_->file("open", path));
}

void SimFs::rename(const std::string& from, const std::string& to) {
  const std::lock_guard guard{impl_->mutex};
  impl_->all_or_nothing("rename", to, crc32c(std::as_bytes(std::span{from})), true);
  const NodePointer node = impl_->find(from);
  if (!node) throw FsError("rename", from, ENOENT);
  const NodePointer directory = impl_->parent("move to", to);
  if (const NodePointer there = impl_->find(to); there && there != node) {
    if (node->is_directory && !there->is_directory) throw FsError("move to", to, ENOTDIR);
    if (!node->is_directory && there->is_directory) throw FsError("move to", to, EISDIR);
    if (!there->names.empty()) throw FsError("move to", to, ENOTEMPTY);
  }
  if (from != to)
    impl_->change(
        NameChange{{{directory, last_name(to), node}, {impl_->parent("rename", from), last_name(from), nullptr}}});
}

bool SimFs::exchange(const std::string& one, const std::string& other) {
  const std::lock_guard guard{impl_->mutex};
  impl_->all_or_nothing("exchange", other, crc32c(std::as_bytes(std::span{one})), true);
  const NodePointer first = impl_->find(one);
  const NodePointer second = impl_->find(other);
  if (!first || !second) throw FsError("exchange", first ? other : one, ENOENT);
  impl_->change(NameChange{{{impl_->parent("exchange", one), last_name(one), second},
                            {impl_->parent("exchange", other), last_name(other), first}}});
  return true;
}

void SimFs::link(const std::string& from, const std::string& to) {
  const std::lock_guard guard{impl_->mutex};
  impl_->all_or_nothing("link", to, crc32c(std::as_bytes(std::span{from})), true);
  const NodePointer node = impl_->file("link", from);
  const NodePointer directory = impl_->parent("link a file to", to);
  if (impl_->find(to)) throw FsError("link a file to", to, EEXIST);
  impl_->change(NameChange{{{directory, last_name(to), node}}});
}

bool SimFs::remove(const std::string& path) {
  const std::lock_guard guard{impl_->mutex};
  // Of a file that is not there nothing is removed, so that nothing can fail.
  const NodePointer node = impl_->find(path);
  if (!node) {
    impl_->look("remove", path);
    return false;
  }
  impl_->all_or_nothing("remove", path);
  if (node->is_directory) throw FsError("remove", path, EISDIR);
  impl_->change(NameChange{{{impl_->parent("remove", path), last_name(path), nullptr}}});
  return true;
}

bool SimFs::remove_directory(const std::string& path) {
  const std::lock_guard guard{impl_->mutex};
  const NodePointer node = impl_->find(path);
  if (!node) {
    impl_->look("remove_directory", path);
    return false;
  }
  impl_->all_or_nothing("remove_directory", path);
  if (!node->is_directory) throw FsError("remove the directory", path, ENOTDIR);
  if (!node->names.empty()) throw FsError("remove the directory", path, ENOTEMPTY);
  impl_->change(NameChange{{{impl_->parent("remove the directory", path), last_name(path), nullptr}}});
  return true;
}

bool SimFs::make_directory(const std::string& path) {
  const std::lock_guard guard{impl_->mutex};
  if (const NodePointer node = impl_->find(path)) {
    impl_->look("make_directory", path);
    if (node->is_directory) return false;
    throw FsError("make the directory", path, ENOTDIR);
  }
  impl_->all_or_nothing("make_directory", path, 0, true);
  const NodePointer directory = impl_->parent("make the directory", path);
  const NodePointer node = impl_->make_node();
  node->is_directory = true;
  impl_->change(NameChange{{{directory, last_name(path), node}}});
  return true;
}

void SimFs::sync_directory(const std::string& path) {
  const std::lock_guard guard{impl_->mutex};
  // A failed one forgets nothing: file systems keep names in a journal, which they do not give up one entry at a time.
  switch (impl_->call("sync_directory", path, 0, false, false)) {
    case Impl::Now::go_on: break;
    case Impl::Now::fail: throw FsError("sync the directory", path, impl_->error);
    case Impl::Now::crash: throw SimCrash{};
  }
  const NodePointer node = impl_->find(path);
  if (!node || !node->is_directory) throw FsError("sync the directory", path, ENOENT);
  std::erase_if(impl_->pending, [&](const NameChange& change) {
    const bool here =
        std::any_of(change.names.begin(), change.names.end(), [&](const auto& name) { return name.directory == node; });
    if (here) apply_to(&Node::durable_names, change);
    return here;
  });
}

bool SimFs::exists(const std::string& path) {
  const std::lock_guard guard{impl_->mutex};
  impl_->look("exists", path);
  return impl_->find(path) != nullptr;
}

bool SimFs::is_directory(const std::string& path) {
  const std::lock_guard guard{impl_->mutex};
  impl_->look("is_directory", path);
  const NodePointer node = impl_->find(path);
  return node && node->is_directory;
}

std::optional<FsStatus> SimFs::status(const std::string& path) {
  const std::lock_guard guard{impl_->mutex};
  impl_->look("status", path);
  const NodePointer node = impl_->find(path);
  if (!node) return std::nullopt;
  return node->status();
}

std::vector<std::string> SimFs::list(const std::string& path) {
  const std::lock_guard guard{impl_->mutex};
  impl_->look("list", path);
  const NodePointer node = impl_->find(path);
  if (!node) throw FsError("list", path, ENOENT);
  if (!node->is_directory) throw FsError("list", path, ENOTDIR);
  std::vector<std::string> result;
  for (const auto& [name, _] : node->names) result.push_back(name);
  return result;
}

// Not a durable call: what is in the file is for people, and a lock survives nothing.
std::unique_ptr<FsLock> SimFs::lock(const std::string& path, std::string_view holder) {
  const std::lock_guard guard{impl_->mutex};
  impl_->look("lock", path);
  const NodePointer directory = impl_->parent("lock", path);
  NodePointer node = impl_->find(path);
  if (!node) {
    node = impl_->make_node();
    directory->names[last_name(path)] = node;
    directory->durable_names[last_name(path)] = node;
  }
  if (impl_->locks.contains(node.get())) return nullptr;
  node->cache = holder;
  node->disk = node->cache;
  return std::make_unique<SimLock>(impl_, node);
}

std::unique_ptr<FsLock> SimFs::lock_directory(const std::string& path) {
  const std::lock_guard guard{impl_->mutex};
  impl_->look("lock_directory", path);
  const NodePointer node = impl_->find(path);
  if (!node || !node->is_directory || impl_->locks.contains(node.get())) return nullptr;
  return std::make_unique<SimLock>(impl_, node);
}

bool SimFs::is_locked(const std::string& path) {
  const std::lock_guard guard{impl_->mutex};
  impl_->look("is_locked", path);
  const NodePointer node = impl_->find(path);
  return node && impl_->locks.contains(node.get());
}

// There are no links of the kind that is followed, and there is one working directory.
std::string SimFs::resolve(const std::string& path) {
  const std::lock_guard guard{impl_->mutex};
  impl_->look("resolve", path);
  return path;
}

FsKind SimFs::kind(const std::string& path) {
  const std::lock_guard guard{impl_->mutex};
  impl_->look("kind", path);
  return impl_->file_system;
}

std::uint64_t SimFs::free_space(const std::string& path) {
  const std::lock_guard guard{impl_->mutex};
  impl_->look("free_space", path);
  return impl_->free_bytes;
}

std::array<std::byte, 16> SimFs::random_id() {
  const std::lock_guard guard{impl_->mutex};
  std::array<std::byte, 16> id;
  for (std::byte& byte : id) byte = static_cast<std::byte>(impl_->random() & 0xFF);
  return id;
}

}  // namespace tidemill::testing
