"""What discriminators see instead of pictures, so that few of them do not suffice to learn by heart: ADA, DiffAugment.

Functions of (pictures, strength, a key an example): differentiable, and the same whatever the batch or the device.
"""

from flaxgen.gan.augment.diff import POLICIES, diff_augment
from flaxgen.gan.augment.pipe import PIPES, Augment, Pipe, make_augment

__all__ = ["PIPES", "POLICIES", "Augment", "Pipe", "diff_augment", "make_augment"]
