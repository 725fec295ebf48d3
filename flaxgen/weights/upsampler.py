"""The folders super_res_first/ and super_res_last/ of a diffusers unCLIP pipeline (Karlo) <-> `UNet(low_res=True)`.

Each is a UNet2DModel of twice the channels going in: the noisy picture's, then the low-resolution one's.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaxgen.nets.unet import UNet
from flaxgen.types import Params
from flaxgen.weights import store
from flaxgen.weights.unet2d import read_unet2d, write_unet2d
from flaxgen.weights.unet2d_config import config_from_unet, unet_from_config


def import_upsampler(folder: str | Path) -> tuple[UNet, dict[str, Any]]:
    """The net and its parameters (numpy, float32) from the folder of a UNet2DModel with 2 C channels in, and C out, or
    2 C with a learned variance.

    Raises:
        ValueError: naming what is not supported, or the tensor that is missing, extra, wrongly shaped or not finite.
        FileNotFoundError: if config.json or the safetensors are not there.
    """
    folder = Path(folder)
    unet = upsampler_from_config(store.read_json(folder / "config.json"))
    return unet, read_unet2d(unet, folder)


def upsampler_from_config(config: Mapping[str, Any]) -> UNet:
    """The UNet that the config of a UNet2DModel describes, taken for an upsampler; ValueError as `import_upsampler`."""
    both, out = config.get("in_channels"), config.get("out_channels")
    if type(both) is not int or both < 2 or both % 2 or out not in (both // 2, both):
        raise ValueError(
            f"config.json: in_channels={both!r} and out_channels={out!r}, expected of an upsampler twice the picture's "
            "channels in, and its channels or twice those out"
        )
    return unet_from_config({**config, "in_channels": both // 2}).clone(low_res=True)


def export_upsampler(unet: UNet, params: Params, folder: str | Path) -> None:
    """Writes a folder that `UNet2DModel.from_pretrained` reads; the inverse of `import_upsampler`, bit for bit.

    Raises:
        ValueError: naming a field that no UNet2DModel has, or a tensor that is not the UNet's.
    """
    if not unet.low_res or unet.out_channels != unet.in_channels:
        raise ValueError(
            f"a UNet with low_res={unet.low_res}, in_channels={unet.in_channels} and out_channels={unet.out_channels} "
            "is no upsampler: not exported"
        )
    config = config_from_unet(unet.clone(low_res=False))
    write_unet2d(unet, params, {**config, "in_channels": 2 * unet.in_channels}, Path(folder))
