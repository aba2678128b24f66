"""Learnt parts of trackers: an embedding of appearance, and an affinity of tracks and detections."""

from canon.tasks.tracking.affinity import (
    AffinitySettings,
    LinkEvaluation,
    affinity_task,
    count_links,
    learnt_affinity,
    link_evaluator,
    score_links,
)
from canon.tasks.tracking.association_pairs import (
    FollowedSequence,
    PairBatches,
    PairSettings,
    follow_objects,
    make_pair,
    name_detections,
)
from canon.tasks.tracking.embedding import (
    Embedder,
    EmbeddingLoss,
    RetrievalEvaluation,
    add_embeddings,
    embedding_task,
    make_embedder,
    retrieval_evaluator,
)

__all__ = [
    'AffinitySettings', 'Embedder', 'EmbeddingLoss', 'FollowedSequence', 'LinkEvaluation', 'PairBatches',
    'PairSettings', 'RetrievalEvaluation', 'add_embeddings', 'affinity_task', 'count_links', 'embedding_task',
    'follow_objects', 'learnt_affinity', 'link_evaluator', 'make_embedder', 'make_pair', 'name_detections',
    'retrieval_evaluator', 'score_links',
]  # fmt: skip
