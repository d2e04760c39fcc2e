"""How soon `hafs open` shows its page, and what an open page costs while nothing happens: `python benchmarks/open.py`.

The start is from the command to the whole of the first page, by the clock and by the processor. The idle cost is the
server's processor time in 30 seconds with one page listening.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.request import HTTPCookieProcessor, build_opener

from hafs.store import init_workspace

IDLE = 30.0


def processor_seconds(pid: int) -> float:
    """The processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Start the server three times, and sit by the last one."""
    with tempfile.TemporaryDirectory() as folder:
        init_workspace(folder)
        command = [sys.executable, "-m", "hafs", "open", "--no-browser", "--port", "0", "--workspace", folder]
        starts, costs, idle = [], [], 0.0
        for number in range(3):
            began = time.perf_counter()
            server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert server.stdout is not None
            link = re.split(r"\s+", server.stdout.readline())[1]
            opener = build_opener(HTTPCookieProcessor(CookieJar()))
            opener.open(link).read()
            address = link.partition("?")[0]
            opener.open(f"{address}now").read()
            starts.append(time.perf_counter() - began)
            costs.append(processor_seconds(server.pid))
            if number == 2:
                listening = opener.open(f"{address}events")
                before = processor_seconds(server.pid)
                time.sleep(IDLE)
                idle = (processor_seconds(server.pid) - before) / IDLE
                listening.close()
            server.kill()
            server.wait()
        clock, processor = (", ".join(f"{s:.2f}" for s in found) for found in (starts, costs))
        print(f"start: {clock} s, of the processor {processor} s")
        print(f"RESULT open start_seconds={min(starts):.2f} start_cpu_seconds={min(costs):.2f} idle_share={idle:.4f}")


if __name__ == "__main__":
    main()
