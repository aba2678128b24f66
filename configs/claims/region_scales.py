"""A claim: several scales of an image gain little over one, and take longer (He et al. 2014, 4.3; Girshick 2015, 5.2).

    ./launch.sh sweep configs/claims/region_scales.py
    ./launch.sh table runs/claims/region_scales

The papers: on VOC07 SPP-net goes from 58.0 to 59.2 % mAP with five scales in place of one, and from 0.14 to 0.38 s of
features per image; a narrower Fast R-CNN from 57.1 to 58.4 %. Here SPP-net on few and large digits: a region is
described on the map on which it is nearest to 36 pixels. mAP 60.1, 60.6 and 66.8 % with one, three and five scales, and
0.023, 0.061 and 0.109 s of features per image.
"""

from configs.detection import spp_digits

# Sides of the resized image, which has 96 pixels.
SCALES = {(192,): 'one scale', (96, 192, 288): 'three scales', (48, 96, 144, 192, 288): 'five scales'}


def get_config(arg: str = ''):
    config = spp_digits.get_config('smoke')
    with config.unlocked():
        config.scales.sides = next(iter(SCALES))
        del config.stages['detections']
        config.stages.timing = dict(experiment='detection_timing')
        config.stages.chain = (*(name for name in config.stages.chain if name != 'detections'), 'timing')
        config.data.evals.test.split = 'test[:64]'
        if arg == 'smoke':
            config.data.source.num_examples, config.data.evals.test.split = 96, 'test[:16]'
            config.run.steps = config.stages.finetune.run.steps = 100
        config.target.at_least = 0.1
    return config


def sweep():
    for sides in SCALES:
        yield {'scales.sides': sides}


def pictures(runs):
    from experiments.claims.detection import draw_times

    def name(config):
        return SCALES[tuple(config['overrides']['scales.sides'])]

    return {'scales': draw_times(runs, name, tuple(SCALES.values()), 'SPP-net on scenes of digits')}
