"""Rule tables made from a net: where the other layout names its modules by a pattern, no table is written by hand."""

from collections.abc import Callable, Mapping, Sequence

from flaxgen.types import Params
from flaxgen.weights.layouts import CONV, CONV_1D, LINEAR, SAME, Layout
from flaxgen.weights.rules import Rule, regex_of
from flaxgen.weights.tree import leaves_of

LEAVES: Mapping[str, str] = {"kernel": "weight", "bias": "bias", "scale": "weight", "embedding": "weight"}
"""What torch calls the parameters of a linear layer or a convolution, of a norm, and of an embedding."""
KERNELS: Mapping[int, Layout] = {2: LINEAR, 3: CONV_1D, 4: CONV}
"""How a kernel of so many dimensions lies there."""


def generate_rules(
    params: Params, module_name: Callable[[str], str], leaves: Mapping[str, str] = LEAVES, odd: Sequence[Rule] = ()
) -> tuple[Rule, ...]:
    """One rule a parameter of a net, whose `params` may be ShapeDtypeStructs.

    `module_name` turns the path of a module ("block_3/attention") into its name there, `leaves` the last part of a
    parameter's path into the last of the tensor's. What the rules in `odd` match is left to them.

    Raises:
        ValueError: naming a parameter whose last part is not in `leaves`, or whose name another one has.
    """
    patterns = [
        regex_of(path) for rule in odd for path in ([rule.param] if isinstance(rule.param, str) else rule.param)
    ]
    rules: dict[str, Rule] = {}
    for path, leaf in leaves_of(params).items():
        if any(pattern.fullmatch(path) for pattern in patterns):
            continue
        rule = _rule(path, len(leaf.shape), module_name, leaves)
        if (first := rules.setdefault(str(rule.tensor), rule)) is not rule:
            raise ValueError(f"parameters {first.param!r} and {path!r} are both {rule.tensor!r}: expected two names")
    return (*odd, *rules.values())


def _rule(path: str, ndim: int, module_name: Callable[[str], str], leaves: Mapping[str, str]) -> Rule:
    module, _, last = path.rpartition("/")
    if last not in leaves:
        raise ValueError(f"parameter {path!r} ends in {last!r}, expected one of {', '.join(leaves)}: give it a rule")
    layout = KERNELS[ndim] if last == "kernel" else SAME
    name = module_name(module)
    return Rule(f"{name}.{leaves[last]}" if name else leaves[last], path, layout)


def module_namer(names: Mapping[str, str]) -> Callable[[str], str]:
    """What names modules by templates, such as {"transformer/block_{i}": "encoder.layers.{i}", "mlp_1": "mlp.fc1"}.

    At every part of a path the first template that matches it, or it and those behind, is taken; a part that none
    matches keeps its name.
    """
    templates = [(regex_of(path), path.count("/") + 1, name) for path, name in names.items()]

    def name_of(path: str) -> str:
        parts, out = path.split("/") if path else [], []
        while parts:
            for regex, length, name in templates:
                if match := regex.fullmatch("/".join(parts[:length])):
                    out.append(name.format(**match.groupdict()))
                    parts = parts[length:]
                    break
            else:
                out.append(parts.pop(0))
        return ".".join(out)

    return name_of
