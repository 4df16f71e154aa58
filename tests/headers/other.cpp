#include "everything.hpp"

std::string_view name_in_the_other_unit();
std::string_view name_in_the_other_unit() { return "tidemill"; }
