// The adapter in one translation unit, which compiles in a third of the time; compile this one file into a program.

#include "door.cpp"
#include "machine.cpp"
#include "store.cpp"
