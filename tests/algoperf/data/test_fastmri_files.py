"""The files of fastMRI's single-coil track: read by slice, and refused by name and reason."""

import shutil
import sys

import numpy as np
import pytest

from algoperf.data.formats import fastmri
from algoperf.errors import UserError

h5py = pytest.importorskip("h5py")
SIZE = 16


def write(path, slices=3, seed=0, size=SIZE, **changes):
    """A volume of random numbers; `changes` are other data sets or attributes, None for none."""
    rng = np.random.default_rng(seed)
    shape = slices, 24, 20
    values = rng.standard_normal((2, *shape))
    contents = {
        "kspace": (values[0] + 1j * values[1]).astype(np.complex64),
        "reconstruction_esc": rng.random((slices, size, size)).astype(np.float32),
        "max": float(seed + 2),
        **changes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, value in contents.items():
            if name == "max" and value is not None:
                file.attrs["max"] = value
            elif isinstance(value, str):
                file.create_group(name)
            elif value is not None:
                file[name] = value
    return contents


@pytest.fixture
def folder(tmp_path):
    """Two volumes to train on, five to hold out; and what is in them by name."""
    written = {}
    for part, names in (("singlecoil_train", "ba"), ("singlecoil_val", "edcfg")):
        for number, name in enumerate(names):
            path = tmp_path / part / f"file{name}.h5"
            written[name] = write(path, slices=2 + number, seed=ord(name))
    return tmp_path, written


def test_slices_come_volume_after_volume(folder):
    path, written = folder
    files, notes = fastmri.find(path, SIZE)
    order = {"train": "ab", "validation": "cde", "test": "fg"}
    assert notes == {"volumes": {"train": 2, "validation": 3, "test": 2}, "bad_rows": {}}
    for split, names in order.items():
        expected = [
            (written[name]["kspace"][number], written[name]["reconstruction_esc"][number], name)
            for name in names
            for number in range(len(written[name]["kspace"]))
        ]
        assert len(files[split]) == len(expected)
        for index, (kspace_HW, target_SS, name) in enumerate(expected):
            read = files[split].read(index)
            np.testing.assert_array_equal(read[0], kspace_HW)
            np.testing.assert_array_equal(read[1], target_SS)
            assert read[2] == ord(name) + 2


def test_of_199_volumes_100_are_for_validation(tmp_path):
    """As in AlgoPerf, of whose 199 the other 99 are the test split."""
    write(tmp_path / "train" / "one.h5", slices=1)
    for number in range(199):
        path = tmp_path / "val" / f"file{number:03}.h5"
        if number == 0:
            write(path, slices=1)
        else:
            shutil.copy(tmp_path / "val" / "file000.h5", path)
    files, _ = fastmri.find(tmp_path, SIZE)
    assert {split: len(each) for split, each in files.items()} == {
        "train": 1,
        "validation": 100,
        "test": 99,
    }


def test_without_the_attribute_the_largest_value_is_looked_up(tmp_path, folder):
    contents = write(tmp_path / "singlecoil_train" / "filea.h5", max=None)
    files, _ = fastmri.find(tmp_path, SIZE)
    assert files["train"].read(0)[2] == contents["reconstruction_esc"].max()


BAD = {
    "several coils": (
        {"kspace": np.zeros((1, 8, 24, 20), np.complex64)},
        "k-space of several coils: 8 coils; the workload is that of the single-coil track",
    ),
    "a test file": ({"reconstruction_esc": None}, "no image 'reconstruction_esc' to learn from"),
    "no k-space": ({"kspace": None}, "no 'kspace' of slices; it has: reconstruction_esc"),
    "slices missing": (
        {"reconstruction_esc": np.zeros((2, SIZE, SIZE), np.float32)},
        "other numbers of slices: 3 of k-space, 2 images",
    ),
    "the largest value as text": (
        {"max": "0.5"},
        "'max' is no finite number above 0: it is 0.5, expected the largest value of the images",
    ),
    "several largest values": (
        {"max": np.array([2.0])},
        r"'max' is no finite number above 0: it is \[2.\]",
    ),
    "no largest value": ({"max": np.nan}, "'max' is no finite number above 0: it is nan"),
    "an infinite largest value": ({"max": np.inf}, "'max' is no finite number above 0: it is inf"),
    "images of nothing": (
        {"max": None, "reconstruction_esc": np.zeros((3, SIZE, SIZE), np.float32)},
        "'max' is no finite number above 0: it is 0.0",
    ),
    "k-space as a group": ({"kspace": "a group"}, "no 'kspace' of slices; it has: kspace, recon"),
    "an image as a group": ({"reconstruction_esc": "a group"}, "no image 'reconstruction_esc'"),
    "k-space as text": (
        {"kspace": np.full((3, 24, 20), b"text")},
        "no 'kspace' of slices; it has: kspace, recon",
    ),
    "small images": ({"size": 8}, r"images too small: k-space \(24, 20\), image \(8, 8\)"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(folder, kind):
    path, _ = folder
    changes, message = BAD[kind]
    write(path / "singlecoil_train" / "filec.h5", **changes)
    with pytest.raises(UserError, match=f"filec.h5: {message}"):
        fastmri.find(path, SIZE)
    files, notes = fastmri.find(path, SIZE, skip_bad_rows=True)
    assert len(files["train"]) == 5
    assert list(notes["bad_rows"]) == ["train"]
    assert list(notes["bad_rows"]["train"].values()) == [1]


def test_a_truncated_file_is_named(folder):
    path, _ = folder
    damaged = path / "singlecoil_val" / "filed.h5"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"filed.h5: not a readable HDF5 file .*download it again"):
        fastmri.find(path, SIZE)


def test_a_file_that_is_damaged_later_is_named_with_its_slice(folder):
    path, _ = folder
    files, _ = fastmri.find(path, SIZE)
    (path / "singlecoil_train" / "fileb.h5").write_bytes(b"no more")
    files["train"].read(2)
    with pytest.raises(OSError, match=r"fileb.h5, slice 1: damaged .*download it again"):
        files["train"].read(4)


def damage_a_slice(path):
    """Rewrite a volume with a checksum for each slice, and change a byte of the second."""
    with h5py.File(path, "r+") as file:
        values = file["kspace"][()]
        del file["kspace"]
        chunks = file.create_dataset(
            "kspace", data=values, chunks=(1, *values.shape[1:]), fletcher32=True
        )
        file.flush()
        offset = chunks.id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 7] ^= 255
    path.write_bytes(content)


def put_nan(name):
    def put(path):
        with h5py.File(path, "r+") as file:
            file[name][1, 3, 5] = np.nan

    return put


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_a_slice, ".*"),
        (put_nan("kspace"), "'kspace' is not finite"),
        (put_nan("reconstruction_esc"), "'reconstruction_esc' is not finite"),
    ],
    ids=["checksum", "kspace", "image"],
)
def test_a_damaged_slice_is_named_or_its_volume_left_out(folder, damage, reason):
    path, _ = folder
    damage(path / "singlecoil_val" / "filed.h5")  # after the four slices of c
    files, _ = fastmri.find(path, SIZE)
    files["validation"].read(4)
    with pytest.raises(OSError, match=rf"filed.h5, slice 1: damaged \({reason}\); download it"):
        files["validation"].read(5)
    files, notes = fastmri.find(path, SIZE, skip_bad_rows=True)
    assert notes == {
        "volumes": {"train": 2, "validation": 2, "test": 2},
        "bad_rows": {"validation": {"damaged": 1}},
    }
    for each in files.values():
        for index in range(len(each)):
            each.read(index)


def test_a_missing_folder_or_too_few_volumes(tmp_path):
    with pytest.raises(UserError, match=r"no folder of train volumes; expected one of: singlecoil"):
        fastmri.find(tmp_path, SIZE)
    write(tmp_path / "train" / "one.h5")
    write(tmp_path / "val" / "one.h5")
    with pytest.raises(UserError, match=r"val: 1 usable volumes .*, expected at least 2"):
        fastmri.find(tmp_path, SIZE)


def test_the_fingerprint_is_of_names_and_sizes(folder, tmp_path):
    path, _ = folder
    before = fastmri.find(path, SIZE)[0]["train"].fingerprint
    moved = tmp_path / "moved"
    shutil.copytree(path / "singlecoil_train", moved / "train")
    shutil.copytree(path / "singlecoil_val", moved / "val")
    assert fastmri.find(moved, SIZE)[0]["train"].fingerprint == before
    write(moved / "train" / "filea.h5", slices=4)
    assert fastmri.find(moved, SIZE)[0]["train"].fingerprint != before


def test_without_h5py_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"need the package h5py.*algoperf\[mri\]"):
        fastmri.find(folder[0], SIZE)
