"""Shared parts of the recipes of recognisers that read a word at once: rendered words, text and schedule."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

# Words of CPython's documentation, of two to eight letters: few enough for a network of a few minutes.
FEW_WORDS = (
    'add', 'all', 'and', 'any', 'are', 'arg', 'ascii', 'assert', 'async', 'await', 'base', 'bin', 'bool', 'break',
    'bytes', 'call', 'case', 'chr', 'class', 'code', 'continue', 'copy', 'data', 'def', 'default', 'del', 'dict',
    'dir', 'elif', 'else', 'empty', 'end', 'eval', 'except', 'exec', 'false', 'file', 'filter', 'finally', 'float',
    'for', 'format', 'from', 'get', 'global', 'hash', 'help', 'hex', 'if', 'import', 'in', 'index', 'init', 'input',
    'int', 'is', 'item', 'iter', 'key', 'lambda', 'len', 'line', 'list', 'local', 'main', 'map', 'match', 'max',
    'memory', 'method', 'min', 'module', 'name', 'next', 'none', 'not', 'object', 'oct', 'open', 'operator', 'or',
    'pass', 'path', 'pow', 'print', 'property', 'raise', 'range', 'read', 'repr', 'return', 'reverse', 'round',
    'self', 'set', 'slice',
)  # fmt: skip

# Fonts that matplotlib ships: DejaVu and STIX, and Computer Modern for words that are not to be drawn as in training.
FONTS = (
    *('DejaVuSans', 'STIXGeneral', 'DejaVuSansMono-Bold', 'DejaVuSerif-Italic'),
    *('DejaVuSans-Bold', 'DejaVuSans-Oblique', 'DejaVuSans-BoldOblique', 'DejaVuSansMono'),
    *('DejaVuSansMono-Oblique', 'DejaVuSansMono-BoldOblique', 'DejaVuSerif', 'DejaVuSerif-Bold'),
    *('DejaVuSerif-BoldItalic', 'STIXGeneralBol', 'STIXGeneralItalic', 'STIXGeneralBolIta'),
)
OTHER_FONTS = ('cmr10', 'cmb10', 'cmss10', 'cmti10', 'cmtt10')
# Words of signs in streets, none of them in CPython's documentation.
STREET_WORDS = (
    'airport', 'antique', 'autumn', 'avenue', 'bakery', 'bank', 'barber', 'beach', 'bistro', 'bookshop', 'bottle',
    'bridge', 'bus', 'butcher', 'cafe', 'castle', 'chemist', 'chicken', 'cinema', 'clinic', 'coffee', 'college',
    'dentist', 'diner', 'drugs', 'elephant', 'express', 'factory', 'boutique', 'ferry', 'fish', 'florist', 'gallery',
    'garage', 'garden', 'grill', 'grocery', 'harbour', 'hospital', 'hotel', 'house', 'insurance', 'jewellery',
    'kitchen', 'laundry', 'liquor', 'lounge', 'luggage', 'museum', 'music', 'nursery', 'office', 'opera', 'palace',
    'parking', 'pharmacy', 'photo', 'pizza', 'police', 'pub', 'queen', 'radio', 'railway', 'restaurant', 'river',
    'royal', 'sale', 'salon', 'saloon', 'sandwich', 'school', 'shoes', 'spring', 'terrace', 'stadium', 'station',
    'street', 'studio', 'summer', 'sushi', 'taxi', 'tea', 'theatre', 'ticket', 'tobacco', 'toilet', 'tourist',
    'tower', 'toys', 'traffic', 'tram', 'tunnel', 'village', 'vodka', 'water', 'wedding', 'welcome', 'wine',
    'yoghurt', 'zebra',
)  # fmt: skip


def make_config(kind: str, model: dict, smoke: bool, **reader) -> ConfigDict:
    """Returns the config of one kind of reader.

    Args:
      kind: 'char', 'dict', 'ngram' or 'attention'.
      model: name and arguments; in the smoke form those of a narrow network.
      smoke: `FEW_WORDS` in 6,144 renderings, and a few minutes.
      **reader: further settings of config.reader.
    """
    words = FEW_WORDS if smoke else placeholder(str)  # a file with a word per line; None for CPython's documentation
    return ConfigDict(
        dict(
            experiment='word_recognition',
            seed=0,
            data=dict(
                name='rendered_words',  # or 'words', 'folder', ...: any data set whose examples have 'image' and 'text'
                source=dict(
                    words=words,
                    num_examples=6144 if smoke else 1 << 23,  # renderings of each split
                    width=100,  # every word fills the image, as in MJSynth
                    grey=True,
                ),
                reading=dict(
                    threads=2,  # that prepare batches ahead
                    workers=0,  # processes that do it instead; the engine makes 500 words a second on each core
                ),
                batch_size=64,
                train=dict(split='train', sampler='shuffled'),
                evals=dict(test=dict(split='test[:512]' if smoke else 'test[:5000]')),
            ),
            text=dict(
                characters='0123456789abcdefghijklmnopqrstuvwxyz',  # of classes 1, 2, ...
                ignore_case=True,  # texts become lower case
                max_length=12 if smoke else 23,  # characters of the longest word; the paper's positions
            ),
            input=dict(eps=1e-3),  # added to the standard deviation by which an image is divided
            reader=dict(kind=kind, words=words, **reader),
            model=model,
            tx=dict(
                name='adam',  # the paper has SGD with momentum and states no rates
                learning_rate=dict(
                    name='warmup', steps='5%', then=dict(name='cosine', init=1e-3, final=0.0, steps='95%')
                ),
            ),
            run=dict(
                steps='1000 steps' if smoke else '500000 steps',
                log_every='100 steps',
                evals=dict(test=dict(every='500 steps' if smoke else '10000 steps')),
                checkpoint=dict(every='500 steps' if smoke else '10000 steps'),  # the last weights count
            ),
            target=dict(metric='test/word_accuracy', at_least=0.8, ci=False),
        )
    )


def narrow(smoke: bool) -> dict:
    """Returns the arguments of a network of `canon.models.mjsynth`: the paper's, or a narrow one with BatchNorm."""
    if not smoke:
        return dict(dropout=0.5, batch_norm=False, dtype=placeholder(str))
    widths = dict(features=(16, 32, 64, 64), kernels=(5, 3, 3, 3), pools=(1, 2, 3), units=(256,))
    return dict(**widths, dropout=0.2, batch_norm=True)
