r"""CRNN on words that the engine of MJSynth draws (Jaderberg et al. 2014): nothing to download.

    ./launch.sh run configs/text_recognition/crnn_rendered.py
    ./launch.sh run configs/text_recognition/crnn_rendered.py \
      --config.data.benchmarks.sets.iiit5k.source.path='words/iiit5k_{split}.tar'

Synthetic to real: training sees rendered words only, with the fonts of matplotlib, words of CPython's documentation and
words invented after them, numbers and signs. Better with your own: --config.data.source.fonts=FOLDER, .words=FILE,
.textures=FOLDER (docs/rendered_words.md). The benchmark has IMG/ and label/; for others, see docs/text_recognition.md.

The network is half as wide as the paper's (Shi et al. 2015), with BatchNorm as in the authors' code, so that it sees
four times as many words in the same time on a CPU. Adam instead of Adadelta, with a rate that decays to zero.

Measured on 2 CPU cores next to other jobs: 81.9 % of held-out renderings, 66.2 % of the 3,000 test words of IIIT5K and
55.8 % of the 647 of SVT (36 characters; 88.4 and 86.6 % with all words of the set as a lexicon) in 66 minutes, of 1.35
cores; with the machine to itself it takes 2.2 steps per second, 45 minutes. `:smoke` reads 96 short words.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.text_recognition._lines import muon
from configs.text_recognition._words import FEW_WORDS


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    squeeze = dict(chain=('resize',), resize=dict(size=(32, 100)))
    every = '350 steps' if smoke else '500 steps'
    iiit5k, svt = placeholder(str), placeholder(str)  # one key of the command line is the path of two sets
    return ConfigDict(
        dict(
            experiment='text_recognition',
            seed=0,
            data=dict(
                name='rendered_words',
                source=dict(
                    words=FEW_WORDS if smoke else placeholder(str),  # a file with a word per line
                    fonts=placeholder(str),  # a folder
                    textures=placeholder(str),  # a folder of photographs
                    num_examples=16384 if smoke else 1 << 23,  # renderings of each split
                    invented=0.0 if smoke else 0.35,  # share of words that a chain of characters invents
                    numbers=0.0 if smoke else 0.1,
                    signs=0.0 if smoke else 0.15,  # words with a sign that is drawn but not read
                    width=100,  # every word fills the image, as in the paper
                    grey=True,
                ),
                reading=dict(
                    threads=2,  # that prepare batches ahead
                    workers=0,  # processes that do it instead
                    memory_limit=0,  # words are drawn on every visit, which takes less than memory does
                ),
                batch_size=32 if smoke else 64,
                train=dict(split='train', sampler='shuffled'),
                evals=dict(test=dict(split='test[:1000]', beam=0)),  # 0 decodes the best path
                benchmarks=dict(
                    sets=dict(
                        iiit5k=dict(data='word_folder', source=dict(path=iiit5k)),
                        iiit5k_full=dict(data='word_folder', source=dict(path=iiit5k), lexicon='full'),
                        svt=dict(data='word_folder', source=dict(path=svt)),
                        svt_full=dict(data='word_folder', source=dict(path=svt), lexicon='full'),  # words of the set
                    ),
                    transforms=squeeze,
                ),
            ),
            text=dict(
                characters='0123456789abcdefghijklmnopqrstuvwxyz',  # of classes 1, 2, ...; class 0 is the blank
                ignore_case=True,  # texts become lower case
                max_length=12 if smoke else 23,  # characters of the longest label
            ),
            input=dict(mean=0.5, std=0.5),  # of grey pixels in [0, 1]
            model=dict(
                name='crnn.crnn',
                num_classes=36,
                features=(16, 32, 48, 48, 96, 96, 96) if smoke else (32, 64, 128, 128, 256, 256, 256),
                hidden=64 if smoke else 128,  # units of each LSTM, per direction
                batch_norm=(3, 5, 7),  # convolutions that BatchNorm follows
                dtype=placeholder(str),  # of the convolutions, such as 'bfloat16'
            ),
            # With so few words Adam stays on a plateau, where nothing is read, for all of its steps.
            tx=muon()
            if smoke
            else dict(
                chain=('clip', 'adam'),
                clip=dict(name='clip_by_global_norm', max_norm=5.0),  # as deep-text-recognition-benchmark
                adam=dict(
                    learning_rate=dict(
                        name='warmup', steps='5%', then=dict(name='cosine', init=2e-3, final=0.0, steps='95%')
                    )
                ),
            ),
            run=dict(
                steps='1050 steps' if smoke else '6000 steps',
                log_every='50 steps' if smoke else '100 steps',
                evals=dict(test=dict(every=every)),  # benchmarks are read at the end
                checkpoint=dict(every=every),  # the last weights count
            ),
            target=dict(metric='test/word_accuracy', at_least=0.6 if smoke else 0.78, ci=False),
        )
    )
