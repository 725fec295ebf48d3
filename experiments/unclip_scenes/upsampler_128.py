"""The upsampler from 64 to 128 px of the unCLIP that comes with flaxgen."""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.unet import UNet
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.upsampler import Config


def get_config() -> Config:
    return Config(
        seed=0,
        steps=800,
        batch_size=64,
        data=Data(source="scenes", resize=128, image_size=32, random_crop=True, size=2**20),
        net=UNet(
            image_size=32,
            patch=4,
            channels=80,
            multipliers=(1,),
            depth=1,
            attention=(),
            middle="none",
            resample="resnet",
            scale_shift=True,
            norm_groups=16,
            time_channels=128,
            low_res=True,
        ),
        factor=2,
        degrade="bsr",
        process=Process(schedule="cosine", prediction="x0"),
        objective=Objective(weight="snr_plus_one"),
        optimizer=Optimizer(name="adamw", learning_rate=1e-3, weight_decay=0.01, warmup=200, decay="cosine"),
        ema=Ema(decay=0.999),
        tile=256,
        overlap=64,
        sampling=Sampling(sampler="ddim", steps=8, batch=16),
        log_every=50,
        preview_every=400,
    )
