from linknet_jax.metrics import table


def test_tables():
    predcls = {"R@1": 0.0, "R@3": 0.75, "ng-R@1": 0.0, "ng-R@3": 0.5, "mR@1": 0.0, "mR@3": 0.2}
    predcls["counts"] = {"images": 7}
    results = {
        "step": 2000,
        "split": "val",
        "tasks": {"sgcls": predcls | {"ng-R@1": None}, "predcls": predcls},
        "baselines": {"FREQ": {"predcls": predcls}},
        "ceiling": {"sgcls": predcls, "predcls": predcls},
    }
    lines = table.results_table(results).splitlines()
    assert lines[0] == "val split, step 2000, percent"
    assert lines[1].split() == ["R@1", "R@3", "ng-R@1", "ng-R@3", "mR@1", "mR@3"]
    assert [line.split()[:2] for line in lines[2:]] == [
        ["sgcls", "LinkNet"],
        ["sgcls", "ceiling"],
        ["predcls", "LinkNet"],
        ["predcls", "FREQ"],
        ["predcls", "ceiling"],
    ]
    assert lines[2].split()[2:] == ["0.00", "75.00", "-", "50.00", "0.00", "20.00"]
    assert len({len(line) for line in lines[1:]}) == 1
    results["baselines"]["FREQ"]["predcls"] = predcls | {"counts": {"images": 5}}
    last = table.results_table(results).splitlines()[-1]
    assert last == "predcls FREQ: scored on 5 images, LinkNet on 7"


def test_predicate_table_starts_with_the_most_frequent():
    absent = dict.fromkeys(("recall@1", "recall@3", "ng-recall@1", "ng-recall@3"))
    seen = {"recall@1": 0.0, "recall@3": 1.0, "ng-recall@1": 0.0, "ng-recall@3": 1 / 3}
    rows = {"on": absent | {"count": 0}, "has": seen | {"count": 2}, "in": seen | {"count": 3}}
    lines = table.predicate_table({"R@3": 1.0, "R@1": 0.0, "per_predicate": rows}).splitlines()
    assert lines[0].split() == ["predicate", "count", "R@1", "R@3", "ng-R@1", "ng-R@3"]
    assert lines[1].split() == ["in", "3", "0.00", "100.00", "0.00", "33.33"]
    assert [line.split()[0] for line in lines[2:]] == ["has", "on"]
    assert lines[3].split()[2:] == ["-"] * 4
