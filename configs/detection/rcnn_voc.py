"""R-CNN (Girshick et al. 2014) on Pascal VOC 2007, as in the paper: AlexNet on regions warped to 227x227.

    ./launch.sh run configs/detection/rcnn_voc.py --config.data.source.path=VOCdevkit \\
        --config.run.init_from.path=runs/classification/alexnet/default

Selective search of images of 500 pixels' width; fine-tuning with 32 positives and 96 negatives per batch at a rate of
0.001, a tenth of pre-training's; features in files (30 GB per layer of 4,096 units and thousand images of 2,000
regions); SVMs, ridge regression from pool5, non-maximum suppression at 0.3. It starts from the weights of an AlexNet
that `configs/classification/alexnet.py` has trained on ImageNet. The paper reports a mAP of 58.5 %, 54.2 % without
the regression of boxes. Not run here: neither VOC nor ImageNet is available. `:smoke` is the recipe on scenes of digits
with the network of `rcnn_digits.py`.
"""

from configs.detection._region_recipes import RCNN_STAGES, shrink_voc, small_network, voc


def get_config(arg: str = ''):
    model = dict(
        name='rcnn.rcnn',
        num_classes=21,  # with the background
        backbone=dict(name='alexnet.alexnet'),
        stage='pool5',
        units=(4096, 4096),
        dropout=0.5,
    )
    crop = dict(size=227, context=16, form='warp')
    config = voc(model, crop, RCNN_STAGES, at_least=0.585)
    if arg == 'smoke':
        return shrink_voc(config, small_network('rcnn.rcnn', stage='conv4'), 0.4, crop=dict(size=32, context=4))
    return config
