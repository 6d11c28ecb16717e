"""Scene graph detection: boxes, classes and predicates predicted."""

from linknet_jax import config as base


def get_config(variant: str = ""):
    """`variant`: names joined by commas, see linknet_jax/variants.py."""
    return base.get_config("sgdet", variant)
