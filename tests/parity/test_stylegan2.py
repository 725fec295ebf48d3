"""StyleGAN2 beside a net written in torch from the formulas: a kernel an example, transposed convolutions, float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.stylegan2 import Generator
from flaxgen.nets.stylegan2_discriminator import Discriminator
from flaxgen.weights import store, stylegan2
from flaxgen.weights.rules import from_params

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::UserWarning:torch")]

SMALL = {"channels": 3, "num_classes": 3, "mapping_depth": 2, "channel_base": 96, "channel_max": 12}
LABEL = np.array([0, 2, 1, 1])
TAPS = torch.outer(*[torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)] * 2) / 64


def fir(x, padding, gain=1.0, stride=1):
    """Every channel through the filter; `padding` is left, right, above, below."""
    kernel = (gain * TAPS).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(x, padding), kernel, stride=stride, groups=x.shape[1])


def zeros_between(x):
    wide = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    wide[:, :, ::2, ::2] = x
    return wide


def lrelu(x, gain=1.0, clamp=None):
    y = F.leaky_relu(x, 0.2) * np.sqrt(2) * gain
    return y if clamp is None else y.clamp(-clamp * gain, clamp * gain)


def dense(t, name, x, rate=1.0):
    return F.linear(x, t[f"{name}.weight"] * rate / np.sqrt(x.shape[1]), t[f"{name}.bias"] * rate)


def normalised(x):
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def mapping(t, z, classes):
    row = normalised(dense(t, "mapping.embed", F.one_hot(torch.from_numpy(LABEL), classes).double()))
    h = row if z is None else torch.cat((normalised(z), row), 1)
    for i in range(2):
        h = lrelu(dense(t, f"mapping.fc{i}", h, 0.01))
    return h


def modulated(t, name, x, w, *, up=False, demodulate=True):
    kernel = t[f"{name}.weight"]
    styles = dense(t, f"{name}.affine", w)
    kernels = kernel * styles[:, None, :, None, None]
    if demodulate:
        kernels = kernels / (kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    else:
        kernels = kernels / np.sqrt(kernel[0].numel())
    pictures = []
    for picture, k in zip(x, kernels, strict=True):
        if up:
            y = F.conv_transpose2d(picture[None], k.transpose(0, 1), stride=2)
            pictures.append(fir(y, (1, 1, 1, 1), gain=4))
        else:
            pictures.append(F.conv2d(picture[None], k, padding=k.shape[-1] // 2))
    return torch.cat(pictures)


def styled(t, name, x, w, gain=1.0, up=False):
    y = modulated(t, name, x, w, up=up) + t[f"{name}.noise_const"] * t[f"{name}.noise_strength"]
    return lrelu(y + t[f"{name}.bias"][:, None, None], gain, 256)


def synthesis(t, ws, sizes, architecture):
    image = None
    half = np.sqrt(0.5)
    for i, size in enumerate(sizes):
        block, layer = f"synthesis.b{size}", max(0, 2 * i - 1)
        if i == 0:
            x = t[f"{block}.const"].expand(len(ws), -1, -1, -1)
            x = styled(t, f"{block}.conv1", x, ws[:, 0])
        else:
            y = styled(t, f"{block}.conv0", x, ws[:, layer], up=True)
            layer += 1
            if architecture == "resnet":
                kernel = t[f"{block}.skip.weight"]
                skip = half * F.conv2d(fir(zeros_between(x), (2, 1, 2, 1), 4), kernel / np.sqrt(kernel.shape[1]))
                x = skip + styled(t, f"{block}.conv1", y, ws[:, layer], half)
            else:
                x = styled(t, f"{block}.conv1", y, ws[:, layer])
        image = None if image is None else fir(zeros_between(image), (2, 1, 2, 1), 4)
        if architecture == "skip" or size == sizes[-1]:
            y = modulated(t, f"{block}.torgb", x, ws[:, layer + 1], demodulate=False)
            y = (y + t[f"{block}.torgb.bias"][:, None, None]).clamp(-256, 256)
            image = y if image is None else image + y
    return image


def conv(t, name, x, gain=1.0, down=False, clamp=256):
    kernel = t[f"{name}.weight"]
    kernel = kernel / np.sqrt(kernel[0].numel())
    wide, stride, padding = (fir(x, (2, 2, 2, 2)), 2, 0) if down else (x, 1, kernel.shape[-1] // 2)
    y = F.conv2d(wide, kernel, stride=stride, padding=padding)
    return lrelu(y + t[f"{name}.bias"][:, None, None], gain, clamp)


def deviation(x, group):
    groups = x.reshape(group, -1, *x.shape[1:])
    value = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    return value.repeat(group)[:, None, None, None].expand(-1, -1, 4, 4)


def discriminate(t, image, sizes, architecture, classes):
    x, half = None, np.sqrt(0.5)
    for size in sizes[:0:-1]:
        block = f"b{size}"
        if architecture == "skip" or x is None:
            y = conv(t, f"{block}.fromrgb", image)
            x = y if x is None else x + y
            image = fir(image, (1, 1, 1, 1), stride=2)
        if architecture == "resnet":
            kernel = t[f"{block}.skip.weight"]
            skip = half * F.conv2d(fir(x, (1, 1, 1, 1), stride=2), kernel / np.sqrt(kernel.shape[1]))
            x = skip + conv(t, f"{block}.conv1", conv(t, f"{block}.conv0", x), half, down=True)
        else:
            x = conv(t, f"{block}.conv1", conv(t, f"{block}.conv0", x), down=True)
    if architecture == "skip":
        x = x + conv(t, "b4.fromrgb", image, clamp=None)
    x = conv(t, "b4.conv", torch.cat((x, deviation(x, 2)), 1))
    out = dense(t, "b4.out", lrelu(dense(t, "b4.fc", x.flatten(1))))
    return (out * mapping(t, None, classes)).sum(1) / np.sqrt(out.shape[1])


def random_variables(net):
    """None where it starts, and mapping weights of the deviation that their rate asks for."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        scale = 100 if path[-2].key.startswith("dense_") and path[-1].key == "kernel" else 1
        scale = scale if path[-1].key != "bias" else 0.3
        return jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, stylegan2.abstract_variables(net))


def as_torch(path):
    tensors = store.read_file(path)
    return {name: torch.from_numpy(np.array(value)).double().requires_grad_() for name, value in tensors.items()}


def assert_gradients_are(rules, ours, theirs):
    """Every parameter's, relative to the largest entry of its tensor."""
    found = from_params(rules, store.flatten(ours))
    for name, value in found.items():
        expected = theirs[name].grad
        expected = np.zeros(value.shape) if expected is None else expected.numpy()
        np.testing.assert_allclose(value, expected, atol=1e-4 * max(np.abs(expected).max(), 1e-3), err_msg=name)


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
def test_generator(architecture, tmp_path):
    """Pictures, and the gradient of the squared length of a gradient along the path, as path lengths are trained."""
    net = Generator(16, latent_dim=7, style_dim=6, architecture=architecture, **SMALL)
    variables = random_variables(net)
    stylegan2.export_generator(net, variables, tmp_path / "g.safetensors")
    t, rng = as_torch(tmp_path / "g.safetensors"), np.random.default_rng(1)
    z, y = rng.normal(size=(4, 7)), rng.normal(size=(4, 16, 16, 3))

    ws = mapping(t, torch.from_numpy(z), 3)[:, None].repeat(1, net.num_layers, 1)
    images = synthesis(t, ws, (4, 8, 16), architecture)
    direction = torch.from_numpy(y.transpose(0, 3, 1, 2))
    (along,) = torch.autograd.grad((images * direction).sum(), ws, create_graph=True)
    along.square().sum().backward()

    @jax.jit
    def run(params, z, y):
        def length(params):
            given = {**variables, "params": params}
            w = jnp.asarray(net.apply(given, z, jnp.asarray(LABEL), method="map"))
            images, back = jax.vjp(lambda w: net.apply(given, w, method="synthesize"), w)
            return jnp.square(back(y)[0]).sum(), images

        return jax.grad(length, has_aux=True)(params)

    gradients, found = run(variables["params"], jnp.asarray(z, jnp.float32), jnp.asarray(y, jnp.float32))
    expected = images.detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert_gradients_are(stylegan2.GENERATOR, {"params": gradients}, t)


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
def test_discriminator(architecture, tmp_path):
    """Logits, and the gradient of R1."""
    net = Discriminator(16, architecture=architecture, group=2, **SMALL)
    variables = random_variables(net)
    stylegan2.export_discriminator(net, variables, tmp_path / "d.safetensors")
    t, x = as_torch(tmp_path / "d.safetensors"), np.random.default_rng(1).normal(size=(4, 16, 16, 3))

    image = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    logits = discriminate(t, image, (4, 8, 16), architecture, 3)
    (along,) = torch.autograd.grad(logits.sum(), image, create_graph=True)
    along.square().sum().backward()

    @jax.jit
    def run(params, x):
        def penalty(params):
            def total(x):
                logits = net.apply({"params": params}, x, jnp.asarray(LABEL))
                return jnp.asarray(logits).sum(), logits

            along, logits = jax.grad(total, has_aux=True)(x)
            return jnp.square(along).sum(), logits

        return jax.grad(penalty, has_aux=True)(params)

    gradients, found = run(variables["params"], jnp.asarray(x, jnp.float32))
    expected = logits.detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert_gradients_are(stylegan2.DISCRIMINATOR, {"params": gradients}, t)
