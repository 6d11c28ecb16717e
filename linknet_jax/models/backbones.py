"""The trunks that `model.trunk` names."""

from linknet_jax.models.efficientnet import EfficientNetLite0
from linknet_jax.models.resnet import RESNETS
from linknet_jax.models.trunks import VGG16, SmallTrunk

TRUNKS = {
    "small": SmallTrunk, "vgg16": VGG16, "efficientnet_lite0": EfficientNetLite0, **RESNETS,
}  # fmt: skip
