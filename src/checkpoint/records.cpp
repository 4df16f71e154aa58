#include "checkpoint/records.hpp"

namespace tidemill::detail {
namespace {

void write_states(Encoder& to, const std::vector<NamedState>& states) {
  to.varint(states.size());
  for (const NamedState& state : states) {
    to.text(state.name);
    to.text(state.schema.kind);
    to.text(state.schema.key);
    to.text(state.schema.value);
    to.text(state.schema.parameters);
  }
}

std::vector<NamedState> read_states(Decoder& from) {
  std::vector<NamedState> states;
  for (std::size_t count = from.count("a number of states"); count > 0; --count) {
    NamedState& state = states.emplace_back();
    state.name = from.text("the name of a state");
    state.schema.kind = from.text("the kind of a state");
    state.schema.key = from.text("the layout of keys");
    state.schema.value = from.text("the layout of values");
    state.schema.parameters = from.text("the parameters of a state");
  }
  return states;
}

void write_run(Encoder& to, const NumberedRun& numbered) {
  const RunRecord& run = numbered.run;
  to.fixed(numbered.number);
  to.text(run.app_name);
  to.fixed(stamp_of(run.zero_time));
  to.fixed(std::int64_t{run.batch_interval.count()});
  write_states(to, run.states);
  to.varint(run.inputs.size());
  for (const NamedInput& input : run.inputs) {
    to.text(input.name);
    to.text(input.kind);
    to.fixed(stamp_of(input.first_start));
  }
  to.text(run.engine);
}

NumberedRun read_run(Decoder& from) {
  NumberedRun numbered;
  RunRecord& run = numbered.run;
  numbered.number = from.fixed<std::uint64_t>("the number of a run");
  run.app_name = from.text("the name of the application");
  run.zero_time = time_of(from.fixed<std::int64_t>("the zero time"));
  run.batch_interval = Duration{from.fixed<std::int64_t>("the batch interval")};
  run.states = read_states(from);
  for (std::size_t count = from.count("a number of inputs"); count > 0; --count) {
    NamedInput& input = run.inputs.emplace_back();
    input.name = from.text("the name of an input");
    input.kind = from.text("the kind of an input");
    input.first_start = time_of(from.fixed<std::int64_t>("the first start of an input"));
  }
  run.engine = from.text("the bytes of the engine");
  return numbered;
}

Decoder decoder_of(std::string_view bytes) { return Decoder{bytes_of(bytes)}; }

}  // namespace

std::string encode_run(const NumberedRun& run) {
  std::string bytes;
  Encoder to{bytes};
  write_run(to, run);
  return bytes;
}

NumberedRun decode_run(std::string_view bytes) {
  Decoder from = decoder_of(bytes);
  NumberedRun run = read_run(from);
  from.expect_end();
  return run;
}

std::string encode_plan(const PlanRecord& record) {
  std::string bytes;
  Encoder to{bytes};
  to.fixed(record.run);
  to.fixed(static_cast<std::uint8_t>(record.witness ? 1 : 0));
  if (record.witness) {
    to.fixed(record.witness->time);
    to.fixed(record.witness->chain);
  }
  to.varint(record.plan.inputs.size());
  for (const BatchPlan::Input& input : record.plan.inputs) {
    to.text(input.name);
    to.text(input.bytes);
  }
  to.text(record.plan.engine);
  return bytes;
}

PlanRecord decode_plan(std::int64_t stamp, std::string_view bytes) {
  Decoder from = decoder_of(bytes);
  PlanRecord record;
  record.plan.time = time_of(stamp);
  record.run = from.fixed<std::uint64_t>("the number of a run");
  if (from.fixed<std::uint8_t>("whether there was a commit") != 0) {
    Witness witness;
    witness.time = from.fixed<std::int64_t>("the time of a commit");
    witness.chain = from.fixed<std::uint32_t>("the checksum of a commit");
    record.witness = witness;
  }
  for (std::size_t count = from.count("a number of inputs"); count > 0; --count) {
    BatchPlan::Input& input = record.plan.inputs.emplace_back();
    input.name = from.text("the name of an input");
    input.bytes = from.text("the bytes of an input");
  }
  record.plan.engine = from.text("the bytes of the engine");
  from.expect_end();
  return record;
}

std::string encode_snapshot_head(const SnapshotHead& head) {
  std::string bytes;
  Encoder to{bytes};
  to.fixed(head.time);
  to.fixed(head.position.segment);
  to.fixed(head.position.offset);
  to.fixed(head.position.chain);
  to.fixed(head.plan_segment);
  write_run(to, head.run);
  write_states(to, head.states);
  return bytes;
}

SnapshotHead decode_snapshot_head(std::string_view bytes) {
  Decoder from = decoder_of(bytes);
  SnapshotHead head;
  head.time = from.fixed<std::int64_t>("the time of a commit");
  head.position.segment = from.fixed<std::uint64_t>("the number of a segment");
  head.position.offset = from.fixed<std::uint64_t>("a place in a segment");
  head.position.chain = from.fixed<std::uint32_t>("the checksum of a commit");
  head.plan_segment = from.fixed<std::uint64_t>("the number of a segment");
  head.run = read_run(from);
  head.states = read_states(from);
  from.expect_end();
  return head;
}

// For each state the number of its entries, the number of groups that have any, and of each its number and the bytes it takes.
std::string encode_snapshot_end(const SnapshotEnd& end) {
  std::string bytes;
  Encoder to{bytes};
  for (const SnapshotState& state : end) {
    to.fixed(state.entries);
    std::uint16_t groups = 0;
    for (std::size_t group = 0; group < key_groups; ++group) groups += state.groups[group] < state.groups[group + 1];
    to.fixed(groups);
    for (std::size_t group = 0; group < key_groups; ++group) {
      if (state.groups[group] == state.groups[group + 1]) continue;
      to.fixed(static_cast<std::uint8_t>(group));
      to.fixed(state.groups[group + 1] - state.groups[group]);
    }
  }
  return bytes;
}

SnapshotEnd decode_snapshot_end(const SnapshotHead& head, std::string_view bytes) {
  Decoder from = decoder_of(bytes);
  SnapshotEnd end;
  for (const NamedState& named : head.states) {
    SnapshotState& state = end.emplace_back();
    state.entries = from.fixed<std::uint64_t>("a number of entries");
    std::array<std::uint64_t, key_groups> sizes{};
    for (auto groups = from.fixed<std::uint16_t>("a number of groups"); groups > 0; --groups) {
      const auto group = from.fixed<std::uint8_t>("a group");
      sizes[group] = from.fixed<std::uint64_t>("the size of a group");
    }
    state.groups[0] = state_head_bytes(named.name);
    for (std::size_t group = 0; group < key_groups; ++group)
      state.groups[group + 1] = state.groups[group] + sizes[group];
  }
  from.expect_end();
  return end;
}

std::string commit_head(std::uint32_t plan_chain, std::size_t states) {
  std::string bytes;
  Encoder to{bytes};
  to.fixed(plan_chain);
  to.fixed(static_cast<std::uint32_t>(states));
  return bytes;
}

std::string commit_state(std::string_view name, std::uint64_t size) {
  std::string bytes;
  Encoder to{bytes};
  to.fixed(static_cast<std::uint32_t>(name.size()));
  to.bytes(bytes_of(name));
  to.fixed(size);
  return bytes;
}

}  // namespace tidemill::detail
