// expect: this record has no codec; specialise tidemill::Codec for its type
#include "tidemill/batch/batch.hpp"

class Price {
 public:
  explicit Price(long cents) : cents_{cents} {}
  [[nodiscard]] long cents() const { return cents_; }

 private:
  long cents_;
};
#ifdef LEGAL_TWIN
template <>
struct tidemill::Codec<Price> {
  static void write(Encoder& to, const Price& price) { to.fixed(price.cents()); }
  static Price read(Decoder& from) { return Price{from.fixed<long>()}; }
};
#endif

int main() { tidemill::Context{}.parallelize(std::vector<Price>{Price{1}}).save_as_object_file("prices"); }
