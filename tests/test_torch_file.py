"""Torch files: what torch wrote is read as torch reads it, and nothing in a file is executed."""

from __future__ import annotations

import io
import os
import pickle
import re
import struct
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
from etils import epath

from linknet_jax.torch_file.reader import read_file, read_tensors

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
MUTATIONS = 300
FORMATS = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
DOUBLING = b"".join(b"q%c}(U\x01ah%cU\x01bh%cu" % (i, i, i) for i in range(40))
TUPLE_KEY = b"\x80\x02}%sK\x01s."  # {%s: 1}


def write_zip(path, content, storages=(), **members):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for key, value in dict(storages).items():
            archive.writestr(f"archive/data/{key}", value)
        for name, value in members.items():
            archive.writestr(f"archive/{name}", value)
    return epath.Path(path)


def write_legacy(path, content, storages=(), tail=b""):
    """`storages`: (key, number of elements, bytes)."""
    heads = [pickle.dumps(head, 2) for head in (MAGIC, PROTOCOL, {"little_endian": True})]
    keys = pickle.dumps([key for key, _, _ in storages], 2)
    data = b"".join(struct.pack("<q", count) + value for _, count, value in storages)
    path.write_bytes(b"".join(heads) + content + keys + data + tail)
    return epath.Path(path)


WRITERS = pytest.mark.parametrize("write", [write_zip, write_legacy])


class Name:
    """Pickled as a global of that name, whether or not it exists."""

    def __init__(self, name):
        self.name = name


class Call:
    """Pickled as a call of a global."""

    def __init__(self, name, *arguments, state=None):
        self.value = (Name(name), arguments, state)


class Storage:
    def __init__(self, *pid):
        self.pid = pid


class Pickler(pickle._Pickler):
    """Python's own, in Python, so that names need not be importable."""

    def persistent_id(self, value):
        return ("storage", *value.pid) if isinstance(value, Storage) else None

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Name):
            module, _, name = value.name.rpartition(".")
            self.write(b"c" + f"{module}\n{name}\n".encode())
        elif isinstance(value, Call):
            function, arguments, state = value.value
            self.save(function)
            self.save(arguments)
            self.write(pickle.REDUCE)
            if state is not None:
                self.save(state)
                self.write(pickle.BUILD)
        else:
            super().save(value, save_persistent_id)


def dumps(value):
    stream = io.BytesIO()
    Pickler(stream, 2).dump(value)
    return stream.getvalue()


def storage(kind="FloatStorage", key="0", total=6, *view):
    return Storage(Name(f"torch.{kind}"), key, "cpu", total, *view)


def tensor(stored, offset=0, size=(2, 3), stride=(3, 1), *rest):
    name = "torch._utils._rebuild_tensor" + ("_v2" if rest else "")
    return Call(name, stored, offset, size, stride, *rest)


SIX = np.arange(6, dtype=np.float32)


def refused(path, rule):
    with pytest.raises(ValueError, match=rule) as caught:
        read_tensors(path)
    assert type(caught.value) is ValueError and str(path) in str(caught.value)


# ---- what torch itself writes


@pytest.fixture
def save(tmp_path):
    torch = pytest.importorskip("torch")

    def written(value, new=True):
        torch.save(value, tmp_path / "x.tar", _use_new_zipfile_serialization=new)
        return epath.Path(tmp_path / "x.tar")

    return written


def same(found, expected):
    """`expected` is a torch tensor."""
    torch = pytest.importorskip("torch")
    expected = expected.detach()
    if expected.dtype == torch.bfloat16:
        assert found.dtype == ml_dtypes.bfloat16
        found, expected = found.view(np.int16), expected.view(torch.int16)
    assert not found.flags.writeable
    np.testing.assert_array_equal(found, expected.numpy(), strict=True)


@FORMATS
@pytest.mark.parametrize(
    "name",
    "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool".split(),
)
def test_dtypes(save, name, new):
    torch = pytest.importorskip("torch")
    values = {"x": torch.tensor([[0, 1, 2], [3, 100, 5]]).to(getattr(torch, name))}
    same(read_tensors(save(values, new))["x"], values["x"])


@FORMATS
def test_views(save, new):
    torch = pytest.importorskip("torch")
    base = torch.randn(4, 5, 6)
    values = {
        "base": base,
        "transposed": base.permute(2, 0, 1),
        "strided": base[1:, ::2, 3],
        "last": base[3, 4, 5],
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0),
        "empty too": torch.empty(2, 0, 3, dtype=torch.bool),
        "end": base[4:],
        "expanded": torch.ones(3, 1).expand(3, 4),
        "parameter": torch.nn.Parameter(base[2].T),
        "special": torch.tensor([float("nan"), float("inf"), -0.0]),
    }
    found = read_tensors(save(values, new))
    assert list(found) == list(values)
    for name, value in values.items():
        if value.numel():
            same(found[name], value)
        else:
            assert found[name].shape == value.shape
    assert np.shares_memory(found["base"], found["transposed"])
    assert not np.shares_memory(found["base"], found["expanded"])


@FORMATS
def test_nested_checkpoint(save, new):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.randn(2, 3, 5, 5)).square().sum().backward()
    optimizer.step()
    weights = module.state_dict()
    file = read_file(
        save(
            {
                "epoch": 3,
                "best": np.float64(0.5),
                "note": None,
                "state_dict": weights,
                "optimizer": optimizer.state_dict(),
                "list": [torch.ones(1)],
            },
            new,
        )
    )
    for name, value in weights.items():
        same(file.tensors[f"state_dict.{name}"], value)
    assert "optimizer.state.0.momentum_buffer" in file.tensors
    assert len(file.tensors) == len(weights) + 4
    assert file.ignored == {
        "epoch": "int 3",
        "best": "an object of numpy",
        "note": "NoneType None",
        "optimizer.param_groups": "list of 1",
        "list": "list of 1",
    }


@pytest.mark.parametrize("kind", ["sparse", "complex64", "quantised", "uint16", "module"])
@FORMATS
@pytest.mark.filterwarnings("ignore")
def test_unsupported(save, kind, new):
    torch = pytest.importorskip("torch")
    value, rule = {
        "sparse": lambda: (torch.eye(3).to_sparse(), "_rebuild_sparse_tensor.*layouts"),
        "complex64": lambda: (torch.ones(2, dtype=torch.complex64), "ComplexFloatStorage.*dtype"),
        "quantised": lambda: (
            torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
            "_rebuild_qtensor.*layouts",
        ),
        "uint16": lambda: (torch.ones(2).to(torch.uint16), "_rebuild_tensor_v3"),
        "module": lambda: (torch.nn.Linear(2, 2), "Linear|no storage"),
    }[kind]()
    refused(save({"x": value}, new), rule)


@FORMATS
def test_random_mutations(save, new):
    torch = pytest.importorskip("torch")
    path = save({"epoch": 3, "state_dict": OrderedDict(a=torch.ones(2, 3), b=torch.ones(3))}, new)
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    read = 0
    for _ in range(MUTATIONS):
        content = bytearray(good)
        for place in rng.integers(0, len(good), rng.integers(1, 4)):
            content[place] = rng.integers(0, 256)
        path.write_bytes(content)
        try:
            tensors = read_tensors(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            read += 1
            assert all(type(value) is np.ndarray for value in tensors.values())
    assert 0 < read < MUTATIONS


@FORMATS
def test_every_truncation(save, new):
    torch = pytest.importorskip("torch")
    path = save({"x": torch.ones(2, 3)}, new)
    good = path.read_bytes()
    for length in range(0, len(good), 7):
        path.write_bytes(good[:length])
        refused(path, "expected is a dictionary")


# ---- files made by hand


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.pth"


def test_torch_03_with_a_storage_view_and_a_parameter(path):
    """Names and shapes of the pickles of torch 0.3, on Python 2."""
    stored = storage("FloatStorage", "7", 6, ("8", 2, 4))
    items = [["a", tensor(stored, 1, (3,), (1,))], ["b", [1, 2]]]
    value = {"state_dict": Call("collections.OrderedDict", items)}
    file = read_file(write_legacy(path, dumps(value), [("7", 6, SIX.tobytes())]))
    np.testing.assert_array_equal(file.tensors["state_dict.a"], [3, 4, 5])
    assert file.ignored == {"state_dict.b": "list of 2"}

    content = dumps(tensor(storage("FloatStorage", "7", 6, None)))[2:-1]
    new = b"\x80\x02}U\x01actorch.nn.parameter\nParameter\n" + content + b"\x85\x81"
    new += b"\x88\x89N\x87bs."  # its state: requires_grad, volatile, hooks
    found = read_tensors(write_legacy(path, new, [("7", 6, SIX.tobytes())]))
    np.testing.assert_array_equal(found["a"], SIX.reshape(2, 3), strict=True)


@pytest.mark.parametrize("kind", ["FloatStorage", "BFloat16Storage", "LongStorage", "ByteStorage"])
@pytest.mark.parametrize("order", ["little", "big", None])
def test_byte_order(path, kind, order):
    dtype = {"F": "f4", "B": ml_dtypes.bfloat16, "L": "i8"}[kind[0]]
    dtype = np.dtype(np.uint8 if kind == "ByteStorage" else dtype)
    raw = SIX.astype(dtype).view(f"u{dtype.itemsize}")
    members = {} if order is None else {"byteorder": order}
    content = (raw.byteswap() if order == "big" else raw).tobytes()
    found = read_tensors(
        write_zip(path, dumps({"x": tensor(storage(kind))}), {"0": content}, **members)
    )
    np.testing.assert_array_equal(found["x"], SIX.reshape(2, 3).astype(dtype), strict=True)
    if order:
        refused(write_zip(path, dumps({}), byteorder="middle"), "byteorder b'middle'")


def test_booleans_are_zero_or_one(path):
    value = {"x": tensor(storage("BoolStorage", "0", 3), 0, (3,), (1,))}
    found = read_tensors(write_zip(path, dumps(value), {"0": b"\x00\x07\x01"}))["x"]
    assert found.view(np.uint8).tolist() == [0, 1, 1]


class Attack:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@WRITERS
@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])  # 4 and 5 name globals on the stack
@pytest.mark.parametrize("function", ["os.system", "builtins.eval", "builtins.open", "getattr"])
def test_nothing_is_executed(path, tmp_path, write, protocol, function):
    marker = tmp_path / "marker"
    attack = {
        "os.system": Attack(os.system, f"touch {marker}"),
        "builtins.eval": Attack(eval, f"open({str(marker)!r}, 'w')"),
        "builtins.open": Attack(open, str(marker), "w"),
        "getattr": Attack(getattr, marker, "touch"),
    }[function]
    pickle.loads(pickle.dumps(Attack(os.system, f"touch {marker}"), protocol))
    assert marker.exists()  # so the attack works where it is not refused
    marker.unlink()
    module = function.split(".")[0].replace("os", "posix").replace("getattr", "builtins")
    file = write(path, pickle.dumps({"state_dict": attack}, protocol))
    refused(file, f"names '(__builtin__|io|nt|{module}).*nothing was executed")
    assert not marker.exists()


@WRITERS
@pytest.mark.parametrize(
    "module, name",
    [
        ("torch._utils", "os.path"),
        ("torch", "_utils._rebuild_tensor"),
        ("torch._utils", "_rebuild_tensor.__globals__"),
        ("collections", "OrderedDict.fromkeys"),
        ("collections.OrderedDict", "fromkeys"),
        ("torch._utils._rebuild_tensor", ""),
        ("numpy", "load"),
        ("torch", "load"),
        ("linknet_jax.torch_file", "_Storage"),
        ("", "torch.FloatStorage"),
    ],
)
def test_attributes_of_attributes(path, write, module, name):
    named = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name))
    refused(write(path, b"\x80\x04}\x8c\x01a" + named + b"\x93s."), "the pickle names")


def test_attack_in_every_pickle_of_the_legacy_format(path, tmp_path):
    marker = tmp_path / "marker"
    attack = pickle.dumps(Attack(os.system, f"touch {marker}"), 2)
    parts = [pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, {}, {}, [])]
    for place in range(5):
        path.write_bytes(b"".join([*parts[:place], attack, *parts[place + 1 :]]))
        refused(epath.Path(path), re.escape("posix.system"))
    path.write_bytes(b"".join(parts))
    assert read_tensors(epath.Path(path)) == {} and not marker.exists()


@pytest.mark.parametrize("name", ["OrderedDict", "_rebuild_tensor", "Parameter", "FloatStorage"])
@pytest.mark.parametrize("state", [{"items": 1, "__call__": 2}, (None, {"_call": 1, "size": 3})])
def test_build_writes_on_nothing_of_ours(path, name, state):
    module = {"O": "collections", "_": "torch._utils", "P": "torch.nn.parameter", "F": "torch"}
    content = b"\x80\x02}U\x01ac" + f"{module[name[0]]}\n{name}\n".encode()
    content += pickle.dumps(state, 2)[2:-1] + b"bs."
    refused(write_zip(path, content), "damaged|sets attributes|no dictionary")
    hooks = Call("collections.OrderedDict")
    good = dumps({"x": tensor(storage(), 0, (2, 3), (3, 1), False, hooks)})
    assert read_tensors(write_zip(path, good, {"0": SIX.tobytes()}))["x"].shape == (2, 3)


def test_state_of_records_is_dropped(path):
    value = {"x": tensor(storage()), "d": Call("collections.OrderedDict", state={"items": 3})}
    value["x"].value = (*value["x"].value[:2], ({"size": (9,)}, {"size": (9,), "offset": 99}))
    found = read_tensors(write_zip(path, dumps(value), {"0": SIX.tobytes()}))
    assert list(found) == ["x"] and found["x"].shape == (2, 3)


@pytest.mark.parametrize(
    "arguments, rule",
    [
        ((1, (2, 3), (3, 1)), "reach element 7 of a storage of 6"),
        ((0, (2, 4), (3, 1)), "reach element 7"),
        ((0, (2, 2), (5, 1)), "reach element 7"),
        ((6, (), ()), "reach element 7"),
        ((0, (2**40, 2**40), (0, 0)), "more than the .* bytes of the file"),
        ((0, (2**62,), (1,)), "reach element"),
        ((0, (0, 2**62, 2**62), (1, 1, 1)), "."),
        ((-1, (2,), (1,)), "-1 is no integer >= 0"),
        ((5, (2,), (-1,)), "-1 is no integer"),
        ((0, (-2, -3), (3, 1)), "-2 is no integer"),
        ((0, (True,), (1,)), "True is no integer"),
        ((0, (2.0,), (1,)), "2.0 is no integer"),
        ((0, [2], (1,)), "a tuple of sizes"),
        ((0, (2,), (1, 1)), "1 sizes, 2 strides"),
        ((0, (1,) * 65, (1,) * 65), "65 sizes"),
        ((0, (2,), (1,), False, None, {"conj": True}), "conjugate"),
    ],
)
@WRITERS
def test_views_never_leave_their_storage(path, write, arguments, rule):
    view = [] if write is write_zip else [None]
    stored = {"0": SIX.tobytes()} if write is write_zip else [("0", 6, SIX.tobytes())]
    refused(
        write(
            path, dumps({"x": tensor(storage("FloatStorage", "0", 6, *view), *arguments)}), stored
        ),
        rule,
    )


def test_stride_of_a_single_element_is_free(path):
    value = {"x": tensor(storage(), 2, (1, 3, 1), (2**60, 1, 2**62))}
    found = read_tensors(write_zip(path, dumps(value), {"0": SIX.tobytes()}))["x"]
    np.testing.assert_array_equal(found, SIX[2:5].reshape(1, 3, 1))


@pytest.mark.parametrize(
    "pid, rule",
    [
        ((Name("torch.FloatStorage"), "1", "cpu", 6), "'1' is missing"),
        ((Name("torch.FloatStorage"), "0", "cpu", 7), "24 bytes instead of 28"),
        ((Name("torch.FloatStorage"), "0", "cpu", 5), "24 bytes instead of 20"),
        ((Name("torch.DoubleStorage"), "0", "cpu", 6), "24 bytes instead of 48"),
        ((Name("torch.FloatStorage"), "0", "cpu", 2**60), "24 bytes instead of"),
        ((Name("torch.FloatStorage"), "0", "cpu", -6), ">= 0"),
        ((Name("torch.FloatStorage"), "../data.pkl", "cpu", 6), "missing"),
        ((Name("torch.FloatStorage"), 0, "cpu", 6), "known type and a key"),
        ((Name("torch.QInt8Storage"), "0", "cpu", 6), "unknown dtype"),
        (("FloatStorages", "0", "cpu", 6), "known type"),
        ((Name("torch.FloatStorage"), "0", "cpu", 6, ("1", 3, 4)), "elements 3 to 7 of"),
        ((Name("torch.FloatStorage"), "0"), "no storage"),
    ],
)
def test_storages(path, pid, rule):
    value = {"x": tensor(Storage(*pid), 0, (1,), (1,))}
    refused(write_zip(path, dumps(value), {"0": SIX.tobytes()}), rule)


def test_one_storage_of_two_types(path):
    value = {"x": tensor(storage()), "y": tensor(storage("IntStorage"))}
    refused(write_zip(path, dumps(value), {"0": SIX.tobytes()}), "'0' has two types")


@pytest.mark.parametrize(
    "storages, tail, rule",
    [
        ([("0", 5, SIX[:5].tobytes())], b"", "has 5 elements, not 6"),
        ([("0", 2**61, SIX.tobytes())], b"", "elements, not 6"),
        ([("0", 6, SIX.tobytes()[:-1])], b"", "truncated"),
        ([("0", 6, SIX.tobytes())], b"\0", "1 bytes follow"),
        ([], b"", "referred to and stored differ: '0'"),
        ([("0", 6, SIX.tobytes()), ("1", 0, b"")], b"", "differ: '1'"),
        ([("0", 6, SIX.tobytes())] * 2, b"", "twice"),
    ],
)
def test_legacy_storages(path, storages, tail, rule):
    value = {"x": tensor(storage("FloatStorage", "0", 6, None))}
    refused(write_legacy(path, dumps(value), storages, tail), rule)
    value["x"] = tensor(storage("FloatStorage", "0", 2**60, None), 0, (2**60,), (1,))
    huge = write_legacy(path, dumps(value), [("0", 2**60, b"")])
    refused(huge, "ends at byte .* truncated")


@pytest.mark.parametrize(
    "content, rule",
    [
        (b"", "no file of torch"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "no file of torch"),
        (pickle.dumps({"a": 1}, 2), "magic number dict"),
        (pickle.dumps(MAGIC, 2) + pickle.dumps(7, 2), "protocol 7 instead of 1001"),
        (b"PK\x03\x04" + bytes(100), "damaged: .*zip"),
        (bytes(257) + b"ustar" + bytes(300), "tar format of torch 0.1"),
    ],
)
def test_no_torch_file(path, content, rule):
    path.write_bytes(content)
    refused(epath.Path(path), rule)


def test_archives(path):
    good = dumps({"x": tensor(storage())})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", good)
        archive.writestr("a/data/0", SIX.tobytes())
    refused(epath.Path(path), "is compressed")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "")
    refused(epath.Path(path), r"0 members \*/data.pkl")
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for name in ("a/data.pkl", "a/data/0", "a/data/0"):
            archive.writestr(name, good)
    refused(epath.Path(path), "the same name")


def nested(depth, share):
    return b"K\x01" + (b"2\x86" if share else b"\x85") * depth


@WRITERS
@pytest.mark.parametrize(
    "content, rule",
    [
        (TUPLE_KEY % nested(200_000, False), "nested items"),  # overflows the stack when hashed
        (TUPLE_KEY % nested(60, True), "nested items"),  # takes 2**60 steps
        (TUPLE_KEY % (nested(60, True) + b"Nb"), "nested items"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "index 2147483647 of the memo"),
        (b"\x80\x02" + b"}0" * 300_000 + b"}.", "at most 500000"),
        (b"\x80\x02\x8a\x20" + b"\x11" * 32 + b".", "bits"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".", "bytes"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02]q\x00h\x00a.", "list of 1, no dictionary"),
        (b"\x80\x02}q\x00U\x01ah\x00s.", "deeper than 8"),  # contains itself
        (b"\x80\x02}%s." % DOUBLING, "deeper than 8"),
        (b"\x80\x02}(K\x01NU\x011Nu.", "two leaves are named '1'"),
        (b"\x80\x02}" + b"X\x00\x02\x00\x00" + b"a" * 512 + b"Ns.", "255 characters"),
        (b"\x80\x02}K\x01K\x02\x86Ns.", "key tuple is no integer or string"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02}s.", "damaged"),
    ],
    ids=range(16),
)
def test_pickle_bombs(path, write, content, rule):
    refused(write(path, content), rule)


def test_wide_dictionaries_that_repeat(path):
    """Six levels of twenty times the same dictionary: 64 million nodes."""
    value = {}
    for _ in range(6):
        value = {str(i): value for i in range(20)}
    refused(write_zip(path, pickle.dumps(value, 2)), "more than 100000")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_tensors(epath.Path(tmp_path / "none.pth"))
