"""What a checkpoint is trained for and what it is evaluated on."""

from ml_collections import ConfigDict

from linknet_jax.tasks.classification import PredicateClassification, SceneGraphClassification
from linknet_jax.tasks.detection import Detection
from linknet_jax.tasks.sgdet import GivenDetections, SceneGraphDetection

Task = SceneGraphClassification | Detection
TASKS = {
    "sgcls": SceneGraphClassification,
    "predcls": PredicateClassification,
    "sgdet": SceneGraphDetection,
    "detector": Detection,
}
EVALUATED = {
    "sgcls": ("sgcls", "predcls"),
    "predcls": ("predcls",),
    "sgdet": ("sgdet", "sgcls", "predcls"),
    "detector": ("detector",),
}


def create_task(config: ConfigDict, num_objects: int, num_predicates: int, name: str = "") -> Task:
    """The task of that name, else the configured one; class counts include index 0.

    With `data.detections` the boxes of SGDet come from that file.
    """
    name = name or config.task
    given = name == "sgdet" and config.data.detections
    return (GivenDetections if given else TASKS[name])(config, num_objects, num_predicates)


def evaluated_tasks(config: ConfigDict) -> tuple[str, ...]:
    """The tasks that a checkpoint of this configuration is evaluated on."""
    names = EVALUATED[config.task]
    given = config.data.detections and names[0] in ("sgcls", "predcls")
    return ("sgdet", *names) if given else names
