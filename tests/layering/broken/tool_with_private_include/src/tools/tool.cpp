#include "core/private.hpp"
#include <tidemill/core/low.hpp>
