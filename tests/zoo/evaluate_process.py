"""One process of an evaluation: evaluate_process.py OUT PORT NUM_PROCESSES PROCESS_ID FOLDER [STOP_AFTER_BATCHES]."""

import json
import sys
from pathlib import Path

import jax

from flaxgen import parallel
from flaxgen.data import Data
from flaxgen.family.evaluation import Evaluation
from flaxgen.family.process import Process
from flaxgen.family.sampling import Sampling
from flaxgen.measure.evaluate import evaluate
from flaxgen.measure.features import make_extractor
from flaxgen.measure.picture_sets import of_data, of_samples
from flaxgen.nets.unet import UNet
from flaxgen.zoo import diffusion

out, port, count, number, folder = Path(sys.argv[1]), *sys.argv[2:6]
stop_after = int(sys.argv[6]) if len(sys.argv) > 6 else None
if count != "1":
    parallel.initialize(f"127.0.0.1:{port}", int(count), int(number))
plan = parallel.make_plan("mesh")
net = UNet(image_size=8, in_channels=1, out_channels=1, channels=8, multipliers=(1,), depth=1, norm_groups=4,
           attention=())  # fmt: skip
data = Data("folder", path=folder, image_size=8, channels=1, threads=1)
config = diffusion.Config(
    seed=0, steps=1, batch_size=4, data=data, net=net,
    process=Process(schedule="cosine", timesteps=8), sampling=Sampling(steps=2, batch=8),
)  # fmt: skip
params = jax.tree.map(lambda x: x + 0.1, jax.jit(lambda: diffusion.init_params(config, jax.random.key(0)))())
drawn = of_samples(diffusion.FAMILY.trained(config, params, 1, plan), diffusion.SampleDiffusion(seed=0))


def read(first, batch):
    for i, rows in enumerate(drawn.read(first, batch)):
        if i == stop_after:
            parallel.leave(3)
            sys.exit(3)
        yield rows


settings = Evaluation(("fid", "kid", "prec_recall"), num=44, seed=0, batch=8, kid_subsets=5, kid_subset_size=20,
                      save_seconds=0.0)  # fmt: skip
results = evaluate(
    of_data(data, 0),
    drawn._replace(read=read),
    make_extractor("pixels"),
    settings,
    plan,
    reference=out / "real.npz",
    progress=out / "fake.npz",
)
(out / f"result-{number}.json").write_text(json.dumps(results))
