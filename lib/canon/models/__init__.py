"""One file = one system of the literature. A config names one: `model.name='lenet.lenet5'`."""

from canon.named import call, lookup


def make(name: str, where: str = 'model', **arguments):
    """The linen module that `canon.models.<name>(**arguments)` builds; raises UsageError with the near names."""
    return call(lookup('canon.models', name, 'model'), arguments, where)
