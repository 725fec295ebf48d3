"""StyleGAN2 in torch from the formulas, on the tensors of NVlabs' state_dicts by their names, of any dtype.

Plain eager operations: one kernel for the whole batch, whose pictures the styles scale before and after, and filters as
convolutions in a group a channel, which is what NVlabs' reference operations train with.
"""

import math

import numpy as np
import torch

F = torch.nn.functional
TAPS = torch.outer(*[torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)] * 2) / 64
HALF = math.sqrt(0.5)


def fir(x, padding, gain=1.0, stride=1):
    """Every channel through the filter; `padding` is left, right, above, below."""
    kernel = (gain * TAPS).to(x).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(x, padding), kernel, stride=stride, groups=x.shape[1])


def double(x):
    wide = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    wide[:, :, ::2, ::2] = x
    return fir(wide, (2, 1, 2, 1), 4)


def lrelu(x, gain=1.0, clamp=None):
    y = F.leaky_relu(x, 0.2) * (math.sqrt(2) * gain)
    return y if clamp is None else y.clamp(-clamp * gain, clamp * gain)


def dense(t, name, x, rate=1.0):
    return F.linear(x, t[f"{name}.weight"] * (rate / math.sqrt(x.shape[1])), t[f"{name}.bias"] * rate)


def normalised(x):
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def sizes(t, prefix):
    """Pixels a side of the blocks, from 4."""
    found = {name.removeprefix(prefix).split(".")[0] for name in t if name.startswith(f"{prefix}b")}
    return sorted(int(block[1:]) for block in found)


def mapping(t, z, label):
    """The style of latents, labels or both; the other is None."""
    h = [] if z is None else [normalised(z)]
    if label is not None:
        row = F.one_hot(label, t["mapping.embed.weight"].shape[1]).to(t["mapping.embed.weight"])
        h.append(normalised(dense(t, "mapping.embed", row)))
    h, depth = torch.cat(h, 1), 0
    while f"mapping.fc{depth}.weight" in t:
        h, depth = lrelu(dense(t, f"mapping.fc{depth}", h, 0.01)), depth + 1
    return h


def modulated(t, name, x, w, *, up=False, demodulate=True):
    kernel, styles = t[f"{name}.weight"], dense(t, f"{name}.affine", w)
    if not demodulate:
        styles = styles / math.sqrt(kernel[0].numel())
    x = x * styles[:, :, None, None]
    if up:
        y = fir(F.conv_transpose2d(x, kernel.transpose(0, 1), stride=2), (1, 1, 1, 1), gain=4)
    else:
        y = F.conv2d(x, kernel, padding=kernel.shape[-1] // 2)
    if not demodulate:
        return y
    norms = styles.square() @ kernel.square().sum((2, 3)).T
    return y * (norms + 1e-8).rsqrt()[:, :, None, None]


def styled(t, name, x, w, noise, *, gain=1.0, up=False):
    """With `noise` "const" that of the state_dict, with "random" fresh one."""
    y = modulated(t, name, x, w, up=up)
    drawn = t[f"{name}.noise_const"] if noise == "const" else torch.randn_like(y[:, :1])
    return lrelu(y + drawn * t[f"{name}.noise_strength"] + t[f"{name}.bias"][:, None, None], gain, 256)


def synthesis(t, ws, architecture, noise="const"):
    """Pictures [B C H W] of styles [B L D]."""
    image, blocks = None, sizes(t, "synthesis.")
    for i, size in enumerate(blocks):
        block, layer = f"synthesis.b{size}", max(0, 2 * i - 1)
        if i == 0:
            x = t[f"{block}.const"].expand(len(ws), -1, -1, -1)
            x = styled(t, f"{block}.conv1", x, ws[:, 0], noise)
        else:
            y = styled(t, f"{block}.conv0", x, ws[:, layer], noise, up=True)
            layer += 1
            if architecture == "resnet":
                kernel = t[f"{block}.skip.weight"]
                skip = HALF * double(F.conv2d(x, kernel / math.sqrt(kernel.shape[1])))
                x = skip + styled(t, f"{block}.conv1", y, ws[:, layer], noise, gain=HALF)
            else:
                x = styled(t, f"{block}.conv1", y, ws[:, layer], noise)
        image = None if image is None else double(image)
        if architecture == "skip" or size == blocks[-1]:
            y = modulated(t, f"{block}.torgb", x, ws[:, layer + 1], demodulate=False)
            y = (y + t[f"{block}.torgb.bias"][:, None, None]).clamp(-256, 256)
            image = y if image is None else image + y
    return image


def conv(t, name, x, gain=1.0, down=False, clamp=256):
    kernel = t[f"{name}.weight"]
    kernel = kernel / math.sqrt(kernel[0].numel())
    wide, stride, padding = (fir(x, (2, 2, 2, 2)), 2, 0) if down else (x, 1, kernel.shape[-1] // 2)
    y = F.conv2d(wide, kernel, stride=stride, padding=padding)
    return lrelu(y + t[f"{name}.bias"][:, None, None], gain, clamp)


def deviation(x, group):
    groups = x.reshape(min(group, len(x)), -1, *x.shape[1:])
    value = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    return value.repeat(len(groups))[:, None, None, None].expand(-1, -1, 4, 4)


def discriminate(t, image, label, architecture, group):
    """Logits [B] of pictures [B C H W]."""
    x = None
    for size in sizes(t, "")[:0:-1]:
        block = f"b{size}"
        if architecture == "skip" or x is None:
            y = conv(t, f"{block}.fromrgb", image)
            x = y if x is None else x + y
            image = fir(image, (1, 1, 1, 1), stride=2) if architecture == "skip" else None
        if architecture == "resnet":
            kernel = t[f"{block}.skip.weight"]
            skip = HALF * F.conv2d(fir(x, (1, 1, 1, 1), stride=2), kernel / math.sqrt(kernel.shape[1]))
            x = skip + conv(t, f"{block}.conv1", conv(t, f"{block}.conv0", x), HALF, down=True)
        else:
            x = conv(t, f"{block}.conv1", conv(t, f"{block}.conv0", x), down=True)
    if architecture == "skip":
        x = x + conv(t, "b4.fromrgb", image, clamp=None)
    x = conv(t, "b4.conv", torch.cat((x, deviation(x, group)), 1))
    out = dense(t, "b4.out", lrelu(dense(t, "b4.fc", x.flatten(1))))
    return out[:, 0] if label is None else (out * mapping(t, None, label)).sum(1) / math.sqrt(out.shape[1])


def tensors(arrays, dtype):
    """Of a state_dict of NumPy arrays, the tensors, which take gradients."""
    return {name: torch.from_numpy(np.array(value)).to(dtype).requires_grad_() for name, value in arrays.items()}
