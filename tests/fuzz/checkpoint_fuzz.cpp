// A checkpoint directory of which one file is replaced by arbitrary bytes, or has some of them. Every outcome is a checkpoint
// that can be read, or StateError. The first two bytes choose file and manner.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/harness.hpp"
#include "tidemill/checkpoint/checkpoint_view.hpp"

namespace {

using namespace tidemill_test;

const SimFs& good_disk() {
  static const std::shared_ptr<SimFs> disk = [] {
    auto made = std::make_shared<SimFs>(1);
    Program program;
    program.batches = 20;
    program.run(made);
    program.leave_uncommitted(made);
    CheckpointStore store{"checkpoint", small_options(made)};
    tidemill::BlockLogOptions options;
    options.segment_bytes = 4096;
    const auto log = store.open_block_log("r", options);
    for (int i = 0; i < 20; ++i) log->append("block " + std::to_string(i));
    log->sync();
    return made;
  }();
  return *disk;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 4) return 0;
  static const std::vector<std::string> files = good_disk().files();
  const std::string& file = files[data[0] % files.size()];
  const auto disk = good_disk().copy(1);
  disk->restart();
  std::string bytes = disk->contents(file);
  const std::string_view input{reinterpret_cast<const char*>(data) + 4, size - 4};
  const std::size_t at = bytes.empty() ? 0 : (data[2] + 256U * data[3]) % bytes.size();
  switch (data[1] % 4) {
    case 0: bytes = input; break;
    case 1: bytes.replace(at, std::min(input.size(), bytes.size() - at), input.substr(0, bytes.size() - at)); break;
    case 2: bytes.insert(at, input); break;
    default: bytes = bytes.substr(0, at).append(input); break;
  }
  disk->set_contents(file, bytes);
  try {
    const tidemill::CheckpointView view{"checkpoint", disk};
    static_cast<void>(view.files());
    static_cast<void>(view.summary());
    view.dump_states({}, [](std::string_view) {});
    view.dump_logs([](std::string_view) {});
  } catch (const StateError&) {  // what damaged bytes are for
  }
  try {
    CheckpointStore store{"checkpoint", small_options(disk)};
    static_cast<void>(states_in(store));
    tidemill::BlockLogOptions options;
    options.segment_bytes = 4096;
    options.skip_corrupt_blocks = data[1] > 127;
    const auto log = store.open_block_log("r", options);
    log->read(log->first_id(), log->end_id(), [](std::uint64_t, std::string_view) {});
  } catch (const StateError&) {
  }
  return 0;
}

#ifndef TIDEMILL_LIBFUZZER
#include "fuzz/random_inputs.hpp"

int main(int count, char** arguments) {
  return tidemill_fuzz::run_random_inputs(count, arguments, {}, LLVMFuzzerTestOneInput);
}
#endif
