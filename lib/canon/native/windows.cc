// Max-pooling and depthwise convolution of images [B, H, W, C], with their gradients: no padded copy of an image is made.
//
// A block is a row of the result, or some rows of it. ops/pooling.py and ops/depthwise.py have the same as sums over
// shifted slices.

#include "windows.h"

#include <algorithm>
#include <limits>

#include "team.h"
#include "vectors.h"

namespace canon {
namespace {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Bytes = ffi::Buffer<ffi::S8>;
using Numbers = ffi::Span<const int64_t>;

typedef int8_t ByteVector __attribute__((vector_size(kWidth)));

// --- max-pooling ------------------------------------------------------------------------------------------------------

// images [B, H, W, C] -> the maximum of each window and, as bytes, the first tap that has it, [B, H', W', C].
ffi::Error MaxPool(ffi::ThreadPool pool, Floats images, Numbers geometry, ffi::Result<Floats> largest,
                   ffi::Result<Bytes> argmax) {
  const Axis down = MakeAxis(geometry, 0), across = MakeAxis(geometry, 1);
  const int64_t C = images.dimensions()[3];
  const auto rows = down.Pixels(), columns = across.Pixels();
  auto body = [&](int64_t, int64_t block) {
    const int64_t image = block / down.out, y = block % down.out;
    for (int64_t x = 0; x < across.out; ++x)
      ForChannels(C, [&](int64_t c, int64_t count, auto vectors) {
        constexpr int V = decltype(vectors)::value;
        Vector best[V];
        IntVector first[V]{};
        for (int v = 0; v < V; ++v) best[v] = Splat(-std::numeric_limits<float>::infinity());
        for (const Pair& row : rows[y])
          for (const Pair& column : columns[x]) {
            const int64_t from = ((image * down.size + row.source) * across.size + column.source) * C + c;
            const IntVector here = IntVector{} + static_cast<int32_t>(row.tap * across.window + column.tap);
            for (int v = 0; v < V; ++v) {
              const Vector value = LoadSome(images.typed_data() + from + v * kWidth, count);
              const IntVector wins = (value > best[v]) | (value != value);  // NaN must not be lost
              best[v] = wins ? value : best[v];
              first[v] = wins ? here : first[v];
            }
          }
        const int64_t to = (block * across.out + x) * C + c;
        for (int v = 0; v < V; ++v) {
          StoreSome(largest->typed_data() + to + v * kWidth, best[v], count);
          const ByteVector bytes = __builtin_convertvector(first[v], ByteVector);
          std::memcpy(argmax->typed_data() + to + v * kWidth, &bytes, std::min<int64_t>(kWidth, count));
        }
      });
  };
  RunPhases(pool, 1, images.dimensions()[0] * down.out, body);
  return ffi::Error::Success();
}

constexpr int64_t kStrip = 8;  // rows of an image that a block of the gradient adds to

// dy, argmax [B, H', W', C] -> the gradient of the images [B, H, W, C].
ffi::Error MaxPoolGradient(ffi::ThreadPool pool, Floats dy, Bytes argmax, Numbers geometry,
                           ffi::Result<Floats> dimages) {
  const Axis down = MakeAxis(geometry, 0), across = MakeAxis(geometry, 1);
  const int64_t C = dy.dimensions()[3];
  const auto rows = down.Pixels(), columns = across.Pixels();
  const int64_t strips = (down.size + kStrip - 1) / kStrip;
  auto body = [&](int64_t, int64_t block) {
    const int64_t image = block / strips, first = block % strips * kStrip;
    const int64_t end = std::min(first + kStrip, down.size);
    float* to = dimages->typed_data() + image * down.size * across.size * C;
    std::memset(to + first * across.size * C, 0, (end - first) * across.size * C * sizeof(float));
    for (int64_t y = 0; y < down.out; ++y) {
      const auto is_inside = [&](const Pair& row) { return row.source >= first && row.source < end; };
      if (std::none_of(rows[y].begin(), rows[y].end(), is_inside)) continue;
      for (int64_t x = 0; x < across.out; ++x) {
        const int64_t from = ((image * down.out + y) * across.out + x) * C;
        ForChannels(C, [&](int64_t c, int64_t count, auto vectors) {
          constexpr int V = decltype(vectors)::value;
          Vector value[V];
          IntVector tap[V];
          for (int v = 0; v < V; ++v) {
            ByteVector bytes{};
            std::memcpy(&bytes, argmax.typed_data() + from + c + v * kWidth, std::min<int64_t>(kWidth, count));
            tap[v] = __builtin_convertvector(bytes, IntVector);
            value[v] = LoadSome(dy.typed_data() + from + c + v * kWidth, count);
          }
          for (const Pair& row : rows[y]) {
            if (!is_inside(row)) continue;
            for (const Pair& column : columns[x]) {
              const auto here = static_cast<int32_t>(row.tap * across.window + column.tap);
              float* pixel = to + (row.source * across.size + column.source) * C + c;
              for (int v = 0; v < V; ++v) {
                const Vector part = tap[v] == here ? value[v] : Vector{};
                StoreSome(pixel + v * kWidth, LoadSome(pixel + v * kWidth, count) + part, count);
              }
            }
          }
        });
      }
    }
  };
  RunPhases(pool, 1, dy.dimensions()[0] * strips, body);
  return ffi::Error::Success();
}

// --- depthwise convolution --------------------------------------------------------------------------------------------

// For each target pixel and channel the sum over its pairs of source pixel times tap: from [B, H, W, C], filters
// [taps, C] -> to [B, H', W', C]. The same for a convolution and for its gradient by the images.
void AddTaps(ffi::ThreadPool pool, const float* from, const float* filters, const std::vector<std::vector<Pair>>& rows,
             const std::vector<std::vector<Pair>>& columns, int64_t images, int64_t height, int64_t width,
             int64_t taps_across, int64_t channels, float* to) {
  const int64_t targets = rows.size();
  RunPhases(pool, 1, images * targets, [&](int64_t, int64_t block) {
    const float* source = from + block / targets * height * width * channels;
    for (size_t x = 0; x < columns.size(); ++x) {
      float* target = to + (block * columns.size() + x) * channels;
      ForChannels(channels, [&](int64_t c, int64_t count, auto vectors) {
        constexpr int V = decltype(vectors)::value;
        Vector total[V]{};
        for (const Pair& row : rows[block % targets])
          for (const Pair& column : columns[x]) {
            const float* pixel = source + (row.source * width + column.source) * channels + c;
            const float* filter = filters + (row.tap * taps_across + column.tap) * channels + c;
            for (int v = 0; v < V; ++v)
              total[v] += LoadSome(pixel + v * kWidth, count) * LoadSome(filter + v * kWidth, count);
          }
        for (int v = 0; v < V; ++v) StoreSome(target + c + v * kWidth, total[v], count);
      });
    }
  });
}

ffi::Error Depthwise(ffi::ThreadPool pool, Floats images, Floats filters, Numbers geometry, ffi::Result<Floats> y) {
  const Axis down = MakeAxis(geometry, 0), across = MakeAxis(geometry, 1);
  AddTaps(pool, images.typed_data(), filters.typed_data(), down.Pixels(), across.Pixels(), images.dimensions()[0],
          down.size, across.size, across.window, images.dimensions()[3], y->typed_data());
  return ffi::Error::Success();
}

ffi::Error DepthwiseImageGradient(ffi::ThreadPool pool, Floats dy, Floats filters, Numbers geometry,
                                  ffi::Result<Floats> dimages) {
  const Axis down = MakeAxis(geometry, 0), across = MakeAxis(geometry, 1);
  AddTaps(pool, dy.typed_data(), filters.typed_data(), down.Windows(), across.Windows(), dy.dimensions()[0], down.out,
          across.out, across.window, dy.dimensions()[3], dimages->typed_data());
  return ffi::Error::Success();
}

constexpr int64_t kParts = 32;  // of the rows, whatever the number of threads, so that the sums' order is fixed

// Adds the products of one row of windows with the row of pixels under taps (i, 0) ... (i, K - 1), for kWidth channels.
template <int K>
void AddRow(const float* pixels, const float* dy, const Axis& across, int64_t channels, int64_t count, Vector* total) {
  Vector sum[K];
  for (int j = 0; j < K; ++j) sum[j] = total[j];
  for (int64_t x = 0; x < across.out; ++x) {
    const Vector d = LoadSome(dy + x * channels, count);
    const int64_t first = x * across.stride - across.low, last = first + (K - 1) * across.dilation;
    if (first >= 0 && last < across.size) {
      for (int j = 0; j < K; ++j) sum[j] += d * LoadSome(pixels + (first + j * across.dilation) * channels, count);
    } else {
      for (int j = 0; j < K; ++j) {
        const int64_t pixel = first + j * across.dilation;
        if (pixel >= 0 && pixel < across.size) sum[j] += d * LoadSome(pixels + pixel * channels, count);
      }
    }
  }
  for (int j = 0; j < K; ++j) total[j] = sum[j];
}

// images [B, H, W, C], dy [B, H', W', C] -> the gradient of the filters [K K, C].
template <int K>
void SumTaps(ffi::ThreadPool pool, const Floats& images, const Floats& dy, const Axis& down, const Axis& across,
             float* filters) {
  const int64_t C = images.dimensions()[3], rows = images.dimensions()[0] * down.out, size = K * K * C;
  const Buffer parts = MakeBuffer(kParts * size);
  RunPhases(pool, 1, kParts, [&](int64_t, int64_t part) {
    for (int64_t c = 0; c < C; c += kWidth) {
      Vector total[K * K]{};
      for (int64_t row = part * rows / kParts; row < (part + 1) * rows / kParts; ++row)
        for (int i = 0; i < K; ++i) {
          const int64_t image = row / down.out, y = row % down.out * down.stride - down.low + i * down.dilation;
          if (y < 0 || y >= down.size) continue;
          AddRow<K>(images.typed_data() + (image * down.size + y) * across.size * C + c,
                    dy.typed_data() + row * across.out * C + c, across, C, C - c, total + i * K);
        }
      for (int tap = 0; tap < K * K; ++tap) StoreSome(parts.get() + part * size + tap * C + c, total[tap], C - c);
    }
  });
  for (int64_t i = 0; i < size; i += kWidth) {
    Vector total{};
    for (int64_t part = 0; part < kParts; ++part) total += LoadSome(parts.get() + part * size + i, size - i);
    StoreSome(filters + i, total, size - i);
  }
}

ffi::Error DepthwiseKernelGradient(ffi::ThreadPool pool, Floats images, Floats dy, Numbers geometry,
                                   ffi::Result<Floats> filters) {
  const Axis down = MakeAxis(geometry, 0), across = MakeAxis(geometry, 1);
  if (down.window == 3) SumTaps<3>(pool, images, dy, down, across, filters->typed_data());
  else SumTaps<5>(pool, images, dy, down, across, filters->typed_data());
  return ffi::Error::Success();
}

auto BindDepthwise() {
  return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Floats>().Arg<Floats>().Attr<Numbers>("windows").Ret<Floats>();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(canon_max_pool, MaxPool,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>()
                                  .Attr<Numbers>("windows")
                                  .Ret<Floats>().Ret<Bytes>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(canon_max_pool_gradient, MaxPoolGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>().Arg<Bytes>()
                                  .Attr<Numbers>("windows")
                                  .Ret<Floats>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(canon_depthwise, Depthwise, BindDepthwise());
XLA_FFI_DEFINE_HANDLER_SYMBOL(canon_depthwise_image_gradient, DepthwiseImageGradient, BindDepthwise());
XLA_FFI_DEFINE_HANDLER_SYMBOL(canon_depthwise_kernel_gradient, DepthwiseKernelGradient, BindDepthwise());

}  // namespace canon
