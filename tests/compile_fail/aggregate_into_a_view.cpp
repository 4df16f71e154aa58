// expect: aggregate: what it returns outlives the batch, so it must own what it holds
#include <string>
#include <string_view>

#include "tidemill/batch/batch.hpp"

#ifdef LEGAL_TWIN
using Text = std::string;
#else
using Text = std::string_view;
#endif

int main() {
  const auto words = tidemill::Context{}.parallelize(std::vector<std::string_view>{"a", "b"});
  const auto longer = [](Text a, std::string_view b) { return a.size() < b.size() ? Text{b} : a; };
  (void)words.aggregate(Text{}, longer, longer);
}
