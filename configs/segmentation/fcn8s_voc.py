"""FCN-8s on VGG-16 (Long et al. 2015; Shelhamer et al. 2017) on SBD and Pascal VOC, initialised from FCN-16s.

    ./launch.sh run configs/segmentation/fcn8s_voc.py --config.data.source.path=SBD/dataset \\
        --config.data.evals.seg11valid.source.path=VOCdevkit --workdir=runs/segmentation/fcn8s_voc/voc

The scores of pool3 start at zero, so training starts from FCN-16s. `:at_once` trains all skips together from the
classifier, with scaled maps, for 300,000 steps. Published: mean IU 65.5 on seg11valid, 65.4 at once. Not run here:
neither the data nor the weights are available. `:smoke`, the narrow network from scratch on scenes of digits:
mean IU 58.4 % in 2:28.
"""

from configs.segmentation._recipes import paper_smoke, voc

ARGUMENTS = ('smoke', 'at_once')


def get_config(arg: str = ''):
    if arg == 'smoke':
        return paper_smoke('fcn.fcn8s', at_least=0.4)
    if arg == 'at_once':
        # The rate of FCN-32s: all scores are new. at_once scales the maps of pool4 and pool3 down (section 4.3).
        config = voc('fcn.fcn8s', 1e-10, weights='timm/vgg16.tv_in1k', new='^score_')
        config.model.at_once, config.run.steps = True, '300000 steps'
        return config
    # A hundredth of FCN-16s's rate, which is a hundredth of FCN-32s's.
    return voc('fcn.fcn8s', 1e-14, weights='runs/segmentation/fcn16s_voc/voc', new='^score_pool3/')
