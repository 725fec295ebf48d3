"""The 32 px decoder of the unCLIP that comes with flaxgen."""

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


def get_config() -> Config:
    return Config(
        seed=0,
        steps=16_000,
        batch_size=64,
        data=Data(source="scenes", image_size=32, size=2**16),
        net=Decoder(
            unet=UNet(
                image_size=32,
                patch=4,
                positions=True,
                channels=128,
                multipliers=(1, 1),
                depth=1,
                attention=(TokenAttention(head_channels=32), TokenAttention(head_channels=32)),
                middle=TokenAttention(head_channels=32),
                time_channels=128,
                resample="resnet",
                scale_shift=True,
                added=True,
                token_dim=128,
            ),
            embedding_dim=128,
            text_dim=128,
            null_text=True,
            text=TextTower(vocab_size=384, context=24, width=128, depth=2, heads=4),
        ),
        context=24,
        process=Process(schedule="cosine", prediction="x0", shift=4.0),
        objective=Objective(weight="snr_plus_one"),
        text_dropout=0.5,
        optimizer=Optimizer(name="adamw", learning_rate=6e-4, weight_decay=0.01, warmup=200, decay="cosine"),
        ema=Ema(decay=0.999),
        sampling=Sampling(sampler="ddim", steps=25, guidance=3.0, interval=(0.25, 1.0), batch=64),
        log_every=100,
        preview_every=500,
        checkpoint_every=500,
    )
