// What survives a restart. An operator that remembers something between batches shows it here as a table of encoded keys and
// values: it says after each batch which entries changed, and takes all of them back before the first batch of a new run.
// The checkpoint stores bytes and knows nothing of operators; the operator knows nothing of files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "tidemill/core/codec.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/core/time.hpp"

namespace tidemill {

/// Keys belong to one of 256 groups (the topmost byte of a key's tag, core/hash.hpp), and groups to partitions, so that state
/// can move when the number of partitions does.
using KeyGroup = std::uint8_t;

/// What a state is, for the comparison of a program with a checkpoint and for tools that show one without the program. Two
/// states that differ in any of these are not the same, and the difference is told to the user in these words.
struct StateSchema {
  std::string kind;        ///< the operator: "map_with_state", "update_state_by_key", "window"
  std::string key;         ///< codec_layout of the keys: "string"
  std::string value;       ///< codec_layout of the values
  std::string parameters;  ///< what must not change between runs, such as "length 60 s, slide 1 s"; may be empty

  friend bool operator==(const StateSchema&, const StateSchema&) = default;
};

/// The entries that one batch changed, in the bytes that a checkpoint stores: for each
///
///     u8 1 (put) or 2 (erase)   u8 key group   u32 size of the key   key   [put: u32 size of the value   value]
///
/// with little-endian numbers. Of several changes to one key the last counts.
/// Errors:  StateError "unencodable" from the codec, and for a key or value of 4 GiB or more. A change that failed is not there.
/// Threads: one at a time; several may each fill a part of `split`.
class TIDEMILL_API StateChanges {
 public:
  /// The value is made of `parts`, one after the other, as that of a pair or tuple is.
  template <Encodable K, Encodable... Parts>
    requires(sizeof...(Parts) > 0)
  void put(KeyGroup group, const K& key, const Parts&... parts) {
    if constexpr (detail::CopiedToBytes<K> && (detail::CopiedToBytes<Parts> && ...)) {
      constexpr std::size_t value_size = (sizeof(Parts) + ...);
      char* at = extend(put_overhead + sizeof(K) + value_size);
      const auto add = [&at](const void* from, std::size_t size) {
        std::memcpy(at, from, size);
        at += size;
      };
      const char head[] = {1, static_cast<char>(group)};
      const auto key_size = static_cast<std::uint32_t>(sizeof(K));
      const auto size = static_cast<std::uint32_t>(value_size);
      add(head, sizeof head);
      add(&key_size, sizeof key_size);
      add(std::addressof(key), sizeof(K));
      add(&size, sizeof size);
      (add(std::addressof(parts), sizeof(Parts)), ...);
    } else {
      begin_entry(1, group);
      sized(key);
      sized(parts...);
      end_entry();
    }
  }
  template <Encodable K>
  void erase(KeyGroup group, const K& key) {
    begin_entry(2, group);
    sized(key);
    end_entry();
  }
  void append(const StateChanges& others) {
    others.for_each_piece(
        [this](std::string_view piece) { std::memcpy(extend(piece.size()), piece.data(), piece.size()); });
  }
  /// So many empty ones that follow what is here, in their order. They are there until the next call to another member that is
  /// not const.
  [[nodiscard]] std::span<StateChanges> split(std::size_t parts) {
    TIDEMILL_ASSERT(used_ == 0, "changes are split once");
    if (parts_.size() < parts) parts_.resize(parts);
    used_ = parts;
    return std::span{parts_}.first(parts);
  }
  /// Leaves the first so many bytes, which end between entries. Pre: not split.
  void cut(std::size_t size) noexcept { bytes_.resize(size); }
  /// Keeps the memory for the next changes.
  void clear() noexcept {
    bytes_.clear();
    for (StateChanges& part : parts_) part.clear();
    used_ = 0;
  }

  [[nodiscard]] bool empty() const noexcept { return size() == 0; }
  /// In bytes.
  [[nodiscard]] std::size_t size() const noexcept {
    std::size_t size = 0;
    for_each_piece([&](std::string_view piece) { size += piece.size(); });
    return size;
  }
  /// Calls `see(bytes)` for one piece after the other; pieces end between entries.
  template <class See>
  void for_each_piece(See&& see) const {
    if (!bytes_.empty()) see(std::string_view{bytes_.data(), bytes_.size()});
    for (std::size_t p = 0; p < used_; ++p) parts_[p].for_each_piece(see);
  }
  /// All pieces together.
  [[nodiscard]] std::string bytes() const {
    std::string all;
    for_each_piece([&](std::string_view piece) { all.append(piece); });
    return all;
  }

 private:
  // What is appended is not cleared first.
  struct Allocator : std::allocator<char> {
    template <class U>
    struct rebind {
      using other = Allocator;
    };
    void construct(char*) noexcept {}
    template <class From>
    void construct(char* at, From&& from) noexcept {
      *at = std::forward<From>(from);
    }
  };
  using Bytes = std::vector<char, Allocator>;
  static constexpr std::size_t put_overhead = 10;  // beside key and value

  // Where the next entry goes.
  [[nodiscard]] Bytes& last() noexcept { return used_ == 0 ? bytes_ : parts_[used_ - 1].last(); }
  [[nodiscard]] char* extend(std::size_t size) {
    Bytes& out = last();
    const std::size_t before = out.size();
    out.resize(before + size);
    return out.data() + before;
  }

  void begin_entry(char what, KeyGroup group) { entry_.assign({what, static_cast<char>(group)}); }
  // Four bytes for the size, then the values.
  template <class... Ts>
  void sized(const Ts&... values) {
    const std::size_t at = entry_.size();
    entry_.append(4, '\0');
    Encoder to{entry_};
    (to.value(values), ...);
    const std::size_t size = entry_.size() - at - 4;
    if (size > std::numeric_limits<std::uint32_t>::max())
      Encoder::fail("a key or value of a state", "it takes 4 GiB or more");
    for (std::size_t i = 0; i < 4; ++i) entry_[at + i] = static_cast<char>(size >> (8 * i));
  }
  void end_entry() {
    std::memcpy(extend(entry_.size()), entry_.data(), entry_.size());
    if (entry_.capacity() > large_entry) std::string{}.swap(entry_);
  }

  static constexpr std::size_t large_entry = 64 * 1024;
  std::string entry_;  // that is being written
  Bytes bytes_;
  std::vector<StateChanges> parts_;  // behind them
  std::size_t used_ = 0;             // of the parts; the others have memory
};

/// A state that a checkpoint keeps.
/// Threads: all members are called by the thread that drives the context, between batches, but for `restore`.
class TIDEMILL_API DurableState {
 public:
  virtual ~DurableState();

  [[nodiscard]] virtual StateSchema schema() const = 0;

  /// Called once, before restore and the first batch, when there is a checkpoint: changes are to be remembered from now on. A
  /// state that is never told so need not spend anything on it.
  virtual void track_changes() = 0;

  /// Before the first batch of a run that continues one which had this state: `restoring`, with about how many entries there
  /// are; one call of `restore` for every entry, in any order; then `restored`.
  virtual void restoring(std::uint64_t entries);
  /// Into how many parts, 1 to 256, the entries may be divided, of which each may be restored by another thread at the same time:
  /// the groups g with the same (g * parts) >> 8 are a part.
  [[nodiscard]] virtual std::size_t restore_parts() const;
  /// Errors: StateError when the bytes are not what `schema` says.
  virtual void restore(KeyGroup group, std::string_view key, std::string_view value) = 0;
  /// All entries have been given: they are the state after the batch of `last`. Errors: as `restore`.
  virtual void restored(Time last) = 0;

  /// Appends what changed since the last call, or since `restored`.
  virtual void take_changes(StateChanges& to) = 0;
};

}  // namespace tidemill
