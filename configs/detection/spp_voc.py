"""SPP-net (He et al. 2014) on Pascal VOC 2007: ZF-5 with a pyramid of 50 cells, five scales.

    ./launch.sh run configs/detection/spp_voc.py --config.data.source.path=VOCdevkit --config.run.init_from.path=RUN

Section 4.1 of the paper: only the layers after the pyramid are fine-tuned, at 1e-4 for 250,000 updates and 1e-5 for
50,000, on regions of which a quarter have an IoU of 0.5 or more with an object and the others of 0.1 to 0.5. Features
of all 2,000 regions come from the maps at shorter sides of 480, 576, 688, 864 and 1200 pixels (the authors' code has
874 for 864), each region from the scale at which it is nearest to 224x224 pixels. RUN is an `spp_net.spp_net` that was
trained on ImageNet; no config here trains one. The paper reports a mAP of 59.2 %.

What differs: an update has two images with 64 regions each, at a shorter side of 688 pixels and not mirrored, where the
authors draw 128 regions from anywhere, at a random scale; the ridge is 1,000, where the code has 4,000. Not run here:
neither VOC nor ImageNet is available. `:smoke` is the recipe on scenes of digits with the network of
`spp_digits.py`, and a classifier of regions that stands for ImageNet's.
"""

from configs.detection._region_recipes import follow_spp_net, list_spp_voc_stages, shrink_voc, small_network, voc


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    model = dict(
        name='spp_net.spp_net',
        num_classes=21,  # with the background
        backbone=dict(name='zfnet.zfnet', detection=True),
        bins=(6, 3, 2, 1),
        stride=16,
        units=(4096, 4096),
        dropout=0.5,
    )
    # Crops are not used: the layers after the pyramid learn from whole images.
    crop = dict(size=224, context=0, form='square')
    scales = dict(
        sides=(480, 576, 688, 864, 1200),
        longest=2000,
        region=224.0,
        multiple=64,  # of which the sides of padded images are
        aspects=(1.0, 4 / 3, 3 / 2, 2.0),  # of padded images: 43 sizes, for each of which a program is compiled
    )
    # Shorter side and canvas in pixels; a small form has no weights of ImageNet to start from.
    stages = list_spp_voc_stages(*((96, 96) if smoke else (688, 1184)), classifier=smoke)
    config = follow_spp_net(voc(model, crop, stages, at_least=0.592, scales=scales))
    config.regions.background_low = 0.1  # least IoU of a negative
    config.boxes.min_iou = 0.5
    config.run.steps, config.run.init_from.rules = 300_000, ()
    config.tx.momentum.learning_rate = dict(name='step_decay', init=1e-4, steps=(250_000,))
    config.tx.scale_rates.rules = ((r'^logits/bias$', 2.0), ('.*', 1.0))
    with config.unlocked():
        # The maps have no gradient, but would decay.
        config.tx.chain, config.tx.freeze = (*config.tx.chain, 'freeze'), dict(where='^backbone/')
    if smoke:
        model = small_network('spp_net.spp_net', stride=8, bins=(4, 2, 1))
        scales = dict(sides=(96, 192), longest=256, region=64.0, multiple=32)
        return shrink_voc(config, model, 0.3, scales=scales, crop=dict(size=64, context=0, form='square'))
    return config
