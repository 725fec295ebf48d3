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


def add_processes(parser) -> None:
    """--coordinator, --num-processes and --process-id."""
    several = parser.add_argument_group("several processes (found by themselves on TPU pods, Slurm and MPI)")
    several.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    several.add_argument("--num-processes", type=int, metavar="N")
    several.add_argument("--process-id", type=int, metavar="I")


def make_plan(parsed):
    """The devices that --parallel and --mesh name.

    Raises:
        ValueError: if they do not go together.
    """
    from flaxgen import parallel

    sizes = parse_mesh(parsed.mesh) if parsed.mesh else {}
    if sizes and parsed.parallel != "mesh":
        raise ValueError(f"--mesh {parsed.mesh} needs --parallel mesh, got --parallel {parsed.parallel}")
    return parallel.make_plan(parsed.parallel, **sizes)


def parse_mesh(text: str) -> dict[str, int]:
    """The sizes that --mesh names; raises ValueError unless they are of data and fsdp."""
    sizes = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if name not in ("data", "fsdp") or not size.isdigit():
            raise ValueError(f"--mesh {text}: expected data=N,fsdp=M")
        sizes[name] = int(size)
    return sizes


def check_seed(seed: int) -> None:
    """Raises ValueError unless JAX tells the seed from all others."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed {seed}: expected 0 to {2**32 - 1}")
