// The conformance program: `vectors`, `rate` and `soak`, for each door. Here are only its arguments.

#include "conformance.hpp"

#include <map>

int main(int count, char **values) try {
  std::map<std::string, std::string> options;
  std::string what = count > 1 ? values[1] : "";
  for (int at = 2; at + 1 < count; at += 2)
    options[values[at]] = values[at + 1];
  if (count % 2 != 0 || (what != "vectors" && what != "rate" && what != "soak") || options["--component"].empty()) {
    std::cerr << "conformance vectors|rate|soak --component FILE [--core FILE] [--vectors DIR] [--workload DIR] [--calls N] "
                 "[--door records|json|core]\n";
    return 2;
  }
  auto doors = qm2::component_doors(options["--component"]);
  if (!options["--core"].empty())
    doors.push_back(qm2::core_door(options["--core"]));
  bool good = true;
  for (const auto &door : doors) {
    if (!options["--door"].empty() && options["--door"] != door.name)
      continue;
    if (what == "vectors")
      good &= run_vectors(door, options["--vectors"]);
    else if (what == "rate")
      run_rate(door, options["--workload"]);
    else
      good &= run_soak(door, options["--calls"].empty() ? 1'000'000 : std::stoull(options["--calls"]));
  }
  return good ? 0 : 1;
} catch (const std::exception &error) {
  std::cerr << error.what() << "\n";
  return 1;
}
