"""The smallest UNet of 8 px, for tests that need some model of pictures: what equals is compiled once for all."""

from flaxgen.nets.unet import UNet

GREY = {"in_channels": 1, "out_channels": 1}


def unet(**fields) -> UNet:
    """Without a middle, which `nets/test_net_unet.py` tests: it would be half of all there is to compile."""
    return UNet(
        image_size=8, channels=8, multipliers=(1,), depth=1, attention=(), norm_groups=4, middle="none",
        **fields,
    )  # fmt: skip
