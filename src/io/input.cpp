#include "tidemill/io/input.hpp"

namespace tidemill::detail {

InputHost::~InputHost() = default;
Input::~Input() = default;

}  // namespace tidemill::detail
