// expect: map: the function must return the new record; to act on each record use foreach
#include "tidemill/batch/batch.hpp"

int main() {
  const auto numbers = tidemill::Context{}.parallelize(std::vector{1, 2, 3});
#ifdef LEGAL_TWIN
  numbers.foreach ([](int) {});
#else
  (void)numbers.map([](int) {}).count();
#endif
}
