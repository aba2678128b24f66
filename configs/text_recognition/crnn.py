"""CRNN as in the paper (Shi et al. 2015), on Synth90k (Jaderberg et al. 2014): 36 characters, images of 32x100.

    ./launch.sh run configs/text_recognition/crnn.py --config.data.source.path=~/data/mnt/ramdisk/max/90kDICT32px

For any other cropped words: a folder with `train.csv` and `val.csv`, whose rows are `file,text`
(`canon.data.text.word_images`). `--config.data.benchmarks.path=~/data/data_lmdb_release/evaluation` reads the ten test
sets of Baek et al. 2019 at the end and prints one table.

From the paper: the network of table 1, Adadelta with decay 0.9, 100x32 in training, loss by CTC (section 3.2). From
the authors' code (bgshih/crnn): batches of 64, at most 2,000,000 iterations, Adadelta's eps 1e-6 in the form of Zeiler
2012, grey images to about [-1, 1], texts in lower case, at most 26 characters (a frame each).

Not run here: the set has 7.2 million images (10 GB). `:smoke` is the recipe on embedded lines of digits, narrowed, with
BatchNorm as in the code and the rate divided at the end: 93.4 % of 1,000 validation lines in a minute on 2 CPU cores.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.text_recognition._benchmarks import lmdb_benchmarks


def get_config(arg: str = '') -> ConfigDict:
    resize = dict(chain=('resize',), resize=dict(size=(32, 100)))
    config = ConfigDict(
        dict(
            experiment='text_recognition',
            seed=0,
            data=dict(
                name='words',  # or any data set whose examples have 'image' and 'text'
                source=dict(
                    path=placeholder(str),  # the folder
                    # Characters that text.characters lacks: 'filter' removes them from the texts, as published results
                    # do, 'skip' skips such texts, 'refuse' is an error.
                    outside='filter',
                ),
                reading=dict(
                    threads=4,  # that prepare batches ahead
                    workers=0,  # processes that do it instead
                    memory_limit=0,  # bytes up to which decoded images are kept: none, since 7 million do not fit
                ),
                batch_size=64,
                train=dict(split='train', sampler='shuffled', transforms=resize),
                evals=dict(
                    val=dict(
                        split='val[:5000]',
                        transforms=resize,
                        beam=0,  # width of the prefix beam search; 0 decodes the best path
                    )
                ),
                benchmarks=lmdb_benchmarks(resize),  # read at the end of the run if their path is set
            ),
            text=dict(
                characters='0123456789abcdefghijklmnopqrstuvwxyz',  # of classes 1, 2, ...; class 0 is the blank
                ignore_case=True,  # texts become lower case
                max_length=26,  # characters of the longest label; 100 columns give 26 frames
            ),
            augment=dict(
                # 'random' moves points of the images' borders at random, 'learnt' where an agent finds texts become
                # harder to read, which trains along (Learn to Augment); see docs/text_recognition.md.
                mode='none',
                patches=3,  # between the points
                radius=10.0,  # pixels that a point moves at most along each axis
            ),
            input=dict(mean=0.5, std=0.5),  # of grey pixels in [0, 1]
            model=dict(
                name='crnn.crnn',
                num_classes=36,  # characters
                hidden=256,  # units of each LSTM, per direction
                batch_norm=(5, 6),  # convolutions that BatchNorm follows; (3, 5, 7) in the authors' code
                dtype=placeholder(str),  # of the convolutions, such as 'bfloat16'
            ),
            tx=dict(name='adadelta', learning_rate=1.0, decay=0.9, eps=1e-6, eps_in_sqrt=True),
            run=dict(
                steps='2000000 steps',
                log_every='100 steps',
                evals=dict(val=dict(every='10000 steps')),
                checkpoint=dict(every='10000 steps', best='val/word_accuracy', mode='max'),
            ),
            target=dict(metric='val/word_accuracy', at_least=0.85, ci=False),
        )
    )
    return _smoke(config) if arg == 'smoke' else config


def _smoke(config: ConfigDict) -> ConfigDict:
    with config.unlocked(), config.ignore_type():
        config.data.name, config.data.source = 'digit_lines', dict(num_examples=16384, most=4)
        config.data.reading.memory_limit = 1 << 30
        config.data.evals.val.split = 'val[:1000]'  # other lines of the digits that train shows
        config.model.update(features=(16, 16, 24, 24, 48, 48, 48), hidden=48, batch_norm=(3, 5, 7))
        config.tx.learning_rate = dict(name='step_decay', init=1.0, steps=('70%', '90%'))
    config.data.batch_size = 32
    config.run.update(steps='700 steps', log_every='100 steps')
    config.run.evals.val.every = '350 steps'
    config.run.checkpoint.every = '350 steps'
    config.target.at_least = 0.9
    return config
