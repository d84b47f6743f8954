#include "depthwise_axis.hpp"
#include "depthwise_conv.hpp"

namespace linocut::LINOCUT_ISA {
namespace {

// Vectors worked out together, and outputs of a row that a thread takes at a time.
constexpr int kVectors = 8, kBlock = kVectors * kLanes;
constexpr std::ptrdiff_t kTile = 2048;

// So many rows before it is needed a row is asked for.
constexpr std::ptrdiff_t kAhead = 4;

// Copies of input rows may take so many floats, a quarter of a second cache.
constexpr std::ptrdiff_t kNear = 64 * 1024;

// A tap of the row: it reads the copy of the input's columns congruent to `phase`, `shift` places on.
struct Tap {
  std::ptrdiff_t index, phase, shift;
};

LINOCUT_INLINE std::ptrdiff_t outputs_of(const DepthwiseAxis& x, std::ptrdiff_t residue) {
  return x.out > residue ? (x.out - residue + x.in_step - 1) / x.in_step : 0;
}

// What all rows share: the taps of outputs congruent to r modulo in_step, first[r] to first[r + 1], without those that
// meet no input anywhere.
class Columns {
 public:
  explicit Columns(const DepthwiseAxis& x)
      : numbers_(3 * x.taps + x.in_step + 1), taps(reinterpret_cast<Tap*>(numbers_.data())), first(numbers_.data() + 3 * x.taps) {
    std::ptrdiff_t count = 0;
    for (std::ptrdiff_t r = 0; r < x.in_step; ++r) {
      first[r] = count;
      const auto last = outputs_of(x, r) - 1;
      for (std::ptrdiff_t k = 0; k < x.taps && last >= 0; ++k) {
        const auto at = x.out_step * r + x.dilation * k - x.offset, start = floor_div(at, x.in_step);
        if (start * x.in_step != at || start >= x.in || start + x.out_step * last < 0) continue;
        const auto shift = floor_div(start, x.out_step);
        low = count ? smaller(low, shift) : shift;
        high = count ? larger(high, shift) : shift;
        taps[count++] = {k, start - shift * x.out_step, shift};
      }
    }
    first[x.in_step] = count;
  }

 private:
  Numbers numbers_;

 public:
  Tap* const taps;
  std::ptrdiff_t* const first;
  std::ptrdiff_t low = 0, high = 0;  // of all shifts
};

// Sizes that follow from the job.
struct Layout {
  std::ptrdiff_t tile, tiles, pieces, pitch, row_floats, step, spacing, slots;

  Layout(const DepthwiseConv& job, const Columns& columns) {
    const auto places = outputs_of(job.x, 0), apart = magnitude(job.y.dilation);
    tile = larger(smaller(kTile, places), 1);
    tiles = ceil_div(places, tile);
    pieces = ceil_div(job.y.out, job.rows);
    pitch = static_cast<std::ptrdiff_t>(padded(static_cast<std::size_t>(tile + columns.high - columns.low))) + kLanes;
    row_floats = pitch * job.x.out_step;
    // rows in their own order, if all that the filter spans is near
    step = spacing = 1;
    slots = smaller(apart * (job.y.taps - 1) / job.y.in_step + 1, job.y.in);
    if (slots * row_floats <= kNear) return;
    step = sharing_step(job.y);
    spacing = apart / common_divisor(apart, job.y.in_step);
    slots = job.y.taps;
  }

  // Where the copy of every input in a list goes.
  void place(const Meetings& meetings, std::ptrdiff_t* to) const {
    for (std::ptrdiff_t m = 0; m < meetings.count; ++m) to[m] = meetings.input[m] / spacing % slots;
  }
};

// Words of each thread: a tag for each slot, and where the window begins; further ones as asked for.
class Words {
 public:
  Words(const DepthwiseConv& job, const Layout& layout, std::ptrdiff_t further)
      : count_(layout.slots + 1 + further), numbers_(count_ * job.threads) {
    for (std::ptrdiff_t thread = 0; thread < job.threads; ++thread) of(thread)[layout.slots] = PTRDIFF_MIN;
  }
  std::ptrdiff_t* of(std::ptrdiff_t thread) const { return numbers_.data() + thread * count_; }

 private:
  std::ptrdiff_t count_;
  Numbers numbers_;
};

// Copies of the input rows that are in use, as floats, split by phase, zeros around them.
template <class T>
class Window {
 public:
  LINOCUT_INLINE Window(const DepthwiseConv& job, const Layout& layout, float* memory, std::ptrdiff_t* tags)
      : job_(job), layout_(layout), memory_(memory), tags_(tags) {}

  // Place t of a copy will be input column out_step (t + from) + phase.
  LINOCUT_INLINE void begin(const T* plane, std::ptrdiff_t from) {
    plane_ = plane;
    for (std::ptrdiff_t slot = 0; slot < layout_.slots; ++slot) tags_[slot] = -1;
    // the zeros of a plane are where those of the last one were
    const bool cleared = tags_[layout_.slots] == from;
    tags_[layout_.slots] = from_ = from;
    if (cleared) return;
    for (std::ptrdiff_t i = 0; i < layout_.slots * layout_.row_floats; i += kLanes) store(memory_ + i, splat(0.0f));
  }

  // The copy of row i, which is made if it is not there.
  LINOCUT_INLINE const float* row(std::ptrdiff_t i, std::ptrdiff_t slot) const {
    float* to = memory_ + slot * layout_.row_floats;
    if (tags_[slot] != i) {
      tags_[slot] = i;
      for (std::ptrdiff_t p = 0; p < job_.x.out_step; ++p) fill(plane_ + i * job_.in_strides.y + p, p, to + p * layout_.pitch);
    }
    return to;
  }

  // Asks for the rows of a later place: rows far apart are not what a processor foresees.
  LINOCUT_INLINE void expect(const Meetings& meetings, const std::ptrdiff_t* slots, std::ptrdiff_t place) const {
    const auto start = larger(from_, 0) * job_.x.out_step;
    const auto floats = smaller(layout_.pitch * job_.x.out_step, job_.x.in - start);
    for (auto m = meetings.first[place]; m < meetings.first[place + 1]; ++m) {
      if (tags_[slots[m]] != meetings.input[m]) fetch(plane_ + meetings.input[m] * job_.in_strides.y + start, floats);
    }
  }

 private:
  LINOCUT_INLINE void fill(const T* source, std::ptrdiff_t phase, float* to) const {
    const auto step = job_.x.out_step;
    const auto count = job_.x.in > phase ? (job_.x.in - phase + step - 1) / step : 0;
    const auto stop = smaller(from_ + layout_.pitch - kLanes, count);
    auto t = larger(from_, 0);
    to -= from_;
    if (step == 1) {
      for (; t + kLanes <= stop; t += kLanes) store(to + t, load(source + t));
    } else if (step == 2) {
      const vi even = 2 * lane_numbers();
      const auto whole = smaller(stop, (job_.x.in - phase) / 2);  // both entries of every pair are there
      for (; t + kLanes <= whole; t += kLanes) {
        store(to + t, permute(load(source + 2 * t), load(source + 2 * t + kLanes), even));
      }
    }
    for (; t < stop; ++t) to[t] = load_one(source + t * step);
  }

  const DepthwiseConv& job_;
  const Layout& layout_;
  float* memory_;
  std::ptrdiff_t* tags_;
  const T* plane_ = nullptr;
  std::ptrdiff_t from_ = 0;
};

// The sums of a row over rows of inputs and taps.
struct Sum {
  const float* const* rows;
  const std::ptrdiff_t* at;
  const float* weights;
  int row_count, taps;

  template <int Vectors>
  LINOCUT_INLINE void add(vf* acc, std::ptrdiff_t j) const {
    if (row_count == 3 && taps == 3) return add_fixed<Vectors, 3>(acc, j);
    for (int a = 0; a < row_count; ++a) {
      for (int b = 0; b < taps; ++b) add_one<Vectors>(acc, splat(weights[a * taps + b]), rows[a] + at[b] + j);
    }
  }

  // `count` outputs, to memory that lies together.
  template <class T>
  LINOCUT_INLINE void run(T* out, std::ptrdiff_t count, float bias) const {
    std::ptrdiff_t j = 0;
    for (; j + kBlock <= count; j += kBlock) run_at<kVectors>(out, j, kLanes, bias);
    for (; j + kBlock / 2 <= count; j += kBlock / 2) run_at<kVectors / 2>(out, j, kLanes, bias);
    for (; j + kLanes <= count; j += kLanes) run_at<1>(out, j, kLanes, bias);
    if (j < count) run_at<1>(out, j, static_cast<int>(count - j), bias);
  }

 private:
  template <int Vectors, class T>
  LINOCUT_INLINE void run_at(T* out, std::ptrdiff_t j, int lanes, float bias) const {
    vf acc[Vectors];
    for (int v = 0; v < Vectors; ++v) acc[v] = splat(bias);
    add<Vectors>(acc, j);
    for (int v = 0; v < Vectors; ++v) store_n(out + j + v * kLanes, acc[v], lanes);
  }

  template <int Vectors, int Side>
  LINOCUT_INLINE void add_fixed(vf* acc, std::ptrdiff_t j) const {
    for (int a = 0; a < Side; ++a) {
      for (int b = 0; b < Side; ++b) add_one<Vectors>(acc, splat(weights[a * Side + b]), rows[a] + at[b] + j);
    }
  }

  template <int Vectors>
  LINOCUT_INLINE static void add_one(vf* acc, vf w, const float* from) {
    for (int v = 0; v < Vectors; ++v) acc[v] += w * load(from + v * kLanes);
  }
};

template <class T>
void forward(const DepthwiseConv& job) {
  const DepthwiseAxis &x = job.x, &y = job.y;
  const Columns columns(x);
  const Layout layout(job, columns);
  const Meetings meetings(y, layout.step);
  const Numbers slot_numbers(meetings.count);
  std::ptrdiff_t* const slots = slot_numbers.data();
  layout.place(meetings, slots);
  const auto window_floats = layout.slots * layout.row_floats, filter_floats = y.taps * x.taps;
  const Scratch memory(job.threads, static_cast<std::size_t>(window_floats + layout.tile + kBlock + filter_floats));
  const auto used = columns.first[x.in_step];
  const Words words(job, layout, y.taps + used);
  parallel_for(job.batch * job.channels * layout.tiles * layout.pieces, job.threads, [&](std::ptrdiff_t index, int thread) {
    const auto piece = index % layout.pieces, start = index / layout.pieces % layout.tiles * layout.tile;
    const auto plane = index / (layout.pieces * layout.tiles), channel = plane % job.channels, batch = plane / job.channels;
    float *window_memory = memory.of(thread), *phase_row = window_memory + window_floats;
    float* weights = phase_row + layout.tile + kBlock;
    std::ptrdiff_t *tags = words.of(thread), *at = tags + layout.slots + 1;
    auto* rows = reinterpret_cast<const float**>(at + used);
    Window<T> window(job, layout, window_memory, tags);
    window.begin(static_cast<const T*>(job.in) + batch * job.in_strides.batch + channel * job.in_strides.channel,
                 start + columns.low);
    for (std::ptrdiff_t b = 0; b < used; ++b) {
      at[b] = columns.taps[b].phase * layout.pitch + columns.taps[b].shift - columns.low;
    }
    T* result = static_cast<T*>(job.out) + batch * job.out_strides.batch + channel * job.out_strides.channel;
    const float* filter = job.weight + channel * filter_floats;
    const float bias = job.bias ? job.bias[channel] : 0.0f;
    for (auto place = piece * job.rows; place < smaller((piece + 1) * job.rows, y.out); ++place) {
      const auto first = meetings.first[place];
      const int row_count = static_cast<int>(meetings.first[place + 1] - first);
      for (int a = 0; a < row_count; ++a) rows[a] = window.row(meetings.input[first + a], slots[first + a]);
      T* to = result + meetings.output[place] * job.out_strides.y;
      if (const auto next = place + kAhead; next < y.out) {
        window.expect(meetings, slots, next);
        fetch_to_write(result + meetings.output[next] * job.out_strides.y + start * x.in_step, layout.tile * x.in_step);
      }
      for (std::ptrdiff_t r = 0; r < x.in_step; ++r) {
        const auto count = smaller(start + layout.tile, outputs_of(x, r)) - start;
        const int taps = static_cast<int>(columns.first[r + 1] - columns.first[r]);
        const Tap* tap = columns.taps + columns.first[r];
        const bool all = row_count == y.taps && taps == x.taps;  // in their own order
        for (int a = 0; !all && a < row_count; ++a) {
          for (int b = 0; b < taps; ++b) {
            weights[a * taps + b] = filter[meetings.tap[first + a] * x.taps + tap[b].index];
          }
        }
        const Sum sum{rows, at + columns.first[r], all ? filter : weights, row_count, taps};
        if (x.in_step == 1) {
          sum.run(to + start, count, bias);
          continue;
        }
        sum.run(phase_row, count, bias);
        for (std::ptrdiff_t j = 0; j < count; ++j) store_one(to + (start + j) * x.in_step + r, phase_row[j]);
      }
    }
  });
}

// The dot products of a row of the gradient with the inputs under some taps, lane by lane, added to what is there.
template <int Taps, class T>
LINOCUT_INLINE void dot(const T* grad, const float* row, const std::ptrdiff_t* at, std::ptrdiff_t count, float* const* to) {
  vf acc[Taps][2] = {};
  std::ptrdiff_t j = 0;
  for (; j + 2 * kLanes <= count; j += 2 * kLanes) {
    const vf g[2] = {load(grad + j), load(grad + j + kLanes)};
    for (int k = 0; k < Taps; ++k) {
      for (int v = 0; v < 2; ++v) acc[k][v] += g[v] * load(row + at[k] + j + v * kLanes);
    }
  }
  for (; j < count; j += kLanes) {
    const int n = static_cast<int>(smaller(count - j, kLanes));
    const vf g = load_n(grad + j, n);
    for (int k = 0; k < Taps; ++k) acc[k][0] += g * first_lanes(load(row + at[k] + j), n);
  }
  for (int k = 0; k < Taps; ++k) store(to[k], load(to[k]) + acc[k][0] + acc[k][1]);
}

template <class T>
void weight_grad(const DepthwiseWeightGrad& grad) {
  const DepthwiseConv& job = grad.forward;
  const DepthwiseAxis &x = job.x, &y = job.y;
  const Columns columns(x);
  const Layout layout(job, columns);
  const Meetings meetings(y, layout.step);
  const Numbers slot_numbers(meetings.count);
  std::ptrdiff_t* const slots = slot_numbers.data();
  layout.place(meetings, slots);
  const auto window_floats = layout.slots * layout.row_floats, taps = y.taps * x.taps, used = columns.first[1];
  const Scratch memory(job.threads, static_cast<std::size_t>(window_floats + taps * kLanes));
  const Words words(job, layout, used);
  parallel_for(job.batch * job.channels * layout.pieces, job.threads, [&](std::ptrdiff_t index, int thread) {
    const auto piece = index % layout.pieces, plane = index / layout.pieces;
    const auto channel = plane % job.channels, batch = plane / job.channels;
    float *window_memory = memory.of(thread), *sums = window_memory + window_floats;
    std::ptrdiff_t *tags = words.of(thread), *at = tags + layout.slots + 1;
    for (std::ptrdiff_t k = 0; k < taps; ++k) store(sums + k * kLanes, splat(0.0f));
    for (std::ptrdiff_t b = 0; b < used; ++b) {
      at[b] = columns.taps[b].phase * layout.pitch + columns.taps[b].shift - columns.low;
    }
    vf total = splat(0.0f);
    Window<T> window(job, layout, window_memory, tags);
    const T* inputs = static_cast<const T*>(job.in) + batch * job.in_strides.batch + channel * job.in_strides.channel;
    const T* given = static_cast<const T*>(job.out) + batch * job.out_strides.batch + channel * job.out_strides.channel;
    for (std::ptrdiff_t start = 0; start < x.out; start += layout.tile) {
      window.begin(inputs, start + columns.low);
      const auto count = smaller(layout.tile, x.out - start);
      for (auto place = piece * job.rows; place < smaller((piece + 1) * job.rows, y.out); ++place) {
        const T* g = given + meetings.output[place] * job.out_strides.y + start;
        if (const auto next = place + kAhead; next < y.out) {
          window.expect(meetings, slots, next);
          fetch(given + meetings.output[next] * job.out_strides.y + start, count);
        }
        for (auto a = meetings.first[place]; a < meetings.first[place + 1]; ++a) {
          const float* row = window.row(meetings.input[a], slots[a]);
          float* row_sums = sums + meetings.tap[a] * x.taps * kLanes;
          std::ptrdiff_t b = 0;
          for (; b + 3 <= used; b += 3) {
            float* const to[3] = {row_sums + columns.taps[b].index * kLanes, row_sums + columns.taps[b + 1].index * kLanes,
                                  row_sums + columns.taps[b + 2].index * kLanes};
            dot<3>(g, row, at + b, count, to);
          }
          for (; b < used; ++b) {
            float* const to[1] = {row_sums + columns.taps[b].index * kLanes};
            dot<1>(g, row, at + b, count, to);
          }
        }
        for (std::ptrdiff_t j = 0; j < count; j += kLanes) {
          total += load_n(g + j, static_cast<int>(smaller(count - j, kLanes)));
        }
      }
    }
    float* to = grad.sums + ((batch * layout.pieces + piece) * job.channels + channel) * (taps + 1);
    for (std::ptrdiff_t k = 0; k < taps; ++k) to[k] = sum(load(sums + k * kLanes));
    to[taps] = sum(total);
  });
}

}  // namespace

void depthwise_planes(const DepthwiseConv& job) { job.half ? forward<bf16>(job) : forward<float>(job); }

void depthwise_planes_grad(const DepthwiseWeightGrad& job) {
  job.forward.half ? weight_grad<bf16>(job) : weight_grad<float>(job);
}

}  // namespace linocut::LINOCUT_ISA
