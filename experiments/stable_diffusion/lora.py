"""A LoRA of Stable Diffusion 1.5 [Hu22], at the settings of diffusers' text-to-image LoRA script.

    flaxgen import stable-diffusion-v1-5/stable-diffusion-v1-5 models/sd
    flaxgen train experiments/stable_diffusion/lora.py --workdir runs/lora --set data.path=PICTURES \
        base=models/sd/denoiser autoencoder=models/sd/autoencoder clip=models/sd/clip
    flaxgen export runs/lora loras/mine --layout peft
    flaxgen draw "a blue dragon" --model models/sd --lora loras/mine/pytorch_lora_weights.safetensors:0.8 --out out.png

15,000 steps of 4 pictures at a learning rate of 1e-4 that a cosine brings to 0, rank 4 in all attention: 797,184
numbers beside 860M. Not trained by us.
"""

from flaxgen.data import Data
from flaxgen.family.denoising import Objective
from flaxgen.nets.published import STABLE_DIFFUSION_1
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.latent.lora import Lora, LoraConfig

PUBLISHED = 797_184
"""Parameters, counted from peft's LoRA of rank 4 in to_q, to_k, to_v and to_out.0 of that net."""


def get_config() -> LoraConfig:
    return LoraConfig(
        seed=0,
        steps=15_000,
        batch_size=4,
        accumulate=4,
        lora=Lora(rank=4, alpha=4.0),
        data=Data(source="folder", image_size=512),
        net=STABLE_DIFFUSION_1.clone(dtype="bfloat16", remat=True),
        objective=Objective(),
        optimizer=Optimizer(name="adamw", learning_rate=1e-4, weight_decay=1e-2, decay="cosine"),
        ema=Ema(decay=0.0),
    )
