#include "tidemill/testing/memory_sink.hpp"

#include "tidemill/core/error.hpp"

namespace tidemill::testing::detail {

void MemoryStoreState::fail_at(std::uint64_t call, StoreFault fault, bool for_ever) {
  const std::scoped_lock lock{mutex};
  fails_at_ = calls_ + call;
  fault_ = fault;
  for_ever_ = for_ever;
  happened_ = false;
}

void MemoryStoreState::on_crash(std::function<void()> call) {
  const std::scoped_lock lock{mutex};
  on_crash_ = std::move(call);
}

void MemoryStoreState::restart() {
  const std::scoped_lock lock{mutex};
  is_dead_ = false;
  fault_ = StoreFault::none;
}

void MemoryStoreState::forget() {
  const std::scoped_lock lock{mutex};
  writers_.clear();
}

bool MemoryStoreState::fault_happened() const {
  const std::scoped_lock lock{mutex};
  return happened_;
}

std::uint64_t MemoryStoreState::calls() const {
  const std::scoped_lock lock{mutex};
  return calls_;
}

StoreFault MemoryStoreState::next_fault() {
  ++calls_;
  if (fault_ == StoreFault::none || calls_ < fails_at_ || (calls_ > fails_at_ && !for_ever_)) return StoreFault::none;
  happened_ = true;
  return fault_;
}

void MemoryStoreState::call(const char* what, const std::string& id, std::uint64_t epoch,
                            const std::function<void(Writer&)>& effect) {
  std::function<void()> crash;
  {
    const std::scoped_lock lock{mutex};
    if (is_dead_) throw SimCrash{};
    Writer& writer = writers_[id];
    const StoreFault fault = next_fault();
    if (fault == StoreFault::fence) ++writer.epoch;
    if (epoch != writer.epoch)
      throw SinkError("fenced", "memory: " + std::string{what} + " by a writer whose place another has taken",
                      Retry::is_useless);
    if (fault == StoreFault::none || fault == StoreFault::crash_after || fault == StoreFault::error_after)
      effect(writer);
    if (fault == StoreFault::none) return;
    if (fault == StoreFault::error_before || fault == StoreFault::error_after)
      throw SinkError("planted", "memory: " + std::string{what} + " failed, as it was told to", Retry::may_help);
    is_dead_ = true;
    crash = on_crash_;
  }
  if (crash) crash();
  throw SimCrash{};
}

std::uint64_t MemoryStoreState::open(const std::string& id) {
  std::uint64_t epoch = 0;
  {
    const std::scoped_lock lock{mutex};
    epoch = ++writers_[id].epoch;
  }
  call("open", id, epoch, [](Writer&) {});
  return epoch;
}

}  // namespace tidemill::testing::detail
