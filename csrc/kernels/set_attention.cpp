#include "set_attention.hpp"

#include "threads.hpp"
#include "tile.hpp"

namespace linocut::LINOCUT_ISA {
namespace {

using Size = std::ptrdiff_t;

constexpr float kEpsilon = 1e-6f;  // as in src/linocut/ops/linear_attention.py

LINOCUT_INLINE float maximum(vf v) {
  const vi lanes = lane_numbers();
  for (int half = kLanes / 2; half > 0; half /= 2) v = max(v, permute(v, lanes ^ half));
  return v[0];
}

// Sizes of the tiles: a block of tokens is `rows` long, the others are padded to whole vectors.
struct Tiles {
  int dim, features, value, dims, feats, vals, rows;

  explicit Tiles(const SetAttention& s)
      : dim(static_cast<int>(s.dim)),
        features(static_cast<int>(s.features)),
        value(static_cast<int>(s.value)),
        dims(static_cast<int>(padded(s.dim))),
        feats(static_cast<int>(padded(s.features))),
        vals(static_cast<int>(padded(s.value))),
        rows(feats > 128 ? 48 : 96) {}  // multiples of a product's six rows
};

// The tokens of one sequence, cut so that threads have work when heads are few; the cuts do not depend on the threads,
// and so neither does the result.
struct Pieces {
  Size length, piece, count;

  Pieces(Size length, int rows) : length(length) {
    const Size least = 2048, part = (length + 15) / 16;
    piece = ((part > least ? part : least) + rows - 1) / rows * rows;
    count = length > piece ? (length + piece - 1) / piece : 1;
  }
  Size begin(Size index) const { return index * piece; }
  Size end(Size index) const { return (index + 1) * piece < length ? (index + 1) * piece : length; }
};

// Calls f(first token, how many) for the blocks of a piece.
template <class F>
LINOCUT_INLINE void blocks(const Pieces& pieces, Size index, int rows, const F& f) {
  for (Size t = pieces.begin(index), end = pieces.end(index); t < end; t += rows) {
    f(t, static_cast<int>(end - t < rows ? end - t : rows));
  }
}

template <class T>
LINOCUT_INLINE const T* at(const Tokens& x, Size batch, Size t, Size head) {
  return static_cast<const T*>(x.data) + batch * x.batch + t * x.length + head * x.heads;
}

// Rows of floats: where they lie if they are whole vectors of floats, else a padded copy.
struct Rows {
  const float* data;
  Size row;
};

LINOCUT_INLINE Rows as_rows(int rows, int columns, int padded, const float* from, Size stride, float* copy) {
  if (columns == padded) return {from, stride};
  pack(rows, columns, from, stride, copy, padded);
  return {copy, padded};
}

LINOCUT_INLINE Rows as_rows(int rows, int columns, int padded, const bf16* from, Size stride, float* copy) {
  pack(rows, columns, from, stride, copy, padded);
  return {copy, padded};
}

// A product whose result goes to rows of a tensor: directly if they are whole vectors of floats.
LINOCUT_INLINE bool direct(const float*, int columns, int padded) { return columns == padded; }
LINOCUT_INLINE bool direct(const bf16*, int, int) { return false; }

LINOCUT_INLINE float* as_tile(float* to) { return to; }
LINOCUT_INLINE float* as_tile(bf16*) { return nullptr; }

template <class T, class F>
void product_to(int rows, int columns, int padded, int k, const F* a, Size a_row, const F* b, T* to, Size stride,
                float* tile) {
  if (direct(to, columns, padded)) return product<false>(rows, padded, k, a, a_row, 1, b, padded, as_tile(to), stride);
  product<false>(rows, padded, k, a, a_row, 1, b, padded, tile, padded);
  for (int r = 0; r < rows; ++r) {
    for (int j = 0; j < columns; j += kLanes) store_n(to + r * stride + j, load(tile + r * padded + j), columns - j);
  }
}

// Rows of tensors that the next block needs. Asked for in between slices of a product, they come while it runs: rows of
// one head lie apart, and the hardware does not guess them.
template <class T>
struct Ahead {
  const T* data;
  Size stride;
  int rows, columns;

  LINOCUT_INLINE void fetch(int part, int parts) const {
    for (int r = rows * part / parts; r < rows * (part + 1) / parts; ++r) {
      for (int j = 0; j < columns; j += 64 / static_cast<int>(sizeof(T))) __builtin_prefetch(data + r * stride + j);
    }
  }
};

template <bool Accumulate, class F, class... Next>
void product_fetching(int m, int n, int k, const F* a, Size a_row, Size a_col, const F* b, Size b_row, float* c,
                      Size c_row, const Next&... next) {
  const int slices = (m + kTileRows - 1) / kTileRows;
  for (int i = 0; i < slices; ++i) {
    const int first = i * kTileRows, rows = m - first < kTileRows ? m - first : kTileRows;
    (next.fetch(i, slices), ...);
    product<Accumulate>(rows, n, k, a + first * a_row, a_row, a_col, b, b_row, c + first * c_row, c_row);
  }
}

// Memory handed out in parts, or without any counted.
class Parts {
 public:
  explicit Parts(float* memory) : memory_(memory) {}
  std::size_t used() const { return used_; }
  float* floats(Size count) {
    float* part = memory_ ? memory_ + used_ : nullptr;
    used_ += (static_cast<std::size_t>(count) + 15) / 16 * 16;
    return part;
  }
  // Room for what left or right make of so many floats; they leave floats where they are.
  template <class F>
  F* factors(Size count) {
    return kIsPair<F> ? reinterpret_cast<F*>(floats(inner<F>(count))) : nullptr;
  }

 private:
  float* memory_;
  std::size_t used_ = 0;
};

// What a thread works in: tiles of a block of tokens and of what it reads from, as floats and as sides of products.
template <class F>
struct Work {
  float *x, *f, *slope, *values, *out, *scale, *below;  // a row a token
  float *kv, *turned, *z, *m;                           // (features, value), that transposed, (features) each
  F *left_f, *right_f, *left_slope, *left_values, *right_values, *right_kv, *right_turned;

  Work(const Tiles& t, Parts parts) : Work(t, &parts) {}
  Work(const Tiles& t, Parts* parts) {
    const Size dims = t.rows * t.dims, feats = t.rows * t.feats, vals = t.rows * t.vals, state = t.feats * t.vals;
    x = parts->floats(dims), f = parts->floats(feats), slope = parts->floats(feats);
    values = parts->floats(vals), out = parts->floats(vals);
    scale = parts->floats(t.rows), below = parts->floats(t.rows);
    kv = parts->floats(state), turned = parts->floats(state), z = parts->floats(t.feats), m = parts->floats(t.feats);
    left_f = parts->factors<F>(feats), right_f = parts->factors<F>(feats);
    left_slope = parts->factors<F>(feats);
    left_values = parts->factors<F>(vals), right_values = parts->factors<F>(vals);
    right_kv = parts->factors<F>(state), right_turned = parts->factors<F>(state);
  }

  static std::size_t size(const Tiles& t) {
    Parts count(nullptr);
    Work(t, &count);
    return count.used();
  }
};

// P as the right side of products: transposed for P x, as it is for the gradient. P x stays in float: in an exponent the
// rounding of P would weigh more than all others together.
template <class F>
class Projection {
 public:
  Projection(const SetAttention& s, const Tiles& t) : memory_(1, s.projection ? 3 * t.dims * t.feats : 0) {
    if (!s.projection) return;
    Parts parts(memory_.of(0));
    float *l = parts.floats(t.feats * t.dims), *r = parts.floats(t.feats * t.dims);
    for (int i = 0; i < t.feats * t.dims; ++i) l[i] = r[i] = 0;
    for (int i = 0; i < t.features; ++i) {
      for (int j = 0; j < t.dim; ++j) l[i * t.dims + j] = r[j * t.feats + i] = s.projection[i * t.dim + j];
    }
    as_it_is = right(t.feats, t.dims, l, t.dims, parts.factors<F>(t.feats * t.dims));
    turned = r;
  }

 private:
  Scratch memory_;

 public:
  const F* as_it_is = nullptr;    // (features, dim)
  const float* turned = nullptr;  // (dim, features)
};

template <FeatureMap map>
LINOCUT_INLINE vf mapped(vf x) {
  const vf zero = splat(0.0f);
  if (map == FeatureMap::relu) return x < zero ? zero : x;
  if (map == FeatureMap::exp) return exp(x);
  if (map == FeatureMap::elu_plus_one) return x > zero ? x + 1.0f : exp(x > zero ? zero : x);
  return x;
}

template <FeatureMap map, class T>
LINOCUT_INLINE void map_rows(const Tiles& t, int rows, const T* x, Size stride, float* f) {
  for (int r = 0; r < rows; ++r) {
    for (int j = 0; j < t.feats; j += kLanes) {
      store(f + r * t.feats + j, mapped<map>(load_n(x + r * stride + j, t.dim - j)));
    }
  }
}

// The features of a block, (rows, feats); of the stabilised maps the exponents.
template <class T, class F>
void map_block(const SetAttention& s, const Tiles& t, const Projection<F>& p, int rows, const T* x, Size stride,
               const Work<F>& w) {
  float* f = w.f;
  switch (s.map) {
    case FeatureMap::elu_plus_one: return map_rows<FeatureMap::elu_plus_one>(t, rows, x, stride, f);
    case FeatureMap::relu: return map_rows<FeatureMap::relu>(t, rows, x, stride, f);
    case FeatureMap::exp: return map_rows<FeatureMap::exp>(t, rows, x, stride, f);
    case FeatureMap::random_features: break;
    default: return map_rows<FeatureMap::identity>(t, rows, x, stride, f);
  }
  const Rows source = as_rows(rows, t.dim, t.dims, x, stride, w.x);
  product<false>(rows, t.feats, t.dims, source.data, source.row, 1, p.turned, t.feats, f, t.feats);
  for (int r = 0; r < rows; ++r) {
    vf square = splat(0.0f);
    for (int j = 0; j < t.dims; j += kLanes) {
      const vf v = load(source.data + r * source.row + j);
      square += v * v;
    }
    const vf size = splat(s.norm * sum(square));
    for (int j = 0; j < t.feats; j += kLanes) store(f + r * t.feats + j, load(f + r * t.feats + j) - size);
  }
}

LINOCUT_INLINE bool stabilised(FeatureMap map) {
  return map == FeatureMap::stable_exp || map == FeatureMap::random_features;
}

// g := g φ'(x), φ' being a function of φ(x).
LINOCUT_INLINE void through_map(FeatureMap map, Size count, const float* f, float* g) {
  const vf zero = splat(0.0f), one = splat(1.0f);
  for (Size i = 0; i < count; i += kLanes) {
    const vf y = load(f + i), slope = load(g + i);
    if (map == FeatureMap::relu) {
      store(g + i, y > zero ? slope : zero * y);
    } else if (map == FeatureMap::elu_plus_one) {
      store(g + i, slope * (y > one ? one : y));
    } else if (map != FeatureMap::identity) {
      store(g + i, slope * y);
    }
  }
}

// The gradient of tokens from that of their exponents or features, the slope, which has been through the map.
template <class T, class F>
void to_tokens(const SetAttention& s, const Tiles& t, const Projection<F>& p, int rows, const T* x, Size x_stride,
               T* to, Size to_stride, const Work<F>& w) {
  const float *g = w.slope, *tile = w.x;
  if (s.map == FeatureMap::random_features) {
    product<false>(rows, t.dims, static_cast<int>(inner<F>(t.feats)), left(rows, t.feats, g, t.feats, w.left_slope),
                   inner<F>(t.feats), 1, p.as_it_is, t.dims, w.x, t.dims);
    for (int r = 0; r < rows; ++r) {
      vf total = splat(0.0f);
      for (int j = 0; j < t.feats; j += kLanes) total += load(g + r * t.feats + j);
      const float factor = 2 * s.norm * sum(total);
      for (int j = 0; j < t.dims; j += kLanes) {
        const vf v = load(tile + r * t.dims + j) - factor * load_n(x + r * x_stride + j, t.dim - j);
        store_n(to + r * to_stride + j, v, t.dim - j);
      }
    }
    return;
  }
  for (int r = 0; r < rows; ++r) {
    for (int j = 0; j < t.dim; j += kLanes) {
      store_n(to + r * to_stride + j, load(g + r * t.feats + j), t.dim - j);
    }
  }
}

// Sums of a piece: kv (feats, vals), then z and m, (feats) each.
struct Sums {
  float *kv, *z, *m;

  static std::size_t size(const Tiles& t) { return static_cast<std::size_t>(t.feats) * (t.vals + 2); }
  Sums(float* memory, const Tiles& t) : kv(memory), z(kv + t.feats * t.vals), m(z + t.feats) {}

  void clear(const Tiles& t) const {
    for (Size i = 0; i < static_cast<Size>(size(t)); ++i) kv[i] = 0;
    for (int i = 0; i < t.feats; ++i) m[i] = -__builtin_inff();
  }
};

// Raises the maxima of the sums to those of a block of exponents, and turns the exponents to features.
LINOCUT_INLINE void stabilise(const Tiles& t, int rows, float* f, const Sums& sums) {
  for (int j = 0; j < t.feats; j += kLanes) {
    const vf before = load(sums.m + j);
    vf top = before;
    for (int r = 0; r < rows; ++r) top = max(load(f + r * t.feats + j), top);
    store(sums.m + j, top);
    const vf scale = before == top ? splat(1.0f) : exp(before - top);
    store(sums.z + j, load(sums.z + j) * scale);
    for (int lane = 0; lane < kLanes; ++lane) {
      if (scale[lane] == 1.0f) continue;
      float* row = sums.kv + (j + lane) * t.vals;
      for (int i = 0; i < t.vals; i += kLanes) store(row + i, load(row + i) * scale[lane]);
    }
    for (int r = 0; r < rows; ++r) store(f + r * t.feats + j, exp(load(f + r * t.feats + j) - top));
  }
}

LINOCUT_INLINE void add_columns(const Tiles& t, int rows, const float* f, float* z) {
  for (int j = 0; j < t.feats; j += kLanes) {
    vf total = load(z + j);
    for (int r = 0; r < rows; ++r) total += load(f + r * t.feats + j);
    store(z + j, total);
  }
}

// Adds the sums of the pieces up, in their order, into the tensors of one head.
void gather(const Tiles& t, const Scratch& parts, Size first, Size count, bool stable, float* kv, float* z, float* m) {
  for (int i = 0; i < t.features; ++i) {
    float top = -__builtin_inff();
    for (Size c = 0; c < count && stable; ++c) top = max(Sums(parts.of(first + c), t).m[i], top);
    if (m) m[i] = top;
    float total = 0;
    for (int j = 0; j < t.value; ++j) kv[i * t.value + j] = 0;
    for (Size c = 0; c < count; ++c) {
      const Sums part(parts.of(first + c), t);
      const float scale = !stable || part.m[i] == top ? 1.0f : exp(part.m[i] - top);
      total += scale * part.z[i];
      for (int j = 0; j < t.value; ++j) kv[i * t.value + j] += scale * part.kv[i * t.vals + j];
    }
    if (z) z[i] = total;
  }
}

template <class T>
void summarize(const SetSummarize& job) {
  const SetAttention& s = job.shape;
  const Tiles t(s);
  const Pieces pieces(s.length, t.rows);
  using F = Factor<T>;
  const Projection<F> p(s, t);
  const Size sequences = s.batch * s.heads;
  const Scratch parts(sequences * pieces.count, Sums::size(t));
  const Scratch scratch(s.threads, Work<F>::size(t));
  parallel_for(sequences * pieces.count, s.threads, [&](Size index, int thread) {
    const Size sequence = index / pieces.count, batch = sequence / s.heads, head = sequence % s.heads;
    const Work<F> w(t, Parts(scratch.of(thread)));
    const Sums sums(parts.of(index), t);
    sums.clear(t);
    blocks(pieces, index % pieces.count, t.rows, [&](Size first, int rows) {
      map_block(s, t, p, rows, at<T>(job.k, batch, first, head), job.k.length, w);
      if (stabilised(s.map)) stabilise(t, rows, w.f, sums);
      add_columns(t, rows, w.f, sums.z);
      const Rows v = as_rows(rows, t.value, t.vals, at<T>(job.v, batch, first, head), job.v.length, w.values);
      product_fetching<true>(t.feats, t.vals, static_cast<int>(inner<F>(rows)),
                             right(rows, t.feats, w.f, t.feats, w.right_f), 1, t.feats,
                             right(rows, t.vals, v.data, v.row, w.right_values), v.row, sums.kv, t.vals,
                             Ahead<T>{at<T>(job.k, batch, first + t.rows, head), job.k.length, rows, t.dim},
                             Ahead<T>{at<T>(job.v, batch, first + t.rows, head), job.v.length, rows, t.value});
    });
  });
  for (Size i = 0; i < sequences; ++i) {
    gather(t, parts, i * pieces.count, pieces.count, stabilised(s.map), job.kv + i * t.features * t.value,
           job.z + i * t.features, job.m ? job.m + i * t.features : nullptr);
  }
}

template <class T>
void summarize_grad(const SetSummarizeGrad& job) {
  using F = Factor<T>;
  const SetAttention& s = job.shape;
  const Tiles t(s);
  const Pieces pieces(s.length, t.rows);
  const Projection<F> p(s, t);
  const Scratch scratch(s.threads, Work<F>::size(t));
  const int feats = static_cast<int>(inner<F>(t.feats)), vals = static_cast<int>(inner<F>(t.vals));
  parallel_for(s.batch * s.heads * pieces.count, s.threads, [&](Size index, int thread) {
    const Size sequence = index / pieces.count, batch = sequence / s.heads, head = sequence % s.heads;
    const Work<F> w(t, Parts(scratch.of(thread)));
    for (int i = 0; i < t.feats * t.vals; ++i) w.kv[i] = w.turned[i] = 0;
    pack(t.features, t.value, job.grad_kv + sequence * t.features * t.value, t.value, w.kv, t.vals);
    transpose(t.features, t.vals, w.kv, t.vals, w.turned, t.feats);
    const F* grad_kv = right(t.feats, t.vals, w.kv, t.vals, w.right_kv);
    const F* turned = right(t.vals, t.feats, w.turned, t.feats, w.right_turned);
    pack(1, t.features, job.grad_z + sequence * t.features, t.features, w.z, t.feats);
    if (stabilised(s.map)) {
      for (int i = 0; i < t.feats; ++i) {
        w.m[i] = i < t.features ? job.m[sequence * t.features + i] : __builtin_inff();
      }
    }
    blocks(pieces, index % pieces.count, t.rows, [&](Size first, int rows) {
      const T *k = at<T>(job.k, batch, first, head), *values = at<T>(job.v, batch, first, head);
      map_block(s, t, p, rows, k, job.k.length, w);
      if (stabilised(s.map)) {
        for (int i = 0; i < rows * t.feats; i += kLanes) store(w.f + i, exp(load(w.f + i) - load(w.m + i % t.feats)));
      }
      const Size row = (batch * s.length + first) * s.heads + head;
      product_to(rows, t.value, t.vals, feats, left(rows, t.feats, w.f, t.feats, w.left_f), feats, grad_kv,
                 static_cast<T*>(job.grad_v) + row * t.value, s.heads * t.value, w.out);
      for (int i = 0; i < rows * t.feats; i += kLanes) store(w.slope + i, load(w.z + i % t.feats));
      const Rows v = as_rows(rows, t.value, t.vals, values, job.v.length, w.values);
      product<true>(rows, t.feats, vals, left(rows, t.vals, v.data, v.row, w.left_values), inner<F>(v.row), 1, turned,
                    t.feats, w.slope, t.feats);
      through_map(s.map, static_cast<Size>(rows) * t.feats, w.f, w.slope);
      to_tokens(s, t, p, rows, k, job.k.length, static_cast<T*>(job.grad_k) + row * t.dim, s.heads * t.dim, w);
    });
  });
}

// Loads what the queries of one head read, kv, z and m, as tiles, and gives the least normaliser.
template <class F>
float load_summary(const SetRead& job, const Tiles& t, Size sequence, const Work<F>& w) {
  for (int i = t.features * t.vals; i < t.feats * t.vals; ++i) w.kv[i] = 0;
  pack(t.features, t.value, job.kv + sequence * t.features * t.value, t.value, w.kv, t.vals);
  float total = 0;
  for (int i = 0; i < t.feats; ++i) {
    const bool real = i < t.features;
    w.z[i] = real && job.z ? job.z[sequence * t.features + i] : 0.0f;
    w.m[i] = !real ? -__builtin_inff() : job.m ? job.m[sequence * t.features + i] : 0.0f;
    total += w.z[i];
  }
  return kEpsilon * max(total / t.features, kEpsilon);
}

// The features of a block of queries and, in `scale`, what their products are multiplied by. Returns nothing else: a
// scale that came from the floor is marked by its sign.
template <class T, class F>
void map_queries(const SetRead& job, const Tiles& t, const Projection<F>& p, float floor, int rows, const T* q,
                 const Work<F>& w) {
  map_block(job.shape, t, p, rows, q, job.q.length, w);
  const bool stable = stabilised(job.shape.map);
  for (int r = 0; r < rows; ++r) {
    float* row = w.f + r * t.feats;
    if (stable) {
      vf top = splat(-__builtin_inff());
      for (int j = 0; j < t.feats; j += kLanes) top = max(load(row + j) + load(w.m + j), top);
      const float most = maximum(top);
      for (int j = 0; j < t.feats; j += kLanes) store(row + j, exp(load(row + j) + load(w.m + j) - most));
    }
    vf total = splat(0.0f);
    for (int j = 0; j < t.feats; j += kLanes) total += load(row + j) * load(w.z + j);
    const float normaliser = sum(total);
    w.scale[r] = !job.z ? 1.0f : normaliser < floor ? -1.0f / floor : 1.0f / normaliser;
  }
}

LINOCUT_INLINE float size(float x) { return x < 0 ? -x : x; }

template <class T>
void read(const SetRead& job) {
  using F = Factor<T>;
  const SetAttention& s = job.shape;
  const Tiles t(s);
  const Pieces pieces(s.length, t.rows);
  const Projection<F> p(s, t);
  const Scratch scratch(s.threads, Work<F>::size(t));
  const int feats = static_cast<int>(inner<F>(t.feats));
  parallel_for(s.batch * s.heads * pieces.count, s.threads, [&](Size index, int thread) {
    const Size sequence = index / pieces.count, batch = sequence / s.heads, head = sequence % s.heads;
    const Work<F> w(t, Parts(scratch.of(thread)));
    const float floor = load_summary(job, t, sequence, w);
    const F* kv = right(t.feats, t.vals, w.kv, t.vals, w.right_kv);
    blocks(pieces, index % pieces.count, t.rows, [&](Size first, int rows) {
      map_queries(job, t, p, floor, rows, at<T>(job.q, batch, first, head), w);
      T* y = static_cast<T*>(job.y) + ((batch * s.length + first) * s.heads + head) * t.value;
      product_fetching<false>(rows, t.vals, feats, left(rows, t.feats, w.f, t.feats, w.left_f), feats, 1, kv, t.vals,
                              w.out, t.vals,
                              Ahead<T>{at<T>(job.q, batch, first + t.rows, head), job.q.length, rows, t.dim},
                              Ahead<T>{y, s.heads * t.value, rows, t.value});
      for (int r = 0; r < rows; ++r, y += s.heads * t.value) {
        const float factor = size(w.scale[r]);
        for (int j = 0; j < t.value; j += kLanes) store_n(y + j, load(w.out + r * t.vals + j) * factor, t.value - j);
      }
    });
  });
}

// The gradients of a block of queries, added to the sums of kv and z and written to `to`.
template <class T, class F>
void read_block_grad(const SetReadGrad& grad, const Tiles& t, const Projection<F>& p, int rows, const T* q, Size row,
                     const F* turned, const Sums& sums, const Work<F>& w) {
  const SetRead& job = grad.forward;
  const SetAttention& s = job.shape;
  const T *y = static_cast<const T*>(job.y) + row * t.value, *g = static_cast<const T*>(grad.grad_y) + row * t.value;
  // of the numerator in `values`, of the normaliser in `below`
  for (int r = 0; r < rows; ++r, y += s.heads * t.value, g += s.heads * t.value) {
    const float factor = size(w.scale[r]);
    vf dot = splat(0.0f);
    for (int j = 0; j < t.vals; j += kLanes) {
      const vf up = load_n(g + j, t.value - j) * factor;
      store(w.values + r * t.vals + j, up);
      dot += up * load_n(y + j, t.value - j);
    }
    w.below[r] = job.z && !(w.scale[r] < 0) ? -sum(dot) : 0.0f;
  }
  product<true>(t.feats, t.vals, static_cast<int>(inner<F>(rows)), right(rows, t.feats, w.f, t.feats, w.right_f), 1,
                t.feats, right(rows, t.vals, w.values, t.vals, w.right_values), t.vals, sums.kv, t.vals);
  for (int r = 0; r < rows; ++r) {
    for (int j = 0; j < t.feats; j += kLanes) {
      store(sums.z + j, load(sums.z + j) + w.below[r] * load(w.f + r * t.feats + j));
      store(w.slope + r * t.feats + j, w.below[r] * load(w.z + j));
    }
  }
  const int vals = static_cast<int>(inner<F>(t.vals));
  product<true>(rows, t.feats, vals, left(rows, t.vals, w.values, t.vals, w.left_values), vals, 1, turned, t.feats,
                w.slope, t.feats);
  through_map(s.map, static_cast<Size>(rows) * t.feats, w.f, w.slope);
  to_tokens(s, t, p, rows, q, job.q.length, static_cast<T*>(grad.grad_q) + row * t.dim, s.heads * t.dim, w);
}

template <class T>
void read_grad(const SetReadGrad& grad) {
  using F = Factor<T>;
  const SetRead& job = grad.forward;
  const SetAttention& s = job.shape;
  const Tiles t(s);
  const Pieces pieces(s.length, t.rows);
  const Projection<F> p(s, t);
  const Size sequences = s.batch * s.heads;
  const Scratch parts(sequences * pieces.count, Sums::size(t));
  const Scratch scratch(s.threads, Work<F>::size(t));
  parallel_for(sequences * pieces.count, s.threads, [&](Size index, int thread) {
    const Size sequence = index / pieces.count, batch = sequence / s.heads, head = sequence % s.heads;
    const Work<F> w(t, Parts(scratch.of(thread)));
    const float floor = load_summary(job, t, sequence, w);
    transpose(t.feats, t.vals, w.kv, t.vals, w.turned, t.feats);
    const F* turned = right(t.vals, t.feats, w.turned, t.feats, w.right_turned);
    const Sums sums(parts.of(index), t);
    sums.clear(t);
    blocks(pieces, index % pieces.count, t.rows, [&](Size first, int rows) {
      const T* q = at<T>(job.q, batch, first, head);
      map_queries(job, t, p, floor, rows, q, w);
      read_block_grad(grad, t, p, rows, q, (batch * s.length + first) * s.heads + head, turned, sums, w);
    });
  });
  for (Size i = 0; i < sequences; ++i) {
    gather(t, parts, i * pieces.count, pieces.count, false, grad.grad_kv + i * t.features * t.value,
           grad.grad_z ? grad.grad_z + i * t.features : nullptr, nullptr);
  }
}

// The largest of a row's features, padding left out.
LINOCUT_INLINE float row_maximum(const Tiles& t, const float* f) {
  const vf least = splat(-__builtin_inff());
  vf top = least;
  for (int j = 0; j < t.feats; j += kLanes) {
    vf exponents = load(f + j);
    for (int lane = t.features - j; lane < kLanes; ++lane) exponents[lane] = least[0];
    top = max(exponents, top);
  }
  return maximum(top);
}

template <class T>
void features(const RandomFeatures& job) {
  const SetAttention& s = job.shape;
  const Tiles t(s);
  const Pieces pieces(s.length, t.rows);
  const Projection<Factor<T>> p(s, t);
  const Scratch scratch(s.threads, Work<Factor<T>>::size(t));
  parallel_for(s.batch * s.heads * pieces.count, s.threads, [&](Size index, int thread) {
    const Size sequence = index / pieces.count, batch = sequence / s.heads, head = sequence % s.heads;
    const Work<Factor<T>> w(t, Parts(scratch.of(thread)));
    blocks(pieces, index % pieces.count, t.rows, [&](Size first, int rows) {
      map_block(s, t, p, rows, at<T>(job.x, batch, first, head), job.x.length, w);
      for (int r = 0; r < rows; ++r) {
        const Size row = (batch * s.length + first + r) * s.heads + head;
        const float most = row_maximum(t, w.f + r * t.feats);
        job.top[row] = most;
        T* to = static_cast<T*>(job.f) + row * t.features;
        for (int j = 0; j < t.features; j += kLanes) {
          store_n(to + j, exp(load(w.f + r * t.feats + j) - most), t.features - j);
        }
      }
    });
  });
}

template <class T>
void features_grad(const RandomFeaturesGrad& job) {
  const SetAttention& s = job.shape;
  const Tiles t(s);
  const Pieces pieces(s.length, t.rows);
  const Projection<Factor<T>> p(s, t);
  const Scratch scratch(s.threads, Work<Factor<T>>::size(t));
  parallel_for(s.batch * s.heads * pieces.count, s.threads, [&](Size index, int thread) {
    const Size sequence = index / pieces.count, batch = sequence / s.heads, head = sequence % s.heads;
    const Work<Factor<T>> w(t, Parts(scratch.of(thread)));
    blocks(pieces, index % pieces.count, t.rows, [&](Size first, int rows) {
      const Size row = (batch * s.length + first) * s.heads + head;
      for (int r = 0; r < rows; ++r) {
        const Size start = (row + r * s.heads) * t.features;
        for (int j = 0; j < t.feats; j += kLanes) {
          const int left = t.features - j;
          store(w.slope + r * t.feats + j, load_n(static_cast<const T*>(job.f) + start + j, left) *
                                             load_n(static_cast<const T*>(job.grad_f) + start + j, left));
        }
      }
      to_tokens(s, t, p, rows, at<T>(job.x, batch, first, head), job.x.length,
                static_cast<T*>(job.grad_x) + row * t.dim, s.heads * t.dim, w);
    });
  });
}

}  // namespace

void set_summarize(const SetSummarize& job) { job.shape.half ? summarize<bf16>(job) : summarize<float>(job); }

void set_summarize_grad(const SetSummarizeGrad& job) {
  job.shape.half ? summarize_grad<bf16>(job) : summarize_grad<float>(job);
}

void set_read(const SetRead& job) { job.shape.half ? read<bf16>(job) : read<float>(job); }

void set_read_grad(const SetReadGrad& job) { job.forward.shape.half ? read_grad<bf16>(job) : read_grad<float>(job); }

void random_features(const RandomFeatures& job) { job.shape.half ? features<bf16>(job) : features<float>(job); }

void random_features_grad(const RandomFeaturesGrad& job) {
  job.shape.half ? features_grad<bf16>(job) : features_grad<float>(job);
}

}  // namespace linocut::LINOCUT_ISA
