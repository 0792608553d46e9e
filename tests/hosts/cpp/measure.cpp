// The parts of the conformance program but the vectors, in one translation unit, which compiles faster than its parts.

#include "conformance.cpp"
#include "rate.cpp"
#include "soak.cpp"
