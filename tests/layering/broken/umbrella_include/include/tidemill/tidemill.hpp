#pragma once
#include "tidemill/exec/high.hpp"
