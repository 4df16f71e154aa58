// The typed side of the stream graph: a node yields the batch of its stream at a time, once per time.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tidemill/batch/batch.hpp"
#include "tidemill/core/error.hpp"
#include "tidemill/engine/engine.hpp"

namespace tidemill::detail {

/// A stream, seen without knowing how it comes about.
/// Threads: under the engine's graph mutex, which batch_at takes.
template <class T>
class StreamNode : public GraphNode {
 public:
  using GraphNode::GraphNode;

  /// The batch at `t`, made at the first call and remembered until it is forgotten. Pre: has_batch_at(t).
  [[nodiscard]] Batch<T> batch_at(Time t) {
    const std::scoped_lock lock{engine()->graph_mutex()};
    for (const auto& [time, batch] : made_) {
      if (time == t) return batch;
    }
    TIDEMILL_ASSERT(has_batch_at(t), "streams are asked only for times at which they have a batch");
    made_.emplace_back(t, compute(t));
    return made_.back().second;
  }

  void forget(Time last) noexcept override {
    std::erase_if(made_, [last](const auto& entry) { return entry.first <= last; });
  }

 protected:
  [[nodiscard]] virtual Batch<T> compute(Time t) = 0;

 private:
  std::vector<std::pair<Time, Batch<T>>> made_;  // few: one an interval that is remembered
};

/// Makes a node and registers it.
template <class Node, class... Args>
[[nodiscard]] std::shared_ptr<Node> add_node(const std::shared_ptr<StreamingEngine>& engine, Args&&... args) {
  auto node = std::make_shared<Node>(engine, std::forward<Args>(args)...);
  engine->add(node);
  return node;
}

/// Whether the keys of a stream's records are those of its node, and whole.
template <class Chain>
[[nodiscard]] bool has_whole_keys(const Chain& chain) noexcept {
  return Chain::facts.keeps_partitions && chain.node().keys_are_whole();
}

/// A batch operator lifted over time: the batch at t is `g(batch of the parent at t, t)`.
template <class T, class Chain, class G>
class LiftedNode final : public StreamNode<T> {
 public:
  LiftedNode(std::shared_ptr<StreamingEngine> engine, std::string op, KeyUse use, Chain parent, G g)
      : StreamNode<T>{std::move(engine), std::move(op), parent.slide()}, parent_{std::move(parent)}, g_{std::move(g)} {
    this->grow_from(parent_.node());
    this->use_keys(use, has_whole_keys(parent_));
  }

 protected:
  [[nodiscard]] Batch<T> compute(Time t) override { return Batch<T>{g_(parent_.at(t), t)}; }

 private:
  Chain parent_;
  G g_;
};

/// The same with any number of parents of one slide.
template <class T, class G, class... Chains>
class JoinedNode final : public StreamNode<T> {
 public:
  JoinedNode(std::shared_ptr<StreamingEngine> engine, std::string op, KeyUse use, Duration slide, G g,
             Chains... parents)
      : StreamNode<T>{std::move(engine), std::move(op), slide}, parents_{std::move(parents)...}, g_{std::move(g)} {
    if constexpr (sizeof...(Chains) == 2) {
      this->grow_from(std::get<0>(parents_).node(), std::get<1>(parents_).node());
    } else {
      this->grow_from(std::get<0>(parents_).node());
      std::apply([this](const auto&... parent) { (this->joins(parent.node()), ...); }, parents_);
    }
    this->use_keys(use, std::apply([](const auto&... parent) { return (has_whole_keys(parent) && ...); }, parents_));
  }

 protected:
  [[nodiscard]] Batch<T> compute(Time t) override {
    return std::apply([&](const auto&... parent) { return Batch<T>{g_(parent.at(t)..., t)}; }, parents_);
  }

 private:
  std::tuple<Chains...> parents_;
  G g_;
};

/// A batch that comes from no stream: `make(t)`.
template <class T, class Make>
class SourceNode final : public StreamNode<T> {
 public:
  SourceNode(std::shared_ptr<StreamingEngine> engine, std::string op, Duration slide, Make make)
      : StreamNode<T>{std::move(engine), std::move(op), slide}, make_{std::move(make)} {}

  // What was cut belongs to t and to no other time for which the stream may be asked later.
  void on_cut(Time t) override { static_cast<void>(this->batch_at(t)); }

 protected:
  [[nodiscard]] Batch<T> compute(Time t) override {
    // What an earlier run took is not here any more. [R8]
    if (t <= this->engine()->resumed_from())
      return Batch<T>{std::make_shared<const VectorNode<T>>(this->engine()->scope_of(t), std::vector<T>{}, 1)};
    return make_(t);
  }

 private:
  Make make_;
};

/// An output operation on a stream: `f(batch, t)`.
template <class Chain, class F>
class BatchOutput final : public OutputOperation {
  using T = typename Chain::value_type;

 public:
  BatchOutput(std::string name, Chain chain, F f)
      : OutputOperation{std::move(name)}, chain_{std::move(chain)}, f_{std::move(f)} {}

  [[nodiscard]] std::function<void()> generate(Time t) override {
    if (!chain_.has_batch_at(t)) return nullptr;
    return [this, batch = Batch<T>{chain_.at(t)}, t] { f_(batch, t); };
  }

 private:
  Chain chain_;
  F f_;
};

template <class S>
[[nodiscard]] SinkHandle<S> add_sink(StreamingEngine& engine, std::shared_ptr<S> sink, std::string name) {
  auto transactions = std::make_shared<SinkTransactions>(sink, std::move(name));
  engine.add_sink(transactions);
  return {std::move(sink), std::move(transactions)};
}

/// One record or none, computed by the thread that runs the action: `make() -> std::vector<T>`.
template <class T, class Make>
class ComputedNode final : public PreparedNode<T> {
 public:
  ComputedNode(std::shared_ptr<const Scope> scope, Make make)
      : PreparedNode<T>{std::move(scope)}, make_{std::move(make)} {}
  [[nodiscard]] std::size_t partitions() const override { return 1; }
  [[nodiscard]] std::size_t size_hint() const override { return 1; }

 protected:
  void build(std::vector<std::vector<T>>& parts, std::vector<Arena>&) const override { parts[0] = make_(); }

 private:
  Make make_;
};

template <class T, class Make>
[[nodiscard]] Batch<T> computed_batch(std::shared_ptr<const Scope> scope, Make make) {
  return Batch<T>{std::make_shared<const ComputedNode<T, Make>>(std::move(scope), std::move(make))};
}

}  // namespace tidemill::detail
