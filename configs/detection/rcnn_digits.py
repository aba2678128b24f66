"""R-CNN (Girshick et al. 2014) on scenes of handwritten digits, all of its stages: nothing to download.

    ./launch.sh run configs/detection/rcnn_digits.py

Selective search, fine-tuning on warped regions, features in files, one linear SVM per class with hard negatives, ridge
regression of boxes, detections. The network is a narrow VGG-11 from scratch on regions of 32 pixels, of which 4 on each
side are context: the paper's share, 16 of 227, would be 2.

Measured on 2 CPU cores: `:smoke` reaches mAP 0.733 with SVMs and regressed boxes, as much without the regression, and
with the network's softmax, in 1:22. The full recipe has not been run.
"""

from configs.detection._region_recipes import RCNN_STAGES, digits, small_network


def get_config(arg: str = ''):
    model = small_network('rcnn.rcnn', stage='conv4')  # a map of 4x4 at stride 8
    crop = dict(
        size=32,
        context=4,  # pixels of the crop on each side
        form='warp',  # 'square' keeps the aspect: crop with context
    )
    if arg == 'smoke':
        small = dict(height=96, width=96, sizes=(14, 48), most=4, clutter=3)  # fewer and larger digits
        return digits(model, crop, RCNN_STAGES, 300, 0.5, num_examples=256, test=96, source=small)
    return digits(model, crop, RCNN_STAGES, 3000, 0.8)
