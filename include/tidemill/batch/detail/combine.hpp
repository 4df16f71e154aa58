// Keyed aggregation: every partition folds its own records first, in a staged table that is fed by the fused loop, and only
// the partial results, one a key and partition, are exchanged.
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
        sort_into_buckets(partials[p], outputs);
      }
    });
    if (!in_place_ && !(inputs == 1 && outputs == 1)) {
      std::size_t entries = 0;
      for (const Partial& partial : partials) entries += partial.table->size();
      for_each_partition_of(*this->scope(), outputs, entries,
                            [&](std::size_t q) { merge_bucket(q, partials, parts[q], arenas[q], arenas[outputs + q]); });
    }
    if constexpr (borrows_v<C>) {
      // Accumulators may look at memory of the tables that made them.
      for (Partial& partial : partials) arenas.push_back(std::move(partial.table->arena()));
    }
  }

 private:
  struct Partial {
    std::optional<Table> table;
    std::vector<std::uint32_t> slots;   // slot numbers, bucket after bucket
    std::vector<std::size_t> starts;    // where each bucket begins in `slots`; one more than there are buckets
    [[nodiscard]] std::span<const std::uint32_t> bucket(std::size_t q) const {
      return std::span{slots}.subspan(starts[q], starts[q + 1] - starts[q]);
    }
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

  [[nodiscard]] std::size_t partition_of(std::uint32_t tag, const typename Form::Stored& key) const {
    if (by_hash_) return partition_of_tag(tag, partitions());
    Arena scratch;
    return partitioner_->partition_of(Form::restore(typename Form::Stored(key), scratch));
  }

  void sort_into_buckets(Partial& partial, std::size_t outputs) const {
    Table& table = *partial.table;
    std::vector<std::uint32_t> target;
    target.reserve(table.size());
    partial.starts.assign(outputs + 1, 0);
    table.for_each_slot([&](std::uint32_t, std::uint32_t tag, const auto& key) {
      const std::size_t q = partition_of(tag, key);
      target.push_back(static_cast<std::uint32_t>(q));
      ++partial.starts[q + 1];
    });
    for (std::size_t q = 0; q < outputs; ++q) partial.starts[q + 1] += partial.starts[q];
    std::vector<std::size_t> next(partial.starts.begin(), partial.starts.end() - 1);
    partial.slots.resize(table.size());
    std::size_t i = 0;
    table.for_each_slot([&](std::uint32_t slot, std::uint32_t, const auto&) { partial.slots[next[target[i++]]++] = slot; });
  }

  void merge_bucket(std::size_t q, std::vector<Partial>& partials, std::vector<Out>& out, Arena& arena,
                    Arena& merged_arena) const {
    std::size_t sources = 0;
    Partial* only = nullptr;
    for (Partial& partial : partials) {
      if (partial.bucket(q).empty()) continue;
      ++sources;
      only = &partial;
    }
    if (sources == 0) return;
    if (sources == 1) {  // every key is there once already
      out.reserve(only->bucket(q).size());
      for (const std::uint32_t slot : only->bucket(q)) {
        only->table->take(slot, [&](auto&& key, C&& acc) { out.emplace_back(Form::restore(std::move(key), arena), std::move(acc)); });
      }
      return;
    }
    Table merged{fold_};
    for (Partial& partial : partials) {
      merged.absorb(*partial.table, partial.bucket(q), [&](C& mine, C&& theirs) { fold_.merge_combiners(mine, std::move(theirs)); });
    }
    emit_all(merged, out, arena);
    merged_arena = std::move(merged.arena());
  }

  static void emit_all(Table& table, std::vector<Out>& out, Arena& arena) {
    out.reserve(table.size());
    table.for_each_slot([&](std::uint32_t slot, std::uint32_t, const auto&) {
      table.take(slot, [&](auto&& key, C&& acc) { out.emplace_back(Form::restore(std::move(key), arena), std::move(acc)); });
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
