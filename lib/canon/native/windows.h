// Windows over images [B, H, W, C]: ops/shifts.py has the same as slices.

#pragma once

#include <cstdint>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace canon {

struct Pair {
  int64_t source, tap;
};

// Along one axis: pixels, windows, and the taps of a window.
struct Axis {
  int64_t size, out, window, stride, dilation, low;

  // For each window the pixels under its taps.
  std::vector<std::vector<Pair>> Pixels() const {
    std::vector<std::vector<Pair>> pairs(out);
    for (int64_t o = 0; o < out; ++o)
      for (int64_t k = 0; k < window; ++k) {
        const int64_t pixel = o * stride - low + k * dilation;
        if (pixel >= 0 && pixel < size) pairs[o].push_back({pixel, k});
      }
    return pairs;
  }

  // For each pixel the windows that cover it, and with which tap.
  std::vector<std::vector<Pair>> Windows() const {
    std::vector<std::vector<Pair>> pairs(size);
    const auto pixels = Pixels();
    for (int64_t o = 0; o < out; ++o)
      for (const Pair& p : pixels[o]) pairs[p.source].push_back({o, p.tap});
    return pairs;
  }
};

// `windows` has size, out, window, stride, dilation and low of the rows, then of the columns.
inline Axis MakeAxis(xla::ffi::Span<const int64_t> windows, int axis) {
  const int64_t* w = windows.begin() + 6 * axis;
  return {w[0], w[1], w[2], w[3], w[4], w[5]};
}

}  // namespace canon
