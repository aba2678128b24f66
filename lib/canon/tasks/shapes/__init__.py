"""Neural shapes: fields whose zero level set is a surface, learned from watertight meshes, points or signed distances.

A `ShapeSystem` is a method of the literature: its task, its batches, and how the field of a new shape is found.

    bodies = shapes.make_bodies(count=64, space='sphere')
    system = deepsdf_system(deepsdf(code=16), num_shapes=64, batch_size=16)
    experiment = Experiment(system.task, optim.adam(1e-3), system.batches(bodies, seed=0))
"""

from canon.tasks.shapes.deepsdf import deepsdf_system, fit_codes
from canon.tasks.shapes.evaluation import ShapeEvaluation, shape_evaluator
from canon.tasks.shapes.igr import igr_system
from canon.tasks.shapes.occupancy import occupancy_system
from canon.tasks.shapes.reconstruction import (
    ExtractionSettings,
    Observation,
    observe_file,
    observe_shape,
    observe_source,
    reconstruct,
    shape_scene,
)
from canon.tasks.shapes.system import SamplePool, ShapeBatches, ShapeSystem

# Methods by the name that a config selects.
SYSTEMS = {'auto_decoder': deepsdf_system, 'eikonal': igr_system, 'occupancy': occupancy_system}

__all__ = [
    'SYSTEMS', 'ExtractionSettings', 'Observation', 'SamplePool', 'ShapeBatches', 'ShapeEvaluation', 'ShapeSystem',
    'deepsdf_system', 'fit_codes', 'igr_system', 'observe_file', 'observe_shape', 'observe_source', 'occupancy_system',
    'reconstruct', 'shape_evaluator', 'shape_scene',
]  # fmt: skip
