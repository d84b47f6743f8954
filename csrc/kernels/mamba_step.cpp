#include "mamba_step.hpp"

#include "threads.hpp"

namespace linocut::LINOCUT_ISA {
namespace {

// Rows of a matrix whose products run side by side, and rows a thread takes at a time.
constexpr int kRows = 4, kShare = 64;

template <int Rows>
LINOCUT_INLINE void dot_rows(const float* matrix, std::ptrdiff_t columns, const float* x, const float* bias, float* y) {
  vf total[Rows] = {};
  std::ptrdiff_t j = 0;
  for (; j + kLanes <= columns; j += kLanes) {
    const vf x_j = load(x + j);
    for (int i = 0; i < Rows; ++i) total[i] += load(matrix + i * columns + j) * x_j;
  }
  if (j < columns) {
    const int left = static_cast<int>(columns - j);
    const vf x_j = load_n(x + j, left);
    for (int i = 0; i < Rows; ++i) total[i] += load_n(matrix + i * columns + j, left) * x_j;
  }
  for (int i = 0; i < Rows; ++i) y[i] = sum(total[i]) + (bias ? bias[i] : 0.0f);
}

// y = matrix x + bias for every sequence; a row of the matrix is read once for all of them.
void product(const float* matrix, const float* bias, std::ptrdiff_t rows, std::ptrdiff_t columns, const float* x,
             std::ptrdiff_t x_row, float* y, std::ptrdiff_t y_row, std::ptrdiff_t batch, int threads) {
  parallel_for((rows + kShare - 1) / kShare, threads, [&](std::ptrdiff_t share, int) {
    const auto stop = (share + 1) * kShare < rows ? (share + 1) * kShare : rows;
    auto r = share * kShare;
    for (; r + kRows <= stop; r += kRows) {
      for (std::ptrdiff_t b = 0; b < batch; ++b) {
        dot_rows<kRows>(matrix + r * columns, columns, x + b * x_row, bias ? bias + r : nullptr, y + b * y_row + r);
      }
    }
    for (; r < stop; ++r) {
      for (std::ptrdiff_t b = 0; b < batch; ++b) {
        dot_rows<1>(matrix + r * columns, columns, x + b * x_row, bias ? bias + r : nullptr, y + b * y_row + r);
      }
    }
  });
}

// The convolution of one sequence at its newest token, in place, and its next tail.
void convolve(const MambaStep& job, std::ptrdiff_t batch, float* x) {
  const auto channels = job.d_inner, halo = job.d_conv - 1;
  const float* tail = job.tail + batch * halo * channels;
  float* next = job.next_tail + batch * halo * channels;
  for (std::ptrdiff_t j = 0; j + 1 < halo; ++j) __builtin_memcpy(next + j * channels, tail + (j + 1) * channels, sizeof(float) * channels);
  if (halo) __builtin_memcpy(next + (halo - 1) * channels, x, sizeof(float) * channels);
  for (std::ptrdiff_t c = 0; c < channels; ++c) {
    const float* taps = job.conv1d + c * job.d_conv;
    float total = (job.conv_bias ? job.conv_bias[c] : 0.0f) + taps[halo] * x[c];
    for (std::ptrdiff_t j = 0; j < halo; ++j) total += taps[j] * tail[j * channels + c];
    x[c] = total;
  }
  for (std::ptrdiff_t c = 0; c < channels; c += kLanes) {
    const int left = static_cast<int>(channels - c < kLanes ? channels - c : kLanes);
    store_n(x + c, silu(load_n(x + c, left)), left);
  }
}

// The scan of one sequence. delta becomes y, through the gate. Lanes are states; what a vector of channels reads of
// them is summed at once.
void scan(const MambaStep& job, std::ptrdiff_t batch, const float* x, const float* z, const float* B, const float* C,
          float* delta) {
  const auto channels = job.d_inner, states = job.d_state;
  for (std::ptrdiff_t first = 0; first < channels; first += kLanes) {
    const int width = static_cast<int>(channels - first < kLanes ? channels - first : kLanes);
    float steps[kLanes], read[kLanes * kLanes] = {};
    store(steps, softplus(load_n(delta + first, width)));
    for (int i = 0; i < width; ++i) {
      const auto c = first + i, row = (batch * channels + c) * states;
      const float step = steps[i], input = step * x[c];
      vf y = splat(0.0f);
      for (std::ptrdiff_t n = 0; n < states; n += kLanes) {
        const int left = static_cast<int>(states - n < kLanes ? states - n : kLanes);
        const vf decay = exp_negative(-step * exp(load_n(job.A_log + c * states + n, left)));
        const vf h = decay * load_n(job.h + row + n, left) + input * load_n(B + n, left);
        store_n(job.next_h + row + n, h, left);
        y += h * load_n(C + n, left);
      }
      store(read + i * kLanes, y);
    }
    const vf y = sums(read) + load_n(job.D + first, width) * load_n(x + first, width);
    store_n(delta + first, y * silu(load_n(z + first, width)), width);
  }
}

}  // namespace

void mamba_step(const MambaStep& job) {
  const auto maps = job.dt_rank + 2 * job.d_state, row = 3 * job.d_inner + maps;
  const Scratch scratch(1, static_cast<std::size_t>(job.batch * row));
  float *x = scratch.of(0), *z = x + job.d_inner, *delta = z + job.d_inner, *dt = delta + job.d_inner;
  product(job.in_proj, job.in_bias, 2 * job.d_inner, job.d_model, job.x, job.d_model, x, row, job.batch, job.threads);
  for (std::ptrdiff_t b = 0; b < job.batch; ++b) convolve(job, b, x + b * row);
  product(job.x_proj, nullptr, maps, job.d_inner, x, row, dt, row, job.batch, job.threads);
  product(job.dt_proj, job.dt_bias, job.d_inner, job.dt_rank, dt, row, delta, row, job.batch, job.threads);
  for (std::ptrdiff_t b = 0; b < job.batch; ++b) {
    const float* B = dt + b * row + job.dt_rank;
    scan(job, b, x + b * row, z + b * row, B, B + job.d_state, delta + b * row);
  }
  product(job.out_proj, job.out_bias, job.d_model, job.d_inner, delta, row, job.y, job.d_model, job.batch, job.threads);
}

}  // namespace linocut::LINOCUT_ISA
