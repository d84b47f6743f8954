// One source, several instruction sets: a kernel's .cpp file is compiled once for each, into the namespace that
// LINOCUT_ISA names, and the table of kernels is chosen at run time.
//
//   LINOCUT_EACH_ISA(void scan(const Scan& job);)     declares the function of every build, in a header
//   LINOCUT_CALL(scan, job)                            calls the one for this machine
//
// What a kernel file shares with another build must not be an inline function of the linker's choice: compiled for
// AVX-512 it would run on machines without. So kernels use the always-inline functions of simd.hpp and tile.hpp, which
// live in the build's own namespace, and nothing of std:: that is not a type.
#pragma once

#if defined(__x86_64__)
#define LINOCUT_EACH_ISA(declaration) \
  namespace v2 {                      \
  declaration                         \
  }                                   \
  namespace v3 {                      \
  declaration                         \
  }                                   \
  namespace v4 {                      \
  declaration                         \
  }                                   \
  namespace v4bf16 {                  \
  declaration                         \
  }
#define LINOCUT_CALL(function, ...)                                             \
  (::linocut::isa() == ::linocut::Isa::v4bf16 ? v4bf16::function(__VA_ARGS__) \
   : ::linocut::isa() == ::linocut::Isa::v4   ? v4::function(__VA_ARGS__)     \
   : ::linocut::isa() == ::linocut::Isa::v3   ? v3::function(__VA_ARGS__)     \
                                              : v2::function(__VA_ARGS__))
#else
#define LINOCUT_EACH_ISA(declaration) \
  namespace plain {                   \
  declaration                         \
  }
#define LINOCUT_CALL(function, ...) plain::function(__VA_ARGS__)
#endif

namespace linocut {

// x86-64-v2 (SSE4.2), v3 (AVX2, FMA), v4 (AVX-512), v4bf16 (v4 with products of bf16); plain is what the compiler takes
// for another architecture (NEON).
enum class Isa { plain, v2, v3, v4, v4bf16 };

// The build in use: the widest that this machine runs, unless another was chosen.
Isa isa();

// The widest build this machine runs.
Isa widest_isa();

// Uses another build from now on; the caller has checked that it is not wider than widest_isa().
void use_isa(Isa isa);

}  // namespace linocut
