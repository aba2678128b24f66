// Products with a matrix that was packed into panels of columns.

#pragma once

#include "vectors.h"

namespace canon {

constexpr int kDepth = 64;  // rows of a panel that stay in the first cache while all rows of the left side use them

// How the left side is stored: element k of row r.
struct ByRow {
  const float* start;
  int64_t stride;
  float operator()(int64_t r, int64_t k) const { return start[r * stride + k]; }
  ByRow From(int64_t r, int64_t k) const { return {start + r * stride + k, stride}; }
};
struct ByColumn {
  const float* start;
  int64_t stride;
  float operator()(int64_t r, int64_t k) const { return start[k * stride + r]; }
  ByColumn From(int64_t r, int64_t k) const { return {start + k * stride + r, stride}; }
};

// Adds a [R, depth] times a panel [depth, N kWidth] to sums [R, N kWidth].
template <int N, int R, typename Left>
void AddTile(Left a, const float* panel, int64_t depth, float* sums) {
  Vector total[R][N];
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) total[r][n] = Load(sums + (r * N + n) * kWidth);
  for (int64_t k = 0; k < depth; ++k, panel += N * kWidth) {
    Vector b[N];
    for (int n = 0; n < N; ++n) b[n] = Load(panel + n * kWidth);
    for (int r = 0; r < R; ++r) {
      const Vector factor = Splat(a(r, k));
      for (int n = 0; n < N; ++n) total[r][n] += factor * b[n];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) Store(sums + (r * N + n) * kWidth, total[r][n]);
}

// The same with up to R rows.
template <int N, int R, typename Left>
void AddRows(int64_t rows, Left a, const float* panel, int64_t depth, float* sums) {
  if (rows == R) return AddTile<N, R>(a, panel, depth, sums);
  if constexpr (R > 1) AddRows<N, R - 1>(rows, a, panel, depth, sums);
}

// Adds a [rows, depth] times a panel to sums [rows, N kWidth], in tiles whose sums fit the registers.
template <int N, typename Left>
void AddProduct(int64_t rows, Left a, const float* panel, int64_t depth, float* sums) {
  constexpr int kRows = kRegisters / N;
  const int64_t tiles = (rows + kRows - 1) / kRows;
  for (int64_t start = 0; start < depth; start += kDepth) {
    const int64_t some = std::min<int64_t>(kDepth, depth - start);
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t row = i * rows / tiles, end = (i + 1) * rows / tiles;  // even tiles: a thin last one would be slow
      AddRows<N, kRows>(end - row, a.From(row, start), panel + start * N * kWidth, some, sums + row * N * kWidth);
    }
  }
}

}  // namespace canon
