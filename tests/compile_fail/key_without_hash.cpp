// expect: needs operator== and a hash; specialise tidemill::Hash for
#include "tidemill/batch/batch.hpp"

struct Id {
  int value;
  friend bool operator==(const Id&, const Id&) = default;
};
#ifdef LEGAL_TWIN
template <>
struct tidemill::Hash<Id> {
  std::uint64_t operator()(const Id& id) const noexcept { return tidemill::hash_of(id.value); }
};
#endif

int main() { (void)tidemill::Context{}.parallelize(std::vector<Id>{{1}, {2}}).distinct().count(); }
