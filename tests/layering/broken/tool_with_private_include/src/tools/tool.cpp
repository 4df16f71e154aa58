#include <tidemill/core/low.hpp>
#include "core/private.hpp"
