"""A small Stable Diffusion beside diffusers + torch on this machine, float32, all sides in turn.

    python -m benchmarks.latent [--batch 1] [--rounds 5] [--compiled] [--json FILE]

The pipeline is that of version 1 at a tenth of its width, of random weights, with heads of 32 channels instead of 40,
so that attention has its share of the work; flaxgen imports its folder. `draw` is a caption to pictures of 256 pixels
in 20 steps of DDIM with guidance, by the command's own call and by diffusers' pipeline; `net` is one call of the net
on two examples, `attention` that of its largest maps, `decode` one call of the autoencoder. `train` is a step of 4
examples on latents and captions' states that are there already: noising, loss, backward, AdamW and an average of the
parameters.

With `--compiled` torch also draws and trains with a net that went through torch.compile. A figure is the median over
the rounds, and a ratio that of the medians; the first call of each, which compiles, is not counted.
"""

import argparse
import json
import statistics
import string
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import flax
import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from torch.optim.swa_utils import get_ema_multi_avg_fn

import flaxgen
from flaxgen.interchange.stable_diffusion import import_pipeline
from flaxgen.nets.dot_product import attention
from flaxgen.parallel import make_plan
from flaxgen.train.optim import Optimizer, make_optimizer
from flaxgen.train.state import init_state, make_train_step
from flaxgen.zoo.latent import FAMILY
from flaxgen.zoo.latent.model import make_loss

SIZE, FACTOR, STEPS, GUIDANCE, CONTEXT, TOKEN_DIM = 256, 8, 20, 7.5, 77, 96
TRAINED, EMA_DECAY, LEARNING_RATE, WEIGHT_DECAY = 4, 0.9999, 1e-5, 1e-2
CAPTION = "a red cat on a chair"
BLOCKS = {"down": "DownEncoderBlock2D", "up": "UpDecoderBlock2D"}
Work = dict[str, Callable[[], Any]]


def pipeline() -> Any:
    """Version 1 of Stable Diffusion at a tenth of its width, and a tokenizer of letters."""
    torch.manual_seed(0)
    words = ["!", *string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    vocab = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer: Any = transformers.CLIPTokenizer(vocab=vocab, merges=[], model_max_length=CONTEXT)
    tower = transformers.CLIPTextConfig(
        vocab_size=len(vocab),
        hidden_size=TOKEN_DIM,
        intermediate_size=4 * TOKEN_DIM,
        projection_dim=TOKEN_DIM,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    widths: dict[str, Any] = {"block_out_channels": (32, 64, 128, 128), "attention_head_dim": (1, 2, 4, 4)}
    unet = diffusers.UNet2DConditionModel(  # pyright: ignore[reportPrivateImportUsage]
        sample_size=SIZE // FACTOR, cross_attention_dim=TOKEN_DIM, **widths
    )
    levels: dict[str, Any] = {"block_out_channels": (16, 32, 64, 64)}
    levels |= {f"{way}_block_types": 4 * (kind,) for way, kind in BLOCKS.items()}
    vae = diffusers.AutoencoderKL(  # pyright: ignore[reportPrivateImportUsage]
        sample_size=SIZE, layers_per_block=2, norm_num_groups=16, **levels
    )
    table = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    scheduler = diffusers.DDIMScheduler(**table, clip_sample=False, set_alpha_to_one=False)  # pyright: ignore
    encoder = transformers.CLIPTextModel(tower)
    parts = {"text_encoder": encoder, "tokenizer": tokenizer, "unet": unet, "vae": vae, "scheduler": scheduler}
    none: Any = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    whole: Any = diffusers.StableDiffusionPipeline(**parts, **none)  # pyright: ignore[reportPrivateImportUsage]
    whole.set_progress_bar_config(disable=True)
    return whole


def inputs_of(batch: int, size: int = SIZE // FACTOR) -> dict[str, np.ndarray]:
    """Latents and captions' states, NHWC, and times."""
    rng = np.random.default_rng(0)
    return {
        "latent": rng.standard_normal((batch, size, size, 4), np.float32),
        "tokens": rng.standard_normal((batch, CONTEXT, TOKEN_DIM), np.float32),
        "time": rng.uniform(0, 999, batch).astype(np.float32),
    }


def heads_of(batch: int) -> list[np.ndarray]:
    """Queries, keys and values of the net's largest feature maps, [B T N D]."""
    rng, places = np.random.default_rng(1), (SIZE // FACTOR) ** 2
    return [rng.standard_normal((batch, places, 1, 32), np.float32) for _ in range(3)]


def flaxgen_work(folder: Path, place: Path, batch: int) -> Work:
    """What is measured, each ready to be called again and again."""
    import_pipeline(folder, place)
    model: Any = flaxgen.load(place)
    parts, config = model.whole, model.whole.config
    plan, given, latents = make_plan("jit"), inputs_of(2), inputs_of(batch)["latent"]
    config = FAMILY.config(**{**vars(config), "batch_size": TRAINED, "objective": type(config.objective)()})

    def predict(params, given):
        return config.net.apply({"params": params}, given["latent"], given["time"], tokens=given["tokens"])

    net, attend = plan.compile_map(predict), plan.compile_map(lambda _, qkv: attention(*qkv))
    heads = heads_of(2)
    tx = make_optimizer(Optimizer(name="adamw", learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, clip=0), 1)
    step = make_train_step(make_loss(config, {}), tx, ema_decay=lambda step: jnp.float32(EMA_DECAY))
    train = plan.compile_step(lambda axis_name: step)
    state = init_state(jax.tree.map(jnp.array, parts.denoiser.params), tx)
    kept: dict[str, Any] = {name: value for name, value in inputs_of(TRAINED).items() if name != "time"}
    kept["tokens"] = kept["tokens"].astype(np.float16)

    def train_once():
        nonlocal state
        state, metrics = train(state, kept, jax.random.key(0))
        jax.block_until_ready((state, metrics))

    return {
        "draw": lambda: model.draw(CAPTION, num=batch, steps=STEPS, guidance=GUIDANCE, sampler="ddim").images,
        "attention": lambda: jax.block_until_ready(attend({}, heads)),
        "net": lambda: jax.block_until_ready(net(parts.denoiser.params, given)),
        "decode": lambda: parts.decode(latents),
        "train": train_once,
    }


def torch_work(folder: Path, batch: int, compiled: bool = False) -> Work:
    """The same by diffusers' pipeline and scheduler, and torch's own AdamW."""
    pipe: Any = diffusers.StableDiffusionPipeline.from_pretrained(folder)  # pyright: ignore
    pipe.set_progress_bar_config(disable=True)
    unet = pipe.unet
    noised_at: Any = diffusers.DDPMScheduler.from_config(pipe.scheduler.config)  # pyright: ignore
    optimizer = torch.optim.AdamW(unet.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    ema, move_ema = [value.detach().clone() for value in unet.parameters()], get_ema_multi_avg_fn(EMA_DECAY)
    net = torch.compile(unet) if compiled else unet
    pipe.unet = net

    def tensors(size: int) -> tuple[torch.Tensor, ...]:
        given = inputs_of(size)
        pictures = given["latent"].transpose(0, 3, 1, 2).copy()
        return tuple(map(torch.from_numpy, (pictures, given["time"], given["tokens"])))

    (x, t, tokens), (latents, _, _), (kept, _, states) = tensors(2), tensors(batch), tensors(TRAINED)

    query, key, value = (torch.from_numpy(x).transpose(1, 2) for x in heads_of(2))

    @torch.no_grad()
    def attend():
        torch.nn.functional.scaled_dot_product_attention(query, key, value)

    @torch.no_grad()
    def predict():
        net(x, t, tokens)

    @torch.no_grad()
    def decode():
        pipe.vae.decode(latents / pipe.vae.config.scaling_factor)

    def draw():
        unet.eval()
        given = {"num_images_per_prompt": batch, "height": SIZE, "width": SIZE, "output_type": "np"}
        pipe(CAPTION, num_inference_steps=STEPS, guidance_scale=GUIDANCE, **given)

    def train():
        unet.train()
        eps, index = torch.randn_like(kept), torch.randint(0, 1000, (TRAINED,))
        out = net(noised_at.add_noise(kept, eps, index), index, states).sample
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(out, eps).backward()
        optimizer.step()
        move_ema(ema, list(unet.parameters()), None)

    return {"draw": draw, "attention": attend, "net": predict, "decode": decode, "train": train}


def measure(sides: dict[str, Work], names: list[str], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of every call, by what was done and by whom; the sides take turns in every round."""
    found: dict[str, dict[str, list[float]]] = {}
    for name in names:
        found[name] = {side: [] for side in sides}
        for run in range(rounds + 1):
            for side, work in sides.items():
                start = time.perf_counter()
                work[name]()
                if run:
                    found[name][side].append(time.perf_counter() - start)
        print(name, {side: [round(taken, 3) for taken in found[name][side]] for side in sides}, flush=True)
    return found


def table(seconds: dict[str, dict[str, list[float]]]) -> str:
    """Medians in seconds, and how many times as long every other side takes."""
    others = [side for side in next(iter(seconds.values())) if side != "flaxgen"]
    lines = [f"{'seconds':10}{'flaxgen':>10}" + "".join(f"{side:>12}{'ratio':>8}" for side in others)]
    for name, by_side in seconds.items():
        ours, theirs = statistics.median(by_side["flaxgen"]), [statistics.median(by_side[side]) for side in others]
        lines.append(f"{name:10}{ours:10.3f}" + "".join(f"{value:12.3f}{value / ours:8.2f}" for value in theirs))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="a small Stable Diffusion beside diffusers + torch")
    parser.add_argument("--batch", type=int, default=1, help="pictures that are drawn and decoded at once")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", nargs="*", default=["draw", "attention", "net", "decode", "train"], help="what is measured"
    )
    parser.add_argument("--compiled", action="store_true", help="also by torch.compile, which takes minutes")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "folder"
        pipeline().save_pretrained(folder)
        sides = {"flaxgen": flaxgen_work(folder, Path(place) / "model", options.batch)}
        sides["torch"] = torch_work(folder, options.batch)
        if options.compiled:
            sides["compiled"] = torch_work(folder, options.batch, compiled=True)
        seconds = measure(sides, options.only, options.rounds)
    versions = {"jax": jax.__version__, "flax": flax.__version__, "torch": torch.__version__}
    versions |= {"diffusers": diffusers.__version__}
    print(table(seconds), f"{versions}, {jax.devices()[0].platform}, {torch.get_num_threads()} torch threads", sep="\n")
    if options.json:
        found = {"batch": options.batch, "seconds": seconds, "versions": versions}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
