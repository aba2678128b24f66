// Convolution of images of a few channels, such as a network's first: ops/convolution.py has what it computes.
//
// The pixels of a window that lie in one row are neighbours in memory, [kw C] floats, so the rows of an image are the left
// side of products with the kernel's rows, and nothing is gathered. Rows are copied once, between zeros.

#include "products.h"
#include "team.h"
#include "vectors.h"
#include "windows.h"
#include "xla/ffi/api/ffi.h"

namespace canon {
namespace {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<Floats>;
using Numbers = ffi::Span<const int64_t>;

constexpr int64_t kRowsAtOnce = 4, kMaxParts = 16;

// A convolution's sizes, and how its kernel [kh, kw C, N] is cut into panels of V vectors.
struct Shape {
  int64_t images, channels, filters;
  Axis y, x;
  int64_t vectors, panels, depth, row_size;

  Shape(const Floats& image, int64_t filters, Numbers windows)
      : images(image.dimensions()[0]), channels(image.dimensions()[3]), filters(filters), y(MakeAxis(windows, 0)),
        x(MakeAxis(windows, 1)) {
    const int64_t all = (filters + kWidth - 1) / kWidth;
    vectors = all % 4 == 0 ? 4 : all % 3 == 0 ? 3 : std::min<int64_t>(all, 2);
    panels = (all + vectors - 1) / vectors;
    depth = x.window * channels;
    row_size = std::max(x.low + x.size, (x.out - 1) * x.stride + x.window) * channels;
  }
  int64_t PanelSize() const { return vectors * kWidth; }
};

// Copies the pixels under windows of output rows [from, to) of an image, zeros beyond its edges; returns the first row.
inline const float* CopyRows(const Shape& s, const float* image, int64_t from, int64_t to, float* rows) {
  const int64_t count = (to - 1 - from) * s.y.stride + s.y.window;
  for (int64_t i = 0; i < count; ++i) {
    float* const row = rows + i * s.row_size;
    const int64_t source = from * s.y.stride - s.y.low + i;
    if (source < 0 || source >= s.y.size) {
      std::fill_n(row, s.row_size, 0.0f);
      continue;
    }
    const int64_t before = s.x.low * s.channels, width = s.x.size * s.channels;
    std::fill_n(row, before, 0.0f);
    std::memcpy(row + before, image + source * width, width * sizeof(float));
    std::fill_n(row + before + width, s.row_size - before - width, 0.0f);
  }
  return rows;
}

template <int N, int R>
void ConvolveTile(const Shape& s, const float* image, const float* panel, int64_t count, float* out) {
  Vector total[R][N]{};
  const int64_t step = s.x.stride * s.channels;
  for (int64_t i = 0; i < s.y.window; ++i, image += s.row_size)
    for (int64_t k = 0; k < s.depth; ++k, panel += N * kWidth) {
      Vector b[N];
      for (int n = 0; n < N; ++n) b[n] = Load(panel + n * kWidth);
      for (int r = 0; r < R; ++r) {
        const Vector factor = Splat(image[r * step + k]);
        for (int n = 0; n < N; ++n) total[r][n] += factor * b[n];
      }
    }
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n)
      if (count > n * kWidth) StoreSome(out + r * s.filters + n * kWidth, total[r][n], count - n * kWidth);
}

template <int N, int R>
void ConvolvePixels(int64_t pixels, const Shape& s, const float* image, const float* panel, int64_t count, float* out) {
  if (pixels == R) return ConvolveTile<N, R>(s, image, panel, count, out);
  if constexpr (R > 1) ConvolvePixels<N, R - 1>(pixels, s, image, panel, count, out);
}

template <int N>
void ConvolveRow(const Shape& s, const float* image, const float* packed, float* out) {
  constexpr int R = kRegisters / N;
  const int64_t tiles = (s.x.out + R - 1) / R, panel_size = N * kWidth;
  for (int64_t p = 0; p < s.panels; ++p)
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t start = t * s.x.out / tiles, end = (t + 1) * s.x.out / tiles;
      ConvolvePixels<N, R>(end - start, s, image + start * s.x.stride * s.channels,
                           packed + p * s.y.window * s.depth * panel_size, s.filters - p * panel_size,
                           out + start * s.filters + p * panel_size);
    }
}

// Calls f(integral constant) with the number of vectors of a panel.
template <typename F>
void WithVectors(int64_t vectors, F f) {
  if (vectors == 1) f(std::integral_constant<int, 1>());
  if (vectors == 2) f(std::integral_constant<int, 2>());
  if (vectors == 3) f(std::integral_constant<int, 3>());
  if (vectors == 4) f(std::integral_constant<int, 4>());
}

// images [B, H, W, C], kernel [kh, kw, C, N] -> [B, H', W', N].
ffi::Error Convolve(ffi::ThreadPool pool, Floats images, Floats kernel, Result y, Numbers windows) {
  const Shape s(images, kernel.dimensions()[3], windows);
  if (!y->element_count()) return ffi::Error::Success();
  const int64_t size = s.PanelSize(), taps = s.y.window * s.depth;
  const Buffer packed = MakeBuffer(s.panels * taps * size);
  for (int64_t p = 0; p < s.panels; ++p)
    for (int64_t k = 0; k < taps; ++k)
      std::memcpy(packed.get() + (p * taps + k) * size, kernel.typed_data() + k * s.filters + p * size,
                  std::min(size, s.filters - p * size) * sizeof(float));
  const int64_t groups = (s.y.out + kRowsAtOnce - 1) / kRowsAtOnce;
  RunPhases(pool, 1, s.images * groups, [&](int64_t, int64_t block) {
    const int64_t image = block / groups, from = block % groups * kRowsAtOnce, to = std::min(s.y.out, from + kRowsAtOnce);
    float* const rows = ThreadScratch(((kRowsAtOnce - 1) * s.y.stride + s.y.window) * s.row_size);
    CopyRows(s, images.typed_data() + image * s.y.size * s.x.size * s.channels, from, to, rows);
    for (int64_t r = from; r < to; ++r)
      WithVectors(s.vectors, [&](auto n) {
        ConvolveRow<decltype(n)::value>(s, rows + (r - from) * s.y.stride * s.row_size, packed.get(),
                                        y->typed_data() + (image * s.y.out + r) * s.x.out * s.filters);
      });
  });
  return ffi::Error::Success();
}

// images [B, H, W, C], dy [B, H', W', N] -> the gradient of the kernel, [kh, kw, C, N]. The rows are summed in parts that
// depend on the shapes alone, and the parts in order.
ffi::Error KernelGradient(ffi::ThreadPool pool, Floats images, Floats dy, Result dkernel, Numbers windows) {
  const Shape s(images, dy.dimensions()[3], windows);
  const int64_t size = s.PanelSize(), taps = s.y.window * s.depth, total = s.panels * taps * size;
  const int64_t rows = s.images * s.y.out, parts = std::clamp<int64_t>(rows, 1, kMaxParts);
  const Buffer partial = MakeBuffer(parts * total);
  RunPhases(pool, 1, parts, [&](int64_t, int64_t part) {
    float* const copied = ThreadScratch(s.y.window * s.row_size + s.x.out * size);
    float* const panel = copied + s.y.window * s.row_size;
    for (int64_t row = part * rows / parts; row < (part + 1) * rows / parts; ++row) {
      const int64_t image = row / s.y.out, r = row % s.y.out;
      CopyRows(s, images.typed_data() + image * s.y.size * s.x.size * s.channels, r, r + 1, copied);
      for (int64_t p = 0; p < s.panels; ++p) {
        const float* const from = dy.typed_data() + row * s.x.out * s.filters + p * size;
        const int64_t count = s.filters - p * size;
        for (int64_t i = 0; i < s.x.out; ++i)
          for (int64_t v = 0; v < s.vectors; ++v)
            Store(panel + (i * s.vectors + v) * kWidth,
                  count > v * kWidth ? LoadSome(from + i * s.filters + v * kWidth, count - v * kWidth) : Vector{});
        for (int64_t i = 0; i < s.y.window; ++i)
          WithVectors(s.vectors, [&](auto n) {
            AddProduct<decltype(n)::value>(s.depth, ByColumn{copied + i * s.row_size, s.x.stride * s.channels}, panel,
                                           s.x.out, partial.get() + part * total + (p * taps + i * s.depth) * size);
          });
      }
    }
  });
  for (int64_t k = 0; k < taps; ++k)
    for (int64_t f = 0; f < s.filters; ++f) {
      float sum = 0;
      for (int64_t part = 0; part < parts; ++part)
        sum += partial[part * total + (f / size * taps + k) * size + f % size];
      dkernel->typed_data()[k * s.filters + f] = sum;
    }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(canon_convolve, Convolve,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>().Arg<Floats>().Ret<Floats>()
                                  .Attr<Numbers>("windows"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(canon_convolve_kernel_gradient, KernelGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Floats>().Arg<Floats>().Ret<Floats>()
                                  .Attr<Numbers>("windows"));

}  // namespace canon
