"""The data root as the doctor sees it: type, room, renames and locks between real processes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from hpc.doctor import data_root, leftovers, peer
from hpc.doctor.file_systems import Mount, existing, find_mount, mount_of, parse_mounts
from hpc.doctor.place import Place
from hpc.profile import Profile
from sunpipe.config import load_config
from sunpipe.errors import DataError

GIB = 2**30
PEER = [sys.executable, "-u", "-m", "hpc.doctor.peer"]
MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /scratch rw,nosuid - lustre 10.0.0.1@o2ib:/fs rw,flock
31 22 0:41 / /home rw - nfs4 server:/home rw,vers=4.2
32 22 0:42 / /data\\040sets ro - nfs4 server:/data ro
33 22 8:1 /x /scratch/local rw - xfs /dev/sdb rw
34 22 0:43 / /home ro - tmpfs tmpfs ro
broken line
"""


def place(root: Path) -> Place:
    return Place("login", {}, root, load_config(None, ()), None, nodes=2)


def test_the_deepest_and_last_mount_holds_a_path() -> None:
    mounts = parse_mounts(MOUNTS)
    assert len(mounts) == 6

    def kind(path: str) -> tuple[str, bool | None, bool]:
        found = mount_of(Path(path), mounts)
        assert found
        return found.kind, found.shared, found.read_only

    assert kind("/scratch/me/sunpipe") == ("lustre", True, False)
    assert kind("/scratchy") == ("ext4", False, False)
    assert kind("/scratch/local/x") == ("xfs", False, False)
    assert kind("/data sets/x") == ("nfs4", True, True)
    assert kind("/home/me") == ("tmpfs", False, True)  # mounted over the other one
    assert mount_of(Path("/x"), []) is None
    assert find_mount(Path("/proc/self")) is not None


@pytest.mark.parametrize(
    ("mount", "nodes", "level"),
    [(Mount("/s", "lustre", False), 8, "OK"), (Mount("/s", "lustre", True), 1, "MISS"),
     (Mount("/", "ext4", False), 8, "WARN"), (Mount("/", "ext4", False), 1, "OK"),
     (Mount("/s", "fuse.unknown", False), 8, "WARN"), (Mount("/s", "fuse.unknown", False), 1, "OK"),
     (None, 1, "WARN")],
)  # fmt: skip
def test_a_disk_of_one_machine_is_not_for_many(mount: Mount | None, nodes: int, level: str) -> None:
    assert data_root.judge_mount(Path("/s/x"), mount, nodes).level == level


def test_the_node_of_a_job_is_not_the_login_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One node that a profile asks for is another machine, too."""
    for kind, fix in (("ext4", "SUNPIPE_ROOT"), ("fuse.unknown", "--srun")):
        monkeypatch.setattr(data_root, "find_mount", lambda _, kind=kind: Mount("/", kind, False))
        stands = dataclasses.replace(place(tmp_path), nodes=1)
        assert data_root.data_root(stands).level == "OK"
        stands = dataclasses.replace(stands, profile=Profile())
        found = data_root.data_root(stands)
        assert (found.level, fix in found.fix) == ("WARN", True)
        stands = dataclasses.replace(stands, where="allocation")  # this is the node
        assert data_root.data_root(stands).level == "OK"
    shared = data_root.judge_mount(tmp_path, Mount("/s", "lustre", False), 1, True)
    assert shared.level == "OK"


@pytest.mark.parametrize(
    ("free", "files", "level"),
    [(100 * GIB, 10**7, "OK"), (100 * GIB, None, "OK"), (10 * GIB, 10**7, "WARN"),
     (100 * GIB, 50_000, "WARN"), (GIB // 2, 10**7, "MISS"), (100 * GIB, 10, "MISS")],
)  # fmt: skip
def test_room_is_counted_in_bytes_and_files(free: int, files: int | None, level: str) -> None:
    found = data_root.judge_space(free, 200 * GIB, files, "quota -s")
    assert found.level == level
    assert "quota -s" in found.seen + found.fix


def test_a_data_root_that_is_not_there_yet(tmp_path: Path) -> None:
    root = tmp_path / "a/b"
    assert existing(root) == tmp_path
    found = data_root.data_root(place(root))
    assert found.level in ("OK", "WARN")  # by the type of this machine's disk
    assert "GiB free" in data_root.space(place(root)).seen
    assert list(tmp_path.iterdir()) == []


def test_a_data_root_that_cannot_be_written_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert data_root.data_root(place(tmp_path / "file")).level == "MISS"

    def refuses(**_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(leftovers.tempfile, "mkdtemp", refuses)  # root may write anywhere
    found = data_root.data_root(place(tmp_path))
    assert found.level == "MISS"
    assert "Permission denied" in found.seen
    assert "SUNPIPE_ROOT" in found.fix


def test_renames_and_locks_between_two_processes(tmp_path: Path) -> None:
    found = data_root.renames(place(tmp_path))
    assert [(one.name, one.level) for one in found] == [("renames", "OK"), ("locks", "OK")], found
    assert "all whole" in found[0].seen
    assert "held by one at a time" in found[1].seen
    assert list(tmp_path.iterdir()) == []


FALSE_PEER = """\
import sys
sys.stdout.write("set-up says hello\\nready n2\\n")
sys.stdout.flush()
answers = {answers!r}
for line in sys.stdin:
    print(answers.pop(0), flush=True)
"""


@pytest.mark.parametrize(
    ("answers", "faults", "words"),
    [(["torn after 3 reads"], (True, True), "torn (after 3 reads)"),
     (["missing after 3 reads"], (True, True), "missing"),
     (["older: 4 after 9"], (True, True), "older:"),
     (["whole 10 5", "got"], (False, True), "a lock that was held was got"),
     (["whole 10 5", "busy", "busy"], (False, True), "that was given up was busy"),
     (["whole 10 5", "busy", "got"], (False, True), "by two processes at once")],
)  # fmt: skip
def test_what_must_not_be_seen_is_a_fault(
    answers: list[str], faults: tuple[bool, bool], words: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(peer, "READ_S", 0.02)
    code = FALSE_PEER.format(answers=[*answers, *["busy"] * 4])
    rename, lock, node = peer.play(tmp_path, [sys.executable, "-c", code])
    assert node == "n2"
    assert rename.fault == faults[0]
    assert words in rename.words + lock.words
    assert lock.fault == faults[1]


def test_a_dead_peer_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such partition"):
        peer.play(tmp_path, ["bash", "-c", "echo no such partition >&2; exit 1"])
    with pytest.raises(DataError, match="/no/srun"):
        peer.play(tmp_path, ["/no/srun"])
    found = data_root._tried(place(tmp_path), ["/no/srun"], " across nodes")
    assert (found[0].level, len(found)) == ("MISS", 1)


def test_generations_tell_torn_files() -> None:
    assert peer.read_generation(peer.generation(7)) == 7
    assert peer.read_generation(peer.generation(7)[:-100]) is None
    assert peer.read_generation(peer.generation(7)[:800] + peer.generation(8)[800:]) is None
    assert peer.read_generation("") is None


def test_a_data_root_that_cannot_be_is_told_before_it_is_tried(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file/below", Path("/dev/null")):
        found = data_root.data_root(place(root))
        assert (found.level, "is no folder" in found.seen) == ("MISS", True)
    spaced = place(tmp_path / "a b")  # not made yet
    assert data_root.data_root(spaced).level == "MISS"
    assert "only letters, digits" in data_root.data_root(spaced).seen
    alone = dataclasses.replace(spaced, where="no slurm", nodes=1)
    assert data_root.data_root(alone).level == "OK"  # nothing is launched there


def test_a_folder_that_cannot_be_written_to_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/x/.tmp-doctor-1")

    monkeypatch.setattr(data_root, "trial_folder", full)
    (found,) = data_root.renames(place(tmp_path))
    assert found.seen == "could not be tried: No space left on device"
    assert "disk space" in found.fix
