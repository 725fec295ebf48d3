"""The 64 px decoder of DALL-E 2 [Ramesh22, table 3], which is GLIDE's net told a CLIP image embedding [Nichol21b].

    flaxgen train experiments/unclip/decoder.py --workdir runs/decoder --parallel mesh --mesh data=8,fsdp=32 \
        --set data.path='SHARDS/*.tar' clip=runs/clip cache=EMBEDDINGS

Meant for 256 TPU v4 or A100; not run here. `cache` is the one of prior.py.

The 3.5B are 2.3B of U-Net and 1.2B of text transformer, which is trained with it. What differs: the text transformer is
causal; it has the published 256 places, but a caption is the 77 tokens of CLIP's tokenizer; and of the embeddings added
to the time's, the caption's is CLIP's. The guidance is that of the published FID (table 2).
"""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.attention import TokenAttention
from flaxgen.nets.clip import TextTower
from flaxgen.nets.decoder import Decoder
from flaxgen.nets.unet import UNet
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.decoder import Config

PUBLISHED = 3_500_000_000
"""Parameters [Ramesh22, table 3]."""


def get_config() -> Config:
    return Config(
        seed=0,
        steps=800_000,
        batch_size=2048,
        log_every=100,
        preview_every=0,
        checkpoint_every=5_000,
        data=Data(source="webdataset", image_size=64),
        net=Decoder(
            unet=UNet(
                image_size=64,
                channels=512,
                multipliers=(1, 2, 3, 4),
                depth=3,
                attention=(None, *3 * [TokenAttention(head_channels=64)]),
                middle=TokenAttention(head_channels=64),
                dropout=0.1,
                token_dim=2048,
                added=True,
                learned_variance=True,
                scale_shift=True,
                resample="resnet",
                time_order="cos_sin",
                time_shift=0,
                norm_eps=1e-5,
                dtype="bfloat16",
                remat=True,
            ),
            embedding_dim=768,
            text_dim=2048,
            image_tokens=4,
            text=TextTower(
                vocab_size=49_408,
                context=256,
                width=2048,
                depth=24,
                heads=32,
                activation="gelu",
                dtype="bfloat16",
                remat=True,
            ),
        ),
        context=77,
        process=Process(schedule="cosine", timesteps=1000),
        objective=Objective(loss="hybrid"),
        image_dropout=0.1,
        text_dropout=0.5,
        optimizer=Optimizer(name="adamw", learning_rate=1.2e-4, weight_decay=0.0, clip=0.0),
        ema=Ema(decay=0.9999),
        sampling=Sampling(sampler="ddpm", steps=250, grid="linspace", variance="learned", guidance=1.25, batch=16),
    )
