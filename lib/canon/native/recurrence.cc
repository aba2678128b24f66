// The loops over time of the LSTM, the GRU and the vanilla RNN, forward and backward: ops/recurrence/ has the equations.
//
// A block of a step is a panel of hidden units: the product of the state with the weights of all their gates, and what
// follows elementwise while the sums are in the first cache. The weights are packed once per loop, and stay in the
// second cache of the core that uses them; XLA's products would pack them again at every step.

#include "products.h"
#include "team.h"
#include "xla/ffi/api/ffi.h"

namespace canon {
namespace {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Lengths = ffi::Buffer<ffi::S32>;
using Result = ffi::Result<Floats>;

// --- cells: a step of kWidth hidden units -----------------------------------------------------------------------------
//
// `Forward` takes the products of the input and of the state, z and a, one vector per gate. `Backward` takes the gradient
// dh of the new state, and writes those of a (and dn, what z has in the place of the GRU's last one). What passes to the old state elementwise, and
// not through the product, is returned; that of the LSTM's c replaces dc.

struct State {
  Vector h, c;
};

struct LSTM {
  static constexpr int kGates = 4, kSaved = 4;

  static State Forward(const Vector* z, const Vector* a, State old, Vector* saved) {
    const Vector i = Sigmoid(z[0] + a[0]), f = Sigmoid(z[1] + a[1]), g = Tanh(z[2] + a[2]), o = Sigmoid(z[3] + a[3]);
    saved[0] = i, saved[1] = f, saved[2] = g, saved[3] = o;
    const Vector c = f * old.c + i * g;
    return {o * Tanh(c), c};
  }

  static State Backward(const Vector* saved, State old, State now, State d, Vector* da, Vector*) {
    const Vector i = saved[0], f = saved[1], g = saved[2], o = saved[3], m = Tanh(now.c);
    const Vector dc = d.c + d.h * o * (1.0f - m * m);
    da[0] = dc * g * i * (1.0f - i);
    da[1] = dc * old.c * f * (1.0f - f);
    da[2] = dc * i * (1.0f - g * g);
    da[3] = d.h * m * o * (1.0f - o);
    return {Vector{}, dc * f};
  }
};

struct GRU {  // the reset gate after the product; a[2] includes the candidate's bias
  static constexpr int kGates = 3, kSaved = 4;

  static State Forward(const Vector* z, const Vector* a, State old, Vector* saved) {
    const Vector r = Sigmoid(z[0] + a[0]), u = Sigmoid(z[1] + a[1]), n = Tanh(z[2] + r * a[2]);
    saved[0] = r, saved[1] = u, saved[2] = n, saved[3] = a[2];
    return {n + u * (old.h - n), Vector{}};
  }

  static State Backward(const Vector* saved, State old, State, State d, Vector* da, Vector* dn) {
    const Vector r = saved[0], u = saved[1], n = saved[2], q = saved[3];
    *dn = d.h * (1.0f - u) * (1.0f - n * n);
    da[0] = *dn * q * r * (1.0f - r);
    da[1] = d.h * (old.h - n) * u * (1.0f - u);
    da[2] = *dn * r;
    return {d.h * u, Vector{}};
  }
};

struct RNN {  // with tanh
  static constexpr int kGates = 1, kSaved = 0;

  static State Forward(const Vector* z, const Vector* a, State, Vector*) { return {Tanh(z[0] + a[0]), Vector{}}; }

  static State Backward(const Vector*, State, State now, State d, Vector* da, Vector*) {
    da[0] = d.h * (1.0f - now.h * now.h);
    return {Vector{}, Vector{}};
  }
};

// --- arrays -----------------------------------------------------------------------------------------------------------

constexpr int64_t kRowsAtOnce = 48;  // their sums stay in the first cache

struct Sequences {
  int64_t rows, steps, hidden;
  const int32_t* lengths;
  bool reverse;

  int64_t Time(int64_t step) const { return reverse ? steps - 1 - step : step; }
  bool Valid(int64_t row, int64_t time) const { return time < lengths[row]; }
  // The states before a step: those of the step before it in [B, T, H], or the first ones in [B, H].
  const float* Before(const float* states, const float* first, int64_t step) const {
    return step ? states + Time(step - 1) * hidden : first;
  }
  int64_t StrideBefore(int64_t step) const { return step ? steps * hidden : hidden; }
};

// The left side of the products, by steps: rows [B, depth] of the step before, and those of this one. In [B, T, depth] the
// rows of a step would often be a multiple of 4 KiB apart, and evict one another from the first cache.
class Steps {
 public:
  Steps(int64_t rows, int64_t depth)
      : stride(((depth + 15) / 16 | 1) * 16), size_(rows * stride), buffer_(MakeBuffer(2 * size_)) {}

  float* operator[](int64_t step) const { return buffer_.get() + step % 2 * size_; }

  const int64_t stride;  // an odd number of cache lines

 private:
  const int64_t size_;
  const Buffer buffer_;
};

// For each panel the columns of its units in every gate of w [H, G H]: panels [H, G kWidth] of the product with w.
Buffer PackGates(const float* w, int64_t hidden, int64_t gates) {
  const int64_t panels = (hidden + kWidth - 1) / kWidth;
  Buffer packed = MakeBuffer(panels * hidden * gates * kWidth);
  float* to = packed.get();
  for (int64_t unit = 0; unit < hidden; unit += kWidth)
    for (int64_t k = 0; k < hidden; ++k)
      for (int64_t g = 0; g < gates; ++g, to += kWidth)
        std::memcpy(to, w + (k * gates + g) * hidden + unit, std::min<int64_t>(kWidth, hidden - unit) * sizeof(float));
  return packed;
}

// For each panel the rows of its `width` units in w [H, K]: panels [K, width] of the product with w^T.
Buffer PackRows(const float* w, int64_t hidden, int64_t depth, int64_t width) {
  const int64_t panels = (hidden + width - 1) / width;
  Buffer packed = MakeBuffer(panels * depth * width);
  for (int64_t row = 0; row < hidden; ++row) {
    float* to = packed.get() + row / width * depth * width + row % width;
    for (int64_t k = 0; k < depth; ++k) to[k * width] = w[row * depth + k];
  }
  return packed;
}

// --- the loops --------------------------------------------------------------------------------------------------------

// z [B, T, G H]; bias [G H], added to the state's product, and [H] more of the GRU, added to its last gate's z;
// weights [H, G H]; h0, c0 [B, H]; lengths [B]
//   -> h, c [B, T, H], saved [B, T, kSaved H]. Beyond its length a sequence keeps its state. c only of the LSTM.
template <typename Cell>
ffi::Error RunForward(ffi::ThreadPool pool, Floats z, Floats bias, Floats weights, Floats h0, Floats c0,
                      Lengths lengths, Result h, Result c, Result saved, bool reverse) {
  constexpr int G = Cell::kGates, S = Cell::kSaved;
  constexpr bool kHasCell = std::is_same_v<Cell, LSTM>, kIsGRU = std::is_same_v<Cell, GRU>;
  const Sequences s{z.dimensions()[0], z.dimensions()[1], h0.dimensions()[1], lengths.typed_data(), reverse};
  const Buffer packed = PackGates(weights.typed_data(), s.hidden, G);
  const Steps states(s.rows, s.hidden);
  for (int64_t row = 0; row < s.rows; ++row)
    std::memcpy(states[0] + row * states.stride, h0.typed_data() + row * s.hidden, s.hidden * sizeof(float));

  auto body = [&](int64_t step, int64_t panel) {
    const int64_t unit = panel * kWidth, count = s.hidden - unit, time = s.Time(step);
    const float* old_h = states[step];
    const float* old_c = s.Before(c->typed_data(), c0.typed_data(), step);
    float* sums = ThreadScratch(kRowsAtOnce * G * kWidth);
    for (int64_t start = 0; start < s.rows; start += kRowsAtOnce) {
      const int64_t rows = std::min(kRowsAtOnce, s.rows - start);
      for (int64_t row = 0; row < rows; ++row)
        for (int g = 0; g < G; ++g)
          Store(sums + (row * G + g) * kWidth, LoadSome(bias.typed_data() + g * s.hidden + unit, count));
      AddProduct<G>(rows, ByRow{old_h + start * states.stride, states.stride}, packed.get() + panel * s.hidden * G * kWidth,
                    s.hidden, sums);
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t row = start + i, place = row * s.steps + time;
        Vector inputs[G], products[G], kept[S + 1];
        for (int g = 0; g < G; ++g) {
          inputs[g] = LoadSome(z.typed_data() + (place * G + g) * s.hidden + unit, count);
          products[g] = Load(sums + (i * G + g) * kWidth);
        }
        if (kIsGRU) inputs[G - 1] += LoadSome(bias.typed_data() + G * s.hidden + unit, count);
        State old{Load(old_h + row * states.stride + unit), Vector{}};
        if (kHasCell) old.c = LoadSome(old_c + row * s.StrideBefore(step) + unit, count);
        State now = Cell::Forward(inputs, products, old, kept);
        if (!s.Valid(row, time)) now = old;
        Store(states[step + 1] + row * states.stride + unit, now.h);
        StoreSome(h->typed_data() + place * s.hidden + unit, now.h, count);
        if (kHasCell) StoreSome(c->typed_data() + place * s.hidden + unit, now.c, count);
        for (int j = 0; j < S; ++j)
          StoreSome(saved->typed_data() + (place * S + j) * s.hidden + unit, kept[j], count);
      }
    }
  };
  RunPhases(pool, s.steps, (s.hidden + kWidth - 1) / kWidth, body);
  return ffi::Error::Success();
}

// dh [B, T, H] of the outputs; dh_last, dc_last [B, H]; saved, h, c, h0, c0, weights, lengths of the forward loop
//   -> da [B, T, G H] of the state's product; dz [B, T, 3 H] of the GRU's, which differs in the last gate;
//      dh0, dc0 [B, H]. Beyond a sequence's length da and dz are zero.
template <typename Cell>
ffi::Error RunBackward(ffi::ThreadPool pool, Floats dh, Floats dh_last, Floats dc_last, Floats saved, Floats h, Floats c,
                       Floats h0, Floats c0, Floats weights, Lengths lengths, Result da, Result dz, Result dh0,
                       Result dc0, bool reverse) {
  constexpr int G = Cell::kGates, S = Cell::kSaved, N = 2;  // vectors in a panel
  constexpr bool kHasCell = std::is_same_v<Cell, LSTM>, kIsGRU = std::is_same_v<Cell, GRU>;
  const Sequences s{dh.dimensions()[0], dh.dimensions()[1], h0.dimensions()[1], lengths.typed_data(), reverse};
  const int64_t depth = G * s.hidden;
  const Buffer packed = PackRows(weights.typed_data(), s.hidden, depth, N * kWidth);
  const Steps products(s.rows, depth);  // da
  float *carry_h = dh0->typed_data(), *carry_c = dc0->typed_data();
  std::memcpy(carry_h, dh_last.typed_data(), s.rows * s.hidden * sizeof(float));
  std::memcpy(carry_c, dc_last.typed_data(), (kHasCell ? s.rows * s.hidden : 0) * sizeof(float));

  // Elementwise part of one row, kWidth units, at a step.
  auto differentiate = [&](int64_t row, int64_t step, int64_t unit, Vector product) {
    const int64_t count = s.hidden - unit, time = s.Time(step), place = row * s.steps + time;
    float* carry = carry_h + row * s.hidden + unit;
    const auto read = [&](const Floats& states) {
      return LoadSome(states.typed_data() + place * s.hidden + unit, count);
    };
    const auto read_before = [&](const Floats& states, const Floats& first) {
      const float* before = s.Before(states.typed_data(), first.typed_data(), step);
      return LoadSome(before + row * s.StrideBefore(step) + unit, count);
    };
    State d{LoadSome(carry, count) + product + read(dh), Vector{}}, old{}, now{};
    if (kHasCell) d.c = LoadSome(carry_c + row * s.hidden + unit, count);
    Vector gates[G]{}, candidate{};
    if (s.Valid(row, time)) {
      Vector kept[S + 1];
      for (int j = 0; j < S; ++j)
        kept[j] = LoadSome(saved.typed_data() + (place * S + j) * s.hidden + unit, count);
      old.h = read_before(h, h0), now.h = read(h);
      if (kHasCell) old.c = read_before(c, c0), now.c = read(c);
      d = Cell::Backward(kept, old, now, d, gates, &candidate);
    }
    for (int g = 0; g < G; ++g) {
      StoreSome(da->typed_data() + (place * G + g) * s.hidden + unit, gates[g], count);
      StoreSome(products[step] + row * products.stride + g * s.hidden + unit, gates[g], count);
    }
    for (int g = 0; kIsGRU && g < G; ++g)
      StoreSome(dz->typed_data() + (place * G + g) * s.hidden + unit, g == G - 1 ? candidate : gates[g], count);
    if (kHasCell) StoreSome(carry_c + row * s.hidden + unit, d.c, count);
    StoreSome(carry, d.h, count);
  };

  auto body = [&](int64_t phase, int64_t panel) {
    const int64_t step = s.steps - 1 - phase;  // of the forward loop; -1 is the product for the first state
    const float* later = products[step + 1];
    float* sums = ThreadScratch(kRowsAtOnce * N * kWidth);
    for (int64_t start = 0; start < s.rows; start += kRowsAtOnce) {
      const int64_t rows = std::min(kRowsAtOnce, s.rows - start);
      std::memset(sums, 0, rows * N * kWidth * sizeof(float));
      if (phase)
        AddProduct<N>(rows, ByRow{later + start * products.stride, products.stride}, packed.get() + panel * depth * N * kWidth,
                      depth, sums);
      for (int64_t i = 0; i < rows; ++i)
        for (int n = 0; n < N; ++n) {
          const int64_t unit = (panel * N + n) * kWidth, count = s.hidden - unit;
          if (count <= 0) break;
          const Vector product = Load(sums + (i * N + n) * kWidth);
          float* carry = carry_h + (start + i) * s.hidden + unit;
          if (step >= 0) differentiate(start + i, step, unit, product);
          else StoreSome(carry, LoadSome(carry, count) + product, count);
        }
    }
  };
  RunPhases(pool, s.steps + 1, (s.hidden + N * kWidth - 1) / (N * kWidth), body);
  return ffi::Error::Success();
}

auto BindForward() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Lengths>()
      .Ret<Floats>().Ret<Floats>().Ret<Floats>()
      .Attr<bool>("reverse");
}

auto BindBackward() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Floats>()
      .Arg<Floats>().Arg<Floats>().Arg<Floats>().Arg<Lengths>()
      .Ret<Floats>().Ret<Floats>().Ret<Floats>().Ret<Floats>()
      .Attr<bool>("reverse");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(canon_lstm_forward, RunForward<LSTM>, BindForward());
XLA_FFI_DEFINE_HANDLER_SYMBOL(canon_lstm_backward, RunBackward<LSTM>, BindBackward());
XLA_FFI_DEFINE_HANDLER_SYMBOL(canon_gru_forward, RunForward<GRU>, BindForward());
XLA_FFI_DEFINE_HANDLER_SYMBOL(canon_gru_backward, RunBackward<GRU>, BindBackward());
XLA_FFI_DEFINE_HANDLER_SYMBOL(canon_rnn_forward, RunForward<RNN>, BindForward());
XLA_FFI_DEFINE_HANDLER_SYMBOL(canon_rnn_backward, RunBackward<RNN>, BindBackward());

}  // namespace canon
