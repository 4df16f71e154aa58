// A user's program. It is compiled as the outside project says, with none of the library's own flags.
#include <iostream>
#include <tidemill/core/time.hpp>

// Would not compile under -Wconversion -Wshadow -Werror, which are no business of the library's in a user's build.
int sloppy(int value) {
  int half = value / 2.0;
  {
    int value = half;
    return value;
  }
}

int main() {
  if (tidemill::to_string(tidemill::Duration{sloppy(2)}).empty()) return 1;
  std::cout << "a 2\nb 1\n";
}
