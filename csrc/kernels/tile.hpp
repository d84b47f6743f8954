// Products of small matrices that lie in cache: row-major float tiles whose rows are whole vectors long (pad with
// zeros). Accumulators stay in registers; nothing is packed, since the tiles of a chunked recurrence fit in L1 or L2.
//
//   product<Accumulate>(m, n, k, a, a_row, a_col, b, b_row, c, c_row)
//       c[i][j] (+)= sum over p of a[i * a_row + p * a_col] * b[p * b_row + j]
//   product_onto(m, n, k, keep, …)
//       the same, added to keep * c[i][j]
//
// a_row, a_col say how A lies: (lda, 1) for A, (1, lda) for its transpose. n must be a multiple of kLanes. For A Bᵀ
// transpose B first. A and B may be pairs of bf16 as factors.hpp lays them out: then k, a_row, a_col and b_row count
// pairs.
#pragma once

#include "factors.hpp"
#include "simd.hpp"

namespace linocut::LINOCUT_ISA {

#if defined(__AVX512F__)
constexpr int kTileRows = 6, kTileVectors = 4;  // 24 accumulators, 4 of B, 1 of A in 32 registers
#else
constexpr int kTileRows = 6, kTileVectors = 2;  // 12, 2 and 1 in 16
#endif

template <bool Accumulate, int Rows, int Vectors, class F>
LINOCUT_INLINE void product_block(int k, float keep, const F* a, std::ptrdiff_t a_row, std::ptrdiff_t a_col, const F* b,
                                  std::ptrdiff_t b_row, float* c, std::ptrdiff_t c_row) {
  vf sums[Rows][Vectors];
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) sums[i][j] = Accumulate ? keep * load(c + i * c_row + j * kLanes) : splat(0.0f);
  }
  for (int p = 0; p < k; ++p) {
    decltype(load_factors(b)) row[Vectors];
    for (int j = 0; j < Vectors; ++j) row[j] = load_factors(b + p * b_row + j * kLanes);
    for (int i = 0; i < Rows; ++i) {
      const auto factor = splat_factor(a[i * a_row + p * a_col]);
      for (int j = 0; j < Vectors; ++j) sums[i][j] = add_product(sums[i][j], factor, row[j]);
    }
  }
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) store(c + i * c_row + j * kLanes, sums[i][j]);
  }
}

template <bool Accumulate, int Vectors, class F>
LINOCUT_INLINE void product_columns(int m, int k, float keep, const F* a, std::ptrdiff_t a_row, std::ptrdiff_t a_col,
                                    const F* b, std::ptrdiff_t b_row, float* c, std::ptrdiff_t c_row) {
  // narrower blocks take more rows: too few sums would wait for one another
  constexpr int kRows = Vectors == kTileVectors ? kTileRows : 2 * kTileRows;
  int i = 0;
  for (; i + kRows <= m; i += kRows) {
    product_block<Accumulate, kRows, Vectors>(k, keep, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row);
  }
  for (; i + 4 <= m; i += 4) {
    product_block<Accumulate, 4, Vectors>(k, keep, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row);
  }
  for (; i + 2 <= m; i += 2) {
    product_block<Accumulate, 2, Vectors>(k, keep, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row);
  }
  for (; i < m; ++i) {
    product_block<Accumulate, 1, Vectors>(k, keep, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row);
  }
}

template <bool Accumulate, class F>
void product_tiles(int m, int n, int k, float keep, const F* a, std::ptrdiff_t a_row, std::ptrdiff_t a_col, const F* b,
                   std::ptrdiff_t b_row, float* c, std::ptrdiff_t c_row) {
  int j = 0;
  for (; j + kTileVectors * kLanes <= n; j += kTileVectors * kLanes) {
    product_columns<Accumulate, kTileVectors>(m, k, keep, a, a_row, a_col, b + j, b_row, c + j, c_row);
  }
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    product_columns<Accumulate, 2>(m, k, keep, a, a_row, a_col, b + j, b_row, c + j, c_row);
  }
  for (; j < n; j += kLanes) {
    product_columns<Accumulate, 1>(m, k, keep, a, a_row, a_col, b + j, b_row, c + j, c_row);
  }
}

template <bool Accumulate, class F>
LINOCUT_INLINE void product(int m, int n, int k, const F* a, std::ptrdiff_t a_row, std::ptrdiff_t a_col, const F* b,
                            std::ptrdiff_t b_row, float* c, std::ptrdiff_t c_row) {
  product_tiles<Accumulate>(m, n, k, 1.0f, a, a_row, a_col, b, b_row, c, c_row);
}

template <class F>
LINOCUT_INLINE void product_onto(int m, int n, int k, float keep, const F* a, std::ptrdiff_t a_row,
                                 std::ptrdiff_t a_col, const F* b, std::ptrdiff_t b_row, float* c,
                                 std::ptrdiff_t c_row) {
  product_tiles<true>(m, n, k, keep, a, a_row, a_col, b, b_row, c, c_row);
}

// Swaps rows and columns of kLanes vectors, in log2(kLanes) rounds that each exchange one bit of the two numbers.
LINOCUT_INLINE void transpose_block(vf (&rows)[kLanes]) {
  const vi lanes = lane_numbers();
#pragma GCC unroll 4
  for (int bit = 1; bit < kLanes; bit *= 2) {
    const vi upper = (lanes & bit) != 0;
    const vi to_low = upper ? (lanes ^ bit) + kLanes : lanes;
    const vi to_high = upper ? lanes + kLanes : (lanes | bit);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) {
      if (i & bit) continue;
      const vf low = rows[i], high = rows[i | bit];
      rows[i] = permute(low, high, to_low);
      rows[i | bit] = permute(low, high, to_high);
    }
  }
}

// to[j][i] = from[i][j] for `rows` rows of `columns`; what lies beyond in `to` is left as it is. Of floats or pairs.
template <class F>
void transpose(int rows, int columns, const F* from, std::ptrdiff_t from_row, F* to, std::ptrdiff_t to_row) {
  const int whole_rows = rows / kLanes * kLanes, whole_columns = columns / kLanes * kLanes;
  for (int i = 0; i < whole_rows; i += kLanes) {
    for (int j = 0; j < whole_columns; j += kLanes) {
      vf block[kLanes];
      for (int r = 0; r < kLanes; ++r) __builtin_memcpy(&block[r], from + (i + r) * from_row + j, sizeof(vf));
      transpose_block(block);
      for (int r = 0; r < kLanes; ++r) __builtin_memcpy(to + (j + r) * to_row + i, &block[r], sizeof(vf));
    }
  }
  for (int i = 0; i < rows; ++i) {
    for (int j = i < whole_rows ? whole_columns : 0; j < columns; ++j) to[j * to_row + i] = from[i * from_row + j];
  }
}

// Copies `rows` rows of `columns` values into a float tile whose rows are padded with zeros to `to_row`.
template <class T>
LINOCUT_INLINE void pack(int rows, int columns, const T* from, std::ptrdiff_t from_row, float* to,
                         std::ptrdiff_t to_row) {
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < to_row; j += kLanes) {
      const int left = columns - j;
      store(to + i * to_row + j, left > 0 ? load_n(from + i * from_row + j, left) : splat(0.0f));
    }
  }
}

}  // namespace linocut::LINOCUT_ISA
