"""Lines of Chinese text by CTC: the 3,755 characters of level 1 of GB 2312-80 and the blank, 3,756 classes.

    ./launch.sh run configs/text_recognition/gb2312_lines.py

Lines are random characters in Song, Kai and Hei, drawn by the engine of MJSynth: every character is as frequent as any
other, and no language helps. The fonts are those of Debian:

    apt-get install fonts-arphic-gbsn00lp fonts-arphic-gkai00mp fonts-wqy-zenhei

or any folder that has them, `--config.data.source.fonts=FOLDER` (docs/handwriting.md). Photographed or scanned lines:
`--config.data.name=words --config.data.source.path=FOLDER`, with `train.csv` and `test.csv` of rows `file,text`.

The full form has not been run here. `:smoke` draws lines of one to four of the first 50 characters only, since a few
minutes are too few for 3,755: a character error rate of 1.9 %.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from canon.data.text.alphabets import find_characters
from configs.text_recognition._lines import muon
from configs.text_recognition.gb2312 import PRINTING

LEVEL1 = find_characters('gb2312_level1')


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    characters = LEVEL1[:50] if smoke else LEVEL1
    fit = dict(chain=('fit_line',), fit_line=dict(size='batch'))
    longest = 4 if smoke else 12
    # Each line goes to the narrowest size that it fits into. A character is about as wide as high.
    sizes = ((32, 80), (32, 144)) if smoke else ((48, 160), (48, 320), (48, 512), (48, 720))

    return ConfigDict(
        dict(
            experiment='text_recognition',
            seed=0,
            data=dict(
                name='rendered_words',
                source=dict(
                    words='characters',  # each character of the alphabet is a word,
                    strings=1.0,  # of which a line is a random row
                    cases=('as written',),
                    fonts='chinese',  # those of Debian, or a folder
                    num_examples=3072 if smoke else 200_000,  # lines of each split
                    height=32 if smoke else 48,
                    stages=dict(PRINTING, render_text=dict(underline=0.0, curve=0.0)),
                    grey=True,
                ),
                reading=dict(
                    threads=2 if smoke else 4,  # that prepare batches ahead
                    workers=0,  # processes that do it instead
                    memory_limit=1 << 30 if smoke else 0,  # bytes up to which lines are kept
                ),
                sizes=sizes,
                batch_size=32 if smoke else 64,
                train=dict(split='train', sampler='shuffled', transforms=fit),
                evals=dict(
                    validation=dict(split='validation[:256]' if smoke else 'validation[:2000]', transforms=fit, beam=0),
                    test=dict(split='test[:512]' if smoke else 'test[:5000]', transforms=fit, beam=0),
                ),
            ),
            text=dict(
                characters=characters if smoke else 'gb2312_level1',  # of classes 1, 2, ...; class 0 is the blank
                max_length=longest,  # characters of the longest line
                ignore_case=False,
            ),
            augment=dict(mode='none', patches=8, radius=6.0),  # 'random' and 'learnt': docs/text_recognition.md
            input=dict(mean=1.0, std=0.5),  # of grey pixels in [0, 1]: white is 0, as what convolutions pad with
            model=dict(
                name='laia.laia',
                num_classes=len(characters),
                features=(16, 24, 32, 48) if smoke else (32, 64, 128, 192, 256),
                pools=((2, 2), (2, 2), (2, 2)),  # 8 columns are a frame, of which a character has four to six
                hidden=96 if smoke else 256,  # units of each LSTM, per direction
                layers=1 if smoke else 2,
                conv_dropout=0.0 if smoke else 0.1,
                dropout=0.0 if smoke else 0.2,
                dtype=placeholder(str),  # of the convolutions, such as 'bfloat16'
            ),
            tx=muon(),
            run=dict(
                steps='900 steps' if smoke else '40 epochs',
                log_every='50 steps' if smoke else '200 steps',
                evals=dict(
                    validation=dict(every='300 steps' if smoke else '1 epoch'),
                    test=dict(every='100%' if smoke else '10 epochs'),
                ),
                checkpoint=dict(
                    every='300 steps' if smoke else '1 epoch', best='validation/character_error_rate', mode='min'
                ),
            ),
            target=dict(metric='test/character_error_rate', at_most=0.05 if smoke else 0.1, ci=False),
        )
    )
