"""MJSynth's DICT: one class per word of a dictionary (Jaderberg et al. 2014).

    ./launch.sh run configs/text_recognition/mjsynth_dict.py --config.data.source.words=WORDS \\
        --config.reader.words=WORDS

WORDS is a file with a word per line; without it the dictionary are the words of CPython's documentation. The paper
starts with 5,000 words and adds 5,000 at a time: `mjsynth_dict_grown.py`.

Not run here in full. `:smoke` reads 96 words in renderings that training has not seen, with a narrow network:
87.3 % of them in 2:28 on 2 CPU cores, next to another run.
"""

from ml_collections import ConfigDict

from configs.text_recognition._words import make_config, narrow


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    return make_config('dict', dict(name='mjsynth.dict_net', **narrow(smoke)), smoke)
