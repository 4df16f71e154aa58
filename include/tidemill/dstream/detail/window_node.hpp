// The nodes of windowed streams. A KeyedWindow is what a keyed window remembers, in partitions; a KeyedWindowNode feeds it
// with the batches of the parent, each reduced once, and hands out a result a slide. A PiecesNode keeps the records
// themselves, for windows that are a union of batches.
//
// A batch is worked on when an output operation asks for a window that needs it, or else when it is settled, so received
// blocks never wait for the end of a window. When a user function throws, the batch stays pending, and is tried again, in order
// of time, by the next batch, until no window holds it any more.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "tidemill/batch/batch.hpp"
#include "tidemill/core/codec.hpp"
#include "tidemill/core/codec_layout.hpp"
#include "tidemill/dstream/detail/stream_node.hpp"
#include "tidemill/dstream/detail/window_fold.hpp"
#include "tidemill/dstream/detail/window_shape.hpp"
#include "tidemill/state/durable_state.hpp"

namespace tidemill {
namespace detail {

/// A partition of a batch as it is saved: how many partitions there are, whether by the hash of the key, and the records,
/// encoded one after the other. Read as std::tuple<std::uint32_t, bool, std::vector<T>>.
struct SavedPartition {
  std::uint32_t partitions;
  bool hashed;
  std::size_t count;
  std::string records;
};

}  // namespace detail

template <>
struct Codec<detail::SavedPartition> {
  static void write(Encoder& to, const detail::SavedPartition& partition) {
    to.fixed(partition.partitions);
    to.value(partition.hashed);
    to.varint(partition.count);
    to.bytes(std::as_bytes(std::span{partition.records}));
  }
  [[noreturn]] static detail::SavedPartition read(Decoder& from) {
    from.fail("a partition", "a type that is only written");
  }
};

namespace detail {

/// A hash partitioner for a number (0: as many as the context's parallelism), or the user's own.
template <class K>
[[nodiscard]] std::shared_ptr<const Partitioner<K>> window_partitioner(const char* op, const StreamingEngine& engine,
                                                                       const Partitioning& wanted) {
  if (wanted.partitioner()) {
    auto typed = std::dynamic_pointer_cast<const Partitioner<K>>(wanted.partitioner());
    if (!typed) throw_wrong_partitioner(op);
    return typed;
  }
  const std::size_t usual = engine.runtime()->executor->parallelism();
  return std::make_shared<const HashPartitioner<K>>(wanted.partitions() == 0 ? usual : wanted.partitions());
}

// ---- keyed windows --------------------------------------------------------------------------------------------------------

/// The partitions of a keyed window.
///   Part      TwoStacks or RunningTotals
///   In        a record of a reduced batch, std::pair<K, V>; may look at memory of the batch
/// Invariant KW1: every part has been given all batches up to at_, or some parts also the next one, after a failure.
/// Threads: any, one at a time: the members lock.
template <class Part, class In>
class KeyedWindow {
 public:
  using InKey = pair_key_t<In>;
  using K = owned_t<InKey>;
  using V = owned_t<pair_value_t<In>>;
  static constexpr bool can_be_saved = Part::can_be_saved;
  using SavedKey = std::conditional_t<Part::saves_totals, std::variant<PieceKey, K>, PieceKey>;
  using SavedValue = std::conditional_t<Part::saves_totals, std::variant<std::vector<std::pair<K, V>>, V>,
                                        std::vector<std::pair<K, V>>>;

  KeyedWindow(const char* op, WindowShape shape, Part blank, std::shared_ptr<const Partitioner<InKey>> partitioner)
      : op_{op},
        shape_{std::move(shape)},
        blank_{std::move(blank)},
        partitioner_{std::move(partitioner)},
        by_hash_{dynamic_cast<const HashPartitioner<InKey>*>(partitioner_.get()) != nullptr},
        parts_{blank_parts()} {}

  [[nodiscard]] const char* op() const noexcept { return op_; }
  [[nodiscard]] const WindowShape& shape() const noexcept { return shape_; }
  [[nodiscard]] std::size_t partitions() const noexcept { return partitioner_->partitions(); }
  /// How results lie: like the reduced batches; but a rule of the user's is for keys as they come, not as they are kept.
  [[nodiscard]] static PartitionerRef result_partitioner(const std::shared_ptr<const Partitioner<InKey>>& partitioner) {
    if (dynamic_cast<const HashPartitioner<InKey>*>(partitioner.get()) != nullptr)
      return std::make_shared<const HashPartitioner<K>>(partitioner->partitions());
    return std::is_same_v<K, InKey> ? PartitionerRef{partitioner} : nullptr;
  }
  /// Another window like this that has seen nothing.
  [[nodiscard]] std::shared_ptr<KeyedWindow> fresh() const {
    return std::make_shared<KeyedWindow>(op_, shape_, blank_, partitioner_);
  }

  /// The batch of u comes, partitioned by `partitioner()`; called in order of time.
  void expect(Time u, Batch<In> reduced) {
    const std::scoped_lock lock{mutex_};
    pending_.push_back({u, std::move(reduced)});
  }

  /// Works on all batches up to t. Errors: whatever reducing and folding them throws; it may be called again.
  void bring_to(Time t, Time zero, const Scope& scope) {
    const std::scoped_lock lock{mutex_};
    attempt(t, [&] { advance(t, zero, scope); });
  }

  /// The records of the window that ends at t, a vector a partition: `make(key, value)` each.
  template <class Out, class Make>
  void emit(Time t, Time zero, const Scope& scope, std::vector<std::vector<Out>>& results, const Make& make) {
    const std::scoped_lock lock{mutex_};
    attempt(t, [&] {
      if (at_ < t) advance(t, zero, scope);
      if (at_ != t) throw_window_passed(op_, t, at_);
      for_each_partition_of(scope, parts_.size(), keys(), [&](std::size_t p) {
        results[p].clear();
        results[p].reserve(parts_[p].keys());
        parts_[p].emit([&](const K& key, V&& value) { results[p].push_back(make(key, std::move(value))); });
      });
    });
  }

  [[nodiscard]] std::size_t size_hint() const {
    const std::scoped_lock lock{mutex_};
    return keys();
  }
  /// Whether the last attempt was for t and failed; said once.
  [[nodiscard]] bool take_failure(Time t) noexcept {
    const std::scoped_lock lock{mutex_};
    return std::exchange(failed_, std::nullopt) == t;
  }

  // ---- what survives a restart ------------------------------------------------------------------------------------------

  [[nodiscard]] StateSchema schema() const {
    return {std::string{Part::kind}, codec_layout<SavedKey>(), codec_layout<SavedValue>(), shape_.text()};
  }
  void track_changes() {
    const std::scoped_lock lock{mutex_};
    tracking_ = true;
    for (Part& part : parts_) part.track_changes(true);
  }
  void restore(std::string_view key, std::string_view value) {
    const std::scoped_lock lock{mutex_};
    if (!restored_) restored_.emplace();
    if constexpr (Part::saves_totals) {
      auto saved_key = decode<SavedKey>(key);
      auto saved_value = decode<SavedValue>(value);
      if (saved_key.index() != saved_value.index())
        throw StateError("malformed_data", std::string{op_} + ": a saved total and a saved pane were mixed up",
                         Retry::is_useless);
      if (saved_key.index() == 1) {
        restored_->totals.emplace_back(std::get<1>(std::move(saved_key)), std::get<1>(std::move(saved_value)));
      } else {
        restored_->add(std::get<0>(saved_key), std::get<0>(std::move(saved_value)));
      }
    } else {
      restored_->add(decode<SavedKey>(key), decode<SavedValue>(value));
    }
  }
  void restored(Time last) {
    const std::scoped_lock lock{mutex_};
    if (!restored_) restored_.emplace();
    restored_->last = last;
  }
  void take_changes(StateChanges& to) {
    const std::scoped_lock lock{mutex_};
    to.append(changes_);
    changes_.clear();
    for (Part& part : parts_) part.take_changes(to);
  }

 private:
  struct Pending {
    Time time;
    Batch<In> reduced;
  };
  using Records = std::vector<std::pair<K, V>>;
  // Batches and panes by time, each in the pieces that it was saved in, until it is known when the first batch was.
  struct Restored {
    std::map<Time, std::map<std::uint32_t, Records>> pieces;
    Records totals;
    Time last;
    void add(const PieceKey& key, Records&& records) { pieces[key.first][key.second] = std::move(records); }
  };

  [[nodiscard]] std::vector<Part> blank_parts() const {
    std::vector<Part> parts(partitions(), blank_);
    for (std::size_t p = 0; p < parts.size(); ++p) {
      parts[p].set_number(static_cast<std::uint32_t>(p));
      parts[p].track_changes(tracking_);
    }
    return parts;
  }

  [[nodiscard]] std::size_t keys() const {
    std::size_t all = 0;
    for (const Part& part : parts_) all += part.keys();
    return all;
  }

  template <class Work>
  void attempt(Time t, const Work& work) {
    failed_ = t;
    work();
    failed_.reset();
  }

  void advance(Time t, Time zero, const Scope& scope) {
    if constexpr (can_be_saved) {
      if (restored_) rebuild(zero, scope);
    }
    for (; !pending_.empty() && pending_.front().time <= t; pending_.pop_front()) {
      const Pending& next = pending_.front();
      const auto pane = shape_.pane_of(next.time, zero);
      if (!pane || shape_.is_over(next.time, t, zero)) continue;  // it failed for as long as a window had it
      const auto& batch = next.reduced.node();
      batch.prepare();
      const bool ends_window = shape_.ends_at(next.time, zero);
      for_each_partition_of(scope, parts_.size(), batch.size_hint(), [&](std::size_t p) {
        const auto records = batch.stored(p);
        TIDEMILL_ASSERT(records, "reduced batches lie in memory");
        parts_[p].add(next.time, *pane, ends_window, *records);
      });
    }
    if (at_ >= t) return;
    if (shape_.ends_at(t, zero)) {  // also when its last batch is missing
      for_each_partition_of(scope, parts_.size(), 0, [&](std::size_t p) {
        parts_[p].add(t, *shape_.pane_of(t, zero), true, std::span<const In>{});
      });
    }
    at_ = t;
  }

  // What a previous run saved, folded as that run folded it.
  void rebuild(Time zero, const Scope& scope) {
    std::vector<Part> parts = blank_parts();
    for (Part& part : parts) part.track_changes(false);
    StateChanges moved;
    for (const auto& [time, saved] : restored_->pieces) {
      const auto pane = shape_.pane_of(time, zero);
      if (!pane) continue;
      std::vector<Records> by_partition(parts.size());
      bool in_place = true;
      for (const auto& [number, records] : saved) {
        for (const auto& record : records) {
          const std::size_t p = partition_of(record.first);
          in_place = in_place && p == number;
          by_partition[p].push_back(record);
        }
      }
      for_each_partition_of(scope, parts.size(), 0, [&](std::size_t p) {
        parts[p].add(time, *pane, false, std::span<const std::pair<K, V>>{by_partition[p]});
      });
      if (in_place) continue;
      for (const auto& [number, records] : saved) erase_piece(moved, {time, number});
      for (std::size_t p = 0; p < parts.size(); ++p) {
        if (!by_partition[p].empty()) put_piece(moved, {time, static_cast<std::uint32_t>(p)}, by_partition[p]);
      }
    }
    if constexpr (Part::saves_totals) {
      for (const auto& [key, total] : restored_->totals) parts[partition_of(key)].restore_total(key, total);
    }
    const Time end =
        shape_.ends_at(restored_->last, zero) ? restored_->last : shape_.next_end(restored_->last, zero) - shape_.slide;
    for (Part& part : parts) {
      part.resume(shape_.pane_of(end, zero)->index);
      part.track_changes(tracking_);
    }
    if (tracking_) changes_.append(moved);
    at_ = restored_->last;
    parts_.swap(parts);
    restored_.reset();
  }

  [[nodiscard]] std::size_t partition_of(const K& key) const {
    if (by_hash_) return partition_of_tag(tag_of_hash(hash_of(key)), partitions());
    if constexpr (std::constructible_from<InKey, const K&>) {
      return ask_partitioner(op_, *partitioner_, InKey(key));
    } else {
      return partition_of_tag(tag_of_hash(hash_of(key)), partitions());
    }
  }
  static KeyGroup group_of(const PieceKey& key) { return static_cast<KeyGroup>(key.second); }
  static void put_piece(StateChanges& to, const PieceKey& key, const Records& records) {
    if constexpr (Part::saves_totals) {
      to.put(group_of(key), SavedAlternative<PieceKey>{0, key}, SavedAlternative<Records>{0, records});
    } else {
      to.put(group_of(key), key, records);
    }
  }
  static void erase_piece(StateChanges& to, const PieceKey& key) {
    if constexpr (Part::saves_totals) {
      to.erase(group_of(key), SavedAlternative<PieceKey>{0, key});
    } else {
      to.erase(group_of(key), key);
    }
  }

  const char* const op_;
  const WindowShape shape_;
  const Part blank_;
  const std::shared_ptr<const Partitioner<InKey>> partitioner_;  // shared by all batches that are partitioned by it
  const bool by_hash_;

  mutable std::mutex mutex_;  // guards the rest
  bool tracking_ = false;
  std::vector<Part> parts_;
  std::deque<Pending> pending_;
  std::optional<Restored> restored_;
  StateChanges changes_;  // those of no part
  Time at_ = Time::min();
  std::optional<Time> failed_;  // what the last attempt was for
};

/// A window, or whatever else has these members, as the state of a checkpoint.
template <class Window>
class WindowState final : public DurableState {
 public:
  explicit WindowState(std::shared_ptr<Window> window) : window_{std::move(window)} {}
  [[nodiscard]] StateSchema schema() const override { return window_->schema(); }
  void track_changes() override { window_->track_changes(); }
  void restore(KeyGroup, std::string_view key, std::string_view value) override { window_->restore(key, value); }
  void restored(Time last) override { window_->restored(last); }
  void take_changes(StateChanges& to) override { window_->take_changes(to); }

 private:
  std::shared_ptr<Window> window_;  // shared with the node that feeds it
};

/// The window that ends at a time. It is computed from what the window remembers, so it is computed while that is there.
template <class Out, class Window, class Make>
class KeyedWindowBatch final : public PreparedNode<Out> {
 public:
  KeyedWindowBatch(std::shared_ptr<const Scope> scope, std::shared_ptr<Window> window, Time time, Time zero,
                   PartitionerRef partitioner, Make make)
      : PreparedNode<Out>{std::move(scope)},
        window_{std::move(window)},
        time_{time},
        zero_{zero},
        size_hint_{window_->size_hint()},
        partitioner_{std::move(partitioner)},
        make_{std::move(make)} {}
  [[nodiscard]] std::size_t partitions() const override { return window_->partitions(); }
  [[nodiscard]] std::size_t size_hint() const override { return size_hint_; }
  [[nodiscard]] PartitionerRef partitioner() const override { return partitioner_; }

 protected:
  void build(std::vector<std::vector<Out>>& parts, std::vector<Arena>&) const override {
    window_->emit(time_, zero_, *this->scope(), parts, make_);
  }

 private:
  std::shared_ptr<Window> window_;  // shared with the stream and its other batches
  Time time_;
  Time zero_;
  std::size_t size_hint_;
  PartitionerRef partitioner_;
  Make make_;
};

/// The times of the parent's batches that a windowed stream still has to ask for: that of each batch, and those for which the
/// parent could not be generated.
class WindowTimes {
 public:
  /// `take(u)` for every one up to t; when it throws, u stays.
  template <class Take>
  void take_until(Time t, const GraphNode& parent, const WindowShape& shape, Time zero, const Take& take) {
    if (t > latest_) {
      latest_ = t;
      if (parent.has_batch_at(t) && shape.pane_of(t, zero)) waiting_.push_back(t);
    }
    for (; !waiting_.empty(); waiting_.pop_front()) {
      if (!shape.is_over(waiting_.front(), latest_, zero)) take(waiting_.front());
    }
  }
  [[nodiscard]] Time latest() const noexcept { return latest_; }
  [[nodiscard]] std::optional<Time> first() const noexcept {
    return waiting_.empty() ? std::nullopt : std::optional{waiting_.front()};
  }

 private:
  Time latest_ = Time::min();
  std::deque<Time> waiting_;
};

/// The times of the parent's batches that the window which ended at t held.
/// Errors: PlanError "window_passed" when an earlier run had some of them.
template <class See>
void for_each_batch_of_window(const char* op, const GraphNode& parent, const WindowShape& shape, Time t,
                              const See& see) {
  const Time begin = std::max(t - shape.length, parent.engine()->zero_time());
  if (const Time from = parent.engine()->remembered_from(); begin < from) throw_window_passed(op, t, from);
  for (Time u = begin + parent.slide(); u <= t; u += parent.slide()) see(u);
}

/// A keyed window as a stream.
///   Reduce    batch of the parent -> Batch<In>, partitioned as the window is
///   Make      (key, value) -> record of the stream
template <class Out, class Window, class Chain, class Reduce, class Make>
class KeyedWindowNode final : public StreamNode<Out> {
 public:
  KeyedWindowNode(std::shared_ptr<StreamingEngine> engine, KeyUse use, Chain parent, std::shared_ptr<Window> window,
                  Reduce reduce, PartitionerRef partitioner, Make make)
      : StreamNode<Out>{std::move(engine), window->op(), window->shape().slide},
        parent_{std::move(parent)},
        window_{std::move(window)},
        reduce_{std::move(reduce)},
        partitioner_{std::move(partitioner)},
        make_{std::move(make)} {
    this->grow_from_window(parent_.node());
    this->use_keys(use, has_whole_keys(parent_));
  }

  void settle(Time t) override {
    // What failed for an output operation was reported by it, and is not tried again before the next attempt.
    if (window_->take_failure(t)) return;
    std::optional<Batch<Out>> result;
    {
      const std::scoped_lock lock{this->engine()->graph_mutex()};
      take(t);
      if (this->has_batch_at(t)) result.emplace(this->batch_at(t));
    }
    try {
      if (result) {
        result->node().prepare();  // now, while the window is there
      } else {
        window_->bring_to(t, this->engine()->zero_time(), *this->engine()->scope_of(t));
      }
    } catch (...) {
      static_cast<void>(window_->take_failure(t));
      throw;
    }
  }
  [[nodiscard]] std::optional<Time> needs_from() const override { return times_.first(); }

 protected:
  [[nodiscard]] Batch<Out> compute(Time t) override {
    if (t >= times_.latest()) {
      take(t);
      return batch_of(window_, t);
    }
    // A window that is over and not remembered: from the batches of its parent, as far as they are there. [M22]
    const auto past = window_->fresh();
    for_each_batch_of_window(window_->op(), parent_.node(), window_->shape(), t,
                             [&](Time u) { past->expect(u, reduce_(parent_.at(u))); });
    return batch_of(past, t);
  }

 private:
  void take(Time t) {
    times_.take_until(t, parent_.node(), window_->shape(), this->engine()->zero_time(),
                      [&](Time u) { window_->expect(u, reduce_(parent_.at(u))); });
  }
  [[nodiscard]] Batch<Out> batch_of(const std::shared_ptr<Window>& window, Time t) {
    return Batch<Out>{std::make_shared<const KeyedWindowBatch<Out, Window, Make>>(
        this->engine()->scope_of(t), window, t, this->engine()->zero_time(), partitioner_, make_)};
  }

  Chain parent_;
  std::shared_ptr<Window> window_;  // shared with the batches of the stream and the checkpoint
  Reduce reduce_;
  PartitionerRef partitioner_;
  Make make_;
  WindowTimes times_;
};

// ---- windows of records ---------------------------------------------------------------------------------------------------

/// The records of one batch, kept as long as windows have them. What they look at is copied, so that nothing of the batch
/// stays. Only records that cannot be copied are left where they are, and the batch with them.
template <class Chain>
class OwnPiece final : public PreparedNode<typename Chain::value_type> {
  using T = typename Chain::value_type;

 public:
  explicit OwnPiece(Chain chain)
      : PreparedNode<T>{chain.node().scope()},
        partitions_{chain.node().partitions()},
        size_hint_{chain.node().size_hint()},
        partitioner_{partitioner_of(chain)},
        chain_{std::move(chain)} {}
  [[nodiscard]] std::size_t partitions() const override { return partitions_; }
  [[nodiscard]] std::size_t size_hint() const override { return size_hint_; }
  [[nodiscard]] PartitionerRef partitioner() const override { return partitioner_; }

 protected:
  void build(std::vector<std::vector<T>>& parts, std::vector<Arena>& arenas) const override {
    chain_->node().prepare();
    for_each_partition_of(*this->scope(), partitions_, size_hint_, [&](std::size_t p) {
      run_chain(*chain_, p, [&](auto&& record) {
        parts[p].push_back(tidemill::rehome(std::forward<decltype(record)>(record), arenas[p]));
      });
    });
    chain_.reset();  // it is built once
  }

 private:
  std::size_t partitions_;
  std::size_t size_hint_;
  PartitionerRef partitioner_;
  mutable std::optional<Chain> chain_;
};

/// Records of an earlier run.
template <class T>
class RestoredPiece final : public BatchNode<T> {
 public:
  RestoredPiece(std::shared_ptr<const Scope> scope, std::size_t partitions, PartitionerRef partitioner)
      : BatchNode<T>{std::move(scope)}, parts_(partitions), partitioner_{std::move(partitioner)} {}
  /// Before anybody reads.
  void fill(std::size_t partition, std::vector<T>&& records) {
    for (T& record : records) parts_[partition].push_back(tidemill::rehome(std::move(record), arena_));
  }
  [[nodiscard]] std::size_t partitions() const override { return parts_.size(); }
  void prepare() const override {}
  [[nodiscard]] std::optional<std::span<const T>> stored(std::size_t p) const override { return parts_[p]; }
  void run(std::size_t p, ChunkSink<T> sink) const override {
    if (!parts_[p].empty()) sink(parts_[p]);
  }
  [[nodiscard]] std::size_t size_hint() const override {
    std::size_t all = 0;
    for (const auto& part : parts_) all += part.size();
    return all;
  }
  [[nodiscard]] PartitionerRef partitioner() const override { return partitioner_; }

 private:
  std::vector<std::vector<T>> parts_;
  Arena arena_;
  PartitionerRef partitioner_;
};

/// The records of several batches, in order of time. When all are partitioned alike, so is the union, partition by partition;
/// else partitions of theirs that follow each other lie in one of its own. [W6]
template <class T>
class UnionOfPieces final : public BatchNode<T> {
 public:
  using Piece = std::shared_ptr<const BatchNode<T>>;

  UnionOfPieces(std::shared_ptr<const Scope> scope, std::vector<Piece> pieces)
      : BatchNode<T>{std::move(scope)}, pieces_{std::move(pieces)} {
    if (!pieces_.empty()) partitioner_ = pieces_.front()->partitioner();
    for (const Piece& piece : pieces_) {
      const PartitionerRef other = piece->partitioner();
      if (!partitioner_ || !other || !partitioner_->equals(*other)) partitioner_ = nullptr;
    }
    if (partitioner_) {
      partitions_ = partitioner_->partitions();
      return;
    }
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      for (std::size_t p = 0; p < pieces_[i]->partitions(); ++p) runs_.push_back({i, p});
    }
    partitions_ = std::clamp<std::size_t>(runs_.size(), 1, this->scope()->runtime->executor->parallelism());
  }
  [[nodiscard]] std::size_t partitions() const override { return partitions_; }
  void prepare() const override {
    for (const Piece& piece : pieces_) piece->prepare();
  }
  [[nodiscard]] std::size_t size_hint() const override {
    std::size_t all = 0;
    for (const Piece& piece : pieces_) all += piece->size_hint();
    return all;
  }
  [[nodiscard]] PartitionerRef partitioner() const override { return partitioner_; }
  void run(std::size_t partition, ChunkSink<T> sink) const override {
    bool wanted = true;
    const auto pass_on = [&](std::span<const T> chunk) {
      wanted = sink(chunk);
      return wanted;
    };
    if (partitioner_) {
      for (std::size_t i = 0; i < pieces_.size() && wanted; ++i) pieces_[i]->run(partition, pass_on);
    } else {
      const std::size_t end = slice_begin(runs_.size(), partitions_, partition + 1);
      for (std::size_t r = slice_begin(runs_.size(), partitions_, partition); r < end && wanted; ++r)
        pieces_[runs_[r].piece]->run(runs_[r].partition, pass_on);
    }
  }

 private:
  struct Run {
    std::size_t piece;
    std::size_t partition;
  };
  std::vector<Piece> pieces_;  // shared with the other windows that have them
  PartitionerRef partitioner_;
  std::size_t partitions_ = 1;
  std::vector<Run> runs_;
};

/// The batches that windows of records are made of.
/// Threads: as KeyedWindow.
template <class T>
class WindowPieces {
 public:
  using Piece = std::shared_ptr<const BatchNode<T>>;
  static constexpr bool can_be_saved = Encodable<T> && Encodable<owned_t<T>>;
  using SavedValue = std::tuple<std::uint32_t, bool, std::vector<T>>;
  using SavedType = std::tuple<std::uint32_t, bool, std::vector<owned_t<T>>>;

  WindowPieces(const char* op, WindowShape shape, std::shared_ptr<Runtime> runtime)
      : op_{op}, shape_{std::move(shape)}, runtime_{std::move(runtime)} {}

  [[nodiscard]] const char* op() const noexcept { return op_; }
  [[nodiscard]] const WindowShape& shape() const noexcept { return shape_; }

  template <class Chain>
  [[nodiscard]] static Piece make(const Chain& chain) {
    static_assert(std::copy_constructible<T> || !borrows_v<T>,
                  "a window copies what its records look at; records that can neither be copied nor own what they hold "
                  "cannot be kept");
    if constexpr (std::copy_constructible<T> || !std::is_lvalue_reference_v<typename Chain::reference>) {
      return std::make_shared<const OwnPiece<Chain>>(chain);
    } else {
      return erase_chain(chain);
    }
  }

  void add(Time u, Piece piece) {
    const std::scoped_lock lock{mutex_};
    entries_.push_back({u, std::move(piece)});
  }

  /// The pieces of the window that ends at t.
  [[nodiscard]] std::vector<Piece> of_window(Time t) const {
    const std::scoped_lock lock{mutex_};
    std::vector<Piece> pieces;
    for (const Entry& entry : entries_) {
      if (entry.time > t - shape_.length && entry.time <= t) pieces.push_back(entry.piece);
    }
    return pieces;
  }

  /// Works on what has not been worked on, and lets go of what no later window has. Errors: the first, after all were tried.
  void settle(Time t, Time zero) {
    std::deque<Entry> waiting;
    {
      const std::scoped_lock lock{mutex_};
      const Time next = shape_.next_end(t + Duration{1}, zero);
      while (!entries_.empty() && entries_.front().time <= next - shape_.length) leave();
      for (const Entry& entry : entries_) {
        if (!entry.ready) waiting.push_back(entry);
      }
    }
    std::exception_ptr error;
    for (const Entry& entry : waiting) {
      try {
        entry.piece->prepare();
        const std::scoped_lock lock{mutex_};
        for (Entry& mine : entries_) {
          if (mine.time == entry.time) mine.ready = true;
        }
      } catch (...) {
        if (!error) error = std::current_exception();
      }
    }
    if (error) std::rethrow_exception(error);
  }

  // ---- what survives a restart ------------------------------------------------------------------------------------------

  [[nodiscard]] StateSchema schema() const {
    return {"window_of_records", codec_layout<PieceKey>(), codec_layout<SavedType>(), shape_.text()};
  }
  void track_changes() {
    const std::scoped_lock lock{mutex_};
    tracking_ = true;
  }
  void restore(std::string_view key, std::string_view value) {
    const std::scoped_lock lock{mutex_};
    const auto [time, partition] = decode<PieceKey>(key);
    auto [partitions, hashed, records] = decode<SavedValue>(value);
    if (partition >= partitions)
      throw StateError("malformed_data",
                       std::string{op_} + ": partition " + std::to_string(partition) + " of a saved batch that has " +
                           std::to_string(partitions),
                       Retry::is_useless);
    auto& piece = restored_[time];
    if (!piece) {
      PartitionerRef partitioner;
      if constexpr (PairLike<T>) {
        if (hashed) partitioner = std::make_shared<const HashPartitioner<pair_key_t<T>>>(partitions);
      }
      piece = std::make_shared<RestoredPiece<T>>(std::make_shared<const Scope>(Scope{runtime_, time}), partitions,
                                                 std::move(partitioner));
    } else if (piece->partitions() != partitions) {
      throw StateError("malformed_data", std::string{op_} + ": a saved batch has two numbers of partitions",
                       Retry::is_useless);
    }
    piece->fill(partition, std::move(records));
  }
  void restored(Time) {
    const std::scoped_lock lock{mutex_};
    for (auto& [time, piece] : restored_) entries_.push_back({time, std::move(piece), true, true});
    restored_.clear();
  }
  void take_changes(StateChanges& to) {
    const std::scoped_lock lock{mutex_};
    for (Entry& entry : entries_) {
      if (!entry.ready || entry.saved || !tracking_) continue;
      StateChanges change;
      save(entry, change);
      changes_.append(change);
      entry.saved = true;
    }
    to.append(changes_);
    changes_.clear();
  }

 private:
  struct Entry {
    Time time;
    Piece piece;
    bool ready = false;
    bool saved = false;
  };

  static bool is_hashed(const Piece& piece) {
    if constexpr (PairLike<T>) {
      return dynamic_cast<const HashPartitioner<pair_key_t<T>>*>(piece->partitioner().get()) != nullptr;
    } else {
      return false;
    }
  }

  // A partition without records is not saved, but for the first, which says how many there are.
  void save(const Entry& entry, StateChanges& to) const {
    if constexpr (can_be_saved) {
      const auto partitions = static_cast<std::uint32_t>(entry.piece->partitions());
      for (std::uint32_t p = 0; p < partitions; ++p) {
        SavedPartition partition{partitions, is_hashed(entry.piece), 0, {}};
        entry.piece->run(p, [&](std::span<const T> chunk) {
          partition.count += chunk.size();
          Encoder encoder{partition.records};
          for (const T& record : chunk) encoder.value(record);
          return true;
        });
        if (p == 0 || partition.count != 0) to.put(static_cast<KeyGroup>(p), PieceKey{entry.time, p}, partition);
      }
    }
  }
  void leave() {
    const Entry& entry = entries_.front();
    if (tracking_ && entry.saved) {
      StateChanges change;
      for (std::uint32_t p = 0; p < entry.piece->partitions(); ++p)
        change.erase(static_cast<KeyGroup>(p), PieceKey{entry.time, p});
      changes_.append(change);
    }
    entries_.pop_front();
  }

  const char* const op_;
  const WindowShape shape_;
  const std::shared_ptr<Runtime> runtime_;  // shared with the context

  mutable std::mutex mutex_;   // guards the rest
  std::deque<Entry> entries_;  // the oldest first
  std::map<Time, std::shared_ptr<RestoredPiece<T>>> restored_;
  bool tracking_ = false;
  StateChanges changes_;
};

/// A window of records as a stream.
///   Prepare   batch of the parent -> batch whose records are kept
///   Finish    Batch of the window -> batch of the stream
template <class Out, class T, class Chain, class Prepare, class Finish>
class PiecesNode final : public StreamNode<Out> {
 public:
  PiecesNode(std::shared_ptr<StreamingEngine> engine, KeyUse use, Chain parent, std::shared_ptr<WindowPieces<T>> pieces,
             Prepare prepare, Finish finish)
      : StreamNode<Out>{std::move(engine), pieces->op(), pieces->shape().slide},
        parent_{std::move(parent)},
        pieces_{std::move(pieces)},
        prepare_{std::move(prepare)},
        finish_{std::move(finish)} {
    this->grow_from_window(parent_.node());
    this->use_keys(use, has_whole_keys(parent_));
  }

  void settle(Time t) override {
    {
      const std::scoped_lock lock{this->engine()->graph_mutex()};
      take(t);
      if (this->has_batch_at(t)) static_cast<void>(this->batch_at(t));  // now, while its pieces are there
    }
    pieces_->settle(t, this->engine()->zero_time());
  }
  [[nodiscard]] std::optional<Time> needs_from() const override { return times_.first(); }

 protected:
  [[nodiscard]] Batch<Out> compute(Time t) override {
    if (t >= times_.latest()) {
      take(t);
      return batch_of(t, pieces_->of_window(t));
    }
    std::vector<typename WindowPieces<T>::Piece> past;
    for_each_batch_of_window(pieces_->op(), parent_.node(), pieces_->shape(), t,
                             [&](Time u) { past.push_back(pieces_->make(prepare_(parent_.at(u)))); });
    return batch_of(t, std::move(past));
  }

 private:
  void take(Time t) {
    times_.take_until(t, parent_.node(), pieces_->shape(), this->engine()->zero_time(),
                      [&](Time u) { pieces_->add(u, pieces_->make(prepare_(parent_.at(u)))); });
  }
  [[nodiscard]] Batch<Out> batch_of(Time t, std::vector<typename WindowPieces<T>::Piece> pieces) {
    return finish_(Batch<T>{std::make_shared<const UnionOfPieces<T>>(this->engine()->scope_of(t), std::move(pieces))});
  }

  Chain parent_;
  std::shared_ptr<WindowPieces<T>> pieces_;  // shared with the checkpoint
  Prepare prepare_;
  Finish finish_;
  WindowTimes times_;
};

/// Shows a window to the checkpoint.
template <class Window>
void register_window(const std::shared_ptr<StreamingEngine>& engine, const std::shared_ptr<const GraphNode>& node,
                     const std::shared_ptr<Window>& window) {
  if constexpr (Window::can_be_saved) {
    engine->add_state(node, std::make_shared<WindowState<Window>>(window));
  } else {
    engine->add_unsaved_state(
        node, std::string{window->op()} + " keeps records whose type has no codec; specialise tidemill::Codec for it");
  }
}

}  // namespace detail
}  // namespace tidemill
