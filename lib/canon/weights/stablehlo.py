"""Exports a trained model to a file that needs neither Canon nor its config: StableHLO by `jax.export`.

`model.stablehlo` holds weights and preprocessing, for any batch size, for CPU, CUDA and TPU. Anywhere with JAX:

    exported = jax.export.deserialize(open('model.stablehlo', 'rb').read())
    exported.call(images)

There is no ONNX: jax2onnx 0.17.1 needs an older Orbax than Canon's, and writes max pooling over [B, H, W, C] as a
four-dimensional window, which onnxruntime does not run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np

from canon import backend

PLATFORMS = ('cpu', 'cuda', 'tpu')
_BATCH_SIZES = (1, 3)  # checked after export: a program for one batch size would fail with the other


class Served(NamedTuple):
    """The function that an exported model computes, with the type of its input.

    Attributes:
      function: (params, mutable, inputs [B, *shape]) -> outputs [B, ...].
      shape: of one input.
      dtype: of the inputs, such as 'uint8'.
      about: further entries of `model.json`, such as the names of the classes.
      compare: describes how outputs of the exported model [B, ...] differ from the model's, for outputs whose rows may
        change places; None takes the largest difference.
    """

    function: Callable[[Any, Any, jax.Array], Any]
    shape: tuple[int, ...]
    dtype: str
    about: Mapping[str, Any] = {}
    compare: Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], str] | None = None


def serve_images(
    predict: Callable[[Any, Any, Any], Any],
    shape: Sequence[int],
    finish: Callable[[Any], jax.Array],
    **about: Any,
) -> Served:
    """Returns the exported function of a network of images: uint8 [b, H, W, C] -> `finish` of what is predicted.

    Args:
      predict: as `Task.predict`, for batches {'image': images}.
      shape: of an image, (H, W, C).
      finish: from the prediction to one array, such as `jax.nn.softmax`.
      **about: further entries of `model.json`.
    """

    def function(params, mutable, images):
        return finish(predict(params, mutable, {'image': images}))

    return Served(function, tuple(shape), 'uint8', about)


def export_stablehlo(served: Served, params: Any, mutable: Any, output: str | Path) -> list[str]:
    """Writes `model.stablehlo` and `model.json`, reads the model back and compares it with the original.

    Args:
      served: what the exported model computes.
      params: the weights.
      mutable: the other collections of variables, such as statistics of BatchNorm.
      output: the folder.

    Returns:
      a line for each file; the first has the difference from the model on random inputs.
    """
    out = Path(output)
    out.mkdir(parents=True, exist_ok=True)

    def function(inputs):
        return served.function(params, mutable, inputs)

    model = backend.jit(function)
    samples = [_random_inputs(served, size) for size in _BATCH_SIZES]
    expected = [np.asarray(model(x)) for x in samples]
    (b,) = jax.export.symbolic_shape('b')  # any batch size
    # The forms that are fast on CPU would be slow elsewhere. A new lambda, since a traced function keeps its forms.
    with backend.forms('plain'):
        exported = jax.export.export(jax.jit(lambda x: function(x)), platforms=PLATFORMS)(
            jax.ShapeDtypeStruct((b, *served.shape), served.dtype)
        )
    path = out / 'model.stablehlo'
    path.write_bytes(exported.serialize())
    restored = jax.export.deserialize(bytearray(path.read_bytes()))
    outputs = [np.asarray(restored.call(x)) for x in samples]
    about = {
        'input': f'{served.dtype} {_format_shape(exported.in_avals[0].shape)}',
        'output': f'{exported.out_avals[0].dtype} {_format_shape(exported.out_avals[0].shape)}',
        'platforms': list(PLATFORMS),
        **served.about,
    }
    (out / 'model.json').write_text(json.dumps(about, indent=1) + '\n')
    difference = (served.compare or _describe_difference)(outputs, expected)
    return [
        f'{path} ({path.stat().st_size / 1e6:.2f} MB): {difference}',
        f'{out / "model.json"}: {about["input"]} -> {about["output"]}',
    ]


def _describe_difference(outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> str:
    difference = max(float(np.abs(x - y).max()) for x, y in zip(outputs, expected, strict=True))
    return f'differs from the model by at most {difference:.1e}'


def _random_inputs(served: Served, size: int) -> np.ndarray:
    rng = np.random.default_rng(size)
    if np.issubdtype(served.dtype, np.integer):
        # Up to the largest value: an overflow in the preprocessing would show.
        return rng.integers(np.iinfo(served.dtype).max, size=(size, *served.shape), dtype=served.dtype, endpoint=True)
    return rng.random((size, *served.shape)).astype(served.dtype)


def _format_shape(shape) -> str:
    return f'[{", ".join(map(str, shape))}]'
