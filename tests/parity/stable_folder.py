"""Tiny Stable Diffusion pipelines of random weights, made of the classes of diffusers and transformers themselves."""

import diffusers
import torch
import transformers
from karlo_folder import CONTEXT, make_tokenizer, shake

SIDE, FACTOR = 8, 2
SIZE = SIDE * FACTOR
"""Pixels of a side of what is drawn."""
TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
WIDTHS = {"clip": 24, "clip_2": 16}


def text_encoder(tokenizer, width, projection=0, activation="quick_gelu"):
    kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    return shake(
        kind(
            transformers.CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=width,
                intermediate_size=2 * width,
                projection_dim=projection or width,
                num_hidden_layers=3,
                num_attention_heads=2,
                max_position_embeddings=CONTEXT,
                hidden_act=activation,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        ),
        0.2,
    )


def t5(vocab_size, width, **more):
    """A T5 encoder of version 1.1."""
    torch.manual_seed(1)
    sizes = {"d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    config = {**sizes, "feed_forward_proj": "gated-gelu", **more}
    model = transformers.T5EncoderModel(transformers.T5Config(vocab_size=vocab_size, d_model=width, **config))
    return shake(model, 0.2)


def unet(width, channels=4, **more):
    return shake(
        diffusers.UNet2DConditionModel(
            sample_size=SIDE,
            in_channels=channels,
            out_channels=4,
            block_out_channels=(16, 32),
            layers_per_block=1,
            norm_num_groups=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=(2, 4),
            cross_attention_dim=width,
            **more,
        )
    )


def vae(**more):
    sizes = {"sample_size": SIZE, "block_out_channels": (8, 16), "norm_num_groups": 4, "latent_channels": 4}
    return shake(
        diffusers.AutoencoderKL(
            down_block_types=2 * ("DownEncoderBlock2D",),
            up_block_types=2 * ("UpDecoderBlock2D",),
            **{**sizes, "scaling_factor": 0.5, **more},
        )
    )


def scheduler(name="PNDMScheduler", **more):
    known = {"PNDMScheduler": {"skip_prk_steps": True, "set_alpha_to_one": False},
             "DDIMScheduler": {"clip_sample": False, "set_alpha_to_one": False}}  # fmt: skip
    kind = getattr(diffusers, name)
    spacing = {"timestep_spacing": "leading"}
    return kind(**{**TABLE, **spacing, **known.get(name, {}), **more})


def stable(channels=4, kind=None, **more):
    """A pipeline of version 1."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    parts = {
        "tokenizer": tokenizer,
        "text_encoder": text_encoder(tokenizer, WIDTHS["clip"]),
        "unet": unet(WIDTHS["clip"], channels),
        "vae": vae(),
        "scheduler": scheduler(**more),
    }
    none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return (kind or diffusers.StableDiffusionPipeline)(**parts, **none)


def stable_xl(kind=None, numbers=6, **more):
    """A pipeline of version XL, with one encoder fewer where it is a refiner's."""
    torch.manual_seed(0)
    first, second = make_tokenizer(), make_tokenizer()
    pooled, is_refiner = 12, numbers == 5
    widths = [WIDTHS["clip_2"]] if is_refiner else list(WIDTHS.values())
    encoder = None if is_refiner else text_encoder(first, WIDTHS["clip"])
    parts = {
        "tokenizer": None if is_refiner else first,
        "tokenizer_2": second,
        "text_encoder": encoder,
        "text_encoder_2": text_encoder(second, WIDTHS["clip_2"], pooled, "gelu"),
        "unet": unet(
            sum(widths),
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=pooled + numbers * 256,
            use_linear_projection=True,
        ),
        "vae": vae(),
        "scheduler": scheduler(**more),
    }
    refines = {"requires_aesthetics_score": True} if is_refiner else {}
    return (kind or diffusers.StableDiffusionXLPipeline)(**parts, **refines, add_watermarker=False)


def transformer(width, pooled, **more):
    """A net of Stable Diffusion 3."""
    model = diffusers.SD3Transformer2DModel(
        sample_size=SIDE,
        patch_size=2,
        in_channels=16,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=width,
        caption_projection_dim=32,
        pooled_projection_dim=pooled,
        out_channels=16,
        pos_embed_max_size=12,
        **more,
    )
    return shake(model)


def t5_tokenizer():
    """T5's kind, of a few pieces: padding is 0, the end 1."""
    words = [
        "<pad>",
        "</s>",
        "<unk>",
        "\u2581",
        "\u2581red",
        "\u2581square",
        "\u2581blue",
        *"abcdefghijklmnopqrstuvwxyz",
    ]
    return transformers.T5TokenizerFast(vocab=[(word, -float(i)) for i, word in enumerate(words)], extra_ids=0)


def stable_3(kind=None, third=True, **more):
    """A pipeline of version 3 or, with `qk_norm` and dual attention, 3.5; with a T5 where there is a `third`."""
    torch.manual_seed(0)
    first, second, tokenizer = make_tokenizer(), make_tokenizer(), t5_tokenizer()
    width, pooled = sum(WIDTHS.values()) + 8, (24, 12)
    parts = {
        "tokenizer": first,
        "tokenizer_2": second,
        "tokenizer_3": tokenizer if third else None,
        "text_encoder": text_encoder(first, WIDTHS["clip"], pooled[0]),
        "text_encoder_2": text_encoder(second, WIDTHS["clip_2"], pooled[1], "gelu"),
        "text_encoder_3": t5(len(tokenizer), width) if third else None,
        "transformer": transformer(width, sum(pooled), **more),
        "vae": vae(latent_channels=16, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    }
    return (kind or diffusers.StableDiffusion3Pipeline)(**parts)
