"""A recurrent attention decoder over CRNN's columns: VGG-BiLSTM-Attn (Baek et al. 2019), with or without a rectifier.

    ./launch.sh run configs/text_recognition/attention_reader.py --config.data.source.words=WORDS \\
        --config.reader.words=WORDS

WORDS is a file with a word per line; without it the words are those of CPython's documentation.
`--config.model.fiducials=20` rectifies images by a thin-plate spline first (TPS-VGG-BiLSTM-Attn).

Not run here in full. `:smoke` reads 96 words in renderings that training has not seen, with a narrow network: 85.0 %
after 1,000 steps, 3:45 on 2 CPU cores that other jobs shared.
"""

from ml_collections import ConfigDict

from configs.text_recognition._lines import muon
from configs.text_recognition._words import make_config


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    config = make_config(
        'attention',
        dict(
            name='attention_reader.attention_reader',
            width=64 if smoke else 512,  # channels of the last three convolutions
            hidden=48 if smoke else 256,  # units of the LSTMs
            fiducials=0,  # points of the rectifier; 0 for none
        ),
        smoke,
    )
    if smoke:
        # With Adam the decoder learned which character follows which, and nothing of the image: 1.4 % of the words.
        with config.unlocked():
            config.tx = ConfigDict(muon())
    return config
