// Keyed aggregation: every partition folds its own records first, in a staged table that is fed by the fused loop, and
// only the partial results, one a key and partition, are exchanged.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "tidemill/batch/detail/chain.hpp"
#include "tidemill/exec/staged_table.hpp"

namespace tidemill::detail {

/// How values are folded into accumulators; the user's functions, labelled.
template <class C, class V, class Create, class MergeValue, class MergeCombiners>
struct Folding {
  const char* op;
  [[no_unique_address]] Create create_;
  [[no_unique_address]] MergeValue merge_value_;
  [[no_unique_address]] MergeCombiners merge_combiners_;

  TIDEMILL_INLINE C create(V&& value) const { return call_user(op, create_, std::move(value)); }
  TIDEMILL_INLINE void merge(C& acc, V&& value) const {
    if constexpr (std::is_void_v<std::invoke_result_t<const MergeValue&, C&, V&&>>) {
      call_user(op, merge_value_, acc, std::move(value));
    } else {
      acc = call_user(op, merge_value_, std::move(acc), std::move(value));
    }
  }
  void merge_combiners(C& acc, C&& other) const {
    if constexpr (std::is_void_v<std::invoke_result_t<const MergeCombiners&, C&, C&&>>) {
      call_user(op, merge_combiners_, acc, std::move(other));
    } else {
      acc = call_user(op, merge_combiners_, std::move(acc), std::move(other));
    }
  }
};

/// The entries of a staged table, sorted by the partition that they go to.
class SlotBuckets {
 public:
  /// `by_hash`: the partitioner is a HashPartitioner. What another one throws is labelled with `op`.
  template <class Table, class K>
  void fill(const char* op, const Table& table, const Partitioner<K>& partitioner, bool by_hash) {
    const std::size_t partitions = partitioner.partitions();
    std::vector<std::uint32_t> target;
    target.reserve(table.size());
    starts_.assign(partitions + 1, 0);
    table.for_each_slot([&](std::uint32_t, std::uint32_t tag, const auto& key) {
      const std::size_t q = by_hash ? partition_of_tag(tag, partitions) : ask(op, partitioner, key);
      target.push_back(static_cast<std::uint32_t>(q));
      ++starts_[q + 1];
    });
    for (std::size_t q = 0; q < partitions; ++q) starts_[q + 1] += starts_[q];
    std::vector<std::size_t> next(starts_.begin(), starts_.end() - 1);
    slots_.resize(table.size());
    std::size_t i = 0;
    table.for_each_slot([&](std::uint32_t slot, std::uint32_t, const auto&) { slots_[next[target[i++]]++] = slot; });
  }
  /// All entries for one partition.
  template <class Table>
  void fill_one(const Table& table, std::size_t partition, std::size_t partitions) {
    slots_.reserve(table.size());
    table.for_each_slot([&](std::uint32_t slot, std::uint32_t, const auto&) { slots_.push_back(slot); });
    starts_.assign(partitions + 1, 0);
    std::fill(starts_.begin() + static_cast<std::ptrdiff_t>(partition) + 1, starts_.end(), slots_.size());
  }
  [[nodiscard]] std::span<const std::uint32_t> operator[](std::size_t q) const {
    return std::span{slots_}.subspan(starts_[q], starts_[q + 1] - starts_[q]);
  }

 private:
  template <class K, class Stored>
  [[nodiscard]] static std::size_t ask(const char* op, const Partitioner<K>& partitioner, const Stored& key) {
    if constexpr (std::is_same_v<K, Stored>) {
      return ask_partitioner(op, partitioner, key);
    } else {
      return ask_partitioner(op, partitioner, K{key.text()});  // a ShortKey
    }
  }

  std::vector<std::uint32_t> slots_;  // bucket after bucket
  std::vector<std::size_t> starts_;   // where each bucket begins; one more than there are
};

/// The records of a chain of pairs, folded by key.
/// Order: partials are merged in the order of their partitions, so the values of a key are folded in batch order.
/// When the chain is partitioned by key already, equal keys lie in one partition, and nothing is exchanged.
template <ChainLike Chain, class C, class Fold>
class CombineNode final : public PreparedNode<std::pair<pair_key_t<typename Chain::value_type>, C>> {
  using K = pair_key_t<typename Chain::value_type>;
  using V = pair_value_t<typename Chain::value_type>;
  using Out = std::pair<K, C>;
  using Table = StagedTable<K, V, C, Fold>;
  using Form = KeyForm<K>;

 public:
  CombineNode(Chain chain, Fold fold, std::shared_ptr<const Partitioner<K>> partitioner)
      : PreparedNode<Out>{chain.node().scope()},
        size_hint_{chain.node().size_hint()},
        partitioner_{std::move(partitioner)},
        by_hash_{dynamic_cast<const HashPartitioner<K>*>(partitioner_.get()) != nullptr},
        fold_{std::move(fold)},
        chain_{std::move(chain)} {
    const PartitionerRef before = partitioner_of(chain_);
    in_place_ = before && before->equals(*partitioner_);
  }

  [[nodiscard]] std::size_t partitions() const override { return partitioner_->partitions(); }
  [[nodiscard]] std::size_t size_hint() const override { return size_hint_; }
  [[nodiscard]] PartitionerRef partitioner() const override { return partitioner_; }

 protected:
  void build(std::vector<std::vector<Out>>& parts, std::vector<Arena>& arenas) const override {
    chain_.node().prepare();
    const std::size_t inputs = chain_.node().partitions();
    const std::size_t outputs = partitions();
    arenas.resize(2 * outputs);  // for the keys of each output, and for the table that merged it

    std::vector<Partial> partials(inputs);
    for_each_partition_of(*this->scope(), inputs, size_hint_, [&](std::size_t p) {
      partials[p].table.emplace(fold_);
      fold_partition(p, *partials[p].table);
      if (in_place_ || (inputs == 1 && outputs == 1)) {
        emit_all(*partials[p].table, parts[p], arenas[p]);
      } else {
        partials[p].buckets.fill(fold_.op, *partials[p].table, *partitioner_, by_hash_);
      }
    });
    if (!in_place_ && !(inputs == 1 && outputs == 1)) {
      std::size_t entries = 0;
      for (const Partial& partial : partials) entries += partial.table->size();
      for_each_partition_of(*this->scope(), outputs, entries, [&](std::size_t q) {
        merge_bucket(q, partials, parts[q], arenas[q], arenas[outputs + q]);
      });
    }
    if constexpr (borrows_v<C>) {
      // Accumulators may look at memory of the tables that made them.
      for (Partial& partial : partials) arenas.push_back(std::move(partial.table->arena()));
    }
  }

 private:
  struct Partial {
    std::optional<Table> table;
    SlotBuckets buckets;
  };

  void fold_partition(std::size_t p, Table& table) const {
    run_chain(chain_, p, [&](auto&& record) TIDEMILL_INLINE_LAMBDA {
      using Record = decltype(record);
      if constexpr (borrows_v<V> && !Chain::facts.stable) {
        V value = tidemill::rehome(std::forward<Record>(record).second, table.arena());
        table.template add<Chain::facts.stable>(std::forward<Record>(record).first, std::move(value));
      } else {
        V value = std::forward<Record>(record).second;
        table.template add<Chain::facts.stable && borrows_v<K>>(std::forward<Record>(record).first, std::move(value));
      }
    });
    table.flush();
  }

  void merge_bucket(std::size_t q, std::vector<Partial>& partials, std::vector<Out>& out, Arena& arena,
                    Arena& merged_arena) const {
    std::size_t sources = 0;
    Partial* only = nullptr;
    for (Partial& partial : partials) {
      if (partial.buckets[q].empty()) continue;
      ++sources;
      only = &partial;
    }
    if (sources == 0) return;
    if (sources == 1) {  // every key is there once already
      out.reserve(only->buckets[q].size());
      for (const std::uint32_t slot : only->buckets[q]) {
        only->table->take(
            slot, [&](auto&& key, C&& acc) { out.emplace_back(Form::restore(std::move(key), arena), std::move(acc)); });
      }
      return;
    }
    Table merged{fold_};
    for (Partial& partial : partials) {
      merged.absorb(*partial.table, partial.buckets[q],
                    [&](C& mine, C&& theirs) { fold_.merge_combiners(mine, std::move(theirs)); });
    }
    emit_all(merged, out, arena);
    merged_arena = std::move(merged.arena());
  }

  static void emit_all(Table& table, std::vector<Out>& out, Arena& arena) {
    out.reserve(table.size());
    table.for_each_slot([&](std::uint32_t slot, std::uint32_t, const auto&) {
      table.take(slot,
                 [&](auto&& key, C&& acc) { out.emplace_back(Form::restore(std::move(key), arena), std::move(acc)); });
    });
  }

  std::size_t size_hint_;
  std::shared_ptr<const Partitioner<K>> partitioner_;  // shared by all batches that are partitioned by it
  bool by_hash_;
  bool in_place_ = false;
  Fold fold_;
  Chain chain_;  // kept: accumulators may look at its memory
};

}  // namespace tidemill::detail
