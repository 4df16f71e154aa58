#pragma once
#include <vector>

#include "tidemill/exec/high.hpp"
