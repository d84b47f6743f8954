// One parallel region a call, and memory for each thread taken before it.
//
// torch brings its own copy of the OpenMP runtime under its plain name, so a library linked against that name and loaded
// after torch shares its threads; src/linocut/native.py loads this one after torch, and a test counts the copies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "simd.hpp"

namespace linocut::LINOCUT_ISA {

// Calls job(index, thread) for every index below count; thread < threads. Indices are dealt out as threads get free.
template <class Job>
void parallel_for(std::int64_t count, int threads, const Job& job) {
#ifdef _OPENMP
  if (threads > 1 && count > 1) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (std::int64_t index = 0; index < count; ++index) job(index, omp_get_thread_num());
    return;
  }
#endif
  (void)threads;
  for (std::int64_t index = 0; index < count; ++index) job(index, 0);
}

// `floats` floats for each of `count` threads, or for as many other parts of a job, 64-byte aligned, not initialised.
class Scratch {
 public:
  Scratch(std::ptrdiff_t count, std::size_t floats)
      : stride_((floats + 15) / 16 * 16),
        data_(static_cast<float*>(::operator new(sizeof(float) * stride_ * static_cast<std::size_t>(count),
                                                 std::align_val_t{64}))) {}
  ~Scratch() { ::operator delete(data_, std::align_val_t{64}); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  float* of(std::ptrdiff_t index) const { return data_ + stride_ * static_cast<std::size_t>(index); }

 private:
  std::size_t stride_;
  float* data_;
};

}  // namespace linocut::LINOCUT_ISA
