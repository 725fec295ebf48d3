"""UNets of published shapes that several experiments begin from."""

from flaxgen.nets.attention import SpatialTransformer
from flaxgen.nets.unet import UNet

_HEADS = SpatialTransformer(heads=8)
_WIDE, _DEEP = SpatialTransformer(heads=10, depth=2, linear=True), SpatialTransformer(heads=20, depth=10, linear=True)
STABLE_DIFFUSION_1 = UNet(
    image_size=64,
    in_channels=4,
    out_channels=4,
    channels=320,
    multipliers=(1, 2, 4, 4),
    depth=2,
    attention=(_HEADS, _HEADS, _HEADS, None),
    middle=_HEADS,
    token_dim=768,
    downsample_padding=(1, 1),
    time_order="cos_sin",
    time_shift=0,
    norm_eps=1e-5,
)
"""That of versions 1.1 to 1.5, of 859,520,964 parameters, which reads the states of CLIP's text tower [Rombach22]."""
STABLE_DIFFUSION_XL = STABLE_DIFFUSION_1.clone(
    image_size=128,
    multipliers=(1, 2, 4),
    attention=(None, _WIDE, _DEEP),
    middle=_DEEP,
    token_dim=2048,
    vector_dim=1280 + 6 * 256,
)
"""That of XL's base, of 2,567,463,684 parameters, which reads two text towers, an embedding and sizes [Podell23]."""
