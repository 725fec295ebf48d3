"""What VQGAN is trained by, beside torch: the patch discriminator, and LPIPS on VGG16's layers."""

import jax
import numpy as np
import pytest

from flaxgen.nets.lpips import SCALE, SHIFT, WIDTHS, Lpips
from flaxgen.nets.patchgan import PatchDiscriminator
from flaxgen.weights import store
from flaxgen.weights.lpips import import_lpips

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity
NARROW = tuple(tuple(width // 16 for width in group) for group in WIDTHS)


def channels_first(x):
    return torch.from_numpy(np.array(x).transpose(0, 3, 1, 2))


def patch_discriminator(width):
    """As in taming/modules/discriminator/model.py, layer by layer."""
    layers, before = [], 3
    for i, features in enumerate((width, 2 * width, 4 * width, 8 * width, 1)):
        layers.append(torch.nn.Conv2d(before, features, 4, 2 if i < 3 else 1, 1, bias=i in (0, 4)))
        layers += [torch.nn.BatchNorm2d(features)] if 0 < i < 4 else []
        layers += [torch.nn.LeakyReLU(0.2)] if i < 4 else []
        before = features
    return torch.nn.Sequential(*layers)


def test_patch_discriminator():
    """Logits of a batch in training, their gradient by the pictures, and logits at rest."""
    assert sum(value.numel() for value in patch_discriminator(64).parameters()) == 2_765_633
    torch.manual_seed(0)
    model = patch_discriminator(8)
    convolutions = [layer for layer in model if isinstance(layer, torch.nn.Conv2d)]
    norms = [layer for layer in model if isinstance(layer, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn_like(value))
    params = {f"kernel_{i}": c.weight.detach().numpy().transpose(2, 3, 1, 0) for i, c in enumerate(convolutions)}
    params |= {f"bias_{i}": convolutions[i].bias.detach().numpy() for i in (0, 4)}
    for i, norm in enumerate(norms, start=1):
        params[f"norm_{i}"] = {"scale": norm.weight.detach().numpy(), "bias": norm.bias.detach().numpy()}
    net = PatchDiscriminator(image_size=32, width=8)
    x = jax.random.uniform(jax.random.key(0), (4, 32, 32, 3), minval=-1)
    start = {f"norm_{i}": {"mean": np.zeros(8 * 2**i, "f4"), "variance": np.ones(8 * 2**i, "f4")} for i in (1, 2, 3)}
    variables = {"params": params, "buffers": start}

    @jax.jit
    def run(variables, x):
        def total(x):
            logits, moved = net.apply(variables, x, train=True, mutable=["buffers"])
            return logits.sum(), (logits, moved)

        (_, (logits, moved)), gradient = jax.value_and_grad(total, has_aux=True)(x)
        return logits, gradient, net.apply(variables, x), moved

    logits, gradient, rest, moved = run(variables, x)
    given = channels_first(x)
    with torch.no_grad():
        at_rest = model.eval()(given)[:, 0].numpy()
    given.requires_grad_()
    theirs = model.train()(given)[:, 0]
    theirs.sum().backward()
    assert np.abs(theirs.detach().numpy() - logits).max() <= 1e-5
    assert np.abs(at_rest - rest).max() <= 1e-5
    assert np.abs(given.grad.numpy().transpose(0, 2, 3, 1) - gradient).max() <= 1e-5
    mean = moved["buffers"]["norm_1"]["mean"]
    np.testing.assert_allclose(norms[0].running_mean.numpy(), mean, atol=1e-6)


def vgg_layers(widths):
    """The layers of torchvision's VGG16, without the last maxima; and which give features."""
    layers, before, taps = [], 3, []
    for group in widths:
        layers += [torch.nn.MaxPool2d(2)] if before != 3 else []
        for width in group:
            layers += [torch.nn.Conv2d(before, width, 3, padding=1), torch.nn.ReLU()]
            before = width
        taps.append(len(layers) - 1)
    return torch.nn.Sequential(*layers), taps


def lpips(layers, taps, heads, x, y):
    """The distance as the package lpips computes it."""
    shift, scale = (torch.tensor(values)[None, :, None, None] for values in (SHIFT, SCALE))
    total, x, y = 0, (x - shift) / scale, (y - shift) / scale
    for i, layer in enumerate(layers):
        x, y = layer(x), layer(y)
        if i in taps:
            units = [h / (torch.sqrt((h**2).sum(1, keepdim=True)) + 1e-10) for h in (x, y)]
            difference = torch.nn.functional.conv2d((units[0] - units[1]) ** 2, heads[taps.index(i)])
            total = total + difference.mean((1, 2, 3))
    return total


def test_lpips(tmp_path):
    """Distances and their gradients, of sizes that maxima do not divide; weights from torchvision's names."""
    torch.manual_seed(0)
    layers, taps = vgg_layers(NARROW)
    heads = [torch.rand(1, group[-1], 1, 1) for group in NARROW]
    tensors = {f"features.{name}": value.numpy() for name, value in layers.state_dict().items()}
    tensors |= {f"lin{i}.model.1.weight": head.numpy() for i, head in enumerate(heads)}
    store.write_file(tmp_path / "lpips.safetensors", tensors)
    net = Lpips(NARROW)
    params = import_lpips(tmp_path / "lpips.safetensors", net)
    x, y = (jax.random.uniform(jax.random.key(i), (2, 37, 32, 3), minval=-1) for i in (0, 1))

    def distances_of(x):
        distances = net.apply({"params": params}, x, y)
        return distances.sum(), distances

    gradient, distances = jax.jit(jax.grad(distances_of, has_aux=True))(x)
    given = channels_first(x).requires_grad_()
    theirs = lpips(layers, taps, heads, given, channels_first(y))
    theirs.sum().backward()
    assert theirs.min() > 1e-2
    assert np.abs(theirs.detach().numpy() - distances).max() <= 1e-5
    assert np.abs(given.grad.numpy().transpose(0, 2, 3, 1) - gradient).max() <= 1e-5
