// Which instruction set's build of the loops an extension module uses, for its Python face.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "isa.hpp"

namespace linocut {

inline std::string isa_name(Isa isa) {
  switch (isa) {
    case Isa::v2: return "v2";
    case Isa::v3: return "v3";
    case Isa::v4: return "v4";
    case Isa::v4bf16: return "v4bf16";
    default: return "plain";
  }
}

inline std::vector<std::string> isas() {
  const auto widest = widest_isa();
  std::vector<std::string> result;
  for (auto isa : {Isa::v2, Isa::v3, Isa::v4, Isa::v4bf16}) {
    if (isa <= widest) result.push_back(isa_name(isa));
  }
  return result.empty() ? std::vector<std::string>{isa_name(widest)} : result;
}

inline void use_isa_named(const std::string& wanted) {
  for (auto isa : {Isa::plain, Isa::v2, Isa::v3, Isa::v4, Isa::v4bf16}) {
    const bool runs = isa <= widest_isa() && (isa != Isa::plain || isas().front() == "plain");
    if (runs && isa_name(isa) == wanted) return use_isa(isa);
  }
  std::string choice;
  for (const auto& isa : isas()) choice += (choice.empty() ? "" : ", ") + isa;
  throw nanobind::value_error(("instruction set must be one of " + choice + " on this machine, got " + wanted).c_str());
}

inline void bind_isa(nanobind::module_& m) {
  m.def("isas", &isas, "Instruction sets that this machine runs, narrowest first.");
  m.def("isa", [] { return isa_name(isa()); }, "The instruction set in use.");
  m.def("use_isa", &use_isa_named, "Use another instruction set; for tests and comparisons.");
}

}  // namespace linocut
