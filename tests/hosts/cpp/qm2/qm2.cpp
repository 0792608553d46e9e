// The adapter in one translation unit, which compiles faster than its parts; compile this one file into a program.

#include "door.cpp"
#include "domain.cpp"
#include "machine.cpp"
#include "store.cpp"
