// expect: reduce_by_key needs a batch of std::pair; call key_by first
#include <functional>

#include "tidemill/batch/batch.hpp"

int main() {
  const auto numbers = tidemill::Context{}.parallelize(std::vector{1, 2, 3});
#ifdef LEGAL_TWIN
  (void)numbers.key_by([](int x) { return x % 2; }).reduce_by_key(std::plus<>{}).count();
#else
  (void)numbers.reduce_by_key(std::plus<>{}).count();
#endif
}
