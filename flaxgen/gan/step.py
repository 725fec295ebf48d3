"""One train step of a game: the discriminator's moves, then the generator's, each with its regulariser."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from flaxgen import parallel
from flaxgen.gan.diversity import diversity, spread
from flaxgen.gan.regularize import path_length_mean, path_length_penalty, path_lengths
from flaxgen.gan.state import Critic, Examples, Game, GanState, Label, Logits, PathLength, Player, Rules, Variables
from flaxgen.types import Batch, Keys, Metrics, Params, PRNGKey, TrainStep

NAN_DECAY = 0.999
"""Of the running share of gradients that are no numbers: long beside the steps between two looks at it."""
LARGEST_GRADIENT = 1e5
"""What takes the place of an infinite gradient, as in NVlabs' code."""
SEEN = ("real_logit", "fake_logit", "real_sign", "diversity", "spread")
"""What is logged as the discriminator's steps have seen it."""


def make_train_step(game: Game, rules: Rules, *, axis_name: str | None = None) -> TrainStep:
    """The step that `rules` describe, on one device; `axis_name` names the devices to average over.

    A step reads one batch. The discriminator takes its `d_steps` steps on as many equal parts of it (part i has the
    examples i, i + d_steps, ...), each against as many fresh fakes, and the generator draws as many as a part has. A
    lazy regulariser is a step of its own that is compiled along and run every so many steps only.

    Gradients that are no numbers become 0; `nan_share` counts them, and where it passes its bound `grad_norm` is nan,
    at which the loop stops. Metrics: `diversity` and `spread` (gan/diversity.py), of which the first falls as modes are
    lost and both where all fakes become one; `real_sign` is E[sign D(real)].

    Raises:
        ValueError: if path lengths are wanted of a game without halves; when traced, if a device's share of the batch
            is no multiple of `d_steps`, or its part none of `path_length.shrink`.
    """
    if rules.path_length is not None and game.halves is None:
        raise ValueError("path_length needs a generator with a w between its halves, and this one has none")
    return _Play(game, rules, axis_name).step


class _Play(NamedTuple):
    """What stays the same from step to step."""

    game: Game
    rules: Rules
    axis_name: str | None

    def step(self, state: GanState, batch: Batch, key: PRNGKey) -> tuple[GanState, Metrics]:
        first, second, third, fourth = jax.random.split(jax.random.fold_in(key, state.step), 4)
        state, part, seen = self.discriminator_steps(state, batch, first)
        state, penalty_nans = self.lazy_penalty(state, part, second)
        state, moved = self.generator_step(state, part, third)
        state, path_nans = self.lazy_path_length(state, part, fourth)
        nans = jnp.stack([seen["nans"], moved["nans"], penalty_nans, path_nans]).max()
        average = optax.incremental_update(
            state.generator.variables["params"], state.ema_params["params"], 1 - self.rules.ema_decay(state.step)
        )
        control = self.rules.control
        state = state._replace(
            step=state.step + 1,
            ema_params={**state.generator.variables, "params": average},
            controller=state.controller if control is None else control(state.controller, seen["real_sign"]),
            nan_share=NAN_DECAY * state.nan_share + (1 - NAN_DECAY) * nans,
        )
        return state, self.metrics(state, seen, moved)

    def metrics(self, state: GanState, seen: dict[str, Array], moved: dict[str, Array]) -> Metrics:
        """What is logged of a step; `loss` is the sum of both players'."""
        losses = {"discriminator_loss": seen["loss"], "generator_loss": moved["loss"]}
        losses = {name: jnp.nan_to_num(loss) for name, loss in losses.items()}
        norm = jnp.hypot(seen["grad_norm"], moved["grad_norm"])
        return {
            "loss": sum(losses.values(), jnp.zeros(())),
            **losses,
            **{name: seen[name] for name in SEEN},
            **({} if self.rules.penalty is None else {"penalty": state.penalty}),
            **({} if self.rules.path_length is None else {"path_length": state.path_mean}),
            **({} if self.rules.control is None else {"augment_probability": state.controller.probability}),
            "grad_norm": jnp.where(state.nan_share > self.rules.max_nan_share, jnp.nan, norm),
            "nan_share": state.nan_share,
        }

    def discriminator_steps(self, state: GanState, batch: Batch, key: PRNGKey) -> tuple[GanState, Batch, dict]:
        """After the discriminator's steps: the last part of the batch, and the means of what was measured."""
        count, size = self.rules.d_steps, jax.tree.leaves(batch)[0].shape[0]
        if size % count:
            raise ValueError(f"a device's {size} examples of a batch are no multiple of d_steps={count}")
        if count == 1:
            state, seen = self.discriminator_step(state, batch, key)
            return state, batch, seen
        parts = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), dict(batch))

        def one(state, inputs):
            return self.discriminator_step(state, *inputs)

        state, seen = jax.lax.scan(one, state, (parts, jax.random.split(key, count)))
        return state, jax.tree.map(lambda x: x[-1], parts), jax.tree.map(lambda x: x.mean(0), seen)

    def discriminator_step(self, state: GanState, part: Batch, key: PRNGKey) -> tuple[GanState, dict[str, Array]]:
        real, label = self.game.read(part)
        latent_keys, net_keys, real_keys, fake_keys, penalty_keys = self.keys(key, len(real), 5)
        fake = self.game.generate(state.generator.variables, self.game.latents(latent_keys), label, net_keys)
        penalty = self.rules.penalty if self.rules.penalty_interval == 1 else None

        def loss(params):
            variables = {**state.discriminator.variables, "params": params}
            real_logits = self.judge(variables, state, label, real, real_keys)
            fake_logits = self.judge(variables, state, label, fake, fake_keys)
            value = self.rules.loss.discriminator(real_logits, fake_logits)
            seen = {"loss": value, "real_logit": real_logits.mean(), "fake_logit": fake_logits.mean()}
            seen |= {"real_sign": jnp.sign(real_logits).mean(), "penalty": jnp.zeros(())}
            if penalty is not None:
                seen["penalty"] = penalty(self.critic(variables, state, label), real, fake, penalty_keys)
            return value + seen["penalty"], seen

        grads, seen = jax.grad(loss, has_aux=True)(state.discriminator.variables["params"])
        player, moved = self.update(state.discriminator, grads, self.rules.discriminator_tx)
        if self.game.track_discriminator is not None:
            before = state.discriminator.variables
            player = self.track(player, self.game.track_discriminator(before, real, label))
        seen = parallel.mean_over(self.axis_name, seen)
        seen |= {"diversity": diversity(fake, real, self.axis_name), "spread": spread(fake, real, self.axis_name)}
        state = state._replace(discriminator=player)
        if penalty is not None:
            state = state._replace(penalty=jnp.nan_to_num(seen["penalty"]))
        return state, seen | moved

    def lazy_penalty(self, state: GanState, part: Batch, key: PRNGKey) -> tuple[GanState, Float[Array, ""]]:
        """The discriminator's penalty in a step of its own, where it is due; with the share of bad gradients."""
        penalty, interval = self.rules.penalty, self.rules.penalty_interval
        if penalty is None or interval == 1:
            return state, jnp.zeros(())

        def penalise(player: Player, _):
            real, label = self.game.read(part)
            latent_keys, net_keys, penalty_keys = self.keys(key, len(real), 3)
            fake = self.game.generate(state.generator.variables, self.game.latents(latent_keys), label, net_keys)

            def loss(params):
                critic = self.critic({**player.variables, "params": params}, state, label)
                value = penalty(critic, real, fake, penalty_keys)
                return interval * value, value

            grads, value = jax.grad(loss, has_aux=True)(player.variables["params"])
            player, moved = self.update(player, grads, self.rules.discriminator_tx)
            return player, jnp.nan_to_num(parallel.mean_over(self.axis_name, value)), moved["nans"]

        now = state.step % interval == 0
        player, value, nans = jax.lax.cond(now, penalise, _leave, state.discriminator, state.penalty)
        return state._replace(discriminator=player, penalty=value), nans

    def generator_step(self, state: GanState, part: Batch, key: PRNGKey) -> tuple[GanState, dict[str, Array]]:
        real, label = self.game.read(part)
        latent_keys, net_keys, real_keys, fake_keys = self.keys(key, len(real), 4)
        z, judges = self.game.latents(latent_keys), state.discriminator.variables
        real_logits = self.judge(judges, state, label, real, real_keys)

        def loss(params):
            fake = self.game.generate({**state.generator.variables, "params": params}, z, label, net_keys)
            value = self.rules.loss.generator(real_logits, self.judge(judges, state, label, fake, fake_keys))
            return value, value

        grads, value = jax.grad(loss, has_aux=True)(state.generator.variables["params"])
        player, moved = self.update(state.generator, grads, self.rules.generator_tx)
        if self.game.track_generator is not None:
            before = state.generator.variables
            player = self.track(player, self.game.track_generator(before, z, label))
        return state._replace(generator=player), {"loss": parallel.mean_over(self.axis_name, value), **moved}

    def lazy_path_length(self, state: GanState, part: Batch, key: PRNGKey) -> tuple[GanState, Float[Array, ""]]:
        """The generator's regulariser in a step of its own, where it is due; with the share of bad gradients."""
        rule = self.rules.path_length
        if rule is None:
            return state, jnp.zeros(())
        size = jax.tree.leaves(part)[0].shape[0]
        if size % rule.shrink:
            raise ValueError(f"a device's {size} examples for the generator are no multiple of shrink={rule.shrink}")
        _, label = self.game.read(jax.tree.map(lambda x: x[:: rule.shrink], dict(part)))

        def regularise(player: Player, mean: Float[Array, ""]):
            keys = self.keys(key, size // rule.shrink, 4)

            def loss(params):
                return self.path_length_loss(rule, {**player.variables, "params": params}, mean, label, keys)

            grads, new = jax.grad(loss, has_aux=True)(player.variables["params"])
            player, moved = self.update(player, grads, self.rules.generator_tx)
            return player, jnp.where(jnp.isfinite(new), new, mean), moved["nans"]

        now = state.step % rule.interval == 0
        player, mean, nans = jax.lax.cond(now, regularise, _leave, state.generator, state.path_mean)
        return state._replace(generator=player, path_mean=mean), nans

    def path_length_loss(
        self, rule: PathLength, variables: Variables, mean: Float[Array, ""], label: Label, keys: tuple[Keys, ...]
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The penalty with its weight and interval, and the new running mean of lengths."""
        assert self.game.halves is not None
        map_latents, synthesize = self.game.halves
        latent_keys, map_keys, net_keys, direction_keys = keys
        w = map_latents(variables, self.game.latents(latent_keys), label, map_keys)
        lengths = path_lengths(lambda w: synthesize(variables, w, net_keys), w, direction_keys)
        mean = path_length_mean(mean, parallel.mean_over(self.axis_name, lengths.mean()), rule.decay)
        return rule.interval * rule.weight * path_length_penalty(lengths, mean), mean

    def critic(self, variables: Variables, state: GanState, label: Label) -> Critic:
        return lambda examples, keys: self.judge(variables, state, label, examples, keys)

    def judge(self, variables: Variables, state: GanState, label: Label, examples: Examples, keys: Keys) -> Logits:
        """What the discriminator of these variables says of augmented examples."""
        if self.rules.augment is not None:
            examples = self.rules.augment(examples, state.controller.probability, keys)
        return self.game.discriminate(variables, examples, label)

    def keys(self, key: PRNGKey, size: int, uses: int) -> tuple[Keys, ...]:
        """For each use, one key an example of this device."""
        keys = parallel.example_keys(key, size, self.axis_name)
        return jax.vmap(lambda key: tuple(jax.random.split(key, uses)))(keys)

    def update(self, player: Player, grads: Params, tx: optax.GradientTransformation) -> tuple[Player, dict]:
        """The player after a step along the mean gradient, whose norm and share of no numbers are measured."""
        grads = parallel.mean_over(self.axis_name, grads)
        leaves = jax.tree.leaves(grads)
        nans = sum(jnp.sum(~jnp.isfinite(x)) for x in leaves) / sum(x.size for x in leaves)
        grads = jax.tree.map(lambda x: jnp.nan_to_num(x, posinf=LARGEST_GRADIENT, neginf=-LARGEST_GRADIENT), grads)
        params = player.variables["params"]
        updates, opt_state = tx.update(grads, player.opt_state, params)
        moved = Player({**player.variables, "params": optax.apply_updates(params, updates)}, opt_state)
        return moved, {"nans": jnp.asarray(nans, jnp.float32), "grad_norm": optax.tree.norm(grads)}

    def track(self, player: Player, tracked: Variables) -> Player:
        """With these collections beside `params`; what is not finite stays as it was."""
        tracked = parallel.mean_over(self.axis_name, dict(tracked))
        kept = {name: player.variables[name] for name in tracked}
        kept = jax.tree.map(lambda new, old: jnp.where(jnp.isfinite(new), new, old), tracked, kept)
        return player._replace(variables={**player.variables, **kept})


def _leave(player: Player, value: Float[Array, ""]) -> tuple[Player, Float[Array, ""], Float[Array, ""]]:
    """What a lazy regulariser does where it is not due."""
    return player, value, jnp.zeros(())
