"""What several commands ask for in the same words."""

RUN_OR_MODEL = "a run directory (of `train`) or a model directory (of `export` or `import`)"


def add_set(parser, example: str) -> None:
    """--set, to override fields by dotted path."""
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=f"override, such as {example}"
    )


def add_devices(parser) -> None:
    """--parallel and --mesh."""
    parser.add_argument("--parallel", choices=("jit", "pmap", "mesh"), default="jit", help="one device or many (jit)")
    parser.add_argument("--mesh", metavar="data=N,fsdp=M", help="the shape of the mesh (all devices as data, fsdp=1)")


def make_plan(parsed):
    """The devices that --parallel and --mesh name.

    Raises:
        ValueError: if they do not go together.
    """
    from flaxgen import parallel

    sizes = {}
    for part in parsed.mesh.split(",") if parsed.mesh else ():
        name, _, size = part.partition("=")
        if name not in ("data", "fsdp") or not size.isdigit():
            raise ValueError(f"--mesh {parsed.mesh}: expected data=N,fsdp=M")
        sizes[name] = int(size)
    if sizes and parsed.parallel != "mesh":
        raise ValueError(f"--mesh {parsed.mesh} needs --parallel mesh, got --parallel {parsed.parallel}")
    return parallel.make_plan(parsed.parallel, **sizes)
