// With other.cpp: a function or variable that a header defines without `inline` is defined twice here.
#include "everything.hpp"

std::string_view name_in_the_other_unit();

int main() { return name_in_the_other_unit() == "tidemill" ? 0 : 1; }
