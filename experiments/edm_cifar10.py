"""EDM on CIFAR-10: preconditioned net, log-normal noise levels, Heun steps [Karras22, table 1 and app. F].

    flaxgen train experiments/edm_cifar10.py --workdir runs/edm --set data.path=CIFAR_SHARDS --parallel mesh

Differs from the paper's DDPM++ in the net (ADM blocks) and has no augmentation but flips; 390k steps of 512 are its
200M images. Published: FID 1.97 at 35 evaluations. Not trained to the end by us.
"""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.nets.attention import SelfAttention
from flaxgen.nets.unet import UNet
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.diffusion import Config


def get_config() -> Config:
    return Config(
        seed=0,
        steps=390_000,
        batch_size=512,
        log_every=100,
        preview_every=10_000,
        checkpoint_every=10_000,
        data=Data(source="webdataset", image_size=32, flip=True),
        net=UNet(
            image_size=32,
            channels=128,
            multipliers=(2, 2, 2),
            depth=4,
            attention=(None, SelfAttention(), None),
            dropout=0.13,
            scale_shift=True,
            resample="resnet",
            time_order="cos_sin",
            time_shift=0,
        ),
        process=Process(schedule="edm", timesteps=0, prediction="edm", sigma_data=0.5),
        objective=Objective(weight="edm", times="log_normal"),
        optimizer=Optimizer(name="adam", learning_rate=1e-3, warmup=20_000, clip=0.0),
        ema=Ema(decay=0.9993),
        sampling=Sampling(sampler="heun", steps=18, grid="karras", threshold="none"),
    )
