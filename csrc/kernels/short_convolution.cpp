#include "short_convolution.hpp"

#include "threads.hpp"

namespace linocut::LINOCUT_ISA {
namespace {

// One vector of channels of one sequence, its tokens counted from the first of x; those of the state are negative.
template <class T, int Width>
struct Column {
  const T* x;
  const float* state;
  std::ptrdiff_t token, channels;
  int lanes;

  LINOCUT_INLINE vf at(std::ptrdiff_t t) const {
    return t >= 0 ? load_n(x + t * token, lanes) : load_n(state + (t + Width - 1) * channels, lanes);
  }
};

template <class T, int Width>
LINOCUT_INLINE Column<T, Width> column(const ShortConvolution& job, std::ptrdiff_t batch, std::ptrdiff_t first) {
  const auto left = job.channels - first;
  return {static_cast<const T*>(job.x) + batch * job.x_batch + first,
          job.state + batch * (Width - 1) * job.channels + first, job.x_token, job.channels,
          static_cast<int>(left < kLanes ? left : kLanes)};
}

// The taps of one vector of channels, and a window of the last Width tokens, the newest last.
template <int Width>
struct Taps {
  vf weight[Width], bias;

  LINOCUT_INLINE Taps(const ShortConvolution& job, std::ptrdiff_t first, int lanes) {
    for (int j = 0; j < Width; ++j) weight[j] = load_n(job.weight + j * job.channels + first, lanes);
    bias = job.bias ? load_n(job.bias + first, lanes) : splat(0.0f);
  }

  LINOCUT_INLINE vf apply(const vf* window) const {
    vf y = bias;
    for (int j = 0; j < Width; ++j) y += weight[j] * window[j];
    return y;
  }
};

template <int Width>
LINOCUT_INLINE void push(vf* window, vf newest) {
  for (int j = 0; j + 1 < Width; ++j) window[j] = window[j + 1];
  window[Width - 1] = newest;
}

template <class T, int Width, bool Silu>
void forward(const ShortConvolution& job) {
  const auto pieces = job.length / kConvolutionPiece + 1;
  parallel_for(job.batch * pieces, job.threads, [&](std::ptrdiff_t index, int) {
    const auto batch = index / pieces, start = index % pieces * kConvolutionPiece;
    const auto stop = start + kConvolutionPiece < job.length ? start + kConvolutionPiece : job.length;
    for (std::ptrdiff_t first = 0; first < job.channels; first += kLanes) {
      const auto x = column<T, Width>(job, batch, first);
      const Taps<Width> taps(job, first, x.lanes);
      vf window[Width];
      for (int j = 0; j < Width; ++j) window[j] = j ? x.at(start - Width + j) : splat(0.0f);
      T* y = static_cast<T*>(job.y) + (batch * job.length + start) * job.channels + first;
      for (auto t = start; t < stop; ++t, y += job.channels) {
        push<Width>(window, load_n(x.x + t * x.token, x.lanes));
        const vf sum = taps.apply(window);
        store_n(y, Silu ? silu(sum) : sum, x.lanes);
      }
      if (stop < job.length || start + kConvolutionPiece == job.length) continue;
      float* last = job.last + batch * (Width - 1) * job.channels + first;
      for (int j = 0; j + 1 < Width; ++j) store_n(last + j * job.channels, x.at(job.length - Width + 1 + j), x.lanes);
    }
  });
}

template <class T, int Width, bool Silu>
void backward(const ShortConvolutionGrad& grad) {
  const ShortConvolution& job = grad.forward;
  const auto pieces = job.length / kConvolutionPiece + 1;
  parallel_for(job.batch * pieces, job.threads, [&](std::ptrdiff_t index, int) {
    const auto batch = index / pieces, start = index % pieces * kConvolutionPiece;
    const auto stop = start + kConvolutionPiece < job.length ? start + kConvolutionPiece : job.length;
    // the gradient of a token is complete Width - 1 tokens later
    const auto behind = start ? start : std::ptrdiff_t{1 - Width};
    const auto end = start + kConvolutionPiece > job.length ? job.length + Width - 1 : stop + Width - 1;
    for (std::ptrdiff_t first = 0; first < job.channels; first += kLanes) {
      const auto x = column<T, Width>(job, batch, first);
      const Taps<Width> taps(job, first, x.lanes);
      const T* grad_y = static_cast<const T*>(grad.grad_y) + batch * grad.grad_y_batch + first;
      T* grad_x = static_cast<T*>(grad.grad_x) + batch * job.length * job.channels + first;
      const auto corner = batch * (Width - 1) * job.channels + first;
      vf window[Width], grads[Width], grad_weight[Width], grad_bias = splat(0.0f);
      for (int j = 0; j < Width; ++j) {
        window[j] = j ? x.at(start - Width + j) : splat(0.0f);
        grads[j] = grad_weight[j] = splat(0.0f);
      }
      for (auto t = start; t < end; ++t) {
        vf g = splat(0.0f);
        if (t < job.length) {
          push<Width>(window, load_n(x.x + t * x.token, x.lanes));
          g = load_n(grad_y + t * grad.grad_y_token, x.lanes);
          if (Silu) {
            const vf sum = taps.apply(window), gate = sigmoid(sum);
            g *= gate * (1.0f + sum * (1.0f - gate));
          }
          if (t < stop) {
            for (int j = 0; j < Width; ++j) grad_weight[j] += g * window[j];
            grad_bias += g;
          }
        }
        push<Width>(grads, g);
        const auto done = t - (Width - 1);
        if (done < behind) continue;
        vf sum = splat(0.0f);
        for (int j = 0; j < Width; ++j) sum += taps.weight[j] * grads[Width - 1 - j];
        const auto of_last = done - (job.length - (Width - 1));
        if (of_last >= 0) sum += load_n(grad.grad_last + corner + of_last * job.channels, x.lanes);
        if (done >= 0) {
          store_n(grad_x + done * job.channels, sum, x.lanes);
        } else {
          store_n(grad.grad_state + corner + (done + Width - 1) * job.channels, sum, x.lanes);
        }
      }
      for (int j = 0; j < Width; ++j) {
        store_n(grad.grad_weight + (index * Width + j) * job.channels + first, grad_weight[j], x.lanes);
      }
      store_n(grad.grad_bias + index * job.channels + first, grad_bias, x.lanes);
    }
  });
}

}  // namespace

#define LINOCUT_CHOOSE(function, job, options)                                                   \
  switch ((options).width * 4 + (options).half * 2 + (options).silu) {                           \
    case 8: return function<float, 2, false>(job);                                               \
    case 9: return function<float, 2, true>(job);                                                \
    case 10: return function<bf16, 2, false>(job);                                               \
    case 11: return function<bf16, 2, true>(job);                                                \
    case 12: return function<float, 3, false>(job);                                              \
    case 13: return function<float, 3, true>(job);                                               \
    case 14: return function<bf16, 3, false>(job);                                               \
    case 15: return function<bf16, 3, true>(job);                                                \
    case 16: return function<float, 4, false>(job);                                              \
    case 17: return function<float, 4, true>(job);                                               \
    case 18: return function<bf16, 4, false>(job);                                               \
    case 19: return function<bf16, 4, true>(job);                                                \
    default: return;                                                                             \
  }

void short_convolution(const ShortConvolution& job) { LINOCUT_CHOOSE(forward, job, job) }

void short_convolution_grad(const ShortConvolutionGrad& job) { LINOCUT_CHOOSE(backward, job, job.forward) }

}  // namespace linocut::LINOCUT_ISA
