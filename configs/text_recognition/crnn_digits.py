"""A narrow CRNN on synthetic lines of one to five handwritten digits: nothing to download.

    ./launch.sh run configs/text_recognition/crnn_digits.py

The paper's recipe (Shi et al. 2015, section 3.2): images of 32x100, Adadelta with decay 0.9, loss by CTC; BatchNorm
follows the convolutions that it follows in the authors' code. Not in the paper: the rate is divided by 10 at 70 % and
90 % of the run, since Adadelta at a rate of 1 oscillates to the end.

Measured on 2 shared CPU cores: 2,500 steps of 64 lines in 9:36; 97.9 % of 1,000 lines of held-out digits without an
error, 0.74 % of the characters wrong. `:smoke` (up to four digits, 700 steps of 32): 92.3 % in 44 s alone.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    return ConfigDict(
        dict(
            experiment='text_recognition',
            seed=0,
            data=dict(
                name='digit_lines',
                source=dict(
                    num_examples=16384,  # lines of each split
                    most=4 if smoke else 5,  # digits of the longest line
                ),
                reading=dict(threads=2, workers=0),  # threads that prepare batches ahead, or processes
                batch_size=32 if smoke else 64,
                train=dict(split='train[:15384]', sampler='shuffled'),
                evals=dict(
                    test=dict(split='test[:1000]', beam=0),  # 0 decodes the best path, N by a beam of N prefixes
                    validation=dict(split='train[15384:]', beam=0),  # selects the checkpoint
                ),
            ),
            text=dict(
                characters='0123456789',  # of classes 1, 2, ...; class 0 is the blank
                ignore_case=False,  # whether texts become lower case
                max_length=5,  # characters of the longest label
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
                num_classes=10,
                features=(16, 16, 24, 24, 48, 48, 48) if smoke else (16, 32, 48, 48, 96, 96, 96),
                hidden=48 if smoke else 64,  # units of each LSTM, per direction
                batch_norm=(3, 5, 7),  # convolutions that BatchNorm follows
                dtype=placeholder(str),  # of the convolutions, such as 'bfloat16'
            ),
            tx=dict(
                name='adadelta',
                decay=0.9,
                eps=1e-6,
                eps_in_sqrt=True,
                learning_rate=dict(name='step_decay', init=1.0, steps=('70%', '90%')),
            ),
            run=dict(
                steps='700 steps' if smoke else '2500 steps',
                log_every='100 steps',
                evals={name: dict(every='350 steps' if smoke else '250 steps') for name in ('test', 'validation')},
                checkpoint=dict(
                    every='350 steps' if smoke else '500 steps', best='validation/word_accuracy', mode='max'
                ),
            ),
            target=dict(metric='test/word_accuracy', at_least=0.9, ci=True),
        )
    )
