// Several keyed batches brought together by key: joins, cogroup, subtract. Every partition of every input first groups
// its own records, in a staged table of runs of values; whole runs are then exchanged, and each partition of the result
// walks the keys that arrived there. An input that is partitioned like the result already stays where it is.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "tidemill/batch/detail/chain.hpp"
#include "tidemill/batch/detail/combine.hpp"
#include "tidemill/exec/staged_table.hpp"

namespace tidemill::detail {

/// One partition of an input, grouped: the values of a key form a list inside one vector, so a key costs no allocation.
template <class K, class V>
class GroupedPartition {
 public:
  static constexpr std::size_t none = static_cast<std::size_t>(-1);
  struct Link {
    V value;
    std::size_t next;
  };
  struct Run {
    std::size_t first = none;
    std::size_t last = none;
  };
  struct Fold {
    std::vector<Link>* links;  // lives as long as the table that has this
    [[nodiscard]] Run create(V&& value) const {
      links->push_back(Link{std::move(value), none});
      return {links->size() - 1, links->size() - 1};
    }
    void merge(Run& run, V&& value) const {
      links->push_back(Link{std::move(value), none});
      (*links)[run.last].next = links->size() - 1;
      run.last = links->size() - 1;
    }
  };
  using Table = StagedTable<K, V, Run, Fold>;

  GroupedPartition() : table{Fold{&links_}} {}
  GroupedPartition(const GroupedPartition&) = delete;
  GroupedPartition& operator=(const GroupedPartition&) = delete;

  /// Groups the records of a partition of the chain.
  template <ChainLike Chain>
  void fill(const Chain& chain, std::size_t partition) {
    run_chain(chain, partition, [&](auto&& record) TIDEMILL_INLINE_LAMBDA {
      using Record = decltype(record);
      if constexpr (borrows_v<V> && !Chain::facts.stable) {
        V value = tidemill::rehome(std::forward<Record>(record).second, values_look_at);
        table.template add<false>(std::forward<Record>(record).first, std::move(value));
      } else {
        V value = std::forward<Record>(record).second;
        table.template add<Chain::facts.stable && borrows_v<K>>(std::forward<Record>(record).first, std::move(value));
      }
    });
    table.flush();
  }
  /// Moves the values of a run to the end of `values`. Threads: several may move different runs.
  void take(const Run& run, std::vector<V>& values) {
    for (std::size_t i = run.first; i != none; i = links_[i].next) values.push_back(std::move(links_[i].value));
  }

 private:
  std::vector<Link> links_;

 public:
  Table table;
  SlotBuckets buckets;
  Arena values_look_at;
};

/// Batches of pairs brought together by key.
///
/// `Policy`:  `using Out`; `static void emit(K&& key, std::vector<V>&... groups, std::vector<Out>& out)` is called once
/// a
///            key, with its values in each input, in batch order; it may take them away.
/// Order:     keys by slot of the table that merged them, without meaning.
template <class Policy, ChainLike... Chains>
class CogroupNode final : public PreparedNode<typename Policy::Out> {
  static constexpr std::size_t arity = sizeof...(Chains);
  template <std::size_t I>
  using ChainAt = std::tuple_element_t<I, std::tuple<Chains...>>;
  using K = pair_key_t<typename ChainAt<0>::value_type>;
  using Out = typename Policy::Out;
  using Form = KeyForm<K>;
  template <class Chain>
  using GroupedOf = GroupedPartition<pair_key_t<typename Chain::value_type>, pair_value_t<typename Chain::value_type>>;
  template <class Chain>
  using GroupedInput = std::vector<std::unique_ptr<GroupedOf<Chain>>>;

  static_assert(
      (std::is_same_v<typename KeyForm<pair_key_t<typename Chains::value_type>>::Stored, typename Form::Stored> && ...),
      "the keys of both sides must be of the same type (std::string and std::string_view are)");

 public:
  CogroupNode(const char* op, std::shared_ptr<const Partitioner<K>> partitioner, Chains... chains)
      : PreparedNode<Out>{common_scope(chains.node()...)},
        op_{op},
        partitioner_{std::move(partitioner)},
        by_hash_{dynamic_cast<const HashPartitioner<K>*>(partitioner_.get()) != nullptr},
        chains_{std::move(chains)...} {}

  [[nodiscard]] std::size_t partitions() const override { return partitioner_->partitions(); }
  [[nodiscard]] std::size_t size_hint() const override {
    return std::apply([](const auto&... chain) { return (chain.node().size_hint() + ...); }, chains_);
  }
  [[nodiscard]] PartitionerRef partitioner() const override {
    if constexpr (Policy::keeps_keys) {
      return partitioner_;
    } else {
      return nullptr;
    }
  }

 protected:
  void build(std::vector<std::vector<Out>>& parts, std::vector<Arena>& arenas) const override {
    std::tuple<GroupedInput<Chains>...> inputs;
    each_input([&](auto i) { group(std::get<i>(chains_), std::get<i>(inputs)); });
    for_each_partition_of(*this->scope(), partitions(), size_hint(),
                          [&](std::size_t q) { merge(q, inputs, parts[q], arenas[q]); });
    each_input([&](auto i) {
      for (auto& grouped : std::get<i>(inputs)) arenas.push_back(std::move(grouped->values_look_at));
    });
  }

 private:
  template <class F>
  static void each_input(F&& f) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (f(std::integral_constant<std::size_t, I>{}), ...);
    }(std::make_index_sequence<arity>{});
  }

  template <ChainLike Chain>
  void group(const Chain& chain, GroupedInput<Chain>& grouped) const {
    chain.node().prepare();
    const PartitionerRef before = partitioner_of(chain);
    const bool in_place = before && before->equals(*partitioner_);
    grouped.resize(chain.node().partitions());
    for_each_partition_of(*this->scope(), grouped.size(), chain.node().size_hint(), [&](std::size_t p) {
      grouped[p] = std::make_unique<GroupedOf<Chain>>();
      grouped[p]->fill(chain, p);
      if (in_place) {
        grouped[p]->buckets.fill_one(grouped[p]->table, p, partitions());
      } else {
        grouped[p]->buckets.fill(op_, grouped[p]->table, *partitioner_, by_hash_);
      }
    });
  }

  // Where the values of a key lie: for each input a list of runs, each in some partition of the input.
  template <class Run>
  struct Piece {
    Run run;
    std::size_t partition;
    std::size_t next;
  };
  struct Ends {
    static constexpr std::size_t none = static_cast<std::size_t>(-1);
    std::size_t first = none;
    std::size_t last = none;
  };
  using Places = std::array<Ends, arity>;
  struct NoFold {
    static Places create(Nothing&&) { return {}; }
    static void merge(Places&, Nothing&&) {}
  };

  void merge(std::size_t q, std::tuple<GroupedInput<Chains>...>& inputs, std::vector<Out>& out, Arena& arena) const {
    StagedTable<K, Nothing, Places, NoFold> merged{NoFold{}};
    std::tuple<std::vector<Piece<typename GroupedOf<Chains>::Run>>...> all_pieces;
    each_input([&](auto i) {
      auto& pieces = std::get<i>(all_pieces);
      auto& input = std::get<i>(inputs);
      for (std::size_t p = 0; p < input.size(); ++p) {
        merged.absorb_other(
            input[p]->table, input[p]->buckets[q], [] { return Places{}; },
            [&](Places& places, auto&& run) {
              pieces.push_back({run, p, Ends::none});
              Ends& ends = places[i];
              (ends.first == Ends::none ? ends.first : pieces[ends.last].next) = pieces.size() - 1;
              ends.last = pieces.size() - 1;
            });
      }
    });
    std::tuple<std::vector<pair_value_t<typename Chains::value_type>>...> groups;
    merged.for_each_slot([&](std::uint32_t slot, std::uint32_t, const auto&) {
      merged.take(slot, [&](auto&& stored, const Places& places) {
        each_input([&](auto i) {
          auto& group = std::get<i>(groups);
          const auto& pieces = std::get<i>(all_pieces);
          group.clear();
          for (std::size_t at = places[i].first; at != Ends::none; at = pieces[at].next) {
            std::get<i>(inputs)[pieces[at].partition]->take(pieces[at].run, group);
          }
        });
        std::apply([&](auto&... group) { Policy::emit(Form::restore(std::move(stored), arena), group..., out); },
                   groups);
      });
    });
  }

  const char* op_;
  std::shared_ptr<const Partitioner<K>> partitioner_;  // shared by all batches that are partitioned by it
  bool by_hash_;
  std::tuple<Chains...> chains_;  // kept: stable records look at their memory
};

// ---- what becomes of the values of a key ----------------------------------------------------------------------------

/// (k, (all values here, all values there, …))
template <class K, class... Vs>
struct CogroupAll {
  using Out = std::pair<K, std::tuple<std::vector<Vs>...>>;
  static constexpr bool keeps_keys = true;
  static void emit(K&& key, std::vector<Vs>&... groups, std::vector<Out>& out) {
    out.emplace_back(std::move(key), std::tuple<std::vector<Vs>...>{std::move(groups)...});
  }
};

/// Which sides of a join may be absent.
enum class Absent { neither, right, left, either };

template <class K, class V, class W, Absent absent>
struct JoinValues {
  static_assert(std::copy_constructible<V> && std::copy_constructible<W>,
                "a join repeats values, so they must be copyable; use cogroup for those that are not");
  static constexpr bool keeps_keys = true;
  static constexpr bool left_absent = absent == Absent::left || absent == Absent::either;
  static constexpr bool right_absent = absent == Absent::right || absent == Absent::either;
  using Left = std::conditional_t<left_absent, std::optional<V>, V>;
  using Right = std::conditional_t<right_absent, std::optional<W>, W>;
  using Out = std::pair<K, std::pair<Left, Right>>;

  static void emit(K&& key, std::vector<V>& left, std::vector<W>& right, std::vector<Out>& out) {
    if (left.size() == 1 && right.size() == 1) {
      out.emplace_back(std::move(key),
                       std::pair<Left, Right>{Left{std::move(left.front())}, Right{std::move(right.front())}});
      return;
    }
    if constexpr (right_absent) {
      if (right.empty()) {
        for (V& value : left) out.emplace_back(key, std::pair<Left, Right>{Left{std::move(value)}, std::nullopt});
        return;
      }
    }
    if constexpr (left_absent) {
      if (left.empty()) {
        for (W& value : right) out.emplace_back(key, std::pair<Left, Right>{std::nullopt, Right{std::move(value)}});
        return;
      }
    }
    for (const V& mine : left) {
      for (const W& theirs : right) out.emplace_back(key, std::pair<Left, Right>{Left{mine}, Right{theirs}});
    }
  }
};

/// The pairs whose key is not on the right.
template <class K, class V>
struct SubtractKeys {
  using Out = std::pair<K, V>;
  static constexpr bool keeps_keys = true;
  static void emit(K&& key, std::vector<V>& left, std::vector<Nothing>& right, std::vector<Out>& out) {
    if (!right.empty()) return;
    for (std::size_t i = 0; i < left.size(); ++i) {
      out.emplace_back(i + 1 == left.size() ? K(std::move(key)) : K(key), std::move(left[i]));
    }
  }
};

/// The records, which are the keys here, that are not on the right, as often as they are on the left.
template <class T>
struct SubtractRecords {
  using Out = T;
  static constexpr bool keeps_keys = false;
  static void emit(T&& record, std::vector<Nothing>& left, std::vector<Nothing>& right, std::vector<T>& out) {
    if (right.empty()) out.insert(out.end(), left.size(), record);
  }
};

/// The records that are on both sides, once each.
template <class T>
struct IntersectRecords {
  using Out = T;
  static constexpr bool keeps_keys = false;
  static void emit(T&& record, std::vector<Nothing>& left, std::vector<Nothing>& right, std::vector<T>& out) {
    if (!left.empty() && !right.empty()) out.push_back(std::move(record));
  }
};

}  // namespace tidemill::detail
