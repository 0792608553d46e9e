// What the parts of the conformance program share. Each is in a file of its own.
#pragma once

#include <iostream>

#include "qm2/machine.hpp"

// Members stay in the order in which they are written.
using Line = nlohmann::ordered_json;
inline const std::string HOST = "c++17 wasmtime 50.0.1";

bool run_vectors(const qm2::Door &door, const std::string &folder);
void run_rate(const qm2::Door &door, const std::string &folder);
bool run_soak(const qm2::Door &door, std::uint64_t calls);
