"""Learning tasks of the literature, one file each: the `Task`, its evaluators and its figures, built from arguments."""
