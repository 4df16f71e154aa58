// The steps of update_state_by_key: the function sees every key that has a state or a new value.
#pragma once

#include "tidemill/dstream/detail/state_node.hpp"

namespace tidemill::detail {

template <class F, class S, class K, class V>
struct UpdateFunction {
  using Values = const std::vector<V>&;
  using Rows = std::span<const StateUpdate<K, V, S>>;

  template <class Key, class State>
  static constexpr bool timed = std::invocable<const F&, Time, Key, Values, State>;
  template <class State>
  static constexpr bool plain = std::invocable<const F&, Values, State>;
  static constexpr bool by_partition = std::invocable<const F&, Rows>;

  using View = typename TableKey<K>::View;
  static constexpr bool views = timed<View, std::optional<S>> || timed<View, const S*>;
  using Key = std::conditional_t<views, View, const K&>;
  static constexpr bool copies = timed<Key, std::optional<S>> || plain<std::optional<S>>;
  static constexpr bool points = timed<Key, const S*> || plain<const S*>;
  static_assert(
      by_partition || copies || points,
      "the function of update_state_by_key<S> must take (const std::vector<V>&, std::optional<S>), or the same after "
      "the Time of the batch and the key, and return std::optional<S>; instead of std::optional<S> it may take const "
      "S*. Or it takes std::span<const StateUpdate<K, V, S>> and returns a range of std::pair<K, S>");
  using State = std::conditional_t<copies, std::optional<S>, const S*>;
  template <class Result>
  static constexpr bool is_state = std::convertible_to<Result, std::optional<S>>;
  static consteval bool returns_state() {
    if constexpr (timed<Key, State>) {
      return is_state<std::invoke_result_t<const F&, Time, Key, Values, State>>;
    } else if constexpr (plain<State>) {
      return is_state<std::invoke_result_t<const F&, Values, State>>;
    } else {
      return true;
    }
  }
  static_assert(returns_state(),
                "the function of update_state_by_key<S> must return std::optional<S>: the new state, or nothing to "
                "remove the key");
  static_assert(by_partition || !copies || std::copy_constructible<S>,
                "update_state_by_key: a state that cannot be copied is taken as const S*");

  [[nodiscard]] static std::optional<S> invoke(const F& f, Time t, View key, Values values, const S* state) {
    if constexpr (timed<Key, State>) {
      if constexpr (std::is_same_v<Key, View>) {
        return call_user("update_state_by_key", f, t, key, values, state_for(state));
      } else {
        return call_user("update_state_by_key", f, t, TableKey<K>::owned(key), values, state_for(state));
      }
    } else {
      return call_user("update_state_by_key", f, values, state_for(state));
    }
  }

 private:
  [[nodiscard]] static State state_for(const S* state) {
    if constexpr (copies) {
      return state == nullptr ? std::nullopt : std::optional<S>{*state};
    } else {
      return state;
    }
  }
};

template <class Version>
struct UpdateResult {
  std::shared_ptr<const Version> version;
};

/// `InKey` and V are those of the stream; its batches come grouped by key.
template <class InKey, class V, class S, class F, class Initial, class Group>
class UpdateStateSteps final : public StateSteps<Batch<std::pair<InKey, std::vector<V>>>,
                                                 UpdateResult<typename KeyedStore<owned_t<InKey>, S>::Version>> {
 public:
  using K = owned_t<InKey>;
  using Out = std::pair<K, S>;
  using Store = KeyedStore<K, S>;
  using Grouped = Batch<std::pair<InKey, std::vector<V>>>;
  using Steps = StateSteps<Grouped, UpdateResult<typename Store::Version>>;
  using Step = typename Steps::Step;
  using Call = UpdateFunction<F, S, K, V>;
  static constexpr bool keeps_keys = true;

  UpdateStateSteps(std::shared_ptr<Store> store, F f, Initial initial, Group group)
      : store_{std::move(store)}, f_{std::move(f)}, initial_{std::move(initial)}, group_{std::move(group)} {}

  [[nodiscard]] const std::shared_ptr<Store>& store() const noexcept { return store_; }
  [[nodiscard]] std::size_t partitions() const noexcept { return store_->partitions(); }
  [[nodiscard]] PartitionerRef partitioner() const { return std::make_shared<const HashPartitioner<K>>(partitions()); }
  [[nodiscard]] std::size_t size_hint(const Step& step) const { return step.size_hint + store_->size(); }
  template <class In>
  [[nodiscard]] Grouped input(const In& batch) const {
    return group_(batch);
  }

  /// Pre: the step was taken. Once a step.
  void show(Step& step, const Scope& scope, std::vector<std::vector<Out>>& parts, std::vector<Arena>&) const {
    copy_state(*store_, *step.result.version, scope, parts);
    step.result.version = nullptr;
  }

 private:
  using Table = typename Store::Table;
  using Place = typename Table::Place;
  using Form = TableKey<K>;
  using Groups = std::span<const std::pair<InKey, std::vector<V>>>;
  using Update = StateUpdate<K, V, S>;

  void take(Step& step) override {
    const auto& input = step.input->node();
    input.prepare();
    step.result.version = store_->step(step.time, [&] {
      if (!store_->has_begun()) begin_with(*store_, initial_);
      std::size_t work = step.size_hint;
      for (std::size_t q = 0; q < partitions(); ++q) work += store_->partition(q).table.size();
      if constexpr (Call::by_partition) {
        update_by_partition(step, work);
      } else {
        for_each_partition_of(*input.scope(), partitions(), work,
                              [&](std::size_t q) { update(store_->partition(q).table, *input.stored(q), step.time); });
      }
    });
  }

  // The values of the keys of a partition: which group belongs to a slot, and which to no key that is there.
  class Values {
   public:
    Values(const Table& table, Groups groups) : groups_{groups}, of_slot_(table.slots(), none) {
      constexpr std::size_t block = 64;
      for (std::size_t from = 0; from < groups.size(); from += block) {
        const std::size_t count = std::min(block, groups.size() - from);
        std::vector<typename Table::Probe> keys;
        std::array<std::uint32_t, block> tags;
        std::array<Place, block> candidates;
        keys.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
          keys.push_back(Form::probe(groups[from + i].first));
          tags[i] = Table::tag_of(keys[i]);
          table.prefetch(tags[i]);
        }
        for (std::size_t i = 0; i < count; ++i) candidates[i] = table.candidate(tags[i]);
        for (std::size_t i = 0; i < count; ++i) {
          if (const Place place = table.find_from(candidates[i], tags[i], keys[i])) {
            of_slot_[place.slot()] = static_cast<std::uint32_t>(from + i);
          } else {
            fresh_.push_back(from + i);
          }
        }
      }
    }
    [[nodiscard]] const std::vector<V>& of(Place place) const {
      const std::uint32_t group = of_slot_[place.slot()];
      return group == none ? no_values_ : groups_[group].second;
    }
    /// Calls `see(key, values)` for keys that have no state.
    template <class See>
    void for_each_new(See&& see) const {
      for (const std::size_t i : fresh_) see(groups_[i].first, groups_[i].second);
    }

   private:
    static constexpr std::uint32_t none = 0xffffffff;
    Groups groups_;
    std::vector<std::uint32_t> of_slot_;
    std::vector<std::size_t> fresh_;
    const std::vector<V> no_values_;
  };

  void update(Table& table, Groups groups, Time t) const {
    const Values values{table, groups};
    table.for_each([&](Place place) {
      std::optional<S> after = Call::invoke(f_, t, table.key(place), values.of(place), &table.state(place));
      if (!after) {
        table.remove(place);
      } else {
        assign(table, place, *std::move(after));
      }
    });
    values.for_each_new([&](const InKey& key, const std::vector<V>& came) {
      auto probe = Form::probe(key);
      std::optional<S> after = Call::invoke(f_, t, Form::view(probe), came, nullptr);
      if (!after) return;
      const std::uint32_t tag = Table::tag_of(probe);
      table.insert(tag, std::move(probe), *std::move(after));
    });
  }

  // A state that is equal to the one before counts as unchanged.
  static void assign(Table& table, Place place, S&& state) {
    if constexpr (compares<S>()) {
      if (table.exists(place) && table.state(place) == state) return;
    }
    table.assign(place, std::move(state));
  }

  // The function may give back other keys than it was shown, so nothing is changed until all partitions have been asked.
  void update_by_partition(const Step& step, std::size_t work) const {
    const auto& input = step.input->node();
    std::vector<std::vector<std::pair<K, S>>> results(partitions());
    for_each_partition_of(*input.scope(), partitions(), work,
                          [&](std::size_t q) { ask(store_->partition(q).table, *input.stored(q), results[q]); });
    std::vector<std::vector<bool>> seen(partitions());
    for (std::size_t q = 0; q < partitions(); ++q) seen[q].resize(store_->partition(q).table.slots());
    for (auto& pairs : results) {
      for (auto& [key, state] : pairs) {
        auto probe = Form::probe(std::as_const(key));
        const std::uint32_t tag = Table::tag_of(probe);
        const std::size_t q = partition_of_tag(tag, partitions());
        Table& table = store_->partition(q).table;
        Place place = table.find(tag, probe);
        if (place) {
          assign(table, place, std::move(state));
        } else {
          place = table.insert(tag, std::move(probe), std::move(state));
        }
        if (place.slot() >= seen[q].size()) seen[q].resize(table.slots());
        seen[q][place.slot()] = true;
      }
    }
    for (std::size_t q = 0; q < partitions(); ++q) {
      Table& table = store_->partition(q).table;
      table.for_each([&](Place place) {
        if (place.slot() >= seen[q].size() || !seen[q][place.slot()]) table.remove(place);
      });
    }
  }
  void ask(const Table& table, Groups groups, std::vector<std::pair<K, S>>& results) const {
    const Values values{table, groups};
    std::vector<Update> updates;
    std::deque<typename Table::Probe> keys;  // that the table does not have; they stay where they are
    updates.reserve(table.size());
    table.for_each([&](Place place) {
      updates.push_back(Update{table.key(place), values.of(place), &table.state(place)});
    });
    values.for_each_new([&](const InKey& key, const std::vector<V>& came) {
      updates.push_back(Update{Form::view(keys.emplace_back(Form::probe(key))), came, nullptr});
    });
    auto&& range = call_user("update_state_by_key", f_, std::span<const Update>{updates});
    emit_user_range("update_state_by_key", std::forward<decltype(range)>(range), [&](auto&& pair) {
      using Pair = decltype(pair);
      results.emplace_back(K(std::forward<Pair>(pair).first), S(std::forward<Pair>(pair).second));
    });
  }

  std::shared_ptr<Store> store_;  // shared with views of the host's, and with the checkpoint
  F f_;
  Initial initial_;
  Group group_;
};

}  // namespace tidemill::detail
