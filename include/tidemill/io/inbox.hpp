// Where received data waits for its batch. Producers (receivers, sockets) put blocks in; the gate takes out what had arrived
// by the batch's time. The inbox is bounded: a full one makes producers wait, which pushes back to whoever feeds them.
//
// It may also have a rate. Then a batch takes what the rate allows for the time since the batch before, to the record, and a
// producer may put something in while less than that waits:
//
//     allowance = rate × (now - time of the last cut) + part of a record left over - records that wait
//
// So nothing needs to be counted but what waits, and what a batch did not use is not saved up. When the rate falls, what had
// come in by then goes into several batches, and producers wait until it has gone. All follows from the clock and the cuts:
// under a ManualClock it is the same every time.
#pragma once

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tidemill/core/clock.hpp"
#include "tidemill/core/codec.hpp"
#include "tidemill/core/codec_layout.hpp"
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

/// Records a second, of an input without a limit.
inline constexpr double unlimited_rate = std::numeric_limits<double>::infinity();

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
  /// Records that may be put in now without waiting, as far as the rate is concerned; 0 when the inbox is full or closed.
  [[nodiscard]] std::size_t allowance() const noexcept;

  /// `bell` is rung whenever something arrives (for the on_arrival gate). Null: nobody waits for arrivals.
  void ring_on_arrival(WakeUp* bell) noexcept;

  /// Opens for a new run, or refuses all that is still offered and lets waiting producers go. What has been accepted stays.
  void open() noexcept;
  void close() noexcept;

  /// `call` is called once, by the taking thread, as soon as there is room again (or the inbox closes): how producers wait
  /// that must not block. It must only post work elsewhere.
  void when_there_is_room(std::function<void()> call);

  // ---- the rate ---------------------------------------------------------------------------------------------------------

  /// The lower of the two holds. Errors: ConfigError unless it is above 0. [BP1, BP8]
  void set_max_rate(double records_per_second);
  void limit_rate(double records_per_second) noexcept;
  [[nodiscard]] double max_rate() const noexcept;

  /// How a function is called by the taking thread at a time: the wake-up of those who called when_there_is_room.
  using Later = std::function<void(Time when, std::function<void()> call)>;
  /// A run begins; `later` serves it until end_rate.
  void begin_rate(Later later);
  /// Nothing more will come, so nothing is held back from the batches that are left.
  void end_rate() noexcept;

  /// Cuts will fall on multiples of `grain` from the epoch (the batch interval). Zero: they take whatever is there.
  void set_grain(Duration grain) noexcept;

 protected:
  // All need `mutex_`.
  /// Whether a producer has to wait.
  [[nodiscard]] bool is_full() const noexcept { return out_of_memory() || out_of_budget(); }
  void added(std::size_t records, std::size_t bytes) noexcept;
  void removed(std::size_t records, std::size_t bytes) noexcept;

  /// Waits for room; false when the inbox is closed.
  [[nodiscard]] bool wait_for_room(std::unique_lock<std::mutex>& lock);

  /// To be called after the lock is gone: wakes producers when there is room, or the gate when something arrived.
  void announce_room() noexcept;
  void announce_arrival() noexcept;

  /// How many records the batch of t may take; and what it took.
  [[nodiscard]] std::size_t budget_of(Time t) const noexcept;
  void spent(Time t, std::size_t records) noexcept;

  const std::shared_ptr<Clock> clock_;
  mutable std::mutex mutex_;
  bool closed_ = true;
  Duration grain_{0};

 private:
  // All need `mutex_`.
  [[nodiscard]] bool has_rate() const noexcept { return !rate_ended_ && rate_ != unlimited_rate; }
  [[nodiscard]] bool out_of_memory() const noexcept { return bytes_ >= limits_.max_buffered_bytes; }
  [[nodiscard]] bool out_of_budget() const noexcept;
  [[nodiscard]] double earned_until(Time t) const noexcept;
  [[nodiscard]] double allowance_at(Time now) const noexcept;
  /// When a producer that was out of budget should come again; nothing when only a cut can make room.
  [[nodiscard]] std::optional<Time> room_time() const noexcept;

  void call_later(Time when);

  const InboxLimits limits_;
  std::vector<WakeUp*> waiting_;  // of producers that wait in wait_for_room
  std::vector<std::function<void()>> room_calls_;
  std::size_t bytes_ = 0;

  double max_rate_ = unlimited_rate;
  double granted_rate_ = unlimited_rate;
  double rate_ = unlimited_rate;  // the lower one
  bool rate_ended_ = false;
  Time counted_from_{};  // the last cut
  double carry_ = 0;     // of a record, left over by it; without a grain also what is saved up (or, negative, owed)
  Later later_;
  std::optional<Time> call_at_;  // room_calls_ are looked at then
  std::atomic<std::size_t> waiting_records_ = 0;
  std::atomic<WakeUp*> bell_ = nullptr;
};

/// How a block is measured and cut; specialised for each kind of block.
///   std::size_t records(const Block&), bytes(const Block&)
///   std::vector<Block> pieces(Block, std::size_t first, std::size_t each): cut into pieces of so many records (the last
///   piece may have fewer). Pre: 0 < first < records, 0 < each
///   can_be_logged, void encode(const Block&, std::string& out), Block decode(std::string bytes): for a ReceivedLog
///   std::string layout(): of a record in it, in words
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
  [[nodiscard]] static std::string layout() { return codec_layout<T>(); }
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
    Logged logged;
    {
      std::unique_lock lock{mutex_};
      if (!wait_for_room(lock)) return false;
      logged = append(std::move(block));
    }
    announce_arrival();
    if (logged) logged.log->sync(logged.id);  // outside of the lock, so that producers share one
    return true;
  }

  enum class Offer { accepted, accepted_and_full, closed };
  /// Puts a block in without waiting, even when the inbox is full or its rate is used up; the producer must then stop until
  /// there is room (`when_there_is_room`). With a log the block survives the process when it returns.
  Offer offer(Block block) {
    bool full = false;
    Logged logged;
    {
      const std::scoped_lock lock{mutex_};
      if (closed_) return Offer::closed;
      logged = append(std::move(block));
      full = is_full();
    }
    announce_arrival();
    if (logged) logged.log->write(logged.id);
    return full ? Offer::accepted_and_full : Offer::accepted;
  }

  /// Adds one record to the open block, for blocks that are vectors. Waits as `push` does.
  template <class T>
  bool push_record(T&& record) {
    bool was_empty = false;
    Logged logged;
    {
      std::unique_lock lock{mutex_};
      if (!wait_for_room(lock)) return false;
      const Time now = clock_->now();
      if (blocks_.empty() || !may_join(blocks_.back(), now)) {
        logged = log_open_block();
        blocks_.push_back({Block{}, now, now, true, false});
      }
      Entry& entry = blocks_.back();
      entry.block.push_back(std::forward<T>(record));
      entry.arrived = now;
      was_empty = !has_data();
      added(1, sizeof(typename Block::value_type));
    }
    if (was_empty) announce_arrival();
    if (logged) logged.log->write(logged.id);
    return true;
  }

  /// Single records share a block no longer than this, by the multiples of it since the epoch. Zero: no limit. [R2]
  void set_block_interval(Duration interval) noexcept {
    const std::scoped_lock lock{mutex_};
    block_interval_ = interval;
  }

  /// Takes out what had arrived by `t`, at most `batch_records` and what the rate allows, oldest first.
  [[nodiscard]] std::vector<Block> take_until(Time t,
                                              std::size_t batch_records = std::numeric_limits<std::size_t>::max()) {
    std::vector<Block> taken;
    {
      const std::scoped_lock lock{mutex_};
      batch_records = std::min(batch_records, budget_of(t));
      std::size_t max_records = batch_records;
      // Without a grain all that is there goes: a block that is still filling would else be passed over again and again.
      const Time until = grain_ == Duration::zero() ? Time::max() : t;
      while (!blocks_.empty() && blocks_.front().arrived <= until && max_records != 0) {
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
      spent(t, batch_records - max_records);
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
    return in_same(grain_, entry.opened, now) && in_same(block_interval_, entry.opened, now);
  }
  [[nodiscard]] static bool in_same(Duration interval, Time a, Time b) noexcept {
    return interval == Duration::zero() || floor_to(a - Duration{1}, interval) == floor_to(b - Duration{1}, interval);
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

  // A block that was just put into the log.
  struct Logged {
    ReceivedLog* log = nullptr;  // null: none was
    std::uint64_t id = 0;
    explicit operator bool() const noexcept { return log != nullptr; }
  };

  Logged append(Block block) {
    const std::size_t records = Traits::records(block);
    const std::size_t bytes = Traits::bytes(block);
    const Time now = clock_->now();
    log_open_block();
    blocks_.push_back({std::move(block), now, now, false, false});
    Logged logged;
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
  Logged log_open_block() { return blocks_.empty() ? Logged{} : log_entry(blocks_.back()); }
  Logged log_entry(Entry& entry) {
    if constexpr (Traits::can_be_logged) {
      if (log_ != nullptr && !entry.logged) {
        std::string bytes;
        Traits::encode(entry.block, bytes);
        const std::uint64_t id = log_->append(Traits::records(entry.block), bytes);
        entry.logged = true;
        return {log_, id};
      }
    }
    return {};
  }

  static constexpr std::size_t max_open_records = 4096;
  Duration block_interval_{0};
  ReceivedLog* log_ = nullptr;
  std::deque<Entry> blocks_;
};

}  // namespace detail
}  // namespace tidemill
