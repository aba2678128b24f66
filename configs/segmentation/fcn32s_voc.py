"""FCN-32s on VGG-16 (Long et al. 2015; Shelhamer et al. 2017) on the segmentation of SBD and Pascal VOC.

    ./launch.sh run configs/segmentation/fcn32s_voc.py --config.data.source.path=SBD/dataset \\
        --config.data.evals.seg11valid.source.path=VOCdevkit --workdir=runs/segmentation/fcn32s_voc/voc

The weights are torchvision's VGG-16, from the hub (or any file: `run.init_from.path`); fc6 and fc7 become convolutions
as they are read, and the scores start at zero. `seg11valid` is the list of the authors' repository, to be put into
VOC2011/ImageSets/Segmentation. Published: mean IU 63.6 on it. Not run here: neither the data nor the weights are
available. `:smoke`, the narrow network from scratch on scenes of one digit: mean IU 52.7 %, 8 minutes on shared cores.
"""

from configs.segmentation._recipes import paper_smoke, voc


def get_config(arg: str = ''):
    if arg == 'smoke':
        # Larger digits than FCN-8s's: a place of the map is as large as half a digit there.
        config = paper_smoke('fcn.fcn32s', at_least=0.4, size=128, most=1)
        config.loss.balance = 0.5  # exponent of the classes' weights: nineteen of twenty pixels are ground
        return config
    # 1e-10, since the loss is a sum over the pixels of the image. The scores are new: ImageNet's classes are others.
    return voc('fcn.fcn32s', 1e-10, weights='timm/vgg16.tv_in1k', new='^score_fr/')
