// expect: sorting needs operator< for the key, or a function that compares two keys
#include <complex>

#include "tidemill/batch/batch.hpp"

int main() {
  const auto points = tidemill::Context{}.parallelize(std::vector<std::complex<double>>{{1, 2}, {3, 4}});
#ifdef LEGAL_TWIN
  (void)points.sort_by([](const std::complex<double>& z) { return z.real(); }).count();
#else
  (void)points.sort_by([](const std::complex<double>& z) { return z; }).count();
#endif
}
