// Products with lower triangular matrices and systems of them, on the tiles of tile.hpp. Nothing beyond the diagonal is
// read, let alone multiplied: a NaN there would not stay away for being multiplied by zero.
//
// Upper triangular ones are lower ones read backwards: point at the last element and hand over negative strides.
#pragma once

#include "tile.hpp"

namespace linocut::LINOCUT_ISA {

// `done` columns lie before this block of rows; a and c point at its first row, b at row 0.
template <int Rows, int Vectors>
LINOCUT_INLINE void lower_block(int done, const float* a, std::ptrdiff_t a_row, std::ptrdiff_t a_col, const float* b,
                                std::ptrdiff_t b_row, float* c, std::ptrdiff_t c_row) {
  vf sums[Rows][Vectors];
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) sums[i][j] = load(c + i * c_row + j * kLanes);
  }
  for (int p = 0; p < done; ++p) {
    vf row[Vectors];
    for (int j = 0; j < Vectors; ++j) row[j] = load(b + p * b_row + j * kLanes);
    for (int i = 0; i < Rows; ++i) {
      const vf factor = splat(a[i * a_row + p * a_col]);
      for (int j = 0; j < Vectors; ++j) sums[i][j] += factor * row[j];
    }
  }
  for (int p = 0; p < Rows; ++p) {
    vf row[Vectors];
    for (int j = 0; j < Vectors; ++j) row[j] = load(b + (done + p) * b_row + j * kLanes);
    for (int i = p; i < Rows; ++i) {
      const vf factor = splat(a[i * a_row + (done + p) * a_col]);
      for (int j = 0; j < Vectors; ++j) sums[i][j] += factor * row[j];
    }
  }
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) store(c + i * c_row + j * kLanes, sums[i][j]);
  }
}

// As above; u points at row 0, r and scale at the block's first row.
template <int Rows, int Vectors>
LINOCUT_INLINE void solve_block(int done, const float* a, std::ptrdiff_t a_row, std::ptrdiff_t a_col,
                                const float* scale, std::ptrdiff_t scale_step, float* r, float* u,
                                std::ptrdiff_t row_step) {
  vf sums[Rows][Vectors];
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) sums[i][j] = load(r + i * row_step + j * kLanes);
  }
  for (int p = 0; p < done; ++p) {
    vf row[Vectors];
    for (int j = 0; j < Vectors; ++j) row[j] = load(u + p * row_step + j * kLanes);
    for (int i = 0; i < Rows; ++i) {
      const vf factor = splat(a[i * a_row + p * a_col]);
      for (int j = 0; j < Vectors; ++j) sums[i][j] -= factor * row[j];
    }
  }
  for (int p = 0; p < Rows; ++p) {
    vf row[Vectors];
    for (int j = 0; j < Vectors; ++j) {
      row[j] = sums[p][j] * scale[p * scale_step];
      store(r + p * row_step + j * kLanes, sums[p][j]);
      store(u + (done + p) * row_step + j * kLanes, row[j]);
    }
    for (int i = p + 1; i < Rows; ++i) {
      const vf factor = splat(a[i * a_row + (done + p) * a_col]);
      for (int j = 0; j < Vectors; ++j) sums[i][j] -= factor * row[j];
    }
  }
}

template <int Vectors>
LINOCUT_INLINE void lower_columns(int m, const float* a, std::ptrdiff_t a_row, std::ptrdiff_t a_col, const float* b,
                                  std::ptrdiff_t b_row, float* c, std::ptrdiff_t c_row) {
  int i = 0;
  for (; i + kTileRows <= m; i += kTileRows) {
    lower_block<kTileRows, Vectors>(i, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row);
  }
  for (; i + 2 <= m; i += 2) lower_block<2, Vectors>(i, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row);
  for (; i < m; ++i) lower_block<1, Vectors>(i, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row);
}

template <int Vectors>
LINOCUT_INLINE void solve_columns(int m, const float* a, std::ptrdiff_t a_row, std::ptrdiff_t a_col,
                                  const float* scale, std::ptrdiff_t step, float* r, float* u, std::ptrdiff_t row) {
  int i = 0;
  for (; i + kTileRows <= m; i += kTileRows) {
    solve_block<kTileRows, Vectors>(i, a + i * a_row, a_row, a_col, scale + i * step, step, r + i * row, u, row);
  }
  for (; i + 2 <= m; i += 2) {
    solve_block<2, Vectors>(i, a + i * a_row, a_row, a_col, scale + i * step, step, r + i * row, u, row);
  }
  for (; i < m; ++i) {
    solve_block<1, Vectors>(i, a + i * a_row, a_row, a_col, scale + i * step, step, r + i * row, u, row);
  }
}

// c[i][j] += sum over p <= i of a[i * a_row + p * a_col] * b[p * b_row + j], for m rows of n columns, n a multiple of
// kLanes.
inline void lower_product(int m, int n, const float* a, std::ptrdiff_t a_row, std::ptrdiff_t a_col, const float* b,
                          std::ptrdiff_t b_row, float* c, std::ptrdiff_t c_row) {
  int j = 0;
  for (; j + kTileVectors * kLanes <= n; j += kTileVectors * kLanes) {
    lower_columns<kTileVectors>(m, a, a_row, a_col, b + j, b_row, c + j, c_row);
  }
  for (; j < n; j += kLanes) lower_columns<1>(m, a, a_row, a_col, b + j, b_row, c + j, c_row);
}

// Forward substitution: r[i] -= sum over p < i of a[i * a_row + p * a_col] * u[p], where u[i] = scale[i * step] * r[i].
inline void lower_solve(int m, int n, const float* a, std::ptrdiff_t a_row, std::ptrdiff_t a_col, const float* scale,
                        std::ptrdiff_t step, float* r, float* u, std::ptrdiff_t row) {
  int j = 0;
  for (; j + kTileVectors * kLanes <= n; j += kTileVectors * kLanes) {
    solve_columns<kTileVectors>(m, a, a_row, a_col, scale, step, r + j, u + j, row);
  }
  for (; j < n; j += kLanes) solve_columns<1>(m, a, a_row, a_col, scale, step, r + j, u + j, row);
}

}  // namespace linocut::LINOCUT_ISA
