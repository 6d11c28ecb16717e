"""Results of evaluations that never ran, with the shapes and sizes of Visual Genome's."""

from __future__ import annotations

import numpy as np

KS = (20, 50, 100)
CURVE = (1, 2, 5, 10, 20, 50, 100)
ALL = ("R", "ng-R", "mR", "ng-mR", "zR", "ng-zR", "F1", "A", "pooled-R", "ng-pooled-R",
       "head-mR", "body-mR", "tail-mR")  # fmt: skip
FREQUENT = ("on", "has", "wearing", "of", "in", "near", "with", "behind", "holding", "above",
            "sitting on", "wears")  # fmt: skip
GRAPH_CONSTRAINT = "R, mR, zR, A, F1, pooled: best predicate of a pair; ng-: none"
SHARES = [0.316, 0.156, 0.114, 0.086, 0.061, 0.048, 0.030, 0.029, 0.027, 0.019, 0.013, 0.012]


def metrics(names, seed=0, task="predcls", split="test", images=26_446, level=1.0, ks=KS):
    """One METRICS dict; `level` scales every recall."""
    rng = np.random.default_rng(seed)
    counts = relation_counts(names, images, rng)
    rng = np.random.default_rng([seed, len(task)])
    found = {f"{kind}@{k}": None for kind in ALL for k in ks}
    if images:
        found |= {key: float(x) for key, x in _recalls(rng, level, ks).items()}
    if task == "sgdet" or not images:
        found |= {f"A@{k}": None for k in ks}
    return found | {
        "mAP@50": 0.2814 if task == "sgdet" and images else None,
        "AP": 0.1472 if task == "sgdet" and images else None,
        "object_accuracy": 0.6543 if task == "sgcls" and images else None,
        "per_predicate": _per_predicate(names, counts, rng, level, ks),
        "curve": _curve(rng, level) if images else {"K": list(CURVE)} | dict.fromkeys(
            ("R", "mR", "ng-R", "ng-mR"), [None] * len(CURVE)),
        "counts": {
            "images": images, "skipped_without_relations": 12, "without_predictions": 3,
            "relations": int(counts.sum()), "absent_predicates": 0, "zero_shot_images": 4519,
        },
        "protocol": {
            "task": task, "split": split, "iou_threshold": 0.5, "iou_convention": "inclusive",
            "frame": "original", "graph_constraint": GRAPH_CONSTRAINT,
            "predictions_kept": {"constrained": "all pairs", "unconstrained": 100},
            "missing": "zero", "predicates": {"source": "vocabulary", "count": len(names)},
            "groups": "thirds of the predicates by relations in training", "images_scored": images,
            "images_skipped": 12, "zero_shot_triplets": 6129,
        },
    }  # fmt: skip


def diagnosis(names, seed=0, images=26_446):
    """What goes beside METRICS: confusion and calibration."""
    rng = np.random.default_rng(seed)
    counts = relation_counts(names, images, rng)
    shares = counts / max(counts.sum(), 1)
    rows = np.zeros((len(names) + 1, len(names) + 1), int)
    for p, count in enumerate(counts, 1):
        right = rng.uniform(0.05, 0.5) + 0.45 * min(1, 12 * shares[p - 1])
        pull = shares**0.6 * rng.gamma(0.6, size=len(names))
        chance = np.concatenate([[0.06], 0.94 * (1 - right) * pull / max(pull.sum(), 1e-9)])
        chance[p] += 1 - chance.sum()
        rows[p] = rng.multinomial(count, np.clip(chance, 0, None) / np.clip(chance, 0, 1).sum())
    number = 1000 * np.array([52, 24, 17, 13, 11, 9, 9, 10, 12, 14]) * images // 26_446
    score = np.arange(10) / 10 + 0.05 + rng.uniform(-0.02, 0.02, 10)
    right = number * np.clip(score * 0.86 + rng.uniform(-0.03, 0.03, 10), 0, 1)
    return {
        "predicates": ["(none)", *names],
        "confusion": rows.tolist(),
        "calibration": {
            "edges": np.linspace(0, 1, 11).round(6).tolist(),
            "count": number.astype(int).tolist(),
            "correct": right.astype(int).tolist(),
            "score": [float(x) if images else None for x in score],
        },
    }


def relation_counts(names, images, rng):
    """Relations of each predicate, long-tailed: the FREQUENT ones, then in random order."""
    tail = 0.06 * 0.9 ** np.arange(max(len(names) - len(SHARES), 0))
    shares = np.concatenate([SHARES, tail * 0.2])[: len(names)]
    counts = (shares / shares.sum() * images * 5.8).astype(int)
    order = [k for name in FREQUENT for k, other in enumerate(names) if name == other]
    order += [k for k in rng.permutation(len(names)) if k not in order]
    result = np.zeros(len(names), int)
    result[order] = counts
    return result


def _recalls(rng, level, ks):
    base = {"R": 0.58, "ng-R": 0.66, "mR": 0.12, "ng-mR": 0.2, "zR": 0.02, "ng-zR": 0.06,
            "F1": 0.2, "A": 0.67, "pooled-R": 0.55, "ng-pooled-R": 0.62,
            "head-mR": 0.29, "body-mR": 0.06, "tail-mR": 0.015}  # fmt: skip
    return {
        f"{kind}@{k}": level * value * (rng.uniform(0.97, 1.03) + 0.1 * i)
        for kind, value in base.items()
        for i, k in enumerate(ks)
    }


def _curve(rng, level):
    noise = rng.uniform(0.96, 1.04)
    found = {
        "R": [0.07, 0.13, 0.27, 0.43, 0.58, 0.65, 0.67],
        "mR": [0.005, 0.011, 0.032, 0.068, 0.115, 0.145, 0.16],
        "ng-R": [0.07, 0.13, 0.28, 0.46, 0.66, 0.81, 0.88],
        "ng-mR": [0.005, 0.011, 0.034, 0.078, 0.16, 0.275, 0.38],
    }
    found = {
        kind: (level ** (0.6 if "mR" not in kind else 1.6) * noise * np.array(x)).tolist()
        for kind, x in found.items()
    }
    return {"K": list(CURVE)} | found


def _per_predicate(names, counts, rng, level, ks):
    order = np.argsort(-counts)
    rank = np.empty(len(names), int)
    rank[order] = np.arange(len(names))
    found = {}
    for name, count, place in zip(names, counts.tolist(), rank.tolist(), strict=True):
        best = np.clip(level * 0.9 * np.exp(-place / 9) * rng.uniform(0.4, 1.1), 0, 1)
        recalls = {f"recall@{k}": best * (1 - 0.2 / (i + 1)) for i, k in enumerate(ks)}
        recalls |= {f"ng-{key}": min(1.0, x * 1.4 + 0.06) for key, x in recalls.items()}
        group = ("head", "body", "tail")[3 * place // len(names)]
        found[name] = {key: float(x) if count else None for key, x in recalls.items()} | {
            "count": count, "images": (7 * count + 9) // 10, "group": group,
        }  # fmt: skip
    return found


def results(names, splits=("test", "val"), tasks=("predcls", "sgcls"), **sizes):
    """A whole results.json; `sizes` are images by split."""
    sizes = {"test": 26_446, "val": 5_000} | sizes
    levels = {"predcls": 1.0, "sgcls": 0.56, "sgdet": 0.44}
    parts = {}
    for number, split in enumerate(splits):
        methods = {
            name: {
                task: metrics(names, number, task, split, sizes[split], level * levels[task])
                for task in tasks
            }
            for name, level in (("model", 1.0), ("FREQ", 0.85), ("FREQ+OVERLAP", 0.9))
        }
        parts[split] = {"tasks": methods.pop("model"), "baselines": methods}
    first, *rest = splits
    return {"step": 18_000, "split": first, "splits": {s: parts[s] for s in rest}} | parts[first]
