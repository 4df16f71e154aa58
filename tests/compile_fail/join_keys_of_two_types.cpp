// expect: the keys of both sides must be of the same type (std::string and std::string_view are)
#include <string>
#include <string_view>

#include "tidemill/batch/batch.hpp"

int main() {
  const tidemill::Context context;
  const auto names = context.parallelize(std::vector<std::pair<std::string, int>>{{"a", 1}});
#ifdef LEGAL_TWIN
  const auto others = context.parallelize(std::vector<std::pair<std::string_view, int>>{{"a", 1}});
#else
  const auto others = context.parallelize(std::vector<std::pair<int, int>>{{1, 1}});
#endif
  (void)names.join(others).count();
}
