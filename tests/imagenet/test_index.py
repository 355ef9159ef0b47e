import functools
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from sgdscope.errors import InputError
from sgdscope.imagenet import index as imagenet
from sgdscope.imagenet.images import looked_at
from sgdscope.imagenet.index import read_imagenet


def look_or_die(path):
    """In the processes."""
    if path.endswith("n02_0.JPEG"):
        os.kill(os.getpid(), signal.SIGKILL)
    return looked_at(path)


def look_and_count(record, path):
    with Path(record).open("a") as file:
        file.write(".")
    return looked_at(path)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SGDSCOPE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("SGDSCOPE_DATA", raising=False)


@pytest.fixture
def own(pictures, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(pictures, tmp_path / "imagenet")


@pytest.fixture
def flat(own):
    """All of val in one folder, and the class of each, in the order of their names."""
    files = sorted((own / "val").glob("*/*"), key=lambda file: file.name[::-1])
    names = []
    for number, file in enumerate(files):
        names.append(file.parent.name)
        file.rename(own / "val" / f"ILSVRC2012_val_{number:08}.JPEG")
    for folder in set(names):
        (own / "val" / folder).rmdir()
    return own, names


def contents(data, split):
    return [data.path(split, index).name for index in range(len(data.files[split]))]


# ── The split ────────────────────────────────────────────────────────────────────────────────────────────


def test_validation_is_held_out_of_training_once_and_for_all(pictures):
    data = read_imagenet(pictures)
    assert data.classes == ("n01", "n02", "n03")
    assert {split: len(arrays["label"]) for split, arrays in data.splits.items()} == {
        "train": 27,
        "validation": 3,
        "test": 9,
    }
    train, held_out = contents(data, "train"), contents(data, "validation")
    assert sorted(train + held_out) == sorted(file.name for file in (pictures / "train").glob("*/*"))
    # A change of these is another study.
    assert held_out == ["n02_5.JPEG", "n03_8.JPEG", "n03_9.JPEG"]
    for split in data.splits:
        labels = [data.classes[label] for label in data.splits[split]["label"]]
        assert labels == [data.path(split, index).parent.name for index in range(len(labels))]
        sizes = [data.path(split, index).stat().st_size for index in range(len(labels))]
        assert data.bytes[split] == sum(sizes)


def test_of_a_large_set_so_many_are_held_out(pictures, monkeypatch):
    monkeypatch.setattr(imagenet, "HELD_OUT", 2)
    assert len(read_imagenet(pictures).splits["validation"]["label"]) == 2


def test_training_on_all_validates_on_the_test_split(pictures):
    data = read_imagenet(pictures, train_on_all=True)
    assert len(data.splits["train"]["label"]) == 30
    assert data.files["validation"] == data.files["test"]
    assert all((data.splits["validation"][key] == data.splits["test"][key]).all() for key in ("label", "sha256"))


# ── Where it lies ────────────────────────────────────────────────────────────────────────────────────────


def test_it_is_found_in_a_folder_of_its_name_and_in_the_environment(own, tmp_path, monkeypatch):
    direct = read_imagenet(own)
    assert read_imagenet(tmp_path).files == direct.files
    monkeypatch.setenv("SGDSCOPE_DATA", str(tmp_path))
    assert read_imagenet().files == direct.files


def test_it_says_what_it_needs_where_it_is_not_there(tmp_path):
    with pytest.raises(
        InputError, match=r"imagenet is not in .*; --data names .* train/CLASS/ and val/CLASS/"
    ) as raised:
        read_imagenet(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_flat_val_with_a_class_a_line(flat):
    own, names = flat
    with pytest.raises(InputError, match="no folders of classes, and no list of them is there; put imagenet_2012"):
        read_imagenet(own)
    (own / "imagenet_2012_validation_synset_labels.txt").write_text("\n".join(names) + "\n")
    data = read_imagenet(own)
    assert [data.classes[label] for label in data.splits["test"]["label"]] == names


@pytest.mark.parametrize("where", ["ILSVRC2012_devkit_t12/data", "val"])
def test_a_flat_val_with_the_published_numbers(flat, where):
    """Classes are numbered in an order of their own, and inner nodes of the hierarchy follow with further numbers."""
    own, names = flat
    devkit = own / where
    devkit.mkdir(parents=True, exist_ok=True)
    number = {"n03": 1, "n01": 2, "n02": 3}
    (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number[name]}\n" for name in names))
    with pytest.raises(InputError, match=r"meta\.mat is missing"):
        read_imagenet(own)
    rows = [(place, name) for name, place in number.items()] + [(4, "n99")]
    synsets = np.array(rows, dtype=[("ILSVRC2012_ID", "i4"), ("WNID", "O")])
    savemat(devkit / "meta.mat", {"synsets": synsets.reshape(-1, 1)})
    data = read_imagenet(own)
    assert [data.classes[label] for label in data.splits["test"]["label"]] == names


def test_a_list_may_name_classes_in_several_words(flat):
    own, names = flat
    for folder in (own / "train").iterdir():
        folder.rename(folder.with_name(f"{folder.name} great white shark"))
    lines = [f"{name} great white shark" for name in names]
    (own / "imagenet_2012_validation_synset_labels.txt").write_text("\r\n".join(lines) + "\r\n\r\n")
    data = read_imagenet(own)
    assert [data.classes[label] for label in data.splits["test"]["label"]] == lines


@pytest.mark.parametrize("content", [b"", b"no matrices", b"\xff" * 300])
def test_lists_that_are_none_are_refused_in_a_sentence(flat, content):
    own, names = flat
    (own / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n" * len(names))
    (own / "meta.mat").write_bytes(content)
    with pytest.raises(InputError, match=r"meta\.mat is not the published one \("):
        read_imagenet(own)
    (own / "imagenet_2012_validation_synset_labels.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(InputError, match=r"synset_labels\.txt is no list of classes \("):
        read_imagenet(own)


def test_a_list_of_another_length_is_refused(flat):
    own, _ = flat
    (own / "val" / "imagenet_2012_validation_synset_labels.txt").write_text("n01\n")
    with pytest.raises(InputError, match="has 1 lines for 9 images"):
        read_imagenet(own)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_is_no_part_of_a_class_nor_an_end_of_a_line(flat, encoding, end):
    own, names = flat
    path = own / "imagenet_2012_validation_synset_labels.txt"
    path.write_bytes(end.join([*names, ""]).encode(encoding))
    data = read_imagenet(own)
    assert [data.classes[label] for label in data.splits["test"]["label"]] == names


def test_a_line_that_names_no_class_is_told_by_its_number_in_the_file(flat):
    own, names = flat
    path = own / "imagenet_2012_validation_synset_labels.txt"
    path.write_text("\n\n" + "\n".join([*names[:3], "n77", *names[4:]]))
    with pytest.raises(InputError, match=r"labels\.txt, line 6: 'n77' is no class of .*train"):
        read_imagenet(own)
    path.unlink()
    (own / "ILSVRC2012_validation_ground_truth.txt").write_text("\n1\n\none\n" + "1\n" * (len(names) - 2))
    rows = np.array([(1, "n01"), (2, "n02")], dtype=[("ILSVRC2012_ID", "i4"), ("WNID", "O")])
    savemat(own / "meta.mat", {"synsets": rows.reshape(-1, 1)})
    with pytest.raises(InputError, match=r"truth\.txt, line 4: 'one' is not the number of a class"):
        read_imagenet(own)


# ── What does not belong there ───────────────────────────────────────────────────────────────────────────


def test_every_damaged_and_foreign_file_is_named(own):
    whole = (own / "train" / "n01" / "n01_0.JPEG").read_bytes()
    (own / "train" / "n01" / "n01_0.JPEG").write_bytes(whole[: len(whole) // 2])
    (own / "train" / "n02" / "notes.txt").write_text("mine")
    (own / "val" / "n03" / "n03_1.JPEG").write_bytes(b"")
    for _ in range(2):  # once more: what is wrong is never taken for known
        with pytest.raises(InputError) as raised:
            read_imagenet(own)
        said = str(raised.value)
        assert all(
            part in said
            for part in (
                "train/n01/n01_0.JPEG (damaged)",
                "train/n02/notes.txt (no JPEG)",
                "val/n03/n03_1.JPEG (no JPEG)",
            )
        )
        assert said.count("JPEG (") == 2
    (own / "train" / "n01" / "n01_0.JPEG").write_bytes(whole)
    (own / "train" / "n02" / "notes.txt").unlink()
    (own / "val" / "n03" / "n03_1.JPEG").unlink()
    assert len(read_imagenet(own).splits["test"]["label"]) == 8


def test_every_file_outside_the_folders_of_classes_is_named_before_any_is_read(own, monkeypatch):
    monkeypatch.setattr(imagenet, "looked_at", None)
    places = ["train/loose.JPEG", "train/n01/deep/a.JPEG", "val/loose.JPEG", *(f"train/{n}.txt" for n in range(9))]
    for place in places:
        (own / place).parent.mkdir(exist_ok=True)
        (own / place).write_bytes(b"")
    with pytest.raises(InputError, match="where no image belongs: ") as raised:
        read_imagenet(own)
    assert sorted(str(raised.value).split(": ")[2].split("; ")[0].split(", ")) == sorted(places)


def test_what_systems_leave_in_folders_is_passed_over_with_one_notice(own, capsys):
    plain = read_imagenet(own)
    assert "left out" not in capsys.readouterr().err
    for place in ("train", "val", "train/n01", "val/n02"):
        for folder in (".ipynb_checkpoints", "@eaDir", "__MACOSX", ".hidden/deep"):
            (own / place / folder).mkdir(parents=True)
            shutil.copy(own / "train" / "n01" / "n01_0.JPEG", own / place / folder / "0.JPEG")
        for file in (".DS_Store", "Thumbs.db", "desktop.ini", "Desktop.ini", "._n01_0.JPEG", ".nfs0001"):
            (own / place / file).write_bytes(b"no picture")
    found = read_imagenet(own)
    assert (found.classes, found.files) == (plain.classes, plain.files)
    said = capsys.readouterr().err
    assert said.count("\n") == said.count("they are left out: ") == 1
    assert "train/.DS_Store" in said


def test_a_class_of_val_that_training_has_not_is_named_before_any_is_read(own, monkeypatch):
    monkeypatch.setattr(imagenet, "looked_at", None)
    (own / "val" / "n03").rename(own / "val" / "n04")
    with pytest.raises(InputError, match=r"has n04, which .*train has not"):
        read_imagenet(own)


def test_folders_without_pictures_are_told(own):
    shutil.rmtree(own / "train")
    (own / "train" / "n01").mkdir(parents=True)
    with pytest.raises(InputError, match=r"train has no images; they lie in .*CLASS"):
        read_imagenet(own)


def test_folders_of_classes_may_be_links_which_may_lead_in_circles(own, pictures, tmp_path):
    linked = tmp_path / "linked"
    for part in ("train", "val"):
        (linked / part).mkdir(parents=True)
        for folder in (own / part).iterdir():
            (linked / part / folder.name).symlink_to(folder)
    (own / "train" / "n01" / "round").symlink_to(linked / "val", target_is_directory=True)
    with pytest.raises(InputError, match=r"no image belongs: train/n01/round/n01, train/n01/round/n02, "):
        read_imagenet(linked)
    (own / "train" / "n01" / "round").unlink()
    (own / "train" / "n01" / "round").symlink_to(own / "train" / "n01", target_is_directory=True)
    with pytest.raises(InputError, match=r"no image belongs: train/n01/round/n01_0\.JPEG, .*train/n01/round/round;"):
        read_imagenet(linked)
    (own / "train" / "n01" / "round").unlink()
    assert read_imagenet(linked).files == read_imagenet(own).files


def test_names_that_are_not_utf_8_are_named(own):
    (own / "train" / "n01" / "n01_0.JPEG").rename(own / "train" / "n01" / os.fsdecode(b"caf\xe9.JPEG"))
    with pytest.raises(InputError, match=r"names are not UTF-8: train/n01/caf\\udce9\.JPEG; rename them\."):
        read_imagenet(own)


def test_a_link_that_leads_nowhere_is_named(own):
    (own / "train" / "n01" / "gone.JPEG").symlink_to(own / "nowhere")
    with pytest.raises(InputError, match=r"train/n01/gone\.JPEG cannot be read \(No such file"):
        read_imagenet(own)


def test_pictures_that_would_be_clipped_are_named(own):
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(own / "train" / "n01" / "n01_0.JPEG", "PNG")
    with pytest.raises(InputError, match=r"train/n01/n01_0\.JPEG \(of more than 8 bits a channel\);"):
        read_imagenet(own)


# ── The index ────────────────────────────────────────────────────────────────────────────────────────────


def test_only_what_is_new_or_changed_is_read_again(own, monkeypatch):
    asked = []
    plain = imagenet._checked
    monkeypatch.setattr(imagenet, "_checked", lambda folder, files: asked.append(list(files)) or plain(folder, files))
    first = read_imagenet(own)
    assert len(asked[-1]) == 39
    assert read_imagenet(own).splits["train"]["sha256"].tolist() == first.splits["train"]["sha256"].tolist()
    assert asked[-1] == []
    shutil.copy(own / "train" / "n02" / "n02_1.JPEG", own / "train" / "n01" / "n01_0.JPEG")
    changed = read_imagenet(own)
    assert asked[-1] == ["train/n01/n01_0.JPEG"]
    place = first.files["train"].index("train/n01/n01_0.JPEG")
    other = first.files["train"].index("train/n02/n02_1.JPEG")
    assert changed.splits["train"]["sha256"][place] == first.splits["train"]["sha256"][other]


def test_what_was_read_before_an_interrupt_is_not_read_again(own, monkeypatch):
    plain, asked = imagenet._checked, []

    def interrupted(folder, files):
        for number, found in enumerate(plain(folder, files)):
            if number == 20:
                raise KeyboardInterrupt
            yield found

    with monkeypatch.context() as patch:
        patch.setattr(imagenet, "_checked", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read_imagenet(own)
    monkeypatch.setattr(imagenet, "_checked", lambda folder, files: asked.append(list(files)) or plain(folder, files))
    assert len(read_imagenet(own).splits["train"]["label"]) == 27
    assert len(asked[-1]) == 39 - 20


def test_what_was_read_before_a_process_died_is_not_read_again(own, monkeypatch):
    plain, asked = imagenet._checked, []
    monkeypatch.setattr(imagenet, "HANDED_OVER", 4)
    monkeypatch.setattr(imagenet, "TOGETHER", 1)
    monkeypatch.setattr(imagenet, "cores", lambda: 1)
    with monkeypatch.context() as patch:
        patch.setattr(imagenet, "looked_at", look_or_die)
        with pytest.raises(InputError, match=r"imagenet: .*: Data-loading worker \d+ \(SIGKILL\) was killed"):
            read_imagenet(own)
    monkeypatch.setattr(imagenet, "_checked", lambda folder, files: asked.append(list(files)) or plain(folder, files))
    assert len(read_imagenet(own).splits["train"]["label"]) == 27
    assert "train/n02/n02_0.JPEG" in asked[-1]
    assert len(asked[-1]) < 39


def test_an_interrupt_does_not_wait_for_what_was_handed_over(own, monkeypatch, tmp_path):
    monkeypatch.setattr(imagenet, "TOGETHER", 1)
    monkeypatch.setattr(imagenet, "cores", lambda: 1)
    monkeypatch.setattr(imagenet, "looked_at", functools.partial(look_and_count, str(tmp_path / "looked")))
    checked = imagenet._checked(own, [f"train/n01/n01_{n % 10}.JPEG" for n in range(5000)])
    next(checked)
    checked.close()
    assert (tmp_path / "looked").stat().st_size < 1000


def test_the_index_is_kept_while_it_is_built_and_not_needed(own, tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet, "KEPT_AFTER", 10)
    kept, plain = [], imagenet._keep
    monkeypatch.setattr(
        imagenet, "_keep", lambda path, digests, now: kept.append(len(digests)) or plain(path, digests, now)
    )
    (tmp_path / "cache").write_text("no folder")
    assert len(read_imagenet(own).splits["train"]["label"]) == 27
    assert kept == [10, 20, 30, 39]


def test_a_damaged_index_is_built_anew(pictures, tmp_path):
    first = read_imagenet(pictures)
    (kept,) = (tmp_path / "cache" / "imagenet").iterdir()
    kept.write_bytes(kept.read_bytes()[:-10])
    assert read_imagenet(pictures).splits["train"]["sha256"].tolist() == first.splits["train"]["sha256"].tolist()


@pytest.mark.parametrize("module", ["PIL", "cv2", "simplejpeg"])
def test_without_a_library_one_sentence_says_what_installs_it(pictures, monkeypatch, module):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(InputError, match=r"pip install '\.\[imagenet\]'"):
        read_imagenet(pictures)
