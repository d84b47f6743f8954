#include "isa.hpp"

#include <atomic>

namespace linocut {

Isa widest_isa() {
#if defined(__x86_64__)
  const auto all = [](auto... has) { return (... && has); };
  const bool v3 = all(__builtin_cpu_supports("avx2"), __builtin_cpu_supports("fma"), __builtin_cpu_supports("bmi"),
                      __builtin_cpu_supports("bmi2"));
  const bool v4 = all(v3, __builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx512bw"),
                      __builtin_cpu_supports("avx512cd"), __builtin_cpu_supports("avx512dq"),
                      __builtin_cpu_supports("avx512vl"));
  const bool v4bf16 = all(v4, __builtin_cpu_supports("avx512bf16"));
  return v4bf16 ? Isa::v4bf16 : v4 ? Isa::v4 : v3 ? Isa::v3 : Isa::v2;
#else
  return Isa::plain;
#endif
}

namespace {

std::atomic<Isa>& chosen() {
  static std::atomic<Isa> value{widest_isa()};
  return value;
}

}  // namespace

Isa isa() { return chosen().load(std::memory_order_relaxed); }

void use_isa(Isa isa) { chosen().store(isa, std::memory_order_relaxed); }

}  // namespace linocut
