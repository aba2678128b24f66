// Vectors of floats, as wide as this processor's registers.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <type_traits>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace canon {

#if defined(__AVX512F__)
constexpr int kWidth = 16, kRegisters = 24;  // floats in a register; registers for sums
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

// Up to kWidth floats, zero beyond `count`.
inline Vector LoadSome(const float* p, int64_t count) {
  if (count >= kWidth) return Load(p);
#if defined(__AVX512F__)
  return (Vector)_mm512_maskz_loadu_ps((1u << count) - 1, p);
#else
  Vector v{};
  std::memcpy(&v, p, count * sizeof(float));
  return v;
#endif
}

inline void StoreSome(float* p, Vector v, int64_t count) {
  if (count >= kWidth) return Store(p, v);
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, (1u << count) - 1, (__m512)v);
#else
  std::memcpy(p, &v, count * sizeof(float));
#endif
}

// Calls f(i, count) for one vector after the other.
template <typename F>
void ForVectors(int64_t size, F f) {
  int64_t i = 0;
  for (; i + kWidth <= size; i += kWidth) f(i, kWidth);
  if (i < size) f(i, size - i);
}

// Calls f(channel, count, number of vectors) for groups of channels, and one vector at a time for the last ones.
template <typename F>
void ForChannels(int64_t channels, F f) {
  int64_t c = 0;
  for (; c + 4 * kWidth <= channels; c += 4 * kWidth) f(c, kWidth, std::integral_constant<int, 4>());
  for (; c < channels; c += kWidth) f(c, channels - c, std::integral_constant<int, 1>());
}

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

inline float* ThreadScratch(int64_t size) {  // memory of this thread, kept between calls
  thread_local Buffer buffer;
  thread_local int64_t held = 0;
  if (size > held) buffer = MakeBuffer(size), held = size;
  return buffer.get();
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
