#include "tidemill/testing/stream_test.hpp"

namespace tidemill::testing {

ExpectationFailed::~ExpectationFailed() = default;

}  // namespace tidemill::testing
