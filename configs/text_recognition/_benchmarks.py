"""The ten test sets of scene text, as deep-text-recognition-benchmark distributes them (Baek et al. 2019, table 1)."""

from typing import Any

from ml_collections.config_dict import placeholder

# Folders below `data_lmdb_release/evaluation`, each an LMDB; the numbers are those of their images.
LMDB_SETS = (
    'IIIT5k_3000', 'SVT', 'IC03_860', 'IC03_867', 'IC13_857', 'IC13_1015', 'IC15_1811', 'IC15_2077', 'SVTP', 'CUTE80',
)  # fmt: skip


def lmdb_benchmarks(transforms: dict[str, Any]) -> dict[str, Any]:
    """Returns config.data.benchmarks of the ten sets; without a path none is read.

    transforms: of the images, as in evaluation.
    """
    return dict(
        path=placeholder(str),  # of the folder `evaluation`; a set may have its own, in sets.NAME.source.path
        sets={name: dict(data='lmdb_words', split=name, source=dict(path=placeholder(str))) for name in LMDB_SETS},
        transforms=transforms,
        beam=0,  # width of the prefix beam search; 0 decodes the best path
        compare='alphanumeric',  # CER, WER and NED of 36 characters, or of 'exact' texts
    )
