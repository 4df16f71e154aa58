#pragma once
#include <tidemill/tidemill.hpp>
