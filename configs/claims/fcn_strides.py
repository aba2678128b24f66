"""A claim: scores of finer maps sharpen the segmentation, from FCN-32s to 16s to 8s (Long et al. 2015, table 3).

    ./launch.sh sweep configs/claims/fcn_strides.py
    ./launch.sh table runs/claims/fcn_strides

The paper reports mean IU 59.4, 62.4 and 62.7 on Pascal VOC, with pixel accuracies of 89.1, 90.0 and 90.3 %. Here the
narrow networks are trained from scratch, all skips together, on scenes of digits of 24 to 64 pixels, whose strokes are
3 to 8 pixels wide: the coarsest scores should not show them. The sweep has not been run yet.
"""

from configs.segmentation._recipes import scenes


def get_config(arg: str = ''):
    model = dict(name='fcn.fcn8s', width=1 / 8, border=1, batch_norm=True, dropout=0.0)
    return scenes(model, 100 if arg == 'smoke' else 400, 0.2, height=96, width=96, sizes=(24, 64), most=6)


def sweep():
    for name in ('fcn32s', 'fcn16s', 'fcn8s'):
        yield {'model.name': f'fcn.{name}'}


def pictures(runs):
    from experiments.claims.segmentation import draw_strides

    return {'strides': draw_strides(runs, 'FCN with skips: narrow VGG-16, scenes of digits')}
