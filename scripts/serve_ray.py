"""Draws for others on several machines: the studio's device worker as a Ray Serve deployment (docs/studio.md).

python scripts/serve_ray.py scenes --replicas 2
"""

import argparse
import asyncio
import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

try:
    import ray
    from ray import serve
    from ray.exceptions import RayActorError
    from ray.serve.exceptions import BackPressureError, RayServeException

    from flaxgen.app import direct
    from flaxgen.app.catalogue import find_models
    from flaxgen.app.guard import LOOPBACK, Door
    from flaxgen.app.limits import Limits
    from flaxgen.app.messages import Asked
    from flaxgen.app.replies import Failure
    from flaxgen.app.serve import check_host, listen, names_of
    from flaxgen.app.submitting import RETRY
    from flaxgen.cli.studio import TOKEN
except ImportError as error:
    print(f"serve_ray: error: {error.name} is missing: pip install 'flaxgen[ray]'", file=sys.stderr)
    raise SystemExit(2) from None

APP, PAINTER = "flaxgen", "Painter"
LIMITS = Limits()
LOGGING = {"log_level": "WARNING", "enable_access_log": False}
GATHER = 0.02
"""Seconds that a job waits for others that are drawn with it."""
DEVICES: Mapping[str, dict[str, Any]] = {
    "CPU": {"num_cpus": 1}, "GPU": {"num_cpus": 1, "num_gpus": 1}, "TPU": {"num_cpus": 1, "resources": {"TPU": 1}},
}  # fmt: skip
"""What a replica has to itself, in Ray's words."""


class Offer(NamedTuple):
    """The models by their names or directories, on so many replicas, of which each holds some at a time."""

    models: Sequence[str]
    replicas: int
    held: int
    accelerator: str


def painter(offer: Offer) -> serve.Deployment:
    """The deployment whose replicas own a device each, and of the models those that were asked for last."""

    class Painter:
        async def __init__(self):
            from flaxgen import cache

            cache.begin()
            self._entries = direct.without_pictures(find_models(offer.models))
            self._replica = serve.get_replica_context().replica_id.unique_id
            self._device, self._idle = asyncio.Lock(), asyncio.Event()
            self._idle.set()
            for name in list(self._entries)[: offer.held]:  # the router prefers who holds a model: all do
                await self.model(name)

        @serve.multiplexed(max_num_models_per_replica=offer.held)
        async def model(self, name: str) -> Any:
            """A model that this replica holds, or that it reads now."""
            return await asyncio.to_thread(self._entries[name].load)

        async def draw(self, asked: Asked) -> direct.Drawn:
            """A job, which waits while others are drawn: all that waited are taken at once."""
            await self._idle.wait()
            return await self.draw_batch(asked)

        @serve.batch(max_batch_size=LIMITS.together, batch_wait_timeout_s=GATHER)
        async def draw_batch(self, asked: list[Asked]) -> list[direct.Drawn]:
            """Jobs that came at about the same time: Ray Serve calls this for each model among them."""
            name = asked[0].model
            async with self._device:
                self._idle.clear()
                try:
                    model = await self.model(name)
                    drawn = await asyncio.to_thread(direct.draw, self._entries[name], model, asked, LIMITS)
                except (ValueError, OSError) as error:  # of a model that cannot be read
                    drawn = [direct.Drawn([], direct.what_failed(error))] * len(asked)
                finally:
                    self._idle.set()
            return [one._replace(replica=self._replica) for one in drawn]

    return serve.deployment(
        Painter, name=PAINTER, num_replicas=offer.replicas, ray_actor_options=DEVICES[offer.accelerator],
        max_ongoing_requests=2 * LIMITS.together, max_queued_requests=LIMITS.waiting_of_all,
    )  # fmt: skip


def gate(offer: Offer, door: Door) -> serve.Deployment:
    """The deployment that HTTP comes to: the studio's gate and checks, which need no device."""

    def build() -> Callable:
        on_the_cpu()
        entries = direct.without_pictures(find_models(offer.models))
        painters = serve.get_deployment_handle(PAINTER, app_name=APP)

        async def ask(asked: Asked) -> direct.Drawn:
            try:
                return await painters.options(multiplexed_model_id=asked.model).draw.remote(asked)
            except BackPressureError:
                raise Failure(429, "too many wait: try again later", kind="queue_full", headers=RETRY) from None
            except (RayActorError, RayServeException):
                raise Failure(503, "the replica is gone: try again", kind="server_error", headers=RETRY) from None

        return direct.make_app(entries, LIMITS, door, ask)

    most = 2 * LIMITS.waiting_of_all
    return serve.deployment(
        serve.ingress(build)(), name="Gate", ray_actor_options={"num_cpus": 0}, max_ongoing_requests=most,
        max_queued_requests=most,
    )  # fmt: skip


def on_the_cpu() -> None:
    """This process takes no accelerator away from those that draw."""
    import jax

    jax.config.update("jax_platforms", "cpu")


def begin(address: str, offer: Offer) -> None:
    """Joins a cluster, or starts one on this machine alone.

    Raises:
        ValueError: if it serves something already, or has too few devices.
        OSError: if there is none.
    """
    local = address == "local"
    if local:  # Ray listens at all addresses: it asks those who come for a token, which is this one
        os.environ |= {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    cpus = max(offer.replicas, os.cpu_count() or 1) if local else None
    ray.init(address=address, num_cpus=cpus, include_dashboard=False if local else None, logging_level="ERROR")
    logging.getLogger("ray.serve").setLevel("WARNING")
    status = serve.status()
    if status.proxies or status.applications:
        raise ValueError("Ray Serve runs in this cluster already: `serve shutdown` ends it")
    have = int(ray.cluster_resources().get(offer.accelerator, 0))
    if local and have < offer.replicas:
        raise ValueError(f"--replicas {offer.replicas} need one {offer.accelerator} each: this machine has {have}")


def run(parsed: argparse.Namespace) -> None:
    """Serves until it is interrupted.

    Raises:
        ValueError, OSError: if models, address or cluster cannot be used.
    """
    token = parsed.token or os.environ.get(TOKEN, "")
    local = check_host(parsed.host, token)
    on_the_cpu()
    names = direct.without_pictures(find_models(parsed.model))
    listen(parsed.host, parsed.port).close()
    known = LOOPBACK if local else LOOPBACK | names_of(parsed.host, parsed.name)
    offer = Offer(parsed.model, parsed.replicas, parsed.held, parsed.accelerator)
    door = Door(token, secrets.token_bytes(32), known, not local, parsed.port)
    try:
        begin(parsed.address, offer)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has one of its own
        _serve(offer, door, parsed.host, f"flaxgen with {', '.join(names)}", parsed.address == "local")
    finally:
        ray.shutdown()


def _serve(offer: Offer, door: Door, host: str, what: str, alone: bool) -> None:
    try:
        http = {"host": host, "port": door.port}
        serve.start(proxy_location="HeadOnly", http_options=http, logging_config=LOGGING)
        serve.run(gate(offer, door).bind(painter(offer).bind()), name=APP, route_prefix="/", logging_config=LOGGING)
        shown = f"[{host}]" if ":" in host else host
        where = f"{offer.replicas} x {offer.accelerator} at http://{shown}:{door.port}/"
        print(f"{what} on {where} (Ctrl+C ends it)", flush=True)
        signal.pause()
    finally:
        if not alone:  # a cluster of our own ends as a whole, and its parts may have had the signal too
            serve.shutdown()


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="serve_ray", description="draw for others on the machines of a Ray cluster")
    parser.add_argument("model", nargs="+", help="models that come along, or directories, on every machine the same")
    parser.add_argument("--replicas", type=at_least(1), default=1, help="how many draw, each on a device (1)")
    parser.add_argument("--accelerator", choices=list(DEVICES), default="CPU", help="what each has to itself (CPU)")
    parser.add_argument("--held", type=at_least(1), default=3, help="models that a replica has read at a time (3)")
    parser.add_argument(
        "--address", default="local",
        help="the Ray cluster, HOST:PORT, or auto for the one that runs here (one of this machine alone)",
    )  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="another than loopback needs a token (127.0.0.1)")
    parser.add_argument("--port", type=at_least(1), default=7860, help="the port (7860)")
    parser.add_argument("--token", default="", help=f"what others have to show (the variable {TOKEN}, or none)")
    parser.add_argument("--name", nargs="+", default=[], help="names by which others call this machine")
    return parser


def at_least(least: int) -> Callable[[str], int]:
    """A whole number of a flag."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text[:32]!r}: expected {least} or more")
        return int(text)

    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parsed = make_parser().parse_args(arguments)
    try:
        run(parsed)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as error:
        print(f"serve_ray: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
