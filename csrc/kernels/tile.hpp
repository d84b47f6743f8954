// Products of small matrices that lie in cache: row-major float tiles whose rows are whole vectors long (pad with
// zeros). Accumulators stay in registers; nothing is packed, since the tiles of a chunked recurrence fit in L1 or L2.
//
//   product<Accumulate>(m, n, k, a, a_row, a_col, b, b_row, c, c_row)
//       c[i][j] (+)= sum over p of a[i * a_row + p * a_col] * b[p * b_row + j]
//
// a_row, a_col say how A lies: (lda, 1) for A, (1, lda) for its transpose. n must be a multiple of kLanes. For A Bᵀ
// transpose B first.
#pragma once

#include "simd.hpp"

namespace linocut::LINOCUT_ISA {

#if defined(__AVX512F__)
constexpr int kTileRows = 6, kTileVectors = 4;  // 24 accumulators, 4 of B, 1 of A in 32 registers
#else
constexpr int kTileRows = 6, kTileVectors = 2;  // 12, 2 and 1 in 16
#endif

template <bool Accumulate, int Rows, int Vectors>
LINOCUT_INLINE void product_block(int k, const float* a, std::ptrdiff_t a_row, std::ptrdiff_t a_col, const float* b,
                                  std::ptrdiff_t b_row, float* c, std::ptrdiff_t c_row) {
  vf sums[Rows][Vectors];
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) sums[i][j] = Accumulate ? load(c + i * c_row + j * kLanes) : splat(0.0f);
  }
  for (int p = 0; p < k; ++p) {
    vf row[Vectors];
    for (int j = 0; j < Vectors; ++j) row[j] = load(b + p * b_row + j * kLanes);
    for (int i = 0; i < Rows; ++i) {
      const vf factor = splat(a[i * a_row + p * a_col]);
      for (int j = 0; j < Vectors; ++j) sums[i][j] += factor * row[j];
    }
  }
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) store(c + i * c_row + j * kLanes, sums[i][j]);
  }
}

template <bool Accumulate, int Vectors>
LINOCUT_INLINE void product_columns(int m, int k, const float* a, std::ptrdiff_t a_row, std::ptrdiff_t a_col,
                                    const float* b, std::ptrdiff_t b_row, float* c, std::ptrdiff_t c_row) {
  int i = 0;
  for (; i + kTileRows <= m; i += kTileRows) {
    product_block<Accumulate, kTileRows, Vectors>(k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row);
  }
  for (; i + 2 <= m; i += 2) {
    product_block<Accumulate, 2, Vectors>(k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row);
  }
  for (; i < m; ++i) {
    product_block<Accumulate, 1, Vectors>(k, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row);
  }
}

template <bool Accumulate>
void product(int m, int n, int k, const float* a, std::ptrdiff_t a_row, std::ptrdiff_t a_col, const float* b,
             std::ptrdiff_t b_row, float* c, std::ptrdiff_t c_row) {
  int j = 0;
  for (; j + kTileVectors * kLanes <= n; j += kTileVectors * kLanes) {
    product_columns<Accumulate, kTileVectors>(m, k, a, a_row, a_col, b + j, b_row, c + j, c_row);
  }
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    product_columns<Accumulate, 2>(m, k, a, a_row, a_col, b + j, b_row, c + j, c_row);
  }
  for (; j < n; j += kLanes) {
    product_columns<Accumulate, 1>(m, k, a, a_row, a_col, b + j, b_row, c + j, c_row);
  }
}

// to[j][i] = from[i][j] for `rows` rows of `columns`; what lies beyond in `to` is left as it is.
LINOCUT_INLINE void transpose(int rows, int columns, const float* from, std::ptrdiff_t from_row, float* to,
                              std::ptrdiff_t to_row) {
  constexpr int kBlock = 8;
  for (int i0 = 0; i0 < rows; i0 += kBlock) {
    const int i1 = i0 + kBlock < rows ? i0 + kBlock : rows;
    for (int j = 0; j < columns; ++j) {
      for (int i = i0; i < i1; ++i) to[j * to_row + i] = from[i * from_row + j];
    }
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
