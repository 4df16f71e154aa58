// expect: a join needs batches of std::pair on both sides; call key_by first
#include "tidemill/batch/batch.hpp"

int main() {
  const auto numbers = tidemill::Context{}.parallelize(std::vector{1, 2, 3});
  const auto keyed = numbers.key_by([](int x) { return x % 2; });
#ifdef LEGAL_TWIN
  (void)keyed.join(keyed).count();
#else
  (void)keyed.join(numbers).count();
#endif
}
