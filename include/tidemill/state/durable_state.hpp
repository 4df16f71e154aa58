// What survives a restart. An operator that remembers something between batches shows it here as a table of encoded keys and
// values: it says after each batch which entries changed, and takes all of them back before the first batch of a new run.
// The checkpoint stores bytes and knows nothing of operators; the operator knows nothing of files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

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
/// Threads: one at a time; partitions write into their own and are joined by `append`.
class TIDEMILL_API StateChanges {
 public:
  template <Encodable K, Encodable V>
  void put(KeyGroup group, const K& key, const V& value) {
    const std::size_t before = bytes_.size();
    try {
      const char head[] = {1, static_cast<char>(group), 0, 0, 0, 0};
      bytes_.append(head, sizeof head);
      sized(key);
      bytes_.append(head + 2, 4);
      sized(value);
    } catch (...) {
      bytes_.resize(before);
      throw;
    }
  }
  template <Encodable K>
  void erase(KeyGroup group, const K& key) {
    const std::size_t before = bytes_.size();
    try {
      const char head[] = {2, static_cast<char>(group), 0, 0, 0, 0};
      bytes_.append(head, sizeof head);
      sized(key);
    } catch (...) {
      bytes_.resize(before);
      throw;
    }
  }
  void reserve(std::size_t bytes) { bytes_.reserve(bytes); }
  void append(const StateChanges& others) { bytes_ += others.bytes_; }
  void clear() noexcept { bytes_.clear(); }

  [[nodiscard]] bool empty() const noexcept { return bytes_.empty(); }
  [[nodiscard]] const std::string& bytes() const noexcept { return bytes_; }

 private:
  // Writes the value, and then its size into the four bytes before it.
  template <class T>
  void sized(const T& value) {
    const std::size_t at = bytes_.size() - 4;
    Encoder{bytes_}.value(value);
    const std::size_t size = bytes_.size() - at - 4;
    if (size > std::numeric_limits<std::uint32_t>::max())
      Encoder::fail("a key or value of a state", "it takes 4 GiB or more");
    for (std::size_t i = 0; i < 4; ++i) bytes_[at + i] = static_cast<char>(size >> (8 * i));
  }

  std::string bytes_;
};

/// A state that a checkpoint keeps.
/// Threads: all members are called by the thread that drives the context, between batches.
class TIDEMILL_API DurableState {
 public:
  virtual ~DurableState();

  [[nodiscard]] virtual StateSchema schema() const = 0;

  /// Called once, before restore and the first batch, when there is a checkpoint: changes are to be remembered from now on. A
  /// state that is never told so need not spend anything on it.
  virtual void track_changes() = 0;

  /// Before the first batch of a run that continues another: `restoring`, with about how many entries there are; one call of
  /// `restore` for every entry, in any order; then `restored`.
  virtual void restoring(std::uint64_t entries);
  /// Errors: StateError when the bytes are not what `schema` says.
  virtual void restore(KeyGroup group, std::string_view key, std::string_view value) = 0;
  /// All entries have been given: they are the state after the batch of `last`. Errors: as `restore`.
  virtual void restored(Time last) = 0;

  /// Appends what changed since the last call, or since `restored`.
  virtual void take_changes(StateChanges& to) = 0;
};

}  // namespace tidemill
