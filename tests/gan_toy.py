"""Tiny generators of three kinds with weights drawn by chance, far enough from zero to draw pictures that differ."""

import jax
import numpy as np

from flaxgen import parallel
from flaxgen.data import Data
from flaxgen.nets import dcgan, gan_mlp, stylegan2, stylegan2_discriminator
from flaxgen.zoo import gan

STYLE = {"image_size": 8, "channels": 3, "mapping_depth": 2, "channel_base": 64, "channel_max": 8}
CONFIGS = {
    name: gan.Config(seed=0, steps=1, batch_size=8, data=data, generator=generator, discriminator=discriminator,
                     sampling=gan.Sampling(batch=16))
    for name, data, generator, discriminator in [
        ("style", Data("folder", image_size=8), stylegan2.Generator(latent_dim=6, style_dim=6, **STYLE),
         stylegan2_discriminator.Discriminator(**STYLE, group=4)),
        ("dcgan", Data("folder", image_size=16), dcgan.Generator(image_size=16, latent_dim=6, width=4),
         dcgan.Discriminator(image_size=16, width=4)),
        ("mlp", Data("digits", image_size=8, channels=1),
         gan_mlp.Generator(shape=(8, 8, 1), latent_dim=6, num_classes=3, width=16, depth=2, bounded=True),
         gan_mlp.Discriminator(shape=(8, 8, 1), num_classes=3, width=16, depth=2)),
        ("points", Data("eight_gaussians"), gan_mlp.Generator(width=8, depth=1),
         gan_mlp.Discriminator(width=8, depth=1)),
    ]
}  # fmt: skip


def make_model(name: str, plan: parallel.Plan) -> gan.Model:
    """The generator of that kind; that of StyleGAN2 adds noise and has a mean w."""
    config = CONFIGS[name]
    params = jax.jit(lambda: gan.FAMILY.init_params(config, jax.random.key(0)))()
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: np.asarray(x + 0.2 * rng.normal(size=x.shape), np.float32), params)
    return gan.FAMILY.trained(config, params, 3, plan)
