"""MJSynth's NGRAM: a bag of the 10,000 most frequent n-grams of up to four characters (Jaderberg et al. 2014).

    ./launch.sh run configs/text_recognition/mjsynth_ngram.py --config.data.source.words=WORDS \\
        --config.reader.words=WORDS

WORDS is a file with a word per line, in which n-grams are counted and from which words are read; without it the words
are those of CPython's documentation.

Not run here in full. `:smoke` reads 96 words in renderings that training has not seen, with a narrow network: 85.0 %
(41.8 % with Adam), in 6:37 on 2 CPU cores next to many other jobs.
"""

from ml_collections import ConfigDict

from configs.text_recognition._lines import muon
from configs.text_recognition._words import make_config, narrow


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    config = make_config(
        'ngram',
        dict(name='mjsynth.ngram_net', **narrow(smoke)),
        smoke,
        num_ngrams=500 if smoke else 10_000,
        order=4,  # characters of the longest n-grams
        inverse_frequency=True,  # scales the gradient of each n-gram, as the paper
        nearest=False,  # reads by the most probable bag; True by the nearest one, the paper's NGRAM+2-NN
    )
    if smoke:
        # With Adam it reads half as many words.
        with config.unlocked():
            config.tx = ConfigDict(muon())
    return config
