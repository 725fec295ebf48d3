"""StyleGAN2 beside a net written in torch from the formulas, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxgen.nets.stylegan2 import Generator
from flaxgen.nets.stylegan2_discriminator import Discriminator
from flaxgen.weights import store, stylegan2
from flaxgen.weights.rules import from_params

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("benchmarks.torch_stylegan2")
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::UserWarning:torch")]

SMALL = {"channels": 3, "num_classes": 3, "mapping_depth": 2, "channel_base": 96, "channel_max": 12}
LABEL = np.array([0, 2, 1, 1])


def random_variables(net):
    """None where it starts, and mapping weights of the deviation that their rate asks for."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        scale = 100 if path[-2].key.startswith("dense_") and path[-1].key == "kernel" else 1
        scale = scale if path[-1].key != "bias" else 0.3
        return jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, stylegan2.abstract_variables(net))


def as_torch(path):
    return theirs.tensors(store.read_file(path), torch.float64)


def assert_gradients_are(rules, ours, t):
    """Every parameter's, relative to the largest entry of its tensor."""
    found = from_params(rules, store.flatten(ours))
    for name, value in found.items():
        expected = t[name].grad
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

    ws = theirs.mapping(t, torch.from_numpy(z), torch.from_numpy(LABEL))[:, None].repeat(1, net.num_layers, 1)
    images = theirs.synthesis(t, ws, architecture)
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
    """Logits, and the gradient of R1.

    Groups of four: the deviation of two examples is half their distance, whose second derivative is nought but where
    they all but meet, and there rounding decides it.
    """
    net, label = Discriminator(16, architecture=architecture, group=4, **SMALL), np.tile(LABEL, 2)
    variables = random_variables(net)
    stylegan2.export_discriminator(net, variables, tmp_path / "d.safetensors")
    t, x = as_torch(tmp_path / "d.safetensors"), np.random.default_rng(1).normal(size=(8, 16, 16, 3))

    image = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    logits = theirs.discriminate(t, image, torch.from_numpy(label), architecture, 4)
    (along,) = torch.autograd.grad(logits.sum(), image, create_graph=True)
    along.square().sum().backward()

    @jax.jit
    def run(params, x):
        def penalty(params):
            def total(x):
                logits = net.apply({"params": params}, x, jnp.asarray(label))
                return jnp.asarray(logits).sum(), logits

            along, logits = jax.grad(total, has_aux=True)(x)
            return jnp.square(along).sum(), logits

        return jax.grad(penalty, has_aux=True)(params)

    gradients, found = run(variables["params"], jnp.asarray(x, jnp.float32))
    expected = logits.detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert_gradients_are(stylegan2.DISCRIMINATOR, {"params": gradients}, t)


@pytest.mark.parametrize("up", [False, True])
def test_their_modulation_is_a_kernel_an_example(up):
    """[Karras20, eq. 1-3] to the letter."""
    F, rng = torch.nn.functional, np.random.default_rng(0)
    shapes = {"c.weight": (5, 3, 3, 3), "c.affine.weight": (3, 4), "c.affine.bias": (3,)}
    t = theirs.tensors({name: rng.normal(size=shape) for name, shape in shapes.items()}, torch.float64)
    x, w = (torch.from_numpy(rng.normal(size=shape)) for shape in ((2, 3, 8, 8), (2, 4)))
    for i in range(2):
        kernel = t["c.weight"] * (w[i] @ t["c.affine.weight"].T / 2 + t["c.affine.bias"])[:, None, None]
        kernel = kernel / (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            expected = theirs.fir(F.conv_transpose2d(x[i : i + 1], kernel.transpose(0, 1), stride=2), (1, 1, 1, 1), 4)
        else:
            expected = F.conv2d(x[i : i + 1], kernel, padding=1)
        torch.testing.assert_close(theirs.modulated(t, "c", x, w, up=up)[i], expected[0])
