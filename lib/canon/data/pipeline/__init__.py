"""From sources of examples to batches by number: sources, order, randomness, batches, reader processes."""
