// Tape<T>: an input that can be read again, for tests of programs that must survive a restart. It outlives the context, as a
// broker or a file system would: what one context has taken, another one can take again.
//
//     tidemill::testing::Tape<std::string> tape;
//     {
//       auto ssc = StreamingContext::get_or_create(dir, [&] { … tape.stream(*fresh) … });
//       tape.write({"a", "b"});
//       …                                              // and here it is killed
//     }
//     auto ssc = StreamingContext::get_or_create(dir, …); // goes on where the first one stood
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tidemill/core/codec.hpp"
#include "tidemill/dstream/streaming_context.hpp"
#include "tidemill/io/input.hpp"
#include "tidemill/state/durable_state.hpp"

namespace tidemill::testing {
namespace detail {

/// Where the reading of a tape stands. A checkpoint keeps it as its only entry.
class TIDEMILL_API TapePosition final : public DurableState {
 public:
  [[nodiscard]] std::uint64_t get() const noexcept { return position_; }
  void set(std::uint64_t position) noexcept { position_ = position; }

  [[nodiscard]] StateSchema schema() const override;
  void track_changes() override {}
  void restore(KeyGroup group, std::string_view key, std::string_view value) override;
  void restored(Time) override {}
  void take_changes(StateChanges& to) override;

 private:
  std::uint64_t position_ = 0;
};

}  // namespace detail

/// Threads: `write` from any thread; each context that reads it, from its own.
template <class T>
class Tape {
 public:
  /// Appends records; a batch takes all that is there when it is cut.
  void write(std::vector<T> records) {
    const std::scoped_lock lock{reel_->mutex};
    reel_->records.insert(reel_->records.end(), std::make_move_iterator(records.begin()),
                          std::make_move_iterator(records.end()));
  }

  /// The tape as a stream of this context, from the beginning, or from where the checkpoint says.
  [[nodiscard]] DStream<T> stream(StreamingContext& context) const {
    auto input = std::make_shared<Input>(reel_);
    const auto& engine = context.engine();
    const std::size_t id = engine->add_input(input);
    auto make = [engine = engine.get(), input](Time t) {
      return Batch<T>{
          std::make_shared<const tidemill::detail::VectorNode<T>>(engine->scope_of(t), input->take_cut(), 1)};
    };
    using Node = tidemill::detail::SourceNode<T, decltype(make)>;
    auto node = tidemill::detail::add_node<Node>(engine, "tape", engine->batch_interval(), std::move(make));
    engine->name_input(id, node);
    return DStream<T>{std::move(node)};
  }

 private:
  struct Reel {
    std::mutex mutex;
    std::vector<T> records;  // guarded by mutex
  };

  class Input final : public tidemill::detail::Input {
   public:
    explicit Input(std::shared_ptr<Reel> reel) : reel_{std::move(reel)} {}
    [[nodiscard]] std::string name() const override { return "tape"; }
    void start(tidemill::detail::InputHost&, std::size_t stream_id) override { stream_id_ = stream_id; }
    void stop() noexcept override {}
    [[nodiscard]] bool has_pending() const noexcept override {
      const std::scoped_lock lock{reel_->mutex};
      return position_->get() < reel_->records.size();
    }
    InputInfo cut(Time, std::size_t max_records) override {
      std::uint64_t end = 0;
      {
        const std::scoped_lock lock{reel_->mutex};
        end = reel_->records.size();
      }
      return take(position_->get(),
                  std::min<std::uint64_t>(end, position_->get() + std::min<std::uint64_t>(max_records, end)));
    }
    [[nodiscard]] std::string plan() const override { return encode(std::pair{from_, position_->get()}); }
    InputInfo replay(Time, std::string_view plan) override {
      const auto [from, to] = decode<std::pair<std::uint64_t, std::uint64_t>>(plan);
      return take(from, to);
    }
    void add_positions(std::vector<InputPosition>& to) const override {
      to.push_back({.source = name(), .partition = 0, .next = position_->get()});
    }
    [[nodiscard]] std::shared_ptr<DurableState> durable_state() override { return position_; }

    [[nodiscard]] std::vector<T> take_cut() { return std::exchange(cut_, {}); }

   private:
    InputInfo take(std::uint64_t from, std::uint64_t to) {
      const std::scoped_lock lock{reel_->mutex};
      const auto at = [&](std::uint64_t i) { return reel_->records.begin() + static_cast<std::ptrdiff_t>(i); };
      cut_.assign(at(from), at(to));
      from_ = from;
      position_->set(to);
      return {.stream_id = stream_id_, .name = name(), .records = cut_.size(), .metadata = {}, .lost = 0};
    }

    std::shared_ptr<Reel> reel_;  // shared with the tape and other readers
    std::shared_ptr<detail::TapePosition> position_ =
        std::make_shared<detail::TapePosition>();  // shared with the engine
    std::uint64_t from_ = 0;
    std::vector<T> cut_;
    std::size_t stream_id_ = 0;
  };

  std::shared_ptr<Reel> reel_ = std::make_shared<Reel>();  // shared with the contexts that read it
};

}  // namespace tidemill::testing
