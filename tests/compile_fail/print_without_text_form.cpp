// expect: no text form for this type: give it
#include "tidemill/core/text_form.hpp"

class Price {
 public:
  explicit Price(long cents) : cents_{cents} {}
  [[nodiscard]] long cents() const { return cents_; }

 private:
  long cents_;
};
#ifdef LEGAL_TWIN
std::string to_text(const Price& price) { return std::to_string(price.cents()); }
#endif

int main() { return static_cast<int>(tidemill::text_of(Price{1}).size()); }
