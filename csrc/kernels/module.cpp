// The Python face of the kernels of the mixers, linocut._kernels; the data's kernels are in linocut._native, which
// needs neither torch nor OpenMP.

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "bind.hpp"
#include "isa.hpp"

namespace nb = nanobind;

namespace {

// Raised by one whenever a function's arguments or meaning change; src/linocut/native.py holds the same number.
constexpr int kInterface = 1;

std::string name(linocut::Isa isa) {
  switch (isa) {
    case linocut::Isa::v2: return "v2";
    case linocut::Isa::v3: return "v3";
    case linocut::Isa::v4: return "v4";
    default: return "plain";
  }
}

std::vector<std::string> isas() {
  const auto widest = linocut::widest_isa();
  std::vector<std::string> result;
  for (auto isa : {linocut::Isa::v2, linocut::Isa::v3, linocut::Isa::v4}) {
    if (isa <= widest) result.push_back(name(isa));
  }
  return result.empty() ? std::vector<std::string>{name(widest)} : result;
}

void use_isa(const std::string& wanted) {
  for (auto isa : {linocut::Isa::plain, linocut::Isa::v2, linocut::Isa::v3, linocut::Isa::v4}) {
    const bool runs = isa <= linocut::widest_isa() && (isa != linocut::Isa::plain || isas().front() == "plain");
    if (runs && name(isa) == wanted) return linocut::use_isa(isa);
  }
  std::string choice;
  for (const auto& isa : isas()) choice += (choice.empty() ? "" : ", ") + isa;
  throw nb::value_error(("instruction set must be one of " + choice + " on this machine, got " + wanted).c_str());
}

}  // namespace

NB_MODULE(_kernels, m) {
  m.doc() = "Kernels of linocut.ops, whose functions check what they are given.";
  m.attr("interface") = kInterface;
  m.def("isas", &isas, "Instruction sets that this machine runs, narrowest first.");
  m.def("isa", [] { return name(linocut::isa()); }, "The instruction set in use.");
  m.def("use_isa", &use_isa, "Use another instruction set; for tests and comparisons.");
  linocut::bind_channel_decay(m);
  linocut::bind_diagonal_recurrence(m);
  linocut::bind_gated_delta_rule(m);
  linocut::bind_gated_linear_attention(m);
  linocut::bind_linear_recurrence(m);
  linocut::bind_local_attention(m);
  linocut::bind_mamba_step(m);
  linocut::bind_selective_scan(m);
  linocut::bind_short_convolution(m);
  linocut::bind_wkv(m);
  linocut::bind_set_attention(m);
}
