"""Codes drawn a second by dalle-mini's net beside the BART of transformers + torch eager on this machine, float32.

    python -m benchmarks.codes [--width 512] [--depth 6] [--length 256] [--batches 1 8] [--rounds 3] [--json FILE]

Both read captions of 64 tokens and write `--length` codes of 16,384, each with keys and values kept, from random
weights. dalle-mini's widths are halved, and so are its blocks. BART has a plain MLP instead of a gated one: its inner
width is half as large again, so that both have as many parameters but for biases and tables. `drawn` takes codes from
the whole distribution, `likeliest` the largest logit; ours is one program for both. A figure is the median over rounds
that take kinds, batches and sides in turn; the first round, which compiles, is not counted. Beside seconds by the wall
there are those of the processor, which other programs on the machine disturb less. torch's threads sleep while they
wait for each other: by default they spin, and where another program has their core, a step then takes many times as
long.
"""

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from flaxgen.data import Data
from flaxgen.family.coded import CodeDrawing
from flaxgen.nets.dalle_mini import DalleMini
from flaxgen.parallel import make_plan
from flaxgen.zoo.dalle import Config
from flaxgen.zoo.dalle.model import init_params, make_draw

CODES, CONTEXT, TEXT_TOKENS = 16_384, 64, 16_384
KINDS = {"drawn": 1.0, "likeliest": 0.0}
"""Temperatures."""
Work = Callable[[np.ndarray, str], np.ndarray]
"""Tokens of captions [B L] and one of KINDS to codes [B N]."""
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
Speeds = dict[str, dict[str, float]]
"""Codes a second by what is drawn and side."""


def make_net(width: int, depth: int, length: int) -> DalleMini:
    return DalleMini(
        text_tokens=TEXT_TOKENS, context=CONTEXT, codes=CODES, length=length, begin=CODES, width=width, depth=depth,
        heads=width // 64, inner=width * 8 // 3,
    )  # fmt: skip


def flaxgen_work(net: DalleMini) -> tuple[Work, int]:
    """The family's own drawing program, and how many parameters the net has."""
    config = Config(seed=0, steps=1, batch_size=1, data=Data("folder"), net=net)
    params = jax.jit(lambda key: init_params(config, key))(jax.random.key(0))
    noise = np.random.default_rng(0).normal(0, 0.02, params["out"]["kernel"].shape)
    params["out"]["kernel"] = jnp.asarray(noise, jnp.float32)  # it starts at 0, where every code is as likely
    draw = make_plan("jit").compile_map(make_draw(config, CodeDrawing(), CODES))

    def work(ids: np.ndarray, kind: str) -> np.ndarray:
        empty = {"empty_ids": ids[:1], "empty_mask": ids[:1] >= 0}
        settings = {"temperature": np.float32(KINDS[kind]), "top_p": np.float32(1), "guidance": np.float32(1)}
        inputs = {"ids": ids, "mask": ids >= 0, "key": jax.random.split(jax.random.key(1), len(ids))}
        return np.asarray(draw({"params": params, **empty, **settings}, inputs)).reshape(len(ids), -1)

    return work, sum(leaf.size for leaf in jax.tree.leaves(params))


def torch_work(net: DalleMini) -> tuple[Work, int]:
    """`generate` of a BART of the same sizes, whose table of tokens is that of the codes too."""
    halves: dict[str, Any] = {
        f"{half}_{name}": value
        for half in ("encoder", "decoder")
        for name, value in (("layers", net.depth), ("attention_heads", net.heads), ("ffn_dim", net.inner * 3 // 2))
    }
    config = transformers.BartConfig(
        vocab_size=net.codes + 1, d_model=net.width, max_position_embeddings=max(net.length, net.context) + 1,
        decoder_start_token_id=net.begin, bos_token_id=net.begin, pad_token_id=net.begin, eos_token_id=None,
        forced_eos_token_id=None, **halves,
    )  # fmt: skip
    torch.manual_seed(0)
    model: Any = transformers.BartForConditionalGeneration(config).eval()

    @torch.no_grad()
    def work(ids: np.ndarray, kind: str) -> np.ndarray:
        tokens = torch.from_numpy(ids).long()
        choice = {"do_sample": True, "top_k": 0, "top_p": 1.0} if KINDS[kind] else {"do_sample": False}
        drawn = model.generate(
            tokens, attention_mask=torch.ones_like(tokens), num_beams=1, use_cache=True,
            max_new_tokens=net.length, min_new_tokens=net.length, **choice,
        )  # fmt: skip
        return drawn[:, 1:].numpy()

    return work, sum(value.numel() for value in model.parameters())


def measure(sides: dict[str, Work], length: int, batches: list[int], rounds: int) -> dict[str, Speeds]:
    """By either clock, of the median seconds over rounds that take all in turn."""
    rng = np.random.default_rng(0)
    found: dict[str, Speeds] = {clock: {} for clock in CLOCKS}
    seconds: dict[tuple, list[float]] = {}
    for run in range(rounds + 1):
        for batch, kind, side in itertools.product(batches, KINDS, sides):
            ids = rng.integers(0, TEXT_TOKENS, (batch, CONTEXT), dtype=np.int32)
            before = [now() for now in CLOCKS.values()]
            codes = sides[side](ids, kind)
            taken = [now() - start for now, start in zip(CLOCKS.values(), before, strict=True)]
            assert codes.shape == (batch, length), f"{side} drew {codes.shape}"
            print(f"round {run}, {kind}, batch {batch}, {side}:", *(f"{s:.2f}" for s in taken), flush=True)
            for clock, each in zip(CLOCKS, taken, strict=True):
                seconds.setdefault((clock, batch, kind, side), []).append(each)
    for (clock, batch, kind, side), taken in seconds.items():
        speed = batch * length / statistics.median(taken[1:])
        found[clock].setdefault(f"{kind}, batch {batch}", {})[side] = speed
    return found


def table(speeds: Speeds) -> str:
    lines = [f"{'codes/s':22}{'flaxgen':>10}{'torch':>10}{'ratio':>8}"]
    for name, by_side in speeds.items():
        ours, theirs = by_side["flaxgen"], by_side["torch"]
        lines.append(f"{name:22}{ours:10.1f}{theirs:10.1f}{ours / theirs:8.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="flaxgen's cached drawing of codes beside transformers'")
    parser.add_argument("--width", type=int, default=512, help="a multiple of 64 (512; dalle-mini's is 1024)")
    parser.add_argument("--depth", type=int, default=6, help="blocks of each half (6; dalle-mini has 12)")
    parser.add_argument("--length", type=int, default=256, help="codes of a picture, a square (256)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args()
    net, before = make_net(options.width, options.depth, options.length), os.getloadavg()[0]
    (ours, our_count), (theirs, their_count) = flaxgen_work(net), torch_work(net)
    sides = {"flaxgen": ours, "torch": theirs}
    speeds = measure(sides, options.length, options.batches, options.rounds)
    counts = {"flaxgen": our_count, "torch": their_count}
    versions = {"jax": jax.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    load = f"load before {before:.1f}, after {os.getloadavg()[0]:.1f}"
    for clock, found in speeds.items():
        print(f"by the {clock}:", table(found), sep="\n")
    print(
        f"parameters {counts}, {versions}",
        f"{jax.devices()[0].platform}, {torch.get_num_threads()} torch threads, {load}",
        sep="\n",
    )
    if options.json:
        found = {"width": options.width, "depth": options.depth, "length": options.length, "codes_per_second": speeds}
        options.json.write_text(json.dumps({**found, "parameters": counts, "versions": versions}, indent=2) + "\n")


if __name__ == "__main__":
    main()
