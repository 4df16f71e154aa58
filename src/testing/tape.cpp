#include "tidemill/testing/tape.hpp"

namespace tidemill::testing::detail {

StateSchema TapePosition::schema() const { return {.kind = "tape", .key = "u8", .value = "u64", .parameters = {}}; }

void TapePosition::restore(KeyGroup, std::string_view, std::string_view value) {
  position_ = decode<std::uint64_t>(value);
}

void TapePosition::take_changes(StateChanges& to) { to.put(0, std::uint8_t{0}, position_); }

}  // namespace tidemill::testing::detail
