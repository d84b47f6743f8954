#include "linear_recurrence.hpp"

#include "threads.hpp"

namespace linocut::LINOCUT_ISA {
namespace {

// Channels walked together: four vectors, so that loads of neighbouring steps overlap.
constexpr int kVectors = 4, kBlock = kVectors * kLanes;

template <class T>
void forward(const LinearRecurrence& job) {
  const auto blocks = (job.channels + kBlock - 1) / kBlock;
  parallel_for(job.batch * blocks, job.threads, [&](std::ptrdiff_t index, int) {
    const auto batch = index / blocks, first = index % blocks * kBlock;
    const int width = static_cast<int>(job.channels - first < kBlock ? job.channels - first : kBlock);
    const auto start = batch * job.length * job.channels + first;
    const T *a = static_cast<const T*>(job.a) + start, *b = static_cast<const T*>(job.b) + start;
    T* h = static_cast<T*>(job.h) + start;
    vf state[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      state[v] = load_n(job.state + batch * job.channels + first + v * kLanes, width - v * kLanes);
    }
    for (std::ptrdiff_t t = 0; t < job.length; ++t, a += job.channels, b += job.channels, h += job.channels) {
      for (int v = 0; v < kVectors; ++v) {
        const int left = width - v * kLanes;
        state[v] = load_n(a + v * kLanes, left) * state[v] + load_n(b + v * kLanes, left);
        store_n(h + v * kLanes, state[v], left);
      }
    }
    for (int v = 0; v < kVectors; ++v) {
      store_n(job.last + batch * job.channels + first + v * kLanes, state[v], width - v * kLanes);
    }
  });
}

template <class T>
void backward(const LinearRecurrenceGrad& grad) {
  const LinearRecurrence& job = grad.forward;
  const auto blocks = (job.channels + kLanes - 1) / kLanes;
  parallel_for(job.batch * blocks, job.threads, [&](std::ptrdiff_t index, int) {
    const auto batch = index / blocks, first = index % blocks * kLanes;
    const int width = static_cast<int>(job.channels - first < kLanes ? job.channels - first : kLanes);
    const auto corner = batch * job.channels + first;
    vf g = load_n(grad.grad_last + corner, width);
    for (std::ptrdiff_t t = job.length - 1; t >= 0; --t) {
      const auto at = (batch * job.length + t) * job.channels + first;
      const vf before = t > 0 ? load_n(static_cast<const T*>(job.h) + at - job.channels, width)
                              : load_n(job.state + corner, width);
      g += load_n(static_cast<const T*>(grad.grad_h) + at, width);
      store_n(static_cast<T*>(grad.grad_a) + at, g * before, width);
      store_n(static_cast<T*>(grad.grad_b) + at, g, width);
      g *= load_n(static_cast<const T*>(job.a) + at, width);
    }
    store_n(grad.grad_state + corner, g, width);
  });
}

}  // namespace

void linear_recurrence(const LinearRecurrence& job) { job.half ? forward<bf16>(job) : forward<float>(job); }

void linear_recurrence_grad(const LinearRecurrenceGrad& job) {
  job.forward.half ? backward<bf16>(job) : backward<float>(job);
}

}  // namespace linocut::LINOCUT_ISA
