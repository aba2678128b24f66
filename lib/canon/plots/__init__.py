"""Figures from arrays: numpy in, matplotlib `Figure` out, without global state (pyplot is never imported).

Modules load on first use, since matplotlib takes a second to import.
"""

from typing import TYPE_CHECKING

from canon.lazy import load_on_use

# For type checkers and editors, which do not see what `__getattr__` imports.
if TYPE_CHECKING:
    from canon.plots.alignment import draw_alignments
    from canon.plots.animation import Animation
    from canon.plots.annotated import draw_annotated_images
    from canon.plots.assignments import draw_assignment
    from canon.plots.bars import draw_class_accuracy, draw_class_scores, draw_reliability
    from canon.plots.batches import (
        count_classes,
        draw_array_batch,
        draw_image_batch,
        draw_map_batch,
        draw_match_batch,
        draw_object_batch,
        draw_point_batch,
        draw_ray_batch,
        draw_reading_batch,
        draw_sentence_batch,
    )
    from canon.plots.costs import draw_cost_parts, draw_score_by_cost
    from canon.plots.coverage import draw_prior_coverage, draw_recall_by_size
    from canon.plots.detection import draw_detections, draw_errors, draw_precision_recall, overlay_detections
    from canon.plots.domains import draw_domain_features, draw_example_weights, draw_mean_errors, mean_and_error
    from canon.plots.form_scores import draw_form_scores
    from canon.plots.images import draw_confusion_matrix, draw_gallery
    from canon.plots.insides import draw_feature_maps, draw_filters, draw_histograms
    from canon.plots.lexica import draw_lexicon_sizes
    from canon.plots.lines import draw_curves
    from canon.plots.proposals import draw_proposal_recall
    from canon.plots.saving import save_content
    from canon.plots.segmentation import draw_label_maps, make_voc_palette, overlay_label_map
    from canon.plots.shapes import draw_meshes, draw_slices
    from canon.plots.surfaces import Landscape, animate_paths, draw_paths
    from canon.plots.sweeps import best_setting, draw_best, draw_sweep, median_score
    from canon.plots.text import draw_frame_probabilities, draw_surprisal, draw_text_images, draw_translations
    from canon.plots.tracking import TrackVideo, draw_identities, draw_track_scores, make_canvas, render_tracks
    from canon.plots.warps import draw_move_clouds, draw_moving_points, draw_warp_history

__all__ = [
    'Animation', 'Landscape', 'TrackVideo', 'animate_paths', 'best_setting', 'count_classes', 'draw_alignments',
    'draw_annotated_images', 'draw_array_batch', 'draw_assignment', 'draw_best', 'draw_class_accuracy',
    'draw_class_scores', 'draw_confusion_matrix', 'draw_cost_parts', 'draw_curves', 'draw_detections',
    'draw_domain_features', 'draw_errors', 'draw_example_weights', 'draw_feature_maps', 'draw_filters',
    'draw_form_scores', 'draw_frame_probabilities', 'draw_gallery', 'draw_histograms', 'draw_identities',
    'draw_image_batch', 'draw_label_maps', 'draw_lexicon_sizes', 'draw_map_batch', 'draw_match_batch',
    'draw_mean_errors', 'draw_meshes', 'draw_move_clouds', 'draw_moving_points', 'draw_object_batch', 'draw_paths',
    'draw_point_batch', 'draw_precision_recall', 'draw_prior_coverage', 'draw_proposal_recall', 'draw_ray_batch',
    'draw_reading_batch', 'draw_recall_by_size', 'draw_reliability', 'draw_score_by_cost', 'draw_sentence_batch',
    'draw_slices', 'draw_surprisal', 'draw_sweep', 'draw_text_images', 'draw_track_scores', 'draw_translations',
    'draw_warp_history', 'make_canvas', 'make_voc_palette', 'mean_and_error', 'median_score', 'overlay_detections',
    'overlay_label_map', 'render_tracks', 'save_content',
]  # fmt: skip

if not TYPE_CHECKING:  # with a `__getattr__`, type checkers would accept any name
    __getattr__, __dir__ = load_on_use(__name__)
