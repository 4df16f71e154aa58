// A program that is started again on a checkpoint whose checksums are right and whose contents are not: arbitrary bytes as an
// entry of a state, as the plan of an input, as a block of a receiver's log. It runs, or says what is wrong; never an
// assertion of ours. The first byte chooses what, the second which and how.
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tidemill/dstream/streaming_context.hpp"
#include "tidemill/testing/sim_fs.hpp"

namespace {

using namespace std::chrono_literals;
using tidemill::testing::SimFs;

// Bytes that are written as they are.
struct Raw {
  std::string_view bytes;
};

}  // namespace

template <>
struct tidemill::Codec<Raw> {
  static void write(Encoder& to, const Raw& raw) { to.bytes(std::as_bytes(std::span{raw.bytes})); }
  static Raw read(Decoder&) { return {}; }
};

namespace {

using namespace tidemill;
using Count = std::pair<std::string, long>;

// An input whose blocks come from the program itself.
template <class Block>
class Blocks final : public detail::BlockInput<Block> {
 public:
  Blocks(std::shared_ptr<Clock> clock, std::string name)
      : detail::BlockInput<Block>{std::move(clock), {}}, name_{std::move(name)} {}
  [[nodiscard]] std::string name() const override { return name_; }

 private:
  void start_receiving(detail::InputHost&, std::size_t) override {}
  void stop_receiving() noexcept override {}
  const std::string name_;
};

class Feed final : public Receiver<Count> {
 public:
  void put(std::vector<Count> records) { static_cast<void>(this->store(std::move(records))); }

 private:
  void on_start() override {}
  void on_stop() override {}
};

// Every kind of state, and of input.
struct Program {
  std::shared_ptr<ManualClock> clock;
  std::shared_ptr<Feed> feed = std::make_shared<Feed>();
  std::shared_ptr<Blocks<TextBlock>> lines;
  std::shared_ptr<Blocks<detail::RawBlock>> raw;
  std::function<void()> on_batch = [] {};
  std::unique_ptr<StreamingContext> ssc;

  Program(const std::shared_ptr<SimFs>& disk, Duration since_start)
      : clock{std::make_shared<ManualClock>(Time{1000s} + since_start)} {
    RecoveryOptions options{.log_received = true};
    options.received.segment_bytes = 4096;
    options.store.plan_segment_bytes = options.store.commit_segment_bytes = 4096;
    const Context context{
        {.app_name = "fuzzed", .parallelism = 1, .executor = nullptr, .clock = clock, .log = nullptr, .fs = disk}};
    ssc = StreamingContext::get_or_create(
        "checkpoint", [&] { return build(context); }, options);
  }
  void run() const {
    while (ssc->step()) {
    }
  }

 private:
  template <class T, class Input, class Make>
  static DStream<T> stream_of(StreamingContext& ssc, const std::shared_ptr<Input>& input, Make make) {
    const auto& engine = ssc.engine();
    const std::size_t id = engine->add_input(input);
    auto node =
        detail::add_node<detail::SourceNode<T, Make>>(engine, input->name(), engine->batch_interval(), std::move(make));
    engine->name_input(id, node);
    return DStream<T>{std::move(node)};
  }

  std::unique_ptr<StreamingContext> build(const Context& context) {
    auto fresh = std::make_unique<StreamingContext>(context, 1s);
    const auto look = [](const auto& batch) { static_cast<void>(batch.collect()); };
    const auto counts = fresh->receiver_stream(feed);
    counts.foreach_batch([this](const Batch<Count>&) { on_batch(); });
    counts
        .map_with_state(state_spec<long>([](const std::string& word, std::optional<long> one, State<long>& state) {
                          if (!state.is_timing_out()) state.update(state.get_option().value_or(0) + one.value_or(0));
                          return Count{word, state.get()};
                        }).timeout(3s))
        .foreach_batch(look);
    counts
        .update_state_by_key<std::string>([](const std::vector<long>& values, std::optional<std::string> state) {
          return std::optional{state.value_or("") + std::string(values.size(), 'x')};
        })
        .foreach_batch(look);
    counts.reduce_by_key_and_window(std::plus<>{}, 3s, 1s, 2).foreach_batch(look);
    counts.reduce_by_key_and_window(std::plus<>{}, std::minus<>{}, 4s, 1s, 2).foreach_batch(look);
    counts.group_by_key_and_window(3s, 1s).foreach_batch(look);
    lines = std::make_shared<Blocks<TextBlock>>(clock, "lines");
    stream_of<std::string_view>(*fresh, lines, [engine = fresh->engine().get(), input = lines](Time t) {
      return detail::text_blocks_batch(engine->scope_of(t), input->take_cut(), 1);
    }).foreach_batch(look);
    raw = std::make_shared<Blocks<detail::RawBlock>>(clock, "raw");
    stream_of<Count>(*fresh, raw, [engine = fresh->engine().get(), input = raw](Time t) {
      return detail::raw_blocks_batch<Count>(engine->scope_of(t), input->take_cut(), 1);
    }).foreach_batch(look);
    fresh->text_file_stream("in").foreach_batch(look);
    return fresh;
  }
};

// Killed within its fourth batch.
const SimFs& good_disk() {
  static const std::shared_ptr<SimFs> killed = [] {
    const auto disk = std::make_shared<SimFs>(1);
    disk->make_directory("in");
    std::shared_ptr<SimFs> copy;
    Program program{disk, 0s};
    program.ssc->start(Drive::by_host);
    for (int batch = 0; batch < 4; ++batch) {
      program.feed->put({{"a", 1}, {"b", batch}});
      static_cast<void>(program.lines->inbox().offer(TextBlock::of("one\ntwo\n")));
      const std::string block = encode_raw_block(std::vector<Count>{{"c", 1}, {"d", 2}}).substr(8);
      std::string logged;
      Encoder{logged}.varint(2);
      Encoder{logged}.varint(0);
      static_cast<void>(program.raw->inbox().offer(detail::BlockTraits<detail::RawBlock>::decode(logged + block)));
      disk->set_time(program.clock->now() + 500ms);
      disk->set_contents("in/" + std::to_string(batch), "line\n");
      program.clock->advance(1s);
      if (batch == 3) program.on_batch = [&] { copy = disk->copy(1); };
      program.run();
    }
    copy->restart();
    return copy;
  }();
  return *killed;
}

void damage(const std::shared_ptr<SimFs>& disk, std::uint8_t what, std::uint8_t which, std::string_view bytes) {
  CheckpointOptions options;
  options.writer = CheckpointOptions::Writer::caller;
  options.fs = disk;
  options.plan_segment_bytes = options.commit_segment_bytes = 4096;
  CheckpointStore store{"checkpoint", options};
  const RunRecord run = store.last_run().value();
  const BatchPlan unfinished = store.uncommitted().at(0);
  store.begin_run(run);
  switch (what % 3) {
    case 0: {  // an entry
      std::vector<StateCommit> commits(1);
      commits[0].state = run.states.at(which % run.states.size()).name;
      const std::size_t key = bytes.empty() ? 0 : static_cast<std::uint8_t>(bytes[0]) % bytes.size();
      commits[0].changes.put(static_cast<KeyGroup>(which), Raw{bytes.substr(0, key)}, Raw{bytes.substr(key)});
      store.commit(unfinished.time, std::move(commits));
      break;
    }
    case 1: {  // a plan
      BatchPlan plan = unfinished;
      plan.time += 1s;
      plan.inputs.at(which % plan.inputs.size()).bytes = bytes;
      store.plan(plan);
      break;
    }
    default: {  // a block: its numbers, as they should be or not, and what is in it
      static constexpr const char* names[] = {"receiver", "lines", "raw"};
      BlockLogOptions small;
      small.segment_bytes = 4096;
      const auto log = store.open_block_log(names[which % 3], small);
      std::string block;
      if (which < 192) {
        Encoder to{block};
        to.fixed(std::uint64_t{8});
        to.fixed(static_cast<std::uint64_t>(which / 3 % 8));
      }
      block += bytes;
      log->append(block);
      log->sync();
      BatchPlan plan = unfinished;  // which takes a part of it
      plan.time += 1s;
      for (BatchPlan::Input& input : plan.inputs) {
        if (input.name != names[which % 3]) continue;
        input.bytes = detail::plan_of_range({.first = 8, .end = 8 + std::uint64_t{which} % 5, .logged = true});
      }
      if (which % 2 == 0) store.plan(plan);
    }
  }
  store.close();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const auto disk = good_disk().copy(1);
  damage(disk, data[0], data[1], {reinterpret_cast<const char*>(data) + 2, size - 2});
  try {
    Program program{disk, 4s};
    program.ssc->start(Drive::by_host);
    for (int batch = 0; batch < 3; ++batch) {
      program.clock->advance(1s);
      program.run();
    }
    if (program.ssc->state() == StreamingState::stopped) program.ssc->await_termination();
    program.ssc->stop();
  } catch (const InternalError& error) {
    std::cerr << "an assertion failed: " << error.what() << '\n';
    std::abort();
  } catch (const Error&) {  // what bytes like these are for
  }
  return 0;
}

#ifndef TIDEMILL_LIBFUZZER
#include "fuzz/random_inputs.hpp"

int main(int count, char** arguments) {
  char name[] = "restart_fuzz";
  char runs[] = "2000";
  char* few[] = {name, runs};
  return tidemill_fuzz::run_random_inputs(2, count > 1 ? arguments : few, {}, LLVMFuzzerTestOneInput);
}
#endif
