"""MJSynth's CHAR: a classifier for each of 23 positions (Jaderberg et al. 2014).

    ./launch.sh run configs/text_recognition/mjsynth_char.py --config.data.source.words=WORDS \\
        --config.reader.words=WORDS

WORDS is a file with a word per line; without it the words are those of CPython's documentation. The network reads any
sequence of characters; `reader.listed=True` reads the most probable word of the list.

Not run here in full. `:smoke` reads 96 words in renderings that training has not seen, with a narrow network: 81.5 %
of the words in 1:52 on 2 CPU cores.
"""

from ml_collections import ConfigDict

from configs.text_recognition._words import make_config, narrow


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    config = make_config('char', dict(name='mjsynth.char_net', **narrow(smoke)), smoke, listed=False)
    if smoke:  # 37 classes in each position take longer than 96 words: 66 % with 1,000 steps at 1e-3
        config.run.steps, config.tx.learning_rate.then.init = '1300 steps', 4e-3
    return config
