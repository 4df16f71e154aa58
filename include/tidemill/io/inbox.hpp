// Where received data waits for its batch. Producers (receivers, sockets) put blocks in; the gate takes out what had arrived
// by the batch's time. The inbox is bounded: a full one makes producers wait, which pushes back to whoever feeds them.
#pragma once

#include <algorithm>
#include <atomic>
#include <concepts>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tidemill/core/clock.hpp"
#include "tidemill/core/codec.hpp"
#include "tidemill/core/config.hpp"
#include "tidemill/core/ownership.hpp"
#include "tidemill/core/time.hpp"
#include "tidemill/io/received_log.hpp"

namespace tidemill {

/// How much received data may wait for a batch.
struct InboxLimits {
  /// Producers wait once this many bytes are buffered (records of a typed receiver count with sizeof). One block more may be
  /// accepted, so a block larger than the limit still passes.
  std::size_t max_buffered_bytes = std::size_t{256} << 20;
};

namespace detail {

/// The part of an inbox that does not know what lies in it.
/// Threads: producers from anywhere; the taking side is one thread at a time.
class TIDEMILL_API InboxBase {
 public:
  InboxBase(std::shared_ptr<Clock> clock, InboxLimits limits);
  virtual ~InboxBase();
  InboxBase(const InboxBase&) = delete;
  InboxBase& operator=(const InboxBase&) = delete;

  /// Whether anything waits.
  [[nodiscard]] bool has_data() const noexcept { return waiting_records_.load(std::memory_order_acquire) != 0; }
  [[nodiscard]] std::size_t buffered_bytes() const noexcept;

  /// `bell` is rung whenever something arrives (for the on_arrival gate). Null: nobody waits for arrivals.
  void ring_on_arrival(WakeUp* bell) noexcept;

  /// Opens for a new run, or refuses all that is still offered and lets waiting producers go. What has been accepted stays.
  void open() noexcept;
  void close() noexcept;

  /// `call` is called once, by the taking thread, as soon as there is room again (or the inbox closes): how producers wait
  /// that must not block. It must only post work elsewhere.
  void when_there_is_room(std::function<void()> call);

 protected:
  // All need `mutex_`.
  [[nodiscard]] bool is_full() const noexcept { return bytes_ >= limits_.max_buffered_bytes; }
  void added(std::size_t records, std::size_t bytes) noexcept;
  void removed(std::size_t records, std::size_t bytes) noexcept;

  /// Waits for room; false when the inbox is closed.
  [[nodiscard]] bool wait_for_room(std::unique_lock<std::mutex>& lock);

  /// To be called after the lock is gone: wakes producers when there is room, or the gate when something arrived.
  void announce_room() noexcept;
  void announce_arrival() noexcept;

  const std::shared_ptr<Clock> clock_;
  mutable std::mutex mutex_;
  bool closed_ = true;

 private:
  const InboxLimits limits_;
  std::condition_variable room_;
  std::vector<std::function<void()>> room_calls_;
  std::size_t bytes_ = 0;
  std::atomic<std::size_t> waiting_records_ = 0;
  std::atomic<WakeUp*> bell_ = nullptr;
};

/// How a block is measured and cut; specialised for each kind of block.
///   std::size_t records(const Block&), bytes(const Block&)
///   std::vector<Block> pieces(Block, std::size_t first, std::size_t each): cut into pieces of so many records (the last
///   piece may have fewer). Pre: 0 < first < records, 0 < each
///   can_be_logged, void encode(const Block&, std::string& out), Block decode(std::string bytes): for a ReceivedLog
template <class Block>
struct BlockTraits;

template <class T>
struct BlockTraits<std::vector<T>> {
  static std::size_t records(const std::vector<T>& block) noexcept { return block.size(); }
  static std::size_t bytes(const std::vector<T>& block) noexcept { return block.size() * sizeof(T); }
  static std::vector<std::vector<T>> pieces(std::vector<T> block, std::size_t first, std::size_t each) {
    std::vector<std::vector<T>> cut;
    const auto all = std::make_move_iterator(block.begin());
    for (std::size_t begin = 0, end = first; begin < block.size(); begin = end, end += each) {
      end = std::min(block.size(), end);
      cut.emplace_back(all + static_cast<std::ptrdiff_t>(begin), all + static_cast<std::ptrdiff_t>(end));
    }
    return cut;
  }

  static constexpr bool can_be_logged = Encodable<T> && std::same_as<owned_t<T>, T>;
  static void encode(const std::vector<T>& block, std::string& out) { encode_to(out, block); }
  static std::vector<T> decode(const std::string& bytes) { return tidemill::decode<std::vector<T>>(bytes); }
};

/// Received blocks, in order of arrival, each stamped with the clock. Stamps, and not the moment of the cut, decide to which
/// batch a block belongs: a gate that comes late because the last batch was slow still cuts where it should have.
template <class Block>
class Inbox final : public InboxBase {
  using Traits = BlockTraits<Block>;

 public:
  using InboxBase::InboxBase;

  /// From now on every block is written into `log` before a batch can take it. Null: none. Before the first block.
  /// A block that cannot be logged is not taken, and the exception goes to whoever brought it.
  void write_into(ReceivedLog* log) noexcept {
    const std::scoped_lock lock{mutex_};
    log_ = log;
  }
  /// Puts back, before everything else, what an earlier run had logged and no batch had taken. Any batch may take it.
  void put_back(Block block) {
    const std::scoped_lock lock{mutex_};
    const std::size_t records = Traits::records(block);
    const std::size_t bytes = Traits::bytes(block);
    blocks_.push_back({std::move(block), Time::min(), Time::min(), false, true});
    added(records, bytes);
  }

  /// Puts a block in; waits while the inbox is full. False when it is closed; then the block was not taken. With a log the
  /// block is durable when it returns.
  bool push(Block block) {
    std::uint64_t logged = 0;
    ReceivedLog* log = nullptr;
    {
      std::unique_lock lock{mutex_};
      if (!wait_for_room(lock)) return false;
      logged = append(std::move(block));
      log = log_;
    }
    announce_arrival();
    if (log != nullptr) log->sync(logged);  // outside of the lock, so that producers share one
    return true;
  }

  enum class Offer { accepted, accepted_and_full, closed };
  /// Puts a block in without waiting, even when the inbox is full; the producer must then stop until there is room
  /// (`when_there_is_room`).
  Offer offer(Block block) {
    bool full = false;
    {
      const std::scoped_lock lock{mutex_};
      if (closed_) return Offer::closed;
      append(std::move(block));
      full = is_full();
    }
    announce_arrival();
    return full ? Offer::accepted_and_full : Offer::accepted;
  }

  /// Adds one record to the open block, for blocks that are vectors. Waits as `push` does.
  template <class T>
  bool push_record(T&& record) {
    bool was_empty = false;
    {
      std::unique_lock lock{mutex_};
      if (!wait_for_room(lock)) return false;
      const Time now = clock_->now();
      if (blocks_.empty() || !may_join(blocks_.back(), now)) {
        log_open_block();
        blocks_.push_back({Block{}, now, now, true, false});
      }
      Entry& entry = blocks_.back();
      entry.block.push_back(std::forward<T>(record));
      entry.arrived = now;
      was_empty = !has_data();
      added(1, sizeof(typename Block::value_type));
    }
    if (was_empty) announce_arrival();
    return true;
  }

  /// Cuts will fall on multiples of `grain` from the epoch (the batch interval). Zero: they take whatever is there.
  void set_grain(Duration grain) noexcept {
    const std::scoped_lock lock{mutex_};
    grain_ = grain;
  }

  /// Takes out what had arrived by `t`, at most `batch_records`, oldest first.
  [[nodiscard]] std::vector<Block> take_until(Time t,
                                              std::size_t batch_records = std::numeric_limits<std::size_t>::max()) {
    std::size_t max_records = batch_records;
    std::vector<Block> taken;
    {
      const std::scoped_lock lock{mutex_};
      // Without a grain all that is there goes: a block that is still filling would else be passed over again and again.
      if (grain_ == Duration::zero()) t = Time::max();
      while (!blocks_.empty() && blocks_.front().arrived <= t && max_records != 0) {
        Entry& entry = blocks_.front();
        log_entry(entry);
        const std::size_t records = Traits::records(entry.block);
        if (records > max_records) {
          cut_front(max_records, batch_records);
          continue;
        }
        const std::size_t bytes = Traits::bytes(entry.block);
        taken.push_back(std::move(entry.block));  // may throw, and then the block stays
        blocks_.pop_front();
        removed(records, bytes);
        max_records -= records;
      }
    }
    announce_room();
    return taken;
  }

 private:
  struct Entry {
    Block block;
    Time opened;
    Time arrived;         // of its last record
    bool open = false;    // more single records may join
    bool logged = false;  // none may join any more
  };
  // Single records share a block as long as no cut can fall between them: a batch takes what arrived in (t - grain, t].
  [[nodiscard]] bool may_join(const Entry& entry, Time now) const noexcept {
    if (!entry.open || entry.logged || Traits::records(entry.block) >= max_open_records) return false;
    if (grain_ == Duration::zero()) return true;
    return floor_to(entry.opened - Duration{1}, grain_) == floor_to(now - Duration{1}, grain_);
  }

  // Replaces the oldest block by its pieces, the first one small enough for this batch, the others for later ones.
  void cut_front(std::size_t first, std::size_t each) {
    Entry whole = std::move(blocks_.front());
    blocks_.pop_front();
    // Without memory for the pieces their records are lost; the counts must not lie about that.
    removed(Traits::records(whole.block), Traits::bytes(whole.block));
    std::vector<Block> pieces = Traits::pieces(std::move(whole.block), first, each);
    for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
      const std::size_t records = Traits::records(*piece);
      const std::size_t bytes = Traits::bytes(*piece);
      blocks_.push_front({std::move(*piece), whole.opened, whole.arrived, false, whole.logged});
      added(records, bytes);
    }
  }

  // Returns the number of the block in the log, if there is one.
  std::uint64_t append(Block block) {
    const std::size_t records = Traits::records(block);
    const std::size_t bytes = Traits::bytes(block);
    const Time now = clock_->now();
    log_open_block();
    blocks_.push_back({std::move(block), now, now, false, false});
    std::uint64_t logged = 0;
    try {
      logged = log_entry(blocks_.back());
    } catch (...) {
      blocks_.pop_back();
      throw;
    }
    added(records, bytes);
    return logged;
  }

  // The log has blocks in the order in which batches take them, so an open one goes before whatever follows it.
  void log_open_block() {
    if (!blocks_.empty()) log_entry(blocks_.back());
  }
  std::uint64_t log_entry(Entry& entry) {
    if constexpr (Traits::can_be_logged) {
      if (log_ != nullptr && !entry.logged) {
        std::string bytes;
        Traits::encode(entry.block, bytes);
        const std::uint64_t id = log_->append(Traits::records(entry.block), bytes);
        entry.logged = true;
        return id;
      }
    }
    return 0;
  }

  static constexpr std::size_t max_open_records = 4096;
  Duration grain_{0};
  ReceivedLog* log_ = nullptr;
  std::deque<Entry> blocks_;
};

}  // namespace detail
}  // namespace tidemill
