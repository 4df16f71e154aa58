// expect: flat_map: the function must return a range, such as a std::vector
#include "tidemill/batch/batch.hpp"

int main() {
  const auto numbers = tidemill::Context{}.parallelize(std::vector{1, 2, 3});
#ifdef LEGAL_TWIN
  (void)numbers.flat_map([](int x) { return std::vector{x}; }).count();
#else
  (void)numbers.flat_map([](int x) { return x; }).count();
#endif
}
