r"""CRNN fine-tuned on the 2,000 training words of IIIT5K, with its images as they are, warped at random or by an agent.

    ./launch.sh run configs/text_recognition/crnn_rendered.py  # the run to start from
    ./launch.sh sweep configs/text_recognition/crnn_iiit5k.py --config.data.source.path='words/iiit5k_{split}.tar'
    ./launch.sh table runs/text_recognition/crnn_iiit5k

The network, its input and its alphabet are those of `crnn_rendered.py`. The agent of Learn to Augment (Luo et al. 2020)
begins untrained. `test` reads the 2,997 test words of up to 23 characters, and `benchmarks` all 3,000. The words are
images in IMG/ with their texts in label/; for IIIT5K as distributed, --config.data.name=iiit5k and
--config.data.benchmarks.sets.iiit5k.data=iiit5k. `:scratch` starts from no run, as the authors' table does: there CRNN
trained on these 2,000 words reads 40.8 % of the test words, and 53.4 % with augmentation.

Measured on 2 CPU cores next to other jobs, words of `test`, three seeds: without augmentation 72.1 % (standard error
0.4, 9 to 15 minutes), at random 72.8 ± 0.2 % (10 to 15 minutes), learnt 72.7 ± 0.1 % (20 to 33 minutes). Before
fine-tuning it is 66.2 %.

`:smoke` has no photographs and no run: a first stage learns 96 rendered words, and the second one the same words in
other fonts, of which there are 256 images: of so few words a network learns no letters with which to read others.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.text_recognition import crnn_rendered
from configs.text_recognition._lines import muon
from configs.text_recognition._words import FEW_WORDS, FONTS, OTHER_FONTS

ARGUMENTS = ('smoke', 'scratch')
MODES = ('none', 'random', 'learnt')


def get_config(arg: str = '') -> ConfigDict:
    config = crnn_rendered.get_config('smoke' if arg == 'smoke' else '')
    squeeze = dict(chain=('resize',), resize=dict(size=(32, 100)))
    path = placeholder(str)  # one key of the command line sets both
    with config.unlocked(), config.ignore_type():
        config.data.name, config.data.source = 'word_folder', dict(path=path)
        config.data.reading.memory_limit = 1 << 30  # bytes up to which decoded images are kept: all of them
        config.data.train = dict(split='train', sampler='shuffled', transforms=squeeze)
        config.data.evals = dict(test=dict(split='test', transforms=squeeze, beam=0))
        config.data.benchmarks.sets = dict(iiit5k=dict(data='word_folder', source=dict(path=path)))
        config.text.max_length = 23
        config.augment = dict(
            mode='none',  # or 'random', or 'learnt' by an agent that trains along (docs/text_recognition.md)
            patches=3,  # between the points that move
            radius=10.0,  # pixels that a point moves at most along each axis; the paper's best for 32x100
        )
        # A quarter of the rate with which the first run began. The gradient's norm is not clipped, since the agent's
        # would be part of it.
        config.tx = dict(
            name='adam',
            learning_rate=dict(name='warmup', steps='5%', then=dict(name='cosine', init=5e-4, final=0.0, steps='95%')),
        )
        init = dict(
            path='runs/text_recognition/crnn_rendered/default',  # the folder of a run, or published weights
            new='(^|/)agent/',  # parameters that keep their initialisation
        )
        config.run.update(steps='800 steps', log_every='100 steps', init_from=init)
        config.run.evals = dict(test=dict(every='400 steps'))
        config.run.checkpoint = dict(every='160 steps', keep=5)  # of which `table` draws what the agent has learnt
        config.target = dict(metric='test/word_accuracy', at_least=0.3, ci=False)
        if arg == 'scratch':
            # Adadelta is the paper's for both networks.
            config.tx = dict(name='adadelta', learning_rate=1.0, decay=0.9, eps=1e-6, eps_in_sqrt=True)
            config.run.steps = '6000 steps'
            del config.run.init_from
            config.target.at_least = 0.1
    return _without_photographs(config) if arg == 'smoke' else config


def _without_photographs(config: ConfigDict) -> ConfigDict:
    """Returns the recipe in two stages, on words that the engine draws."""
    with config.unlocked(), config.ignore_type():
        config.experiment = 'staged'
        config.data.name = 'rendered_words'
        config.data.source = dict(words=FEW_WORDS, fonts=OTHER_FONTS, width=100, grey=True)
        config.data.train.split, config.data.evals.test.split = 'train[:256]', 'test[:500]'
        config.augment.mode = 'learnt'
        # As in crnn_rendered.py:smoke, without the clip.
        config.tx = dict(name='muon', **muon()['muon'])
        config.run.update(steps='150 steps', log_every='25 steps')
        config.run.evals.test.every = '75 steps'
        config.run.checkpoint.every = '50 steps'
        del config.run.init_from  # of the second stage only, which names the first by itself
        config.target.at_least = 0.2
        first = dict(
            data=dict(source=dict(fonts=FONTS), train=dict(split='train')),
            augment=dict(mode='none'),
            run=dict(steps='1050 steps'),
        )
        config.stages = dict(
            experiment='text_recognition',
            chain=('rendered', 'tuned'),
            rendered=first,
            tuned=dict(
                run=dict(init_from=dict(new='(^|/)agent/')),
                tx=dict(learning_rate=dict(then=dict(init=5e-3)), adam_learning_rate=dict(then=dict(init=5e-4))),
            ),
        )
    return config


def sweep():
    for seed in range(3):
        for mode in MODES:
            yield {'augment.mode': mode, 'seed': seed}


def pictures(runs):
    from experiments.claims.text_recognition import draw_agent, draw_agent_warps, draw_word_sets

    sets = {'test/word_accuracy': 'test words', 'benchmarks/iiit5k/word_accuracy_36': 'all 3,000, 36 characters'}
    title = 'CRNN fine-tuned on 2,000 words of IIIT5K'
    accuracy = draw_word_sets(runs, lambda config: config['augment']['mode'], sets, title)
    return {'accuracy': accuracy, 'agent': draw_agent(runs), **draw_agent_warps(runs)}
