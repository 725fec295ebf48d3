"""Tiny unCLIP pipelines of random weights, made of the classes of diffusers and transformers themselves."""

import string

import diffusers
import torch
import transformers
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel

DIM, CONTEXT, SMALL, LARGE = 24, 11, 8, 32
"""Were image and text tokens, CONTEXT + 4, as many as pixels that attend, diffusers would not pad its mask."""
MERGES = [("r", "e"), ("re", "d</w>"), ("a", "</w>"), ("s", "q")]
RESNETS = {"down_block_types": 2 * ("ResnetDownsampleBlock2D",), "up_block_types": 2 * ("ResnetUpsampleBlock2D",)}
LEVELS = {"block_out_channels": (16, 32), "norm_num_groups": 4, "layers_per_block": 1}


def make_tokenizer():
    """CLIP's kind, that pads with "!" = 0 as Karlo's does; the end is its largest id."""
    letters = string.ascii_lowercase + "."
    words = ["!", *letters, *(f"{letter}</w>" for letter in letters), "re", "red</w>", "sq"]
    vocab = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    merges = [pair for pair in MERGES if "".join(pair) in vocab and pair[1] != "</w>"]
    return transformers.CLIPTokenizer(vocab=vocab, merges=merges, pad_token="!", model_max_length=CONTEXT)


def shake(model, size=0.05):
    """No tensor at 0 or 1, and outputs of some size."""
    with torch.no_grad():
        for value in model.parameters():
            value.add_(size * torch.randn_like(value))
    return model.eval()


def text_encoder(tokenizer):
    return transformers.CLIPTextModelWithProjection(
        transformers.CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=DIM,
            intermediate_size=48,
            projection_dim=DIM,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def image_encoder():
    return transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            projection_dim=DIM,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=LARGE,
            patch_size=8,
        )
    )


def image_processor():
    sizes = {"size": {"shortest_edge": LARGE}, "crop_size": {"height": LARGE, "width": LARGE}}
    return transformers.CLIPImageProcessor(**sizes, image_mean=[0.4, 0.5, 0.6], image_std=[0.3, 0.25, 0.2])


def prior():
    model = diffusers.PriorTransformer(
        num_attention_heads=2, attention_head_dim=12, embedding_dim=DIM, num_layers=2, num_embeddings=CONTEXT
    )
    model = shake(model)
    with torch.no_grad():
        model.clip_mean.normal_()
        model.clip_std.uniform_(0.5, 1.5)
    return model


def decoder():
    return diffusers.UNet2DConditionModel(
        sample_size=SMALL,
        in_channels=3,
        out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        cross_attention_dim=20,
        class_embed_type="identity",
        attention_head_dim=8,
        resnet_time_scale_shift="scale_shift",
        **LEVELS,
    )


def super_res():
    return diffusers.UNet2DModel(
        sample_size=LARGE, in_channels=6, out_channels=3, add_attention=False, **RESNETS, **LEVELS
    )


def scheduler(**values):
    return diffusers.UnCLIPScheduler(**values)


def prior_scheduler(reach=5.0):
    return scheduler(prediction_type="sample", clip_sample_range=reach)


def shared_parts():
    """What both pipelines have; the same numbers every time."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    projection = UnCLIPTextProjModel(clip_embeddings_dim=DIM, time_embed_dim=64, cross_attention_dim=20)
    return {
        "tokenizer": tokenizer,
        "text_encoder": shake(text_encoder(tokenizer)),
        "text_proj": shake(projection),
        "decoder": shake(decoder()),
        "super_res_first": shake(super_res()),
        "super_res_last": shake(super_res()),
        "decoder_scheduler": scheduler(variance_type="learned_range"),
        "super_res_scheduler": scheduler(),
    }


def text_pipeline():
    """UnCLIPPipeline."""
    parts = shared_parts()
    return diffusers.UnCLIPPipeline(**parts, prior=prior(), prior_scheduler=prior_scheduler())


def variation_pipeline():
    """UnCLIPImageVariationPipeline."""
    parts = shared_parts()
    return diffusers.UnCLIPImageVariationPipeline(
        **parts, image_encoder=shake(image_encoder()), feature_extractor=image_processor()
    )


def kandinsky_prior():
    """KandinskyV22PriorPipeline."""
    torch.manual_seed(1)
    tokenizer = make_tokenizer()
    return diffusers.KandinskyV22PriorPipeline(
        prior=prior(),
        image_encoder=shake(image_encoder()),
        text_encoder=shake(text_encoder(tokenizer)),
        tokenizer=tokenizer,
        scheduler=prior_scheduler(10.0),
        image_processor=image_processor(),
    )
