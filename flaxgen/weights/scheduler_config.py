"""The scheduler_config.json of diffusers' schedulers: one table a class. What they say of the noise process is in our
words, what they say of sampling in theirs."""

from collections.abc import Mapping
from typing import Any

from flaxgen.weights.fields import COUNT, FLAG, NUMBER, POSITIVE, TEXT, Field, Kind, Table, choice, only

SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
VARIANCES = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "fixed_large_log": "large",
    "learned_range": "learned",
    None: "small",
}
WHOLE = Kind("a whole number", lambda value: type(value) is int and abs(value) < 2**31)
ANY = Kind("anything", lambda value: True)
"""Of keys that are read to say that they are not taken."""


def _process(beta_start: float = 1e-4, beta_end: float = 0.02, schedule: str = "linear") -> tuple[Field, ...]:
    """What all say of the process, with betas of the table."""
    return (
        Field("num_train_timesteps", 1000, COUNT, "timesteps"),
        Field("beta_start", beta_start, POSITIVE, "beta_start"),
        Field("beta_end", beta_end, POSITIVE, "beta_end"),
        Field("beta_schedule", schedule, choice(SCHEDULES), "schedule"),
        Field("prediction_type", "epsilon", choice(PREDICTIONS), "prediction"),
        Field("trained_betas", None, only(None)),
        Field("predict_epsilon", True, only(True), written=False),
        Field("use_flow_sigmas", False, only(False), written=False),
        Field("timestep_type", "discrete", only("discrete"), written=False),
    )


def _as_it_is(key: str, default: Any, kind: Kind = ANY) -> Field:
    return Field(key, default, kind, key)


def _grid(spacing: str) -> tuple[Field, ...]:
    return (_as_it_is("timestep_spacing", spacing, TEXT), _as_it_is("steps_offset", 0, WHOLE))


def _clip(by_default: bool) -> tuple[Field, ...]:
    return (_as_it_is("clip_sample", by_default, FLAG), _as_it_is("clip_sample_range", 1.0, POSITIVE))


ZERO_SNR = Field("rescale_betas_zero_snr", False, FLAG, "zero_terminal_snr")
THRESHOLDING = (
    _as_it_is("thresholding", False, FLAG),
    _as_it_is("dynamic_thresholding_ratio", 0.995, NUMBER),
    _as_it_is("sample_max_value", 1.0, NUMBER),
)
VARIANCE = Field("variance_type", "fixed_small", choice(VARIANCES), "variance")
KARRAS = (
    _as_it_is("use_karras_sigmas", False, FLAG),
    _as_it_is("use_exponential_sigmas", False),
    _as_it_is("use_beta_sigmas", False),
)
FINAL = _as_it_is("final_sigmas_type", "zero", only("zero", "sigma_min"))
CLEAN_END = "set_alpha_to_one"
FLOWS = (
    _as_it_is("flow_shift", 1.0),
    _as_it_is("use_dynamic_shifting", False),
    Field("time_shift_type", "exponential", ANY),
)
"""Of flows, which no table of betas is."""
RANGE = (_as_it_is("sigma_min", None), _as_it_is("sigma_max", None))

TABLES = {
    table.name: table
    for table in (
        Table(
            "DDPMScheduler",
            (*_process(), ZERO_SNR, *_clip(True), *THRESHOLDING, *_grid("leading"), VARIANCE),
            open=True,
        ),
        Table(
            "DDIMScheduler",
            (*_process(), ZERO_SNR, *_clip(True), *THRESHOLDING, *_grid("leading"), _as_it_is(CLEAN_END, True, FLAG)),
            open=True,
        ),
        Table(
            "PNDMScheduler",
            (*_process(), *_grid("leading"), _as_it_is(CLEAN_END, False, FLAG), _as_it_is("skip_prk_steps", False)),
            open=True,
        ),
        Table(
            "DPMSolverMultistepScheduler",
            (
                *(*_process(), ZERO_SNR, *THRESHOLDING, *_grid("linspace"), *KARRAS, FINAL, *FLOWS),
                _as_it_is("solver_order", 2),
                _as_it_is("algorithm_type", "dpmsolver++"),
                _as_it_is("solver_type", "midpoint"),
                _as_it_is("lower_order_final", True),
                _as_it_is("euler_at_final", False),
                _as_it_is("use_lu_lambdas", False),
                Field("lambda_min_clipped", -float("inf"), ANY, "lambda_min_clipped", written=False),
                Field("variance_type", None, choice({None: "small", **VARIANCES}), "variance"),
            ),
            open=True,
        ),
        Table(
            "UniPCMultistepScheduler",
            (
                *(*_process(), ZERO_SNR, *THRESHOLDING, *_grid("linspace"), *KARRAS, FINAL, *FLOWS, *RANGE),
                _as_it_is("solver_order", 2),
                _as_it_is("solver_type", "bh2"),
                _as_it_is("predict_x0", True),
                _as_it_is("lower_order_final", True),
                _as_it_is("disable_corrector", []),
                _as_it_is("solver_p", None),
                _as_it_is("shift_terminal", None),
            ),
            open=True,
        ),
        Table(
            "EulerDiscreteScheduler",
            (
                *(*_process(), ZERO_SNR, *_grid("linspace"), *KARRAS, FINAL, *RANGE),
                _as_it_is("interpolation_type", "linear"),
            ),
            open=True,
        ),
        Table("EulerAncestralDiscreteScheduler", (*_process(), ZERO_SNR, *_grid("linspace")), open=True),
        Table(
            "HeunDiscreteScheduler",
            (*_process(0.00085, 0.012), *_clip(False), *_grid("linspace"), *KARRAS),
            open=True,
        ),
        Table(
            "LCMScheduler",
            (
                *(
                    *_process(0.00085, 0.012, "scaled_linear"),
                    ZERO_SNR,
                    *_clip(False),
                    *THRESHOLDING,
                    *_grid("leading"),
                ),
                Field(CLEAN_END, True, FLAG),  # the last step ends clean whatever it says
                _as_it_is("original_inference_steps", 50),
                _as_it_is("timestep_scaling", 10.0),
            ),
            open=True,
        ),
    )
}
"""The schedulers whose config describes a table of betas, and with it the process that the net was trained on. They are
`open`, as diffusers ignores the keys that a class does not have: the configs of two classes differ little."""

FLOW_EULER = Table(
    "FlowMatchEulerDiscreteScheduler",
    (
        Field("num_train_timesteps", 1000, only(1000)),
        Field("shift", 1.0, POSITIVE, "shift"),
        Field("use_dynamic_shifting", False, only(False)),
        Field("base_shift", 0.5, ANY),
        Field("max_shift", 1.15, ANY),
        Field("base_image_seq_len", 256, ANY),
        Field("max_image_seq_len", 4096, ANY),
        Field("invert_sigmas", False, only(False)),
        Field("shift_terminal", None, only(None)),
        Field("use_karras_sigmas", False, only(False, None)),
        Field("use_exponential_sigmas", False, only(False, None)),
        Field("use_beta_sigmas", False, only(False, None)),
        Field("time_shift_type", "exponential", ANY),
        Field("stochastic_sampling", False, only(False)),
    ),
    open=True,
)
"""That of straight paths, whose noise is the time. Of a shift that follows the picture's size there is no counterpart,
and what would say how is not read."""

UNCLIP_VARIANCES = {"fixed_small_log": "small", "learned_range": "learned"}
UNCLIP = Table(
    "UnCLIPScheduler",
    (
        Field("num_train_timesteps", 1000, COUNT, "timesteps"),
        Field("variance_type", "fixed_small_log", choice(UNCLIP_VARIANCES), "variance"),
        Field("clip_sample", True, FLAG, "clip_sample"),
        Field("clip_sample_range", 1.0, POSITIVE, "limit"),
        Field("prediction_type", "epsilon", choice({"epsilon": "eps", "sample": "x0"}), "prediction"),
        Field("beta_schedule", "squaredcos_cap_v2", choice({"squaredcos_cap_v2": "cosine"}), "schedule"),
    ),
)
"""Karlo's."""


def table_of(config: Mapping[str, Any]) -> Table:
    """The table of the class that a config is of.

    Raises:
        ValueError: if it is none of these.
    """
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in TABLES:
        raise ValueError(f"a scheduler of _class_name={name!r} is not known: expected one of {', '.join(TABLES)}")
    return TABLES[name]


def unknown_keys(table: Table, config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config says under keys that its class does not have."""
    known = {field.key for field in table.fields}
    return {key: value for key, value in config.items() if key not in known and not key.startswith("_")}
