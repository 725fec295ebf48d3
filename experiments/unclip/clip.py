"""CLIP ViT-L/14 [Radford21, tables 18 and 20], the first stage of a full-size unCLIP.

    flaxgen train experiments/unclip/clip.py --workdir runs/clip --parallel mesh --mesh data=256,fsdp=1 \
        --set data.path='SHARDS/*.tar' vocabulary.path=TOKENIZER_JSON

Meant for 256 TPU v4 or A100; not run here. The steps are 32 epochs of 400M captioned pictures, and nothing is averaged.
Without `vocabulary.path` a BPE is trained on the first captions, after all their pictures have been read.

DALL-E 2 has a CLIP of its own: ViT-H/16 at 256 px of width 1280 and 32 blocks, a text tower of width 1024 and 24
blocks, embeddings of 1024 dimensions, sharpness-aware minimisation [Ramesh22, app. C]. Its weights are not public and
those of ViT-L/14 are: whoever imports these need not train this stage, and Karlo and the stages beside this file are
made for their embeddings.
"""

from flaxgen.data import Data
from flaxgen.nets.clip import CLIP, TextTower, VisionTower
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.clip import Config, Vocabulary

PUBLISHED = 427_616_513
"""Parameters of the published weights."""


def get_config() -> Config:
    return Config(
        seed=0,
        steps=390_625,
        batch_size=32_768,
        log_every=100,
        preview_every=0,
        checkpoint_every=2_000,
        data=Data(source="webdataset", image_size=224),
        net=CLIP(
            vision=VisionTower(image_size=224, patch=14, width=1024, depth=24, heads=16, dtype="bfloat16", remat=True),
            text=TextTower(vocab_size=49_408, context=77, width=768, depth=12, heads=12, dtype="bfloat16", remat=True),
            embedding_dim=768,
            max_logit_scale=100.0,
        ),
        vocabulary=Vocabulary(size=49_408, captions=200_000),
        optimizer=Optimizer(
            name="adamw",
            learning_rate=4e-4,
            beta2=0.98,
            epsilon=1e-6,
            weight_decay=0.2,
            clip=0.0,
            warmup=2_000,
            decay="cosine",
        ),
        ema=Ema(decay=0.0, ramp=False),
    )
