#include "wkv.hpp"

#include "threads.hpp"

namespace linocut::LINOCUT_ISA {
namespace {

// What a token multiplies the past and itself by: in the output, divided by the sum of weights, and in the state.
struct Weights {
  vf out_past, out_own, past, own;
};

struct State {
  vf num, den, top;

  // Two exponents, of which the larger becomes 0: only one exp of something that is not positive.
  LINOCUT_INLINE static void balance(vf gap, vf* first, vf* second) {
    const vf zero = splat(0.0f), one = splat(1.0f);
    const vf less = exp(gap > zero ? -gap : gap);
    *first = gap > zero ? one : less;
    *second = gap > zero ? less : one;
  }

  // Moves on by one token; gives the weights it did that with.
  LINOCUT_INLINE Weights step(vf k, vf v, vf w, vf u) {
    Weights by;
    balance(top - (k + u), &by.out_past, &by.out_own);
    const vf scale = 1.0f / (by.out_past * den + by.out_own);
    by.out_past *= scale;
    by.out_own *= scale;
    const vf faded = top - w;
    balance(faded - k, &by.past, &by.own);
    num = by.past * num + by.own * v;
    den = by.past * den + by.own;
    top = max(faded, k);
    return by;
  }
};

// The channels [first, first + width) of one sequence.
struct Block {
  std::ptrdiff_t batch, first;
  int width;
};

LINOCUT_INLINE Block block_of(std::ptrdiff_t index, std::ptrdiff_t channels, int lanes) {
  const auto blocks = (channels + lanes - 1) / lanes, first = index % blocks * lanes;
  return {index / blocks, first, static_cast<int>(channels - first < lanes ? channels - first : lanes)};
}

template <class T, int Vectors>
LINOCUT_INLINE void forward_block(const Wkv& job, const Block& block) {
  const auto channels = job.channels, pieces = job.length > 0 ? (job.length - 1) / kWkvChunk : 0;
  const auto row = block.batch * channels + block.first;
  State state[Vectors];
  vf w[Vectors], u[Vectors];
  for (int i = 0; i < Vectors; ++i) {
    const int at = i * kLanes, left = block.width - at;
    w[i] = load_n(job.w + block.first + at, left);
    u[i] = load_n(job.u + block.first + at, left);
    state[i] = {load_n(job.num + row + at, left), load_n(job.den + row + at, left), load_n(job.top + row + at, left)};
  }
  // offsets, not pointers: an empty tensor has none
  const auto start = block.batch * job.length * channels + block.first;
  for (std::ptrdiff_t t = 0; t < job.length; ++t) {
    if (t > 0 && t % kWkvChunk == 0) {
      float* kept = job.chunks + (block.batch * pieces + t / kWkvChunk - 1) * 3 * channels + block.first;
      for (int i = 0; i < Vectors; ++i) {
        const int at = i * kLanes, left = block.width - at;
        store_n(kept + at, state[i].num, left);
        store_n(kept + channels + at, state[i].den, left);
        store_n(kept + 2 * channels + at, state[i].top, left);
      }
    }
    for (int i = 0; i < Vectors; ++i) {
      const auto at = start + t * channels + i * kLanes;
      const int left = block.width - i * kLanes;
      const vf value = load_n(static_cast<const T*>(job.v) + at, left), before = state[i].num;
      const Weights by = state[i].step(load_n(static_cast<const T*>(job.k) + at, left), value, w[i], u[i]);
      store_n(static_cast<T*>(job.y) + at, by.out_past * before + by.out_own * value, left);
    }
  }
  for (int i = 0; i < Vectors; ++i) {
    const int at = i * kLanes, left = block.width - at;
    store_n(job.last_num + row + at, state[i].num, left);
    store_n(job.last_den + row + at, state[i].den, left);
    store_n(job.last_top + row + at, state[i].top, left);
  }
}

template <class T, int Vectors>
void forward(const Wkv& job) {
  constexpr int kBlock = Vectors * kLanes;
  parallel_for(job.batch * ((job.channels + kBlock - 1) / kBlock), job.threads, [&](std::ptrdiff_t index, int) {
    forward_block<T, Vectors>(job, block_of(index, job.channels, kBlock));
  });
}

// The adjoint of the recurrence as it is scaled: with top held fixed, the gradients of num and den are as bounded as
// the weights. Shifting top rescales num and den and changes no output, so its own gradient goes to the exponent that
// was the largest: that of a token, or that of the first state.
struct Adjoint {
  vf num, den, top, w, u;
};

// What the forward pass over a chunk leaves for the way back.
struct Trace {
  Weights by;
  vf num, den;
};

template <class T>
LINOCUT_INLINE void back(Adjoint& adjoint, const Trace& trace, vf v, vf grad_y, vf* grad_k, vf* grad_v) {
  const vf zero = splat(0.0f);
  const Weights& by = trace.by;
  const vf y = by.out_past * trace.num + by.out_own * v;
  const vf own = by.out_own * grad_y, past = by.out_past * grad_y;
  const vf fresh = own * (v - y);
  const auto largest = by.own == splat(1.0f);
  *grad_v = by.own * adjoint.num + own;
  *grad_k = by.own * (adjoint.num * v + adjoint.den) + fresh + (largest ? adjoint.top : zero);
  adjoint.top = largest ? zero : adjoint.top;
  adjoint.u += fresh;
  adjoint.w -= by.past * (adjoint.num * trace.num + adjoint.den * trace.den) + adjoint.top;
  adjoint.num = by.past * adjoint.num + past;
  adjoint.den = by.past * adjoint.den - past * y;
}

template <class T, int Vectors>
LINOCUT_INLINE void backward_block(const WkvGrad& grad, const Block& block, float* memory) {
  const Wkv& job = grad.forward;
  const auto channels = job.channels, pieces = job.length > 0 ? (job.length - 1) / kWkvChunk : 0;
  const auto row = block.batch * channels + block.first, start = block.batch * job.length * channels + block.first;
  Trace* traces = reinterpret_cast<Trace*>(memory);
  Adjoint adjoint[Vectors];
  vf w[Vectors], u[Vectors];
  for (int i = 0; i < Vectors; ++i) {
    const int at = i * kLanes, left = block.width - at;
    w[i] = load_n(job.w + block.first + at, left);
    u[i] = load_n(job.u + block.first + at, left);
    const vf num = load_n(grad.grad_last_num + row + at, left), den = load_n(grad.grad_last_den + row + at, left);
    const vf rescaled = num * load_n(job.last_num + row + at, left) + den * load_n(job.last_den + row + at, left);
    adjoint[i] = {num, den, load_n(grad.grad_last_top + row + at, left) - rescaled, vf{}, vf{}};
  }
  for (auto piece = pieces; piece >= 0; --piece) {
    const auto first = piece * kWkvChunk, end = piece < pieces ? first + kWkvChunk : job.length;
    const auto kept = (block.batch * pieces + piece - 1) * 3 * channels + block.first;
    const float* num = piece > 0 ? job.chunks + kept : job.num + row;
    const float* den = piece > 0 ? job.chunks + kept + channels : job.den + row;
    const float* top = piece > 0 ? job.chunks + kept + 2 * channels : job.top + row;
    State state[Vectors];
    for (int i = 0; i < Vectors; ++i) {
      const int at = i * kLanes, left = block.width - at;
      state[i] = {load_n(num + at, left), load_n(den + at, left), load_n(top + at, left)};
    }
    for (auto t = first; t < end; ++t) {
      for (int i = 0; i < Vectors; ++i) {
        const auto at = start + t * channels + i * kLanes;
        const int left = block.width - i * kLanes;
        Trace& trace = traces[(t - first) * Vectors + i];
        trace.num = state[i].num;
        trace.den = state[i].den;
        trace.by = state[i].step(load_n(static_cast<const T*>(job.k) + at, left),
                                 load_n(static_cast<const T*>(job.v) + at, left), w[i], u[i]);
      }
    }
    for (auto t = end - 1; t >= first; --t) {
      for (int i = 0; i < Vectors; ++i) {
        const auto at = start + t * channels + i * kLanes;
        const int left = block.width - i * kLanes;
        vf grad_k, grad_v;
        back<T>(adjoint[i], traces[(t - first) * Vectors + i], load_n(static_cast<const T*>(job.v) + at, left),
                load_n(static_cast<const T*>(grad.grad_y) + at, left), &grad_k, &grad_v);
        store_n(static_cast<T*>(grad.grad_k) + at, grad_k, left);
        store_n(static_cast<T*>(grad.grad_v) + at, grad_v, left);
      }
    }
  }
  for (int i = 0; i < Vectors; ++i) {
    const int at = i * kLanes, left = block.width - at;
    const vf num = load_n(job.num + row + at, left), den = load_n(job.den + row + at, left);
    const vf rescaled = adjoint[i].num * num + adjoint[i].den * den;
    store_n(grad.grad_num + row + at, adjoint[i].num, left);
    store_n(grad.grad_den + row + at, adjoint[i].den, left);
    store_n(grad.grad_top + row + at, adjoint[i].top + rescaled, left);
    store_n(grad.grad_w + row + at, adjoint[i].w, left);
    store_n(grad.grad_u + row + at, adjoint[i].u, left);
  }
}

template <class T, int Vectors>
void backward(const WkvGrad& grad) {
  const Wkv& job = grad.forward;
  constexpr int kBlock = Vectors * kLanes;
  const Scratch scratch(job.threads, sizeof(Trace) / sizeof(float) * Vectors * kWkvChunk);
  parallel_for(job.batch * ((job.channels + kBlock - 1) / kBlock), job.threads, [&](std::ptrdiff_t index, int thread) {
    backward_block<T, Vectors>(grad, block_of(index, job.channels, kBlock), scratch.of(thread));
  });
}

// Channels walked together. A cache line's where memory and its trace decide; more, for loads to overlap, on the way
// there unless a thread would be left without.
constexpr int kLine = 16 / kLanes;

template <class T>
void forward_any(const Wkv& job) {
  constexpr int kWide = 64 / kLanes < 8 ? 64 / kLanes : 8;
  job.batch * ((job.channels + kWide * kLanes - 1) / (kWide * kLanes)) < job.threads ? forward<T, kLine>(job)
                                                                                    : forward<T, kWide>(job);
}

}  // namespace

void wkv(const Wkv& job) { job.half ? forward_any<bf16>(job) : forward_any<float>(job); }

void wkv_grad(const WkvGrad& job) { job.forward.half ? backward<bf16, kLine>(job) : backward<float, kLine>(job); }

}  // namespace linocut::LINOCUT_ISA
