import os
from pathlib import Path

import pytest

from pointloom.data.folder import list_folder
from pointloom.data.sources import Listing, SourceObject, list_synthetic, quarantine_notes, split_groups, split_notes
from pointloom.errors import DataError


def touch(folder: Path, *names: str, content: str = "x") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def listed(folder: Path, **options: str) -> Listing:
    return list_folder(folder, test_fraction=0.25, seed=0, **options)


def make(path: str, *, category: str | None, group: str, split: str = "") -> SourceObject:
    return SourceObject(path=path, category=category, name=path, group=group, split=split)


def test_sub_folders_are_categories_and_hidden_files_are_ignored(tmp_path: Path) -> None:
    touch(tmp_path, "chair/a.glb", "chair/b.OBJ", "bed/c.ply", "bed/deep/d.stl", ".git/e.off", "chair/.f.off", "g.off")
    listing = listed(tmp_path)
    assert {o.path: o.category for o in listing.objects} == {
        "bed/c.ply": "bed",
        "bed/deep/d.stl": "bed",
        "chair/a.glb": "chair",
        "chair/b.OBJ": "chair",
        "g.off": None,
    }
    assert "Objects without a category, used without a label: 1." in listing.notes


def test_materials_textures_and_lists_are_no_objects(tmp_path: Path) -> None:
    touch(tmp_path, "chair/a.obj", "chair/a.mtl", "chair/a.png", "chair/b.bin", "bed/b.obj", "bed/b2.obj")
    touch(tmp_path, "lists/train.txt", "lists/objects.xyz", "classes.txt", "bed/readme.txt", content="chair\nbed\n")
    listing = listed(tmp_path)
    assert [o.path for o in listing.objects] == ["bed/b.obj", "bed/b2.obj", "chair/a.obj"]
    notes = " ".join(listing.notes)
    assert "Text files without coordinates, ignored: 2, such as classes.txt." in notes
    assert "Other files, ignored: 3 (1 .mtl, 1 .png, 1 .bin)." in notes
    assert "The sub-folder lists/ was not searched for shapes." in notes


def test_text_files_with_coordinates_are_clouds(tmp_path: Path) -> None:
    touch(tmp_path, "chair/a.txt", "chair/b.csv", content="0,0,0\n1,2,3\n")
    assert [o.path for o in listed(tmp_path).objects] == ["chair/a.txt", "chair/b.csv"]


def test_unsupported_formats_are_named_with_a_way_out(tmp_path: Path) -> None:
    touch(tmp_path, "chair/a.glb", "chair/a.fbx")
    (failure,) = listed(tmp_path).failures
    assert (failure.path, failure.reason) == ("chair/a.fbx", "unsupported")
    assert "convert it to .glb" in failure.detail


def test_one_object_per_sub_folder_means_no_categories(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{name}.glb" for name in ("sofa", "bed", "lamp")))
    listing = listed(tmp_path)
    assert {o.category for o in listing.objects} == {None}
    assert "Each of the 3 sub-folders holds one object" in listing.notes[0]


def test_train_and_test_folders_are_splits(tmp_path: Path) -> None:
    touch(tmp_path, "chair/train/a.off", "chair/train/b.off", "chair/test/c.off", "bed/test/d.off")
    found = {o.path: (o.category, o.split) for o in listed(tmp_path).objects}
    assert found["chair/train/a.off"] == ("chair", "train")
    assert found["chair/test/c.off"] == ("chair", "test")
    assert found["bed/test/d.off"] == ("bed", "test")


def test_labels_csv_decides(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.glb", "x/b.glb", "x/c.glb", "x/unlisted.glb")
    text = "\ufeffpath, category, name, group, split\nx/a.glb,chair,My chair,g1,train\nx/b.glb,,,,pretrain\n"
    touch(tmp_path, "labels.csv", content=text + '"x/c.glb",bed,"a, b",,test\n')
    listing = listed(tmp_path)
    first, second, third = listing.objects
    assert (first.category, first.name, first.group, first.split) == ("chair", "My chair", "g1", "train")
    assert (second.category, second.name, second.split) == (None, "b", "pretrain")
    assert third.name == "a, b"
    assert "Files that are not in labels.csv, left out: 1." in listing.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,category\nx/gone.glb,chair\n", "'x/gone.glb' is listed but there is no such file"),
        ("path,category\nx/a.glb,chair\nx/a.glb,bed\n", "line 3: 'x/a.glb' is listed twice"),
        ("path,category,colour\nx/a.glb,chair,red\n", r"must be path,category.*got path,category,colour"),
        ("file,class\nx/a.glb,chair\n", r"must be path,category.*got file,class"),
        ("path,category,split\nx/a.glb,chair,val\n", "line 2: unknown split 'val'; expected train, test, pretrain"),
        ("path,category\nx/a.glb,chair,with,commas\n", "line 2: more values than columns"),
        ("path,category\n", "it lists no file"),
        ("", "got nothing"),
    ],
)
def test_errors_of_labels_csv_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    touch(tmp_path, "x/a.glb")
    touch(tmp_path, "labels.csv", content=text)
    with pytest.raises(DataError, match=message):
        listed(tmp_path)


def test_labels_of_files_that_are_no_shapes_are_noted_and_never_all(tmp_path: Path) -> None:
    touch(tmp_path, "a.off", "b.fbx", "c.png")
    touch(tmp_path, "labels.csv", content="path,category\na.off,chair\nb.fbx,bed\nc.png,bed\n")
    assert "Listed in labels.csv, but no shapes that can be read: 2, such as b.fbx." in listed(tmp_path).notes
    touch(tmp_path, "labels.csv", content="path,category\nb.fbx,bed\n")
    with pytest.raises(DataError, match=r"labels.csv: there is nothing to prepare\. Listed .* such as b.fbx"):
        listed(tmp_path)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_labels_and_lists_in_other_encodings_are_refused_with_a_way_out(tmp_path: Path, encoding: str) -> None:
    touch(tmp_path, "Stühle/a.off", "Stühle/b.off")
    (tmp_path / "train.txt").write_bytes("Stühle/a.off\n".encode(encoding))
    touch(tmp_path, "test.txt", content="Stühle/b.off\n")
    with pytest.raises(DataError, match=r"train.txt: it is not UTF-8 \(.*\); save it as UTF-8"):
        listed(tmp_path, train_list="train.txt", test_list="test.txt")
    (tmp_path / "labels.csv").write_bytes("path,category\nStühle/a.off,Stühle\n".encode(encoding))
    with pytest.raises(DataError, match=r"labels.csv: it is not UTF-8 \(.*\); save it as UTF-8"):
        listed(tmp_path)


def test_links_to_nothing_and_names_that_are_not_utf8_are_left_out_with_a_reason(tmp_path: Path) -> None:
    touch(tmp_path, "chair/a.off", "bed/b.off", "bed/c.off")
    for name in ("x.off", "x.xyz", "x.png"):
        (tmp_path / "chair" / name).symlink_to("nowhere")
    (tmp_path / "bed" / "c.off").rename(os.fsdecode(bytes(tmp_path / "bed") + b"/box\xe9.off"))
    listing = listed(tmp_path)
    assert [o.path for o in listing.objects] == ["bed/b.off", "chair/a.off"]
    found = {failure.path: (failure.reason, failure.detail) for failure in listing.failures}
    assert found == {
        "bed/box\ufffd.off": ("unreadable", "its name is not UTF-8; rename it"),
        "chair/x.off": ("unreadable", "it is a link to nothing, or a device"),
        "chair/x.xyz": ("unreadable", "it is a link to nothing, or a device"),
    }


def test_lists_decide_the_split_and_drop_the_rest(tmp_path: Path) -> None:
    touch(tmp_path, *(f"chair/{i}.off" for i in range(4)))
    touch(tmp_path, "lists/a.txt", content="# comment\n./chair/0.off\n\nchair/2.off\n")
    touch(tmp_path, "lists/b.txt", content="chair/1.off\n")
    listing = listed(tmp_path, train_list="lists/a.txt", test_list=str(tmp_path / "lists/b.txt"))
    assert {o.path: o.split for o in listing.objects} == {
        "chair/0.off": "train",
        "chair/1.off": "test",
        "chair/2.off": "train",
    }
    assert "Objects in neither list, left out: 1." in listing.notes


def test_lists_of_the_working_directory_win_over_those_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, workspace = tmp_path / "meshes", tmp_path / "ws"
    touch(folder, "chair/0.off", "chair/1.off")
    for place, train, test in ((folder, "0", "1"), (workspace, "1", "0")):
        touch(place, "lists/train.txt", content=f"chair/{train}.off\n")
        touch(place, "lists/test.txt", content=f"chair/{test}.off\n")
    monkeypatch.chdir(workspace)
    listing = listed(folder, train_list="lists/train.txt", test_list="lists/test.txt")
    assert {o.path: o.split for o in listing.objects} == {"chair/0.off": "test", "chair/1.off": "train"}


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("chair/0.off\nchair/9.off", "chair/1.off", "1 of 2 listed files are not in the folder, such as 'chair/9.off'"),
        ("chair/0.off", "chair/0.off", "1 files are in the train and in the test list"),
        ("chair/0.off", "", "the list is empty"),
        ("chair/0.off", None, r"b\.txt: the list is neither in"),
    ],
)
def test_errors_of_lists_name_an_example(tmp_path: Path, train: str, test: str | None, message: str) -> None:
    touch(tmp_path, "chair/0.off", "chair/1.off")
    touch(tmp_path, "a.txt", content=train)
    if test is not None:
        touch(tmp_path, "b.txt", content=test)
    with pytest.raises(DataError, match=message):
        listed(tmp_path, train_list="a.txt", test_list="b.txt")


def test_one_list_alone_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "chair/0.off")
    touch(tmp_path, "a.txt", content="chair/0.off")
    with pytest.raises(DataError, match="belong together"):
        listed(tmp_path, train_list="a.txt")


def test_folders_without_shapes_say_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        listed(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no shapes in it\. It is empty\. Readable formats: \.asc .*\.xyz"):
        listed(tmp_path)
    touch(tmp_path, "a.fbx", "b.jpg")
    with pytest.raises(DataError, match=r"1 files in formats that are not supported, such as a\.fbx"):
        listed(tmp_path)
    with pytest.raises(DataError, match="is a file, not a folder"):
        listed(tmp_path / "a.fbx")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    touch(tmp_path, "chair/a.off")
    (tmp_path / "chair/loop").symlink_to(tmp_path)
    assert [o.path for o in listed(tmp_path).objects] == ["chair/a.off"]


def test_a_split_never_cuts_a_group() -> None:
    objects = [
        make(f"{c}/{i}", category=c, group=f"{c}-{i // 3}" if i else "shared") for c in "abcd" for i in range(40)
    ]
    split = split_groups(objects, test_fraction=0.25, seed=3)
    sides: dict[str, set[str]] = {}
    for o in split:
        sides.setdefault(o.group, set()).add(o.split)
    assert all(len(side) == 1 for side in sides.values())
    for category in "abcd":
        fraction = sum(o.split == "test" for o in split if o.category == category) / 40
        assert 0.15 < fraction < 0.35


def test_a_category_with_one_object_stays_in_train_and_is_noted() -> None:
    objects = [make("a", category="rare", group="a"), *(make(f"b{i}", category="b", group=f"b{i}") for i in range(2))]
    split = split_groups(objects, test_fraction=0.25, seed=0)
    assert split[0].split == "train"
    assert sorted(o.split for o in split[1:]) == ["test", "train"]
    assert split_notes(split) == ["Categories without a test object (1): rare."]


def test_what_leaving_objects_out_changes_about_categories_is_said() -> None:
    listed_objects = [
        make(f"{category}/{i}", category=category, group=f"{category}/{i}", split="test" if i == 0 else "train")
        for category in ("bed", "chair", "lamp")
        for i in range(2)
    ]
    kept = [o for o in listed_objects if o.path not in ("chair/0", "lamp/0", "lamp/1")]
    assert quarantine_notes(listed_objects, kept) == [
        "Categories none of whose objects can be used (1): lamp.",
        "Without what was left out: Categories without a test object (1): chair.",
    ]
    assert quarantine_notes(listed_objects, listed_objects) == []


def test_splits_depend_on_the_seed_only() -> None:
    objects = [make(str(i), category="a", group=str(i)) for i in range(40)]
    first, again, other = (split_groups(objects, test_fraction=0.25, seed=s) for s in (0, 0, 1))
    assert first == again
    assert first != other
    assert split_groups(reversed(objects), test_fraction=0.25, seed=0) == first[::-1]


def test_given_splits_are_kept_and_bind_their_group() -> None:
    objects = [make(str(i), category="a", group=f"g{i // 2}", split="test" if i == 0 else "") for i in range(8)]
    split = split_groups(objects, test_fraction=0.0, seed=0)
    assert [o.split for o in split] == ["test", "test"] + ["train"] * 6


def test_uids_are_unique_readable_and_safe() -> None:
    names = ["a/x y.glb", "b/x y.glb", "a/x y.obj", "ü/../x.glb"]
    uids = [make(name, category=None, group=name).uid for name in names]
    assert len(set(uids)) == 4
    assert uids[0].startswith("x-y-")
    assert all(uid.replace("-", "").replace("_", "").replace(".", "").isalnum() and uid.isascii() for uid in uids)


def test_unlabelled_synthetic_objects_are_others_than_the_labelled_ones() -> None:
    objects = list_synthetic(40, seed=0, unlabelled=10, test_fraction=0.25)
    assert [o.category for o in objects[40:]] == [None] * 10
    assert {o.split for o in objects[40:]} == {"pretrain"}
    assert len({o.synthetic_index for o in objects}) == 50
