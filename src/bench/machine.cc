#include "bench/machine.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <cstdlib>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/parallel.h"
#include "engine/memory.h"
#include "kernels/ops.h"

namespace swiftkv {

std::string CpuModel() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

MachineInfo ReadMachineInfo() {
  MachineInfo machine;
  machine.cpu = CpuModel();
  machine.isa = kernels::DefaultBackend().name();
  machine.threads = Threads();
  machine.cores = AvailableCores();
  machine.memory_gib = static_cast<double>(ReadMemoryInfo().total_bytes) / (1 << 30);
  double load = 0;
  if (getloadavg(&load, 1) == 1) machine.load = load;
  machine.date = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
  return machine;
}

std::string MachineText(const MachineInfo& machine) {
  return fmt::format("{}{}, {} threads of {} cores, ISA {}, load {:.2f}, swiftkv {}, {}",
                     machine.gpu.empty() ? "" : machine.gpu + ", ", machine.cpu, machine.threads, machine.cores,
                     machine.isa, machine.load, SWIFTKV_VERSION, machine.date);
}

nlohmann::ordered_json MachineJson(const MachineInfo& machine) {
  return {{"cpu_info", machine.cpu},      {"isa", machine.isa},
          {"gpu_info", machine.gpu},      {"n_threads", machine.threads},
          {"n_cores", machine.cores},     {"memory_gib", machine.memory_gib},
          {"load_average", machine.load}, {"swiftkv_version", SWIFTKV_VERSION},
          {"test_time", machine.date}};
}

}  // namespace swiftkv
