"""MJSynth's CHAR: a classifier for each of 23 positions (Jaderberg et al. 2014).

    ./launch.sh run configs/text_recognition/mjsynth_char.py --config.data.source.words=WORDS \\
        --config.reader.words=WORDS

WORDS is a file with a word per line; without it the words are those of CPython's documentation. The network reads any
sequence of characters; `reader.listed=True` reads the most probable word of the list.

Not run here in full. `:smoke` reads 96 words in renderings that training has not seen, with a narrow network.
"""

from ml_collections import ConfigDict

from configs.text_recognition._words import make_config, narrow


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    return make_config('char', dict(name='mjsynth.char_net', **narrow(smoke)), smoke, listed=False)
