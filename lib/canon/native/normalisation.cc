// The sums of batch normalisation, each in one pass over memory: ops/normalisation.py has the equations.
//
// x [..., C] is read in blocks of rows that fit the second cache; squares are summed about a block's own mean, in a second
// pass over the cache. The blocks do not depend on the number of threads, nor does the result.

#include <limits>

#include "team.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace canon {
namespace {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Floats>;

constexpr int64_t kBlock = 16384;  // floats: 64 KiB

struct Rows {
  int64_t count, channels, at_once, blocks;

  explicit Rows(const Floats& x) : channels(x.dimensions().back()) {
    count = channels ? static_cast<int64_t>(x.element_count()) / channels : 0;
    at_once = std::max<int64_t>(1, kBlock / std::max<int64_t>(1, channels));
    blocks = (count + at_once - 1) / at_once;
  }
  int64_t Start(int64_t block) const { return block * at_once; }
  int64_t Size(int64_t block) const { return std::min(at_once, count - Start(block)); }
};

// Runs sum(block, first, second), which adds two sums per channel to zeros, and then combine(channel, count, first, second)
// with those of all blocks, [blocks, C].
template <typename Sum, typename Combine>
void SumBlocks(ffi::ThreadPool pool, const Rows& rows, Sum sum, Combine combine) {
  const Buffer first = MakeBuffer(rows.blocks * rows.channels), second = MakeBuffer(rows.blocks * rows.channels);
  RunPhases(pool, 1, rows.blocks, [&](int64_t, int64_t block) {
    sum(block, first.get() + block * rows.channels, second.get() + block * rows.channels);
  });
  for (int64_t c = 0; c < rows.channels; c += kWidth) combine(c, rows.channels - c, first.get() + c, second.get() + c);
}

// x [..., C] -> mean [C], var [C], of the population.
ffi::Error Moments(ffi::ThreadPool pool, Floats x, Result mean, Result var) {
  const Rows rows(x);
  const int64_t C = rows.channels;
  if (!rows.count) {
    std::fill_n(mean->typed_data(), C, std::numeric_limits<float>::quiet_NaN());
    std::fill_n(var->typed_data(), C, std::numeric_limits<float>::quiet_NaN());
    return ffi::Error::Success();
  }
  // The mean of the first block: sums of values far from zero would cancel.
  const Buffer origin = MakeBuffer(C);
  float* shift = origin.get();
  for (int64_t r = 0; r < rows.Size(0); ++r)
    for (int64_t c = 0; c < C; ++c) shift[c] += x.typed_data()[r * C + c] / rows.Size(0);
  auto sum = [&](int64_t block, float* means, float* squares) {
    const float* start = x.typed_data() + rows.Start(block) * C;
    const int64_t size = rows.Size(block);
    for (int64_t r = 0; r < size; ++r)
      ForVectors(C, [&](int64_t c, int64_t count) {
        const Vector difference = LoadSome(start + r * C + c, count) - LoadSome(shift + c, count);
        StoreSome(means + c, LoadSome(means + c, count) + difference, count);
      });
    ForChannels(C, [&](int64_t c, int64_t count, auto vectors) {  // the block is in the cache by now
      constexpr int V = decltype(vectors)::value;
      Vector origin[V], mean[V], rest[V]{}, square[V]{};
      for (int v = 0; v < V; ++v) {
        origin[v] = LoadSome(shift + c + v * kWidth, count);
        mean[v] = LoadSome(means + c + v * kWidth, count) * (1.0f / size);
      }
      for (int64_t r = 0; r < size; ++r)
        for (int v = 0; v < V; ++v) {
          const Vector d = LoadSome(start + r * C + c + v * kWidth, count) - origin[v] - mean[v];
          rest[v] += d;
          square[v] += d * d;
        }
      for (int v = 0; v < V; ++v) {
        rest[v] *= 1.0f / size;  // what rounding left of the mean
        mean[v] += rest[v];
        square[v] -= rest[v] * rest[v] * (1.0f * size);
        StoreSome(means + c + v * kWidth, mean[v], count);
        StoreSome(squares + c + v * kWidth, square[v], count);
      }
    });
  };
  auto combine = [&](int64_t c, int64_t count, const float* means, const float* squares) {
    Vector total{}, square{};
    for (int64_t b = 0; b < rows.blocks; ++b) total += LoadSome(means + b * C, count) * (1.0f * rows.Size(b));
    total *= 1.0f / rows.count;
    for (int64_t b = 0; b < rows.blocks; ++b) {
      const Vector d = LoadSome(means + b * C, count) - total;
      square += LoadSome(squares + b * C, count) + d * d * (1.0f * rows.Size(b));
    }
    StoreSome(mean->typed_data() + c, LoadSome(shift + c, count) + total, count);
    StoreSome(var->typed_data() + c, square * (1.0f / rows.count), count);
  };
  SumBlocks(pool, rows, sum, combine);
  return ffi::Error::Success();
}

// dy, x [..., C], mean [C] -> the sums over rows of dy and of dy (x - mean), [C] each.
ffi::Error GradientSums(ffi::ThreadPool pool, Floats dy, Floats x, Floats mean, Result sums, Result centred) {
  const Rows rows(x);
  const int64_t C = rows.channels;
  auto sum = [&](int64_t block, float* first, float* second) {
    const int64_t start = rows.Start(block) * C, size = rows.Size(block);
    for (int64_t r = 0; r < size; ++r)
      ForVectors(C, [&](int64_t c, int64_t count) {
        const Vector d = LoadSome(dy.typed_data() + start + r * C + c, count);
        const Vector difference = LoadSome(x.typed_data() + start + r * C + c, count) -
                                  LoadSome(mean.typed_data() + c, count);
        StoreSome(first + c, LoadSome(first + c, count) + d, count);
        StoreSome(second + c, LoadSome(second + c, count) + d * difference, count);
      });
  };
  auto combine = [&](int64_t c, int64_t count, const float* first, const float* second) {
    Vector total{}, product{};
    for (int64_t b = 0; b < rows.blocks; ++b) {
      total += LoadSome(first + b * C, count);
      product += LoadSome(second + b * C, count);
    }
    StoreSome(sums->typed_data() + c, total, count);
    StoreSome(centred->typed_data() + c, product, count);
  };
  SumBlocks(pool, rows, sum, combine);
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(canon_moments, Moments,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Floats>().Ret<Floats>().Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(canon_gradient_sums, GradientSums,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>().Arg<Floats>().Arg<Floats>()
                                  .Ret<Floats>().Ret<Floats>());

}  // namespace canon
