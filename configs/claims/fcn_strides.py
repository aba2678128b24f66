"""A claim: scores of finer maps sharpen the segmentation, from FCN-32s to 16s to 8s (Long et al. 2015, table 3).

    ./launch.sh sweep configs/claims/fcn_strides.py
    ./launch.sh table runs/claims/fcn_strides

The paper reports mean IU 59.4, 62.4 and 62.7 on Pascal VOC, with pixel accuracies of 89.1, 90.0 and 90.3 %. Here the
narrow networks are trained from scratch, all skips together, on scenes with one digit of 36 to 72 pixels, whose strokes
are 4 to 9 pixels wide: a mean IU of 43.8, 64.3 and 83.0 %, pixel accuracies of 95.0, 97.5 and 99.1 % (one seed).
"""

from configs.segmentation._recipes import paper_smoke


def get_config(arg: str = ''):
    config = paper_smoke('fcn.fcn8s', at_least=0.2 if arg == 'smoke' else 0.4, size=96, most=1)
    config.loss.balance = 0.5  # exponent of the classes' weights: nineteen of twenty pixels are ground
    if arg == 'smoke':
        config.run.steps = 150
    return config


def sweep():
    for name in ('fcn32s', 'fcn16s', 'fcn8s'):
        yield {'model.name': f'fcn.{name}'}


def pictures(runs):
    from experiments.claims.segmentation import draw_strides

    return {'strides': draw_strides(runs, 'FCN with skips: narrow VGG-16, scenes of one digit')}
