// The machine that figures were measured on; it stands at the head of every report.
//
//   const MachineInfo machine = ReadMachineInfo();
//   MachineText(machine);   // "Intel(R) Xeon(R) Processor, 2 threads of 2 cores, ISA amx, load 0.12, swiftkv 0.1.0"
#ifndef SWIFTKV_BENCH_MACHINE_H_
#define SWIFTKV_BENCH_MACHINE_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace swiftkv {

struct MachineInfo {
  std::string cpu;
  std::string isa;  // the backend in use
  std::string gpu;  // that the model runs on; empty: none
  int threads = 0;
  int cores = 0;  // that this process may use
  double memory_gib = 0;
  double load = 0;   // mean number of runnable threads in the last minute, before this run
  std::string date;  // UTC, "2026-11-25T10:30:00Z"
};

// /proc/cpuinfo's model name, or "unknown".
std::string CpuModel();
MachineInfo ReadMachineInfo();

std::string MachineText(const MachineInfo& machine);
nlohmann::ordered_json MachineJson(const MachineInfo& machine);

}  // namespace swiftkv

#endif  // SWIFTKV_BENCH_MACHINE_H_
