// Sorting over partitions: each input partition is sorted where it is, a sample of the sorted keys tells where to cut,
// and the pieces between two cuts are merged into one partition of the result. The chain runs once, and the key is
// computed once for each record.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <type_traits>
#include <utility>
#include <vector>

#include "tidemill/batch/detail/chain.hpp"

namespace tidemill {

enum class Order { ascending, descending };

namespace detail {

/// `a < b`, and among floating-point numbers a NaN after all others, so that it is an order.
struct NaturalOrder {
  template <class A, class B>
    requires requires(const A& a, const B& b) { static_cast<bool>(a < b); }
  TIDEMILL_INLINE constexpr bool operator()(const A& a, const B& b) const noexcept(noexcept(static_cast<bool>(a < b))) {
    if constexpr (std::is_floating_point_v<A> && std::is_floating_point_v<B>) {
      return a < b || (b != b && a == a);  // NOLINT(misc-redundant-expression): x != x is how a NaN shows
    } else {
      return static_cast<bool>(a < b);
    }
  }
};

/// An order of the user's or NaturalOrder, either way round; what it throws is labelled.
template <class Less>
struct Before {
  const char* op;
  Order order;
  [[no_unique_address]] Less less;
  template <class A, class B>
  TIDEMILL_INLINE bool operator()(const A& a, const B& b) const {
    return order == Order::ascending ? call_user(op, less, a, b) : call_user(op, less, b, a);
  }
};

/// A chain in order of `f(record)`, in `partitions` ranges; records with equal keys in batch order.
template <ChainLike Chain, class F, class Less>
class SortNode final : public PreparedNode<typename Chain::value_type> {
  using T = typename Chain::value_type;
  using Found = std::invoke_result_t<const F&, const T&>;
  using SortKey = std::remove_cvref_t<Found>;
  // A key that is a part of the record is looked at where it is; one that is computed is kept beside the record.
  static constexpr bool computed = !std::is_lvalue_reference_v<Found>;
  struct Keyed {
    SortKey key;
    T record;
  };
  using Item = std::conditional_t<computed, Keyed, T>;

 public:
  SortNode(Chain chain, F f, Before<Less> before, std::size_t partitions)
      : PreparedNode<T>{chain.node().scope()},
        partitions_{partitions},
        f_{std::move(f)},
        before_{std::move(before)},
        chain_{std::move(chain)} {}
  [[nodiscard]] std::size_t partitions() const override { return partitions_; }
  [[nodiscard]] std::size_t size_hint() const override { return chain_.node().size_hint(); }

 protected:
  void build(std::vector<std::vector<T>>& parts, std::vector<Arena>& arenas) const override {
    chain_.node().prepare();
    const std::size_t inputs = chain_.node().partitions();
    std::vector<std::vector<Item>> items(inputs);
    std::vector<Arena> records_look_at(inputs);
    std::vector<Arena> keys_look_at(inputs);  // goes when the sorting is done
    for_each_partition_of(*this->scope(), inputs, size_hint(), [&](std::size_t p) {
      run_chain(chain_, p, [&](auto&& record) {
        if constexpr (computed) {
          SortKey key = tidemill::rehome(call_user(before_.op, f_, std::as_const(record)), keys_look_at[p]);
          items[p].push_back(
              Keyed{std::move(key), settled<Chain>(std::forward<decltype(record)>(record), records_look_at[p])});
        } else {
          items[p].push_back(settled<Chain>(std::forward<decltype(record)>(record), records_look_at[p]));
        }
      });
      std::stable_sort(items[p].begin(), items[p].end(), by_key());
    });
    std::vector<std::vector<std::size_t>> cuts;  // cuts[p][q]: where in items[p] partition q begins
    for_one_partition_of(*this->scope(), 0, [&](std::size_t) { cuts = find_cuts(items); });
    for_each_partition_of(*this->scope(), partitions_, size_hint(),
                          [&](std::size_t q) { merge(q, items, cuts, parts[q]); });
    std::move(records_look_at.begin(), records_look_at.end(), std::back_inserter(arenas));
  }

 private:
  [[nodiscard]] const SortKey& key_of(const Item& item) const {
    if constexpr (computed) {
      return item.key;
    } else {
      return call_user(before_.op, f_, item);
    }
  }
  [[nodiscard]] auto by_key() const {
    return [this](const Item& a, const Item& b) { return before_(key_of(a), key_of(b)); };
  }

  [[nodiscard]] std::vector<std::vector<std::size_t>> find_cuts(const std::vector<std::vector<Item>>& items) const {
    constexpr std::size_t samples_per_partition = 64;
    std::size_t total = 0;
    for (const auto& run : items) total += run.size();
    std::vector<std::vector<std::size_t>> cuts(items.size(), std::vector<std::size_t>(partitions_ + 1, 0));
    for (std::size_t p = 0; p < items.size(); ++p) cuts[p].back() = items[p].size();
    if (total == 0 || partitions_ == 1) return cuts;

    // Every step-th record of each run: as many from a run as its share of the records.
    const std::size_t step = std::max<std::size_t>(1, total / (samples_per_partition * partitions_));
    std::vector<const Item*> samples;
    std::size_t offset = step / 2;
    for (const auto& run : items) {
      std::size_t i = offset;
      for (; i < run.size(); i += step) samples.push_back(&run[i]);
      offset = i - run.size();
    }
    std::stable_sort(samples.begin(), samples.end(),
                     [this](const Item* a, const Item* b) { return before_(key_of(*a), key_of(*b)); });
    for (std::size_t q = 1; q < partitions_; ++q) {
      const std::size_t at = samples.size() * q / partitions_;
      if (at == 0) continue;                // fewer samples than partitions: the first ones stay empty
      const Item& last = *samples[at - 1];  // the last of partition q - 1, with all that equal it
      for (std::size_t p = 0; p < items.size(); ++p) {
        const auto end = std::upper_bound(items[p].begin(), items[p].end(), last, by_key());
        cuts[p][q] = std::max(cuts[p][q - 1], static_cast<std::size_t>(end - items[p].begin()));
      }
    }
    return cuts;
  }

  void merge(std::size_t q, std::vector<std::vector<Item>>& items, const std::vector<std::vector<std::size_t>>& cuts,
             std::vector<T>& part) const {
    std::vector<Item> merged;
    std::vector<std::size_t> ends{0};
    std::size_t size = 0;
    for (std::size_t p = 0; p < items.size(); ++p) size += cuts[p][q + 1] - cuts[p][q];
    merged.reserve(size);
    for (std::size_t p = 0; p < items.size(); ++p) {
      if (cuts[p][q + 1] == cuts[p][q]) continue;
      const auto at = [&](std::size_t i) { return std::next(items[p].begin(), static_cast<std::ptrdiff_t>(i)); };
      std::move(at(cuts[p][q]), at(cuts[p][q + 1]), std::back_inserter(merged));
      ends.push_back(merged.size());
    }
    while (ends.size() > 2) {  // neighbours, so that equal keys stay in batch order
      std::vector<std::size_t> fewer{0};
      for (std::size_t i = 2; i < ends.size(); i += 2) {
        const auto at = [&](std::size_t e) { return std::next(merged.begin(), static_cast<std::ptrdiff_t>(ends[e])); };
        std::inplace_merge(at(i - 2), at(i - 1), at(i), by_key());
        fewer.push_back(ends[i]);
      }
      if (ends.size() % 2 == 0) fewer.push_back(ends.back());
      ends = std::move(fewer);
    }
    if constexpr (computed) {
      part.reserve(merged.size());
      for (Item& item : merged) part.push_back(std::move(item.record));
    } else {
      part = std::move(merged);
    }
  }

  std::size_t partitions_;  // > 0
  F f_;
  Before<Less> before_;
  Chain chain_;  // kept: stable records look at its memory
};

}  // namespace detail
}  // namespace tidemill
