// The work of an agent.

#include "agent.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <unistd.h>

#include <nlohmann/json.hpp>

namespace {

using Json = nlohmann::json;

void say(const Json &line) { std::cout << line.dump() << std::endl; }

Json hear() {
  std::string line;
  if (!std::getline(std::cin, line))
    std::exit(1); // the host is gone, and with it the right to write
  return Json::parse(line);
}

std::vector<std::string> read_lines(const std::string &path) {
  std::vector<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    lines.push_back(line);
  return lines;
}

void write_lines(const std::string &path, const std::vector<std::string> &lines) {
  {
    std::ofstream file(path + ".new");
    for (const auto &line : lines)
      file << line << "\n";
  }
  std::rename((path + ".new").c_str(), path.c_str());
}

} // namespace

int run_agent() {
  auto envelope = hear().at("envelope");
  auto work = Json::parse(envelope.at("payload").get<std::string>());
  auto file = work.at("file").get<std::string>();
  if (work.at("do") == "append") {
    auto count = work.at("count").get<int>();
    for (int number = 0; number < count; ++number) {
      auto text = envelope.at("stepId").get<std::string>() + " " + std::to_string(number);
      auto lines = read_lines(file); // read, think, write back: two at once would lose lines
      if (std::find(lines.begin(), lines.end(), text) != lines.end())
        continue; // an earlier attempt wrote it
      usleep(50'000);
      for (const auto &held : envelope.at("tokens")) {
        say({{"check", held}});
        if (!hear().at("allowed").get<bool>())
          return 75;
      }
      lines.push_back(text);
      write_lines(file, lines);
    }
    say({{"report", std::to_string(count) + " lines"}});
  } else {
    auto lines = read_lines(file);
    say({{"question", "Publish " + std::to_string(lines.size()) + " lines?"}});
    auto answer = hear().at("answer").get<std::string>();
    write_lines(work.at("to"), lines);
    say({{"report", "published; the answer was: " + answer}});
  }
  return 0;
}
