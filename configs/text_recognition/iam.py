"""Handwritten English lines of IAM (Marti & Bunke 2002) by convolutions, LSTMs and CTC (Puigcerver 2017).

    ./launch.sh run configs/text_recognition/iam.py --config.data.source.path=~/data/iam
    ./launch.sh run configs/text_recognition/iam.py --config.data.source.path=~/data/iam \\
        --config.data.source.partition=lwitlrt

The folder has `ascii/lines.txt` and `lines/a01/...`, as the owners distribute them, and the lists of the partition
(docs/text_data.md). Figures are comparable on the same partition only. A deeper network of this kind has read 3.59 %
of the characters and 9.44 % of the words wrong, averaging several views of a line (arXiv 2307.00664).

Not run here: the data are given to registered users only. `:smoke` draws lines of one to three of 96 English words in
the fonts that matplotlib ships, slanted and uneven, in place of handwriting: a character error rate of 0.6 %.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.text_recognition._lines import make_config
from configs.text_recognition._words import FEW_WORDS


def get_config(arg: str = '') -> ConfigDict:
    source = dict(
        path=placeholder(str),  # the folder, or an uncompressed tar of it
        # 'rwth' (6,482, 976 and 2,915 lines), or 'lwitlrt', the owners' (6,161, 1,840 and 1,861), of which 'valid' is
        # both validation sets.
        partition='rwth',
        segmentation='all',  # 'ok' leaves out lines of which a word is badly segmented, though their images are sound
        outside='refuse',  # a text with a character that is not in text.characters is an error; 'skip' leaves it out
    )
    return make_config('iam_lines', source, 'printable_ascii', 100, FEW_WORDS, smoke=arg == 'smoke')
