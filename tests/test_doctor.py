"""What the doctor says of a machine where things are missing, and of this one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from hafs import __version__, doctor
from hafs.doctor import Check, checks
from run_hafs import hafs


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without tools, model, bubblewrap or keys."""
    for name in ("HAFS_ASAR", "HAFS_BSNES_CORE", "ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def by_name(device: bool = False) -> dict[str, Check]:
    return {check.name: check for check in checks(device)}


def test_everything_missing_has_its_fix(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hafs.sandbox.landlock.importlib.util.find_spec", lambda name: None)
    found = by_name()
    for name, fix in {
        "sandbox": "hafs[asm]",
        "assembler": "hafs tools install",
        "emulator": "hafs tools install",
        "model": "hafs models pull",
    }.items():
        assert found[name].status == "missing" and fix in found[name].fix, name
    assert found["python"].status == "ok" and found["torch"].status == "ok"
    assert found["judge keys"].status == "warn"
    assert all(check.fix for check in found.values() if check.status == "missing")
    assert {check.status for check in found.values()} <= {"ok", "warn", "missing"}
    assert not (bare / "cache").exists()


def test_keys_are_seen_and_never_shown(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    found = by_name()
    assert found["judge keys"].status == "ok"
    assert "OPENAI_API_KEY is set" in found["judge keys"].detail
    assert "very-secret" not in str([check.to_dict() for check in found.values()])


def test_programs_that_do_not_work_are_missing(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = bare / "asar"
    broken.write_text("#!/bin/sh\necho 'no such library' >&2; exit 1\n")
    broken.chmod(0o755)
    core = bare / "core.so"
    core.write_text("not a library")
    monkeypatch.setenv("HAFS_ASAR", str(broken))
    monkeypatch.setenv("HAFS_BSNES_CORE", str(core))
    found = by_name()
    assert found["assembler"].status == "missing" and "no such library" in found["assembler"].detail
    assert found["emulator"].status == "missing" and "core.so" in found["emulator"].detail


def test_another_assembler_is_a_warning(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = bare / "asar"
    other.write_text("#!/bin/sh\necho 'Asar 1.81, originally developed by Alcaro'\n")
    other.chmod(0o755)
    monkeypatch.setenv("HAFS_ASAR", str(other))
    assert by_name()["assembler"].status == "warn"


def test_little_disk_is_a_warning(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hafs.doctor.ROOM", 1 << 60)
    found = by_name()
    assert found["disk (cache)"].status == found["disk (here)"].status == "warn"


def test_torch_is_imported_only_when_the_device_is_asked_for() -> None:
    script = "import sys; from hafs.doctor import checks; checks(); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "False\n"
    assert by_name(device=True)["device"].status == "ok"


def test_what_trains_on_the_card_that_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    card = SimpleNamespace(name="A card of 16 GB", total_memory=16 * 10**9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: card)
    found = {check.name: check for check in doctor._torch_device()}
    assert found["device"].detail == "A card of 16 GB, 15 GiB"
    assert "14B at 2,048 tokens" in found["trains by QLoRA"].detail
    assert "3B at 512 tokens" in found["trains by LoRA bf16"].detail
    assert "--quantize nf4" in found["trains by QLoRA"].fix
    card.total_memory = 2 * 10**9
    assert all("no model" in c.detail for c in doctor._torch_device() if c.name.startswith("trains"))


def test_without_a_card_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor.Path, "exists", lambda path: False)
    assert "no card is seen" in {check.name: check for check in doctor._torch_device()}["training"].detail


@pytest.mark.tools
@pytest.mark.model
def test_a_machine_that_is_set_up_is_well() -> None:
    found = by_name()
    missing = [check for check in found.values() if check.status == "missing"]
    assert missing == []
    assert "Asar 1.91" in found["assembler"].detail
    assert "bsnes-mercury v094 (Balanced)" in found["emulator"].detail


def test_extras_are_listed_with_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_here", lambda needed: needed.name != "trl")
    (found,) = doctor._extras()
    assert found.status == "warn" and "trl lacks trl" in found.detail and found.fix == "pip install 'hafs[trl]'"
    assert {"judge", "serve", "quant"} <= set(found.detail.split("; ")[0].split(", ")) and "dev" not in found.detail


def test_the_version_and_what_help_says() -> None:
    assert hafs("--version").ok().out == f"hafs {__version__}\n"
    assert "[required]" in hafs("train", "dpo", "--help").ok().out
    assert "--install-completion" in hafs("--help").ok().out
