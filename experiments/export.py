"""A trained model as a file that needs neither Canon nor its config: StableHLO by `jax.export`.

    ./launch.sh export --workdir=runs/classification/lenet_digits/default

`model.stablehlo` holds weights and preprocessing, for any batch size, for CPU, CUDA and TPU. Anywhere with JAX:

    exported = jax.export.deserialize(open('model.stablehlo', 'rb').read())
    exported.call(images)

There is no ONNX: jax2onnx 0.17.1 asks for an older Orbax than Canon's, and writes max pooling over [B, H, W, C] as a
window of four dimensions, which onnxruntime does not run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np

from canon import backend

PLATFORMS = ('cpu', 'cuda', 'tpu')


class Served(NamedTuple):
    """What an experiment exports. function: (params, mutable, inputs [b, *shape]) -> outputs, a row an input.
    about: what else `model.json` shall say."""

    function: Callable[[Any, Any, jax.Array], Any]
    shape: tuple[int, ...]
    dtype: str
    about: Mapping[str, Any] = {}


def export(served: Served, params: Any, mutable: Any, output: str | Path) -> list[str]:
    """Writes `model.stablehlo` and `model.json` into `output`; returns a line about each.

    What was written is read again, run on batches of 1 and 3 random inputs and compared with the model itself.
    """
    out = Path(output)
    out.mkdir(parents=True, exist_ok=True)

    def function(inputs):
        return served.function(params, mutable, inputs)

    model = backend.jit(function)
    samples = [_sample(served, n) for n in (1, 3)]
    wanted = [np.asarray(model(x)) for x in samples]
    (b,) = jax.export.symbolic_shape('b')
    with backend.forms('plain'):  # what TPU and GPU compile well; no function that is traced already
        exported = jax.export.export(jax.jit(lambda x: function(x)), platforms=PLATFORMS)(
            jax.ShapeDtypeStruct((b, *served.shape), served.dtype)
        )
    path = out / 'model.stablehlo'
    path.write_bytes(exported.serialize())
    read = jax.export.deserialize(bytearray(path.read_bytes()))
    found = [np.asarray(read.call(x)) for x in samples]
    about = {
        'input': f'{served.dtype} {_text(exported.in_avals[0].shape)}',
        'output': f'{exported.out_avals[0].dtype} {_text(exported.out_avals[0].shape)}',
        'platforms': list(PLATFORMS),
        **served.about,
    }
    (out / 'model.json').write_text(json.dumps(about, indent=1) + '\n')
    return [_line(path, found, wanted), f'{out / "model.json"}: {about["input"]} -> {about["output"]}']


def _sample(served: Served, number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    if np.issubdtype(served.dtype, np.integer):
        return rng.integers(np.iinfo(served.dtype).max, size=(number, *served.shape), dtype=served.dtype, endpoint=True)
    return rng.random((number, *served.shape)).astype(served.dtype)


def _line(path: Path, found: list[np.ndarray], wanted: list[np.ndarray]) -> str:
    largest = max(float(np.abs(f - w).max()) for f, w in zip(found, wanted, strict=True))
    return f'{path} ({path.stat().st_size / 1e6:.2f} MB): differs from the model by at most {largest:.1e}'


def _text(shape) -> str:
    return f'[{", ".join(map(str, shape))}]'
