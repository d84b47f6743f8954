// S4D has channels in the lanes: rows of u are then whole vectors, y needs no sums across lanes, and the parameters and
// states of a few states stay in registers while a chunk of tokens passes. Inside, complex numbers are rows of re and
// rows of im. LRU reads and writes each complex number once and works on them as they lie.
#include "diagonal_recurrence.hpp"

#include "threads.hpp"

namespace linocut::LINOCUT_ISA {
namespace {

// States walked together: six registers each forward, twelve backward; of 32 registers or of 16.
#if defined(__AVX512F__)
constexpr int kForward = 4, kBackward = 2;
#else
constexpr int kForward = 2, kBackward = 1;
#endif

// Rows that the sweeps hold for each state, kLanes floats a row.
enum Row { kLamRe, kLamIm, kCRe, kCIm, kRe, kIm, kRows };
enum GradRow { kGradLamRe, kGradLamIm, kGradCRe, kGradCIm, kCarryRe, kCarryIm, kGradRows };

// `width` rows of `states` complex numbers, times `scale`, to row `row` and the one after of every state.
LINOCUT_INLINE void split(const float* from, std::ptrdiff_t states, int width, float scale, float* to, int row,
                          int rows) {
  for (std::ptrdiff_t s = 0; s < states; ++s) {
    float* re = to + (s * rows + row) * kLanes;
    for (int i = 0; i < kLanes; ++i) {
      re[i] = i < width ? scale * from[(i * states + s) * 2] : 0.0f;
      re[kLanes + i] = i < width ? scale * from[(i * states + s) * 2 + 1] : 0.0f;
    }
  }
}

LINOCUT_INLINE void join(const float* from, int row, int rows, std::ptrdiff_t states, int width, float scale,
                         float* to) {
  for (std::ptrdiff_t s = 0; s < states; ++s) {
    const float* re = from + (s * rows + row) * kLanes;
    for (int i = 0; i < width; ++i) {
      to[(i * states + s) * 2] = scale * re[i];
      to[(i * states + s) * 2 + 1] = scale * re[kLanes + i];
    }
  }
}

// What all sweeps over one block of channels of one member of the batch need.
struct Block {
  const DiagonalSsm& job;
  std::ptrdiff_t batch, first, corner;  // corner: of the block in (batch, channels)
  int width;

  LINOCUT_INLINE Block(const DiagonalSsm& job, std::ptrdiff_t index)
      : job(job), batch(index / blocks(job)), first(index % blocks(job) * kLanes), corner(batch * job.channels + first),
        width(static_cast<int>(job.channels - first < kLanes ? job.channels - first : kLanes)) {}

  static LINOCUT_INLINE std::ptrdiff_t blocks(const DiagonalSsm& job) { return (job.channels + kLanes - 1) / kLanes; }

  LINOCUT_INLINE std::ptrdiff_t token(std::ptrdiff_t t) const { return (batch * job.length + t) * job.channels + first; }

  LINOCUT_INLINE float* kept(std::ptrdiff_t chunk) const {
    const auto chunks = (job.length + kDiagonalChunk - 1) / kDiagonalChunk;
    return job.kept + (batch * chunks + chunk) * 2 * job.states * job.channels + first;
  }

  LINOCUT_INLINE vf skip() const { return job.skip ? load_n(job.skip + first, width) : splat(0.0f); }
};

LINOCUT_INLINE int steps_of(const DiagonalSsm& job, std::ptrdiff_t t) {
  return static_cast<int>(job.length - t < kDiagonalChunk ? job.length - t : kDiagonalChunk);
}

// `Count` states over a chunk; y gathers what is read of them.
template <int Count>
LINOCUT_INLINE void walk(int steps, float* rows, const float* u, float* y) {
  vf lam_re[Count], lam_im[Count], c_re[Count], c_im[Count], re[Count], im[Count];
  for (int s = 0; s < Count; ++s) {
    const float* row = rows + s * kRows * kLanes;
    lam_re[s] = load(row + kLamRe * kLanes), lam_im[s] = load(row + kLamIm * kLanes);
    c_re[s] = load(row + kCRe * kLanes), c_im[s] = load(row + kCIm * kLanes);
    re[s] = load(row + kRe * kLanes), im[s] = load(row + kIm * kLanes);
  }
  for (int t = 0; t < steps; ++t) {
    const vf input = load(u + t * kLanes);
    vf out = load(y + t * kLanes);
    for (int s = 0; s < Count; ++s) {
      const vf old = re[s];
      re[s] = lam_re[s] * old + (input - lam_im[s] * im[s]);
      im[s] = lam_re[s] * im[s] + lam_im[s] * old;
      out += c_re[s] * re[s];
      out -= c_im[s] * im[s];
    }
    store(y + t * kLanes, out);
  }
  for (int s = 0; s < Count; ++s) {
    store(rows + (s * kRows + kRe) * kLanes, re[s]);
    store(rows + (s * kRows + kIm) * kLanes, im[s]);
  }
}

template <class T>
void forward(const DiagonalSsm& job) {
  const std::size_t tile = std::size_t{kDiagonalChunk} * kLanes;
  const Scratch scratch(job.threads, static_cast<std::size_t>(job.states) * kRows * kLanes + 2 * tile);
  parallel_for(job.batch * Block::blocks(job), job.threads, [&](std::ptrdiff_t index, int thread) {
    const Block block(job, index);
    float *u = scratch.of(thread), *y = u + tile, *rows = y + tile;
    split(job.lam + block.first * job.states * 2, job.states, block.width, 1.0f, rows, kLamRe, kRows);
    split(job.c + block.first * job.states * 2, job.states, block.width, 2.0f, rows, kCRe, kRows);
    split(job.state + block.corner * job.states * 2, job.states, block.width, 1.0f, rows, kRe, kRows);
    const vf skip = block.skip();
    for (std::ptrdiff_t t = 0; t < job.length; t += kDiagonalChunk) {
      const int steps = steps_of(job, t);
      if (job.kept) {
        float* kept = block.kept(t / kDiagonalChunk);
        for (std::ptrdiff_t s = 0; s < job.states; ++s) {
          store_n(kept + s * job.channels, load(rows + (s * kRows + kRe) * kLanes), block.width);
          store_n(kept + (job.states + s) * job.channels, load(rows + (s * kRows + kIm) * kLanes), block.width);
        }
      }
      const T* from = static_cast<const T*>(job.u) + block.token(t);
      for (int i = 0; i < steps; ++i) {
        const vf input = load_n(from + i * job.channels, block.width);
        store(u + i * kLanes, input);
        store(y + i * kLanes, skip * input);
      }
      std::ptrdiff_t s = 0;
      for (; s + kForward <= job.states; s += kForward) walk<kForward>(steps, rows + s * kRows * kLanes, u, y);
      for (; s < job.states; ++s) walk<1>(steps, rows + s * kRows * kLanes, u, y);
      T* to = static_cast<T*>(job.y) + block.token(t);
      for (int i = 0; i < steps; ++i) store_n(to + i * job.channels, load(y + i * kLanes), block.width);
    }
    join(rows, kRe, kRows, job.states, block.width, 1.0f, job.last + block.corner * job.states * 2);
  });
}

// The states after every token of a chunk, re and im in turn, from those before it.
template <int Count>
LINOCUT_INLINE void replay(int steps, const float* rows, const float* u, float* history) {
  vf lam_re[Count], lam_im[Count], re[Count], im[Count];
  for (int s = 0; s < Count; ++s) {
    const float* row = rows + s * kRows * kLanes;
    lam_re[s] = load(row + kLamRe * kLanes), lam_im[s] = load(row + kLamIm * kLanes);
    re[s] = load(row + kRe * kLanes), im[s] = load(row + kIm * kLanes);
  }
  for (int t = 0; t < steps; ++t) {
    const vf input = load(u + t * kLanes);
    for (int s = 0; s < Count; ++s) {
      float* at = history + (s * kDiagonalChunk + t) * 2 * kLanes;
      const vf old = re[s];
      re[s] = lam_re[s] * old + (input - lam_im[s] * im[s]);
      im[s] = lam_re[s] * im[s] + lam_im[s] * old;
      store(at, re[s]);
      store(at + kLanes, im[s]);
    }
  }
}

// The chunk backwards: G_t = 2 conj(c) g_t + conj(lam) G_{t+1}, of which `carry` is the last term.
template <int Count>
LINOCUT_INLINE void unwind(int steps, const float* rows, const float* history, float* grads, const float* grad_y,
                           float* grad_u) {
  vf lam_re[Count], lam_im[Count], c_re[Count], c_im[Count], re[Count], im[Count];
  vf carry_re[Count], carry_im[Count], g_lam_re[Count], g_lam_im[Count], g_c_re[Count], g_c_im[Count];
  for (int s = 0; s < Count; ++s) {
    const float* row = rows + s * kRows * kLanes;
    lam_re[s] = load(row + kLamRe * kLanes), lam_im[s] = load(row + kLamIm * kLanes);
    c_re[s] = load(row + kCRe * kLanes), c_im[s] = load(row + kCIm * kLanes);
    const float* grad = grads + s * kGradRows * kLanes;
    carry_re[s] = load(grad + kCarryRe * kLanes), carry_im[s] = load(grad + kCarryIm * kLanes);
    g_lam_re[s] = load(grad + kGradLamRe * kLanes), g_lam_im[s] = load(grad + kGradLamIm * kLanes);
    g_c_re[s] = load(grad + kGradCRe * kLanes), g_c_im[s] = load(grad + kGradCIm * kLanes);
    const float* end = history + (s * kDiagonalChunk + steps - 1) * 2 * kLanes;
    re[s] = load(end), im[s] = load(end + kLanes);
  }
  for (int t = steps - 1; t >= 0; --t) {
    const vf g = load(grad_y + t * kLanes);
    vf input = load(grad_u + t * kLanes);
    for (int s = 0; s < Count; ++s) {
      const float* before = t > 0 ? history + (s * kDiagonalChunk + t - 1) * 2 * kLanes
                                  : rows + (s * kRows + kRe) * kLanes;
      const vf g_re = c_re[s] * g + carry_re[s], g_im = carry_im[s] - c_im[s] * g;
      input += g_re;
      g_c_re[s] += g * re[s];
      g_c_im[s] -= g * im[s];
      re[s] = load(before), im[s] = load(before + kLanes);
      g_lam_re[s] += g_re * re[s];
      g_lam_re[s] += g_im * im[s];
      g_lam_im[s] += g_im * re[s];
      g_lam_im[s] -= g_re * im[s];
      carry_re[s] = lam_re[s] * g_re + lam_im[s] * g_im;
      carry_im[s] = lam_re[s] * g_im - lam_im[s] * g_re;
    }
    store(grad_u + t * kLanes, input);
  }
  for (int s = 0; s < Count; ++s) {
    float* grad = grads + s * kGradRows * kLanes;
    store(grad + kCarryRe * kLanes, carry_re[s]), store(grad + kCarryIm * kLanes, carry_im[s]);
    store(grad + kGradLamRe * kLanes, g_lam_re[s]), store(grad + kGradLamIm * kLanes, g_lam_im[s]);
    store(grad + kGradCRe * kLanes, g_c_re[s]), store(grad + kGradCIm * kLanes, g_c_im[s]);
  }
}

template <class T>
void backward(const DiagonalSsmGrad& grad) {
  const DiagonalSsm& job = grad.forward;
  const std::size_t tile = std::size_t{kDiagonalChunk} * kLanes, states = static_cast<std::size_t>(job.states);
  const Scratch scratch(job.threads, states * (kRows + kGradRows) * kLanes + (3 + 2 * kForward) * tile);
  parallel_for(job.batch * Block::blocks(job), job.threads, [&](std::ptrdiff_t index, int thread) {
    const Block block(job, index);
    float *u = scratch.of(thread), *grad_y = u + tile, *grad_u = grad_y + tile, *history = grad_u + tile;
    float *rows = history + 2 * kForward * tile, *grads = rows + states * kRows * kLanes;
    split(job.lam + block.first * job.states * 2, job.states, block.width, 1.0f, rows, kLamRe, kRows);
    split(job.c + block.first * job.states * 2, job.states, block.width, 2.0f, rows, kCRe, kRows);
    __builtin_memset(grads, 0, states * kGradRows * kLanes * sizeof(float));
    split(grad.grad_last + block.corner * job.states * 2, job.states, block.width, 1.0f, grads, kCarryRe, kGradRows);
    const vf skip = block.skip();
    vf grad_skip = splat(0.0f);
    const auto chunks = (job.length + kDiagonalChunk - 1) / kDiagonalChunk;
    for (std::ptrdiff_t chunk = chunks - 1; chunk >= 0; --chunk) {
      const auto t = chunk * kDiagonalChunk, at = block.token(t);
      const int steps = steps_of(job, t);
      const float* kept = block.kept(chunk);
      for (std::ptrdiff_t s = 0; s < job.states; ++s) {
        store(rows + (s * kRows + kRe) * kLanes, load_n(kept + s * job.channels, block.width));
        store(rows + (s * kRows + kIm) * kLanes, load_n(kept + (job.states + s) * job.channels, block.width));
      }
      for (int i = 0; i < steps; ++i) {
        const vf input = load_n(static_cast<const T*>(job.u) + at + i * job.channels, block.width);
        const vf g = load_n(static_cast<const T*>(grad.grad_y) + at + i * job.channels, block.width);
        store(u + i * kLanes, input);
        store(grad_y + i * kLanes, g);
        store(grad_u + i * kLanes, skip * g);
        grad_skip += g * input;
      }
      std::ptrdiff_t s = 0;
      for (; s + kForward <= job.states; s += kForward) {
        replay<kForward>(steps, rows + s * kRows * kLanes, u, history);
        for (int part = 0; part < kForward; part += kBackward) {
          unwind<kBackward>(steps, rows + (s + part) * kRows * kLanes, history + 2 * part * tile,
                            grads + (s + part) * kGradRows * kLanes, grad_y, grad_u);
        }
      }
      for (; s < job.states; ++s) {
        replay<1>(steps, rows + s * kRows * kLanes, u, history);
        unwind<1>(steps, rows + s * kRows * kLanes, history, grads + s * kGradRows * kLanes, grad_y, grad_u);
      }
      T* to = static_cast<T*>(grad.grad_u) + at;
      for (int i = 0; i < steps; ++i) store_n(to + i * job.channels, load(grad_u + i * kLanes), block.width);
    }
    const auto corner = block.corner * job.states * 2;
    join(grads, kGradLamRe, kGradRows, job.states, block.width, 1.0f, grad.grad_lam + corner);
    join(grads, kGradCRe, kGradRows, job.states, block.width, 2.0f, grad.grad_c + corner);
    join(grads, kCarryRe, kGradRows, job.states, block.width, 1.0f, grad.grad_state + corner);
    if (grad.grad_skip) store_n(grad.grad_skip + block.corner, grad_skip, block.width);
  });
}

// Interleaved complex numbers, kLanes / 2 in a vector.

typedef std::uint64_t vpair __attribute__((vector_size(kLanes * 4)));

// re and im change places. A pair is read as one number, so this holds for either order of bytes.
LINOCUT_INLINE vf swap(vf v) {
  const vpair x = (vpair)v;
  return (vf)((x >> 32) | (x << 32));
}

LINOCUT_INLINE vf only_re(vf v) {
  vf mask_source;
  for (int i = 0; i < kLanes; ++i) mask_source[i] = i % 2 ? 0.0f : 1.0f;
  return mask_source > 0.0f ? v : splat(0.0f);
}

// (re, re) and (-im, im), so that the product with h is a * h + b * swap(h).
LINOCUT_INLINE void factors(vf v, vf& a, vf& b) {
  const vf re = only_re(v), im = only_re(swap(v));
  a = re + swap(re);
  b = swap(im) - im;
}

// One token, as a decoder asks for it: states lie in the lanes as they do in memory.
template <class T>
void single(const DiagonalSsm& job) {
  const auto floats = job.states * 2;
  for (std::ptrdiff_t row = 0; row < job.batch * job.channels; ++row) {
    const auto channel = row % job.channels;
    const float *lam = job.lam + channel * floats, *c = job.c + channel * floats, *state = job.state + row * floats;
    const float u = load_one(static_cast<const T*>(job.u) + row);
    const vf input = only_re(splat(u));
    vf read = splat(0.0f);
    for (std::ptrdiff_t s = 0; s < floats; s += kLanes) {
      const int left = static_cast<int>(floats - s < kLanes ? floats - s : kLanes);
      vf a, b;
      factors(load_n(lam + s, left), a, b);
      const vf before = load_n(state + s, left), h = a * before + (input + b * swap(before));
      store_n(job.last + row * floats + s, h, left);
      const vf weight = load_n(c + s, left), re = only_re(weight);
      read += h * (re + re - weight);
    }
    store_one(static_cast<T*>(job.y) + row, 2.0f * sum(read) + (job.skip ? job.skip[channel] * u : 0.0f));
  }
}

constexpr int kVectors = 4, kFloats = kVectors * kLanes;

// Channels walked together, of one member of the batch; all counts are of floats.
struct Strip {
  std::ptrdiff_t first, corner, start, row;
  int width;

  LINOCUT_INLINE Strip(const ComplexRecurrence& job, std::ptrdiff_t index) : row(2 * job.channels) {
    first = index % strips(job) * kFloats;
    const auto batch = index / strips(job);
    corner = batch * row + first;
    start = batch * job.length * row + first;
    width = static_cast<int>(row - first < kFloats ? row - first : kFloats);
  }

  static LINOCUT_INLINE std::ptrdiff_t strips(const ComplexRecurrence& job) {
    return (2 * job.channels + kFloats - 1) / kFloats;
  }
};

}  // namespace

void diagonal_ssm(const DiagonalSsm& job) {
  if (job.length == 1 && !job.kept) return job.half ? single<bf16>(job) : single<float>(job);
  job.half ? forward<bf16>(job) : forward<float>(job);
}

void diagonal_ssm_grad(const DiagonalSsmGrad& job) {
  job.forward.half ? backward<bf16>(job) : backward<float>(job);
}

void complex_recurrence(const ComplexRecurrence& job) {
  parallel_for(job.batch * Strip::strips(job), job.threads, [&](std::ptrdiff_t index, int) {
    const Strip strip(job, index);
    vf a[kVectors], b[kVectors], h[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      const int at = v * kLanes, left = strip.width - at;
      factors(load_n(job.lam + strip.first + at, left), a[v], b[v]);
      h[v] = load_n(job.state + strip.corner + at, left);
    }
    for (std::ptrdiff_t t = 0; t < job.length; ++t) {
      const auto here = strip.start + t * strip.row;
      for (int v = 0; v < kVectors; ++v) {
        const int at = v * kLanes, left = strip.width - at;
        h[v] = a[v] * h[v] + (load_n(job.b + here + at, left) + b[v] * swap(h[v]));
        store_n(job.h + here + at, h[v], left);
      }
    }
    for (int v = 0; v < kVectors; ++v) {
      store_n(job.last + strip.corner + v * kLanes, h[v], strip.width - v * kLanes);
    }
  });
}

void complex_recurrence_grad(const ComplexRecurrenceGrad& grad) {
  const ComplexRecurrence& job = grad.forward;
  parallel_for(job.batch * Strip::strips(job), job.threads, [&](std::ptrdiff_t index, int) {
    const Strip strip(job, index);
    vf a[kVectors], b[kVectors], carry[kVectors], straight[kVectors], crossed[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      const int at = v * kLanes, left = strip.width - at;
      factors(load_n(job.lam + strip.first + at, left), a[v], b[v]);
      carry[v] = load_n(grad.grad_last + strip.corner + at, left);
      straight[v] = crossed[v] = splat(0.0f);
    }
    for (std::ptrdiff_t t = job.length - 1; t >= 0; --t) {
      const auto here = strip.start + t * strip.row;
      const float* before = t > 0 ? job.h + here - strip.row : job.state + strip.corner;
      for (int v = 0; v < kVectors; ++v) {
        const int at = v * kLanes, left = strip.width - at;
        const vf g = carry[v] + load_n(grad.grad_h + here + at, left), turned = swap(g);
        store_n(grad.grad_b + here + at, g, left);
        const vf h = load_n(before + at, left);
        straight[v] += g * h;
        crossed[v] += turned * h;
        carry[v] = a[v] * g - b[v] * turned;
      }
    }
    for (int v = 0; v < kVectors; ++v) {
      const int at = v * kLanes, left = strip.width - at;
      // g conj(h): re is the sum of a pair of `straight`, im the difference of a pair of `crossed`
      const vf re = straight[v] + swap(straight[v]), im = swap(crossed[v]) - crossed[v];
      store_n(grad.grad_lam + strip.corner + at, only_re(re) + swap(only_re(swap(im))), left);
      store_n(grad.grad_state + strip.corner + at, carry[v], left);
    }
  });
}

}  // namespace linocut::LINOCUT_ISA
