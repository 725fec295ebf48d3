"""How dalle-mini spells captions before it makes tokens of them, as the normaliser of a tokenizer.json.

Theirs is a function of Python beside the tokenizer; as rules in the file, captions become the same tokens wherever it
is read. Steps that need files or packages of their own are left out: hashtags are not split into words, emojis and
letters of other scripts are not written in Latin ones, and garbled encodings are not mended. Where three single
characters stand in a row, as in u.s.a, theirs turns the second dot (or hyphen) into a comma, and this one does not.
"""

import json
from typing import Any

import tokenizers
from tokenizers import Regex, models, normalizers

LETTERS = {"ß": "ss", "æ": "ae", "ø": "o", "œ": "oe", "ł": "l"}
LATIN = LETTERS | {"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "--"}
"""What has no accent to lose and is written in ASCII all the same."""
ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'", "&nbsp;": " ", "&amp;": "&"}
ENDINGS = r"(?:[stdm]|ll|re|ve)\b"
"""What an apostrophe stays before."""
RULES = (
    (r"\A\s*\[\d+\]|\[\d+\]\s*\z", ""),  # Wikipedia's references
    (r"<[^<]+?>", " "),
    (r"http\S+", ""),
    (r"(?<=\d),(?=\d{3})", ""),
    (r"(?<=\w)-(?=\w)", " "),
    (r"(?=[%&$*])", " "),
    (r"(?<=[%&$*])", " "),
    (r"#(?=\w)", ""),
    (r"[_#\\]", " "),
    (rf'["`]|\'(?!{ENDINGS})', ' " '),
    # Dots stay in numbers and abbreviations, slashes in dates.
    (r"[()\[\],|:;?!=+~\-{}]|\.(?!\w)|(?<!\w)\.|/(?!\d)|(?<!\d)/", ","),
    (r"(\D)\1{2,}(?=\1)", ""),  # four or more; VIII has three
    (r'(?:\s*"+\s*)+', ' " '),
    (r"(?:\s*,+\s*)+", ", "),
    (r"\s+", " "),
    (r"\A\s*,?\s*|\s*,?\s*\z", ""),
)
"""Patterns and what they become, in this order, in lower case."""


def _spelling() -> dict[str, Any]:
    """The rules as tokenizer.json has them."""
    codec = tokenizers.Tokenizer(models.BPE())
    letters = [normalizers.Replace(there, here) for there, here in (*ENTITIES.items(), *ENTITIES.items())]
    lower = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    letters += [*lower, *(normalizers.Replace(there, here) for there, here in LATIN.items())]
    rules = [normalizers.Replace(Regex(pattern), becomes) for pattern, becomes in RULES]
    codec.normalizer = normalizers.Sequence([*letters, *rules, normalizers.Prepend(" ")])
    return json.loads(codec.to_str())["normalizer"]


def with_spelling(text: str) -> str:
    """The tokenizer.json whose captions are spelled by the rules first."""
    described = json.loads(text)
    own = described["normalizer"]
    described["normalizer"] = {"type": "Sequence", "normalizers": [_spelling(), *([] if own is None else [own])]}
    return tokenizers.Tokenizer.from_str(json.dumps(described)).to_str()


def without_spelling(text: str) -> tuple[str, bool]:
    """The inverse of `with_spelling`, and whether there was anything to undo."""
    described = json.loads(text)
    own = described["normalizer"] or {}
    inner = own.get("normalizers", []) if own.get("type") == "Sequence" else []
    if inner[:1] != [_spelling()]:
        return text, False
    described["normalizer"] = inner[1] if len(inner) > 1 else None
    return tokenizers.Tokenizer.from_str(json.dumps(described)).to_str(), True
