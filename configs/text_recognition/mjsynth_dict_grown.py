"""MJSynth's DICT grown step by step: 5,000 words first, and 5,000 more in each stage (Jaderberg et al. 2014).

    ./launch.sh run configs/text_recognition/mjsynth_dict_grown.py --config.reader.words=WORDS

WORDS is a file with a word per line, such as the lexicon of 88,172 words that comes with Synth90k; without it there are
3,092 words, which are fewer than the first stage takes. New words get columns of their own in the last layer, drawn as
at the beginning, while those of the old words stay as they are (`canon.models.mjsynth.add_classes`). The words of a
stage are drawn at random, and those of a later one hold them. Each stage has a schedule and an optimizer of its own,
since Adam's moments have the shape of the layer; the paper states neither rates nor lengths.

Not run here in full. `:smoke` reads 48 words, then 96, in renderings that training has not seen: 90.6 %.
"""

import itertools

from ml_collections import ConfigDict

from configs.text_recognition import mjsynth_dict

WORDS = 88_172  # of MJSynth's lexicon
STEP = 5_000  # words that a stage adds


def get_config(arg: str = '') -> ConfigDict:
    smoke = arg == 'smoke'
    counts = (48, 96) if smoke else (*range(STEP, WORDS, STEP), WORDS)
    config = mjsynth_dict.get_config(arg)
    config.experiment = 'staged'
    config.run.steps = '600 steps' if smoke else '30000 steps'  # of each stage
    config.stages = ConfigDict(_stages(counts))
    return config


def _stages(counts: tuple[int, ...]) -> dict:
    names = tuple(f'words{count}' for count in counts)
    stages: dict[str, dict] = {
        name: dict(reader=dict(most_words=count)) for name, count in zip(names, counts, strict=True)
    }
    for before, name in itertools.pairwise(names):
        stages[name]['run'] = dict(init_from=dict(stage=before))
    return dict(experiment='word_recognition', chain=names, **stages)
