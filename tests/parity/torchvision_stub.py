"""What torch-fidelity needs of torchvision in order to be imported: the names of modules and of three datasets.

torchvision has no CPU build that imports beside every torch. torch-fidelity looks at it for data sets, VGG and the
preprocessing of CLIP; its Inception and its metrics on features never call it.

    with torchvision_stub.installed():
        from torch_fidelity.metric_fid import fid_statistics_to_metric
"""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType

MODULES = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.models",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)
DATASETS = ("CIFAR10", "STL10", "CIFAR100")


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Empty modules where torchvision would be, unless there is one; gone again afterwards, because transformers and
    diffusers, which may run in the same process, look for torchvision too."""
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    modules = {name: ModuleType(name) for name in MODULES}
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    for name in DATASETS:
        setattr(modules["torchvision.datasets"], name, type(name, (), {}))
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]
