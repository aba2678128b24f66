"""A claim: each stage of the engine that draws words adds to what they teach (Jaderberg et al. 2014, section 2).

    ./launch.sh sweep configs/claims/engine_stages.py
    ./launch.sh sweep configs/claims/engine_stages.py \\
        --config.data.benchmarks.sets.iiit5k.source.path='words/iiit5k_{split}.tar'
    ./launch.sh table runs/claims/engine_stages

The stages are removed one by one: a CRNN learns from words that are drawn without one of them, or without all five, in
black on white, and reads words that are drawn with all, and photographs if there are any. Colours help most; in as few
steps the other stages do not: docs/claims.md.
"""

from configs.claims._text import claim, rendered

STAGES = (
    *('render_text', 'add_border', 'colour_layers', 'project_layers', 'blend_textures', 'merge_layers', 'add_noise'),
)
WITHOUT = {  # what is left out, and what remains
    'all stages': STAGES,
    'no borders': tuple(name for name in STAGES if name != 'add_border'),
    'no colours': tuple(name for name in STAGES if name != 'colour_layers'),
    'no projection': tuple(name for name in STAGES if name != 'project_layers'),
    'no textures': tuple(name for name in STAGES if name != 'blend_textures'),
    'no noise': tuple(name for name in STAGES if name != 'add_noise'),
    'letters alone': ('render_text', 'merge_layers'),
}
SETS = {
    'test/word_accuracy': 'words drawn as for training',
    'benchmarks/drawn/word_accuracy_36': 'words drawn with all stages',
    'benchmarks/iiit5k/word_accuracy_36': 'IIIT5K',
    'benchmarks/svt/word_accuracy_36': 'SVT',
}


def get_config(arg: str = ''):
    mixed = dict(invented=0.35, numbers=0.1, signs=0.15)
    return claim(
        dict(stages=dict(chain=STAGES), **mixed),
        dict(drawn=dict(data='rendered_words', split='test[:1000]', source=rendered(**mixed))),
        steps=600 if arg == 'smoke' else 1500,
        metric='benchmarks/drawn/word_accuracy_36',
        at_least=0.02 if arg == 'smoke' else 0.2,
    )


def sweep():
    for chain in WITHOUT.values():
        for seed in (0, 1):
            yield {'data.source.stages.chain': chain, 'seed': seed}


def pictures(runs):
    from experiments.claims.text_recognition import draw_word_sets

    names = {chain: name for name, chain in WITHOUT.items()}

    def name(config):
        return names[tuple(config['data']['source']['stages']['chain'])]

    return {'stages': draw_word_sets(runs, name, SETS, 'CRNN trained on words drawn with some stages')}
