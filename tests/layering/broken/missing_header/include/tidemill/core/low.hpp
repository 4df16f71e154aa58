#pragma once
#include "tidemill/core/gone.hpp"
