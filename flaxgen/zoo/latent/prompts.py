"""Prompts as users of Stable Diffusion write them: words that weigh more or less, and longer ones than a text encoder
reads, by the rules of A1111's web interface.

`(words)` weigh 1.1 times as much, `[words]` 1 / 1.1 times, `(words:1.3)` 1.3 times; brackets nest, and a backslash
makes one a letter. A prompt is cut into chunks of as many tokens as an encoder reads, at a comma among the last BACK
tokens where there is one, and at BREAK; each is encoded by itself and all are read one after the other. States are
multiplied by their tokens' weights and brought back to the mean that they had.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int32

from flaxgen.data.tokenize import Tokenizer, Tokens
from flaxgen.train.config import require
from flaxgen.zoo.latent.config import Text
from flaxgen.zoo.latent.text import States, check_lengths, pool, read_t5, read_tokens

ROUND, SQUARE = 1.1, 1 / 1.1
BACK = 20
Words = Mapping[str, Sequence[int]]
"""Words of one's own, and the ids of their tokens."""
BREAK = re.compile(r"\s*\bBREAK\b\s*")
PIECE = re.compile(r"\\(.)|(?P<open>[(\[])|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)|(?P<close>[)\]])", re.DOTALL)


class Piece(NamedTuple):
    """Words and how much they weigh; None instead of words begins another chunk."""

    words: str | None
    weight: float = 1.0


class Prompt(NamedTuple):
    """A prompt as tokens of C chunks, each with what its states are multiplied by."""

    ids: Int32[np.ndarray, "C L"]
    mask: Bool[np.ndarray, "C L"]
    weights: Float[np.ndarray, "C L"]


def parse(prompt: str) -> list[Piece]:
    """The pieces of a prompt; neighbours of one weight are joined. Brackets that are left open reach to the end."""
    pieces: list[list[Any]] = []
    opened: list[tuple[str, int]] = []

    def multiply(start: int, factor: float) -> None:
        for piece in pieces[start:]:
            piece[1] *= factor

    end = 0
    for match in PIECE.finditer(prompt):
        pieces.append([prompt[end : match.start()], 1.0])
        end = match.end()
        kind = {"(": ROUND, "[": SQUARE, ")": "(", "]": "["}
        if bracket := match["open"]:
            opened.append((bracket, len(pieces)))
        elif match["weight"] and opened and opened[-1][0] == "(":
            multiply(opened.pop()[1], float(match["weight"]))
        elif (bracket := match["close"]) and opened and opened[-1][0] == kind[bracket]:
            bracket, start = opened.pop()
            multiply(start, float(kind[bracket]))
        else:
            pieces.append([match[1] or match[0], 1.0])
    pieces.append([prompt[end:], 1.0])
    for bracket, start in reversed(opened):
        multiply(start, ROUND if bracket == "(" else SQUARE)
    return _joined([Piece(words, weight) for words, weight in pieces if words])


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    found: list[Piece] = []
    for words, weight in pieces:
        if found and found[-1].weight == weight:
            found[-1] = Piece(str(found[-1].words) + str(words), weight)
        else:
            found.append(Piece(words, weight))
    return found


def _broken(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces with their BREAKs as chunks' ends."""
    found = []
    for words, weight in pieces:
        for i, part in enumerate(BREAK.split(words or "")):
            found += ([Piece(None)] if i else []) + [Piece(part, weight)]
    return found


def _tokens(tokenizer: Tokenizer, text: str, own: Words) -> Iterator[int]:
    """The ids of a text, those of one's `own` words included."""
    known = "|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in sorted(own, key=len, reverse=True))
    for part in re.split(f"({known})", text) if own else [text]:
        yield from own[part] if part in own else tokenizer.pieces(part)


def chunked(tokenizer: Tokenizer, prompt: str, plain: bool = False, own: Words = {}) -> Prompt:  # noqa: B006
    """The tokens of a prompt, of as many chunks as it takes, one at least; `plain` reads brackets and BREAK as words,
    and `own` are words that the tokenizer does not know.

    Raises:
        ValueError: if a weight is not finite.
    """
    room = tokenizer.context - 2
    comma = set(tokenizer.pieces(","))
    chunks: list[list[tuple[int, float]]] = [[]]
    for words, weight in [Piece(prompt)] if plain else _broken(parse(prompt)):
        require(bool(np.isfinite(weight)), f"the weight {weight} in {prompt!r}: expected a number")
        if words is None:
            chunks.append([])
            continue
        for token in _tokens(tokenizer, words, own):
            if len(chunks[-1]) == room:
                chunks.append(_carried(chunks[-1], comma))
            chunks[-1].append((token, weight))
    return _framed(tokenizer, [chunk for chunk in chunks if chunk] or [[]])


def _carried(full: list[tuple[int, float]], comma: set[int]) -> list[tuple[int, float]]:
    """What of a full chunk goes to the next one: what stands behind a comma that is near its end."""
    near = [i for i in range(max(len(full) - BACK, 1), len(full)) if full[i - 1][0] in comma]
    if not near:
        return []
    carried = full[near[-1] :]
    del full[near[-1] :]
    return carried


def _framed(tokenizer: Tokenizer, chunks: Sequence[Sequence[tuple[int, float]]]) -> Prompt:
    shape = (len(chunks), tokenizer.context)
    ids, mask, weights = np.full(shape, tokenizer.pad_id, np.int32), np.zeros(shape, bool), np.ones(shape, np.float32)
    for i, chunk in enumerate(chunks):
        tokens = [tokenizer.start_id, *(token for token, _ in chunk), tokenizer.end_id]
        ids[i, : len(tokens)], mask[i, : len(tokens)] = tokens, True
        weights[i, 1 : 1 + len(chunk)] = [weight for _, weight in chunk]
    return Prompt(ids, mask, weights)


def read_prompts(
    clips: Sequence[Any],
    text: Text,
    prompts: Sequence[str],
    plain: bool = False,
    words: Mapping[str, Sequence[Sequence[int]]] = {},
    t5: Any = None,
) -> States:
    """The states of prompts, those with fewer chunks than others filled up with empty ones; the embedding is that of
    the first chunk. `words` are one's own, with their ids for each encoder. A `t5` reads the words alone, of no weight.

    Raises:
        ValueError: if two encoders do not read as many tokens, or one has fewer blocks than are skipped.
    """
    check_lengths(clips)
    told = []
    for i, clip in enumerate(clips):
        own = {word: ids[i] for word, ids in words.items()}
        told.append([chunked(clip.tokenizer, prompt, plain, own) for prompt in prompts])
    count, found = max(len(prompt.ids) for own in told for prompt in own), []
    for clip, own in zip(clips, told, strict=True):
        filled = [_filled(prompt, chunked(clip.tokenizer, ""), count) for prompt in own]
        ids, mask, weights = (np.concatenate(values) for values in zip(*filled, strict=True))
        states = read_tokens([clip], text, [Tokens(ids, mask)])
        found.append(states._replace(tokens=weighted(states.tokens, weights)))
    hidden = np.concatenate([states.tokens for states in found], axis=-1).reshape(len(prompts), -1, _width(found))
    pooled = pool(text, [states.embedding[::count] for states in found])
    said = prompts if plain else [bare(prompt) for prompt in prompts]
    return States(hidden, found[0].token_mask.reshape(len(prompts), -1), pooled, read_t5(t5, text, said))


def bare(prompt: str) -> str:
    """The words of a prompt, without brackets, weights and BREAKs."""
    return "".join(" " if words is None else words for words, _ in _broken(parse(prompt)))


def _width(found: Sequence[States]) -> int:
    return sum(states.tokens.shape[-1] for states in found)


def _filled(prompt: Prompt, empty: Prompt, count: int) -> Prompt:
    """The prompt with so many chunks, the last ones empty."""
    more = count - len(prompt.ids)
    return Prompt(*(np.concatenate([value, *[rest] * more]) for value, rest in zip(prompt, empty, strict=True)))


def weighted(states: Float[np.ndarray, "C L W"], weights: Float[np.ndarray, "C L"]) -> Float[np.ndarray, "C L W"]:
    """States times their tokens' weights, each chunk brought back to the mean that it had."""
    if (weights == 1).all():
        return states
    wide = states.astype(np.float64)
    moved = wide * weights[..., None]
    before, after = wide.mean((1, 2), keepdims=True), moved.mean((1, 2), keepdims=True)
    scale = np.where(after == 0, 1.0, before / np.where(after == 0, 1.0, after))
    return (moved * np.where((weights == 1).all(1)[:, None, None], 1.0, scale)).astype(np.float32)
