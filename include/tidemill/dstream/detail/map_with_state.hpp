// The steps of map_with_state: every record meets the state of its key. Records are staged by the block, so that the memory of
// one key is fetched while others are worked on; in each partition they come in batch order.
#pragma once

#include "tidemill/dstream/detail/state_node.hpp"

namespace tidemill::detail {

/// A record on its way to its key.
template <class Probe, class V>
struct KeyedRecord {
  std::uint32_t tag;
  Probe key;
  V value;
};

template <class Out, class Version>
struct MapResult {
  std::vector<std::vector<Out>> parts;
  std::vector<Arena> arenas;  // what records that borrow look at
  std::shared_ptr<const Version> version;
};

/// When keys time out.
struct TimeoutRule {
  std::optional<Duration> idle;  // nothing: never
  Duration every{0};             // 0: at once; else in the first batch at or after a multiple of it

  /// Keys that were last touched before this time out in the batch of t; `last` is the batch before.
  [[nodiscard]] std::optional<Time> limit(Time t, std::optional<Time> last) const {
    if (!idle) return std::nullopt;
    if (every != Duration::zero() && (!last || floor_to(t, every) <= *last)) return std::nullopt;
    return t - *idle;
  }
};

/// `In` is the chain of a batch: it is run, fused, by the step.
template <class In, class S, class F, class Initial>
class MapWithStateSteps final
    : public StateSteps<
          In, MapResult<typename MappedRecord<typename MapFunction<F, S, owned_t<pair_key_t<typename In::value_type>>,
                                                                   pair_value_t<typename In::value_type>>::Result>::Out,
                        typename KeyedStore<owned_t<pair_key_t<typename In::value_type>>, S>::Version>> {
  using InKey = pair_key_t<typename In::value_type>;

 public:
  using K = owned_t<InKey>;
  using V = pair_value_t<typename In::value_type>;
  using Call = MapFunction<F, S, K, V>;
  using Out = typename MappedRecord<typename Call::Result>::Out;
  using Store = KeyedStore<K, S>;
  static constexpr bool keeps_keys = false;  // the function returns what it likes
  using Steps = StateSteps<In, MapResult<Out, typename Store::Version>>;
  using Step = typename Steps::Step;

  MapWithStateSteps(std::shared_ptr<Store> store, F f, Initial initial, TimeoutRule timeouts)
      : store_{std::move(store)},
        f_{std::move(f)},
        initial_{std::move(initial)},
        timeouts_{timeouts},
        partitioner_{store_->partitions()} {}

  [[nodiscard]] const std::shared_ptr<Store>& store() const noexcept { return store_; }
  [[nodiscard]] std::size_t partitions() const noexcept { return store_->partitions(); }
  [[nodiscard]] static PartitionerRef partitioner() noexcept { return nullptr; }
  [[nodiscard]] static std::size_t size_hint(const Step& step) noexcept { return step.size_hint; }
  [[nodiscard]] static In input(In batch) { return batch; }
  /// Somebody wants to read the state as it was after each step.
  void keep_versions() noexcept { keeps_versions_ = true; }

  /// Pre: the step was taken. Once a step.
  static void show(Step& step, const Scope&, std::vector<std::vector<Out>>& parts, std::vector<Arena>& arenas) {
    parts = std::move(step.result.parts);
    arenas = std::move(step.result.arenas);
  }

 private:
  using Table = typename Store::Table;
  using Place = typename Table::Place;
  using Form = TableKey<K>;
  using Record = KeyedRecord<typename Table::Probe, V>;
  // With more, what was asked for first leaves the cache before its turn.
  static constexpr std::size_t block_records = 24;

  // Works on the records of one partition of the state.
  class Worker {
   public:
    Worker(const MapWithStateSteps& steps, std::size_t partition, Time t, std::vector<Out>& out, Arena& arena)
        : steps_{steps}, partition_{steps.store_->partition(partition)}, time_{t}, out_{out}, arena_{arena} {}

    /// Asks for the part of the index that a record needs, some time before `work_block`.
    TIDEMILL_INLINE void expect(const Record& record) const noexcept { partition_.table.prefetch(record.tag); }
    /// Pre: at most block_records.
    void work_block(std::span<Record> records) {
      Table& table = partition_.table;
      for (std::size_t i = 0; i < records.size(); ++i) candidates_[i] = table.candidate(records[i].tag);
      for (std::size_t i = 0; i < records.size(); ++i) {
        one(table, records[i], table.find_from(candidates_[i], records[i].tag, records[i].key));
      }
    }
    void work(std::span<Record> records) {
      while (!records.empty()) {
        const auto block = records.first(std::min(block_records, records.size()));
        for (const Record& record : block) expect(record);
        work_block(block);
        records = records.subspan(block.size());
      }
    }
    void time_out(Time limit) {
      partition_.expire(limit, [&](auto place) {
        const auto& key = partition_.table.key(place);
        StateCall<S> state{key, &partition_.table.state(place), false, StateCall<S>::Kind::timeout};
        call(key, nullptr, state);
      });
    }

   private:
    using Shown = std::remove_cvref_t<typename Form::View>;

    TIDEMILL_INLINE void one(Table& table, Record& record, Place place) {
      const bool there = place && table.exists(place);
      const auto& key = Form::view(record.key);
      if constexpr (Table::copies_ahead) {
        if (there) [[likely]] {
          const auto opened = table.open(place);
          StateCall<S> state{key, &table.state(place), true};
          call(key, &record.value, state);
          if (state.changed()) [[likely]] {
            table.close(place, opened);
          } else {
            table.take_back(place, opened);
            if (state.removed()) {
              table.remove(place);
            } else if (steps_.timeouts_.idle) {
              table.touch(place);
            }
          }
          return;
        }
      }
      StateCall<S> state{key, there ? &table.state(place) : nullptr, there && table.is_saved(place)};
      call(key, &record.value, state);
      if (state.unchanged()) {
        if (there && steps_.timeouts_.idle) table.touch(place);
      } else if (state.removed()) {
        if (there) table.remove(place);
      } else if (S* const fresh = state.fresh()) {
        if (place) {
          table.assign(place, std::move(*fresh));
        } else {
          table.insert(record.tag, std::move(record.key), std::move(*fresh));
        }
      } else {
        table.edited(place);
      }
    }
    TIDEMILL_INLINE void call(const Shown& key, V* value, StateCall<S>& state) {
      if constexpr (std::is_same_v<typename Call::Key, Shown> || std::is_same_v<typename Call::Key, const Shown&>) {
        emit([&]() -> decltype(auto) { return Call::invoke(steps_.f_, time_, key, value, state.state()); });
      } else {
        const K owned = Form::owned(key);  // lives until the result has been taken
        emit([&]() -> decltype(auto) { return Call::invoke(steps_.f_, time_, owned, value, state.state()); });
      }
    }
    template <class Make>
    TIDEMILL_INLINE void emit(Make&& make) {
      using Result = typename Call::Result;
      if constexpr (std::is_void_v<Result>) {
        make();
      } else if constexpr (is_optional<std::remove_cvref_t<Result>>) {
        auto&& result = make();
        if (result) out_.push_back(tidemill::rehome(*std::forward<decltype(result)>(result), arena_));
      } else {
        out_.push_back(tidemill::rehome(make(), arena_));
      }
    }

    const MapWithStateSteps& steps_;
    typename Store::Partition& partition_;
    Time time_;
    std::vector<Out>& out_;
    Arena& arena_;
    std::array<Place, block_records> candidates_;
  };

  void take(Step& step) override {
    const In& input = *step.input;
    input.node().prepare();
    MapResult<Out, typename Store::Version> result;
    result.parts.resize(partitions());
    result.arenas.resize(partitions());
    auto version = store_->step(step.time, [&] {
      if (!store_->has_begun()) begin_with(*store_, initial_);
      run(step, result);
    });
    if (keeps_versions_) result.version = std::move(version);
    step.result = std::move(result);
  }

  void run(const Step& step, MapResult<Out, typename Store::Version>& result) {
    const In& input = *step.input;
    const Scope& scope = *input.node().scope();
    const std::size_t inputs = input.node().partitions();
    const std::size_t outputs = partitions();
    const std::optional<Time> limit = timeouts_.limit(step.time, store_->last_time());
    std::size_t work = step.size_hint;
    if (limit) {
      for (std::size_t q = 0; q < outputs; ++q) work += store_->partition(q).count_due(*limit);
    }
    const PartitionerRef before = partitioner_of(input);
    if ((inputs == 1 && outputs == 1) || (before && before->equals(partitioner_))) {
      for_each_partition_of(scope, outputs, work, [&](std::size_t q) {
        Worker worker{*this, q, step.time, result.parts[q], result.arenas[q]};
        feed(input, q, worker);
        if (limit) worker.time_out(*limit);
      });
      return;
    }
    // Every record to the partition of its key; then partition after partition of the input, so the order stays.
    std::vector<std::vector<std::vector<Record>>> moved(inputs);
    std::vector<Arena> texts(inputs);
    for_each_partition_of(scope, inputs, step.size_hint, [&](std::size_t p) {
      moved[p].resize(outputs);
      run_chain(input, p, [&](auto&& record) {
        Record next = staged(std::forward<decltype(record)>(record), texts[p]);
        if constexpr (!keys_stay) {
          if (Form::is_far(next.key)) next.key = Form::rehome(std::move(next.key), texts[p]);
        }
        moved[p][partition_of_tag(next.tag, outputs)].push_back(std::move(next));
      });
    });
    for_each_partition_of(scope, outputs, work, [&](std::size_t q) {
      Worker worker{*this, q, step.time, result.parts[q], result.arenas[q]};
      for (std::size_t p = 0; p < inputs; ++p) {
        worker.work(moved[p][q]);
        moved[p][q] = {};
      }
      if (limit) worker.time_out(*limit);
    });
  }

  // Whether a long string that is a key lives as long as the batch.
  static constexpr bool keys_stay = In::facts.stable && borrows_v<InKey>;

  // The fused loop of one partition, by the block.
  void feed(const In& input, std::size_t partition, Worker& worker) const {
    Arena texts;
    std::vector<Record> block;
    block.reserve(block_records);
    run_chain(input, partition, [&](auto&& record) TIDEMILL_INLINE_LAMBDA {
      block.push_back(staged(std::forward<decltype(record)>(record), texts));
      worker.expect(block.back());
      bool full = block.size() == block_records;
      if constexpr (!keys_stay)
        full = full || Form::is_far(block.back().key);  // it looks at a temporary: it cannot wait
      if (full) {
        worker.work_block(block);
        block.clear();
      }
    });
    worker.work_block(block);
  }
  template <class R>
  TIDEMILL_INLINE static Record staged(R&& record, [[maybe_unused]] Arena& texts) {
    static_assert(std::is_rvalue_reference_v<R&&> || std::copy_constructible<V>,
                  "map_with_state: the values of the stream must be copyable");
    auto key = Form::probe(record.first);
    const std::uint32_t tag = Table::tag_of(key);
    if constexpr (borrows_v<V> && !In::facts.stable) {
      return {tag, std::move(key), tidemill::rehome(std::forward<R>(record).second, texts)};
    } else {
      return {tag, std::move(key), std::forward<R>(record).second};
    }
  }

  std::shared_ptr<Store> store_;  // shared with views of the host's, and with the checkpoint
  F f_;
  Initial initial_;
  TimeoutRule timeouts_;
  HashPartitioner<InKey> partitioner_;
  bool keeps_versions_ = false;
};

}  // namespace tidemill::detail
