"""A PyTorch checkpoint's tensors, read without PyTorch and without running what it says."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from unfreeze.backbones.torch_file import read_state_dict
from unfreeze.errors import WeightsError


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_tensors_are_read_as_they_were_saved(torch, tmp_path):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    whole = torch.arange(24.0).reshape(4, 6)
    state = net.state_dict() | {
        "part": whole[1:3, ::2],
        "turned": whole.T,
        "half": whole.half(),
        "double": whole.double(),
        "none": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    torch.save(state, tmp_path / "net.pt")
    found = read_state_dict(tmp_path / "net.pt")
    assert list(found) == list(state)
    for name, tensor in state.items():
        expected = tensor.detach().numpy()
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)


class Harmful:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (os.system, (f"touch {self.file}",))


def archive(path, described, entries=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as made:
        made.writestr("net/data.pkl", described)
        for name, content in dict(entries).items():
            made.writestr(f"net/{name}", content)
    return path


def test_nothing_in_the_file_runs(tmp_path):
    touched = tmp_path / "touched"
    file = archive(tmp_path / "bad.pt", pickle.dumps({"a": Harmful(touched)}, protocol=2))
    with pytest.raises(WeightsError, match=r"bad\.pt .*\(it names .*system"):
        read_state_dict(file)
    assert not touched.exists()


def test_what_is_no_state_dict_is_refused_in_one_line(torch, tmp_path):
    class Net(torch.nn.Module):
        pass

    torch.save({"epoch": 3, "state": {}}, tmp_path / "training.pt")
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "empty.pt").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as made:
        made.writestr("a.txt", "")
    for name, cause in {
        "training": "holds something else than a state dict",
        "old": "no whole PyTorch checkpoint, or one from before PyTorch 1.6",
        "empty": "no whole PyTorch checkpoint",
        "other": "a zip archive, but no PyTorch checkpoint",
    }.items():
        with pytest.raises(WeightsError, match=cause) as refused:
            read_state_dict(tmp_path / f"{name}.pt")
        assert "\n" not in str(refused.value)


def rewritten(source, target, change):
    """A copy of an archive with other content of some entries."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


@pytest.mark.parametrize(
    ("ends", "content"),
    [
        ("data/0", lambda data: data[:-4]),
        ("data.pkl", lambda data: data[:-20]),
        ("data.pkl", lambda data: data.replace(b"FloatStorage", b"EvilsStorage")),
        ("byteorder", lambda data: b"big"),
    ],
)
def test_damage_is_refused(torch, tmp_path, ends, content):
    torch.save({"a": torch.arange(6.0)}, tmp_path / "net.pt")

    def change(name, data):
        return content(data) if name.endswith(ends) else data

    with pytest.raises(WeightsError, match=r"damaged\.pt "):
        read_state_dict(rewritten(tmp_path / "net.pt", tmp_path / "damaged.pt", change))


def test_a_tensor_stays_in_its_storage(torch, tmp_path):
    """Sizes that only the description claims are refused before anything is read there."""
    torch.save({"a": torch.arange(6.0)}, tmp_path / "net.pt")

    # The shape (6,) is BININT1 6 and TUPLE1.
    def longer(name, data):
        return data.replace(b"K\x06\x85", b"K\x07\x85") if name.endswith("pkl") else data

    with pytest.raises(WeightsError, match="a tensor leaves its storage"):
        read_state_dict(rewritten(tmp_path / "net.pt", tmp_path / "long.pt", longer))


def test_an_entry_that_would_grow_is_refused(torch, tmp_path):
    saved = io.BytesIO()
    torch.save({"a": torch.zeros(10_000)}, saved)
    with (
        zipfile.ZipFile(saved) as old,
        zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(WeightsError, match="is compressed"):
        read_state_dict(tmp_path / "packed.pt")
    packed = zipfile.ZipInfo("archive/byteorder")
    packed.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(tmp_path / "order.pt", "w") as new:
        for name in old.namelist():
            if name.endswith("byteorder"):
                new.writestr(packed, b"little" + bytes(10_000_000))
            else:
                new.writestr(name, old.read(name))
    with pytest.raises(WeightsError, match="byteorder is compressed"):
        read_state_dict(tmp_path / "order.pt")


def test_a_tensor_repeats_no_numbers(torch, tmp_path):
    """A file of some KB could ask for 256 GB."""
    torch.save({"a": torch.zeros(1).expand(2**20, 2**16)}, tmp_path / "large.pt")
    with pytest.raises(WeightsError, match="more numbers than its storage"):
        read_state_dict(tmp_path / "large.pt")


@pytest.mark.filterwarnings("ignore:invalid escape:DeprecationWarning")
def test_made_up_bytes_are_refused_as_damage(torch, tmp_path):
    rng = np.random.default_rng(0)
    torch.save({"a": torch.arange(6.0), "b": torch.ones(2)}, tmp_path / "net.pt")
    whole = np.frombuffer((tmp_path / "net.pt").read_bytes(), np.uint8)
    with zipfile.ZipFile(tmp_path / "net.pt") as good:
        described = good.read("net/data.pkl")
        rest = {name: good.read(f"net/{name}") for name in ("data/0", "data/1")}
    refused = told = 0
    for number in range(600):
        changed = (np.frombuffer(described, np.uint8) if number % 2 else whole).copy()
        changed[rng.integers(len(changed), size=3)] = rng.integers(256, size=3)
        file = tmp_path / "changed.pt"
        if number % 2:
            archive(file, changed.tobytes(), rest)
        else:
            file.write_bytes(changed.tobytes())
        try:
            read_state_dict(file)
        except WeightsError as error:
            refused += str(error).isprintable()
            told += 1
    assert told == refused > 300
