// Products of a few rows with a matrix that many calls share, packed once into panels of columns.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

namespace canon {

#if defined(__AVX512F__)
constexpr int kWidth = 16, kRegisters = 24;  // floats in a vector register; registers for sums
#elif defined(__AVX__)
constexpr int kWidth = 8, kRegisters = 12;
#else
constexpr int kWidth = 4, kRegisters = 12;
#endif

typedef float Vector __attribute__((vector_size(kWidth * sizeof(float))));
typedef int32_t IntVector __attribute__((vector_size(kWidth * sizeof(int32_t))));

inline Vector Load(const float* p) {
  Vector v;
  std::memcpy(&v, p, sizeof v);  // an unaligned load
  return v;
}
inline void Store(float* p, Vector v) { std::memcpy(p, &v, sizeof v); }
inline Vector Splat(float x) { return Vector{} + x; }

struct Free {
  void operator()(float* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<float[], Free>;

inline Buffer MakeBuffer(int64_t size) {
  const int64_t bytes = (std::max<int64_t>(size, 1) * sizeof(float) + 63) / 64 * 64;
  auto* p = static_cast<float*>(std::aligned_alloc(64, bytes));
  std::memset(p, 0, bytes);
  return Buffer(p);
}

constexpr int kDepth = 64;  // rows of a panel that stay in the first cache while all rows of the left side use them

// Adds a [R, depth] times a panel [depth, N kWidth] to sums [R, N kWidth].
template <int N, int R>
void AddTile(const float* a, int64_t stride, const float* panel, int64_t depth, float* sums) {
  Vector total[R][N];
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) total[r][n] = Load(sums + (r * N + n) * kWidth);
  for (int64_t k = 0; k < depth; ++k, panel += N * kWidth) {
    Vector b[N];
    for (int n = 0; n < N; ++n) b[n] = Load(panel + n * kWidth);
    for (int r = 0; r < R; ++r) {
      const Vector factor = Splat(a[r * stride + k]);
      for (int n = 0; n < N; ++n) total[r][n] += factor * b[n];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) Store(sums + (r * N + n) * kWidth, total[r][n]);
}

template <int N, int R>
void AddRows(int64_t rows, const float* a, int64_t stride, const float* panel, int64_t depth, float* sums) {
  if (rows == R) return AddTile<N, R>(a, stride, panel, depth, sums);
  if constexpr (R > 1) AddRows<N, R - 1>(rows, a, stride, panel, depth, sums);
}

// Adds a [rows, depth] times a panel to sums [rows, N kWidth], in tiles whose sums fit the registers.
template <int N>
void AddProduct(int64_t rows, const float* a, int64_t stride, const float* panel, int64_t depth, float* sums) {
  constexpr int kRows = kRegisters / N;
  const int64_t tiles = (rows + kRows - 1) / kRows;
  for (int64_t start = 0; start < depth; start += kDepth) {
    const int64_t some = std::min<int64_t>(kDepth, depth - start);
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t row = i * rows / tiles, end = (i + 1) * rows / tiles;  // even tiles: a thin last one would be slow
      AddRows<N, kRows>(end - row, a + row * stride + start, stride, panel + start * N * kWidth, some,
                        sums + row * N * kWidth);
    }
  }
}

// Computes exp(x) - 1 to a unit in the last place, |x| < 87.
inline Vector Expm1(Vector x) {
  x = x > 87.0f ? Splat(87.0f) : x;  // NaN compares as false and stays
  x = x < -87.0f ? Splat(-87.0f) : x;
  const float magic = 12582912.0f;  // 1.5 2^23: adding it rounds to an integer, which its low bits then hold
  const Vector shifted = x * 1.44269504f + magic, n = shifted - magic;
  const Vector r = x - n * 0.693359375f + n * 2.12194440e-4f;  // ln 2 in two parts
  Vector p = Splat(1.0f / 5040);  // the series of (exp(r) - 1 - r) / r^2, |r| < 0.35
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * (r * r) + r;
  const IntVector bits = (IntVector)shifted - 0x4B400000;  // n as an integer
  const Vector power = (Vector)((bits + 127) << 23);
  return p * power + (power - 1.0f);
}

inline Vector Sigmoid(Vector x) { return 1.0f / (2.0f + Expm1(-x)); }

inline Vector Tanh(Vector x) {
  const Vector e = Expm1(-2.0f * (x < 0.0f ? -x : x));  // tanh |x| = -e / (e + 2), with no difference of near numbers
  const Vector y = -e / (e + 2.0f);
  return x < 0.0f ? -y : y;
}

}  // namespace canon
