from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from prefect_mlpipe.core.leases import leases as leases_module
from prefect_mlpipe.core.leases import local_leases, processes
from prefect_mlpipe.core.leases.heart import heart
from prefect_mlpipe.core.leases.leases import EXPIRES_S, Holder, Leases
from prefect_mlpipe.core.leases.local_leases import LocalLeases
from prefect_mlpipe.core.leases.processes import Process, has_ended, here
from prefect_mlpipe.core.places.backends import LocalBackend
from prefect_mlpipe.core.places.remote_backend import RemoteBackend
from prefect_mlpipe.core.store import Store
from tests.core.stores import creates_once, python, reopened

KEY, OTHER = "ab" * 32, "cd" * 32


class Clock:
    """The monotonic clock of this process as the leases see it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(leases_module, "time", made)
    return made


@pytest.fixture
def runs(store: Store, clock: Clock) -> Iterator[list[Leases]]:
    """The leases of four runs of one store; time stands still."""
    made = [store.leases(f"run-{number}", "digits") for number in range(4)]
    yield made
    for leases in made:
        leases.close()


def folder(store: Store) -> Path:
    return Path(store.url, "leases")


def left(store: Store) -> list[str]:
    """What there is of leases and presences; what only serves to remove them is not counted."""
    entries = store._backend.list("leases")
    return sorted({entry.name for entry in entries} - {"leases/succession", "leases/create-once"})


def freed(leases: Leases, key: str = KEY) -> bool:
    """Whether a key can be taken; a remote lease is removed by another thread."""
    leases.tidy()
    return leases.holder(key) is None


# --- one has it ---


def test_one_run_has_the_lease_of_a_key_and_the_others_are_told_who(runs: list[Leases]) -> None:
    assert runs[0].take(KEY)
    assert [leases.take(KEY) for leases in runs[1:]] == [False, False, False]
    assert runs[1].take(OTHER)
    holder = runs[2].holder(KEY)
    assert holder is not None
    process = here()
    assert str(holder) == (
        f"run run-0 of pipeline 'digits' (host {process.host}, process {process.pid})"
    )


def test_what_is_given_back_can_be_taken(runs: list[Leases]) -> None:
    assert runs[0].take(KEY)
    runs[0].release(KEY)
    assert freed(runs[0])
    assert runs[1].take(KEY)
    runs[0].release(KEY)  # it is not his any more
    assert not freed(runs[2])


def test_a_run_that_ends_leaves_nothing(store: Store, runs: list[Leases]) -> None:
    assert all(runs[0].take(f"{number:064x}") for number in range(20))
    runs[0].renew()
    runs[0].close()
    assert left(store) == []
    assert runs[1].take(f"{7:064x}")


def test_a_run_that_takes_nothing_writes_nothing(store: Store) -> None:
    store.prepare()
    leases = store.leases("run", "digits")
    assert leases.holder(KEY) is None
    leases.close()
    assert left(store) == []
    assert leases not in heart._alive


def test_of_many_at_once_exactly_one_gets_each_key(store: Store) -> None:
    keys = [f"{number:064x}" for number in range(50 if store.is_local else 8)]
    runs = [store.leases(f"run-{number}", "digits") for number in range(8)]
    ready = threading.Barrier(8)

    def take_all(leases: Leases) -> list[str]:
        ready.wait()
        return [key for key in keys if leases.take(key)]

    with ThreadPoolExecutor(8) as pool:
        taken = [key for keys in pool.map(take_all, runs) for key in keys]
    for leases in runs:
        leases.close()
    if not creates_once(store):  # there two may have one, and both compute it
        taken = list(set(taken))
    assert sorted(taken) == keys


# --- many in one ---

MANY = [f"{number:064x}" for number in range(60)]


def test_who_takes_many_gets_those_that_nobody_has(runs: list[Leases]) -> None:
    assert runs[0].take(MANY[5])
    assert runs[1].take_many(MANY[:20]) == {*MANY[:20]} - {MANY[5]}
    assert runs[1].take_many(MANY[:20]) == {*MANY[:20]} - {MANY[5]}
    assert runs[2].take_many(MANY[10:40]) == {*MANY[20:40]}
    assert not runs[3].take(MANY[30])
    assert [str(runs[3].holder(key))[:9] for key in (MANY[30], MANY[0], MANY[5])] == [
        *("run run-2", "run run-1", "run run-0")
    ]
    assert runs[3].take(MANY[50])


def test_of_many_that_are_given_back_each_can_be_taken(store: Store, runs: list[Leases]) -> None:
    assert runs[0].take_many(MANY[:10]) == {*MANY[:10]}
    for key in MANY[:10]:
        runs[0].release(key)
    assert all(freed(runs[0], key) for key in MANY[:10])
    assert runs[1].take_many(MANY[:12]) == {*MANY[:12]}
    runs[1].close()
    runs[0].close()
    assert left(store) == []


def test_no_key_is_had_twice_whatever_is_taken_one_by_one_or_together(local: Store) -> None:
    """What two have claimed at the same time nobody has, and one of them gets it then."""
    ready = threading.Barrier(8)

    def take(number: int) -> tuple[Leases, list[str]]:
        leases, chance = local.leases(f"run-{number}", "digits"), random.Random(number)
        ready.wait()
        taken: list[str] = []
        for _ in range(40):
            some = chance.sample(MANY, chance.choice([1, 2, 7, 20]))
            together = [leases.take_many(some)] if len(some) > 2 else []
            got = together[0] if together else {key for key in some if leases.take(key)}
            taken += sorted(got.difference(taken))
        return leases, taken

    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(take, range(8)))
    taken = [key for _, keys in runs for key in keys]
    assert sorted(taken) == sorted(set(taken))
    assert len(taken) > 30
    rest = {key for key in MANY if key not in taken}
    assert {key for key in rest if runs[0][0].take(key)} == rest
    for leases, _ in runs:
        leases.close()
    assert left(local) == []


def test_a_claim_that_is_still_being_written_is_seen_when_it_is_there(local: Store) -> None:
    runs = [local.leases(f"run-{number}", "digits") for number in range(2)]
    assert runs[0].take_many(MANY[:8]) == {*MANY[:8]}
    (path,) = (folder(local) / "claims").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:70])
    seen = [runs[1].holder(key) is not None for key in MANY[:8]]
    assert seen.count(True) == 1
    path.write_bytes(whole)
    assert all(runs[1].holder(key) is not None for key in MANY[:8])
    runs[0].close()


def test_a_claim_without_a_presence_holds_nothing(local: Store) -> None:
    lost = local.leases("lost", "digits")
    assert lost.take_many(MANY) == {*MANY}
    heart.remove(lost)
    for path in (folder(local) / "holders").iterdir():
        path.unlink()
    leases = local.leases("run", "digits")
    assert leases.holder(MANY[0]) is None
    assert leases.take_many(MANY) == {*MANY}
    lost.close()
    assert local.leases("other", "digits").holder(MANY[3]) is not None
    leases.close()
    assert left(local) == []


# --- holders that are gone ---


def test_a_holder_that_renews_is_not_succeeded_however_long_it_takes(
    runs: list[Leases], clock: Clock
) -> None:
    assert runs[0].take(KEY)
    heart.remove(runs[0])  # else its thread may renew at any moment
    for _ in range(10):
        assert runs[1].holder(KEY) is not None
        clock.now += EXPIRES_S * 0.9
        renew_later(runs[0])
    assert not runs[1].take(KEY)


def renew_later(leases: Leases) -> None:
    """Renew, and let the clock of the file system have moved on, which may tick slowly."""
    paths = getattr(leases, "_presences", [])
    before = [os.stat(path).st_mtime_ns for path in paths]
    leases.renew()
    for path, renewed in zip(paths, before, strict=True):
        os.utime(path, ns=(renewed + 10**9, renewed + 10**9))


def test_a_holder_that_stopped_to_renew_is_succeeded_when_its_time_is_over(
    store: Store, runs: list[Leases], clock: Clock
) -> None:
    assert runs[0].take(KEY)
    heart.remove(runs[0])
    assert runs[1].holder(KEY) is not None
    clock.now += EXPIRES_S - 1
    assert runs[1].holder(KEY) is not None
    assert not runs[1].take(KEY)
    clock.now += 2
    assert runs[1].holder(KEY) is None
    assert runs[1].take(KEY)
    assert not runs[2].take(KEY)
    assert str(runs[2].holder(KEY)).startswith("run run-1 ")


def test_a_holder_is_watched_anew_by_whoever_comes_later(runs: list[Leases], clock: Clock) -> None:
    assert runs[0].take(KEY)
    heart.remove(runs[0])
    clock.now += 10 * EXPIRES_S  # nobody watched: the machine may have slept
    assert runs[1].holder(KEY) is not None


def test_one_that_was_succeeded_takes_nothing_from_its_successor(
    runs: list[Leases], clock: Clock
) -> None:
    assert runs[0].take(KEY)
    heart.remove(runs[0])
    assert runs[1].holder(KEY) is not None
    clock.now += EXPIRES_S + 1
    assert runs[1].holder(KEY) is None
    assert runs[1].take(KEY)
    runs[0].renew()  # it wakes up
    runs[0].release(KEY)
    runs[0].close()
    runs[0].tidy()
    assert str(runs[2].holder(KEY)).startswith("run run-1 ")


def test_one_that_was_succeeded_can_take_leases_again(runs: list[Leases], clock: Clock) -> None:
    assert runs[0].take(KEY)
    heart.remove(runs[0])
    assert runs[1].holder(KEY) is not None
    clock.now += EXPIRES_S + 1
    assert runs[1].holder(KEY) is None
    runs[0].renew()
    assert runs[0].take(OTHER)
    assert str(runs[1].holder(OTHER)).startswith("run run-0 ")
    assert runs[0].problem is None


CRASHED = """
import os, signal, sys
from prefect_mlpipe.core.store import Store
leases = Store(sys.argv[1]).leases("crashed", "digits")
keys = sys.argv[2:]
assert leases.take_many(keys) == set(keys)
os.kill(os.getpid(), signal.SIGKILL)
"""


def crash(store: Store, *keys: str) -> None:
    """Take leases in another process, and kill it."""
    done = subprocess.run(
        [sys.executable, "-c", CRASHED, store.url, *keys],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode < 0


@pytest.mark.parametrize("count", [2, 20])
def test_a_holder_whose_process_has_ended_is_succeeded_at_once(local: Store, count: int) -> None:
    leases = local.leases("run", "digits")
    assert leases.take("11" * 32)
    keys = [f"{number:064x}" for number in range(count)]
    crash(local, *keys)
    assert not leases.take(keys[0])
    assert leases.holder(keys[0]) is None
    assert leases.take(keys[0])
    assert leases.take(keys[1])  # all of its leases went with the first
    leases.close()
    assert left(local) == []


def test_what_a_killed_process_left_is_removed_by_the_next_run_of_anything(local: Store) -> None:
    alive = local.leases("alive", "digits")
    assert alive.take("11" * 32)
    crash(local, *(f"{number:064x}" for number in range(30)))
    assert len(left(local)) == 4  # of each its presence, and its lease or all in one
    leases = local.leases("run", "digits")
    assert leases.take(KEY)
    assert len(left(local)) == 4
    assert not leases.take("11" * 32)
    leases.close()
    alive.close()


def test_what_nobody_can_judge_is_removed_when_it_is_very_old(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = local.leases("elsewhere", "digits")
    assert elsewhere.take(OTHER)
    heart.remove(elsewhere)
    ages_ago = 1_000_000_000
    for path in folder(local).rglob("*"):
        os.utime(path, ns=(ages_ago, ages_ago))
    leases = local.leases("run", "digits")
    assert leases.take(KEY)
    assert leases.take(OTHER)
    leases.close()
    elsewhere.close()


def test_who_comes_second_to_remove_a_lease_does_not_remove_the_new_one(
    local: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, first, second = (local.leases(name, "digits") for name in ("gone", "first", "second"))
    assert isinstance(second, LocalLeases)
    assert gone.take(KEY)
    heart.remove(gone)
    seen = local_leases._look(str(folder(local) / KEY))
    assert seen is not None
    assert first.holder(KEY) is not None
    clock.now += EXPIRES_S + 1
    assert first.holder(KEY) is None
    original = local_leases._look

    def look(path: str) -> object:
        found = original(path)
        assert first.take(KEY)  # right after the other has looked
        return found

    with monkeypatch.context() as patched:
        patched.setattr(local_leases, "_look", look)
        assert second._succeed(KEY, *seen)
    assert not second.take(KEY)
    assert str(second.holder(KEY)).startswith("run first ")
    for leases in (gone, first, second):
        leases.close()


def test_a_torn_lease_expires(local: Store, clock: Clock) -> None:
    local.prepare()
    folder(local).mkdir()
    (folder(local) / KEY).write_bytes(b"")  # its maker was killed between two system calls
    leases = local.leases("run", "digits")
    assert not leases.take(KEY)
    assert str(leases.holder(KEY)) == "another run"
    clock.now += EXPIRES_S + 1
    assert leases.holder(KEY) is None
    assert leases.take(KEY)
    leases.close()


def test_a_child_by_fork_gives_back_nothing_of_its_parent(local: Store) -> None:
    code = """
import os, sys
from prefect_mlpipe.core.store import Store
store = Store(sys.argv[1])
leases = store.leases("parent", "digits")
assert leases.take("ab" * 32)
child = os.fork()
if child == 0:
    leases.release("ab" * 32)
    leases.close()
    own = store.leases("child", "digits")
    took = own.take("cd" * 32)
    own.close()
    os._exit(0 if took else 1)
assert os.waitpid(child, 0)[1] == 0
print(store.leases("other", "digits").holder("ab" * 32).run)
"""
    assert python(code, local.url).split() == ["parent"]


def test_a_process_that_ends_gives_everything_back(local: Store) -> None:
    code = """
import sys
from prefect_mlpipe.core.store import Store
leases = Store(sys.argv[1]).leases("parent", "digits")
print(leases.take("ab" * 32))
"""
    assert python(code, local.url).split() == ["True"]
    assert left(local) == []


# --- places of all kinds ---


def refusing(number: int) -> Any:
    def link(source: str, target: str) -> None:
        raise OSError(number, os.strerror(number))

    return link


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP], ids=["EPERM", "EOPNOTSUPP"])
def test_where_links_are_refused_leases_are_files(
    local: Store, monkeypatch: pytest.MonkeyPatch, clock: Clock, number: int
) -> None:
    monkeypatch.setattr(local_leases.os, "link", refusing(number))
    first, second = local.leases("first", "digits"), local.leases("second", "digits")
    assert first.take(KEY)
    assert first.take(OTHER)
    assert not second.take(KEY)
    assert str(second.holder(KEY)).startswith("run first ")
    first.release(KEY)
    assert second.take(KEY)
    heart.remove(first)
    assert second.holder(OTHER) is not None
    clock.now += EXPIRES_S * 0.9
    renew_later(first)
    assert second.holder(OTHER) is not None
    clock.now += EXPIRES_S * 0.9
    assert second.holder(OTHER) is not None
    clock.now += EXPIRES_S
    assert second.holder(OTHER) is None
    assert (first.problem, second.problem) == (None, None)
    second.close()
    first.close()
    assert left(local) == []


def test_a_presence_that_has_all_the_links_it_can_have_is_joined_by_another(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, counts = os.link, dict[str, int]()

    def link(source: str, target: str) -> None:
        if counts.get(source, 0) >= 3:
            raise OSError(errno.EMLINK, "Too many links")
        original(source, target)
        counts[source] = counts.get(source, 0) + 1

    monkeypatch.setattr(local_leases.os, "link", link)
    leases = local.leases("run", "digits")
    keys = [f"{number:064x}" for number in range(10)]
    assert all(map(leases.take, keys))
    assert len(counts) == 4
    assert leases.problem is None
    other = local.leases("other", "digits")
    assert {str(other.holder(key)).split()[1] for key in keys} == {"run"}
    leases.close()
    assert left(local) == []


def test_where_nothing_can_be_written_every_lease_is_granted_and_the_cause_is_said(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_leases.os, "link", refusing(errno.EROFS))
    first, second = local.leases("first", "digits"), local.leases("second", "digits")
    assert first.take(KEY)
    assert second.take(KEY)
    assert second.problem == "OSError: [Errno 30] Read-only file system"
    second.release(KEY)
    second.close()
    first.close()


def test_a_lease_that_cannot_be_removed_does_not_lock_its_holder_out(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = local.leases("run", "digits")
    assert leases.take(KEY)

    def unlink(path: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(local_leases.os, "unlink", unlink)
        leases.release(KEY)
    assert leases.problem is not None
    assert leases.take(KEY)
    leases.close()


def test_a_remote_place_that_does_not_honour_create_once_is_used_as_best_it_can(
    on_rclone: Store,
) -> None:
    first, second = on_rclone.leases("first", "digits"), on_rclone.leases("second", "digits")
    assert first.take(KEY)
    assert not second.take(KEY)
    assert str(second.holder(KEY)).startswith("run first ")
    first.close()
    assert second.take(KEY)
    second.close()


def test_it_is_found_out_once_in_a_store_whether_create_once_is_honoured(
    remote: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    original = RemoteBackend._create_once

    def create(self: RemoteBackend, name: str, data: bytes) -> bool:
        asked.append(name)
        return original(self, name, data)

    monkeypatch.setattr(RemoteBackend, "_create_once", create)
    for _ in range(2):
        leases = remote.leases("run", "digits")
        assert leases.take(KEY)
        assert leases.take(OTHER)
        leases.close()
    probe, both = "leases/create-once", [f"leases/{KEY}", f"leases/{OTHER}"]
    assert asked == [probe, probe, *both, *both]
    asked.clear()
    leases = reopened(remote).leases("run", "digits")  # by another process
    assert leases.take(KEY)
    leases.close()
    assert asked == [probe, f"leases/{KEY}"]


def test_a_remote_lease_whose_answer_was_lost_is_still_ours(
    remote: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = RemoteBackend.create

    def create(self: RemoteBackend, name: str, data: bytes) -> bool:
        original(self, name, data)  # the answer is lost, and the request is sent again
        return original(self, name, data)

    leases = remote.leases("run", "digits")
    monkeypatch.setattr(RemoteBackend, "create", create)
    assert leases.take(KEY)
    leases.close()


def test_a_remote_place_that_fails_grants_every_lease(
    remote: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = remote.leases("run", "digits")
    files = remote._backend.files  # type: ignore[attr-defined]
    monkeypatch.setattr(files, "pipe_file", refusing(errno.EIO))
    assert leases.take(KEY)
    assert leases.problem is not None
    leases.close()


# --- processes ---


def test_a_process_that_lives_has_not_ended() -> None:
    assert not has_ended(here())


def test_a_process_that_nobody_has_waited_for_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()  # closed when it ends; it stays as a zombie
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    zombie = here()._replace(pid=child.pid, began=began(child.pid))
    assert has_ended(zombie)
    child.wait()
    assert has_ended(zombie)
    child.stdout.close()


def began(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()


def test_a_later_process_of_the_same_id_is_another_one() -> None:
    assert has_ended(here()._replace(began="1"))


def test_of_a_process_elsewhere_nothing_is_said() -> None:
    gone = here()._replace(pid=2**22 - 7, began="1")
    assert has_ended(gone)
    assert not has_ended(gone._replace(space="another boot pid:[4026531836]"))
    assert not has_ended(gone._replace(space=""))


def test_of_a_process_that_is_hidden_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    me = here()
    with monkeypatch.context() as patched:
        patched.setattr(processes, "_facts", lambda pid: None)
        assert not has_ended(me._replace(began="1"))
    assert not has_ended(me._replace(began=""))  # one that could not see itself


def test_a_presence_says_all_that_it_knows() -> None:
    holder = Holder("1-ab", "run", "digits", Process("host", 1, "2", "boot"), 30.0)
    assert Holder.from_bytes(holder.to_bytes()) == holder
    for torn in (b"", b"[]", b"[1", holder.to_bytes()[:-5], b'["a", "b", "c", [1], 2]'):
        assert Holder.from_bytes(torn).token == ""


def test_the_folder_of_leases_belongs_to_the_store(local: Store) -> None:
    assert isinstance(local._backend, LocalBackend)
    leases = local.leases("run", "digits")
    assert leases.take(KEY)
    assert (folder(local) / KEY).samefile(next((folder(local) / "holders").iterdir()))
    leases.close()
