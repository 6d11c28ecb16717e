"""Predicate classification: boxes and classes given, predicates predicted."""

from linknet_jax import config as base


def get_config(variant: str = ""):
    """`variant`: names joined by commas, see linknet_jax/variants.py."""
    config = base.get_config("predcls", variant)
    config.model.predcls_l = "gt"  # its own training sees true labels only (A2)
    return config
