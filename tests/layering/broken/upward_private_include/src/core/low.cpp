#include "../exec/private.hpp"
