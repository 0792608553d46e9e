// QM2 in C++17: plans, envelopes, claims and questions over one WebAssembly component. See README.md beside this file.
#pragma once

#include "qm2/domain.hpp"
