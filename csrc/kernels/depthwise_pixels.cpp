#include "depthwise_axis.hpp"
#include "depthwise_conv.hpp"
#include "threads.hpp"

namespace linocut::LINOCUT_ISA {
namespace {

// Vectors and pixels worked out together.
constexpr int kVectors = 2, kPixels = 4;

// Of the rows of all taps so many bytes should be in use at a time: an eighth of a second cache or less, for the rows of
// the output and of what comes next want room too.
constexpr std::ptrdiff_t kCache = 96 * 1024;

// Pixels that a filter spans should fit into the first.
constexpr std::ptrdiff_t kNear = 24 * 1024;

// Channels are taken in blocks of whole vectors. The last vector of all ends with the last channel: it overlaps the one
// before it, in the same block, rather than being cut; only fewer channels than lanes make a part of a vector.
struct Blocks {
  std::ptrdiff_t channels, vectors, count, near;

  LINOCUT_INLINE Blocks(const DepthwiseConv& job, std::ptrdiff_t pieces) : channels(job.channels) {
    const auto reach = magnitude(job.x.dilation) * (job.x.taps - 1) + 1;
    const auto pixels = job.y.taps > 1 ? job.y.taps * job.x.in : reach;
    const auto fitting = kCache / (static_cast<std::ptrdiff_t>(sizeof(float)) * kLanes * larger(pixels, 1));
    const auto whole = larger(channels / kLanes, 1);
    const auto groups = (whole + kVectors - 1) / kVectors;
    // a few for each thread, and as many as fit
    const auto shared = ceil_div(4 * job.threads, job.batch * pieces), each = ceil_div(groups, job.threads > 1 ? shared : 1);
    vectors = smaller(larger(fitting / kVectors, 1), each) * kVectors;
    count = (whole + vectors - 1) / vectors;
    const auto passed = kNear / (static_cast<std::ptrdiff_t>(sizeof(float)) * kLanes * job.y.taps * (reach + kPixels));
    // at least a few lines of the cache together, which is how they come
    near = larger(passed / kVectors, 2) * kVectors * kLanes;
  }

  LINOCUT_INLINE std::ptrdiff_t first(std::ptrdiff_t block) const { return block * vectors * kLanes; }

  // The end of a part of a block; the last part takes what would be less than a vector.
  LINOCUT_INLINE std::ptrdiff_t after(std::ptrdiff_t c, std::ptrdiff_t stop) const {
    return stop - c < near + kLanes ? stop : c + near;
  }

  LINOCUT_INLINE std::ptrdiff_t stop(std::ptrdiff_t block) const {
    return block + 1 == count ? channels : first(block + 1);
  }
};

// Calls body.run for the vectors of a block: how many at once, their first channel, their place within the block in
// whole vectors, and lanes.
template <class Body>
LINOCUT_INLINE void each_group(const Blocks& blocks, std::ptrdiff_t first, std::ptrdiff_t stop, const Body& body) {
  auto c = first;
  for (; c + kVectors * kLanes <= stop; c += kVectors * kLanes) body.template run<kVectors>(c, c - first, kLanes);
  for (; c + kLanes <= stop; c += kLanes) body.template run<1>(c, c - first, kLanes);
  if (c == stop) return;
  if (blocks.channels < kLanes) return body.template run<1>(c, c - first, static_cast<int>(stop - c));
  body.template run<1>(stop - kLanes, c - first, kLanes);
}

// What the sums of a row need: the rows it meets and their taps.
template <class T>
struct Row {
  const T* const* rows;
  const std::ptrdiff_t* row_taps;
  int row_count;
  std::ptrdiff_t x_taps, channels, pixel_in, pixel_out;
  const float *weight, *bias;

  // Pixels `pixel_in` apart with the same taps, from columns on.
  template <int Pixels, int Vectors>
  LINOCUT_INLINE void sum(const std::ptrdiff_t* columns, const std::ptrdiff_t* taps, int count, T* out, std::ptrdiff_t c,
                          int lanes) const {
    vf acc[Pixels][Vectors];
    for (int v = 0; v < Vectors; ++v) {
      const vf start = bias ? load_n(bias + c + v * kLanes, lanes) : splat(0.0f);
      for (int p = 0; p < Pixels; ++p) acc[p][v] = start;
    }
    for (int a = 0; a < row_count; ++a) {
      const T* row = rows[a] + c;
      const float* filter = weight + row_taps[a] * x_taps * channels + c;
      for (int b = 0; b < count; ++b) {
        const T* from = row + columns[b];
        for (int v = 0; v < Vectors; ++v) {
          const vf w = load_n(filter + taps[b] * channels + v * kLanes, lanes);
          for (int p = 0; p < Pixels; ++p) acc[p][v] += w * load_n(from + p * pixel_in + v * kLanes, lanes);
        }
      }
    }
    for (int p = 0; p < Pixels; ++p) {
      for (int v = 0; v < Vectors; ++v) store_n(out + p * pixel_out + c + v * kLanes, acc[p][v], lanes);
    }
  }
};

// One or several pixels of a row that have the same taps.
template <class T, int Pixels>
struct Run {
  const Row<T>& row;
  const std::ptrdiff_t *columns, *taps;
  int count;
  T* out;

  template <int Vectors>
  LINOCUT_INLINE void run(std::ptrdiff_t c, std::ptrdiff_t, int lanes) const {
    if (lanes == kLanes) return row.template sum<Pixels, Vectors>(columns, taps, count, out, c, kLanes);
    row.template sum<Pixels, Vectors>(columns, taps, count, out, c, lanes);
  }
};

// Whether this place's taps are also those of the next ones.
LINOCUT_INLINE bool alike(const Meetings& columns, std::ptrdiff_t place, std::ptrdiff_t pixels) {
  const auto first = columns.first[place], count = columns.first[place + 1] - first;
  for (std::ptrdiff_t p = 1; p < pixels; ++p) {
    const auto other = columns.first[place + p];
    if (columns.first[place + p + 1] - other != count) return false;
    for (std::ptrdiff_t b = 0; b < count; ++b) {
      if (columns.tap[other + b] != columns.tap[first + b]) return false;
    }
  }
  return true;
}

// Asks for the row that comes next while this one is worked out: rows far apart are not what a processor foresees.
template <class T>
class Ahead {
 public:
  LINOCUT_INLINE Ahead(const DepthwiseConv& job, const Meetings& meetings, std::ptrdiff_t place, const T* image, T* result)
      : job_(job) {
    if (place + 1 >= job.y.out || meetings.first[place + 2] == meetings.first[place + 1]) return;
    in_ = image + meetings.input[meetings.first[place + 2] - 1] * job.in_strides.y;
    out_ = result + meetings.output[place + 1] * job.out_strides.y;
  }

  LINOCUT_INLINE void ask(std::ptrdiff_t p, std::ptrdiff_t pixels, std::ptrdiff_t c, std::ptrdiff_t end) const {
    if (in_ == nullptr) return;
    for (auto q = p; q < p + pixels; ++q) {
      fetch(in_ + smaller(q * job_.x.out_step / job_.x.in_step, job_.x.in - 1) * job_.in_strides.x + c, end - c);
      fetch_to_write(out_ + q * job_.out_strides.x + c, end - c);
    }
  }

 private:
  const DepthwiseConv& job_;
  const T *in_ = nullptr, *out_ = nullptr;
};

template <class T>
void forward(const DepthwiseConv& job) {
  const DepthwiseAxis &x = job.x, &y = job.y;
  const Meetings columns(x, 1), meetings(y, sharing_step(y));
  for (std::ptrdiff_t i = 0; i < columns.first[x.out]; ++i) columns.input[i] *= job.in_strides.x;
  const auto pieces = ceil_div(y.out, job.rows);
  const Blocks blocks(job, pieces);
  const Numbers numbers(job.threads * y.taps);
  parallel_for(job.batch * blocks.count * pieces, job.threads, [&](std::ptrdiff_t index, int thread) {
    const auto piece = index % pieces, block = index / pieces % blocks.count, batch = index / (pieces * blocks.count);
    auto* rows = reinterpret_cast<const T**>(numbers.data() + thread * y.taps);
    const T* image = static_cast<const T*>(job.in) + batch * job.in_strides.batch;
    T* result = static_cast<T*>(job.out) + batch * job.out_strides.batch;
    const auto first = blocks.first(block), stop = blocks.stop(block);
    for (auto place = piece * job.rows; place < smaller((piece + 1) * job.rows, y.out); ++place) {
      const auto a = meetings.first[place];
      const int row_count = static_cast<int>(meetings.first[place + 1] - a);
      for (int k = 0; k < row_count; ++k) rows[k] = image + meetings.input[a + k] * job.in_strides.y;
      const Row<T> row{rows,
                       meetings.tap + a,
                       row_count,
                       x.taps,
                       job.channels,
                       x.out_step * job.in_strides.x,
                       job.out_strides.x,
                       job.weight,
                       job.bias};
      T* to = result + meetings.output[place] * job.out_strides.y;
      const Ahead<T> ahead(job, meetings, place, image, result);
      for (auto c = first; c < stop; c = blocks.after(c, stop)) {
        const auto end = blocks.after(c, stop);
        for (std::ptrdiff_t p = 0; p < x.out;) {
          const bool several = x.in_step == 1 && p + kPixels <= x.out && alike(columns, p, kPixels);
          const auto from = columns.first[p], pixels = several ? kPixels : std::ptrdiff_t{1};
          const int count = static_cast<int>(columns.first[p + 1] - from);
          const auto *columns_of = columns.input + from, *taps = columns.tap + from;
          T* out = to + p * job.out_strides.x;
          ahead.ask(p, pixels, c, end);
          if (several) {
            each_group(blocks, c, end, Run<T, kPixels>{row, columns_of, taps, count, out});
          } else {
            each_group(blocks, c, end, Run<T, 1>{row, columns_of, taps, count, out});
          }
          p += pixels;
        }
      }
    }
  });
}

// The sums of one row of the gradient with one row of the input under all its taps, for some vectors of channels.
template <class T>
struct RowGrad {
  const DepthwiseConv& job;
  const T *in, *grad;
  float* sums;  // of the row's first tap
  std::ptrdiff_t width;

  // Outputs low to high - 1 under taps that all meet an input there.
  template <int Taps, int Vectors>
  LINOCUT_INLINE void add(std::ptrdiff_t tap, std::ptrdiff_t low, std::ptrdiff_t high, std::ptrdiff_t c,
                          std::ptrdiff_t place, int lanes) const {
    const DepthwiseAxis& x = job.x;
    if (low >= high) return;
    float* to = sums + tap * width + place;
    vf acc[Taps][Vectors];
    for (int k = 0; k < Taps; ++k) {
      for (int v = 0; v < Vectors; ++v) acc[k][v] = load(to + k * width + v * kLanes);
    }
    const auto next_tap = x.dilation * job.in_strides.x, next_in = x.out_step * job.in_strides.x;
    const T* from = in + low * next_in + (x.dilation * tap - x.offset) * job.in_strides.x + c;
    const T* g = grad + low * job.out_strides.x + c;
    for (auto o = low; o < high; ++o, from += next_in, g += job.out_strides.x) {
      for (int v = 0; v < Vectors; ++v) {
        const vf given = load_n(g + v * kLanes, lanes);
        for (int k = 0; k < Taps; ++k) acc[k][v] += given * load_n(from + k * next_tap + v * kLanes, lanes);
      }
    }
    for (int k = 0; k < Taps; ++k) {
      for (int v = 0; v < Vectors; ++v) store(to + k * width + v * kLanes, acc[k][v]);
    }
  }

  // Outputs whose tap meets an input: out_step o + dilation tap - offset from 0 to in - 1.
  LINOCUT_INLINE std::ptrdiff_t low(std::ptrdiff_t tap) const {
    return larger(ceil_div(job.x.offset - job.x.dilation * tap, job.x.out_step), 0);
  }
  LINOCUT_INLINE std::ptrdiff_t high(std::ptrdiff_t tap) const {
    return smaller(floor_div(job.x.in - 1 + job.x.offset - job.x.dilation * tap, job.x.out_step) + 1, job.x.out);
  }

  template <int Vectors>
  LINOCUT_INLINE void all(std::ptrdiff_t c, std::ptrdiff_t place, int lanes) const {
    constexpr int kTaps = 3;
    std::ptrdiff_t tap = 0;
    for (; tap + kTaps <= job.x.taps; tap += kTaps) {
      // ranges move down from tap to tap
      const auto start = low(tap), stop = high(tap + kTaps - 1);
      const bool overlap = start < stop;
      if (overlap) add<kTaps, Vectors>(tap, start, stop, c, place, lanes);
      for (auto k = tap; k < tap + kTaps; ++k) {
        if (!overlap) {
          add<1, Vectors>(k, low(k), high(k), c, place, lanes);
          continue;
        }
        add<1, Vectors>(k, low(k), start, c, place, lanes);
        add<1, Vectors>(k, stop, high(k), c, place, lanes);
      }
    }
    for (; tap < job.x.taps; ++tap) add<1, Vectors>(tap, low(tap), high(tap), c, place, lanes);
  }

  template <int Vectors>
  LINOCUT_INLINE void run(std::ptrdiff_t c, std::ptrdiff_t place, int lanes) const {
    if (lanes == kLanes) return all<Vectors>(c, place, kLanes);
    all<Vectors>(c, place, lanes);
  }
};

// The sums of a row of the gradient, for the bias.
template <class T>
struct RowTotal {
  const DepthwiseConv& job;
  const T* grad;
  float* sums;

  template <int Vectors>
  LINOCUT_INLINE void run(std::ptrdiff_t c, std::ptrdiff_t place, int lanes) const {
    vf acc[Vectors];
    for (int v = 0; v < Vectors; ++v) acc[v] = load(sums + place + v * kLanes);
    for (std::ptrdiff_t o = 0; o < job.x.out; ++o) {
      for (int v = 0; v < Vectors; ++v) acc[v] += load_n(grad + o * job.out_strides.x + c + v * kLanes, lanes);
    }
    for (int v = 0; v < Vectors; ++v) store(sums + place + v * kLanes, acc[v]);
  }
};

// Where the sums of a tap go, once they are complete; where vectors overlap both hold the same.
struct Finish {
  const float* sums;
  float* to;

  template <int Vectors>
  LINOCUT_INLINE void run(std::ptrdiff_t c, std::ptrdiff_t place, int lanes) const {
    for (int v = 0; v < Vectors; ++v) store_n(to + c + v * kLanes, load(sums + place + v * kLanes), lanes);
  }
};

template <class T>
void weight_grad(const DepthwiseWeightGrad& grad) {
  const DepthwiseConv& job = grad.forward;
  const DepthwiseAxis &x = job.x, &y = job.y;
  const Meetings meetings(y, sharing_step(y));
  const auto pieces = ceil_div(y.out, job.rows), taps = y.taps * x.taps;
  const Blocks blocks(job, pieces);
  const auto width = (blocks.vectors + kVectors) * kLanes;
  const Scratch memory(job.threads, static_cast<std::size_t>((taps + 1) * width));
  parallel_for(job.batch * blocks.count * pieces, job.threads, [&](std::ptrdiff_t index, int thread) {
    const auto piece = index % pieces, block = index / pieces % blocks.count, batch = index / (pieces * blocks.count);
    const auto first = blocks.first(block), stop = blocks.stop(block);
    float* sums = memory.of(thread);
    for (std::ptrdiff_t i = 0; i < (taps + 1) * width; i += kLanes) store(sums + i, splat(0.0f));
    const T* image = static_cast<const T*>(job.in) + batch * job.in_strides.batch;
    const T* given = static_cast<const T*>(job.out) + batch * job.out_strides.batch;
    for (auto place = piece * job.rows; place < smaller((piece + 1) * job.rows, y.out); ++place) {
      const T* g = given + meetings.output[place] * job.out_strides.y;
      for (auto a = meetings.first[place]; a < meetings.first[place + 1]; ++a) {
        each_group(blocks, first, stop,
                   RowGrad<T>{job, image + meetings.input[a] * job.in_strides.y, g,
                              sums + meetings.tap[a] * x.taps * width, width});
      }
      each_group(blocks, first, stop, RowTotal<T>{job, g, sums + taps * width});
    }
    float* to = grad.sums + (batch * pieces + piece) * (taps + 1) * job.channels;
    for (std::ptrdiff_t k = 0; k <= taps; ++k) {
      each_group(blocks, first, stop, Finish{sums + k * width, to + k * job.channels});
    }
  });
}

}  // namespace

void depthwise_pixels(const DepthwiseConv& job) { job.half ? forward<bf16>(job) : forward<float>(job); }

void depthwise_pixels_grad(const DepthwiseWeightGrad& job) {
  job.forward.half ? weight_grad<bf16>(job) : weight_grad<float>(job);
}

}  // namespace linocut::LINOCUT_ISA
