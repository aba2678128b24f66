"""A claim: each system by regions removes the bottleneck of the one before (Girshick 2014, 2015; He, Ren et al.).

    ./launch.sh sweep configs/claims/region_systems.py
    ./launch.sh table runs/claims/region_systems

The papers, with VGG-16 on VOC07: 47 s per image after selective search with R-CNN; 2.3 s with SPP-net, which computes
features from one map per scale; 0.32 s with Fast R-CNN, on one scale and with heads in the network; 0.2 s with Faster
R-CNN, which needs none of the 2 s of the search. Here all four have the same narrow VGG-11 up to stride 8, two layers
of 256 units, the same scenes and one scale; the last stage of each detects the test scenes one by one and measures the
parts. Seconds per image: 0.34, 0.27, 0.12 and 0.009; docs/claims.md has the parts.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.claims._claims import choose_form, sweep_forms
from configs.detection import _region_recipes as by_stages
from configs.detection._recipes import scenes
from configs.detection._two_stages import FAST_RCNN, FASTER_RCNN, small_sections, small_single_level

FORMS = ('R-CNN', 'SPP-net', 'Fast R-CNN', 'Faster R-CNN')  # in the order of the papers
SIZE = 128
SOURCE = dict(height=SIZE, width=SIZE, sizes=(18, 64), most=5, clutter=4)  # few and large digits


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    few: dict[str, Any] = dict(num_examples=128, test=24) if smoke else dict(num_examples=384, test=64)
    # Of 128 crops each in R-CNN and SPP-net, and of 16 scenes each in the other two.
    crop_steps, scene_steps = (100, 100) if smoke else (300, 400)
    # The last stage is the same for all, in place of those that would detect and evaluate.
    timing = dict(experiment='detection_timing')

    def learn_in_stages(model: dict[str, Any], crop: dict[str, Any], stages: dict[str, Any], **other: Any):
        chain = (*(name for name in stages['chain'] if name != 'detections'), 'timing')
        timed = {name: values for name, values in stages.items() if name != 'detections'}
        timed |= dict(chain=chain, timing=timing)
        return by_stages.digits(model, crop, timed, crop_steps, 0.1, **few, source=SOURCE, **other)

    rcnn = learn_in_stages(
        by_stages.small_network('rcnn.rcnn', stage='conv4'),
        dict(size=32, context=4, form='warp'),
        by_stages.RCNN_STAGES,
    )
    spp = learn_in_stages(
        by_stages.small_network('spp_net.spp_net', stride=8, bins=(4, 2, 1)),
        dict(size=40, context=0, form='square'),
        by_stages.list_spp_stages(image=SIZE, images=4, steps=crop_steps),
        scales=dict(sides=(SIZE,), longest=SIZE, region=40.0, multiple=8),
        sizes=(32, 40),
    )

    def learn_jointly(system: dict[str, Any], model: dict[str, Any], chain: tuple[str, ...]):
        config = scenes(model, system, scene_steps, 0.1, **few, source=SOURCE, sections=small_sections())
        stages = dict(proposals=dict(experiment='region_proposals'), detector=dict(), timing=timing)
        with config.unlocked():
            config.experiment, config.timing = 'staged', dict(network='detector')
            config.proposals = rcnn.proposals
            # Of the stage that searches; None where the network proposes by itself.
            config.data.proposals = dict(stage='proposals', most=300) if 'proposals' in chain else None
            config.stages = dict(experiment='detection', chain=chain, **{name: stages[name] for name in chain})
        return config

    # As many cells per region as a crop of R-CNN has in its last map.
    network = small_single_level(8, pool_size=4, units=(256, 256))
    own = ('anchor_sizes', 'aspect_ratios', 'rpn_channels')  # arguments of the proposals' network
    regions = {key: value for key, value in network.items() if key not in own}
    fast = learn_jointly(FAST_RCNN, {**regions, 'name': 'fast_rcnn.fast_rcnn'}, ('proposals', 'detector', 'timing'))
    faster = learn_jointly(FASTER_RCNN, network, ('detector', 'timing'))
    configs = [config.to_dict() for config in (rcnn, spp, fast, faster)]
    base = configs[0]
    # Of each system, the sections in which it differs from R-CNN.
    forms = [{key: value for key, value in config.items() if value != base.get(key)} for config in configs]
    return choose_form(ConfigDict(base), dict(zip(FORMS, forms, strict=True)))


def sweep():
    return sweep_forms(FORMS, seeds=(0,))


def pictures(runs):
    from experiments.claims.detection import draw_times

    return {'systems': draw_times(runs, lambda config: config['overrides']['form'], FORMS, 'scenes of digits')}
