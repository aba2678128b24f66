"""FCN-16s on VGG-16 (Long et al. 2015; Shelhamer et al. 2017) on SBD and Pascal VOC, initialised from FCN-32s.

    ./launch.sh run configs/segmentation/fcn16s_voc.py --config.data.source.path=SBD/dataset \\
        --config.data.evals.seg11valid.source.path=VOCdevkit --workdir=runs/segmentation/fcn16s_voc/voc

The scores of pool4 start at zero, so training starts from FCN-32s. Published: mean IU 65.0 on seg11valid. Not run here:
neither the data nor the weights are available. `:smoke`, the narrow network from scratch on scenes of digits:
mean IU 64.3 % in 2:34.
"""

from configs.segmentation._recipes import paper_smoke, voc


def get_config(arg: str = ''):
    if arg == 'smoke':
        # Larger digits than FCN-8s's: a place of the map is as large as half a digit there.
        config = paper_smoke('fcn.fcn16s', at_least=0.4, size=96, most=1)
        config.loss.balance = 0.5  # exponent of the classes' weights: nineteen of twenty pixels are ground
        return config
    # A hundredth of FCN-32s's rate: all but the new scores of pool4 has been trained.
    return voc('fcn.fcn16s', 1e-12, weights='runs/segmentation/fcn32s_voc/voc', new='^score_pool4/')
