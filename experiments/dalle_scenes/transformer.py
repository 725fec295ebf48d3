"""The transformer of the small DALL-E 1 of drawn scenes [Ramesh21]: 24 tokens of text, then 8 x 8 codes.

    flaxgen train experiments/dalle_scenes/vqvae.py --workdir runs/dalle/vqvae
    flaxgen train experiments/dalle_scenes/transformer.py --workdir runs/dalle/transformer \
        --set autoencoder=runs/dalle/vqvae
    flaxgen compose models/dalle --half autoencoder=runs/dalle/vqvae transformer=runs/dalle/transformer \
        clip=flaxgen/models/scenes/clip
    python -m benchmarks.dalle_scenes draw --model models/dalle

So `dalle-scenes` was made, with the autoencoder and the CLIP that come along. The first 1,778 of its steps were taken
with steps=12_000, the others with 8,000, which moves the learning rate a little: 95 minutes on two cores, beside other
work. What was measured is in docs/codes.md.
"""

from flaxgen.data import Data
from flaxgen.family.captions import Vocabulary
from flaxgen.family.coded import CodeDrawing
from flaxgen.nets.dalle import Dalle
from flaxgen.train.optim import Ema, Optimizer
from flaxgen.zoo.dalle import Config


def get_config() -> Config:
    return Config(
        seed=0,
        steps=8_000,
        batch_size=32,
        data=Data(source="scenes", image_size=32, size=2**16),
        net=Dalle(text_tokens=384, context=24, rows=8, columns=8, codes=256, width=160, depth=6, heads=5, conv_size=5),
        vocabulary=Vocabulary(size=384, split="train"),
        drawing=CodeDrawing(guidance=2.5, temperature=0.85),
        ema=Ema(decay=0.999),
        optimizer=Optimizer(
            name="adamw", learning_rate=1.5e-3, beta2=0.96, weight_decay=4.5e-2, warmup=200, decay="cosine"
        ),
    )
